"""TFLite files written here, read, computed, and compared with scalar integers."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csp_embed.errors import InputError
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.reference.run import run
from csp_embed.network.quantised.tflite.graph import read_tflite
from tests.oracles.integer_rules import conv, half_away, q31_of, requantised
from tests.oracles.tflite_writer import Written

VALID, SAME = 1, 0


def saved(path: Path, model: Written, inputs: list[int], outputs: list[int], **more: Any) -> Path:
    file = path / "m.tflite"
    file.write_bytes(model.content(inputs, outputs, **more))
    return file


@pytest.mark.parametrize("groups", [1, 6])
@pytest.mark.parametrize(("stride", "dilation", "activation"), [(1, 1, 0), (2, 1, 1), (1, 2, 3)])
def test_conv_equals_scalar_integers(
    tmp_path: Path, groups: int, stride: int, dilation: int, activation: int
) -> None:
    rng = np.random.default_rng([groups, stride, dilation])
    k = 12
    scales = rng.uniform(0.002, 0.02, k).astype(np.float32)
    # The file's own order: OHWI, and 1HWO for depthwise.
    w = rng.integers(-127, 128, (k, 3, 3, 6 // groups)).astype(np.int8)
    stored = w if groups == 1 else np.ascontiguousarray(w.transpose(3, 1, 2, 0))
    bias = rng.integers(-3000, 3000, k).astype(np.int32)
    m = Written()
    x = m.tensor("x", (1, 7, 7, 6), scales=0.05, zeros=-9)
    filters = m.constant("w", stored, scales, np.zeros(k), 0 if groups == 1 else 3)
    b = m.constant("b", bias, 0.05 * scales, np.zeros(k))
    extent = -(-7 // stride)
    y = m.tensor("y", (1, extent, extent, k), scales=0.06, zeros=4)
    table = "Conv2DOptions" if groups == 1 else "DepthwiseConv2DOptions"
    options = {"Padding": SAME, "StrideH": stride, "StrideW": stride}
    options |= {"DilationHFactor": dilation, "DilationWFactor": dilation}
    options |= {"FusedActivationFunction": activation}
    if groups > 1:
        options["DepthMultiplier"] = 2
    kind = "CONV_2D" if groups == 1 else "DEPTHWISE_CONV_2D"
    m.operator(kind, [x, filters, b], y, table, **options)
    graph = read_tflite(saved(tmp_path, m, [x], [y]))
    data = rng.integers(-128, 128, (1, 7, 7, 6)).astype(np.int8)
    xs, ys = float(np.float32(0.05)), float(np.float32(0.06))
    multipliers = [q31_of(xs * float(s) / ys) for s in scales]
    clamp = {0: (-128, 127), 1: (4, 127), 3: (4, 104)}[activation]  # 6 / 0.06 = 100 above zero
    # A stride of 2 on 7 pixels needs as much padding before as after: 1, dilated 2.
    expected = conv(
        data[0], w, bias, (-9, 4), multipliers, stride, dilation, dilation, groups, clamp
    )
    found = run(graph, {"x": data})["y"]
    assert np.array_equal(found[0], expected)
    assert len(np.unique(found)) > 20


def test_small_networks_operators_and_ends(tmp_path: Path) -> None:
    """Float ends, pool, add, reshape, dense and softmax in one network; recomputed by hand."""
    rng = np.random.default_rng(7)
    m = Written()
    real = m.tensor("image", (1, 4, 4, 2), "float32")
    x = m.operator("QUANTIZE", [real], m.tensor("x", (1, 4, 4, 2), scales=0.1, zeros=3))
    pools = {"FilterHeight": 2, "FilterWidth": 2, "StrideH": 2, "StrideW": 2, "Padding": VALID}
    names = [("AVERAGE_POOL_2D", "mean"), ("MAX_POOL_2D", "top")]
    mean, top = (
        m.operator(
            kind, [x], m.tensor(n, (1, 2, 2, 2), scales=0.1, zeros=3), "Pool2DOptions", **pools
        )
        for kind, n in names
    )
    total = m.tensor("sum", (1, 2, 2, 2), scales=0.17, zeros=-4)
    m.operator("ADD", [mean, top], total, "AddOptions")
    shape = m.constant("shape", np.array([1, 8], np.int32))
    flat = m.operator("RESHAPE", [total, shape], m.tensor("flat", (1, 8), scales=0.17, zeros=-4))
    w = rng.integers(-127, 128, (5, 8)).astype(np.int8)
    dense = m.tensor("dense", (1, 5), scales=0.9, zeros=10)
    # Without a bias: the third operand is -1.
    m.operator(
        "FULLY_CONNECTED", [flat, m.constant("w", w, 0.02, 0), -1], dense, "FullyConnectedOptions"
    )
    shares = m.tensor("shares", (1, 5), scales=1 / 256, zeros=-128)
    m.operator("SOFTMAX", [dense], shares, "SoftmaxOptions", Beta=1.0)
    out = m.operator("DEQUANTIZE", [shares], m.tensor("out", (1, 5), "float32"))
    graph = read_tflite(saved(tmp_path, m, [real], [out]))
    assert (graph.inputs, graph.outputs) == (("x",), ("shares",))
    assert len(graph.notes) == 2
    data = rng.integers(-128, 128, (50, 4, 4, 2)).astype(np.int8)
    v = run(graph, {"x": data})
    blocks = data.reshape(50, 2, 2, 2, 2, 2).transpose(0, 1, 3, 5, 2, 4).reshape(50, 2, 2, 2, 4)
    assert np.array_equal(v["top"], blocks.max(-1))
    means = [half_away(Fraction(int(s), 4)) for s in blocks.astype(int).sum(-1).reshape(-1)]
    assert np.array_equal(v["mean"].reshape(-1), means)
    xs, ys = float(np.float32(0.1)), float(np.float32(0.17))
    half, whole = q31_of(xs / (2 * xs)), q31_of(2 * xs / (2**20 * ys))
    sums = [
        requantised(
            sum(requantised((int(n) - 3) << 20, *half) for n in pair), *whole
        ) - 4
        for pair in zip(v["mean"].reshape(-1), v["top"].reshape(-1), strict=True)
    ]  # fmt: skip
    assert np.array_equal(v["sum"].reshape(-1), np.clip(sums, -128, 127))
    scale = q31_of(ys * float(np.float32(0.02)) / float(np.float32(0.9)))
    accs = (v["flat"].astype(int) + 4) @ w.T.astype(int)
    wanted = [requantised(int(a), *scale) + 10 for a in accs.reshape(-1)]
    assert np.array_equal(v["dense"].reshape(-1), np.clip(wanted, -128, 127))
    reals = np.exp((v["dense"] - 10.0) * 0.9)
    exact = reals / reals.sum(-1, keepdims=True) * 256 - 128
    # The fixed-point softmax is within one step of the real one.
    assert np.abs(v["shares"] - np.clip(exact, -128, 127)).max() <= 1


def streaming(before_dense: str = "") -> Written:
    """Two steps of the past beside the new one, kept in a variable; a sigmoid at the end."""
    once, m = Written(), Written()
    quant = {"scales": 0.1, "zeros": -3}
    handle = once.tensor("handle", (), "resource")
    once.operator("VAR_HANDLE", [], handle, "VarHandleOptions", SharedName="past")
    first = once.constant("first", np.full((1, 2, 1, 4), -3, np.int8), 0.1, -3)
    once.operator("ASSIGN_VARIABLE", [handle, first], -1)
    x = m.tensor("x", (1, 1, 1, 4), **quant)
    m.operator("CALL_ONCE", [], -1, "CallOnceOptions", InitSubgraphIndex=1)
    handle = m.tensor("handle", (), "resource")
    m.operator("VAR_HANDLE", [], handle, "VarHandleOptions", SharedName="past")
    past = m.operator("READ_VARIABLE", [handle], m.tensor("past", (1, 2, 1, 4), **quant))
    both = m.tensor("both", (1, 3, 1, 4), **quant)
    m.operator("CONCATENATION", [past, x], both, "ConcatenationOptions", Axis=1)
    at = [np.array(v, np.int32) for v in ([0, 1, 0, 0], [0, 3, 0, 0], [1, 1, 1, 1])]
    ends = [m.constant(f"at{i}", v) for i, v in enumerate(at)]
    new = m.tensor("new", (1, 2, 1, 4), **quant)
    masks = {"BeginMask": 13, "EndMask": 13}
    m.operator("STRIDED_SLICE", [both, *ends], new, "StridedSliceOptions", **masks)
    m.operator("ASSIGN_VARIABLE", [handle, new], -1)
    # The shape is computed by an operator that has no integer meaning: nobody minds.
    shape = m.operator("SHAPE", [both], m.tensor("shape", (4,), "int32"), "ShapeOptions")
    flat = m.tensor("flat", (1, 12), **quant)
    m.operator("RESHAPE", [both, shape], flat)
    if before_dense:
        flat = m.operator(before_dense, [flat], m.tensor("odd", (1, 12), **quant))
    w = m.constant("w", np.arange(-18, 18, dtype=np.int8).reshape(3, 12), 0.02, 0)
    dense = m.tensor("dense", (1, 3), scales=0.05, zeros=2)
    m.operator("FULLY_CONNECTED", [flat, w, -1], dense, "FullyConnectedOptions")
    m.operator("LOGISTIC", [dense], m.tensor("y", (1, 3), scales=1 / 256, zeros=-128))
    m.once = once
    return m


def test_a_streaming_model_keeps_its_past(tmp_path: Path) -> None:
    m = streaming()
    last = len(m.tensors) - 1
    graph = read_tflite(saved(tmp_path, m, [0], [last]))
    assert graph.inputs == ("x", "past")
    assert graph.outputs == ("new", "dense")
    assert graph.notes == (
        "output new is input past of the next call; it begins with -3 everywhere",
        "output y is the host's: LOGISTIC",
    )
    rng = np.random.default_rng(0)
    past = np.full((1, 2, 1, 4), -3, np.int8)
    seen = [past[:, 0:1], past[:, 1:2]]
    scale = q31_of(float(np.float32(0.1)) * float(np.float32(0.02)) / float(np.float32(0.05)))
    w = np.arange(-18, 18).reshape(3, 12)
    for _ in range(5):
        x = rng.integers(-128, 128, (1, 1, 1, 4)).astype(np.int8)
        seen.append(x)
        values = run(graph, {"x": x, "past": past})
        past = values["new"]
        window = np.concatenate(seen[-3:], axis=1).reshape(-1).astype(int)
        wanted = [requantised(int(a), *scale) + 2 for a in w @ (window + 3)]
        assert values["dense"].reshape(-1).tolist() == np.clip(wanted, -128, 127).tolist()


def test_the_host_may_not_stand_before_a_layer_with_sums(tmp_path: Path) -> None:
    m = streaming("LOGISTIC")
    last = len(m.tensors) - 1
    file = saved(tmp_path, m, [0], [last])
    assert "LOGISTIC" in refusal(file).what


def one_dense(dtype: str = "int8", **more: Any) -> tuple[Written, int, int]:
    m = Written()
    scales = {} if dtype == "float32" else {"scales": 0.1, "zeros": 0}
    x = m.tensor("x", (1, 4), dtype, **scales)
    y = m.tensor("y", (1, 3), dtype, **scales)
    w = m.constant("w", np.ones((3, 4), dtype), **scales)
    m.operator(more.get("kind", "FULLY_CONNECTED"), [x, w, -1], y, "FullyConnectedOptions")
    return m, x, y


def refusal(path: Path) -> InputError:
    with pytest.raises(InputError) as caught:
        read_tflite(path)
    assert str(path) in caught.value.where
    assert caught.value.hint
    return caught.value


def test_a_float_model_is_told_how_to_become_integer(tmp_path: Path) -> None:
    m, x, y = one_dense("float32")
    error = refusal(saved(tmp_path, m, [x], [y]))
    assert "floating point" in error.what
    assert "representative_dataset" in error.hint


def test_unknown_operators_are_named(tmp_path: Path) -> None:
    m, x, y = one_dense(kind="SQUARE")
    error = refusal(saved(tmp_path, m, [x], [y]))
    assert "SQUARE" in error.what
    assert "operator 0" in error.where


def test_several_subgraphs(tmp_path: Path) -> None:
    m, x, y = one_dense()
    assert "2 subgraphs" in refusal(saved(tmp_path, m, [x], [y], subgraphs=2)).what


@pytest.mark.parametrize("kind", ["dense", "streaming"])
def test_damaged_files(tmp_path: Path, kind: str) -> None:
    """Cut anywhere, or with any word changed: read as before or refused, never another error."""
    m, x, y = one_dense()
    whole = m.content([x], [y])
    if kind == "streaming":
        m = streaming()
        whole = m.content([0], [len(m.tensors) - 1])
    file = tmp_path / "m.tflite"
    refused = 0
    cuts = [whole[:n] for n in range(0, len(whole), 7)]
    words = [
        whole[:at] + bad + whole[at + 4 :]
        for at in range(8, len(whole) - 4, 4)
        for bad in (b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0", b"\x40\0\0\0")
    ]
    for content in (*cuts, *words, b"", b"TFL3", b"\0\0\0\0TFL3"):
        file.write_bytes(content)
        try:
            graph = read_tflite(file)
        except InputError as error:
            refused += bool(error.hint)
        else:
            assert isinstance(graph, g.Graph)
    assert refused > len(cuts)


def test_missing_file(tmp_path: Path) -> None:
    assert "cannot read" in refusal(tmp_path / "none.tflite").what
