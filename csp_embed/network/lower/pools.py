"""Pools and means as contractions: a sum with one factor, or the largest of several values.

The factors lie on the diagonal of a tile, so that channels stay where they are.
"""

from __future__ import annotations

import math

import numpy as np

from csp_embed.network.lower.lowered import Array, Contraction
from csp_embed.network.lower.recipe import Recipe
from csp_embed.network.lower.task import Task, nhwc, to_nhwc, values_of
from csp_embed.network.lower.thresholds import Ints, Rule, rule_of
from csp_embed.network.quantised import graph as g
from csp_embed.ops import depthwise_conv2d, parse_formula


def max_task(graph: g.Graph, op: g.MaxPool) -> Task | str:
    """The largest value of each window, one round for each further place of it.

    max(a, b) = max(a - b, 0) + b: each round subtracts the next value, clips at 0, and the round
    after adds the value again.
    """
    x = graph.tensors[op.inputs[0]]
    n, *size, c = nhwc(x.shape, op.layout)
    h, w = (extent + sum(p) for extent, p in zip(size, op.pads, strict=True))
    base = depthwise_conv2d(
        n=n, c=c, h=h, w=w, r=op.window[0], s=op.window[1], stride=op.stride, layout="NHWC"
    )
    count = math.prod(op.window)
    # Every other row backwards: the two places of a round are neighbours, and no others are read.
    rows = np.arange(count).reshape(op.window)
    rows[1::2] = rows[1::2, ::-1]
    walk = rows.reshape(-1)
    turns: list[Ints] = []
    for turn in range(count):
        one = np.zeros((c, count), np.int64)
        one[:, walk[turn]] = 1
        if turn + 1 < count:
            one[:, walk[turn + 1]] = -1
        turns.append(one)
    ones, nothing = np.ones(c, np.int64), np.zeros(c, np.int64)
    recipe = Recipe("largest", ones, (nothing,) * count, ((("max", 0),),) * (count - 1), nothing,
                    np.ones(c, bool), nothing)  # fmt: skip
    # A border must not win: the zero point does not where no value lies below it.
    low = values_of(graph, op.inputs[0])[0]
    # Filled with the zero point where it can be, as other readers of the tensor want it so.
    fill = x.zero if x.zero <= low else x.range[0]
    if fill > low:
        return "its border would win"

    def place(flat: Array) -> Array:
        return np.ascontiguousarray(flat.reshape(c, *op.window).astype(np.int8))

    def operand(arrays: tuple[Array, ...], fill: int) -> Array:
        whole = to_nhwc(arrays[0], op.layout)
        return np.pad(whole, ((0, 0), *op.pads, (0, 0)), constant_values=fill)

    def arrange(array: Array) -> Array:
        return to_nhwc(array, op.layout)

    rule = Rule(lambda a: a, op.clamp, np.full(c, -1), np.full(c, 1), np.ones(1))
    one = Contraction(base, turns[0], place, "w", nothing, count, tuple(turns))
    proved = "max(a, b) = max(a - b, 0) + b, no shift"
    return Task(one, rule, (op.inputs[0],), operand, arrange, fill, proved, ([recipe], []))


def pool_task(graph: g.Graph, op: g.AveragePool | g.Mean) -> Task | str:
    """A pool without borders, or a mean over whole rows and columns."""
    x = graph.tensors[op.inputs[0]]
    layout = "NHWC" if isinstance(op, g.Mean) else op.layout
    shape = nhwc(x.shape, layout)
    if len(shape) != 4:
        return "its input has no rows and columns"
    n, h, w, c = shape
    if isinstance(op, g.Mean):
        # Negative axes count from the end.
        if tuple(sorted(a % 4 for a in op.axes)) != (1, 2):
            return "it is no mean over rows and columns"
        window, stride = (h, w), (1, 1)
    else:
        window, stride = op.window, op.stride
        # Fewer values at a border would need another divisor there.
        if any(any(p) for p in op.pads) and not op.count_pads:
            return "its windows at the border have other counts"
        h, w = (e + sum(p) for e, p in zip((h, w), op.pads, strict=True))
    count = math.prod(window)
    rule = _pool_rule(graph, op, c, count)
    rows, columns = ((e - f) // s + 1 for e, f, s in zip((h, w), window, stride, strict=True))
    # One window: no places to step through, and what lies outside of it is not read.
    if rows == columns == 1:
        window = (min(h, window[0]), min(w, window[1]))
        base = parse_formula("y[n,c] += x[n,r,s,c] * v[c]", {"x": (n, *window, c), "v": (c,)},
                             constants=("v",), name="mean")  # fmt: skip
    else:
        text = f"y[n,p,q,c] += x[n,{stride[0]}*p+r,{stride[1]}*q+s,c] * v[c]"
        base = parse_formula(text, {"x": (n, h, w, c), "v": (c,)}, constants=("v",), name="pool",
                             extents={"r": window[0], "s": window[1]})  # fmt: skip
    # The mean of stored values needs no zero point: it is an average of them.
    zero = 0 if isinstance(op, g.AveragePool) and op.scales is None else x.zero
    ones = np.ones((c, count), np.int64)
    one = Contraction(base, ones, lambda flat: flat[:, 0].astype(np.int8), "v",
                      np.full(c, -zero * count), count)  # fmt: skip

    def operand(arrays: tuple[Array, ...], fill: int) -> Array:
        whole = to_nhwc(arrays[0], layout)
        if isinstance(op, g.AveragePool):
            whole = np.pad(whole, ((0, 0), *op.pads, (0, 0)), constant_values=fill)
        return whole[:, : window[0], : window[1]] if rows == columns == 1 else whole

    def arrange(array: Array) -> Array:
        if rows == columns == 1:
            return array.reshape(n, c)
        return to_nhwc(array, layout)

    proved = f"at all {rule.clamp[1] - rule.clamp[0]} thresholds"
    return Task(one, rule, (op.inputs[0],), operand, arrange, x.zero, proved)


def _pool_rule(graph: g.Graph, op: g.AveragePool | g.Mean, channels: int, count: int) -> Rule:
    x, y = graph.tensors[op.inputs[0]], graph.tensors[op.output]
    ends = values_of(graph, op.inputs[0])
    if isinstance(op, g.Mean):
        low, high = (np.full(channels, (v - x.zero) * count) for v in ends)
        return rule_of(op.rescale, y.zero, op.clamp, low, high)
    if op.scales is not None:
        low, high = (np.full(channels, (v - x.zero) * count) for v in ends)
        before, after = (np.float32(s) for s in op.scales)
        # In float32, in this order: the runtime's product is rounded so.
        scale = before / (after * np.float32(count))
        return rule_of(g.FloatScale((float(scale),)), y.zero, op.clamp, low, high)
    low, high = (np.full(channels, v * count) for v in ends)

    def mean(total: Ints) -> Ints:
        # Halves away from zero, of the stored values' sum.
        return np.where(
            total >= 0, (2 * total + count) // (2 * count), -((count - 2 * total) // (2 * count))
        )

    return Rule(mean, op.clamp, low, high, np.full(channels, 1.0 / count))
