"""One operator of a quantised graph as a contraction in rounds that is exact for every input.

Takes: a Conv, FullyConnected, pool, mean, addition or requantisation.  Leaves: `Lowered`, or the
reason why the host computes it. Zero points and rounding constants stand in the bias; a halo is
part of x and holds its zero point.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from csp_embed.network.lower.lowered import INT32, Array, Contraction, Lowered, contracted
from csp_embed.network.lower.pointwise import add_task, same_task
from csp_embed.network.lower.pools import max_task, pool_task
from csp_embed.network.lower.recipes import recipes
from csp_embed.network.lower.task import Task, nhwc, to_nhwc, values_of
from csp_embed.network.lower.thresholds import rule_of
from csp_embed.network.quantised import graph as g
from csp_embed.ops import conv2d, depthwise_conv2d, matmul

# Both only rank recipes; cycles are measured.
LANES = 16  # products of a usual step
LOAD = 32.0  # cycles that the 16 x 16 factors of a step take, at 8 bytes a cycle


def lower(graph: g.Graph, op: g.Operator) -> Lowered | str:
    """The layer's contraction, of all exact recipes the cheapest; or why the host computes it."""
    if isinstance(op, g.Outside):
        # Floating point has no exact form in integers; the host computes it as the runtime does.
        return f"{op.what} in floating point: {op.why}"
    if isinstance(op, g.Multiply):
        return "a product of two activations: the machine multiplies by constants"
    make = _TASKS.get(type(op))
    if make is None:
        return f"{op.kind} has no exact form on this machine yet"
    # Constants may be int32 (biases); what is computed at run time must be a machine's operand.
    reads = [n for n in op.inputs if n and graph.tensors[n].data is None]
    if any(graph.tensors[n].dtype != "int8" for n in (*reads, op.output)):
        return "operands are not int8"
    task = make(graph, op)
    return task if isinstance(task, str) else lowered(task)


def lowered(task: Task) -> Lowered | str:
    """As `lower`, of what an operator computes."""
    rule, one = task.rule, task.contraction
    read = LOAD * one.steps / one.places if one.places else 0.0
    # A sum that wraps would make the threshold proof speak of other numbers.
    if rule.low.min() < INT32[0] or rule.high.max() > INT32[1]:
        return "its sums may wrap around int32"
    found, refused = task.recipes or recipes(rule, one.weights, one.bias, one.steps, read)
    # The cheapest first; one whose digits or sums do not fit leaves the place to the next.
    for recipe in sorted(found, key=lambda r: r.price(one.steps, read)):
        copies = recipe.copies(one.steps)
        made = contracted(one, recipe, rule.clamp, copies)
        if isinstance(made, str):
            refused = [*refused, made]
            continue
        proof = f"{recipe.name}: equal for every sum that can occur, {task.proved}"
        op, rounds, constants, kept, dropped, weights = made
        return Lowered(op, rounds, constants, task.reads, task.operand, task.arrange, task.fill,
                       recipe, proof, tuple(refused), copies, kept, dropped, weights)  # fmt: skip
    # Reasons are kept: whoever chooses scales can do something about them.
    return "no exact sequence of steps: " + "; ".join(refused) + (
        "; scales in another ratio, or powers of two, may have one"
    )  # fmt: skip


