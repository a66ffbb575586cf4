"""Operators that QDQ form writes in floating point, and those that move or compare stored values.

Between DequantizeLinear and QuantizeLinear, onnxruntime runs Conv, Gemm, Add and pools as their
integer forms; moving, comparing and clamping commute with quantising at one scale, so that they
work on the stored values at once, whichever form the model has.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.onnx.outside import MOVING, moved_places
from csp_embed.network.quantised.onnx.qlinear import (
    add_scales,
    alike,
    average_pool,
    conv,
    matrix,
    pool_window,
    window_arguments,
)
from csp_embed.network.quantised.onnx.values import (
    Pending,
    Reading,
    Real,
    Stored,
    clamp_of,
)


def _operand(r: Reading, node: Any, place: int) -> g.Tensor:
    """The quantised tensor behind an operand."""
    name = r.optional(node, place)
    found = r.stored(node, name) if name else None
    if found is None:
        r.refuse(node, f"operand {name!r} is not quantised")
    assert found is not None
    return found


def _real_operand(r: Reading, node: Any, place: int) -> g.Tensor:
    if not isinstance(r.values.get(r.optional(node, place)), Real):
        r.refuse(node, f"operand {r.optional(node, place)!r} is not behind a DequantizeLinear")
    return _operand(r, node, place)


def _bias(r: Reading, node: Any, x: g.Tensor, w: g.Tensor) -> Any:
    """The int32 bias, whose scale must be that of the sums."""
    if not r.optional(node, 2):
        return None
    b = _operand(r, node, 2)
    # Float32 products, as quantisers write them; a hair of rounding between tools is allowed.
    wanted = np.float32(x.scales[0]) * np.array(w.scales, np.float32)
    same = np.allclose(np.array(b.scales, np.float32), wanted, rtol=1e-4, atol=0)
    # Any other bias would need a rescale of its own before the sum.
    if b.data is None or b.dtype != "int32" or any(b.zero_points) or not same:
        r.refuse(node, f"its bias {b.name!r} is not int32 at the scale of the sums")
    return b.data


def _pending(r: Reading, node: Any, build: Callable[[g.Tensor, g.Pair], g.Operator]) -> None:
    # What the result's scale is stands behind it, in its QuantizeLinear.
    r.values[node.output[0]] = Pending(node, build)


def _conv(r: Reading, node: Any) -> None:
    x, w = _real_operand(r, node, 0), _real_operand(r, node, 1)
    b = _bias(r, node, x, w)
    _pending(r, node, lambda y, clamp: conv(r, node, x, w, b, y, clamp))


def _matrix(r: Reading, node: Any) -> None:
    x, w = _real_operand(r, node, 0), _real_operand(r, node, 1)
    b = _bias(r, node, x, w) if node.op_type == "Gemm" else None
    _pending(r, node, lambda y, clamp: matrix(r, node, x, w, b, y, clamp))


def _add(r: Reading, node: Any) -> None:
    a, b = _real_operand(r, node, 0), _real_operand(r, node, 1)
    shape = r.shape(node.output[0])
    # Constants are spread to the sum's shape; the integer rule knows no broadcasting.
    a, b = r.full(node, a, shape), r.full(node, b, shape)
    if a.shape != b.shape or (a.data is not None and b.data is not None):
        r.refuse(node, f"its operands have the shapes {a.shape} and {b.shape}")
    names = (a.name, b.name)
    _pending(r, node, lambda y, clamp: g.Add(node.name, names, y.name, add_scales(a, b, y), clamp))


def _average_pool(r: Reading, node: Any) -> None:
    x = _real_operand(r, node, 0)
    # The integer rule sums whole images and keeps both axes.
    if node.op_type == "ReduceMean" and r.shape(node.output[0]) != (*x.shape[:2], 1, 1):
        r.refuse(node, "it is no mean over rows and columns that keeps its axes")
    _pending(r, node, lambda y, clamp: average_pool(r, node, x, y, clamp))


def _moved(r: Reading, node: Any, build: Callable[[g.Tensor, g.Tensor], g.Operator]) -> None:
    """An operator on stored values; its result has the scale of its first operand."""
    name = node.output[0]
    x = _operand(r, node, 0)
    # A moved constant that nobody folded: weights have a path of their own.
    if x.data is not None:
        r.refuse(node, "it moves a constant")
    real = isinstance(r.values[node.input[0]], Real)
    # The float name is the model's; the stored tensor behind it has one of its own.
    y = r.copy_of(x, r.free(f"{name}.q") if real else name, r.shape(name))
    r.values[name] = Real(y.name) if real else Stored(y.name)
    r.put(build(x, y))


def _constant(r: Reading, node: Any, data: Any, axis: int | None) -> None:
    """A constant behind a node that only moves it, with its scales along `axis`."""
    x = _operand(r, node, 0)
    name = r.free(f"{node.output[0]}.q")
    r.tensors[name] = replace(x, name=name, shape=data.shape, data=data, axis=axis)
    r.values[node.output[0]] = Real(name)


def _reshape(r: Reading, node: Any) -> None:
    x = _operand(r, node, 0)
    # A per-channel scale has an axis, which a reshape may cut.
    if x.data is not None and x.axis is None:
        _constant(r, node, x.data.reshape(r.shape(node.output[0])), None)
        return
    _moved(r, node, lambda x, y: g.Reshape(node.name, (x.name,), y.name))


def _transpose(r: Reading, node: Any) -> None:
    rank = len(_operand(r, node, 0).shape)
    order = tuple(r.attributes(node).get("perm", range(rank)[::-1]))
    x = _operand(r, node, 0)
    if x.data is not None:
        # The axis of the scales moves with the data.
        axis = None if x.axis is None else order.index(x.axis)
        _constant(r, node, np.ascontiguousarray(x.data.transpose(order)), axis)
        return
    _moved(r, node, lambda x, y: g.Transpose(node.name, (x.name,), y.name, order))


def _identity(r: Reading, node: Any) -> None:
    r.values[node.output[0]] = r.values[node.input[0]]


def _max_pool(r: Reading, node: Any) -> None:
    def build(x: g.Tensor, y: g.Tensor) -> g.Operator:
        window = pool_window(r, node, x)
        stride, pads, dilation = window_arguments(r, node, x.shape, window)
        # A dilated window, and the indices as a second result, are in neither rule.
        if dilation != (1, 1) or len([o for o in node.output if o]) > 1:
            r.refuse(node, "its window is dilated, or its indices are asked for")
        # Padding never wins in a maximum, so that no value stands for it.
        return g.MaxPool(node.name, (x.name,), y.name, window, stride, pads, y.range, "NCHW")

    _moved(r, node, build)


def _pad(r: Reading, node: Any) -> None:
    a = r.attributes(node)
    # Input 3 names axes, since opset 18.
    if a.get("mode", b"constant") not in (b"constant", "constant") or r.optional(node, 3):
        r.refuse(node, "only constant padding of all axes has an integer form")
    sides = r.constant(node, node.input[1], "pads").reshape(2, -1).T
    real = isinstance(r.values[node.input[0]], Real)
    fill = 0.0
    if r.optional(node, 2):
        fill = float(r.constant(node, node.input[2], "value").reshape(-1)[0])

    def build(x: g.Tensor, y: g.Tensor) -> g.Operator:
        # The fill is real where the tensor is, and stored where it is stored.
        value = clamp_of(y, fill, fill)[0] if real else int(fill)
        pairs = tuple((int(lo), int(hi)) for lo, hi in sides)
        return g.Pad(node.name, (x.name,), y.name, pairs, value)

    _moved(r, node, build)


def _concat(r: Reading, node: Any) -> None:
    """Of parts at one scale on stored values; of others once the result's scale is known."""
    parts = [_operand(r, node, i) for i in range(len(node.input))]
    axis = r.attributes(node)["axis"] % len(parts[0].shape)
    same = all((p.scales, p.zero_points) == (parts[0].scales, parts[0].zero_points) for p in parts)
    # A constant part would need storing at run time.
    if any(p.data is not None for p in parts):
        r.refuse(node, "a part is a constant")
    if same:
        names = tuple(p.name for p in parts)
        _moved(r, node, lambda x, y: g.Concat(node.name, names, y.name, axis))
        return
    # At different scales each part is requantised to the result's.
    for i in range(len(parts)):
        _real_operand(r, node, i)

    def build(y: g.Tensor, clamp: g.Pair) -> g.Operator:
        names = tuple(alike(r, node, p, y).name for p in parts)
        # Clamped parts would have to be clamped one by one.
        if clamp != y.range:
            r.refuse(node, "an activation stands between it and its quantisation")
        return g.Concat(node.name, names, y.name, axis)

    _pending(r, node, build)


