"""Every wrong formula, shape and argument gets its message, with a caret under the place."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.errors import OperatorError
from csp_embed.ops import deepbench, wide
from csp_embed.ops.reference import evaluate

XW = {"x": (4, 8), "w": (3, 8)}
MATMUL = "y[n,m] += x[n,k] * w[m,k]"

# formula, shapes, part of the message, text under the caret ("" = no caret)
FORMULAS = [
    ("", {}, "the formula is empty", ""),
    ("y[n,m] += x[n,k]", XW, "expected '*' here, the formula ends", ""),
    ("y[n,m] x[n,k]", XW, "expected +=, max=, min= or =", "x[n,k]"),
    ("y[n,m] += x[n,k] * w[m,k] + 1", XW, "did not expect '+' here", "+ 1"),
    ("y[n,m] += x[n,k * w[m,k]", XW, "w[… is not affine", "w[m,k]"),
    ("y[n*m] += x[n,k] * w[m,k]", XW, "a product of two axes is not affine", "*m]"),
    ("y[n,m] += x[n,k/2] * w[m,k]", XW, "'/' in an index is not affine", "/2]"),
    ("y[n,m] += x[n,k//2] * w[m,k]", XW, "'//' in an index is not affine", "//2]"),
    ("y[n,m] += x[n,k%2] * w[m,k]", XW, "'%' in an index is not affine", "%2]"),
    ("y[n,m] += x[n,min(k,2)] * w[m,k]", XW, "min(… is not affine", "min("),
    ("y[n,m] += x[n,1.5*k] * w[m,k]", XW, "1.5 is a floating-point number", "1.5"),
    ("y[n,m] = x[n,m] + 0.5", {}, "0.5 is a floating-point number", "0.5"),
    ("y[n,m] += x[n,k] * 3.0", XW, "3.0 is a floating-point number", "3.0"),
    ("y[n,] += x[n,k] * w[n,k]", XW, "expected an axis or an integer", "]"),
    ("y += x[n,k] * w[m,k]", XW, "expected '[' here, found '+='", "+="),
    ("y[n,m] += x[n,99999999999*k] * w[m,k]", XW, "this number is too large", "99999"),
    ("y[n,n] += x[n,k] * w[n,k]", XW, "axis n stands twice in y[n,n]", "n] +="),
    ("y[n,m,z] += x[n,k] * w[m,k]", XW, "only y has axis z", "z]"),
    ("y[n,m] += y[n,k] * w[m,k]", XW, "y is the result and cannot be read", "y[n,k]"),
    ("y[n,m] += x[n,k] * x[m,k]", XW, "x stands twice", "x[n,k]"),
    ("y[n,m] += x[n,k] * w[m]", XW, "w has 1 indices, but its shape 3x8 has 2", "w[m]"),
    ("y[n,2*m] += x[n,k] * w[m,k]", XW, "y is written at 2*m, which leaves gaps", "2*m]"),
    ("y[n,m+1] += x[n,k] * w[m,k]", XW, "y is written at m+1, which leaves gaps", "m+1]"),
    ("y[3*n+2*m] += x[n,k] * w[m,k]", XW, "which leaves gaps", "3*n"),
    ("y[n+m] += x[n,k] * w[m,k]", XW, "not a numeration", "n+m"),
    ("y[n,m] = x[n,m,k]", {"x": (2, 3, 4)}, "y does not have axis k", "x[n,m,k]"),
    ("y[n,m] = b[m]", {}, "only y has axis n", "n,m] ="),
    ("y[n,m] = a[n,m] - b[m]", {}, "a tensor cannot be subtracted", "- b[m]"),
    ("y[n] = (a[n] + 1) * (b[n] + 1)", {}, "both sides of this operation are computed", "* (b"),
    ("y[n] = 3 >> a[n]", {}, "an integer cannot be shifted by a tensor", ">>"),
    ("y[n] = 3 + 4", {}, "an elementwise program starts from a tensor", "="),
    ("y[n] = sqrt(a[n])", {}, "unknown function 'sqrt'", "sqrt"),
    ("y[n] = clip(a[n], 5, 1)", {}, "clip to 5..1 is empty", "clip"),
    ("y[n] = a[n] << b[n]", {}, "<< takes an integer", "<<"),
    (MATMUL + "; div 3", XW, "'div' is no step", "div"),
    (MATMUL + "; k < 0", XW, "axis k cannot have extent 0", "0"),
    (MATMUL + "; k < 8; k < 9", XW, "axis k cannot have extent 9", "9"),
    (MATMUL + "; k < 9", XW, "axis k is 9 by the extent given, but 8 by x's", "k] * w"),
    (MATMUL + "; z < 9", XW, "axis z does not occur", None),
    (MATMUL + "; clip 9 1", XW, "clip 9 1 is empty", "clip"),
    (MATMUL + "; shl b[m]", XW, "shl takes an integer", "b[m]"),
    (MATMUL + "; add b[k]", XW, "b[k] uses axis k, which the result lacks", "b[k]"),
    (MATMUL + "; shr 40", XW, "a shift by 40 is not within -31..31", None),
    (MATMUL + "; add 3000000000", XW, "add 3000000000 does not fit 32 bits", None),
    (
        "y[n] = a[n] + b[n-1]",
        {"a": (4,), "b": (4,), "y": (4,)},
        "b is read at -1..2, outside its extent 4",
        "n-1]",
    ),
]


@pytest.mark.parametrize(("text", "shapes", "message", "under"), FORMULAS)
def test_wrong_formula(text: str, shapes: dict, message: str, under: str | None) -> None:
    with pytest.raises(OperatorError) as caught:
        ops.parse_formula(text, shapes)
    assert message in caught.value.what
    printed = caught.value.render().splitlines()
    if under is not None:
        line = next(n for n, s in enumerate(printed) if s.strip() == "^")
        column = printed[line].index("^")
        assert printed[line - 1].startswith("  where: ")
        assert printed[line - 1][column:].startswith(under)
    else:
        assert text in caught.value.where


CONV = "y[n,k,p] += x[n,c,p+2*r] * w[k,c,r]"
SHAPES = [
    (
        MATMUL,
        {"x": (4, 8), "w": (3, 9)},
        "axis k is 8 by x's dimension 1, but 9 by w's dimension 1",
    ),
    (MATMUL, {**XW, "y": (5, 3)}, "axis n is 5 by y's dimension 0, but 4 by x's dimension 0"),
    (MATMUL, {"x": (4, 0), "w": (3, 8)}, "dimension 1 of x is 0; it must be positive"),
    (MATMUL, {"x": (4, -8), "w": (3, 8)}, "dimension 1 of x is -8; it must be positive"),
    (MATMUL, {"x": (4, 8.0), "w": (3, 8)}, "dimension 1 of x is 8.0; it must be an integer"),
    (MATMUL, {"x": (True, 8), "w": (3, 8)}, "dimension 0 of x is True; it must be an integer"),
    (MATMUL, {"x": 4, "w": (3, 8)}, "the shape of x is 4; it must be a list of extents"),
    (MATMUL, {**XW, "v": (3,)}, "a shape is given for v, which the formula does not name"),
    (MATMUL, {"x": (4, 8)}, "the shapes do not tell the extent of m"),
    (MATMUL, {"x": (4, 8, 1), "w": (3, 8)}, "x has 2 indices, but its shape 4x8x1 has 3"),
    (
        MATMUL,
        {"x": (65536, 65536), "w": (1, 65536)},
        "x with shape 65536x65536 has 4294967296 bytes",
    ),
    (MATMUL, {"x": (2**31, 1), "w": (1, 1)}, "the tensors together have 4294967297 bytes"),
    (CONV, {"x": (1, 3, 6), "w": (2, 3, 5)}, "x's extent 6 is too small: index p+2*r reaches 8"),
    (CONV, {"x": (1, 3, 10), "w": (2, 3, 5), "y": (1, 2, 500)}, "most of axis p (500 values)"),
    (CONV, {"x": (1, 4, 20), "w": (2, 3, 5)}, "axis c is 4 by x's dimension 1, but 3"),
    ("y[p] += x[p+r-1] * w[r]", {"x": (9,), "w": (3,)}, "so y's shape must be given"),
    ("y[p] += x[4-p] * w[p]", {"x": (5,)}, "so y's shape must be given"),
    ("y[p] += x[p+r] * w[p]", {"x": (9,)}, "the shapes do not tell the extent of p, r"),
    ("y[0] += x[i] * w[i]", {"x": (3,), "y": (2,)}, "y's dimension 0 is 2, but only index 0"),
    ("y[i] = a[i]; add b[i]", {"a": (3,), "b": (4,)}, "axis i is 3 by a's dimension 0, but 4"),
    ("y[i] = a[i]; add b[i-1]", {"a": (3,)}, "b is read below 0, so its shape must be given"),
]


@pytest.mark.parametrize(("text", "shapes", "message"), SHAPES)
def test_wrong_shapes(text: str, shapes: dict, message: str) -> None:
    with pytest.raises(OperatorError) as caught:
        ops.parse_formula(text, shapes)
    assert message in caught.value.what


def conv(**changes: object) -> object:
    return ops.conv2d(**{**dict(n=1, c=4, h=6, w=6, k=4, r=3, s=3), **changes})


POOL = dict(n=1, c=2, h=6, w=6, r=3, s=3)
ARGUMENTS = [
    (lambda: ops.matmul(m=0, n=2, k=3), "m is 0; it must be positive"),
    (lambda: ops.matmul(m=2, n=-2, k=3), "n is -2; it must be positive"),
    (lambda: ops.matmul(m=2, n=2.0, k=3), "n is 2.0; it must be an integer"),
    (lambda: ops.matmul(m=2, n=2, k=3, shift=1.5), "shift is 1.5; it must be an integer"),
    (lambda: ops.matmul(m=2, n=2, k=3, shift=32), "a shift by 32 is not within -31..31"),
    (lambda: ops.matmul(m=2, n=2, k=3, clip=(5, 1)), "clip 5..1 is empty"),
    (lambda: ops.matmul(m=2, n=2, k=3, clip=7), "clip is 7; it must be a pair (lo, hi)"),
    (lambda: ops.matmul(m=2, n=2, k=3, clip=("a", 7)), "the clip's lower end is 'a'"),
    (lambda: ops.matmul(m=2, n=2, k=3, bias=True, bias_before_shift=True), "not both"),
    (lambda: ops.matmul(m=2, n=2, k=3, bias=True, bias_range=-1), "bias_range is -1"),
    (lambda: ops.matmul(m=2, n=2, k=3, bias=True, channel=2), "channel 2 is no dimension of y"),
    (lambda: ops.matmul(m=2**20, n=1, k=2**12), "w with shape 1048576x4096 has 4294967296 bytes"),
    (lambda: conv(r=7), "the filter does not fit: r=7 spans 7, the padded h is 6"),
    (lambda: conv(s=3, dilation=(1, 3)), "s=3 with dilation 3 spans 7, the padded w is 6"),
    (lambda: conv(stride=0), "stride is 0; it must be positive"),
    (lambda: conv(stride=(1, 2, 3)), "stride has 3 entries for 2 dimensions"),
    (lambda: conv(pad=-1), "pad is -1; it must be at least 0"),
    (lambda: conv(pad=(1, 2, 3)), "pad has 3 entries for 2 dimensions"),
    (lambda: conv(pad=((1, 2), (3,))), "pad (3,) is no (begin, end) pair"),
    (lambda: conv(groups=3), "c=4 is not a multiple of groups=3"),
    (lambda: conv(k=6, groups=4), "k=6 is not a multiple of groups=4"),
    (lambda: conv(layout="CHWN"), "unknown layout 'CHWN'"),
    (lambda: ops.conv1d(n=1, c=1, w=3, k=1, r=4), "r=4 spans 4, the padded w is 3"),
    (lambda: ops.max_pool2d(**POOL, pad=3), "pad 3 is not smaller than the window r=3"),
    (lambda: ops.avg_pool2d(**POOL, m=1 << 31, shift=3), "m=2147483648 is beyond -2147483648"),
    (
        lambda: wide.in_passes(ops.avg_pool2d(**POOL, m=5000, shift=3)),
        "the factor 5000 takes 40 passes of int8 factors",
    ),
    (lambda: ops.avg_pool2d(**POOL, m=0.5, shift=3), "m is 0.5; it must be an integer"),
    (
        lambda: ops.conv_transpose2d(n=1, c=1, h=1, w=2, k=1, r=2, s=2, pad=1),
        "no output is left: h=1, r=2, pad 1 and 1",
    ),
    (
        lambda: ops.conv_transpose2d(n=1, c=1, h=2, w=2, k=1, r=2, s=2, stride=2, output_pad=2),
        "output_pad 2 is not below the stride 2",
    ),
    (lambda: ops.elementwise((4,), ["tanh"]), "unknown step 'tanh'"),
    (lambda: ops.elementwise((4,), [("clip", 3)]), "step clip takes 2 arguments, got 1"),
    (lambda: ops.elementwise((), []), "x has 0 dimensions"),
    (lambda: ops.elementwise((4,), [("add", 1.5)]), "add is 1.5; it must be an integer"),
    (lambda: ops.parse_formula(MATMUL, XW, dtypes={"x": "float32"}), "x has type float32"),
    (lambda: ops.parse_formula(MATMUL, XW, dtypes={"w": "int32"}), "w cannot be int32"),
    (lambda: ops.parse_formula(MATMUL, XW, dtypes={"q": "int8"}), "dtypes names q"),
    (lambda: ops.parse_formula(MATMUL, XW, constants=["q"]), "constants names q"),
    (lambda: ops.parse_formula(MATMUL, XW, extents={"z": 3}), "axis z does not occur"),
    (lambda: ops.parse_formula(MATMUL, XW, extents={"k": 0}), "extent of axis k is 0"),
    (lambda: ops.parse_formula(3), "a formula is text, not int"),
    (
        lambda: ops.parse_formula("y[n] += x[n,k] * w[k]", {"x": (3, 4)}, bias=True),
        "it is not clear along which dimension of the result the bias runs",
    ),
    (lambda: deepbench.layer("conv999"), "there is no layer 'conv999'"),
    (lambda: deepbench.layers("rnn"), "unknown selection 'rnn'"),
    (
        lambda: evaluate(ops.matmul(m=2, n=2, k=3), {"x": np.zeros((2, 3), np.int8)}),
        "tensor w is missing",
    ),
    (
        lambda: evaluate(ops.matmul(m=2, n=2, k=3), {"x": np.zeros((3, 2)), "w": 0}),
        "tensor x has shape (3, 2), needed is (2, 3)",
    ),
    (
        lambda: evaluate(ops.elementwise((2,), []), {"x": np.zeros(2)}),
        "tensor x is float64, needed is int32",
    ),
    (
        lambda: evaluate(ops.elementwise((2,), []), {"x": np.array([0, 2**40])}),
        "tensor x is int64, needed is int32",
    ),
    (
        lambda: evaluate(
            ops.elementwise((1,), [("shr", "s")]), {"x": np.array([8]), "s": np.array([-1])}
        ),
        "a tensor of shift amounts has values outside 0..31",
    ),
]


@pytest.mark.parametrize(("call", "message"), ARGUMENTS, ids=[m[:30] for _, m in ARGUMENTS])
def test_wrong_argument(call: object, message: str) -> None:
    with pytest.raises(OperatorError) as caught:
        call()
    assert message in caught.value.what


@pytest.mark.parametrize(
    ("keyword", "hint"),
    [("padding", "did you mean 'pad'?"), ("strides", "did you mean 'stride'?"),
     ("shfit", "did you mean 'shift'?"), ("relu", "leave out relu")],
)  # fmt: skip
def test_a_keyword_that_a_constructor_does_not_have(keyword: str, hint: str) -> None:
    with pytest.raises(OperatorError, match=f"conv2d has no keyword '{keyword}'") as told:
        ops.conv2d(n=1, c=1, h=4, w=4, k=1, r=3, s=3, **{keyword: 1})
    assert told.value.hint == hint


@pytest.mark.parametrize(("word", "hint"), [("SAME_UPPER", "--pad same"), ("valid", "--pad 0")])
@pytest.mark.parametrize("make", [ops.conv2d, ops.conv_transpose2d])
def test_words_of_other_frameworks_for_padding(make: Any, word: str, hint: str) -> None:
    with pytest.raises(OperatorError, match="the only word for it is 'same'") as told:
        make(n=1, c=1, h=4, w=4, k=1, r=3, s=3, pad=word)
    assert told.value.hint == hint
