"""The shape and type of every tensor, at fixed extents of the inputs.

Takes: a tidy ModelProto.  Leaves: the same with a fixed shape beside every tensor that has one.
In this order: onnx's inference, shape arithmetic computed and branches opened in between; then
onnxruntime, run once with the open tensors as outputs; last what the file declares, which is only a
hint: exporters leave stale, zero and symbolic sizes there.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csp_embed.network.onnx.net import TensorInfo, import_onnx, tensors_of
from csp_embed.network.onnx.reading.branch import open_branches
from csp_embed.network.onnx.reading.fold import constants_of, fold_small
from csp_embed.network.onnx.reading.normalise import drop_dead, name_nodes
from csp_embed.network.onnx.reading.run_shapes import ASKS_FOR_VALUES, shapes_by_running
from csp_embed.network.onnx.reading.value_shapes import depends_on_values


@dataclass(frozen=True)
class Settled:
    """model: with shapes. why: tensors without one have none. declared: tensors whose shape is only
    what the file says."""

    model: Any
    why: str
    declared: tuple[str, ...]


def settle(
    model: Any, path: str, dims: Mapping[str, int], feeds: Mapping[str, Any] | None
) -> Settled:
    """Finds every shape that can be found.

    dims: extents that the file's declarations name. feeds: values of the model's inputs.
    """
    # Declared shapes are set aside, so that inference starts from what is known.
    declared = _take_declared(model.graph, dims)
    model = _infer_and_fold(model)
    learnt: dict[str, TensorInfo] = {}
    trusted: list[str] = []
    refusal = ""
    while True:
        missing = _open(model.graph)
        # What depends on values of the inputs is not asked for without them: whatever was tried,
        # another value might show another shape.
        constants = constants_of(model.graph, tensors_of(model.graph))[0]
        waits = (
            set[str]() if feeds is not None else depends_on_values(model.graph, constants, missing)
        )
        ask = [name for name in missing if name not in waits]
        found: dict[str, TensorInfo] = {}
        if ask and not refusal:
            # Nothing new by running: then hints, one layer at a time.
            found, refusal = shapes_by_running(model, ask, feeds, path)
        if not found:
            # Values decide, or onnxruntime does not know an operator: what is declared of the first
            # such tensors may settle the rest.
            hints = {n: declared[n] for n in missing if n in declared}
            borders = {o.name for o in model.graph.output}
            # Borders need a shape in any case; their declaration is better than a refusal.
            found = _hints(model.graph, hints) or {n: hints[n] for n in hints if n in borders}
            trusted += found
        if not found:
            return Settled(model, refusal or ASKS_FOR_VALUES, tuple(trusted))
        learnt |= found
        # Each found shape may let inference settle more.
        _declare(model.graph, found)
        model = _infer_and_fold(model, learnt)


def inference_error(model: Any) -> str:
    """What onnx's strict inference says against a model; empty: nothing."""
    onnx = import_onnx()
    try:
        onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError) as error:
        lines = [line for line in str(error).strip().splitlines() if line]
        return lines[0] if lines else type(error).__name__
    return ""


def _infer_and_fold(model: Any, kept: Mapping[str, TensorInfo] | None = None) -> Any:
    """Inference, as often as folding and branches show it more. kept: shapes from elsewhere."""
    while True:
        # Inference may be repeated cheaply; folding is what makes it see further.
        model = _infer(model)
        if kept:
            # Inference drops what it cannot derive itself.
            _declare(model.graph, kept)
        graph = model.graph
        branches = any(n.op_type == "If" and not n.domain for n in graph.node)
        if not branches and not _open(graph):
            return model
        known = tensors_of(graph)
        changed = fold_small(model, constants_of(graph, known)[0], known)
        if open_branches(model):
            name_nodes(graph)
            drop_dead(graph)
            changed = True
        if not changed:
            return model
        if kept:
            _declare(graph, kept)


def _infer(model: Any) -> Any:
    """Not strict: onnx refuses models that run (operators given as functions, optional inputs);
    what it cannot infer stays open."""
    onnx = import_onnx()
    try:
        return onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
    except (onnx.shape_inference.InferenceError, ValueError, RuntimeError):
        return model


def _open(graph: Any) -> list[str]:
    """Tensors made by nodes that have no fixed shape yet."""
    known = tensors_of(graph)
    return [o for node in graph.node for o in node.output if o and o not in known]


def _take_declared(graph: Any, dims: Mapping[str, int]) -> dict[str, TensorInfo]:
    """Removes the shapes written beside computed tensors; returns those that are fixed, or become
    so by `dims`. Types of the graph's outputs stay: onnx asks for them."""
    made = {o for node in graph.node for o in node.output}
    values = [v for v in (*graph.value_info, *graph.output) if v.name in made]
    for value in values:
        for dim in value.type.tensor_type.shape.dim:
            if dim.WhichOneof("value") == "dim_param" and dim.dim_param in dims:
                dim.dim_value = dims[dim.dim_param]
    probe = type(graph)()
    probe.value_info.extend(values)
    declared = tensors_of(probe)
    # Stale sizes would stop inference from saying what is true.
    del graph.value_info[:]
    for value in graph.output:
        if value.name in made and value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
    return declared


def _hints(graph: Any, declared: Mapping[str, TensorInfo]) -> dict[str, TensorInfo]:
    """Declared shapes of nodes all of whose own inputs have one."""
    known = tensors_of(graph)
    hints: dict[str, TensorInfo] = {}
    for node in graph.node:
        # A hint is used only where everything before is settled: a wrong one then shows early.
        if all(n in known for n in node.input if n):
            hints |= {o: declared[o] for o in node.output if o in declared}
    return hints


def _declare(graph: Any, found: Mapping[str, TensorInfo]) -> None:
    """Writes shapes beside tensors."""
    onnx = import_onnx()
    outputs = {o.name: o for o in graph.output}
    beside = {v.name: v for v in graph.value_info}
    made = {o for node in graph.node for o in node.output}
    for name, info in found.items():
        if name not in made:
            continue  # folded meanwhile
        kind = onnx.TensorProto.DataType.Value(info.dtype)
        value = onnx.helper.make_tensor_value_info(name, kind, list(info.shape))
        target = outputs.get(name, beside.get(name))
        if target is None:
            graph.value_info.append(value)
        else:
            target.CopyFrom(value)
