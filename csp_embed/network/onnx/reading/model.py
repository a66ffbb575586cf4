"""Reads an ONNX model into a `Net`: nodes that do work, their tensors, and what is constant.

The chain: file -> `load` -> ModelProto -> `normalise` -> plain form -> `dims`, `shapes`
-> a fixed shape for every tensor that has one -> constants marked, quantised weights
and activations kept quantised -> Net.  Constants are marked, not computed: a model of 500 MB of
weights is planned without making them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.network.onnx.net import Net, import_onnx, tensors_of
from csp_embed.network.onnx.reading.dequantise import split_dequantised
from csp_embed.network.onnx.reading.dims import bind_dims
from csp_embed.network.onnx.reading.fold import constants_of
from csp_embed.network.onnx.reading.load import load
from csp_embed.network.onnx.reading.normalise import drop_dead, tidy
from csp_embed.network.onnx.reading.run_shapes import ASKS_FOR_VALUES
from csp_embed.network.onnx.reading.shapes import Settled, inference_error, settle


def read_model(
    path: str | Path,
    dims: Mapping[str, int] | None = None,
    feeds: Mapping[str, Any] | None = None,
) -> Net:
    """Reads and normalises a model.

    dims: extents of named dimensions (`--dim batch=1`). feeds: arrays for the model's inputs
    (`--inputs`): they give open extents, and shapes that depend on values.
    Raises: InputError for an unreadable file, a cycle, a dynamic shape or a shape that neither onnx
    nor onnxruntime can say; MissingLibrary without onnx.
    """
    try:
        return normalise(load(path), str(path), dims, feeds)
    except UnicodeDecodeError as error:  # protobuf looks at a name when it is asked for
        raise InputError(
            "not a whole ONNX model: a name in it is no text",
            where=str(path),
            why=str(error),
            hint="export it or copy it again",
        ) from error


def normalise(
    model: Any,
    path: str,
    dims: Mapping[str, int] | None = None,
    feeds: Mapping[str, Any] | None = None,
) -> Net:
    """The Net of a ModelProto; see `read_model`. The model is changed in place."""
    # Form first: everything behind relies on unique names and order.
    model = tidy(model, path)
    # Dead nodes may have inputs of open size, which nobody should have to bind.
    dead = drop_dead(model.graph)
    extents = bind_dims(model.graph, dims or {}, path, feeds)
    settled = settle(model, path, extents, feeds)
    model = settled.model
    # Folding leaves nodes whose results are no longer read.
    dead += drop_dead(model.graph)
    graph = model.graph
    tensors = tensors_of(graph)
    constants, unpacked = constants_of(graph, tensors)
    copies = split_dequantised(graph, unpacked)
    # A copy of a node makes the same tensor under another name.
    tensors |= {copy: tensors[name] for copy, name in copies.items() if name in tensors}
    unpacked |= {copy for copy, name in copies.items() if name in unpacked}
    # Constant nodes do no work at run time; they become weights.
    nodes = tuple(n for n in graph.node if not all(o in constants for o in n.output if o))
    net = Net(
        path=path,
        model=model,
        nodes=nodes,
        tensors=tensors,
        constants=frozenset(constants),
        inputs=tuple(i.name for i in graph.input),
        outputs=tuple(o.name for o in graph.output),
        unpacked=frozenset(unpacked),
        notes=(*_dead_note(dead), *_declared_note(settled)),
    )
    # Nothing depends on an input: costs would all be 0.
    if not nodes:
        raise InputError(
            "nothing to place: every output of the model is constant, or an input",
            where=path,
            hint="give a model whose outputs depend on its inputs",
        )
    _check_borders(net, settled.why)
    return net


def _dead_note(dead: list[str]) -> tuple[str, ...]:
    if not dead:
        return ()
    return (f"left out, since no output of the model depends on them: {_few(dead)}",)


def _declared_note(settled: Settled) -> tuple[str, ...]:
    if not settled.declared:
        return ()
    return (
        f"sizes as the file declares them, not checked, of {_few(settled.declared)}: {settled.why} "
        "(--inputs FILE.npz measures them)",
    )


def _few(names: Sequence[str]) -> str:
    return ", ".join(names[:5]) + (", …" if len(names) > 5 else "")


def _check_borders(net: Net, why: str) -> None:
    """The graph's own inputs and outputs need a size; what has none inside stays in its layer."""
    maker = {o: n for n in net.nodes for o in n.output if o}
    kinds = _kinds(net.model.graph)
    for name in (*net.read_inputs(), *net.outputs):
        kind = kinds.get(name, "tensor_type")
        # The maker's operator says where to look in the exporter.
        made = f" (made by {maker[name].op_type} {maker[name].name!r})" if name in maker else ""
        if kind != "tensor_type":
            raise InputError(
                f"{name!r}{made} is a {kind.removesuffix('_type')}, not a tensor",
                where=net.path,
                why="costs and transfers between host and devices need a fixed size",
                hint="export the model without sequences, maps and optionals at its border",
            )
        if _elem_type(net.model.graph, name) in ("STRING", "UNDEFINED"):
            raise InputError(
                f"tensor {name!r}{made} is of type {_elem_type(net.model.graph, name)}",
                where=net.path,
                why="its elements have no fixed size in bytes",
                hint="cut the model where its strings begin or end",
            )
        if name not in net.tensors and name not in net.constants:
            reasons = [text for text in (why, inference_error(net.model)) if text]
            # The first tensor that is open: those behind it follow from it.
            first = next(o for n in net.nodes for o in n.output if o and o not in net.tensors)
            raise InputError(
                f"the shape of tensor {name!r}{made} depends on values, or cannot be inferred",
                where=net.path,
                why="; ".join(reasons),
                hint="--inputs FILE.npz with values for " + ", ".join(net.read_inputs()[:5])
                if why == ASKS_FOR_VALUES
                else f"write the shape of {first!r} into the model: graph.value_info.append("
                f"onnx.helper.make_tensor_value_info({first!r}, TYPE, [EXTENTS]))",
            )


def _kinds(graph: Any) -> dict[str, str]:
    """tensor_type, sequence_type, … of the values whose type is known."""
    values = [*graph.value_info, *graph.input, *graph.output]
    return {v.name: v.type.WhichOneof("value") or "tensor_type" for v in values}


def _elem_type(graph: Any, name: str) -> str:
    """Element type of an input or output, as far as the graph says; FLOAT where it does not."""
    for value in (*graph.input, *graph.output):
        if value.name == name and value.type.tensor_type.elem_type:
            number = value.type.tensor_type.elem_type
            return str(import_onnx().TensorProto.DataType.Name(number))
    return "FLOAT"
