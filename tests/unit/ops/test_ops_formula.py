"""The notation: what is understood, which extents follow, and that printing and reading agree."""

from __future__ import annotations

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.ir.operator import Operator
from csp_embed.ops.document import from_document, to_document


def test_a_users_convolution_finds_its_largest_output() -> None:
    op = ops.parse_formula(
        "y[n,k,p] += x[n,c,p+2*r] * w[k,c,r]", {"x": (1, 3, 100), "w": (16, 3, 5)}
    )
    assert dict(op.axes) == {"n": 1, "k": 16, "p": 92, "c": 3, "r": 5}
    assert op.tensors["y"].shape == (1, 16, 92)
    assert op.reduced_axes == ("c", "r")


def test_strided_output_ends_where_the_last_read_is_in_range() -> None:
    op = ops.parse_formula("y[p] += x[3*p+r] * w[r]", {"x": (20,), "w": (4,)})
    assert op.axes["p"] == 6  # 3*5+3 = 18; 3*6+3 = 21 would be outside


def test_indices_are_normalised() -> None:
    op = ops.parse_formula(
        "y[p] += x[ r - 3 + 2*(p - 1) + p*1 ] * w[r - -0]",
        {"x": (30,), "w": (4,), "y": (10,)},
    )
    assert str(op.lhs) == "x[3*p+r-5]"
    assert str(op.rhs) == "w[r]"


def test_roles_follow_positions() -> None:
    op = ops.parse_formula(
        "out[n,m] += act[n,k] * wgt[m,k]; shr 2; add c[m]", {"act": (2, 3), "wgt": (4, 3)}
    )
    kinds = {t.name: (t.dtype, t.constant) for t in op.tensors.values()}
    assert kinds == {
        "out": ("int8", False),
        "act": ("int8", False),
        "wgt": ("int8", True),
        "c": ("int32", True),
    }
    both = ops.parse_formula(op.text(), {"act": (2, 3), "wgt": (4, 3)}, constants=["c"])
    assert not both.tensors["wgt"].constant


def test_elementwise_expression_becomes_a_chain_of_steps() -> None:
    op = ops.parse_formula(
        "y[i,j] = clip((max(b[j] + a[i,j], z[i,j]) - 3) * 5 >> 2, -4, 100) << 1", {"z": (3, 4)}
    )
    assert op.text() == (
        "y[i,j] = a[i,j]; add b[j]; max z[i,j]; add -3; mul 5; shr 2; max -4; min 100; shr -1"
    )
    assert op.axes == {"i": 3, "j": 4}


def test_elementwise_tensors_that_have_all_axes_are_activations() -> None:
    op = ops.parse_formula("y[i,j] = relu(a[i,j] + b[j] + z[i,j])", {"a": (3, 4)})
    assert {n: t.constant for n, t in op.tensors.items()} == {
        "y": False,
        "a": False,
        "b": True,
        "z": False,
    }
    assert {t.dtype for n, t in op.tensors.items() if n != "y"} == {"int32"}


def test_an_output_index_numbers_its_axes() -> None:
    op = ops.parse_formula(
        "y[n,g*8+k,p] += x[n,g*4+c,p+r] * w[g*8+k,c,r]", {"x": (1, 16, 30), "w": (32, 4, 3)}
    )
    assert dict(op.axes) == {"n": 1, "g": 4, "k": 8, "p": 28, "c": 4, "r": 3}
    assert op.tensors["y"].shape == (1, 32, 28)


def test_extents_that_no_shape_tells_are_written_behind() -> None:
    shapes = {"x": (1, 4, 9, 9), "y": (1, 4, 5, 5)}
    text = "y[n,c,p,q] max= x[n,c,2*p+r-1,2*q+s-1]"
    op = ops.parse_formula(f"{text}; r < 3; s<2; max 0", shapes)
    assert (op.axes["r"], op.axes["s"], op.text()) == (3, 2, f"{text}; max 0")
    # Without padding the result's shape is enough.
    op = ops.parse_formula("y[p] max= x[2*p+r]", {"x": (9,), "y": (4,)})
    assert op.axes == {"p": 4, "r": 3}


