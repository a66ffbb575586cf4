"""The graph as the machine stores it: int8 throughout.

Takes: a graph with int8 or uint8 activations.  Leaves: the same graph, every uint8 tensor counted
from 128: q becomes q - 128, and so do its zero point and what operators clamp to or fill in. Every
rule speaks of q minus its zero point, which stays; those that do not (sums of float32 products, the
mean of stored values) carry what has to be added.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.network.quantised import graph as g

Array = NDArray[Any]
OFFSET = 128


def signed(graph: g.Graph) -> g.Graph:
    """The graph with int8 tensors; itself where it has no others."""
    if all(t.dtype != "uint8" or t.data is not None for t in graph.tensors.values()):
        return graph
    tensors = {n: _tensor(t) for n, t in graph.tensors.items()}
    operators: list[g.Operator] = []
    for op in graph.operators:
        if isinstance(op, g.Lookup):
            table, name = graph.tensors[op.inputs[1]], f"{op.name}.table of int8"
            assert table.data is not None
            data = stored(table.data)
            tensors[name] = replace(table, name=name, dtype=str(data.dtype), data=data)
            op = replace(op, inputs=(op.inputs[0], name))
        operators.append(_operator(graph, op))
    return replace(graph, tensors=tensors, operators=tuple(operators))


def stored(values: Array) -> Array:
    """Values of a tensor as the machine has them."""
    # XOR of the top bit is subtracting 128, and a view makes the byte signed: no pass over values.
    return (values ^ np.uint8(OFFSET)).view(np.int8) if values.dtype == np.uint8 else values


def read_back(values: Array, dtype: str) -> Array:
    """The machine's values as those of the network's tensor."""
    return values.view(np.uint8) ^ np.uint8(OFFSET) if dtype == "uint8" else values


def stored_values(values: Mapping[str, Array]) -> dict[str, Array]:
    """As `stored`, of all tensors."""
    return {n: stored(v) for n, v in values.items()}


def _by(t: g.Tensor) -> int:
    # Constants keep their type: their users know what they mean.
    return OFFSET if t.dtype == "uint8" and t.data is None else 0


def _tensor(t: g.Tensor) -> g.Tensor:
    if not _by(t):
        return t
    return replace(t, dtype="int8", zero_points=tuple(z - OFFSET for z in t.zero_points or (0,)))


def _operator(graph: g.Graph, op: g.Operator) -> g.Operator:
    y = _by(graph.tensors[op.output])
    clamp = getattr(op, "clamp", None)
    changes: dict[str, Any] = {}
    if clamp is not None:
        # The clamp is of stored values, so it moves with them.
        changes["clamp"] = clamp[0] - y, clamp[1] - y
    if isinstance(op, g.Pad | g.Spread):
        changes["value"] = op.value - y
    if isinstance(op, g.Add) and isinstance(op.rescale, g.AddFloat):
        a, b = (_by(graph.tensors[n]) for n in op.inputs)
        # The sum of float32 products speaks of raw values: what was taken off is added by the rule.
        changes["rescale"] = replace(op.rescale, raw=(a, b, y))
    return replace(op, **changes) if changes else op
