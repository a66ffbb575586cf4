"""One function per TFLite operator: its options and scales as the graph's integers.

Sources: TensorFlow Lite's 8-bit quantisation specification, and the preparation of its kernels for
microcontrollers (which scales are multiplied in which precision).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.fixed_point import (
    add_rescale,
    fixed_point,
    mean_rescale,
    softmax_scale,
)
from csp_embed.network.quantised.tflite.file import FileOperator, TfliteFile
from csp_embed.network.quantised.tflite.more import MORE, sum_with_constant

_ACTIVATIONS = {0: "none", 1: "relu", 2: "relu_n1_to_1", 3: "relu6"}
# Number of the schema's Padding.
_SAME = 0


@dataclass(frozen=True)
class Context:
    """One operator of the file, and what the graph has become so far (both grow)."""

    file: TfliteFile
    op: FileOperator
    tensors: dict[str, g.Tensor]
    operators: list[g.Operator]

    def tensor(self, place: int) -> g.Tensor:
        """The operand at a place, as the graph has it by now."""
        index = self.op.inputs[place] if place < len(self.op.inputs) else -1
        if index < 0:
            self.refuse(f"operand {place} is missing")
        # From the graph, not the file: an earlier operator may have changed its form.
        return self.tensors[self.file.tensors[index].name]

    def has(self, place: int) -> bool:
        return place < len(self.op.inputs) and self.op.inputs[place] >= 0

    @property
    def out(self) -> g.Tensor:
        return self.tensors[self.file.tensors[self.op.outputs[0]].name]

    @property
    def name(self) -> str:
        return f"{self.op.kind.lower()}.{self.op.index}"

    def refuse(self, why: str, hint: str = "export the model again in plain int8 form") -> None:
        raise InputError(
            f"this {self.op.kind} has no integer meaning here",
            where=self.op.where(self.file.path),
            why=why,
            hint=hint,
        )

    def activation(self, place: int = 0) -> g.Tensor:
        """An int8 operand with one scale."""
        t = self.tensor(place)
        if t.dtype != "int8" or len(t.scales) != 1 or t.data is not None:
            self.refuse(
                f"{t.name!r} is {t.dtype} with {len(t.scales)} scales, wanted int8 with one"
            )
        return t

    def result(self) -> g.Tensor:
        if self.out.dtype != "int8" or len(self.out.scales) != 1:
            self.refuse(f"its result is {self.out.dtype} with {len(self.out.scales)} scales")
        return self.out

    def constant(self, place: int) -> Any:
        t = self.tensor(place)
        if t.data is None:
            self.refuse(
                f"{t.name!r} is not a constant", "export it with fixed shapes and frozen weights"
            )
        return t.data

    def put(self, made: g.Operator) -> None:
        self.operators.append(made)

    def clamp(self, activation: int) -> g.Pair:
        """The stored range of the result after an activation."""
        out = self.result()
        low, high = out.range
        kind = _ACTIVATIONS.get(activation)
        if kind is None:
            self.refuse(f"fused activation {activation}")

        def stored(real: float) -> int:
            # float32, halves away from zero, as the kernels prepare it.
            scaled = float(np.float32(real) / np.float32(out.scales[0]))
            return out.zero + int(math.copysign(math.floor(abs(scaled) + 0.5), scaled))

        if kind == "none":
            return low, high
        if kind == "relu_n1_to_1":
            return max(low, stored(-1.0)), min(high, stored(1.0))
        # A Relu begins at the zero point, which stands for 0 exactly.
        return max(low, out.zero), high if kind == "relu" else min(high, stored(6.0))


def _pads(
    c: Context, padding: int, x: g.Tensor, window: g.Pair, stride: g.Pair, dil: g.Pair
) -> Any:
    """(before, after) for rows and columns; SAME gives an odd one to the end."""
    # A damaged file may hold zeros, and they are divided by.
    if min(*window, *stride, *dil) < 1:
        raise ValueError(f"window {window}, stride {stride}, dilation {dil}")
    if padding != _SAME:
        return (0, 0), (0, 0)
    sides: list[tuple[int, int]] = []
    for axis in range(2):
        extent, span = x.shape[1 + axis], (window[axis] - 1) * dil[axis] + 1
        total = max((-(-extent // stride[axis]) - 1) * stride[axis] + span - extent, 0)
        # TFLite gives the odd one to the end.
        sides.append((total // 2, total - total // 2))
    return tuple(sides)


def _weights(c: Context, depthwise: bool) -> tuple[g.Tensor, g.Tensor | None]:
    """Weights in the graph's form and the bias; the graph's tensors are replaced."""
    w = c.tensor(1)
    data = c.constant(1)
    # Zero points of weights are 0 by TFLite's specification.
    if w.dtype != "int8" or any(w.zero_points) or not w.scales:
        c.refuse(f"weights {w.name!r} are {w.dtype} with zero points {w.zero_points[:4]}")
    channel = w.shape[3] if depthwise else w.shape[0]
    if len(w.scales) not in (1, channel):
        c.refuse(f"{len(w.scales)} scales for {channel} output channels")
    if depthwise:
        # [1, rows, columns, outputs] in the file: outputs go first.
        data = np.ascontiguousarray(data.transpose(3, 1, 2, 0))
        w = replace(w, shape=data.shape, axis=0 if w.axis is not None else None, data=data)
        name = w.name
        # A constant that others read keeps its form; this operator gets its own.
        if _shared(c, name):
            name = f"{c.name}.w"
            w = replace(w, name=name)
        c.tensors[name] = w
    bias = None
    if c.has(2):
        bias = c.tensor(2)
        if bias.dtype != "int32" or bias.data is None:
            c.refuse(f"the bias {bias.name!r} is {bias.dtype}, wanted a constant of int32")
    return w, bias


def _shared(c: Context, name: str) -> bool:
    """Whether another operator reads a constant that is about to change its form."""
    index = c.op.inputs[1]
    return any(index in o.inputs for o in c.file.operators if o.index != c.op.index)


def _bias(c: Context, bias: g.Tensor | None, channels: int) -> str:
    """The bias' name; zeros where the file has none."""
    if bias is not None:
        return bias.name
    name = f"{c.name}.bias"
    c.tensors[name] = g.Tensor(name, (channels,), "int32", data=np.zeros(channels, np.int32))
    return name


