"""What a model is once it has been read: its tensors, its nodes, and which of them are constant."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from csp_embed.errors import MissingLibrary

_FOUR_BIT = {"INT4", "UINT4", "FLOAT4E2M1"}
_TWO_BIT = {"INT2", "UINT2"}


def import_onnx() -> Any:
    """The onnx package, or one error that says how to get it."""
    try:
        import onnx
        import onnx.inliner  # pyright: ignore[reportUnusedImport] (an attribute of onnx from here on)
        import onnx.version_converter  # pyright: ignore[reportUnusedImport] (likewise)
    except ImportError as error:
        raise MissingLibrary(
            "reading ONNX models needs the package onnx",
            why=str(error),
            hint="pip install 'csp-embed[onnx]'",
        ) from error
    return onnx


@dataclass(frozen=True)
class TensorInfo:
    """dtype: ONNX element type name (FLOAT, INT8, …). shape: elements along each axis."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def elements(self) -> int:
        return math.prod(self.shape)

    @property
    def bytes(self) -> int:
        """Size in memory; 4- and 2-bit types are packed."""
        if self.dtype in _FOUR_BIT:
            return (self.elements + 1) // 2
        if self.dtype in _TWO_BIT:
            return (self.elements + 3) // 4
        return self.elements * _item_bytes(self.dtype)


@dataclass(frozen=True)
class Net:
    """A model ready to be grouped into layers.

    model: the normalised ONNX ModelProto. nodes: NodeProtos that are not constant, in topological
    order. tensors: by name, those of fixed size; one without may not be the graph's own input or
    output, and never leaves its layer. constants: names of tensors that do not depend on any graph
    input. unpacked: tensors that nodes make from constants alone, beginning with a dequantisation:
    weights stay quantised until their layer runs. inputs / outputs: the graph's own, constants left
    out of the inputs. notes: what a reader should know, one sentence each.
    """

    path: str
    model: Any
    nodes: tuple[Any, ...]
    tensors: Mapping[str, TensorInfo]
    constants: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    unpacked: frozenset[str] = frozenset()
    notes: tuple[str, ...] = ()

    def reads(self, node: Any) -> list[str]:
        """Non-constant tensors that `node` reads, each once, those of its subgraphs included."""
        # Each once: an edge is a tensor, not a use of it.
        names = [n for n in node_reads(node) if n not in self.constants]
        return list(dict.fromkeys(names))

    def constant_reads(self, node: Any) -> list[str]:
        """Constant tensors that `node` reads, each once."""
        return list(dict.fromkeys(n for n in node_reads(node) if n in self.constants))

    def read_inputs(self) -> list[str]:
        """The graph's inputs that some node reads; a value for the others changes nothing."""
        read = {name for node in self.nodes for name in self.reads(node)}
        return [name for name in self.inputs if name in read]


def node_reads(node: Any) -> list[str]:
    """Every tensor that a node reads: its inputs, and what its subgraphs take from outside."""
    # "" stands for an optional input that is left out.
    names = [n for n in node.input if n]
    for graph in subgraphs(node):
        names += _captured(graph)
    return names


def copied(node: Any) -> Any:
    """A node with memory of its own: elements of a repeated field do not outlive it."""
    return node.__class__.FromString(node.SerializeToString())


def subgraphs(node: Any) -> list[Any]:
    """The branches or bodies that a node carries."""
    return [
        graph
        for attribute in node.attribute
        for graph in (*([attribute.g] if attribute.HasField("g") else []), *attribute.graphs)
    ]


# In order: a name is captured only where the subgraph has not made it before.
def _captured(graph: Any) -> list[str]:
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    own |= {t.values.name for t in graph.sparse_initializer}
    names: list[str] = []
    for node in graph.node:
        names += [n for n in node_reads(node) if n not in own]
        own.update(node.output)
    return names + [o.name for o in graph.output if o.name and o.name not in own]


def tensors_of(graph: Any) -> dict[str, TensorInfo]:
    """Tensors of a graph whose type and size it says."""
    onnx = import_onnx()
    name_of = onnx.TensorProto.DataType.Name
    tensors: dict[str, TensorInfo] = {}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
            continue
        # dim_value 0 is an empty tensor, which has a size.
        fixed = all(d.HasField("dim_value") and d.dim_value >= 0 for d in kind.shape.dim)
        if fixed and kind.elem_type:
            shape = tuple(int(d.dim_value) for d in kind.shape.dim)
            tensors[value.name] = TensorInfo(value.name, name_of(kind.elem_type), shape)
    # Initializers last: their own dims are sure, declarations are not.
    for tensor in graph.initializer:
        shape = tuple(int(d) for d in tensor.dims)
        tensors[tensor.name] = TensorInfo(tensor.name, name_of(tensor.data_type), shape)
    return tensors


def total_bytes(net: Net, names: Iterable[str]) -> int:
    """Sum of the sizes of tensors whose shape is known; scalars of shape arithmetic count too."""
    return sum(net.tensors[n].bytes for n in names if n in net.tensors)


def _item_bytes(dtype: str) -> int:
    onnx = import_onnx()
    if dtype in ("STRING", "UNDEFINED"):
        return 0  # those have no size: they stay inside a layer, or are constants
    number = onnx.TensorProto.DataType.Value(dtype)
    return int(onnx.helper.tensor_dtype_to_np_dtype(number).itemsize)
