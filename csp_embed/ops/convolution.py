"""Convolutions of one, two and three dimensions, grouped and depthwise.

One function writes the formula for any number of dimensions. Groups are an axis g of all three
operands; channels are numbered g*size + channel within the group, so shapes stay as users know
them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.narrow import is_list
from csp_embed.ops.formula import parse_formula, positive

SAME = "same"
OUT_AXES = {1: "p", 2: "pq", 3: "opq"}
FILTER_AXES = {1: "r", 2: "rs", 3: "trs"}
LAYOUTS = {
    1: {"NCW": True, "NWC": False, "NCL": True, "NLC": False},
    2: {"NCHW": True, "NHWC": False},
    3: {"NCDHW": True, "NDHWC": False},
}


@dataclass(frozen=True)
class Window:
    """How a filter moves along one dimension. Units: elements of x."""

    extent: int
    filter: int
    stride: int
    pad_lo: int
    pad_hi: int
    dilation: int

    @property
    def outputs(self) -> int:
        # From the first to the last element that a filter meets.
        span = self.dilation * (self.filter - 1) + 1
        return (self.extent + self.pad_lo + self.pad_hi - span) // self.stride + 1

    def index(self, out: str, tap: str) -> str:
        """The index of x as text, e.g. `2*p+r-3`."""
        a = out if self.stride == 1 else f"{self.stride}*{out}"
        b = tap if self.dilation == 1 else f"{self.dilation}*{tap}"
        # Padding shifts where the window begins, nothing else.
        return f"{a}+{b}" + (f"-{self.pad_lo}" if self.pad_lo else "")


def windows(
    extents: Sequence[int],
    filters: Sequence[int],
    names: Sequence[str],
    stride: Any,
    pad: Any,
    dilation: Any,
) -> list[Window]:
    """One `Window` per dimension, checked. `pad` as in `pads`, or "same"."""
    rank = len(extents)
    pad = plain(pad)
    strides = per_dimension(stride, rank, "stride", 1)
    dilations = per_dimension(dilation, rank, "dilation", 1)
    # In the order of the arguments, so that the first wrong one is told.
    for d in range(rank):
        positive(extents[d], names[d])
        positive(filters[d], names[rank + d])
    # "same" depends on everything else, so it comes after the checks.
    if pad == SAME:
        sizes = zip(extents, filters, strides, dilations, strict=True)
        sides = [same_pads(e, dil * (f - 1) + 1, step) for e, f, step, dil in sizes]
    else:
        sides = pads(pad, rank)
    found: list[Window] = []
    for d, (lo, hi) in enumerate(sides):
        w = Window(extents[d], filters[d], strides[d], lo, hi, dilations[d])
        # No output at all would be an operator without points.
        if w.outputs < 1:
            raise OperatorError(
                f"the filter does not fit: {names[rank + d]}={w.filter}"
                + (f" with dilation {w.dilation}" if w.dilation > 1 else "")
                + f" spans {w.dilation * (w.filter - 1) + 1}, "
                f"the padded {names[d]} is {w.extent + lo + hi}",
                hint="make the filter smaller or the padding larger",
            )
        found.append(w)
    return found


def plain(value: Any) -> Any:
    """A NumPy array or tensor of a framework as the list or number that it stands for."""
    to_list = getattr(value, "tolist", None)
    return value if to_list is None else to_list()


def per_dimension(value: Any, rank: int, what: str, least: int) -> list[int]:
    """An int for all dimensions, or one per dimension."""
    # One number stands for all dimensions, as in most frameworks.
    value = plain(value)
    if is_list(value):
        if len(value) != rank:
            raise OperatorError(
                f"{what} has {len(value)} entries for {rank} dimensions",
                hint=f"one number for all, or {rank} of them",
            )
        return [positive(v, what, least) for v in value]
    return [positive(value, what, least)] * rank


def same_pads(extent: int, span: int, stride: int) -> tuple[int, int]:
    """(begin, end) with which ceil(extent / stride) windows of `span` elements fit; an odd one goes
    to the end, as ONNX's SAME_UPPER and TensorFlow's SAME have it."""
    total = max(0, (-(-extent // stride) - 1) * stride + span - extent)
    return total // 2, total - total // 2


def pads(pad: Any, rank: int) -> list[tuple[int, int]]:
    """(begin, end) per dimension.

    pad: one number for all sides; one per dimension; all begins, then all ends, as in ONNX (top,
    left, bottom, right); or a (begin, end) pair per dimension, as in numpy.pad.
    Raises: OperatorError.
    """
    pad = plain(pad)
    if isinstance(pad, str):
        raise OperatorError(
            f"pad is {pad!r}",
            why=f"the only word for it is {SAME!r}",
            hint="--pad " + (SAME if pad.lower().startswith(SAME) else "0"),
        )
    values: list[Any] = list(pad) if is_list(pad) else [pad] * rank
    sides: list[tuple[Any, ...]]
    # 2 * rank plain numbers: ONNX's order, all begins first.
    if len(values) == 2 * rank and not any(map(is_list, values)):
        sides = list(zip(values[:rank], values[rank:], strict=True))
    elif len(values) == rank:
        sides = [tuple(v) if is_list(v) else (v, v) for v in values]
    else:
        order = {1: "begin,end", 2: "top,left,bottom,right"}.get(rank, "all begins, then all ends")
        raise OperatorError(
            f"pad has {len(values)} entries for {rank} dimensions",
            why=f"it is one number, {rank} numbers, {2 * rank} numbers ({order}), or same",
            hint="--pad " + ",".join("1" * rank),
        )
    for side in sides:
        if len(side) != 2:
            raise OperatorError(
                f"pad {side!r} is no (begin, end) pair",
                hint="two numbers a dimension: before and behind",
            )
    return [(positive(lo, "pad", 0), positive(hi, "pad", 0)) for lo, hi in sides]


def channels_first(layout: str, rank: int) -> bool:
    """Whether channels stand before the spatial dimensions."""
    if layout not in LAYOUTS[rank]:
        raise OperatorError(f"unknown layout {layout!r}", hint=f"one of {', '.join(LAYOUTS[rank])}")
    return LAYOUTS[rank][layout]


def bias_channel(dimension: int, epilogue: Mapping[str, Any]) -> int | None:
    """The result's dimension along which a bias runs, where the epilogue has one."""
    return dimension if epilogue.get("bias") or epilogue.get("bias_before_shift") else None


