"""One contraction of a quantised graph as operators of `csp_embed.ops`, with their constants.

Takes: a Conv or FullyConnected of profile tflm.  Leaves: one or two passes
    y = clip((x * w + b) >> n)  [+ z]
that give the layer's result for every input, or the reason why there are none.  The zero point of
x and all rounding constants stand in b; a halo that is not zero is written into the input, which is
larger then.

Two passes where results have both signs: the rule rounds halves away from zero, so that each sign
has a constant of its own.  clip(v, lo, hi) = clip(v, lo, zero) + clip(v, zero, hi) - zero: the
first pass makes what lies above the zero point, the second what lies below, and adds the first's
result.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator
from csp_embed.network.lower.shift import Shift, shifts
from csp_embed.network.quantised import graph as g
from csp_embed.ops import conv2d, depthwise_conv2d, matmul, parse_formula

Array = NDArray[Any]
INT32 = (-(1 << 31), (1 << 31) - 1)


@dataclass(frozen=True, eq=False)
class Pass:
    """One program. constants: w, b and, where shifts differ by channel, s. added: its operand z is
    the result of the pass before, minus this number; None for a pass without z."""

    op: Operator
    constants: Mapping[str, Array]
    added: int | None = None


@dataclass(frozen=True, eq=False)
class Lowered:
    """passes: one, or two of which the second adds the first's result. halo, fill: what is put
    around x (rows, columns) before the programs, and with which value. x_shape: of their x. proof:
    what was proved, in words."""

    passes: tuple[Pass, ...]
    halo: tuple[g.Pair, g.Pair]
    fill: int
    x_shape: tuple[int, ...]
    proof: str

    def operand(self, x: Array) -> Array:
        """The layer's input as the programs take it."""
        if len(self.x_shape) != 4:
            return x.reshape(self.x_shape)
        sides = ((0, 0), *self.halo, (0, 0))
        return np.pad(x, sides, constant_values=self.fill)


@dataclass(frozen=True)
class _Sums:
    """What the passes of a layer share. flat: weights [k, products]. low, high: least and largest
    accumulator of the rule by channel. offset: the bias with the zero point of x taken out."""

    flat: Array
    low: Array
    high: Array
    offset: Array


def lower(graph: g.Graph, op: g.Operator) -> Lowered | str:
    """The passes of a layer, or the reason why the host runs it."""
    if not isinstance(op, g.Conv | g.FullyConnected):
        return f"{op.kind} has no operator here yet"
    rescale = op.rescale
    if not isinstance(rescale, g.FixedPoint):
        return "halves to even need a copy of the accumulator, which an epilogue cannot make yet"
    x, w, y = (graph.tensors[n] for n in (op.inputs[0], op.inputs[1], op.output))
    if (x.dtype, w.dtype, y.dtype) != ("int8", "int8", "int8") or any(w.zero_points):
        return "operands are not int8, or the weights have a zero point"
    sums = _sums(graph, op, w)
    if sums.low.min() < INT32[0] or sums.high.max() > INT32[1]:
        return "its sums may wrap around int32"

    def exact(clamp: g.Pair) -> tuple[Shift | None, int]:
        return shifts(rescale, y.zero, clamp, sums.low, sums.high)

    least, most = op.clamp
    whole, bad = exact(op.clamp)
    parts = [(whole, op.clamp)]
    if whole is None and least < y.zero < most:
        parts = [(exact(clamp)[0], clamp) for clamp in ((y.zero, most), (least, y.zero))]
        bad = max(exact(clamp)[1] for _, clamp in parts)
    passes: list[Pass] = []
    for found, clamp in parts:
        if found is None:
            return f"the multipliers of {bad} of {sums.low.size} channels are no powers of two"
        made = _pass(graph, op, w, sums, found, clamp, y.zero, added=bool(passes))
        if made is None:
            return "its sums with the rounding constants may wrap around int32"
        passes.append(made)
    halo = op.pads if isinstance(op, g.Conv) else ((0, 0), (0, 0))
    proof = f"equal for every sum that can occur, at all {most - least} thresholds"
    if len(passes) > 1:
        proof += "; the sums are made twice, once for each sign"
    shape = passes[0].op.tensors[passes[0].op.lhs.tensor].shape
    return Lowered(tuple(passes), halo, x.zero, shape, proof)


