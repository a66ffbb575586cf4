"""One function per quantised operator of ONNX and onnxruntime, and what both forms share.

Scales are float32, multiplied and divided in float32 in onnxruntime's order: (xs * ws) / ys.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.onnx.values import Reading, Stored


def activation(r: Reading, node: Any, name: str, scale: str, zero: str) -> g.Tensor:
    """A stored operand with one scale, as the node's own operands say it."""
    value = r.values.get(name)
    # Renamed tensors keep the scale of the one that they are.
    source = value.tensor if isinstance(value, Stored) else name
    if source == name:
        t = r.declare(node, name, scale, zero)
    else:
        t = r.tensors[source]
    if t.dtype not in ("int8", "uint8") or len(t.scales) != 1 or t.data is not None:
        r.refuse(node, f"{name!r} is {t.dtype} with {len(t.scales)} scales, wanted an activation")
    return t


def contraction_scale(x: g.Tensor, w: g.Tensor, y: g.Tensor) -> g.FloatScale:
    """(xs * ws) / ys per output channel, in float32."""
    xs, ys = np.float32(x.scales[0]), np.float32(y.scales[0])
    # In this order: the other differs in one of some ten million.
    return g.FloatScale(tuple(float(xs * np.float32(s) / ys) for s in w.scales))


def weights(r: Reading, node: Any, w: g.Tensor, data: Any, name: str) -> g.Tensor:
    """Weights in the graph's form, under a name of their own: others may read the original."""
    if w.dtype not in ("int8", "uint8"):
        r.refuse(node, f"weights are {w.dtype}")
    # One scale, or one for each output.
    if len(w.scales) not in (1, data.shape[0]):
        r.refuse(node, f"{len(w.scales)} scales for {data.shape[0]} output channels")
    data = np.ascontiguousarray(data)
    made = replace(
        w, name=name, shape=data.shape, data=data, axis=0 if w.axis is not None else None
    )
    r.tensors[name] = made
    return made


def bias(r: Reading, node: Any, value: Any, channels: int) -> str:
    """The bias as an int32 tensor; zeros where there is none."""
    name = r.free(f"{node.name}.b")
    data = np.zeros(channels, np.int32) if value is None else np.asarray(value)
    if data.dtype != np.int32 or data.size not in (1, channels):
        r.refuse(node, f"the bias is {data.dtype} of {data.size} elements")
    # A copy: a broadcast array has no memory of its own to place.
    data = np.broadcast_to(data.reshape(-1), (channels,)).copy()
    r.tensors[name] = g.Tensor(name, data.shape, "int32", data=data)
    return name


