"""What a quantised graph computes, in NumPy: the oracle that programs are compared with.

Shares nothing with compiler or importers: it reads the graph's integers and float32 numbers only.
Sources of the rules: TensorFlow Lite's quantisation specification and its reference kernels as
TensorFlow Lite Micro has them; onnxruntime's QLinear operators. docs/networks.md states each rule.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.reference.outside import run_outside
from csp_embed.network.quantised.reference.rounding import (
    double_rounding,
    fused_multiply_add,
    half_away,
    scaled_half_even,
)
from csp_embed.network.quantised.reference.softmax import softmax

Array = NDArray[Any]


def run(graph: g.Graph, inputs: Mapping[str, Array]) -> dict[str, Array]:
    """Every activation by name, for a batch of any size in place of the model's own.

    Raises: InputError where an input is missing or of the wrong shape or type.
    """
    values: dict[str, Array] = {}
    for name in graph.inputs:
        values[name] = _checked(graph.tensors[name], inputs)
    for op in graph.operators:
        values[op.output] = step(graph, op, values)
    return values


def step(graph: g.Graph, op: g.Operator, values: Mapping[str, Array]) -> Array:
    """The output of one operator. values: at least its activations."""
    arrays = [_value(graph, name, values) for name in op.inputs]
    # Cast last: rules return wide values inside the type's range.
    return _RULES[type(op)](graph, op, arrays).astype(graph.tensors[op.output].dtype)


def _checked(tensor: g.Tensor, inputs: Mapping[str, Array]) -> Array:
    if tensor.name not in inputs:
        raise InputError(
            f"input {tensor.name!r} is missing",
            hint=f"give {tensor.dtype} of shape {list(tensor.shape)}",
        )
    array = np.asarray(inputs[tensor.name])
    # The batch is free: many inputs are checked in one run.
    if array.dtype != np.dtype(tensor.dtype) or array.shape[1:] != tensor.shape[1:]:
        raise InputError(
            f"input {tensor.name!r} is {array.dtype} {list(array.shape)}",
            why=f"the model takes {tensor.dtype} {list(tensor.shape)}, or more along axis 0",
            hint=f"quantise it: scale {tensor.scales}, zero point {tensor.zero}",
        )
    return array


def _value(graph: g.Graph, name: str, values: Mapping[str, Array]) -> Array:
    data = graph.tensors[name].data if name else None
    # An absent bias is a 0.
    return values[name] if name and data is None else np.asarray(0 if data is None else data)


def _rescaled(rescale: g.Rescale, acc: Array) -> Array:
    """acc times the rescale of its last axis, rounded, as int64."""
    if isinstance(rescale, g.FixedPoint):
        return double_rounding(acc, np.array(rescale.multiplier), np.array(rescale.shift))
    return scaled_half_even(acc, np.array(rescale.scale, np.float32))


def _stored(graph: g.Graph, op: Any, values: Array) -> Array:
    return np.clip(values + graph.tensors[op.output].zero, *op.clamp)


def _centred(graph: g.Graph, name: str, array: Array) -> NDArray[np.float64]:
    """Values minus their zero point; sums of such products are exact in float64."""
    return array.astype(np.float64) - graph.tensors[name].zero


def _to_nhwc(array: Array, layout: str) -> Array:
    return np.moveaxis(array, 1, -1) if layout == "NCHW" else array


def _from_nhwc(array: Array, layout: str) -> Array:
    return np.moveaxis(array, -1, 1) if layout == "NCHW" else array


def windows(x: Array, op: Any, window: g.Pair, dilation: g.Pair, fill: float) -> Array:
    """[n, rows, columns, c, r, s] of x [n, h, w, c], padded with `fill`."""
    (top, bottom), (left, right) = op.pads
    x = np.pad(x, ((0, 0), (top, bottom), (left, right), (0, 0)), constant_values=fill)
    spans = tuple(d * (f - 1) + 1 for d, f in zip(dilation, window, strict=True))
    # A view, no copy: windows overlap.
    seen = np.lib.stride_tricks.sliding_window_view(x, spans, axis=(1, 2))
    return seen[:, :: op.stride[0], :: op.stride[1], :, :: dilation[0], :: dilation[1]]


def _conv(graph: g.Graph, op: g.Conv, arrays: list[Array]) -> Array:
    """The bias is added in int32, as the runtimes do: a sum beyond it wraps."""
    # float64: products and sums of int8 stay far below 2^53.
    x = _to_nhwc(_centred(graph, op.inputs[0], arrays[0]), op.layout)
    w = arrays[1].astype(np.float64)
    w -= np.reshape(_weight_zeros(graph, op.inputs[1]), (-1, 1, 1, 1))
    k, r, s, per = w.shape
    seen = windows(x, op, (r, s), op.dilation, 0)
    n, p, q = seen.shape[:3]
    seen = seen.reshape(n, p, q, op.groups, per, r, s)
    acc = np.empty((n, p, q, op.groups, k // op.groups))
    filters = w.reshape(op.groups, k // op.groups, r, s, per)
    if per == 1:  # Depthwise: too little per group for a matrix product.
        acc = np.einsum("npqgcrs,gkrsc->npqgk", seen, filters, optimize=False)
    else:
        for group in range(op.groups):
            flat = seen[:, :, :, group].transpose(0, 1, 2, 4, 5, 3).reshape(n * p * q, -1)
            acc[:, :, :, group] = (flat @ filters[group].reshape(k // op.groups, -1).T).reshape(
                n, p, q, -1
            )
    total = _int32(acc.reshape(n, p, q, k).astype(np.int64) + arrays[2].astype(np.int64))
    return _from_nhwc(_stored(graph, op, _rescaled(op.rescale, total)), op.layout)


def _weight_zeros(graph: g.Graph, name: str) -> Array:
    return np.array(graph.tensors[name].zero_points or (0,), np.float64)


def _int32(values: Array) -> Array:
    return values.astype(np.int32).astype(np.int64)


def _fully_connected(graph: g.Graph, op: g.FullyConnected, arrays: list[Array]) -> Array:
    x = _centred(graph, op.inputs[0], arrays[0])
    w = arrays[1].astype(np.float64) - np.reshape(_weight_zeros(graph, op.inputs[1]), (-1, 1))
    total = _int32((x @ w.T).astype(np.int64) + arrays[2].astype(np.int64))
    return _stored(graph, op, _rescaled(op.rescale, total))


def _add(graph: g.Graph, op: g.Add, arrays: list[Array]) -> Array:
    rule = op.rescale
    if isinstance(rule, g.AddFloat):
        # raw: the graph may count from another number than the rule.
        a, b = (v.astype(np.float32) + raw for v, raw in zip(arrays, rule.raw, strict=False))
        inner = fused_multiply_add(b, np.float32(rule.second), np.float32(rule.offset))
        total = fused_multiply_add(a, np.float32(rule.first), inner)
        return np.clip(np.rint(total.astype(np.float64)) - rule.raw[2], *op.clamp)
    sides = [
        _rescaled(scale, (v.astype(np.int64) - graph.tensors[name].zero) << rule.left)
        for v, name, scale in zip(arrays, op.inputs, (rule.first, rule.second), strict=True)
    ]
    return _stored(graph, op, _rescaled(rule.result, sides[0] + rule.sign * sides[1]))


def _max_pool(graph: g.Graph, op: g.MaxPool, arrays: list[Array]) -> Array:
    # Below every value: padding never wins.
    low = graph.tensors[op.output].range[0]
    x = _to_nhwc(arrays[0].astype(np.int64), op.layout)
    best = windows(x, op, op.window, (1, 1), low).max(axis=(-2, -1))
    return _from_nhwc(np.clip(best, *op.clamp), op.layout)


def _average_pool(graph: g.Graph, op: g.AveragePool, arrays: list[Array]) -> Array:
    x = _to_nhwc(arrays[0].astype(np.int64), op.layout)
    # TFLite averages stored values, onnxruntime those without zero point.
    if op.scales is not None:
        x = x - graph.tensors[op.inputs[0]].zero
    total = windows(x, op, op.window, (1, 1), 0).sum(axis=(-2, -1))
    ones = np.ones((1, *x.shape[1:3], 1), np.int64)
    # The count of a window inside the image, by summing ones.
    count = windows(ones, op, op.window, (1, 1), int(op.count_pads)).sum(axis=(-2, -1))
    if op.scales is None:
        return _from_nhwc(np.clip(half_away(total, count), *op.clamp), op.layout)
    before, after = (np.float32(s) for s in op.scales)
    # In float32, in this order, as the runtime has it.
    scale = before / (after * count.astype(np.float32))
    return _from_nhwc(_stored(graph, op, scaled_half_even(total, scale)), op.layout)


def _mean(graph: g.Graph, op: g.Mean, arrays: list[Array]) -> Array:
    centred = arrays[0].astype(np.int64) - graph.tensors[op.inputs[0]].zero
    total = centred.sum(axis=op.axes, keepdims=True)
    return _stored(graph, op, _rescaled(op.rescale, total)).reshape(
        total.shape[0], *graph.tensors[op.output].shape[1:]
    )


def _pad(graph: g.Graph, op: g.Pad, arrays: list[Array]) -> Array:
    return np.pad(arrays[0], op.pads, constant_values=op.value)


def _slice(graph: g.Graph, op: g.Slice, arrays: list[Array]) -> Array:
    ranges = zip(op.starts, op.stops, op.steps, strict=True)
    inner = [slice(*r) for r in ranges][1:]  # the importers leave the batch whole
    return arrays[0][(slice(None), *inner)]


def _reshape(graph: g.Graph, op: g.Reshape, arrays: list[Array]) -> Array:
    # The batch of `run` stands in place of the model's own where axis 0 stays what it is.
    before, after = graph.tensors[op.inputs[0]].shape, graph.tensors[op.output].shape
    more = arrays[0].shape[0] // before[0] if before else 1
    return arrays[0].reshape(after if more == 1 else (after[0] * more, *after[1:]))


def _transpose(graph: g.Graph, op: g.Transpose, arrays: list[Array]) -> Array:
    return arrays[0].transpose(op.order)


def _clamp(graph: g.Graph, op: g.Clamp, arrays: list[Array]) -> Array:
    return np.clip(arrays[0], *op.clamp)


def _requantise(graph: g.Graph, op: g.Requantise, arrays: list[Array]) -> Array:
    centred = arrays[0].astype(np.int64) - graph.tensors[op.inputs[0]].zero
    return _stored(graph, op, _rescaled(op.rescale, centred))


def _multiply(graph: g.Graph, op: g.Multiply, arrays: list[Array]) -> Array:
    a, b = (
        v.astype(np.int64) - graph.tensors[n].zero for v, n in zip(arrays, op.inputs, strict=True)
    )
    return _stored(graph, op, _rescaled(op.rescale, a * b))


def _spread(graph: g.Graph, op: g.Spread, arrays: list[Array]) -> Array:
    shape = (arrays[0].shape[0], *graph.tensors[op.output].shape[1:])
    out = np.full(shape, op.value, arrays[0].dtype)
    out[:, :: op.stride[0], :: op.stride[1]] = arrays[0]
    return out


def _lookup(graph: g.Graph, op: g.Lookup, arrays: list[Array]) -> Array:
    x, table = arrays
    number = x.astype(np.int64) - graph.tensors[op.inputs[0]].range[0]
    if len(table) == 1:
        return table[0][number]
    shape = [-1 if a == op.axis else 1 for a in range(x.ndim)]
    return table[np.arange(len(table)).reshape(shape), number]


def _move(graph: g.Graph, op: g.Move, arrays: list[Array]) -> Array:
    """Places are those of the model's own batch: more inputs are moved one by one."""
    x, places = arrays
    each = x.reshape(-1, graph.tensors[op.inputs[0]].elements)[:, places.reshape(-1)]
    more, shape = len(each), graph.tensors[op.output].shape
    return each.reshape(shape if more == 1 else (shape[0] * more, *shape[1:]))


