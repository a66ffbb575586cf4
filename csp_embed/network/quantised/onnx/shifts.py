"""Weights requantised so that every multiplier of a convolution or dense layer is a shift.

Takes: an ONNX file and the graph that was read from it.  Leaves: an ONNX model with other weights:
each output channel's scale is such that (xs * ws) / ys is 2^-n in float32, activations keep theirs.
It is an ordinary model: a runtime tells what the change costs in accuracy.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.files import atomic
from csp_embed.network.onnx.net import import_onnx
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.onnx.graph import read_onnx
from csp_embed.network.quantised.shift_scales import shift_of

Array = NDArray[Any]
MOST_SHIFT = 16  # beyond it a result in range has sums that float32 does not hold
MOST_BIAS = 1 << 22  # leaves the sums below 2^24, where float32 is exact
# Float32 numbers on either side of a scale that are tried, the nearest first.
_STEPS = np.array(sorted(range(-64, 65), key=abs), np.int32)


@dataclass(frozen=True)
class Channels:
    """One layer's new constants: w int8 [outputs, …] in the graph's form, scale float32 [outputs],
    bias int32 [outputs]. exact: channels whose multiplier is 2^-n in every bit."""

    w: Array
    scale: NDArray[np.float32]
    bias: NDArray[np.int32]
    exact: int


def with_shifts(path: Path, output: Path, dims: Mapping[str, int] | None = None) -> g.Graph:
    """Writes the requantised model to `output` and reads it back.

    Raises: as `read_onnx`.
    """
    onnx = import_onnx()
    model = onnx.load(str(path))
    # Nodes are found again by name; the file may lack them.
    taken = {n.name for n in model.graph.node}
    for n, node in enumerate(model.graph.node):
        if not node.name:
            node.name = next(x for x in _names(f"{node.op_type}_{n}") if x not in taken)
            taken.add(node.name)
    _save(onnx, model, output)
    graph = read_onnx(output, dims)
    edit = _Edit(onnx, model)
    for op in graph.operators:
        if isinstance(op, g.Conv | g.FullyConnected) and op.name in edit.nodes:
            edit.layer(op, requantised(graph, op))
    if edit.changed:
        edit.finish()
        _save(onnx, model, output)
    return read_onnx(output, dims)


def _names(name: str) -> Any:
    yield name
    yield from (f"{name}_{k}" for k in range(1 << 30))


def _save(onnx: Any, model: Any, output: Path) -> None:
    with atomic(output, "wb") as file:
        file.write(model.SerializeToString())


def requantised(graph: g.Graph, op: g.Conv | g.FullyConnected) -> Channels:
    """The constants of a layer at scales that make its multipliers powers of two."""
    x, w, y = (graph.tensors[n] for n in (op.inputs[0], op.inputs[1], op.output))
    assert w.data is not None
    count = w.shape[0]
    scales = np.broadcast_to(np.array(w.scales, np.float64), (count,))
    zeros = np.array(w.zero_points or (0,), np.int64).reshape(-1, 1)
    real = (w.data.reshape(count, -1).astype(np.int64) - zeros) * scales[:, None]
    held = graph.tensors[op.inputs[2]].data if len(op.inputs) > 2 and op.inputs[2] else None
    xs, ys = np.float32(x.scales[0]), np.float32(y.scales[0])
    bias = np.zeros(count) if held is None else held.astype(np.float64) * scales * float(xs)
    found = [_channel(real[c], float(bias[c]), xs, ys) for c in range(count)]
    made = np.array([f[0] for f in found], np.float32)
    rows = np.array([np.clip(np.rint(real[c] / float(made[c])), -127, 127) for c in range(count)])
    steps = np.rint(bias / (made.astype(np.float64) * float(xs)))
    return Channels(
        rows.astype(np.int8).reshape(w.shape), made,
        np.clip(steps, -(2.0**31), 2.0**31 - 1).astype(np.int32), sum(f[1] for f in found),
    )  # fmt: skip


def _channel(row: Array, bias: float, xs: np.float32, ys: np.float32) -> tuple[np.float32, bool]:
    """(scale, whether the multiplier is 2^-n exactly) of one channel."""
    unit = float(ys) / float(xs)  # the scale at which the multiplier is 1
    n = shift_of(row, bias, unit, float(xs), (MOST_SHIFT, MOST_BIAS))
    wanted = np.float32(2.0**-n)
    near = np.float32(unit * 2.0**-n)
    # (xs * ws) / ys in float32 rounds twice, so the quotient itself may miss 2^-n by a bit.
    scales = (near.view(np.int32) + _STEPS).view(np.float32)
    found = np.flatnonzero((xs * scales) / ys == wanted)
    return (np.float32(scales[found[0]]), True) if found.size else (near, False)


class _Edit:
    """Puts new constants into a model. Old ones that nothing reads are dropped at the end."""

    def __init__(self, onnx: Any, model: Any) -> None:
        self.onnx, self.graph = onnx, model.graph
        self.nodes: dict[str, Any] = {n.name: n for n in self.graph.node if n.op_type in _LAYERS}
        self.taken = {t.name for t in self.graph.initializer}
        self.taken |= {o for n in self.graph.node for o in (*n.input, *n.output)}
        self.before: list[Any] = []
        self.changed = 0

    def layer(self, op: g.Operator, made: Channels) -> None:
        node = self.nodes[op.name]
        kind, axis = node.op_type, 0
        if made.w.ndim == 4:
            data = made.w.transpose(0, 3, 1, 2)
            # Along a single axis the graph has one row, the file none.
            data = data[:, :, 0] if self._rank(node) == 3 else data
        else:
            transposed = any(a.name == "transB" and a.i for a in node.attribute)
            data, axis = (made.w, 0) if transposed else (made.w.T, 1)
        scale = self._constant(f"{op.name}.shift.scale", made.scale)
        zero = self._constant(f"{op.name}.shift.zero", np.zeros(len(made.scale), np.int8))
        w = self._constant(f"{op.name}.shift.w", np.ascontiguousarray(data))
        bias = self._constant(f"{op.name}.shift.b", made.bias)
        place = {"QLinearConv": (3, 8), "QLinearMatMul": (3, -1), "QGemm": (3, 6)}.get(kind)
        if place is not None:
            at, added = place
            for k, name in enumerate((w, scale, zero)):
                node.input[at + k] = name
            if 0 <= added < len(node.input) and node.input[added]:
                node.input[added] = bias
        else:
            node.input[1] = self._real(op.name, w, scale, zero, axis)
            if len(node.input) > 2 and node.input[2]:
                xs = np.float32(self._input_scale(node.input[0]))
                sums = self._constant(f"{op.name}.shift.b.scale", xs * made.scale)
                none = self._constant(
                    f"{op.name}.shift.b.zero", np.zeros(len(made.scale), np.int32)
                )
                node.input[2] = self._real(f"{op.name}.b", bias, sums, none, 0)
        self.changed += 1

    def _rank(self, node: Any) -> int:
        """Axes of a layer's weights in the file."""
        name = node.input[3] if node.op_type == "QLinearConv" else node.input[1]
        makers = {o: n for n in self.graph.node for o in n.output}
        name = makers[name].input[0] if name in makers else name
        return next((len(t.dims) for t in self.graph.initializer if t.name == name), 4)

    def _input_scale(self, name: str) -> Any:
        """Of the DequantizeLinear that a layer reads, through what only moves elements."""
        makers = {o: n for n in self.graph.node for o in n.output}
        known = {t.name: t for t in self.graph.initializer}
        while name in makers and makers[name].op_type != "DequantizeLinear":
            name = makers[name].input[0]
        return self.onnx.numpy_helper.to_array(known[makers[name].input[1]])

    def _real(self, layer: str, stored: str, scale: str, zero: str, axis: int) -> str:
        """A DequantizeLinear in front of a layer."""
        name = self._free(f"{layer}.{stored}.real")
        self.before.append(
            self.onnx.helper.make_node(
                "DequantizeLinear", [stored, scale, zero], [name], name=name, axis=axis
            )
        )
        return name

    def _constant(self, name: str, value: Any) -> str:
        name = self._free(name)
        self.graph.initializer.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def _free(self, name: str) -> str:
        found = next(x for x in _names(name) if x not in self.taken)
        self.taken.add(found)
        return found

    def finish(self) -> None:
        """New DequantizeLinears first; then what nothing reads any more goes."""
        nodes = [*self.before, *self.graph.node]
        kept = {o.name for o in self.graph.output}
        while True:
            read = kept | {i for n in nodes for i in _reads(n)}
            live = [n for n in nodes if any(o in read for o in n.output)]
            if len(live) == len(nodes):
                break
            nodes = live
        del self.graph.node[:]
        self.graph.node.extend(nodes)
        constants = [t for t in self.graph.initializer if t.name in read]
        del self.graph.initializer[:]
        self.graph.initializer.extend(constants)


def _reads(node: Any) -> set[str]:
    """What a node reads, in the bodies of branches and loops, too."""
    bodies = [a.g for a in node.attribute if a.HasField("g")]
    bodies += [body for a in node.attribute for body in a.graphs]
    return {*node.input} | {i for b in bodies for n in b.node for i in _reads(n)} | {
        o.name for b in bodies for o in b.output
    }  # fmt: skip


_LAYERS = ("Conv", "Gemm", "MatMul", "QLinearConv", "QLinearMatMul", "QGemm")
