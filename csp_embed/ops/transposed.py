"""Transposed convolution as one affine formula, by output phases.

By definition y[stride*i + dilation*r - pad] += x[i] * w[r]. With G = gcd(stride, dilation),
S = stride / G and D = dilation / G, an output at u meets the taps with S*i + D*r = v, where
G*v = u + pad; other outputs meet none. Let u = stride*p + G*f + e with 0 <= f < S, 0 <= e < G. The
one e that meets taps is e0, and there v = S*p + f + K for a constant K. Then, with E the inverse of
D modulo S,

    r = E*(f + K) + S*t,    i = p + (1 - D*E)/S * (f + K) - D*t    for every integer t,

affine in p, f and t. Taps outside the filter are out-of-range reads of w, so they are 0; for e
other than e0 the index of w is moved out of range. Each output meets about filter/S taps instead of
all: no zeros are inserted into x, and w keeps the user's shape. Without dilation G = D = E = 1, f
is the phase and there is no e. If the output is no multiple of the stride, the last phases fall
outside y: such points do not exist.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import gcd
from typing import Any

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.ops.convolution import (
    SAME,
    bias_channel,
    channels_first,
    ordered,
    pads,
    per_dimension,
    plain,
)
from csp_embed.ops.formula import parse_formula, positive

# Axes of the two dimensions: p, f, t and e of the module's docstring.
NAMES = (("p", "f", "t", "e"), ("q", "g", "v", "a"))


def conv_transpose2d(
    *, n: int, c: int, h: int, w: int, k: int, r: int, s: int, stride: Any = 1, pad: Any = 0,
    output_pad: Any = 0, dilation: Any = 1, groups: int = 1, layout: str = "NCHW", **epilogue: Any,
) -> Operator:  # fmt: skip
    """y[n,k,stride*i+dilation*r-pad,stride*j+dilation*s-pad] += x[n,c,i,j] * w[c,k,r,s].

    Shapes: x int8 [n, c, h, w], w int8 [c, k/groups, r, s], b int32 [k],
        y int8 [n, k, stride*(h-1) + dilation*(r-1) + 1 - pads + output_pad, …].
    pad: as in `conv2d`; "same" makes the output stride*h by stride*w.
    output_pad: rows and columns added at the end (they see the same taps, no zeros).
    Source: ConvTranspose of ONNX, conv_transpose2d of PyTorch.
    Raises: OperatorError where padding leaves no output, output_pad is not below the stride or the
        dilation, or groups do not divide the channels.
    """
    n, c, k = positive(n, "n"), positive(c, "c"), positive(k, "k")
    groups = positive(groups, "groups")
    for what, size in (("c", c), ("k", k)):
        if size % groups:
            raise OperatorError(
                f"{what}={size} is not a multiple of groups={groups}",
                hint=f"--groups {gcd(c, k)}",
            )
    extents = [positive(h, "h"), positive(w, "w")]
    filters = [positive(r, "r"), positive(s, "s")]
    pad = plain(pad)
    strides = per_dimension(stride, 2, "stride", 1)
    dilations = per_dimension(dilation, 2, "dilation", 1)
    extra = per_dimension(output_pad, 2, "output_pad", 0)
    # As ONNX and PyTorch have it: rows that a further tap could have met.
    for more, step, far in zip(extra, strides, dilations, strict=True):
        if more >= max(step, far) and more:
            raise OperatorError(
                f"output_pad {more} is not below the stride {step}",
                why="the rows behind the last tap are filled by a smaller h",
                hint=f"--output-pad {max(step, far) - 1}",
            )
    if pad == SAME:
        # The output is stride times the input; what is too much is cut on both sides.
        sides: list[tuple[int, int]] = []
        for d in range(2):
            span = dilations[d] * (filters[d] - 1) + 1
            total = span - strides[d] + extra[d]
            sides.append((max(0, total) // 2, max(0, total) - max(0, total) // 2))
            # Where the filter is shorter than the stride, outputs without taps are added.
            extra[d] += max(0, -total)
    else:
        sides = pads(pad, 2)
    parts = [
        _phases(d, extents[d], filters[d], strides[d], dilations[d], *sides[d], extra[d])
        for d in range(2)
    ]
    first = channels_first(layout, 2)
    per_in, per_out = c // groups, k // groups
    read, wrote = _channels(groups, per_in, "c"), _channels(groups, per_out, "k")
    x = ordered("n", read, [part.read for part in parts], first)
    y = ordered("n", wrote, [part.out for part in parts], first)
    # The filter is [C, K/groups, R, S]: inputs first, as it is a convolution read backwards.
    filter_index = [read, "k" if groups == 1 or per_out > 1 else "0", *(p.tap for p in parts)]
    shapes = {
        "x": ordered(n, c, extents, first),
        "w": [c, per_out, *filters],
        "y": ordered(n, k, [part.size for part in parts], first),
    }
    counts = {name: count for part in parts for name, count in part.counts.items()}
    if groups > 1:
        counts["j"] = groups
    notes = {
        # Products of the user's filter; the formula's points include zeros.
        "layout": layout, "groups": groups, "macs": n * c * h * w * per_out * r * s,
        **epilogue.pop("notes", {}),
    }  # fmt: skip
    return parse_formula(
        f"y[{','.join(y)}] += x[{','.join(x)}] * w[{','.join(filter_index)}]",
        shapes,
        extents=counts,
        channel=bias_channel(1 if first else 3, epilogue),
        name="conv_transpose2d",
        notes=notes,
        **epilogue,
    )


@dataclass(frozen=True)
class _Part:
    """One dimension: indices of x, w and y as text, y's extent, extents of axes."""

    read: str
    tap: str
    out: str
    size: int
    counts: dict[str, int]