def window_arguments(
    r: Reading, node: Any, x: tuple[int, ...], window: g.Pair
) -> tuple[g.Pair, tuple[g.Pair, g.Pair], g.Pair]:
    """(stride, pads, dilation) of a 2-D window, ceil_mode and auto_pad worked out."""
    a = r.attributes(node)
    if len(x) != 4:
        r.refuse(node, f"x has {len(x)} axes, wanted N, C, H, W")
    # Of a single axis there is one number each: the rows have 1.
    steps, apart = ((1, *a.get(name, (1, 1)))[-2:] for name in ("strides", "dilations"))
    stride, dilation = (steps[0], steps[1]), (apart[0], apart[1])
    auto = a.get("auto_pad", b"NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    # ONNX lists the begins first, then the ends.
    given = a.get("pads", (0, 0, 0, 0))
    top, left, bottom, right = (0, given[0], 0, given[1]) if len(given) == 2 else given
    sides = [(top, bottom), (left, right)]
    if auto in ("SAME_UPPER", "SAME_LOWER"):
        for i in range(2):
            span, extent = dilation[i] * (window[i] - 1) + 1, x[2 + i]
            # What the last window reaches beyond the image.
            total = max((-(-extent // stride[i]) - 1) * stride[i] + span - extent, 0)
            # The odd one goes to the end for UPPER, to the beginning for LOWER.
            small, large = total // 2, total - total // 2
            sides[i] = (small, large) if auto == "SAME_UPPER" else (large, small)
    if a.get("ceil_mode", 0):
        r.refuse(node, "ceil_mode lets windows leave the image", "write the padding out")
    return stride, (sides[0], sides[1]), dilation


def conv(
    r: Reading, node: Any, x: g.Tensor, w: g.Tensor, b: Any, y: g.Tensor, clamp: g.Pair
) -> g.Conv | g.Reshape:
    """The Conv of a QLinearConv, or of a Conv between DequantizeLinear and QuantizeLinear. Along a
    single axis it is that of an image of one row; the Reshape behind it is returned."""
    line = len(w.shape) == len(x.shape) == len(y.shape) == 3
    if w.data is None or not (line or len(w.shape) == 4):
        r.refuse(node, f"weights {w.name!r} are no constant with three or four axes, as x has")
    assert w.data is not None
    data = w.data[:, :, None] if line else w.data
    # ONNX has outputs, inputs, rows, columns; the graph has channels last.
    made = weights(r, node, w, data.transpose(0, 2, 3, 1), r.free(f"{node.name}.w"))
    source, result = x, y
    window, shape = (data.shape[2], data.shape[3]), x.shape
    if line:
        shape = (*x.shape[:2], 1, x.shape[2])
    stride, pads, dilation = window_arguments(r, node, shape, window)
    added, scale = bias(r, node, b, w.shape[0]), contraction_scale(x, made, y)
    if line:
        source = r.copy_of(x, r.free(f"{node.name}.row"), shape)
        r.put(g.Reshape(source.name, (x.name,), source.name))
        result = r.copy_of(y, r.free(f"{node.name}.result"), (*y.shape[:2], 1, y.shape[2]))
    made_op = g.Conv(
        node.name, (source.name, made.name, added), result.name, scale, clamp, stride, pads,
        dilation, r.attributes(node).get("group", 1), "NCHW",
    )  # fmt: skip
    if not line:
        return made_op
    r.put(made_op)
    return g.Reshape(r.free(f"{node.name}.line"), (result.name,), y.name)


def matrix(
    r: Reading, node: Any, x: g.Tensor, w: g.Tensor, b: Any, y: g.Tensor, clamp: g.Pair
) -> g.FullyConnected:
    """The FullyConnected of a product with a constant matrix [c, k], or [k, c] with transB."""
    a = r.attributes(node)
    if w.data is None or len(w.shape) != 2 or a.get("transA", 0):
        r.refuse(node, f"{w.name!r} is no constant matrix, or the activation is transposed")
    # Factors other than 1 would change the scale of the sums.
    if a.get("alpha", 1.0) != 1.0 or a.get("beta", 1.0) != 1.0:
        r.refuse(node, "alpha or beta is not 1", "fold them into the weights")
    assert w.data is not None
    # [outputs, inputs] in the graph, whichever way the file has it.
    data = w.data if a.get("transB", 0) else w.data.T
    made = weights(r, node, w, data, r.free(f"{node.name}.w"))
    names = (x.name, made.name, bias(r, node, b, data.shape[0]))
    return g.FullyConnected(node.name, names, y.name, contraction_scale(x, made, y), clamp)


def add_scales(a: g.Tensor, b: g.Tensor, y: g.Tensor) -> g.AddFloat:
    """ra = sa / sy, rb = sb / sy, offset zy - fma(ra, za, rb zb), all in float32."""
    ys = np.float32(y.scales[0])
    ra, rb = np.float32(a.scales[0]) / ys, np.float32(b.scales[0]) / ys
    # float32 at every step, in onnxruntime's order.
    # The runtime's compiler fuses the first product, which is exact in float64, and so is the sum:
    # one rounding. Told by all pairs of sums whose offsets differ otherwise.
    inner = np.float64(ra) * a.zero + np.float64(rb * np.float32(b.zero))
    offset = np.float32(y.zero) - np.float32(inner)
    return g.AddFloat(float(ra), float(rb), float(offset))


def pool_window(r: Reading, node: Any, x: g.Tensor) -> g.Pair:
    """The window of a pool; the whole image for a global one."""
    if "Global" in node.op_type or node.op_type == "ReduceMean":
        return x.shape[2], x.shape[3]
    return tuple(r.attributes(node)["kernel_shape"])


def average_pool(r: Reading, node: Any, x: g.Tensor, y: g.Tensor, clamp: g.Pair) -> g.AveragePool:
    if len(x.shape) != 4 or r.attributes(node).get("channels_last", 0):
        r.refuse(node, f"x has {len(x.shape)} axes, or its channels stand last")
    window = pool_window(r, node, x)
    stride, pads, dilation = window_arguments(r, node, x.shape, window)
    if dilation != (1, 1):
        r.refuse(node, "its window is dilated")
    if "Global" not in node.op_type and _halves(x, y, window):
        r.refuse(node, "its sums lie on halves, where the order in which floats are added decides")
    return g.AveragePool(
        node.name, (x.name,), y.name, window, stride, pads, clamp, "NCHW",
        (x.scales[0], y.scales[0]), bool(r.attributes(node).get("count_include_pad", 0)),
    )  # fmt: skip


def _halves(x: g.Tensor, y: g.Tensor, window: g.Pair) -> bool:
    """Whether a mean may lie on a half, or so near that float32 decides.

    onnxruntime adds dequantised floats; that is the integer sum's rounding but for such means.
    Scales that are powers of two make every float exact.
    """
    before, after = x.scales[0], y.scales[0]
    if all(np.frexp(s)[0] == 0.5 for s in (before, after)):
        return False
    most = window[0] * window[1]
    # At a border a window may have any number of rows and columns.
    # Each count has means of its own that may lie on a half.
    for count in {a * b for a in range(1, window[0] + 1) for b in range(1, window[1] + 1)} | {most}:
        # All sums of int8 differences that a window of that many can have.
        mean = np.arange(-255 * count, 255 * count + 1) * (before / (after * count))
        off = np.abs(mean - np.floor(mean) - 0.5)
        # Rounding of count additions in float32, relative to the largest mean.
        if (off < (count + 4) * 2.0**-23 * (1 + 255 * before / after)).any():
            return True
    return False


def _out(r: Reading, node: Any, scale: str, zero: str) -> g.Tensor:
    name = node.output[0]
    r.values[name] = Stored(name)
    return r.declare(node, name, scale, zero)


def _qlinear_conv(r: Reading, node: Any) -> None:
    i = node.input
    x = activation(r, node, i[0], i[1], i[2])
    # Scales by output channel, the first axis of W.
    w = r.declare(node, i[3], i[4], i[5], 0)
    y = _out(r, node, i[6], i[7])
    b = r.constant(node, i[8], "bias") if r.optional(node, 8) else None
    r.put(conv(r, node, x, w, b, y, y.range))


def _qlinear_matmul(r: Reading, node: Any) -> None:
    i = node.input
    x = activation(r, node, i[0], i[1], i[2])
    # A matrix has its outputs in columns: axis 1.
    w = r.declare(node, i[3], i[4], i[5], 1)
    y = _out(r, node, i[6], i[7])
    r.put(matrix(r, node, x, w, None, y, y.range))


def _qgemm(r: Reading, node: Any) -> None:
    i = node.input
    x = activation(r, node, i[0], i[1], i[2])
    w = r.declare(node, i[3], i[4], i[5], 0)
    b = r.constant(node, i[6], "bias") if r.optional(node, 6) else None
    if not r.optional(node, 7):
        r.refuse(node, "its result is not quantised")
    y = _out(r, node, i[7], r.optional(node, 8))
    r.put(matrix(r, node, x, w, b, y, y.range))


def _qlinear_add(r: Reading, node: Any) -> None:
    i = node.input
    y = _out(r, node, i[6], r.optional(node, 7))
    # One side may be a constant; it is declared by the node itself.
    a, b = (
        r.declare(node, *i[at : at + 3])
        if i[at] in r.net.constants
        else activation(r, node, *i[at : at + 3])
        for at in (0, 3)
    )
    a, b = r.full(node, a, y.shape), r.full(node, b, y.shape)
    if a.shape != b.shape:
        r.refuse(node, f"its operands have the shapes {a.shape} and {b.shape}")
    r.put(g.Add(node.name, (a.name, b.name), y.name, add_scales(a, b, y), y.range))


def _qlinear_pool(r: Reading, node: Any) -> None:
    i = node.input
    x = activation(r, node, i[0], i[1], r.optional(node, 2))
    y = _out(r, node, i[3], r.optional(node, 4))
    r.put(average_pool(r, node, x, y, y.range))


def _qlinear_concat(r: Reading, node: Any) -> None:
    i = list(node.input)
    # Result's scale first, then three operands for each part.
    parts = [activation(r, node, *i[at : at + 3]) for at in range(2, len(i), 3)]
    y = _out(r, node, i[0], i[1])
    axis = r.attributes(node)["axis"] % len(y.shape)
    names = tuple(alike(r, node, p, y).name for p in parts)
    r.put(g.Concat(node.name, names, y.name, axis))


def alike(r: Reading, node: Any, x: g.Tensor, y: g.Tensor) -> g.Tensor:
    """x at the scale of y, of which it becomes a part; as onnxruntime's concatenation has it."""
    if (x.dtype, x.scales, x.zero_points) == (y.dtype, y.scales, y.zero_points):
        return x
    name = r.free(f"{x.name}.at.{y.name}")
    low, high = y.range
    real = (np.arange(x.range[0], x.range[1] + 1) - x.zero).astype(np.float32)
    # Each element through float32, as the runtime's own table does it.
    scaled = np.rint(real * np.float32(x.scales[0]) / np.float32(y.scales[0]))
    table = np.clip(scaled.astype(np.int64) + y.zero, low, high).astype(y.dtype)[None]
    held = r.free(f"{name}.table")
    r.tensors[held] = g.Tensor(held, table.shape, y.dtype, data=table)
    r.tensors[name] = replace(y, name=name, shape=x.shape, data=None)
    r.put(g.Lookup(name, (x.name, held), name))
    return r.tensors[name]


QLINEAR: dict[str, Callable[[Reading, Any], None]] = {
    "QLinearConv": _qlinear_conv,
    "QLinearMatMul": _qlinear_matmul,
    "QGemm": _qgemm,
    "QLinearAdd": _qlinear_add,
    "QLinearGlobalAveragePool": _qlinear_pool,
    "QLinearAveragePool": _qlinear_pool,
    "QLinearConcat": _qlinear_concat,
}

# Places of the result's scale and zero point among the operands; elsewhere they are the last two.
RESULT = {
    "QLinearConv": (6, 7), "QLinearMatMul": (6, 7), "QGemm": (7, 8), "QLinearAdd": (6, 7),
    "QLinearMul": (6, 7), "QLinearGlobalAveragePool": (3, 4), "QLinearAveragePool": (3, 4),
    "QLinearConcat": (0, 1), "QLinearSigmoid": (3, 4), "QLinearLeakyRelu": (3, 4),
    "QLinearSoftmax": (3, 4), "QLinearReduceMean": (3, 4), "QLinearWhere": (7, 8),
}  # fmt: skip

__all__ = [
    "QLINEAR", "RESULT", "activation", "add_scales", "alike", "average_pool", "bias",
    "contraction_scale", "conv", "matrix", "pool_window", "weights", "window_arguments",
]  # fmt: skip
