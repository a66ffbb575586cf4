"""What a tensor of a quantised ONNX model stands for while the graph is being read.

Takes: an ONNX `Net`.  Leaves: for every name one of
    Stored   an integer tensor of the graph
    Real     the real values that a stored tensor stands for (behind DequantizeLinear)
    Pending  a float result between two quantised tensors, waiting for its QuantizeLinear
    Host     a float result that never comes back: the host's part behind the last integers
QDQ and QOperator forms meet here: both become the same operators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.network.onnx.net import Net, TensorInfo
from csp_embed.network.onnx.weights import constant_values
from csp_embed.network.profiles.node_work import attributes
from csp_embed.network.quantised import graph as g

DTYPES = {"INT8": "int8", "UINT8": "uint8", "INT32": "int32", "INT16": "int16", "INT64": "int64"}


@dataclass(frozen=True)
class Stored:
    tensor: str


@dataclass(frozen=True)
class Real:
    tensor: str


@dataclass(frozen=True)
class Pending:
    """build: makes the operator once its output tensor is known; low, high: real limits of the
    activation behind it."""

    node: Any
    build: Callable[[g.Tensor, g.Pair], g.Operator]
    low: float = -np.inf
    high: float = np.inf


@dataclass(frozen=True)
class Host:
    """node: the one that makes it. why: it has no integer form."""

    node: Any
    why: str


Value = Stored | Real | Pending | Host


class NoIntegerForm(InputError):
    """A node that the integer rules do not cover; a runtime may still compute it."""


@dataclass
class Reading:
    """The graph as far as it is read."""

    net: Net
    tensors: dict[str, g.Tensor] = field(default_factory=dict[str, g.Tensor])
    operators: list[g.Operator] = field(default_factory=list[g.Operator])
    values: dict[str, Value] = field(default_factory=dict[str, Value])
    inputs: list[str] = field(default_factory=list[str])
    outputs: list[str] = field(default_factory=list[str])
    notes: list[str] = field(default_factory=list[str])
    # Weights may be large; each is unpacked once.
    _constants: dict[str, NDArray[Any]] = field(default_factory=dict[str, NDArray[Any]])

    def refuse(self, node: Any, why: str, hint: str = "") -> NoReturn:
        raise NoIntegerForm(
            f"this {node.op_type} has no integer meaning here",
            where=f"{self.net.path}, node {node.name!r}",
            why=why,
            hint=hint or QUANTISE_HINT,
        )

    def info(self, name: str) -> TensorInfo:
        """Type and shape of a tensor. Raises: InputError where the model does not tell."""
        if name not in self.net.tensors:
            # Later stages count elements, so that an open shape ends here.
            raise self._shapeless(name)
        return self.net.tensors[name]

    def _shapeless(self, name: str) -> InputError:
        """Names the first operator whose result has no known shape, and how to do without it."""
        node = next(
            (n for n in self.net.nodes if any(o not in self.net.tensors for o in n.output if o)),
            None,
        )
        if node is None:
            return InputError(
                f"nothing tells the shape of {name!r}", where=self.net.path,
                why="no operator makes it",
                hint="give it a shape, or leave out what reads it",
            )  # fmt: skip
        domain = f" of domain {node.domain!r}" if node.domain else ""
        before, behind = self.net.reads(node), [o for o in node.output if o]
        ends = f"{list(self.net.inputs)}, {before}"
        return InputError(
            f"nothing tells the shape of {behind[0]!r}",
            where=f"{self.net.path}, node {node.name!r}",
            why=f"its operator {node.op_type}{domain} is unknown to onnx and to onnxruntime",
            hint="build the part before it: onnx.utils.extract_model(MODEL, 'before.onnx',"
            f" {ends}), alike the part from {behind} on, and run {node.op_type} between them",
        )

    def shape(self, name: str) -> tuple[int, ...]:
        return self.info(name).shape

    def constant(self, node: Any, name: str, what: str) -> NDArray[Any]:
        """The value of a constant operand."""
        if name not in self.net.constants:
            self.refuse(node, f"{what} {name!r} is not a constant")
        if name not in self._constants:
            self._constants[name] = constant_values(self.net, [name])[name]
        return self._constants[name]

    def optional(self, node: Any, place: int) -> str:
        return node.input[place] if place < len(node.input) else ""

    def scales(self, node: Any, scale: str, zero: str, dtype: str) -> tuple[Any, Any]:
        """(scales, zero points) of two operands; a missing zero point is 0."""
        # float32 here and everywhere: that is what the runtime multiplies.
        s = self.constant(node, scale, "scale").astype(np.float32).reshape(-1)
        z = self.constant(node, zero, "zero point").reshape(-1) if zero else np.zeros(s.size, int)
        # uint8 zero points for int8 values would shift everything by 128.
        if zero and str(z.dtype) != dtype:
            self.refuse(node, f"its zero point is {z.dtype}, its values are {dtype}")
        return tuple(float(v) for v in s), tuple(int(v) for v in z)

    def declare(
        self, node: Any, name: str, scale: str, zero: str, axis: int | None = None
    ) -> g.Tensor:
        """The stored tensor `name` with the scale that a node gives it; once told, always so."""
        info = self.info(name)
        dtype = DTYPES.get(info.dtype)
        if dtype is None:
            self.refuse(node, f"{name!r} is {info.dtype}, wanted int8 or uint8")
        assert dtype is not None
        scales, zeros = self.scales(node, scale, zero, dtype)
        data = None
        if name in self.net.constants:
            data = self.constant(node, name, "tensor").astype(dtype)
        # One scale needs no axis.
        axis = None if len(scales) == 1 else (axis or 0) % max(1, len(info.shape))
        made = g.Tensor(name, info.shape, dtype, scales, zeros, axis, data)
        known = self.tensors.get(name)
        # A tensor without scale so far (an integer input) takes the first one.
        if known is not None and known.scales:
            if (known.scales, known.zero_points) != (scales, zeros):
                raise InputError(
                    f"{name!r} has two scales, {known.scales[:2]} and {scales[:2]}",
                    where=f"{self.net.path}, node {node.name!r}",
                    why="a stored tensor means one thing to all that read it",
                    hint=QUANTISE_HINT,
                )
            return known
        self.tensors[name] = made
        return made

    def free(self, name: str) -> str:
        """The name, or one like it that the model does not use."""
        # Names of the model are taken too: they may be read later.
        while name in self.tensors or name in self.net.tensors:
            name += "_"
        return name

    def copy_of(self, source: g.Tensor, name: str, shape: tuple[int, ...]) -> g.Tensor:
        """An activation of another shape at the same scale."""
        made = replace(source, name=name, shape=shape, data=None)
        self.tensors[name] = made
        return made

    def full(self, node: Any, t: g.Tensor, shape: tuple[int, ...]) -> g.Tensor:
        """A constant in the shape of what it is added to; an activation as it is."""
        if t.data is None or t.shape == shape:
            return t
        try:
            # Broadcast views share memory; stored constants must have their own.
            data = np.broadcast_to(t.data, shape).copy()
        except ValueError:
            self.refuse(node, f"{t.name!r} of shape {t.shape} does not fit {shape}")
        name = self.free(f"{node.name}.{t.name}")
        self.tensors[name] = replace(t, name=name, shape=shape, data=data)
        return self.tensors[name]

    def stored(self, node: Any, name: str) -> g.Tensor | None:
        """The tensor behind a name, dequantised or not; None for a float one."""
        value = self.values.get(name)
        # A float constant is nobody's stored tensor.
        if value is None and name in self.net.constants:
            return None
        return self.tensors[value.tensor] if isinstance(value, Stored | Real) else None

    def put(self, op: g.Operator) -> None:
        self.operators.append(op)

    def attributes(self, node: Any) -> dict[str, Any]:
        return attributes(node)


def clamp_of(y: g.Tensor, low: float, high: float) -> g.Pair:
    """The stored range of y behind an activation with real limits; quantising keeps order, so
    limits before and after it are the same."""
    least, most = y.range

    def stored(real: float, otherwise: int) -> int:
        if np.isinf(real):
            return otherwise
        # The runtime quantises the limit as it quantises values: float32, halves to even.
        value = np.rint(np.float32(real) / np.float32(y.scales[0])) + y.zero
        return int(np.clip(value, least, most))

    return stored(low, least), stored(high, most)


QUANTISE_HINT = (
    "onnxruntime.quantization.quantize_static(MODEL, OUT, READER, quant_format=QuantFormat.QDQ, "
    "activation_type=QuantType.QInt8, weight_type=QuantType.QInt8, per_channel=True); READER is a "
    "CalibrationDataReader over a hundred real inputs"
)