def ordered(batch: Any, channel: Any, spatial: Sequence[Any], first: bool) -> list[Any]:
    """Batch, channel and spatial parts in the tensor's order."""
    return [batch, channel, *spatial] if first else [batch, *spatial, channel]


def convolution(
    name: str,
    n: int,
    c: int,
    k: int,
    wins: Sequence[Window],
    groups: int,
    layout: str,
    epilogue: dict[str, Any],
) -> Operator:
    """Writes the formula of a convolution and builds it."""
    rank = len(wins)
    # In this order, which is that of the messages.
    n, c, k, groups = (
        positive(n, "n"),
        positive(c, "c"),
        positive(k, "k"),
        positive(groups, "groups"),
    )
    # Groups cut both sides of the channels.
    for what, size in (("c", c), ("k", k)):
        if size % groups:
            raise OperatorError(
                f"{what}={size} is not a multiple of groups={groups}",
                hint="groups must divide both c and k",
            )
    per_in, per_out = c // groups, k // groups
    first = channels_first(layout, rank)
    taps = list(FILTER_AXES[rank])
    spatial = [w.index(o, t) for w, o, t in zip(wins, OUT_AXES[rank], taps, strict=True)]
    # A group axis and a channel within it number the channels; one of them alone needs no sum.
    out = "k" if groups == 1 else "g" if per_out == 1 else f"{per_out}*g+k"
    # With one input channel per group there is no axis c: the dataflow is the depthwise one.
    read = "c" if groups == 1 else "g" if per_in == 1 else f"{per_in}*g+c"
    x = ordered("n", read, spatial, first)
    # The filter's own order (K, C, R, S) does not follow the layout of the activations.
    y = ordered("n", out, list(OUT_AXES[rank]), first)
    # The depthwise filter has no axis c: its index is the constant 0.
    w = [out, "0" if groups > 1 and per_in == 1 else "c", *taps]
    shapes = {
        "x": ordered(n, c, [w.extent for w in wins], first),
        "w": [k, per_in, *(w.filter for w in wins)],
        "y": ordered(n, k, [w.outputs for w in wins], first),
    }
    text = f"y[{','.join(y)}] += x[{','.join(x)}] * w[{','.join(w)}]"
    # No shape tells how many groups there are.
    extents = {"g": groups} if groups > 1 else {}
    # Notes of the caller win: a network knows more of its layer.
    notes = {"layout": layout, "groups": groups, **epilogue.pop("notes", {})}
    # The bias runs along output channels, wherever the layout has them.
    channel = bias_channel(1 if first else rank + 1, epilogue)
    return parse_formula(
        text, shapes, extents=extents, channel=channel, name=name, notes=notes, **epilogue
    )