def _outside(graph: g.Graph, op: g.Outside, arrays: list[Array]) -> Array:
    first = graph.tensors[op.inputs[0]]
    more = arrays[0].size // max(1, first.elements)
    parts: list[Array] = []
    for n in range(more):  # the model's own batch at a time
        feeds = {
            name: a.reshape(more, *graph.tensors[name].shape)[n]
            for name, a in zip(op.inputs, arrays, strict=True)
        }
        parts.append(run_outside(op.model, feeds, graph.source))
    return np.concatenate(parts) if more > 1 else parts[0]


def _concat(graph: g.Graph, op: g.Concat, arrays: list[Array]) -> Array:
    return np.concatenate(arrays, axis=op.axis)


def _softmax(graph: g.Graph, op: g.Softmax, arrays: list[Array]) -> Array:
    return softmax(arrays[0], op.multiplier, op.left_shift, op.diff_min)


_RULES: dict[type, Callable[[g.Graph, Any, list[Array]], Array]] = {
    g.Conv: _conv,
    g.FullyConnected: _fully_connected,
    g.Add: _add,
    g.MaxPool: _max_pool,
    g.AveragePool: _average_pool,
    g.Mean: _mean,
    g.Pad: _pad,
    g.Slice: _slice,
    g.Reshape: _reshape,
    g.Transpose: _transpose,
    g.Clamp: _clamp,
    g.Requantise: _requantise,
    g.Multiply: _multiply,
    g.Spread: _spread,
    g.Lookup: _lookup,
    g.Move: _move,
    g.Outside: _outside,
    g.Concat: _concat,
    g.Softmax: _softmax,
}
