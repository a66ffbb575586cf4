"""Additions, changes of scale and functions of one value as contractions against constant factors.

A residual addition is a contraction over its two tensors. The factors lie on the diagonal of a
tile, so that channels stay where they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator
from csp_embed.network.lower.lowered import Array, Contraction
from csp_embed.network.lower.pair_points import pair_points
from csp_embed.network.lower.recipe import Recipe, Steps
from csp_embed.network.lower.recipes_digits import NEIGHBOURS, most_carried
from csp_embed.network.lower.task import Task, values_of
from csp_embed.network.lower.thresholds import Ints, Rule, rescaled, rule_of
from csp_embed.network.quantised import graph as g
from csp_embed.ops import parse_formula

Singles = NDArray[np.float32]


def same_task(graph: g.Graph, op: g.Requantise | g.Clamp | g.Lookup) -> Task | str:
    """One tensor, element by element."""
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    # Only values that can occur: a clamp before leaves fewer thresholds to prove.
    low, high = values_of(graph, op.inputs[0])
    if isinstance(op, g.Lookup):
        table = graph.tensors[op.inputs[1]].data
        assert table is not None
        # The table's first entry belongs to the type's least value.
        values = table[:, low - x.range[0] : high - x.range[0] + 1].astype(np.int64)
        return table_task(graph, op, values, low, op.axis)
    if isinstance(op, g.Clamp):
        first, last = (np.full(1, v) for v in (low, high))
        # The sum is the stored value itself: a clamp neither scales nor counts from zero.
        return _unary(graph, op, Rule(lambda a: a, op.clamp, first, last, np.ones(1)), 0)
    first, last = (np.full(1, v - x.zero) for v in (low, high))
    return _unary(graph, op, rule_of(op.rescale, y.zero, op.clamp, first, last), x.zero)


def table_task(graph: g.Graph, op: g.Operator, values: Ints, low: int, axis: int) -> Task | str:
    """y as a function of each stored value of x. values: [channels or 1, from `low` on]."""
    steps = np.diff(values, axis=1)
    falls = bool((steps <= 0).all())
    # Adds, shifts and clips are monotone, so no sequence of them can turn around.
    if not falls and not (steps >= 0).all():
        return "it neither rises nor falls with its input everywhere, the machine's steps do"
    channels_axis = axis_of_channels(graph, graph.tensors[op.output].shape)
    # Values of one vector share its recipe's constants; lanes are channels.
    if len(values) > 1 and axis != channels_axis:
        return f"it differs along axis {axis}, which does not share the lanes"
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    low -= x.zero  # the sums are those of x, or of -x, without its zero point
    high = low + values.shape[1] - 1
    # A falling table is a rising one of -x.
    if falls:
        values, low, high = values[:, ::-1], -high, -low
    clamp = int(values.min()), int(values.max())
    count = len(values)

    def apply(a: Ints) -> Ints:
        number = np.clip(a, low, high) - low
        # One row serves all channels where the table has one.
        return np.take_along_axis(values, number, axis=1) if len(a) == count else values[0][number]

    lines = np.array([_line(row, low) for row in values])
    rule = Rule(apply, clamp, np.full(count, low), np.full(count, high), lines[:, 0], y.zero,
                lines[:, 1] - y.zero)  # fmt: skip
    return _unary(graph, op, rule, -x.zero if falls else x.zero, -1 if falls else 1)


def _line(row: Ints, low: int) -> tuple[float, float]:
    """(slope, value at 0) in the middle of the lines that round to a table, where it is not
    clamped; the nearest line where none does."""
    # Clamped ends say nothing about the slope.
    inside = np.flatnonzero((row > row.min()) & (row < row.max()))
    if inside.size < 2:
        # Fewer than two free values: any line goes through.
        return 1.0, 0.0
    x, y = inside + low, row[inside].astype(np.float64)
    slope, start = np.polyfit(x, y, 1)
    # A line through each value's interval: no two of them may be too far apart for its slope.
    apart = (x[None, :] - x[:, None])[np.triu_indices(x.size, 1)]
    rise = (y[None, :] - y[:, None])[np.triu_indices(x.size, 1)]
    least, most = ((rise - 1) / apart).max(), ((rise + 1) / apart).min()
    if least <= most:
        slope = (least + most) / 2
        # The middle of the strip: as far from both sides as can be.
        start = ((y - slope * x).min() + (y - slope * x).max()) / 2
    # A slope of 0 would have no logarithm where shifts are chosen.
    return float(max(slope, 2.0**-20)), float(start)


def _unary(graph: g.Graph, op: g.Operator, rule: Rule, zero: int, factor: int = 1) -> Task:
    """acc = factor * x - zero, and what becomes of it, of one tensor."""
    x = graph.tensors[op.inputs[0]]
    # Channels go last before anything is counted: rules are by channel.
    last = _last(graph, x.shape)
    base, spread = _elementwise(last(np.zeros(x.shape, np.int8)).shape, 1)
    origin = spread(np.broadcast_to(np.asarray(rule.origin, float), rule.low.shape))
    rule = Rule(rule.apply, rule.clamp, spread(rule.low), spread(rule.high), spread(rule.slope),
                rule.zero, origin)  # fmt: skip
    channels = rule.low.size
    # A diagonal: the machine copies through its multiplier.
    one = Contraction(base, np.full((channels, 1), factor, np.int64), _by_tensor, "v",
                      np.full(channels, -zero), 1)  # fmt: skip
    proved = f"at all {rule.clamp[1] - rule.clamp[0]} thresholds"
    return Task(one, rule, (op.inputs[0],), lambda arrays, fill: np.stack([*map(last, arrays)]),
                last, graph.tensors[op.output].zero, proved)  # fmt: skip


def add_task(graph: g.Graph, op: g.Add) -> Task | str:
    """(A a + B b + c) >> s for all 65,536 pairs of stored values, or with halves to even."""
    a, b = (graph.tensors[n] for n in op.inputs)
    if a.shape != b.shape:
        return "its operands are not two tensors of one shape"
    # x + x: both operands are one value, so the sum is a function of it, with one round less.
    if op.inputs[0] == op.inputs[1]:
        low, high = values_of(graph, op.inputs[0])
        x = np.arange(low, high + 1)
        total = np.clip(_sum_rule(graph, op, x, x)[0], *op.clamp)
        return table_task(graph, op, total[None], low, 0)
    if a.data is not None or b.data is not None:
        return _constant_add(graph, op)
    # Two tensors at once: all pairs of stored values are tried, which is a full proof (65,536).
    sums, found, refused, turns = _pairs(graph, op)
    last = _last(graph, a.shape)
    shape = last(np.zeros(a.shape, np.int8)).shape
    base, spread = _elementwise(shape, 2)
    channels: int = shape[-1]
    rows = [
        Recipe(r.name, spread(r.factor), tuple(map(spread, r.offsets)), r.between,
               spread(r.amount), spread(r.live), spread(r.constant),
               hits=None if r.hits is None else np.repeat(r.hits, channels, axis=1),
               lanes=tuple(None if v is None else spread(v) for v in r.lanes))
        for r in found
    ]  # fmt: skip
    rule = Rule(lambda v: v, op.clamp, np.full(channels, -1), np.full(channels, 1), np.ones(1))
    one = Contraction(base, np.repeat(sums[:1], channels, axis=0), _by_tensor, "v",
                      np.zeros(channels, np.int64), 2,
                      tuple(np.repeat(t, channels, axis=0) for t in turns))  # fmt: skip
    return Task(one, rule, op.inputs, lambda arrays, fill: np.stack([*map(last, arrays)]), last,
                graph.tensors[op.output].zero, "at all pairs of stored values",
                (rows, refused))  # fmt: skip


def _constant_add(graph: g.Graph, op: g.Add) -> Task | str:
    """The sum with a constant that differs by channel at most: a function of each stored value."""
    place = 0 if graph.tensors[op.inputs[1]].data is not None else 1
    source, held = op.inputs[place], graph.tensors[op.inputs[1 - place]].data
    assert held is not None
    axis = axis_of_channels(graph, held.shape)
    rows = np.moveaxis(held, axis, -1).reshape(-1, held.shape[axis]).astype(np.int64)
    # A constant that varies by place would need a bias tensor as large as the result.
    if (rows != rows[:1]).any():
        return "its constant differs from place to place"
    low, high = values_of(graph, source)
    added: Ints = rows[0]
    x, c = np.meshgrid(np.arange(low, high + 1), added)
    # Order matters: each operand has a scale of its own.
    pair = (x, c) if place == 0 else (c, x)
    values = np.clip(_sum_rule(graph, op, *pair)[0], *op.clamp)
    op = replace(op, inputs=(source,))
    return table_task(graph, op, values[:1] if (values == values[:1]).all() else values, low, axis)


def axis_of_channels(graph: g.Graph, shape: tuple[int, ...]) -> int:
    """The axis that `_last` puts last."""
    return 1 if graph.profile == "onnxruntime" and len(shape) == 4 else max(0, len(shape) - 1)


def _pairs(graph: g.Graph, op: g.Add) -> tuple[Ints, list[Recipe], list[str], tuple[Ints, ...]]:
    """(weights [1, 2], recipes of one channel, why there are none, the weights of each round where
    they are no digits of those)."""
    ends = [values_of(graph, n) for n in op.inputs]
    x1, x2 = np.meshgrid(*(np.arange(lo, hi + 1) for lo, hi in ends), indexing="ij")
    wanted, slopes = _sum_rule(graph, op, x1, x2)
    refused: list[str] = []
    # Powers of two first: one digit, where others need two or three.
    if isinstance(op.rescale, g.AddFloat):
        sums, found, why = _even_pairs(op.rescale, op.clamp, x1, x2, wanted)
        if found:
            return sums, found, why, ()
        refused += why
    sums, found, why = _digit_pairs(slopes, op.clamp, x1, x2, wanted)
    refused += why
    told = None if found else pair_points(slopes, op.clamp, x1, x2, wanted)
    if told is None:
        return sums, found, refused, ()
    return sums, [told[0]], refused, told[1]


def _sum_rule(graph: g.Graph, op: g.Add, x1: Ints, x2: Ints) -> tuple[Ints, tuple[float, float]]:
    """The stored result of every pair before the clamp; about how it grows with either."""
    rule, y = op.rescale, graph.tensors[op.output]
    if isinstance(rule, g.AddFloat):
        inner = _fused(x2 + rule.raw[1], rule.second, np.float32(rule.offset))
        total = _fused(x1 + rule.raw[0], rule.first, inner)
        whole = np.rint(total.astype(np.float64)).astype(np.int64) - rule.raw[2]
        return whole, (rule.first, rule.second)
    parts: list[Ints] = []
    slopes: list[float] = []
    result = rule.result.multiplier[0] * 2.0 ** (rule.result.shift[0] - 31)
    for x, name, scale in ((x1, op.inputs[0], rule.first), (x2, op.inputs[1], rule.second)):
        m, e = scale.multiplier[0], scale.shift[0]
        # `left` bits of headroom (20 in TFLite) before the multiplier.
        parts.append(rescaled((x - graph.tensors[name].zero) << rule.left, m, e))
        slopes.append(m * 2.0 ** (e - 31) * 2.0**rule.left * result)
    # Subtraction is addition of the negative; the rule has one rounding at the end.
    slopes[1] *= rule.sign
    total = rescaled(
        parts[0] + rule.sign * parts[1], rule.result.multiplier[0], rule.result.shift[0]
    )
    return total + y.zero, (slopes[0], slopes[1])


def _fused(x: Ints, factor: float, added: Singles | np.float32) -> Singles:
    """x * factor + added, rounded once to float32.

    The product is exact in float64; a sum that is not lies beside the float64 one, and only where
    that is halfway between two float32 numbers does it matter on which side.
    """
    product = x * np.float64(factor)
    more: NDArray[np.float64] = np.asarray(added, np.float64)
    total = product + more
    rest = (product - (total - more)) + (more - (total - (total - more)))
    near = total.astype(np.float32)
    up, down = np.nextafter(near, np.float32(np.inf)), np.nextafter(near, np.float32(-np.inf))
    other = np.where(near < total, up, down)
    half = (near.astype(np.float64) + other) / 2 == total
    low, high = np.minimum(near, other), np.maximum(near, other)
    return np.where(half & (rest > 0), high, np.where(half & (rest < 0), low, near))


def _digit_pairs(
    slopes: tuple[float, float], clamp: g.Pair, x1: Ints, x2: Ints, wanted: Ints
) -> tuple[Ints, list[Recipe], list[str]]:
    refused: list[str] = []
    for digits in (1, 2, 3, 4):
        # The widest factor that the digits carry: more bits than that do not fit.
        amount = math.floor(math.log2(most_carried(digits) / max(map(abs, slopes))))
        # The last shift takes at most 31 bits beyond those between the rounds.
        amount = min(amount, 8 * (digits - 1) + 31)
        first, second = (round(s * 2.0**amount) for s in slopes)
        # A wide factor has many neighbours that differ too little to matter.
        near = 2 if digits < 3 else NEIGHBOURS // 8
        for p, q in _around(near):
            weights = first + p, second + q
            if max(map(abs, weights)) > most_carried(digits):
                continue
            offset = _offset(weights, amount, clamp, x1, x2, wanted)
            if offset is not None:
                between = ((("shr", 8),),) * (digits - 1)
                name = "digits" if digits > 1 else "shift"
                return np.array([weights]), [_one(name, (offset,), between, amount)], refused
        wrong = _wrong(slopes, digits, clamp, x1, x2, wanted)
        refused.append(f"{digits} digits: {wrong:,} of {x1.size:,} pairs are wrong at the nearest")
    return np.ones((1, 2), np.int64), [], refused


def _wrong(
    slopes: tuple[float, float], digits: int, clamp: g.Pair, x1: Ints, x2: Ints, wanted: Ints
) -> int:
    """Pairs that the nearest factors get wrong: halves up, the constant that fits most."""
    # Only for the message: how near the best try came.
    amount = math.floor(math.log2(most_carried(digits) / max(map(abs, slopes))))
    total = sum(round(s * 2.0**amount) * x for s, x in zip(slopes, (x1, x2), strict=True))
    inside = (wanted > clamp[0]) & (wanted < clamp[1])
    # The middle of each value's interval; the median is right for most pairs.
    middle = (wanted.astype(np.int64) << amount) + (1 << (amount - 1)) - total
    offset = int(np.median(middle[inside])) if inside.any() else 0
    got = np.clip((total + offset) >> amount, *clamp)
    return int((got != np.clip(wanted, *clamp)).sum())


def _around(near: int) -> list[tuple[int, int]]:
    # Nearest first: the plain rounding of the slope is usually right.
    steps = range(-near, near + 1)
    return sorted(((p, q) for p in steps for q in steps), key=lambda v: (abs(v[0]) + abs(v[1]), v))


def _offset(
    weights: tuple[int, int], amount: int, clamp: g.Pair, x1: Ints, x2: Ints, wanted: Ints
) -> int | None:
    """The constant with which (A a + B b + c) >> s is right for every pair, if there is one."""
    total = weights[0] * x1 + weights[1] * x2
    low, high = clamp
    # A value v is right while v <= total + c < v + 1, in shifted units.
    reach = np.clip(wanted, low, high).astype(np.int64) << amount
    # Where the clamp cuts, the value may lie beyond it.
    least = int((reach - total)[wanted > low].max(initial=-(1 << 60)))
    most = int((reach + (1 << amount) - 1 - total)[wanted < high].min(initial=1 << 60))
    if least > most:
        return None
    for bits in range(60, -1, -1):  # the roundest: digits of 0 need no step
        value = -((-least) >> bits) << bits
        if value <= most:
            return value
    return least


def _even_pairs(
    rule: g.AddFloat, clamp: g.Pair, x1: Ints, x2: Ints, wanted: Ints
) -> tuple[Ints, list[Recipe], list[str]]:
    """Scales that are powers of two: the sum is an integer times 2^-n, halves go to even."""
    # Stored values that are counted from another number add a constant.
    more = rule.first * rule.raw[0] + rule.second * rule.raw[1] - rule.raw[2]
    for n in range(24):
        first, second = rule.first * 2.0**n, rule.second * 2.0**n
        offset = (rule.offset + more) * 2.0**n
        if not (first.is_integer() and second.is_integer() and offset.is_integer()):
            continue
        # A factor is an int8.
        if max(abs(first), abs(second)) > 127:
            break
        a, b, c = int(first), int(second), int(offset)
        total = a * x1 + b * x2 + c
        if n == 0:
            offsets, between = (c,), ()
            value = total
        else:
            half = 1 << (n - 1)
            offsets, between = (c + half, c + half), ((("shr", -(31 - n)), ("shr", 31)),)
            # The bit is that of the sum before rounding down: it tells odd from even at a half.
            value = (total + half - (((total + half) >> n) & 1)) >> n
        if np.array_equal(np.clip(value, *clamp), np.clip(wanted, *clamp)):
            name = "even" if n else "shift"
            return np.array([[a, b]]), [_one(name, offsets, between, n)], []
    return np.ones((1, 2), np.int64), [], ["even: its scales are no powers of two"]


def _one(name: str, offsets: tuple[int, ...], between: tuple[Steps, ...], amount: int
) -> Recipe:  # fmt: skip
    """A recipe of one channel whose factors stand in the weights."""
    one = np.ones(1, np.int64)
    return Recipe(name, one, tuple(np.array([o], np.int64) for o in offsets), between,
                  np.array([amount]), np.ones(1, bool), np.zeros(1, np.int64))  # fmt: skip


def _elementwise(shape: tuple[int, ...], tensors: int) -> tuple[Operator, Callable[[Array], Array]]:
    """y = sum over j of x[j] v[j, c], and how a value of one channel becomes one of all."""
    axes = [f"i{n}" for n in range(len(shape) - 1)] + ["c"]
    index = ",".join(axes)
    channels = shape[-1]
    base = parse_formula(
        f"y[{index}] += x[j,{index}] * v[j,c]", {"x": (tensors, *shape), "v": (tensors, channels)},
        constants=("v",), name="add" if tensors > 1 else "requantise",
    )  # fmt: skip
    return base, lambda v: v if len(v) == channels else np.repeat(v[:1], channels, axis=0)


def _by_tensor(flat: Array) -> Array:
    return np.ascontiguousarray(flat.T.astype(np.int8))


def _last(graph: g.Graph, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """Puts the channels of an array in the graph's form last: they share the lanes."""
    if graph.profile == "onnxruntime" and len(shape) == 4:
        return lambda array: np.moveaxis(array, 1, -1)
    return lambda array: array
