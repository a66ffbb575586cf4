"""Pools, means, additions and changes of scale as contractions against constant factors.

A mean is a sum with one factor; a residual addition is a contraction over its two tensors. The
factors lie on the diagonal of a tile, so that channels stay where they are.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from csp_embed.ir.operator import Operator
from csp_embed.network.lower.lowered import Array, Contraction
from csp_embed.network.lower.recipes import NEIGHBOURS, Recipe, most_carried
from csp_embed.network.lower.task import Task, values_of
from csp_embed.network.lower.thresholds import Ints, Rule, rescaled, rule_of
from csp_embed.network.quantised import graph as g
from csp_embed.ops import parse_formula


def pool_task(graph: g.Graph, op: g.AveragePool | g.Mean) -> Task | str:
    """A pool without borders, or a mean over whole rows and columns."""
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    layout = "NHWC" if isinstance(op, g.Mean) else op.layout
    shape = x.shape if layout == "NHWC" else (x.shape[0], *x.shape[2:], x.shape[1])
    if len(shape) != 4:
        return "its input has no rows and columns"
    n, h, w, c = shape
    if isinstance(op, g.Mean):
        if tuple(sorted(a % 4 for a in op.axes)) != (1, 2):
            return "it is no mean over rows and columns"
        window, stride = (h, w), (1, 1)
    else:
        window, stride = op.window, op.stride
        if any(any(p) for p in op.pads):
            return "its windows at the border have other counts"
    count = math.prod(window)
    rule = _pool_rule(graph, op, c, count)
    rows, columns = ((e - f) // s + 1 for e, f, s in zip((h, w), window, stride, strict=True))
    if rows == columns == 1:
        window = (min(h, window[0]), min(w, window[1]))
        base = parse_formula("y[n,c] += x[n,r,s,c] * v[c]", {"x": (n, *window, c), "v": (c,)},
                             constants=("v",), name="mean")  # fmt: skip
    else:
        text = f"y[n,p,q,c] += x[n,{stride[0]}*p+r,{stride[1]}*q+s,c] * v[c]"
        base = parse_formula(text, {"x": shape, "v": (c,)}, constants=("v",), name="pool",
                             extents={"r": window[0], "s": window[1]})  # fmt: skip
    zero = 0 if isinstance(op, g.AveragePool) and op.scales is None else x.zero
    ones = np.ones((c, count), np.int64)
    one = Contraction(base, ones, lambda flat: flat[:, 0].astype(np.int8), "v",
                      np.full(c, -zero * count), count)  # fmt: skip

    def operand(arrays: tuple[Array, ...], fill: int) -> Array:
        whole = np.moveaxis(arrays[0], 1, -1) if layout == "NCHW" else arrays[0]
        return whole[:, : window[0], : window[1]] if rows == columns == 1 else whole

    def arrange(array: Array) -> Array:
        if rows == columns == 1:
            return array.reshape(n, c)
        return np.moveaxis(array, 1, -1) if layout == "NCHW" else array

    proved = f"at all {rule.clamp[1] - rule.clamp[0]} thresholds"
    return Task(one, rule, (op.inputs[0],), operand, arrange, y.zero, proved)


def _pool_rule(graph: g.Graph, op: g.AveragePool | g.Mean, channels: int, count: int) -> Rule:
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    ends = values_of(graph, op.inputs[0])
    if isinstance(op, g.Mean):
        low, high = (np.full(channels, (v - x.zero) * count) for v in ends)
        return rule_of(op.rescale, y.zero, op.clamp, low, high)
    if op.scales is not None:
        low, high = (np.full(channels, (v - x.zero) * count) for v in ends)
        before, after = (np.float32(s) for s in op.scales)
        scale = before / (after * np.float32(count))
        return rule_of(g.FloatScale((float(scale),)), y.zero, op.clamp, low, high)
    low, high = (np.full(channels, v * count) for v in ends)

    def mean(total: Ints) -> Ints:
        # Halves away from zero, of the stored values' sum.
        return np.where(
            total >= 0, (2 * total + count) // (2 * count), -((count - 2 * total) // (2 * count))
        )

    return Rule(mean, op.clamp, low, high, np.full(channels, 1.0 / count))


def same_task(graph: g.Graph, op: g.Requantise | g.Clamp) -> Task | str:
    """One tensor, element by element."""
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    ends = values_of(graph, op.inputs[0])
    if isinstance(op, g.Clamp):
        low, high = (np.full(1, v) for v in ends)
        rule, zero = Rule(lambda a: a, op.clamp, low, high, np.ones(1)), 0
    else:
        low, high = (np.full(1, v - x.zero) for v in ends)
        rule, zero = rule_of(op.rescale, y.zero, op.clamp, low, high), x.zero
    last = _last(graph, x.shape)
    base, spread = _elementwise(last(np.zeros(x.shape, np.int8)).shape, 1)
    rule = Rule(rule.apply, rule.clamp, spread(rule.low), spread(rule.high), spread(rule.slope))
    channels = rule.low.size
    one = Contraction(base, np.ones((channels, 1), np.int64), _by_tensor, "v",
                      np.full(channels, -zero), 1)  # fmt: skip
    proved = f"at all {rule.clamp[1] - rule.clamp[0]} thresholds"
    return Task(one, rule, (op.inputs[0],), lambda arrays, fill: np.stack([*map(last, arrays)]),
                last, y.zero, proved)  # fmt: skip


def add_task(graph: g.Graph, op: g.Add) -> Task | str:
    """(A a + B b + c) >> s for all 65,536 pairs of stored values, or with halves to even."""
    a, b = (graph.tensors[n] for n in op.inputs)
    if a.shape != b.shape or a.data is not None or b.data is not None:
        return "its operands are not two tensors of one shape"
    sums, found, refused = _pairs(graph, op)
    last = _last(graph, a.shape)
    shape = last(np.zeros(a.shape, np.int8)).shape
    base, spread = _elementwise(shape, 2)
    channels = shape[-1]
    rows = [
        Recipe(r.name, spread(r.factor), tuple(map(spread, r.offsets)), r.between,
               spread(r.amount), spread(r.live), spread(r.constant))
        for r in found
    ]  # fmt: skip
    rule = Rule(lambda v: v, op.clamp, np.full(channels, -1), np.full(channels, 1), np.ones(1))
    one = Contraction(base, np.repeat(sums[:1], channels, axis=0), _by_tensor, "v",
                      np.zeros(channels, np.int64), 2)  # fmt: skip
    return Task(one, rule, op.inputs, lambda arrays, fill: np.stack([*map(last, arrays)]), last,
                graph.tensors[op.output].zero, "at all pairs of stored values",
                (rows, refused))  # fmt: skip


def _pairs(graph: g.Graph, op: g.Add) -> tuple[Ints, list[Recipe], list[str]]:
    """(weights [1, 2], recipes of one channel, why there are none)."""
    ends = [values_of(graph, n) for n in op.inputs]
    x1, x2 = np.meshgrid(*(np.arange(lo, hi + 1) for lo, hi in ends), indexing="ij")
    wanted, slopes = _sum_rule(graph, op, x1, x2)
    if isinstance(op.rescale, g.AddFloat):
        return _even_pairs(op.rescale, op.clamp, x1, x2, wanted)
    return _digit_pairs(slopes, op.clamp, x1, x2, wanted)


def _sum_rule(graph: g.Graph, op: g.Add, x1: Ints, x2: Ints) -> tuple[Ints, tuple[float, float]]:
    """The stored result of every pair before the clamp; about how it grows with either."""
    rule, y = op.rescale, graph.tensors[op.output]
    if isinstance(rule, g.AddFloat):
        # Both products are exact in float64, and so is each sum wherever the float32 one is.
        inner = (x2 * np.float64(rule.second) + rule.offset).astype(np.float32)
        total = (x1 * np.float64(rule.first) + inner.astype(np.float64)).astype(np.float32)
        return np.rint(total).astype(np.int64), (rule.first, rule.second)
    parts, slopes = [], []
    result = rule.result.multiplier[0] * 2.0 ** (rule.result.shift[0] - 31)
    for x, name, scale in ((x1, op.inputs[0], rule.first), (x2, op.inputs[1], rule.second)):
        m, e = scale.multiplier[0], scale.shift[0]
        parts.append(rescaled((x - graph.tensors[name].zero) << rule.left, m, e))
        slopes.append(m * 2.0 ** (e - 31) * 2.0**rule.left * result)
    total = rescaled(parts[0] + parts[1], rule.result.multiplier[0], rule.result.shift[0])
    return total + y.zero, (slopes[0], slopes[1])


def _digit_pairs(
    slopes: tuple[float, float], clamp: g.Pair, x1: Ints, x2: Ints, wanted: Ints
) -> tuple[Ints, list[Recipe], list[str]]:
    refused = []
    for digits in (1, 2, 3, 4):
        amount = math.floor(math.log2(most_carried(digits) / max(slopes)))
        amount = min(amount, 8 * (digits - 1) + 31)
        first, second = (round(s * 2.0**amount) for s in slopes)
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
    amount = math.floor(math.log2(most_carried(digits) / max(slopes)))
    total = sum(round(s * 2.0**amount) * x for s, x in zip(slopes, (x1, x2), strict=True))
    inside = (wanted > clamp[0]) & (wanted < clamp[1])
    middle = (wanted.astype(np.int64) << amount) + (1 << (amount - 1)) - total
    offset = int(np.median(middle[inside])) if inside.any() else 0
    got = np.clip((total + offset) >> amount, *clamp)
    return int((got != np.clip(wanted, *clamp)).sum())


def _around(near: int) -> list[tuple[int, int]]:
    steps = range(-near, near + 1)
    return sorted(((p, q) for p in steps for q in steps), key=lambda v: (abs(v[0]) + abs(v[1]), v))


def _offset(
    weights: tuple[int, int], amount: int, clamp: g.Pair, x1: Ints, x2: Ints, wanted: Ints
) -> int | None:
    """The constant with which (A a + B b + c) >> s is right for every pair, if there is one."""
    total = weights[0] * x1 + weights[1] * x2
    low, high = clamp
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
    for n in range(24):
        first, second, offset = (v * 2.0**n for v in (rule.first, rule.second, rule.offset))
        if not (first.is_integer() and second.is_integer() and offset.is_integer()):
            continue
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
            value = (total + half - (((total + half) >> n) & 1)) >> n
        if np.array_equal(np.clip(value, *clamp), np.clip(wanted, *clamp)):
            name = "even" if n else "shift"
            return np.array([[a, b]]), [_one(name, offsets, between, n)], []
    return np.ones((1, 2), np.int64), [], ["even: its scales are no powers of two"]


def _one(name: str, offsets: tuple[int, ...], between: tuple, amount: int) -> Recipe:  # type: ignore[type-arg]
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
    return base, lambda v: np.repeat(v[:1], channels, axis=0)


def _by_tensor(flat: Array) -> Array:
    return np.ascontiguousarray(flat.T.astype(np.int8))


def _last(graph: g.Graph, shape: tuple[int, ...]) -> Callable[[Array], Array]:
    """Puts the channels of an array in the graph's form last: they share the lanes."""
    if graph.profile == "onnxruntime" and len(shape) == 4:
        return lambda array: np.moveaxis(array, 1, -1)
    return lambda array: array