def _rescale(x: g.Tensor, w: g.Tensor, y: g.Tensor) -> g.FixedPoint:
    # In double throughout: float32 products fail on near-ties.
    return fixed_point([x.scales[0] * s / y.scales[0] for s in w.scales])


def _conv(c: Context) -> None:
    x, y, o = c.activation(), c.result(), c.op.options
    depthwise = c.op.kind == "DEPTHWISE_CONV_2D"
    if len(x.shape) != 4 or len(c.tensor(1).shape) != 4:
        c.refuse(f"x has the shape {x.shape}")
    w, bias = _weights(c, depthwise)
    stride, dil = (o.StrideH(), o.StrideW()), (o.DilationHFactor(), o.DilationWFactor())
    window = (w.shape[1], w.shape[2])
    # TFLite has no field for groups: the channels tell.
    groups = x.shape[3] if depthwise else x.shape[3] // w.shape[3]
    c.put(
        g.Conv(
            c.name, (x.name, w.name, _bias(c, bias, w.shape[0])), y.name, _rescale(x, w, y),
            c.clamp(o.FusedActivationFunction()), stride,
            _pads(c, o.Padding(), x, window, stride, dil), dil, groups,
        )
    )  # fmt: skip


def _fully_connected(c: Context) -> None:
    x, y, o = c.activation(), c.result(), c.op.options
    w, bias = _weights(c, False)
    # Shuffled weights are a layout of one CPU's kernels.
    if o.WeightsFormat() != 0 or len(w.shape) != 2:
        c.refuse("its weights are shuffled")
    source = x.name
    if (*x.shape[:-1], w.shape[0]) != y.shape or x.shape[-1] != w.shape[1]:
        # The kernel flattens what stands before the last axis of the weights.
        source = f"{c.name}.flat"
        shape = (*y.shape[:-1], w.shape[1])
        c.tensors[source] = replace(x, name=source, shape=shape)
        c.put(g.Reshape(source, (x.name,), source))
    c.put(
        g.FullyConnected(
            c.name, (source, w.name, _bias(c, bias, w.shape[0])), y.name, _rescale(x, w, y),
            c.clamp(o.FusedActivationFunction()),
        )
    )  # fmt: skip