def _sums(graph: g.Graph, op: g.Operator, w: g.Tensor) -> _Sums:
    assert w.data is not None
    flat = w.data.reshape(w.shape[0], -1).astype(np.int64)
    bias = graph.tensors[op.inputs[2]].data
    assert bias is not None
    zero = graph.tensors[op.inputs[0]].zero
    # Products with the halo are 0, which lies within these ends.
    ends = np.stack([flat * (v - zero) for v in _values(graph, op.inputs[0])])
    low = bias + ends.min(axis=0).sum(axis=1)
    high = bias + ends.max(axis=0).sum(axis=1)
    return _Sums(flat, low, high, bias - zero * flat.sum(axis=1))


def _values(graph: g.Graph, name: str) -> g.Pair:
    """Least and largest stored value of a tensor: its maker's clamp, else its type's range."""
    for op in graph.operators:
        clamp: g.Pair | None = getattr(op, "clamp", None)
        if op.output == name and clamp is not None:
            low, high = clamp
            zero = graph.tensors[name].zero
            return min(low, zero), max(high, zero)
    return graph.tensors[name].range


def _pass(
    graph: g.Graph, op: g.Conv | g.FullyConnected, w: g.Tensor, sums: _Sums, found: Shift,
    clamp: g.Pair, zero: int, added: bool,
) -> Pass | None:  # fmt: skip
    """The program of one clamp; None where its sums might wrap. Of the exact constants it takes
    those that keep the machine's bias smallest."""
    target = zero << found.amount
    least, most = (sums.offset + v + target for v in (found.least, found.most))
    bias = np.clip(0, least, most)
    if (128 * np.abs(sums.flat).sum(axis=1) + np.abs(bias)).max() > INT32[1]:
        return None
    base, weights = _matrix(graph, op, w) if isinstance(op, g.FullyConnected) else _window(
        graph, op, w
    )  # fmt: skip
    constants: dict[str, Array] = {"w": weights, "b": bias.astype(np.int32)}
    channel = base.out.index[-1]
    # Rounded up: layers of one shape are one program then.
    within = (1 << int(np.abs(bias).max()).bit_length()) - 1
    steps = [f"add b[{channel}] within {within}"]
    amounts = np.unique(found.amount)
    if amounts.size > 1:
        steps.append(f"shr s[{channel}]")
        constants["s"] = found.amount.astype(np.int32)
    elif amounts[0]:
        steps.append(f"shr {amounts[0]}")
    steps += [f"max {clamp[0]}", f"min {clamp[1]}"]
    if added:
        steps.append(f"add z[{','.join(map(str, base.out.index))}] within 255")
    made = parse_formula(
        "; ".join([base.formula(), *steps]),
        {n: t.shape for n, t in base.tensors.items()} | {"b": bias.shape},
        extents={a: n for a, n in base.axes.items() if a == "g"},
        constants=tuple(constants),
        notes=base.notes,
        name=base.name,
    )
    return Pass(made, constants, zero if added else None)


def _matrix(graph: g.Graph, op: g.FullyConnected, w: g.Tensor) -> tuple[Operator, Array]:
    rows = graph.tensors[op.inputs[0]].elements // w.shape[1]
    assert w.data is not None
    return matmul(m=w.shape[0], n=rows, k=w.shape[1]), w.data


def _window(graph: g.Graph, op: g.Conv, w: g.Tensor) -> tuple[Operator, Array]:
    """The halo is part of x: the machine would pad with 0, the network pads with its zero point."""
    n, rows, columns, channels = graph.tensors[op.inputs[0]].shape
    h, width = (extent + sum(p) for extent, p in zip((rows, columns), op.pads, strict=True))
    assert w.data is not None
    k, r, s, per = w.shape
    shape: dict[str, Any] = {"n": n, "c": channels, "h": h, "w": width, "r": r, "s": s}
    shape |= {"stride": op.stride, "dilation": op.dilation, "layout": "NHWC"}
    if op.groups > 1 and per == 1:
        base = depthwise_conv2d(**shape, multiplier=k // channels)
        weights = w.data.reshape(k, r, s)
    else:
        base = conv2d(**shape, k=k, groups=op.groups)
        weights = w.data.transpose(0, 3, 1, 2)
    return base, np.ascontiguousarray(weights)