def _phases(
    d: int, extent: int, filter_: int, stride: int, dilation: int, lo: int, hi: int, more: int
) -> _Part:
    """The module's docstring for dimension d. Raises: OperatorError where no output is left."""
    size = stride * (extent - 1) + dilation * (filter_ - 1) + 1 - lo - hi + more
    if size < 1:
        raise OperatorError(
            f"no output is left: {'hw'[d]}={extent}, {'rs'[d]}={filter_}, pad {lo} and {hi}",
            hint="--pad 0",
        )
    p, f, t, e = NAMES[d]
    # Only multiples of the common divisor meet taps at all.
    common = gcd(stride, dilation)
    step, far = stride // common, dilation // common
    # Modulo 1 everything is 0, and has no inverse.
    inverse = pow(far, -1, step) if step > 1 else 0
    if 2 * inverse > step:
        inverse -= step  # Smaller coefficients widen the tensors' windows less.
    # The one phase of e that meets taps.
    meets = -lo % common
    offset = (lo + meets) // common
    moved = (1 - far * inverse) // step
    # Over all phases f: the lowest and highest index of w at t = 0; then the t that reach w.
    ends = [inverse * (offset + phase) for phase in (0, step - 1)]
    last = (filter_ - 1 - min(ends)) // step
    count = last + max(ends) // step + 1
    # t counts backwards (last - t) so that x is read upwards, as everywhere else.
    read = _sum({p: 1, f: moved if step > 1 else 0, t: far}, moved * offset - far * last)
    index = {f: inverse, t: -step}
    start = inverse * offset + step * last
    if common > 1:
        # Further than any phase and tap reach: what meets no tap reads outside w.
        reach = filter_ + abs(inverse) * step + step * count
        index[e], start = reach, start - reach * meets
    tap = _sum(index, start)
    out = {p: stride, f: common if step > 1 else 0, e: 1 if common > 1 else 0}
    # Stated, so that outputs which padding leaves without any tap are not taken for a mistake.
    counts = {t: count, p: -(-size // stride)}
    counts |= {axis: n for axis, n in ((f, step), (e, common)) if n > 1}
    return _Part(read, tap, _sum(out, 0), size, counts)


def _channels(groups: int, each: int, axis: str) -> str:
    """Index of a channel: of the group j, the channel within it, or both."""
    # Groups and channels number the channels together, as in convolution.py.
    return axis if groups == 1 else "j" if each == 1 else f"{each}*j+{axis}"


def _sum(terms: dict[str, int], const: int) -> str:
    """`2*p+f-3` as formula text; terms of coefficient 0 are left out."""
    parts = [f"{c:+d}*{a}" if abs(c) > 1 else f"{'-' if c < 0 else '+'}{a}"
             for a, c in terms.items() if c]  # fmt: skip
    return ("".join(parts) + (f"{const:+d}" if const or not parts else "")).removeprefix("+")
