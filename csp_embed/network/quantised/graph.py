"""A quantised network as values: tensors with scales, operators whose integer meaning is stated.

Everything that an answer depends on is in the graph as integers or float32 numbers, by the rule
that the graph's `profile` names; docs/networks.md states the rules.  Two rules are known:
    tflm          Q31 multipliers, rounded twice, halves away from zero (TensorFlow Lite Micro)
    onnxruntime   float32 scales, rounded once, halves to even (QLinearConv and its kin)
Tensors keep the axes of the file: NHWC from TFLite, NCHW from ONNX; each operator to whom it
matters says its `layout`.  Weights have one form: [outputs, rows, columns, inputs / groups].
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

# Kept as the file has it: no tensor is turned on reading.
Layout = Literal["NHWC", "NCHW"]
Pair = tuple[int, int]
# Named after the runtimes whose every bit they are.
PROFILES = ("tflm", "onnxruntime")


# eq=False: arrays compare element by element, which is no truth value.
@dataclass(frozen=True, eq=False)
class Tensor:
    """One tensor. real value = scale * (integer - zero_point).

    scales, zero_points: one number, or one per entry of `axis`; empty where the file gives none.
    data: the constant's value, None for an activation.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    scales: tuple[float, ...] = ()
    zero_points: tuple[int, ...] = ()
    axis: int | None = None
    data: NDArray[Any] | None = None

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def zero(self) -> int:
        """The zero point of a tensor that has one; 0 where the file gives none."""
        # 0 is what the formats mean by a missing zero point.
        return self.zero_points[0] if self.zero_points else 0

    @property
    def range(self) -> Pair:
        """Least and largest value of the type."""
        # In Python's integers: NumPy's narrow ones would wrap in sums.
        info = np.iinfo(self.dtype)
        return int(info.min), int(info.max)


@dataclass(frozen=True)
class FixedPoint:
    """Multiplies by multiplier * 2^(shift - 31), rounded twice (gemmlowp's rule). One or per output
    channel; multiplier is 0 or in [2^30, 2^31)."""

    multiplier: tuple[int, ...]
    shift: tuple[int, ...]


@dataclass(frozen=True)
class FloatScale:
    """Multiplies by a float32 number, rounded once to float32, then to even. One or per channel."""

    scale: tuple[float, ...]


Rescale = FixedPoint | FloatScale


@dataclass(frozen=True)
class Operator:
    """inputs, output: names of tensors. clamp: least and largest stored value, the activation
    included. name: the file's, or one made of the kind and the place; unique."""

    name: str
    inputs: tuple[str, ...]
    output: str

    @property
    def kind(self) -> str:
        return type(self).__name__


@dataclass(frozen=True)
class Conv(Operator):
    """acc = bias + sum (x - zero(x)) * (w - zero(w)) over the window; y = clamp(rescale(acc) +
    zero(y)). Padding adds nothing. inputs: x, w [k, r, s, c / groups], bias int32 [k].
    Depthwise: groups = c. pads: (before, after) per axis.
    """

    rescale: Rescale
    clamp: Pair
    stride: Pair
    pads: tuple[Pair, Pair]
    dilation: Pair = (1, 1)
    groups: int = 1
    layout: Layout = "NHWC"


@dataclass(frozen=True)
class FullyConnected(Operator):
    """As Conv, over the last axis: inputs x [..., c], w [k, c], bias int32 [k]."""

    rescale: Rescale
    clamp: Pair


@dataclass(frozen=True)
class AddFixed:
    """u = first((a - za) << left) + sign * second((b - zb) << left); y = result(u) + zy. sign: 1,
    or -1 for a difference."""

    # Both summands are widened first: little is lost when they are brought to one scale.
    left: int
    first: FixedPoint
    second: FixedPoint
    result: FixedPoint
    sign: int = 1


@dataclass(frozen=True)
class AddFloat:
    """y = rint(fma(a, first, fma(b, second, offset))) in float32. raw: what is added to the stored
    a, b and y to have those that the rule speaks of, where a graph counts from another number."""

    first: float
    second: float
    offset: float
    raw: tuple[int, int, int] = (0, 0, 0)


@dataclass(frozen=True)
class Add(Operator):
    """Sum of two tensors of one shape, each with its scale."""

    rescale: AddFixed | AddFloat
    clamp: Pair


@dataclass(frozen=True)
class Pool(Operator):
    """Shared by both pools: window, stride and pads (before, after) per axis."""

    window: Pair
    stride: Pair
    pads: tuple[Pair, Pair]
    clamp: Pair
    layout: Layout = "NHWC"


@dataclass(frozen=True)
class MaxPool(Pool):
    """The largest value of the part of the window inside the image."""


@dataclass(frozen=True)
class AveragePool(Pool):
    """Mean over the part of the window inside the image.

    scales None: of the stored values, halves away from zero (TFLite). The scales of x and y, both
    float32: sum (x - zero(x)) times x's over (y's times the count), to even, + zero(y) (ONNX).
    count_pads: the count is the whole window's.
    """

    scales: tuple[float, float] | None = None
    count_pads: bool = False


