"""Reads an ONNX model into a `Net`: nodes that do work, their tensors, and what is constant.

Takes: a path.  Leaves: every tensor that work reads or makes has a known shape, node names are
unique, nodes stand in topological order, initializers are not inputs (IR >= 8).
Constants are marked, not computed: a model of 500 MB of weights is planned without making them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError, MissingLibrary
from csp_embed.network.onnx_dims import bind_dims
from csp_embed.network.onnx_fold import fold_small

_RANDOM = {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli"}
_SHAPE_READERS = {"Shape", "Size"}
_SMALL_ELEMENTS = 4096
_FOUR_BIT = {"INT4", "UINT4", "FLOAT4E2M1"}
_TWO_BIT = {"INT2", "UINT2"}


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
    order. tensors: by name. constants: names of tensors that do not depend on any graph input.
    inputs / outputs: the graph's own, constants left out of the inputs.
    """

    path: str
    model: Any
    nodes: tuple[Any, ...]
    tensors: Mapping[str, TensorInfo]
    constants: frozenset[str]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def reads(self, node: Any) -> list[str]:
        """Non-constant tensors that `node` reads, each once, those of its subgraphs included."""
        names = [n for n in node_reads(node) if n not in self.constants]
        return list(dict.fromkeys(names))

    def constant_reads(self, node: Any) -> list[str]:
        """Constant tensors that `node` reads, each once."""
        return list(dict.fromkeys(n for n in node_reads(node) if n in self.constants))


def import_onnx() -> Any:
    """The onnx package, or one error that says how to get it."""
    try:
        import onnx
    except ImportError as error:
        raise MissingLibrary(
            "reading ONNX models needs the package onnx",
            why=str(error),
            hint="pip install 'csp-embed[onnx]'",
        ) from error
    return onnx


def read_model(path: str | Path, dims: Mapping[str, int] | None = None) -> Net:
    """Reads and normalises a model. `dims` gives extents to named dimensions (`--dim batch=1`).

    Raises: InputError for an unreadable file, a cycle, a dynamic shape or a shape that onnx cannot
    infer; MissingLibrary without onnx.
    """
    onnx = import_onnx()
    try:
        model = onnx.load(str(path), load_external_data=False)
        _load_small_external(model, Path(path))
        onnx.checker.check_model(_without_weights_check(model))
    except FileNotFoundError as error:
        lost = f"no such file: {error.filename or path}"
        raise InputError(lost, where=str(path)) from error
    except OSError as error:
        raise InputError(
            f"cannot read {path}", where=str(path), why=error.strerror or str(error)
        ) from error
    except InputError:
        raise
    except onnx.checker.ValidationError as error:
        reason = str(error).strip().splitlines()[0]
        if "topologically sorted" not in str(error):  # order is mended below, the rest is not
            raise InputError("not a valid ONNX model", where=str(path), why=reason) from error
    except Exception as error:  # protobuf raises its own DecodeError
        raise InputError(
            "not an ONNX model", where=str(path), why=f"{type(error).__name__}: {error}"
        ) from error
    return normalise(model, str(path), dims)


def normalise(model: Any, path: str, dims: Mapping[str, int] | None = None) -> Net:
    """The Net of a ModelProto; see `read_model`. The model is changed in place."""
    onnx = import_onnx()
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    graph = model.graph
    weights = {t.name for t in graph.initializer} | {
        t.values.name for t in graph.sparse_initializer
    }
    kept = [i for i in graph.input if i.name not in weights]
    del graph.input[:]
    graph.input.extend(kept)
    model.ir_version = max(model.ir_version, 8)
    bind_dims(graph, dims or {}, path)
    _name_nodes(graph)
    order = _topological(graph, path)
    del graph.node[:]
    graph.node.extend(order)
    model = _infer(model, path)
    constants = _constants(model.graph)
    while _open(model.graph) and fold_small(
        onnx, model, constants, {n: t.shape for n, t in _tensors(model.graph).items()}
    ):
        model = _infer(model, path)
        constants = _constants(model.graph)
    nodes = tuple(n for n in model.graph.node if not all(o in constants for o in n.output if o))
    tensors = _tensors(model.graph)
    net = Net(
        path=path,
        model=model,
        nodes=nodes,
        tensors=tensors,
        constants=frozenset(constants),
        inputs=tuple(i.name for i in model.graph.input),
        outputs=tuple(o.name for o in model.graph.output),
    )
    if not nodes:
        raise InputError(
            "nothing to place: every output of the model is constant",
            where=path,
            hint="give a model whose outputs depend on its inputs",
        )
    _check_shapes(net)
    return net