def conv1d(
    *, n: int, c: int, w: int, k: int, r: int, stride: Any = 1, pad: Any = 0, dilation: Any = 1,
    groups: int = 1, layout: str = "NCW", **epilogue: Any,
) -> Operator:  # fmt: skip
    """y[n,k,p] += x[n,c,stride*p+dilation*r-pad] * w[k,c,r].

    Shapes: x int8 [n, c, w], w int8 [k, c/groups, r], b int32 [k], y int8 [n, k, p].
    """
    wins = windows([w], [r], ["w", "r"], stride, pad, dilation)
    return convolution("conv1d", n, c, k, wins, groups, layout, epilogue)


def conv2d(
    *, n: int, c: int, h: int, w: int, k: int, r: int, s: int, stride: Any = 1, pad: Any = 0,
    dilation: Any = 1, groups: int = 1, layout: str = "NCHW", **epilogue: Any,
) -> Operator:  # fmt: skip
    """y[n,k,p,q] += x[n,c,stride*p+dilation*r-pad,stride*q+dilation*s-pad] * w[k,c,r,s].

    Shapes: x int8 [n, c, h, w], w int8 [k, c/groups, r, s], b int32 [k], y int8 [n, k, p, q]; with
        layout "NHWC" x is [n, h, w, c] and y [n, p, q, k]; w stays.
    stride, dilation: an int or a pair (h, w). pad: too, or (top, left, bottom, right), or two
        (begin, end) pairs, or "same": ceil(h / stride) rows, an odd zero at the end (SAME_UPPER).
    epilogue: shift, bias, bias_before_shift, clip, bias_range, as in `parse_formula`.
    Raises: OperatorError for extents that are no positive integers, groups that do not divide the
        channels, and a filter larger than the padded input.

    >>> conv2d(n=1, c=3, h=224, w=224, k=64, r=7, s=7, stride=2, pad=3, shift=8).text()
    'y[n,k,p,q] += x[n,c,2*p+r-3,2*q+s-3] * w[k,c,r,s]; shr 8'
    """
    wins = windows([h, w], [r, s], ["h", "w", "r", "s"], stride, pad, dilation)
    return convolution("conv2d", n, c, k, wins, groups, layout, epilogue)


def conv3d(
    *, n: int, c: int, d: int, h: int, w: int, k: int, t: int, r: int, s: int, stride: Any = 1,
    pad: Any = 0, dilation: Any = 1, groups: int = 1, layout: str = "NCDHW", **epilogue: Any,
) -> Operator:  # fmt: skip
    """y[n,k,o,p,q] += x[n,c,o+t,p+r,q+s] * w[k,c,t,r,s], with stride, pad and dilation.

    Shapes: x int8 [n, c, d, h, w], w int8 [k, c/groups, t, r, s], b int32 [k],
        y int8 [n, k, o, p, q].
    """
    names = ["d", "h", "w", "t", "r", "s"]
    wins = windows([d, h, w], [t, r, s], names, stride, pad, dilation)
    return convolution("conv3d", n, c, k, wins, groups, layout, epilogue)


def depthwise_conv2d(
    *, n: int, c: int, h: int, w: int, r: int, s: int, multiplier: int = 1, stride: Any = 1,
    pad: Any = 0, dilation: Any = 1, layout: str = "NCHW", **epilogue: Any,
) -> Operator:  # fmt: skip
    """y[n,c,p,q] += x[n,c,stride*p+dilation*r-pad,stride*q+dilation*s-pad] * w[c,r,s].

    Shapes: x int8 [n, c, h, w], w int8 [c*multiplier, r, s], b int32 [c*multiplier],
        y int8 [n, c*multiplier, p, q]; output channel multiplier*c + k belongs to input channel c.
    """
    n, c, multiplier = positive(n, "n"), positive(c, "c"), positive(multiplier, "multiplier")
    wins = windows([h, w], [r, s], ["h", "w", "r", "s"], stride, pad, dilation)
    first = channels_first(layout, 2)
    # Channels of their own: c is an axis of x, w and y, and nothing is summed over it.
    spatial = [win.index(o, t) for win, o, t in zip(wins, "pq", "rs", strict=True)]
    out = "c" if multiplier == 1 else f"{multiplier}*c+k"
    x, y = ordered("n", "c", spatial, first), ordered("n", out, ["p", "q"], first)
    shapes = {
        "x": ordered(n, c, [win.extent for win in wins], first),
        "w": [c * multiplier, *(win.filter for win in wins)],
        "y": ordered(n, c * multiplier, [win.outputs for win in wins], first),
    }
    text = f"y[{','.join(y)}] += x[{','.join(x)}] * w[{out},r,s]"
    notes = {"layout": layout, "groups": c, **epilogue.pop("notes", {})}
    channel = bias_channel(1 if first else 3, epilogue)
    return parse_formula(
        text, shapes, channel=channel, name="depthwise_conv2d", notes=notes, **epilogue
    )