def test_a_ragged_end_keeps_the_users_extent() -> None:
    op = ops.parse_formula(
        "y[2*p+f] += x[p-t] * w[f+2*t]", {"x": (5,), "w": (4,), "y": (11,)}, extents={"t": 2}
    )
    assert (op.axes["p"], op.axes["f"], op.tensors["y"].shape) == (6, 2, (11,))


def test_scalar_result_and_shapes_left_out() -> None:
    op = ops.parse_formula("y[0] += x[i] * w[i]", {"x": (7,)})
    assert (op.tensors["y"].shape, op.tensors["w"].shape, op.axes) == ((1,), (7,), {"i": 7})


OPERATORS = [
    ops.matmul(m=35, n=7, k=20, shift=8, clip=(0, 127)),
    ops.dense(n=2, c=5, k=3, bias=True, bias_range=100),
    ops.batch_matmul(batch=3, m=4, n=5, k=6, constants=()),
    ops.conv1d(n=2, c=3, w=20, k=4, r=5, dilation=2, pad=((1, 2),)),
    ops.conv2d(n=1, c=3, h=24, w=20, k=8, r=7, s=5, stride=2, pad=3, shift=8, bias=True),
    ops.conv2d(n=1, c=8, h=9, w=9, k=12, r=3, s=3, groups=4, bias_before_shift=True, shift=3),
    ops.conv2d(n=1, c=8, h=9, w=9, k=8, r=3, s=3, groups=8, layout="NHWC", bias=True),
    ops.conv3d(n=1, c=2, d=5, h=6, w=7, k=3, t=2, r=3, s=3, pad=1, stride=(1, 2, 1)),
    ops.depthwise_conv2d(n=1, c=6, h=8, w=8, r=3, s=3, multiplier=2, pad=1, clip=(None, 9)),
    ops.conv_transpose2d(n=1, c=2, h=4, w=3, k=2, r=3, s=4, stride=2, pad=1, bias=True),
    ops.max_pool2d(n=1, c=3, h=7, w=8, r=3, s=3, stride=2, pad=1),
    ops.avg_pool2d(n=1, c=2, h=7, w=7, r=7, s=7, m=300, shift=14),
    ops.elementwise((3, 4), [("add", "z"), ("bias", "b"), ("shr", 2), "relu", ("shl", 1)]),
    ops.parse_formula("y[i] min= x[3*i+r]", {"x": (20,)}, extents={"r": 3}),
]


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.name)
def test_printing_and_reading_agree(op: Operator) -> None:
    document = to_document(op)
    again = from_document(document, op.values)
    for part in ("name", "kind", "axes", "out", "lhs", "rhs", "tensors", "epilogue"):
        assert getattr(again, part) == getattr(op, part), part
    assert list(again.axes) == list(op.axes)
    assert to_document(again) == document
    assert all(np.array_equal(again.values[n], op.values[n]) for n in op.values)


def test_options_come_in_the_order_shift_bias_clip() -> None:
    shapes = {"x": (2, 3), "w": (4, 3)}
    text = "y[n,m] += x[n,k] * w[m,k]"
    after = ops.parse_formula(text, shapes, shift=3, bias=True, clip=(0, 9), bias_range=5)
    before = ops.parse_formula(text, shapes, shift=3, bias_before_shift=True, clip=(None, 9))
    assert [str(s) for s in after.epilogue] == ["shr 3", "add b[m] within 5", "max 0", "min 9"]
    assert [str(s) for s in before.epilogue] == ["add b[m]", "shr 3", "min 9"]


def test_the_bias_takes_a_free_name_and_the_channel_asked_for() -> None:
    op = ops.parse_formula(
        "y[n,m] += x[n,k] * b[m,k]", {"x": (2, 3), "b": (4, 3)}, bias=True, channel=0
    )
    assert op.text() == "y[n,m] += x[n,k] * b[m,k]; add bias[n]"
    assert op.tensors["bias"].shape == (2,)