def node_reads(node: Any) -> list[str]:
    """Every tensor that a node reads: its inputs, and what its subgraphs take from outside."""
    names = [n for n in node.input if n]
    for attribute in node.attribute:
        for graph in [attribute.g, *attribute.graphs]:
            names += _captured(graph)
    return names


def _captured(graph: Any) -> list[str]:
    own = {i.name for i in graph.input} | {t.name for t in graph.initializer}
    names: list[str] = []
    for node in graph.node:
        names += [n for n in node_reads(node) if n not in own]
        own.update(node.output)
    return names + [o.name for o in graph.output if o.name and o.name not in own]


def _load_small_external(model: Any, path: Path) -> None:
    """Reads shapes and indices that lie in a second file; large weights stay there."""
    onnx = import_onnx()
    for tensor in model.graph.initializer:
        shapes = tensor.data_type in (onnx.TensorProto.INT64, onnx.TensorProto.INT32)
        small = shapes and math.prod(tensor.dims) <= _SMALL_ELEMENTS
        if tensor.data_location != tensor.EXTERNAL or not small:
            continue
        try:
            onnx.external_data_helper.load_external_data_for_tensor(tensor, str(path.parent))
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise InputError(
                f"cannot read the external data of {tensor.name!r}",
                where=str(path),
                why=str(error).strip().splitlines()[0],
                hint="keep the model's data file beside it",
            ) from error
        tensor.data_location = tensor.DEFAULT
        del tensor.external_data[:]


def _without_weights_check(model: Any) -> Any:
    """A copy without external weights, which the checker would look for on disk."""
    if not any(t.data_location == t.EXTERNAL for t in model.graph.initializer):
        return model
    copy = type(model)()
    copy.CopyFrom(model)
    for tensor in copy.graph.initializer:
        if tensor.data_location == tensor.EXTERNAL:
            value = copy.graph.input.add()
            value.name = tensor.name
            value.type.tensor_type.elem_type = tensor.data_type
            value.type.tensor_type.shape.SetInParent()
            for extent in tensor.dims:
                value.type.tensor_type.shape.dim.add().dim_value = extent
    kept = [t for t in copy.graph.initializer if t.data_location != t.EXTERNAL]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


def _name_nodes(graph: Any) -> None:
    """Unique node names: its own, else op_type_index."""
    seen: set[str] = set()
    for index, node in enumerate(graph.node):
        name = node.name or f"{node.op_type}_{index}"
        while name in seen:
            name += "_"
        seen.add(name)
        node.name = name


def _topological(graph: Any, path: str) -> list[Any]:
    """Nodes in dependency order, the file's order kept where it is one."""
    made_by: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.output:
            if name and name in made_by:
                raise InputError(f"tensor {name!r} is made by two nodes", where=path)
            if name:
                made_by[name] = index
    known = {t.name for t in graph.initializer} | {i.name for i in graph.input}
    known |= {t.values.name for t in graph.sparse_initializer}
    needs: list[set[int]] = []
    for node in graph.node:
        need = set()
        for name in node_reads(node):
            if name in made_by:
                need.add(made_by[name])
            elif name not in known:
                raise InputError(
                    f"node {node.name!r} reads {name!r}, which nothing makes", where=path
                )
        needs.append(need)
    order = stable_topological(needs)
    if len(order) < len(needs):
        rest = [graph.node[i].name for i in range(len(needs)) if i not in set(order)]
        raise InputError(
            "the model's graph has a cycle", where=path, why="among " + ", ".join(rest[:6])
        )
    return [graph.node[i] for i in order]


def stable_topological(needs: list[set[int]]) -> list[int]:
    """Indices in dependency order, smallest ready index first; members of cycles are left out."""
    import heapq

    users: list[list[int]] = [[] for _ in needs]
    missing = [len(need) for need in needs]
    for index, need in enumerate(needs):
        for other in need:
            users[other].append(index)
    ready = [i for i, n in enumerate(missing) if n == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for user in users[index]:
            missing[user] -= 1
            if missing[user] == 0:
                heapq.heappush(ready, user)
    return order


def _infer(model: Any, path: str) -> Any:
    onnx = import_onnx()
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=True, data_prop=True)
    except Exception as error:  # InferenceError is not public in all versions
        lines = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(
            "onnx cannot infer the shapes of this model",
            where=path,
            why=lines[0],
            hint="check the node that the reason names, or export the model again",
        ) from error


