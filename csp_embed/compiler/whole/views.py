"""Which elements of which stored tensor each tensor of a graph consists of.

Takes: a graph.  Leaves: per tensor an array of element numbers: reshapes, transposes, slices, pads
and other moves are other views of a tensor that some layer stores (its *root*). -1 is an element
that no layer stores: a border that a pad adds. The parts of a joined concatenation are stored as
pieces of it, so that it moves nothing, either.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.network.quantised import graph as g

Ids = NDArray[np.int64]
MOVES = (g.Reshape, g.Transpose, g.Slice, g.Pad, g.Move, g.Spread)


@dataclass(frozen=True, eq=False)
class View:
    """root: the tensor that is stored. ids: which of its elements, -1: the border's `value`."""

    root: str
    ids: Ids
    value: int | None = None

    def plain(self, elements: int) -> bool:
        """Whether it is all elements of the root in their order."""
        return np.array_equal(self.ids.reshape(-1), np.arange(elements))


def views(
    graph: g.Graph, joined: Collection[str] = (), made: Collection[str] = ()
) -> Mapping[str, View]:
    """The view of every activation. joined: names of concatenations whose parts are stored as
    pieces. made: names of operators that store what they move."""
    pieces: dict[str, View] = {}
    # From the back: a joined concatenation may itself be a piece.
    for op in reversed(graph.operators):
        if isinstance(op, g.Concat) and op.name in joined:
            whole = pieces.get(op.output) or _whole(graph, op.output)
            ends = np.cumsum([graph.tensors[n].shape[op.axis] for n in op.inputs])[:-1]
            for name, ids in zip(op.inputs, np.split(whole.ids, ends, op.axis), strict=True):
                pieces[name] = View(whole.root, ids)
    out: dict[str, View] = {}
    for name in graph.inputs:
        out[name] = _whole(graph, name)
    for op in graph.operators:
        moves = isinstance(op, MOVES) and op.name not in made
        found = _moved(graph, op, out[op.inputs[0]]) if moves else None
        # A view, else a piece of what it is joined to, else a tensor of its own.
        out[op.output] = found or pieces.get(op.output) or _whole(graph, op.output)
    return out


def is_view(
    graph: g.Graph, op: g.Operator, of: Mapping[str, View], joined: Collection[str] = (),
    made: Collection[str] = (),
) -> bool:  # fmt: skip
    """Whether an operator needs no step at all."""
    if op.name in joined:
        return True
    # Stored under its own name: then it is no view.
    return isinstance(op, MOVES) and op.name not in made and of[op.output].root != op.output


def joinable(graph: g.Graph, stored: Collection[str]) -> list[str]:
    """Concatenations each of whose parts is a tensor that a layer of the machine stores, and a part
    of nothing else. stored: names of those tensors."""
    taken: set[str] = set()
    out: list[str] = []
    makes = {o.output for o in graph.operators if isinstance(o, g.Concat)}
    # From the back, so that a part goes to the last concatenation that reads it.
    for op in reversed(graph.operators):
        if not isinstance(op, g.Concat) or len(set(op.inputs)) < len(op.inputs):
            continue
        if all((n in stored or n in makes) and n not in taken for n in op.inputs):
            out.append(op.name)
            taken.update(op.inputs)
    # A concatenation that is a part has to be joined itself.
    while True:
        inner = {o.output: o.name for o in graph.operators if isinstance(o, g.Concat)}
        lost = [
            o.name for o in graph.operators
            if o.name in out and any(n in inner and inner[n] not in out for n in o.inputs)
        ]  # fmt: skip
        if not lost:
            return out
        out = [n for n in out if n not in lost]


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
        # The batch stays whole, as in the importers.
        inner = [slice(*r) for r in zip(op.starts, op.stops, op.steps, strict=True)][1:]
        return View(x.root, x.ids[(slice(None), *inner)], x.value)
    if isinstance(op, g.Move):
        places = graph.tensors[op.inputs[1]].data
        assert places is not None
        return View(x.root, x.ids.reshape(-1)[places], x.value)
    # Two borders of different values are no view.
    if x.value not in (None, op.value):
        return None
    if isinstance(op, g.Spread):
        ids = np.full(shape, -1, np.int64)
        ids[:, :: op.stride[0], :: op.stride[1]] = x.ids
        return View(x.root, ids, op.value)
    return View(x.root, np.pad(x.ids, op.pads, constant_values=-1), op.value)
