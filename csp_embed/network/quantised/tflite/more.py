"""TFLite operators that move elements, or are functions of one stored value, or scatter.

Sources: as operators.py; the kernels for microcontrollers state which multiplier is applied
to what.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.fixed_point import fixed_point, mul_rescale
from csp_embed.network.quantised.reference.rounding import double_rounding

if TYPE_CHECKING:
    from csp_embed.network.quantised.tflite.operators import Context

Ints = NDArray[np.int64]


def _places(c: Context, x: g.Tensor, places: Any, y: g.Tensor, name: str = "") -> None:
    """y has the elements of x that `places` numbers."""
    name = name or c.name
    held = f"{name}.places"
    # Places are constants: the runtime's index arithmetic is done here once.
    data = np.ascontiguousarray(places.reshape(y.shape), np.int64)
    c.tensors[held] = g.Tensor(held, data.shape, "int64", data=data)
    c.put(g.Move(name, (x.name, held), y.name))


def _ids(x: g.Tensor) -> Ints:
    return np.arange(x.elements, dtype=np.int64).reshape(x.shape)


def resize_nearest(c: Context) -> None:
    x, y, o = c.activation(), c.result(), c.op.options
    ids = _ids(x)
    for axis in (1, 2):
        before, after = x.shape[axis], y.shape[axis]
        whole = o.AlignCorners() and after > 1
        # float32 as in the kernel: at some ratios double rounds to another row.
        ratio = np.float32((before - 1) / (after - 1) if whole else before / after)
        at = (np.arange(after) + (0.5 if o.HalfPixelCenters() else 0.0)).astype(np.float32) * ratio
        # AlignCorners rounds to the nearest, the plain form cuts off.
        number = np.floor(at + 0.5) if o.AlignCorners() else np.floor(at)
        ids = ids.take(np.minimum(number.astype(np.int64), before - 1), axis)
    _places(c, x, ids, y)


def space_to_depth(c: Context) -> None:
    x, y, b = c.activation(), c.result(), c.op.options.BlockSize()
    n, h, w, k = x.shape
    # A block's rows and columns stand before its channels, as TFLite orders depth.
    parts = _ids(x).reshape(n, h // b, b, w // b, b, k).transpose(0, 1, 3, 2, 4, 5)
    _places(c, x, parts, y)


def depth_to_space(c: Context) -> None:
    x, y, b = c.activation(), c.result(), c.op.options.BlockSize()
    n, h, w, k = x.shape
    parts = _ids(x).reshape(n, h, w, b, b, k // (b * b)).transpose(0, 1, 3, 2, 4, 5)
    _places(c, x, parts, y)


def slice_part(c: Context) -> None:
    x, y = c.activation(), c.result()
    begin = c.constant(1).reshape(-1)
    cut = tuple(slice(int(b), int(b) + n) for b, n in zip(begin, y.shape, strict=True))
    _places(c, x, _ids(x)[cut], y)


def gather(c: Context) -> None:
    x, y, o = c.activation(), c.result(), c.op.options
    # Batches would each have indices of their own.
    if o.BatchDims():
        c.refuse("it gathers by batch")
    _places(c, x, _ids(x).take(c.constant(1), o.Axis() % len(x.shape)), y)


def tile(c: Context) -> None:
    x, y = c.activation(), c.result()
    _places(c, x, np.tile(_ids(x), [int(v) for v in c.constant(1)]), y)


def mirror_pad(c: Context) -> None:
    x, y = c.activation(), c.result()
    mode = "reflect" if c.op.options.Mode() == 0 else "symmetric"
    sides = [(int(lo), int(hi)) for lo, hi in c.constant(1)]
    _places(c, x, np.pad(_ids(x), sides, mode=mode), y)


def unpack(c: Context) -> None:
    x = c.activation()
    axis = c.op.options.Axis() % len(x.shape)
    for n, i in enumerate(c.op.outputs):
        # One result for each entry of the axis.
        y = c.tensors[c.file.tensors[i].name]
        _places(c, x, _ids(x).take(n, axis), y, f"{c.name}.{n}")


def pack(c: Context) -> None:
    """Parts with one axis more, then joined along it."""
    y, o = c.result(), c.op.options
    axis = o.Axis() % len(y.shape)
    names: list[str] = []
    for n in range(len(c.op.inputs)):
        x, name = c.activation(n), f"{c.name}.part{n}"
        # A new axis of 1 makes them parts of one concatenation.
        shape = (*x.shape[:axis], 1, *x.shape[axis:])
        c.tensors[name] = replace(x, name=name, shape=shape)
        c.put(g.Reshape(name, (x.name,), name))
        names.append(name)
    c.put(g.Concat(c.name, tuple(names), y.name, axis))


def _table(c: Context, x: g.Tensor, values: Ints, clamp: g.Pair, axis: int = 0) -> None:
    """y = values[channel][x + 128], clamped."""
    y, held = c.result(), f"{c.name}.table"
    data = np.clip(values, *clamp).astype(np.int8)
    c.tensors[held] = g.Tensor(held, data.shape, "int8", data=data)
    c.put(g.Lookup(c.name, (x.name, held), y.name, axis))


def _every(x: g.Tensor) -> Ints:
    """All stored values of x without its zero point, as one row."""
    return np.arange(-128, 128, dtype=np.int64)[None, :] - x.zero


def leaky_relu(c: Context) -> None:
    x, y = c.activation(), c.result()
    alpha = float(np.float32(c.op.options.Alpha()))
    same, less = (
        # Two multipliers: positive values have another than negative ones.
        fixed_point([x.scales[0] * f / y.scales[0]]) for f in (1.0, alpha)
    )  # fmt: skip
    v = _every(x)
    up, down = (double_rounding(v, np.array(m.multiplier), np.array(m.shift)) for m in (same, less))
    _table(c, x, np.where(v >= 0, up, down) + y.zero, y.range)


def _with_constant(c: Context) -> tuple[g.Tensor, g.Tensor, Ints, int, bool] | None:
    """(activation, constant, its values [channels or 1, 1] without zero point, axis, whether it is
    the first operand); None where both are activations."""
    held = [c.has(i) and c.tensor(i).data is not None for i in (0, 1)]
    if held[0] == held[1]:
        # Two constants would have been folded, two activations are no table.
        return None
    first = held[0]
    k, x = c.tensor(0 if first else 1), c.activation(1 if first else 0)
    y = c.result()
    if k.dtype != "int8" or len(k.scales) != 1 or x.shape != y.shape:
        c.refuse(f"its constant is {k.dtype} {k.shape}, beside {x.shape}")
    assert k.data is not None
    wide = np.broadcast_to(k.data, y.shape).astype(np.int64) - k.zero
    rows = wide.reshape(-1, y.shape[-1])
    if (rows != rows[:1]).any():
        c.refuse("its constant differs from place to place, not only by channel")
    # One value for all channels keeps the table at one row.
    one = rows[0, :1] if (rows[0] == rows[0, 0]).all() else rows[0]
    return x, k, one[:, None], len(y.shape) - 1, first


def _clamp(c: Context) -> g.Pair:
    return c.clamp(c.op.options.FusedActivationFunction() if c.op.options else 0)


def mul(c: Context) -> None:
    found, y = _with_constant(c), c.result()
    if found is None:
        a, b = c.activation(0), c.activation(1)
        rescale = mul_rescale(a.scales[0], b.scales[0], y.scales[0])
        c.put(g.Multiply(c.name, (a.name, b.name), y.name, rescale, _clamp(c)))
        return
    # A constant factor makes the product a function of one stored value.
    x, k, values, axis, _ = found
    rule = mul_rescale(x.scales[0], k.scales[0], y.scales[0])
    total = double_rounding(_every(x) * values, np.array(rule.multiplier), np.array(rule.shift))
    _table(c, x, total + y.zero, _clamp(c), axis)


def sum_with_constant(c: Context, rule: g.AddFixed, minus: bool) -> bool:
    """ADD and SUB of a constant, as a function of each stored value; False where there is none."""
    found, y = _with_constant(c), c.result()
    if found is None:
        return False
    x, _, values, axis, first = found
    # The order of operands decides which multiplier is whose.
    sides = [values, _every(x)] if first else [_every(x), values]
    a, b = (
        double_rounding(v << rule.left, np.array(s.multiplier), np.array(s.shift))
        for v, s in zip(sides, (rule.first, rule.second), strict=True)
    )
    last = np.array(rule.result.multiplier), np.array(rule.result.shift)
    total = double_rounding(a - b if minus else a + b, *last)
    _table(c, x, total + y.zero, _clamp(c), axis)
    return True


def extremum(c: Context) -> None:
    """MAXIMUM and MINIMUM with one number, at one scale."""
    found, y = _with_constant(c), c.result()
    if found is None:
        c.refuse("both operands are activations")
        return
    x, k, values, axis, _ = found
    # The kernel compares stored values, which mean the same at one scale only.
    if any((t.scales, t.zero) != (y.scales, y.zero) for t in (x, k)):
        c.refuse("the scales of its operands and its result differ")
    choose = np.maximum if c.op.kind == "MAXIMUM" else np.minimum
    _table(c, x, choose(_every(x), values) + y.zero, y.range, axis)


def transpose_conv(c: Context) -> None:
    """Zero points between the rows and columns of x, then a convolution with turned filters."""
    x, y, o = c.activation(2), c.result(), c.op.options
    w = c.tensor(1)
    # Filters must be constant: they are turned around.
    data = c.constant(1)
    if w.dtype != "int8" or any(w.zero_points) or not w.scales:
        c.refuse(f"weights {w.name!r} are {w.dtype} with zero points {w.zero_points[:4]}")
    k, r, s, _ = w.shape
    stride = o.StrideH(), o.StrideW()
    name = f"{c.name}.spread"
    # stride - 1 zero points between neighbours.
    spread = tuple((n - 1) * d + 1 for n, d in zip(x.shape[1:3], stride, strict=True))
    c.tensors[name] = replace(x, name=name, shape=(x.shape[0], *spread, x.shape[3]))
    c.put(g.Spread(name, (x.name,), name, stride, x.zero))
    pads: list[g.Pair] = []
    for axis, (f, d) in enumerate(zip((r, s), stride, strict=True)):
        # What a forward convolution of the result would have padded.
        total = max((x.shape[1 + axis] - 1) * d + f - y.shape[1 + axis], 0)
        before = total // 2 if o.Padding() == 0 else 0
        after = y.shape[1 + axis] - spread[axis] - (f - 1 - before) + f - 1
        # A full correlation starts f - 1 before the image, less what the forward pad took.
        pads.append((f - 1 - before, after))
    turned = f"{c.name}.w"
    # Turned in rows and columns: convolution is correlation with the mirrored filter.
    flipped = np.ascontiguousarray(data[:, ::-1, ::-1])
    axis = 0 if w.axis is not None else None
    c.tensors[turned] = replace(w, name=turned, data=flipped, axis=axis)
    bias = c.tensor(3).name if c.has(3) else ""
    if not bias:
        bias = f"{c.name}.bias"
        c.tensors[bias] = g.Tensor(bias, (k,), "int32", data=np.zeros(k, np.int32))
    rescale = fixed_point([x.scales[0] * q / y.scales[0] for q in w.scales])
    clamp = c.clamp(o.FusedActivationFunction() if hasattr(o, "FusedActivationFunction") else 0)
    c.put(g.Conv(c.name, (name, turned, bias), y.name, rescale, clamp, (1, 1),
                 (pads[0], pads[1])))  # fmt: skip


MORE: dict[str, Callable[[Any], None]] = {
    "RESIZE_NEAREST_NEIGHBOR": resize_nearest,
    "SPACE_TO_DEPTH": space_to_depth,
    "DEPTH_TO_SPACE": depth_to_space,
    "SLICE": slice_part,
    "GATHER": gather,
    "TILE": tile,
    "MIRROR_PAD": mirror_pad,
    "PACK": pack,
    "UNPACK": unpack,
    "LEAKY_RELU": leaky_relu,
    "MUL": mul,
    "MAXIMUM": extremum,
    "MINIMUM": extremum,
    "TRANSPOSE_CONV": transpose_conv,
}