def _move(r: Reading, node: Any) -> None:
    """Elements moved or repeated, as the runtime moves their numbers."""
    x = _operand(r, node, 0)
    if x.data is not None:
        r.refuse(node, "it moves a constant")
    found = moved_places(r, node, x)
    if found is None:
        r.refuse(node, "it computes new elements")
        return
    real = isinstance(r.values[node.input[0]], Real)
    # Split has several results, each with places of its own.
    for n, (name, places) in enumerate(found):
        held = r.free(f"{node.name}.{n}.places")
        r.tensors[held] = g.Tensor(held, places.shape, "int64", data=places)
        y = r.copy_of(x, r.free(f"{name}.q") if real else name, places.shape)
        r.values[name] = Real(y.name) if real else Stored(y.name)
        r.put(g.Move(f"{node.name}.{n}" if n else node.name, (x.name, held), y.name))


def _limits(r: Reading, node: Any) -> tuple[float, float]:
    """The real (or stored) limits of Relu, Clip, Max and Min with a constant."""
    if node.op_type == "Relu":
        return 0.0, np.inf
    if node.op_type in ("Max", "Min"):
        if len(node.input) != 2 or node.input[1] not in r.net.constants:
            r.refuse(node, "its second operand is no constant")
        limit = r.constant(node, node.input[1], "limit")
        if limit.size != 1:
            r.refuse(node, "its limit is not one number")
        # -inf and inf: no limit on that side.
        bound = float(limit.reshape(-1)[0])
        return (bound, np.inf) if node.op_type == "Max" else (-np.inf, bound)
    a = r.attributes(node)
    limits = [a.get("min", -np.inf), a.get("max", np.inf)]  # attributes before opset 11
    for place in (1, 2):
        if r.optional(node, place):
            value = r.constant(node, node.input[place], "limit")
            limits[place - 1] = float(value.reshape(-1)[0])
    return limits[0], limits[1]


