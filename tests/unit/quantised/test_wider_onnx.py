"""Operators between stored tensors beyond convolutions: read, computed, and built on the machine.

onnxruntime is the reference for values; that a layer runs on the machine, or why it does not, is
what the rules of docs/networks.md say.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from one_operator import Model, differences

from csp_embed.compiler.network import Built, build
from csp_embed.machine.load import load_isa
from csp_embed.network.quantised.read import read_quantised

SHAPE = (1, 32, 6, 5)
# No ratio of two small integers: with those, sums lie on halves that float32 moves.
X = {"int8": (0.09713, -3), "uint8": (0.09713, 130)}


def every_value(dtype: str, shape: tuple[int, ...] = SHAPE) -> Any:
    low = np.iinfo(dtype).min
    return (np.arange(np.prod(shape)) * 7 % 256 + low).astype(dtype).reshape(shape)


def built(path: Path, feeds: dict[str, Any]) -> Built:
    """The network as a program, equal to the reference."""
    made = build(read_quantised(path), load_isa("vta", None), [feeds])
    assert made.differences == 0
    return made


def begin(dtype: str) -> tuple[Model, str]:
    m = Model()
    return m, m.real(m.input("x", dtype, SHAPE), *X[dtype], dtype)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize(
    ("op", "constants", "attributes", "place"),
    [
        ("Sigmoid", [], {}, "host"),
        ("LeakyRelu", [], {"alpha": 0.1}, "host"),
        ("Mul", [np.float32(0.7331)], {}, "accelerator"),
        ("Mul", [np.float32(-0.7331)], {}, "accelerator"),  # it falls with its input
        ("Sub", [np.float32(0.31)], {}, "accelerator"),
        ("Clip", [np.float32(-1), np.float32(6)], {}, "accelerator"),
    ],
)
def test_functions_of_one_value(
    tmp_path: Path, dtype: str, op: str, constants: list[Any], attributes: Any, place: str
) -> None:
    m, x = begin(dtype)
    y = m.node(op, [x, *map(m.constant, constants)], "y", **attributes)
    path = m.save(tmp_path / "m.onnx", m.quantise(y, 0.0713, X[dtype][1], dtype), dtype)
    feeds = {"x": every_value(dtype)}
    wrong, inside = differences(path, feeds)
    assert wrong == 0
    assert inside > 100
    for layer in built(path, feeds).layers:  # a clip, then another scale: two
        assert (layer.kind in ("Lookup", "Clamp"), layer.where) == (True, place), layer.why


def test_a_factor_by_channel(tmp_path: Path) -> None:
    m, x = begin("int8")
    factor = m.constant(np.linspace(0.4, 1.3, 32, dtype=np.float32).reshape(1, 32, 1, 1))
    y = m.quantise(m.node("Mul", [x, factor], "y"), 0.0913, 4)
    path = m.save(tmp_path / "m.onnx", y)
    feeds = {"x": every_value("int8")}
    assert differences(path, feeds)[0] == 0
    assert built(path, feeds).layers[0].where == "accelerator"


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_pools_and_moves(tmp_path: Path, dtype: str) -> None:
    """Max pools with a border, Resize to the nearest, Slice, a mean with a border that counts."""
    m, x = begin(dtype)
    scale = X[dtype]
    p = m.node("MaxPool", [x], "p", kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    p = m.real(m.quantise(p, *scale, dtype), *scale, dtype)
    up = m.node("Resize", [p, "", m.constant(np.float32([1, 1, 2, 2]))], "up", mode="nearest")
    up = m.real(m.quantise(up, *scale, dtype), *scale, dtype)
    ends = [m.constant(np.array(v, np.int64)) for v in ([1, 0], [5, 6], [2, 3])]
    cut = m.real(m.quantise(m.node("Slice", [up, *ends], "s"), *scale, dtype), *scale, dtype)
    mean = m.node("AveragePool", [cut], "a", kernel_shape=[2, 2], pads=[1, 1, 0, 0],
                  count_include_pad=1)  # fmt: skip
    path = m.save(tmp_path / "m.onnx", m.quantise(mean, 0.06131, scale[1], dtype), dtype)
    feeds = {"x": every_value(dtype)}
    assert differences(path, feeds)[0] == 0
    where = {layer.kind: layer.where for layer in built(path, feeds).layers}
    assert where["MaxPool"] == where["AveragePool"] == "accelerator"


@pytest.mark.parametrize("filling", [0.0, 1.0])
def test_a_resize_that_fills_in_is_no_move(tmp_path: Path, filling: float) -> None:
    """Where the cut reaches beyond the tensor, what is filled in is no element of it."""
    m, x = begin("int8")
    scale = X["int8"]
    roi = m.constant(np.float32([0, 0, -0.5, 0, 1, 1, 1, 1.5]))
    sizes = m.constant(np.array([2, 32, 6, 6], np.int64))
    up = m.node("Resize", [x, roi, "", sizes], "up", mode="nearest",
                coordinate_transformation_mode="tf_crop_and_resize",
                extrapolation_value=filling)  # fmt: skip
    up = m.real(m.quantise(up, *scale), *scale)
    y = m.quantise(m.node("Relu", [up], "y"), *scale)
    path = m.save(tmp_path / "m.onnx", y)
    assert differences(path, {"x": every_value("int8")})[0] == 0


def test_softmax_between_layers_is_the_hosts(tmp_path: Path) -> None:
    m = Model()
    x = m.real(m.input("x", "int8", (2, 16)), 0.1, 3)
    soft = m.quantise(m.node("Softmax", [x], "s", axis=-1), 1 / 256, -128)
    w = m.constant(np.arange(-24, 24, dtype=np.int8).reshape(16, 3))
    names = [soft, *m.scale(1 / 256, -128), w, *m.scale(0.25, 0), *m.scale(0.03125, 0)]
    path = m.save(tmp_path / "m.onnx", m.node("QLinearMatMul", names, "y"))
    feeds = {"x": every_value("int8", (2, 16))}
    assert differences(path, feeds)[0] == 0
    first, second = built(path, feeds).layers
    assert (first.where, second.where) == ("host", "accelerator")
    assert "Softmax in floating point" in first.why


def test_products_of_a_part_outside_are_counted(tmp_path: Path) -> None:
    """A transposed convolution, which onnxruntime computes in floats: 4 x 6 x 5 x 32 x 8."""
    m, x = begin("int8")
    w = m.constant(np.full((32, 8, 2, 2), 0.01, np.float32))
    y = m.node("ConvTranspose", [x, w], "t", strides=[2, 2])
    graph = read_quantised(m.save(tmp_path / "m.onnx", m.quantise(y, 0.0713, 3)))
    assert [graph.macs(op) for op in graph.operators] == [4 * 6 * 5 * 32 * 8]


@pytest.mark.parametrize("sizes", [(32, 16), (32, 40)])
def test_concatenation_by_address(tmp_path: Path, sizes: tuple[int, int]) -> None:
    """Two products side by side, one of them at another scale, then a third over both."""
    rng = np.random.default_rng(4)
    m = Model()
    x = m.input("x", "int8", (3, 32))
    parts = []
    for n, (k, scale) in enumerate(zip(sizes, (1.0, 0.8), strict=True)):
        w = m.constant(rng.integers(-20, 20, (32, k)).astype(np.int8))
        names = [x, *m.scale(0.1, -3), w, *m.scale(0.05, 0), *m.scale(scale, n)]
        parts += [m.node("QLinearMatMul", names, f"p{n}"), *m.scale(scale, n)]
    both = m.node("QLinearConcat", [*m.scale(1.0, 0), *parts], "both", axis=1)
    w = m.constant(rng.integers(-20, 20, (sum(sizes), 10)).astype(np.int8))
    names = [both, *m.scale(1.0, 0), w, *m.scale(0.05, 0), *m.scale(9.0, 0)]
    path = m.save(tmp_path / "m.onnx", m.node("QLinearMatMul", names, "y"))
    feeds = {"x": every_value("int8", (3, 32))}
    assert differences(path, feeds)[0] == 0
    made = built(path, feeds)
    assert len(made.segments) == 1
    assert {r.kind: r.where for r in made.layers}["Concat"] == "none"


def test_weights_with_a_zero_point(tmp_path: Path) -> None:
    m = Model()
    x = m.input("x", "uint8", (5, 24))
    rng = np.random.default_rng(5)
    w = m.constant(rng.integers(0, 256, (24, 20)).astype(np.uint8))
    names = [x, *m.scale(0.513, 7, "uint8"), w, *m.scale(0.2513, 131, "uint8")]
    names += m.scale(13.713, 120, "uint8")
    path = m.save(tmp_path / "m.onnx", m.node("QLinearMatMul", names, "y"), "uint8")
    feeds = {"x": every_value("uint8", (5, 24))}
    wrong, inside = differences(path, feeds)
    assert (wrong, inside > 20) == (0, True)
    assert built(path, feeds).layers[0].where == "accelerator"


def test_groups_that_do_not_fill_the_lanes(tmp_path: Path) -> None:
    m, rng = Model(), np.random.default_rng(6)
    x, scale = m.input("x", "int8", (1, 16, 5, 5)), (0.09713, -3)
    for n, groups in enumerate((1, 4, 1)):
        w = m.constant(rng.integers(-60, 60, (16, 16 // groups, 3, 3)).astype(np.int8))
        after = 2.013 + n, n
        names = [x, *m.scale(*scale), w, *m.scale(0.05, 0), *m.scale(*after)]
        x = m.node("QLinearConv", names, f"y{n}", group=groups, pads=[1] * 4)
        scale = after
    path = m.save(tmp_path / "m.onnx", x)
    feeds = {"x": every_value("int8", (1, 16, 5, 5))}
    assert differences(path, feeds)[0] == 0
    assert [r.where for r in built(path, feeds).layers] == ["accelerator"] * 3


def test_a_dense_layer_behind_a_flattened_image(tmp_path: Path) -> None:
    """Channels before rows: its lanes cross those that the convolution stores. The host packs the
    flattened image, and all products stay the machine's."""
    m, x = begin("int8")
    rng = np.random.default_rng(5)
    w = m.real(m.constant(rng.integers(-99, 99, (10, 32, 3, 3), np.int8)), 0.01, 0)
    y = m.node("Conv", [x, w], "c", pads=[1, 1, 1, 1], strides=[2, 2])
    y = m.real(m.quantise(m.node("Relu", [y], "r"), 0.31, -128), 0.31, -128)
    flat = m.real(m.quantise(m.node("Flatten", [y], "f"), 0.31, -128), 0.31, -128)
    v = m.real(m.constant(rng.integers(-99, 99, (90, 7), np.int8)), 0.013, 0)
    z = m.quantise(m.node("Gemm", [flat, v], "g"), 1.7, 3)
    path = m.save(tmp_path / "m.onnx", z)
    feeds = {"x": every_value("int8")}
    assert differences(path, feeds)[0] == 0
    d = built(path, feeds).document()
    assert d["macs_on_accelerator"] == d["macs"] > 90 * 7
