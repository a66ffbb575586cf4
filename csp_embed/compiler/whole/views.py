"""Which elements of which stored tensor each tensor of a graph consists of.

Takes: a graph.  Leaves: per tensor an array of element numbers: reshapes, transposes, slices and
pads move nothing, they are other views of a tensor that some layer stores (its *root*). -1 is an
element that no layer stores: a border that a pad adds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.network.quantised import graph as g

Ids = NDArray[np.int64]
MOVES = (g.Reshape, g.Transpose, g.Slice, g.Pad)


@dataclass(frozen=True, eq=False)
class View:
    """root: the tensor that is stored. ids: which of its elements, -1: the border's `value`."""

    root: str
    ids: Ids
    value: int | None = None


def views(graph: g.Graph) -> Mapping[str, View]:
    """The view of every activation."""
    out: dict[str, View] = {}
    for name in graph.inputs:
        out[name] = _whole(graph, name)
    for op in graph.operators:
        made = _moved(graph, op, out[op.inputs[0]]) if isinstance(op, MOVES) else None
        out[op.output] = _whole(graph, op.output) if made is None else made
    return out


def is_view(graph: g.Graph, op: g.Operator, of: Mapping[str, View]) -> bool:
    """Whether an operator needs no step at all."""
    return isinstance(op, MOVES) and of[op.output].root != op.output


def _whole(graph: g.Graph, name: str) -> View:
    t = graph.tensors[name]
    return View(name, np.arange(t.elements).reshape(t.shape))


def _moved(graph: g.Graph, op: Any, x: View) -> View | None:
    shape = graph.tensors[op.output].shape
    if isinstance(op, g.Reshape):
        return View(x.root, x.ids.reshape(shape), x.value)
    if isinstance(op, g.Transpose):
        return View(x.root, x.ids.transpose(op.order), x.value)
    if isinstance(op, g.Slice):
        inner = [slice(*r) for r in zip(op.starts, op.stops, op.steps, strict=True)][1:]
        return View(x.root, x.ids[(slice(None), *inner)], x.value)
    if x.value not in (None, op.value):
        return None
    return View(x.root, np.pad(x.ids, op.pads, constant_values=-1), op.value)