def _conv(graph: g.Graph, op: g.Conv) -> Task | str:
    x, w = graph.tensors[op.inputs[0]], graph.tensors[op.inputs[1]]
    if w.data is None:
        return "its weights are no constants"
    k, r, s, per = w.shape
    n, rows, columns, channels = nhwc(x.shape, op.layout)
    # The halo is part of x: the machine's loads fill 0, quantised padding is the zero point.
    h, width = (extent + sum(p) for extent, p in zip((rows, columns), op.pads, strict=True))
    shape: dict[str, Any] = {"n": n, "c": channels, "h": h, "w": width, "r": r, "s": s}
    shape |= {"stride": op.stride, "dilation": op.dilation, "layout": "NHWC"}
    # Depthwise by its factors: each group has one input channel.
    depthwise = op.groups > 1 and per == 1
    if depthwise:
        base = depthwise_conv2d(**shape, multiplier=k // channels)
    else:
        base = conv2d(**shape, k=k, groups=op.groups)

    def place(flat: Array) -> Array:
        if depthwise:
            return np.ascontiguousarray(flat.reshape(k, r, s).astype(np.int8))
        # From the network's order (K, R, S, C) to the formula's.
        return np.ascontiguousarray(flat.reshape(k, r, s, per).transpose(0, 3, 1, 2)).astype(
            np.int8
        )

    def operand(arrays: tuple[Array, ...], fill: int) -> Array:
        sides = ((0, 0), *op.pads, (0, 0))
        return np.pad(to_nhwc(arrays[0], op.layout), sides, constant_values=fill)

    return _contraction(graph, op, base, place, operand, lambda y: to_nhwc(y, op.layout))


def _dense(graph: g.Graph, op: g.FullyConnected) -> Task | str:
    # Leading axes of any number are rows: a dense layer works on the last one.
    w, y = graph.tensors[op.inputs[1]], graph.tensors[op.output]
    if w.data is None:
        return "its weights are no constants"
    rows = y.elements // w.shape[0]
    base = matmul(m=w.shape[0], n=rows, k=w.shape[1])

    def operand(arrays: tuple[Array, ...], fill: int) -> Array:
        return arrays[0].reshape(rows, w.shape[1])

    return _contraction(
        graph, op, base, lambda flat: flat.astype(np.int8),
        operand, lambda y: y.reshape(rows, w.shape[0]),
    )  # fmt: skip


def _contraction(
    graph: g.Graph, op: g.Conv | g.FullyConnected, base: Any, place: Callable[[Array], Array],
    operand: Callable[..., Array], arrange: Callable[[Array], Array],
) -> Task:  # fmt: skip
    x, w, y = (graph.tensors[n] for n in (op.inputs[0], op.inputs[1], op.output))
    assert w.data is not None
    source = op.inputs[0]
    zeros = np.reshape(w.zero_points or (0,), (-1, 1))
    flat: Array = w.data.reshape(w.shape[0], -1).astype(np.int64) - zeros
    held = graph.tensors[op.inputs[2]].data if len(op.inputs) > 2 and op.inputs[2] else None
    # A missing bias is one of zeros: every recipe adds a constant anyway.
    bias = np.zeros(len(flat), np.int64) if held is None else held.astype(np.int64).reshape(-1)
    # Products with the halo are 0, which lies within these ends.
    ends: Array = np.stack([flat * (v - x.zero) for v in values_of(graph, source)])
    low, high = bias + ends.min(axis=0).sum(axis=1), bias + ends.max(axis=0).sum(axis=1)
    # Factors by channel are fixed, so the extremes of a sum are known: each product at its worst
    # end.
    rule = rule_of(op.rescale, y.zero, op.clamp, low, high)
    # Depthwise products do not fill lanes: each takes a step.
    steps = flat.shape[1] if base.name.startswith("depthwise") else math.ceil(flat.shape[1] / LANES)
    # sum (x - zx) w = sum x w - zx sum w: the zero point goes into the bias.
    one = Contraction(base, flat, place, "w", bias - x.zero * flat.sum(axis=1), steps,
                      places=y.elements // len(flat))  # fmt: skip
    proved = f"at all {op.clamp[1] - op.clamp[0]} thresholds"
    return Task(one, rule, (source,), operand, arrange, x.zero, proved)


_TASKS: dict[type, Callable[[g.Graph, Any], Task | str]] = {
    g.Conv: _conv,
    g.FullyConnected: _dense,
    g.AveragePool: pool_task,
    g.MaxPool: max_task,
    g.Mean: pool_task,
    g.Add: add_task,
    g.Requantise: same_task,
    g.Clamp: same_task,
    g.Lookup: same_task,
}