def _clamp(r: Reading, node: Any) -> None:
    value = r.values[node.input[0]]
    low, high = _limits(r, node)
    if isinstance(value, Pending):
        # Both limits hold: the tighter ones.
        tighter = replace(value, low=max(low, value.low), high=min(high, value.high))
        r.values[node.output[0]] = tighter
        return

    def build(x: g.Tensor, y: g.Tensor) -> g.Operator:
        if isinstance(value, Real):
            clamp = clamp_of(y, low, high)
        else:  # on stored values as they are
            least, most = y.range
            clamp = (int(max(low, least)), int(min(high, most)))
        return g.Clamp(node.name, (x.name,), y.name, clamp)

    _moved(r, node, build)


FLOAT: dict[str, Callable[[Reading, Any], None]] = {
    # QDQ writes these in floating point; the names are ONNX's.
    "Conv": _conv,
    "Gemm": _matrix,
    "MatMul": _matrix,
    "Add": _add,
    "AveragePool": _average_pool,
    "GlobalAveragePool": _average_pool,
    "ReduceMean": _average_pool,
    "MaxPool": _max_pool,
    "GlobalMaxPool": _max_pool,
    "Reshape": _reshape,
    "Flatten": _reshape,
    "Squeeze": _reshape,
    "Unsqueeze": _reshape,
    "Transpose": _transpose,
    "Identity": _identity,
    "Dropout": _identity,
    "Pad": _pad,
    "Concat": _concat,
    **dict.fromkeys(MOVING, _move),
    "Relu": _clamp,
    "Clip": _clamp,
    "Max": _clamp,
    "Min": _clamp,
}