def _open(graph: Any) -> bool:
    """Whether a tensor has no fixed shape yet."""
    known = _tensors(graph)
    return any(o and o not in known for node in graph.node for o in node.output)


def _constants(graph: Any) -> set[str]:
    """Tensors that depend on no graph input. Shape(x) of a fixed shape is one of them."""
    constants = {t.name for t in graph.initializer}
    constants |= {t.values.name for t in graph.sparse_initializer}
    for node in graph.node:
        if node.op_type in _RANDOM:
            continue
        if node.op_type in _SHAPE_READERS or all(n in constants for n in node_reads(node)):
            constants.update(o for o in node.output if o)
    return constants


def _tensors(graph: Any) -> dict[str, TensorInfo]:
    onnx = import_onnx()
    name_of = onnx.TensorProto.DataType.Name
    tensors: dict[str, TensorInfo] = {}
    for value in [*graph.input, *graph.output, *graph.value_info]:
        kind = value.type.tensor_type
        if not value.type.HasField("tensor_type") or not kind.HasField("shape"):
            continue
        if all(d.HasField("dim_value") and d.dim_value >= 0 for d in kind.shape.dim):
            shape = tuple(int(d.dim_value) for d in kind.shape.dim)
            tensors[value.name] = TensorInfo(value.name, name_of(kind.elem_type), shape)
    for tensor in graph.initializer:
        shape = tuple(int(d) for d in tensor.dims)
        tensors[tensor.name] = TensorInfo(tensor.name, name_of(tensor.data_type), shape)
    for sparse in graph.sparse_initializer:
        info = TensorInfo(
            sparse.values.name, name_of(sparse.values.data_type), tuple(int(d) for d in sparse.dims)
        )
        tensors[info.name] = info
    return tensors


def _check_shapes(net: Net) -> None:
    """Every tensor between nodes needs a size."""
    need: dict[str, str] = {}
    maker = {o: n for n in net.nodes for o in n.output if o}
    for node in net.nodes:
        need.update({name: node.name for name in net.reads(node)})
    need.update({name: "the graph's output" for name in net.outputs})
    missing = [name for name in need if name not in net.tensors]
    if missing:
        first = missing[0]
        made = f" (made by {maker[first].op_type} {maker[first].name!r})" if first in maker else ""
        kind = _kinds(net.model.graph).get(first, "tensor_type")
        if kind != "tensor_type":
            raise InputError(
                f"{first!r}{made} is a {kind.removesuffix('_type')}, not a tensor",
                where=net.path,
                why="costs and transfers need a fixed size",
                hint="export the model without sequences, maps and optionals",
            )
        raise InputError(
            f"the shape of tensor {first!r}{made} depends on values, or cannot be inferred",
            where=net.path,
            why=f"{len(missing)} tensors of the model have no fixed shape",
            hint="export the model with fixed shapes, or cut that operator off",
        )
    for name in need:
        if net.tensors[name].dtype in ("STRING", "UNDEFINED"):
            raise InputError(
                f"tensor {name!r} is of type {net.tensors[name].dtype}",
                where=net.path,
                why="its elements have no fixed size in bytes",
            )


def _kinds(graph: Any) -> dict[str, str]:
    """tensor_type, sequence_type, … of the values whose type is known."""
    values = [*graph.input, *graph.output, *graph.value_info]
    return {v.name: v.type.WhichOneof("value") or "tensor_type" for v in values}


def _item_bytes(dtype: str) -> int:
    onnx = import_onnx()
    if dtype in ("STRING", "UNDEFINED"):
        return 0  # only constants come so far: see _check_shapes
    number = onnx.TensorProto.DataType.Value(dtype)
    return int(onnx.helper.tensor_dtype_to_np_dtype(number).itemsize)


def total_bytes(net: Net, names: Iterable[str]) -> int:
    """Sum of the sizes of tensors whose shape is known; scalars of shape arithmetic count too."""
    return sum(net.tensors[n].bytes for n in names if n in net.tensors)
