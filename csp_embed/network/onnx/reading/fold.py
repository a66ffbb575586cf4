"""Which tensors are constant; shape arithmetic that onnx's inference leaves open, computed.

Exported models often compute the second input of Reshape, Expand, Slice, ReduceSum or Pad from
other shapes, and choose a branch by them. Takes: a ModelProto after shape inference.  Leaves: the
same model with small constants as initializers in place of the nodes that made them, and without
If nodes whose condition is among those.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from csp_embed.network.onnx.net import TensorInfo, import_onnx, node_reads, subgraphs
from csp_embed.network.onnx.reading.dequantise import is_dequantise

# More than any shape has; weights stay where they are.
SMALL_ELEMENTS = 4096
_SHAPE_READERS = {"Shape", "Size"}
_RANDOM = {
    "RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli",
    "Multinomial",
}  # fmt: skip


def constants_of(graph: Any, known: Mapping[str, TensorInfo]) -> tuple[set[str], set[str]]:
    """(constants: tensors that depend on no graph input, Shape(x) of a known shape among them,
    unpacked: those that depend on constants through a dequantisation).

    Folding a dequantisation would make 4 or 8 bytes of every byte of the weights.
    """
    constants = {t.name for t in graph.initializer}
    unpacked: set[str] = set()
    # A sequence cannot be an initializer of a cut: who makes one stays with who reads it.
    values = (*graph.value_info, *graph.output)
    other = {v.name for v in values if v.type.WhichOneof("value") not in (None, "tensor_type")}
    for node in graph.node:
        reads = node_reads(node)
        made = [o for o in node.output if o]
        # Nodes that read nothing are constants, but of a foreign domain nobody knows what they do.
        if node.op_type in _RANDOM or (node.domain and not reads) or not other.isdisjoint(made):
            continue
        # A known shape makes a constant of its Shape, whatever the tensor's content.
        if node.op_type in _SHAPE_READERS and not node.domain:
            if reads and (reads[0] in known or reads[0] in constants):
                constants.update(made)
        elif is_dequantise(node) and reads and constants.issuperset(reads):
            unpacked.update(made)
        elif constants.issuperset(reads):
            constants.update(made)
        elif not subgraphs(node) and all(n in constants or n in unpacked for n in reads):
            unpacked.update(made)
    return constants, unpacked


def fold_small(model: Any, constants: Iterable[str], known: Mapping[str, TensorInfo]) -> bool:
    """Replaces nodes of `model` whose outputs are small constants; True where it found any."""
    onnx = import_onnx()
    fixed = set(constants)
    graph = model.graph
    # External data lie in other files and are no shape arithmetic.
    values = {
        t.name: onnx.numpy_helper.to_array(t)
        for t in graph.initializer
        if math.prod(t.dims) <= SMALL_ELEMENTS and t.data_location != t.EXTERNAL
    }
    kept: list[Any] = []
    made: dict[str, Any] = {}
    for node in graph.node:
        outputs = [o for o in node.output if o]
        found = None
        if outputs and fixed.issuperset(outputs):
            found = _value(onnx, model, node, values, known)
        if found is None:
            kept.append(node)
        else:
            values |= found
            made |= found
    if not made:
        return False
    del graph.node[:]
    graph.node.extend(kept)
    del graph.value_info[:]
    graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in made.items())
    return True


def _value(
    onnx: Any, model: Any, node: Any, values: Mapping[str, Any], known: Mapping[str, TensorInfo]
) -> dict[str, Any] | None:
    """Values of a node's outputs; None where they are unknown or large."""
    from onnx.reference import ReferenceEvaluator

    if subgraphs(node):
        return None  # branches are opened in branch.py, loops stay
    reads = {n: values[n] for n in node.input if n in values}
    if node.op_type in _SHAPE_READERS:
        if node.input[0] not in known:
            return None
        # Only the shape counts: a view of one element has it too.
        reads = {node.input[0]: np.broadcast_to(np.float32(0), known[node.input[0]].shape)}
    elif any(n and n not in reads for n in node.input):
        return None
    # Known to be large: not worth computing.
    if any(o in known and known[o].elements > SMALL_ELEMENTS for o in node.output):
        return None
    # Small inputs with a large result: looked at before it is allocated.
    if node.op_type in ("ConstantOfShape", "Expand"):
        extents = reads[node.input[-1]]
        if math.prod(int(e) for e in extents) > SMALL_ELEMENTS:
            return None
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_empty_tensor_value_info(n) for n in reads],
        # One node alone: the evaluator needs no more of the model than its opset.
        [onnx.helper.make_empty_tensor_value_info(o) for o in node.output if o],
    )
    alone = onnx.helper.make_model(graph, opset_imports=model.opset_import)
    try:
        evaluator: Any = ReferenceEvaluator(alone)
        results = evaluator.run(None, reads)
    except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError):
        # The reference lacks operators and types; running the model then finds the shapes.
        return None
    outputs = [o for o in node.output if o]
    arrays = all(
        isinstance(r, np.ndarray | np.generic) and r.size <= SMALL_ELEMENTS for r in results
    )
    # Texts and objects cannot be initializers of shape arithmetic.
    if not arrays or any(np.asarray(r).dtype.kind in "OUS" for r in results):
        return None
    return dict(zip(outputs, map(np.asarray, results), strict=True))