@dataclass(frozen=True)
class Mean(Operator):
    """y = clamp(rescale(sum (x - zero(x)) over axes) + zero(y)); the count is in the rescale."""

    rescale: FixedPoint
    clamp: Pair
    axes: tuple[int, ...]


@dataclass(frozen=True)
class Pad(Operator):
    """Adds borders of `value`. pads: (before, after) of every axis."""

    pads: tuple[Pair, ...]
    value: int


@dataclass(frozen=True)
class Slice(Operator):
    """Every step-th element from start to before stop, along each axis."""

    starts: tuple[int, ...]
    stops: tuple[int, ...]
    steps: tuple[int, ...]


@dataclass(frozen=True)
class Reshape(Operator):
    """The same elements in the same order, in the output's shape."""


@dataclass(frozen=True)
class Transpose(Operator):
    """Axis i of the output is axis order[i] of the input."""

    order: tuple[int, ...]


@dataclass(frozen=True)
class Clamp(Operator):
    """min(max(x, low), high) of the stored values: an activation at one scale."""

    clamp: Pair


@dataclass(frozen=True)
class Requantise(Operator):
    """y = clamp(rescale(x - zero(x)) + zero(y)): another scale, and an activation."""

    rescale: FixedPoint | FloatScale
    clamp: Pair


@dataclass(frozen=True)
class Multiply(Operator):
    """y = clamp(rescale((a - za) * (b - zb)) + zy), one operand spread over axes of extent 1."""

    rescale: FixedPoint
    clamp: Pair


@dataclass(frozen=True)
class Spread(Operator):
    """`value` between the rows and the columns of x [n, h, w, c]: each stride-th is one of x."""

    stride: Pair
    value: int


@dataclass(frozen=True)
class Lookup(Operator):
    """y = table[channel][x - least value of x's type]: any function of one stored value.

    inputs: x, and the table as a constant [channels or 1, values of x's type]. axis: of the
    channels.
    """

    axis: int = 0


@dataclass(frozen=True)
class Move(Operator):
    """y.flat[i] = x.flat[places[i]]: elements moved or repeated, none computed (Resize to the
    nearest, Gather, DepthToSpace, …). inputs: x, and the places as a constant int64 of y's shape.
    """


@dataclass(frozen=True, eq=False)
class Outside(Operator):
    """What a runtime computes in floating point between stored tensors.

    model: the part as a serialised ONNX model, whose inputs and one output have the tensors' names.
    what: its operators, for people. why: why they have no integer form. products: its
    multiply-adds.
    """

    model: bytes
    what: str
    why: str
    products: int = 0


@dataclass(frozen=True)
class Concat(Operator):
    """Joins tensors of one scale and zero point along an axis."""

    axis: int


@dataclass(frozen=True)
class Softmax(Operator):
    """Over the last axis, in gemmlowp's fixed point (TFLite int8). multiplier, left_shift: of the
    difference to the largest, in Q5.26; differences below diff_min give nothing."""

    multiplier: int
    left_shift: int
    diff_min: int


@dataclass(frozen=True)
class Graph:
    """A quantised network. operators are in an order in which they can run. notes: what a reader
    should know, one sentence each (float ends that were left out, …). source: the file."""

    name: str
    profile: str
    tensors: dict[str, Tensor]
    operators: tuple[Operator, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    source: str = ""
    notes: tuple[str, ...] = field(default=())

    def macs(self, operator: Operator) -> int:
        """Products of one operator, padding counted as if it were data."""
        # Padding counts: a machine multiplies it too.
        if isinstance(operator, Conv | FullyConnected):
            w = self.tensors[operator.inputs[1]]
            return self.tensors[operator.output].elements * math.prod(w.shape[1:])
        # Other operators have no products, whatever they cost.
        return operator.products if isinstance(operator, Outside) else 0

    def show(self) -> str:
        """One operator a line: kind, output, shape, type, scale, rule."""
        lines = [f"{self.name}: profile {self.profile}, {len(self.operators)} operators"]
        for name in self.inputs:
            lines.append(f"  input {_tensor(self.tensors[name])}")
        for op in self.operators:
            # Weights would fill the line; they are seen in the shape.
            reads = ", ".join(n for n in op.inputs if n and self.tensors[n].data is None)
            lines.append(f"  {op.kind}({reads}) -> {_tensor(self.tensors[op.output])}")
        lines.append(f"  output {', '.join(self.outputs)}")
        return "\n".join([*lines, *(f"  note: {text}" for text in self.notes)])


def _tensor(t: Tensor) -> str:
    # A scalar has no extents to show.
    shape = "x".join(map(str, t.shape)) or "scalar"
    # One line: the first scale stands for those of all channels.
    scale = f" scale {t.scales[0]:.6g} zero {t.zero}" if t.scales else ""
    return f"{t.name} {t.dtype} {shape}{scale}"
