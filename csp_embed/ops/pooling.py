"""Maximum and average pooling over channels of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.ops.convolution import bias_channel, channels_first, ordered, windows
from csp_embed.ops.formula import integer, parse_formula, positive
from csp_embed.ops.wide import INT8_MAX, INT8_MIN, MOST, dtype_of, int8_factors


def max_pool2d(
    *, n: int, c: int, h: int, w: int, r: int, s: int, stride: Any = None, pad: Any = 0,
    dilation: Any = 1, layout: str = "NCHW", **epilogue: Any,
) -> Operator:  # fmt: skip
    """y[n,c,p,q] max= x[n,c,stride*p+r-pad,stride*q+s-pad]; padding is -128.

    Shapes: x int8 [n, c, h, w], y int8 [n, c, p, q]. stride: the window by default.
    Raises: OperatorError where a window would hold padding only.
    """
    text, shapes, notes = _pool(n, c, h, w, r, s, stride, pad, dilation, layout)
    return parse_formula(
        f"{text[0]} max= {text[1]}", shapes, extents={"r": r, "s": s}, name="max_pool2d",
        notes=notes | epilogue.pop("notes", {}), **epilogue,
    )  # fmt: skip


def avg_pool2d(
    *, n: int, c: int, h: int, w: int, r: int, s: int, m: int, shift: int, stride: Any = None,
    pad: Any = 0, layout: str = "NCHW", **epilogue: Any,
) -> Operator:  # fmt: skip
    """y = (sum over the window of x * m) >> shift: all weights are m.

    Shapes: x int8 [n, c, h, w], y int8 [n, c, p, q]; w int8 [e] is known to the operator. Every
        tap and channel has the same weights, so w has none of their axes: a machine loads it once.
        Padding is 0 and counts as elements of the window. stride: the window by default.
    m: near 2**shift / (r*s) for a mean. Two int8 factors reach -256 to 254. Beyond, w is wider than
        int8, and a machine that shifts sums to the left takes it digit by digit, two up to about
        32,000; others take it as a sum of int8 factors, one pass each (`wide.py`).
    Raises: OperatorError where m is beyond four digits.

    >>> avg_pool2d(n=1, c=8, h=7, w=7, r=7, s=7, m=84, shift=12).text()
    'y[n,c,p,q] += x[n,c,7*p+r,7*q+s] * w[e]; shr 12'
    """
    m = integer(m, "m")
    text, shapes, notes = _pool(n, c, h, w, r, s, stride, pad, 1, layout)
    if not -(1 << 31) <= m <= MOST:
        raise OperatorError(
            f"m={m} is beyond {-(1 << 31)} to {MOST}",
            why="sums have 32 bits, and no four int8 digits make more",
            hint=f"take a smaller m and shift, e.g. m={m >> 8} with shift={shift - 8}",
        )
    # Two passes of int8 may share a step's lanes, and need no shift between them.
    factors = int8_factors(m) if 2 * INT8_MIN <= m <= 2 * INT8_MAX else [m]
    dtype = dtype_of(factors[0])
    # An average is told in products of the pool, not of its passes.
    points = n * c * shapes["y"][2 if layout == "NCHW" else 1]
    points *= shapes["y"][3 if layout == "NCHW" else 2] * r * s
    shapes["w"] = [len(factors)]
    # No weight says which dimension has the channels.
    axis = bias_channel(1 if channels_first(layout, 2) else 3, epilogue)
    if axis is not None:
        epilogue.setdefault("channel", axis)
    return parse_formula(
        f"{text[0]} += {text[1]} * w[e]",
        shapes,
        extents={"r": r, "s": s},
        shift=shift,
        dtypes={"w": dtype},
        values={"w": np.array(factors, dtype)},
        name="avg_pool2d",
        # The operator's own points count passes; users expect the pool's.
        notes={**notes, "macs": points, "m": m, **epilogue.pop("notes", {})},
        **epilogue,
    )


def _pool(
    n: int, c: int, h: int, w: int, r: int, s: int, stride: Any, pad: Any, dilation: Any, layout:
str ) -> tuple[tuple[str, str], dict[str, list[int]], dict[str, Any]]:  # fmt: skip
    """Texts of y and x, their shapes, and notes."""
    n, c = positive(n, "n"), positive(c, "c")
    stride = [r, s] if stride is None else stride
    wins = windows([h, w], [r, s], ["h", "w", "r", "s"], stride, pad, dilation)
    for win, what in zip(wins, "rs", strict=True):
        span = win.dilation * (win.filter - 1) + 1
        # A window in padding alone would have no largest element.
        if max(win.pad_lo, win.pad_hi) >= span:
            raise OperatorError(
                f"pad {max(win.pad_lo, win.pad_hi)} is not smaller than the window "
                f"{what}={win.filter}",
                why="some windows would hold padding only",
                hint=f"pad {span - 1} at most",
            )
    first = channels_first(layout, 2)
    spatial = [win.index(o, t) for win, o, t in zip(wins, "pq", "rs", strict=True)]
    y = ",".join(ordered("n", "c", "pq", first))
    x = ",".join(ordered("n", "c", spatial, first))
    shapes = {
        "x": ordered(n, c, [win.extent for win in wins], first),
        "y": ordered(n, c, [win.outputs for win in wins], first),
    }
    return (f"y[{y}]", f"x[{x}]"), shapes, {"layout": layout}
