"""Shape arithmetic that onnx's inference leaves open: computed, so that shapes can be inferred.

Exported models often compute the second input of Reshape, Expand, Slice, ReduceSum or Pad from
other shapes. Takes: a ModelProto after shape inference.  Leaves: the same model with small
constants as initializers in place of the nodes that made them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from csp_embed.network.onnx_dims import forget_open_shapes

SMALL_ELEMENTS = 4096
_SHAPE_READERS = {"Shape", "Size"}


def fold_small(
    onnx: Any, model: Any, constants: Iterable[str], shapes: Mapping[str, Sequence[int]]
) -> bool:
    """Replaces nodes of `model` whose outputs are small constants; True where it found any.

    constants: names of tensors that depend on no input. shapes: those that are known.
    """
    fixed = set(constants)
    graph = model.graph
    values = {
        t.name: onnx.numpy_helper.to_array(t)
        for t in graph.initializer
        if math.prod(t.dims) <= SMALL_ELEMENTS and t.data_location != t.EXTERNAL
    }
    kept, made = [], {}
    for node in graph.node:
        outputs = [o for o in node.output if o]
        found = None
        if outputs and fixed.issuperset(outputs):
            found = _value(onnx, model, node, values, shapes)
        if found is None:
            kept.append(node)
        else:
            values |= found
            made |= found
    if not made:
        return False
    del graph.node[:]
    graph.node.extend(kept)
    forget_open_shapes(graph)
    graph.initializer.extend(onnx.numpy_helper.from_array(v, n) for n, v in made.items())
    return True


def _value(
    onnx: Any,
    model: Any,
    node: Any,
    values: Mapping[str, Any],
    shapes: Mapping[str, Sequence[int]],
) -> dict[str, Any] | None:
    """Values of a node's outputs; None where they are unknown or large."""
    from onnx.reference import ReferenceEvaluator

    reads = {n: values[n] for n in node.input if n in values}
    if node.op_type in _SHAPE_READERS:
        if node.input[0] not in shapes:
            return None
        # Only the shape counts: a view of one element has it too.
        reads = {node.input[0]: np.broadcast_to(np.float32(0), shapes[node.input[0]])}
    elif any(n and n not in reads for n in node.input):
        return None
    if any(o in shapes and math.prod(shapes[o]) > SMALL_ELEMENTS for o in node.output):
        return None
    if node.op_type in ("ConstantOfShape", "Expand"):
        extents = reads[node.input[-1]]
        if math.prod(int(e) for e in extents) > SMALL_ELEMENTS:
            return None
    graph = onnx.helper.make_graph(
        [node],
        "one",
        [onnx.helper.make_empty_tensor_value_info(n) for n in reads],
        [onnx.helper.make_empty_tensor_value_info(o) for o in node.output if o],
    )
    alone = onnx.helper.make_model(graph, opset_imports=model.opset_import)
    try:
        results = ReferenceEvaluator(alone).run(None, reads)
    except (RuntimeError, TypeError, ValueError, LookupError, ArithmeticError, AttributeError):
        # The reference lacks operators and types; inference then names what stays open.
        return None
    outputs = [o for o in node.output if o]
    if not all(
        isinstance(r, np.ndarray | np.generic) and r.size <= SMALL_ELEMENTS for r in results
    ):
        return None
    return dict(zip(outputs, map(np.asarray, results), strict=True))