def _add(c: Context) -> None:
    a, b, y = c.tensor(0), c.tensor(1), c.result()
    minus = c.op.kind == "SUB"
    if len(a.scales) != 1 or len(b.scales) != 1:
        c.refuse("an operand has no scale, or several")
    rescale = add_rescale(a.scales[0], b.scales[0], y.scales[0])
    if sum_with_constant(c, rescale, minus):
        return
    a, b = c.activation(0), c.activation(1)
    if a.shape != b.shape:
        c.refuse(f"its operands have the shapes {a.shape} and {b.shape}", "make them one shape")
    rescale = replace(rescale, sign=-1) if minus else rescale
    clamp = c.clamp(c.op.options.FusedActivationFunction() if c.op.options else 0)
    c.put(g.Add(c.name, (a.name, b.name), y.name, rescale, clamp))


def _pool(c: Context) -> None:
    x, y, o = c.activation(), c.result(), c.op.options
    window, stride = (o.FilterHeight(), o.FilterWidth()), (o.StrideH(), o.StrideW())
    # The kernel averages stored values and does not rescale.
    if x.scales != y.scales or x.zero != y.zero:
        c.refuse("the scales of its input and its result differ")
    kind = g.MaxPool if c.op.kind == "MAX_POOL_2D" else g.AveragePool
    pads = _pads(c, o.Padding(), x, window, stride, (1, 1))
    clamp = c.clamp(o.FusedActivationFunction())
    c.put(kind(c.name, (x.name,), y.name, window, stride, pads, clamp))


def _mean(c: Context) -> None:
    x, y = c.activation(), c.result()
    rank = len(x.shape)
    axes = tuple(sorted({int(a) % rank for a in c.constant(1).reshape(-1)}))
    if 0 in axes or not axes:
        c.refuse(f"it runs over the axes {axes}; the batch is not one of them")
    kept = tuple(1 if i in axes else n for i, n in enumerate(x.shape))
    # keep_dims may be either: the number of elements is the same.
    if math.prod(kept) != y.elements or y.shape[0] != x.shape[0]:
        c.refuse(f"its result has the shape {y.shape}, not {kept}")
    count = math.prod(x.shape[i] for i in axes)
    rescale = mean_rescale(x.scales[0] / y.scales[0], count)
    c.put(g.Mean(c.name, (x.name,), y.name, rescale, y.range, axes))


def _pad(c: Context) -> None:
    x, y = c.activation(), c.result()
    sides = tuple((int(lo), int(hi)) for lo, hi in c.constant(1))
    # Without a value the zero point is filled in: it stands for 0.
    value = int(c.constant(2).reshape(-1)[0]) if c.has(2) else x.zero
    c.put(g.Pad(c.name, (x.name,), y.name, sides, value))


def _reshape(c: Context) -> None:
    c.put(g.Reshape(c.name, (c.activation().name,), c.result().name))


def _slice(c: Context) -> None:
    """STRIDED_SLICE with constants; axes that it drops are dropped by a reshape."""
    x, y, o = c.activation(), c.result(), c.op.options
    begin, end, step = (c.constant(i).reshape(-1) for i in (1, 2, 3))
    # Each axis must be named: then begin, end and step are one triple an axis.
    if o.EllipsisMask() or o.NewAxisMask() or o.Offset() or begin.size != len(x.shape):
        c.refuse("it makes axes, or does not name all of them")
    if step.min() < 1:
        c.refuse("it runs backwards")
    ranges: list[tuple[int, int, int]] = []
    for i, extent in enumerate(x.shape):
        first = None if o.BeginMask() >> i & 1 else int(begin[i])
        last = None if o.EndMask() >> i & 1 else int(end[i])
        # A shrunk axis is one element; the reshape behind drops it.
        if o.ShrinkAxisMask() >> i & 1:
            first = int(begin[i]) % extent
            last = first + 1
        ranges.append(slice(first, last, int(step[i])).indices(extent))
    # The batch stays whole, so that runs may have any number of inputs.
    if ranges[0] != (0, x.shape[0], 1):
        c.refuse("it cuts the batch")
    starts, stops, steps = (tuple(r[k] for r in ranges) for k in range(3))
    shape = tuple(len(range(*r)) for r in ranges)
    if shape == y.shape:
        c.put(g.Slice(c.name, (x.name,), y.name, starts, stops, steps))
        return
    part = f"{c.name}.part"
    c.tensors[part] = replace(x, name=part, shape=shape)
    c.put(g.Slice(part, (x.name,), part, starts, stops, steps))
    c.put(g.Reshape(c.name, (part,), y.name))


