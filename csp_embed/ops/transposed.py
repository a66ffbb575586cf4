"""Transposed convolution as one affine formula, by output phases.

By definition y[stride*i + r - pad] += x[i] * w[r]. With the output position u = stride*p + f (f is
the phase, 0 <= f < stride) and the input position i = p + t - first, the tap is r = f + pad -
stride*(t - first): affine in f and t. Taps below 0 or beyond the filter are out-of-range reads of
w, so they are 0. Each output meets ceil(r/stride) taps, or one more, instead of r: no zeros are
inserted into x, and w keeps the user's shape. If the output is no multiple of the stride, the last
phases fall outside y: such points do not exist.
"""

from __future__ import annotations

from typing import Any

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.ops.convolution import bias_channel, channels_first, ordered, pads, per_dimension
from csp_embed.ops.formula import parse_formula, positive


def conv_transpose2d(
    *, n: int, c: int, h: int, w: int, k: int, r: int, s: int, stride: Any = 1, pad: Any = 0,
    output_pad: Any = 0, layout: str = "NCHW", **epilogue: Any,
) -> Operator:  # fmt: skip
    """y[n,k,stride*i+r-pad,stride*j+s-pad] += x[n,c,i,j] * w[c,k,r,s], as in PyTorch and ONNX.

    Shapes: x int8 [n, c, h, w], w int8 [c, k, r, s], b int32 [k],
        y int8 [n, k, stride*(h-1) + r - pads + output_pad, …].
    output_pad: rows and columns added at the end (they see the same taps, no zeros).
    Raises: OperatorError where padding leaves no output, or output_pad is not below the stride.
    """
    n, c, k = positive(n, "n"), positive(c, "c"), positive(k, "k")
    strides = per_dimension(stride, 2, "stride", 1)
    extra = per_dimension(output_pad, 2, "output_pad", 0)
    first = channels_first(layout, 2)
    reads, taps, outs, sizes, extents = [], [], [], [], {}
    sides = zip(pads(pad, 2), (h, w), (r, s), strides, extra, strict=True)
    for d, ((lo, hi), extent, filter_, step, more) in enumerate(sides):
        positive(extent, "hw"[d]), positive(filter_, "rs"[d])
        if more >= step and more:
            raise OperatorError(f"output_pad {more} is not below the stride {step}")
        size = step * (extent - 1) + filter_ - lo - hi + more
        if size < 1:
            raise OperatorError(
                f"no output is left: {'hw'[d]}={extent}, {'rs'[d]}={filter_}, pad {lo} and {hi}",
                hint="take less padding",
            )
        first_tap = -(-lo // step)  # the first phase group that any output needs
        count = -(-(filter_ + step * first_tap - lo) // step)
        p, f, t = ("p", "f", "t") if d == 0 else ("q", "g", "v")
        # t counts backwards (count-1-t) so that x is read upwards, as everywhere else.
        reads.append(f"{p}+{t}{_plus(first_tap - count + 1)}")
        at = lo - step * first_tap + step * (count - 1)
        taps.append(f"{f}-{step}*{t}{_plus(at)}" if step > 1 else f"{at}-{t}")
        outs.append(f"{step}*{p}+{f}" if step > 1 else p)
        sizes.append(size)
        extents[t] = count
    x, y = ordered("n", "c", reads, first), ordered("n", "k", outs, first)
    shapes = {
        "x": ordered(n, c, [h, w], first),
        "w": [c, k, r, s],
        "y": ordered(n, k, sizes, first),
    }
    notes = {"layout": layout, "macs": n * c * h * w * k * r * s, **epilogue.pop("notes", {})}
    return parse_formula(
        f"y[{','.join(y)}] += x[{','.join(x)}] * w[c,k,{','.join(taps)}]",
        shapes,
        extents=extents,
        channel=bias_channel(1 if first else 3, epilogue),
        name="conv_transpose2d",
        notes=notes,
        **epilogue,
    )


def _plus(number: int) -> str:
    """` + number` as formula text, nothing for 0."""
    return f"{number:+d}" if number else ""
