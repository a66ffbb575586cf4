"""Padding and transposed convolution against onnxruntime, NumPy and a plain scatter."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import onnxruntime
import pytest
from command_line import run
from numpy.typing import NDArray
from onnx import TensorProto, helper

import csp_embed as ce
from csp_embed import ops
from csp_embed.compiler.program.verify import judge
from csp_embed.errors import OperatorError
from csp_embed.ops.data import random_tensors
from csp_embed.ops.reference import evaluate

Array = NDArray[Any]


def onnx(kind: str, x: Array, w: Array, **attributes: Any) -> Array:
    """One node of ONNX on int8 values, exact in float32."""
    inputs = [
        helper.make_tensor_value_info(n, TensorProto.FLOAT, a.shape)
        for n, a in (("x", x), ("w", w))
    ]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    node = helper.make_node(kind, ["x", "w"], ["y"], **attributes)
    graph = helper.make_graph([node], "one", inputs, [output])
    opsets = [helper.make_opsetid("", 13)]
    model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    return session.run(None, {"x": x.astype(np.float32), "w": w.astype(np.float32)})[0]


def small(rng: np.random.Generator, *shape: int) -> Array:
    return rng.integers(-128, 128, shape, dtype=np.int8)


def scatter(
    x: Array, w: Array, stride: Any, dilation: Any, pads: Any, more: Any, groups: int
) -> Array:
    """The definition: every input adds its filter, then the borders go."""
    (n, c, h, v), (_, each, r, s) = x.shape, w.shape
    sizes = [stride[d] * ((h, v)[d] - 1) + dilation[d] * ((r, s)[d] - 1) + 1 for d in (0, 1)]
    y = np.zeros((n, each * groups, sizes[0] + more[0], sizes[1] + more[1]), np.int64)
    for ci in range(c):
        g = ci // (c // groups)
        for i, j, a, b in np.ndindex(h, v, r, s):
            at = stride[0] * i + dilation[0] * a, stride[1] * j + dilation[1] * b
            products = x[:, ci, i, j, None].astype(np.int64) * w[None, ci, :, a, b]
            y[:, g * each : (g + 1) * each, at[0], at[1]] += products
    top, left, bottom, right = pads
    return y[:, :, top : y.shape[2] - bottom, left : y.shape[3] - right]


def test_four_numbers_are_top_left_bottom_right() -> None:
    rng = np.random.default_rng(0)
    x, w = small(rng, 1, 2, 5, 6), small(rng, 3, 2, 3, 2)
    op = ops.conv2d(n=1, c=2, h=5, w=6, k=3, r=3, s=2, stride=(2, 1), pad=(0, 2, 1, 3))
    want = onnx("Conv", x, w, strides=[2, 1], pads=[0, 2, 1, 3])
    assert np.array_equal(evaluate(op, {"x": x, "w": w})["acc"], want)
    pairs = ops.conv2d(n=1, c=2, h=5, w=6, k=3, r=3, s=2, stride=(2, 1), pad=((0, 1), (2, 3)))
    assert pairs.text() == op.text()


def test_numbers_of_other_ranks() -> None:
    one = ops.conv1d(n=1, c=1, w=9, k=1, r=3, pad=(0, 4))
    assert one.tensors["y"].shape == (1, 1, 11)
    three = ops.conv3d(n=1, c=1, d=4, h=5, w=6, k=1, t=1, r=1, s=1, pad=(1, 0, 0, 0, 2, 3))
    assert three.tensors["y"].shape == (1, 1, 5, 7, 9)
    for wrong in ((1, 2, 3), (1, 2, 3, 4, 5), ((1, 2, 3), 1), "upper", (-1, 0)):
        with pytest.raises(OperatorError, match="pad"):
            ops.conv2d(n=1, c=1, h=5, w=5, k=1, r=3, s=3, pad=wrong)


def test_same_is_onnx_same_upper() -> None:
    rng, draw = np.random.default_rng(1), random.Random(1)
    for _ in range(30):
        h, v, r, s = (draw.randint(1, 7) for _ in range(4))
        stride = [draw.randint(1, 4), draw.randint(1, 4)]
        x, w = small(rng, 1, 2, h, v), small(rng, 2, 2, r, s)
        op = ops.conv2d(n=1, c=2, h=h, w=v, k=2, r=r, s=s, stride=stride, pad="same")
        want = onnx("Conv", x, w, strides=stride, auto_pad="SAME_UPPER")
        got = evaluate(op, {"x": x, "w": w})["acc"]
        assert got.shape == want.shape
        assert np.array_equal(got, want)


def test_transposed_with_groups_and_dilation_is_a_scatter() -> None:
    rng, draw = np.random.default_rng(2), random.Random(2)
    done = 0
    while done < 120:
        groups = draw.choice([1, 1, 2, 3])
        c, k = groups * draw.randint(1, 3), groups * draw.randint(1, 2)
        h, v, r, s = draw.randint(1, 5), draw.randint(1, 5), draw.randint(1, 4), draw.randint(1, 4)
        stride = [draw.randint(1, 4) for _ in "hw"]
        dilation = [draw.randint(1, 4) for _ in "hw"]
        pads = [draw.randint(0, 2) for _ in range(4)]
        more = [draw.randint(0, step - 1) for step in stride]
        sizes = [
            stride[d] * ((h, v)[d] - 1) + dilation[d] * ((r, s)[d] - 1) + 1
            - pads[d] - pads[d + 2] + more[d] for d in (0, 1)
        ]  # fmt: skip
        given: dict[str, Any] = dict(
            n=1, c=c, h=h, w=v, k=k, r=r, s=s, stride=stride, dilation=dilation, pad=pads,
            output_pad=more, groups=groups,
        )  # fmt: skip
        if min(sizes) < 1:
            with pytest.raises(OperatorError, match="no output is left"):
                ops.conv_transpose2d(**given)
            continue
        x, w = small(rng, 1, c, h, v), small(rng, c, k // groups, r, s)
        got = evaluate(ops.conv_transpose2d(**given), {"x": x, "w": w})["acc"]
        assert np.array_equal(got, scatter(x, w, stride, dilation, pads, more, groups)), given
        if done % 5 == 0:
            want = onnx(
                "ConvTranspose", x, w, strides=stride, dilations=dilation, pads=pads,
                output_padding=more, group=groups,
            )  # fmt: skip
            assert np.array_equal(got, want), given
        done += 1


def test_transposed_same_is_the_input_times_the_stride() -> None:
    rng = np.random.default_rng(3)
    x = small(rng, 1, 2, 4, 3)
    for r, step in [(3, 2), (4, 2), (2, 2), (5, 1), (3, 3)]:
        w = small(rng, 2, 2, r, r)
        op = ops.conv_transpose2d(n=1, c=2, h=4, w=3, k=2, r=r, s=r, stride=step, pad="same")
        assert op.tensors["y"].shape == (1, 2, 4 * step, 3 * step)
        want = onnx("ConvTranspose", x, w, strides=[step, step], auto_pad="SAME_UPPER")
        assert np.array_equal(evaluate(op, {"x": x, "w": w})["acc"], want)
    # Where the filter is smaller than the stride, zeros fill what ONNX's text asks for.
    gap = ops.conv_transpose2d(n=1, c=1, h=3, w=3, k=1, r=2, s=2, stride=4, pad="same")
    assert gap.tensors["y"].shape == (1, 1, 12, 12)


@pytest.mark.parametrize(
    "given",
    [
        dict(c=6, k=6, groups=3, stride=2),
        dict(c=6, k=6, groups=6, stride=2, dilation=2),
        dict(c=4, k=2, groups=2, stride=(3, 2), dilation=(2, 3), pad="same"),
        dict(c=3, k=5, stride=(1, 2), dilation=(2, 1), layout="NHWC"),
    ],
    ids=str,
)
def test_transposed_compiles(given: dict[str, Any]) -> None:
    op = ce.conv_transpose2d(n=1, h=4, w=3, r=3, s=3, shift=4, **given)
    verdict = judge(ce.compile(op), random_tensors(op, 1))
    assert (verdict.verified, verdict.problems) == ("simulated", ())


def test_groups_that_do_not_divide() -> None:
    with pytest.raises(OperatorError, match="c=6 is not a multiple of groups=4"):
        ops.conv_transpose2d(n=1, c=6, h=4, w=3, k=8, r=3, s=3, groups=4)


@pytest.mark.parametrize("isa", ["vta", "toy_dot"])
@pytest.mark.parametrize(
    ("shape", "sides", "steps"),
    [
        ((21, 20, 16), ((0, 1), (1, 3), (0, 0)), []),  # TVM's test_padded_load
        ((5, 7), ((0, 3), (2, 0)), []),
        ((50,), ((3, 7),), [("shr", 1)]),
        ((9, 33), ((2, 2), (0, 31)), [("add", 5), "relu"]),
        ((1, 1), ((1, 1), (1, 1)), []),
    ],
    ids=str,
)
def test_elementwise_padding_is_numpys(
    shape: tuple[int, ...], sides: Any, steps: list[Any], isa: str
) -> None:
    op = ce.elementwise(shape, steps, pad=sides)
    x = np.random.default_rng(4).integers(-60, 60, shape, dtype=np.int32)
    want = np.pad(x, sides)
    for step in steps:
        want = {
            "shr": lambda v: v >> 1, "add": lambda v: v + 5, "relu": lambda v: np.maximum(v, 0),
        }[step if isinstance(step, str) else step[0]](want)  # fmt: skip
    kernel = ce.compile(op, isa=isa)
    assert np.array_equal(kernel.run(x), want.astype(np.int8))
    verdict = judge(kernel, {"x": x})
    assert (verdict.verified, verdict.problems) == ("simulated", ())


def test_padding_at_the_end_alone_is_stated(capsys: pytest.CaptureFixture[str]) -> None:
    """Without `; p < 8` a larger y is a mistake; the hint says how to mean it."""
    args = ["compile", "--shape", "a=5", "--shape", "y=8", "--json"]
    refused = run(capsys, *args, "y[p] = a[p]")
    assert refused.code == 2
    assert "; p < 8" in refused.document["try"]
    assert run(capsys, *args, "y[p] = a[p]; p < 8").document["verified"] == "simulated"


def test_steps_are_not_padded(capsys: pytest.CaptureFixture[str]) -> None:
    shapes = ["--shape", "a=5", "--shape", "b=5", "--shape", "y=5"]
    got = run(capsys, "compile", "y[p] = a[p] + b[p-1]", *shapes)
    assert got.code == 2
    assert "let the program start with b[p-1]" in got.err
    assert run(capsys, "compile", "y[p] = b[p-1] + a[p]", *shapes).code == 0


def test_command_line_pad(capsys: pytest.CaptureFixture[str]) -> None:
    conv = ["compile", "conv2d", "--stride", "2", "--stop-after", "operator", "--show"]
    extents = {"n": 1, "c": 8, "h": 10, "w": 12, "k": 8, "r": 3, "s": 5}
    conv += [word for name, n in extents.items() for word in (f"--{name}", str(n))]
    got = run(capsys, *conv, "--pad", "0,2,1,2")
    assert "x[n,c,2*p+r,2*q+s-2]" in got.out
    assert "p=5 q=6" in got.out
    assert "p=5 q=6" in run(capsys, *conv, "--pad", "same").out
    padded = ["compile", "elementwise", "--shape", "x=4,5", "--pad", "1,0,2,3", "--json"]
    assert run(capsys, *padded).document["verified"] == "simulated"


@pytest.mark.parametrize("make", [ops.conv2d, ops.conv_transpose2d])
@pytest.mark.parametrize("pad", [[1, 0], [1, 0, 0, 1], [[1, 0], [0, 1]], 1])
def test_arrays_are_the_lists_that_they_hold(make: Any, pad: Any) -> None:
    size = {"n": 1, "c": 2, "h": 5, "w": 6, "k": 3, "r": 3, "s": 2}
    plain = make(**size, pad=pad, stride=[2, 1])
    assert make(**size, pad=np.array(pad), stride=np.array([2, 1])) == plain