def _split(c: Context) -> None:
    """SPLIT and SPLIT_V: one slice for each result, whose own shapes tell the sizes."""
    plain = c.op.kind == "SPLIT"
    # SPLIT has the axis first, SPLIT_V last.
    x, rank = c.activation(int(plain)), len(c.tensor(int(plain)).shape)
    axis = int(c.constant(0 if plain else 2).reshape(-1)[0]) % rank
    outs = [c.tensors[c.file.tensors[i].name] for i in c.op.outputs]
    if axis == 0 or sum(y.shape[axis] for y in outs) != x.shape[axis]:
        c.refuse(f"its results do not add up along axis {axis}, or it cuts the batch")
    at = 0
    for i, y in enumerate(outs):
        starts, stops = [0] * rank, list(x.shape)
        starts[axis], stops[axis] = at, at + y.shape[axis]
        at = stops[axis]
        name = f"{c.name}.{i}"
        c.put(g.Slice(name, (x.name,), y.name, tuple(starts), tuple(stops), (1,) * rank))


def _transpose(c: Context) -> None:
    order = tuple(int(i) for i in c.constant(1))
    c.put(g.Transpose(c.name, (c.activation().name,), c.result().name, order))


def _concat(c: Context) -> None:
    y, o = c.result(), c.op.options
    names = tuple(c.activation(i).name for i in range(len(c.op.inputs)))
    # Parts would be clamped one by one; no exporter writes it.
    if o.FusedActivationFunction():
        c.refuse("it has a fused activation")
    c.put(g.Concat(c.name, names, y.name, o.Axis() % len(y.shape)))


def _requantise(c: Context) -> None:
    x, y = c.activation(), c.result()
    rescale = fixed_point([x.scales[0] / y.scales[0]])
    # RELU rescales, which TFLite allows; RELU6 does not.
    clamp = c.clamp(int(c.op.kind == "RELU"))
    c.put(g.Requantise(c.name, (x.name,), y.name, rescale, clamp))


def _relu6(c: Context) -> None:
    """The kernel compares stored values and never rescales them."""
    x, y = c.activation(), c.result()
    if x.scales != y.scales or x.zero != y.zero:
        c.refuse("the scales of its input and its result differ")
    c.put(g.Clamp(c.name, (x.name,), y.name, c.clamp(3)))


def _softmax(c: Context) -> None:
    x, y = c.activation(), c.result()
    # The kernel's output is fixed to these: Q0.8 from -128.
    if y.scales[0] != 1 / 256 or y.zero != -128:
        c.refuse(f"its result has scale {y.scales[0]} and zero point {y.zero}, not 1/256 and -128")
    figures = softmax_scale(x.scales[0], c.op.options.Beta())
    c.put(g.Softmax(c.name, (x.name,), y.name, *figures))


CONVERT: dict[str, Callable[[Context], None]] = {
    "CONV_2D": _conv,
    "DEPTHWISE_CONV_2D": _conv,
    "FULLY_CONNECTED": _fully_connected,
    "ADD": _add,
    "SUB": _add,
    **MORE,
    "AVERAGE_POOL_2D": _pool,
    "MAX_POOL_2D": _pool,
    "MEAN": _mean,
    "PAD": _pad,
    "PADV2": _pad,
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "STRIDED_SLICE": _slice,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "TRANSPOSE": _transpose,
    "CONCATENATION": _concat,
    "QUANTIZE": _requantise,
    "RELU": _requantise,
    "RELU6": _relu6,
    "SOFTMAX": _softmax,
}
