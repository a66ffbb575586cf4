"""What a network's program file states, so that a judge needs no builder: graph, rounds, places.

Takes: a Segment and the graph that it was built from.  Leaves: the `statement` of `meta.network`
and its arrays (docs/program-file.md). `judge.certify.network` reads it and trusts none of it but
what the host does: where it writes which tensor.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.whole.schedules import Layer, private
from csp_embed.compiler.whole.segment import Segment
from csp_embed.compiler.whole.views import MOVES
from csp_embed.embed.algebra.packing import pack
from csp_embed.ir.operator import Step
from csp_embed.network.lower.pointwise import axis_of_channels
from csp_embed.network.lower.task import values_of
from csp_embed.network.quantised import graph as g
from csp_embed.targets.stream.image import region_bytes
from csp_embed.targets.stream.places import offsets

Array = NDArray[Any]


@dataclasses.dataclass
class _Arrays:
    """Constants under their names in the file; equal ones stand there once."""

    held: dict[str, Array] = dataclasses.field(default_factory=dict[str, Array])
    known: dict[tuple[Any, ...], str] = dataclasses.field(
        default_factory=dict[tuple[Any, ...], str]
    )

    def name(self, array: Array) -> str:
        """Where it stands, without its shape."""
        flat = np.ascontiguousarray(array).reshape(-1)
        key = flat.dtype.str, flat.tobytes()
        if key not in self.known:
            self.known[key] = f"constant.{len(self.known)}"
            self.held[self.known[key]] = flat
        return self.known[key]


def statement(segment: Segment, graph: g.Graph) -> tuple[dict[str, Any], dict[str, Array]]:
    """(JSON value, arrays by name). graph: with int8 tensors, as the segment was built from."""
    arrays = _Arrays()
    mine = {layer.site.op.name for layer in segment.layers}
    made = {layer.site.op.output for layer in segment.layers}
    operators = _needed(graph, mine, made)
    names = {n for op in operators for n in (*op.inputs, op.output) if n}
    begins = (0, *segment.ends)
    document = {
        "profile": graph.profile,
        "tensors": {n: _tensor(graph, n, arrays) for n in sorted(names)},
        "operators": [_operator(op) for op in operators],
        "layers": [
            _layer(graph, layer, begin, end, arrays)
            for layer, begin, end in zip(segment.layers, begins, segment.ends, strict=False)
        ],
        "places": _places(segment, graph, made, arrays),
        "packed": [
            _packed(segment, layer, arrays) for layer in segment.layers if not layer.choice.fits
        ],
    }
    return document, arrays.held


def _needed(graph: g.Graph, mine: Collection[str], stored: Collection[str]) -> list[g.Operator]:
    """Operators of the segment's layers, and what lies between them and moves nothing."""
    maker = {op.output: op for op in graph.operators}
    kept = {op.name for op in graph.operators if op.name in mine}
    todo = [n for op in graph.operators if op.name in mine for n in op.inputs]
    while todo:
        op = maker.get(todo.pop())
        if op is None or op.name in kept or op.output in stored:
            continue
        if isinstance(op, (*MOVES, g.Concat)):
            kept.add(op.name)
            todo += op.inputs
    return [op for op in graph.operators if op.name in kept]


def _tensor(graph: g.Graph, name: str, arrays: _Arrays) -> dict[str, Any]:
    t = graph.tensors[name]
    out: dict[str, Any] = {"shape": list(t.shape), "dtype": t.dtype, "zero": list(t.zero_points)}
    if t.data is not None:
        return out | {"data": arrays.name(t.data)}
    return out | {"range": list(values_of(graph, name))}


def _operator(op: g.Operator) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for part in dataclasses.fields(op):
        value = getattr(op, part.name)
        if dataclasses.is_dataclass(value):
            value = {"rule": type(value).__name__} | dataclasses.asdict(value)  # type: ignore[call-overload]
        values[part.name] = value
    return {"kind": op.kind} | values


def _layer(
    graph: g.Graph, layer: Layer, begin: int, end: int, arrays: _Arrays
) -> dict[str, Any]:  # fmt: skip
    made, shape = layer.site.made, graph.tensors[layer.site.op.output].shape
    biases = [c["b"] for c in made.constants]
    shifts, limits, ceilings = ([c.get(n) for c in made.constants] for n in "sde")
    return {
        "name": layer.site.op.name, "begin": begin, "end": end, "copies": made.copies,
        "kept": [list(pair) for pair in made.kept],
        "fill": made.fill, "axis": axis_of_channels(graph, shape),
        "between": [_steps(steps) for steps in made.rounds],
        "after": _steps(made.op.epilogue),
        "weights": [arrays.name(w) for w in made.weights],
        "bias": [arrays.name(b) for b in biases],
        "shift": [None if s is None else arrays.name(s) for s in shifts],
        "limit": [None if s is None else arrays.name(s) for s in limits],
        "ceiling": [None if s is None else arrays.name(s) for s in ceilings],
    }  # fmt: skip


def _steps(steps: Iterable[Step]) -> list[list[Any]]:
    return [[s.op, s.imm if s.access is None else s.access.tensor] for s in steps]


def _places(
    segment: Segment, graph: g.Graph, made: Collection[str], arrays: _Arrays
) -> dict[str, Any]:
    """Where each element of every tensor lies that a layer stores or the host writes."""
    out: dict[str, Any] = {}
    for layer in segment.layers:
        site, choice = layer.site, layer.choice
        place = choice.output.place[site.own].astype(np.int64) + segment.start[site.root]
        out[site.op.output] = _place(place, arrays)
        for root, home in zip(site.roots, choice.inputs, strict=True):
            if home is not None and root in segment.reads and root not in made:
                shape = graph.tensors[root].shape
                place = home.place.astype(np.int64).reshape(shape)
                out[root] = _place(place + segment.start[root], arrays)
    return out


def _place(place: NDArray[np.int64], arrays: _Arrays) -> dict[str, Any]:
    found = offsets(place)
    if found is None:
        return {"table": arrays.name(place)}
    return {"addr": found[0], "offset_bytes": found[1]}


def _packed(segment: Segment, layer: Layer, arrays: _Arrays) -> dict[str, Any]:
    """Which element of which tensor the host writes into each byte, for one layer alone: tensor n's
    elements count from n << 32 on (as `sites.FAR`); -1 where a constant stands."""
    site, choice = layer.site, layer.choice
    layout = choice.embedding.layouts[choice.role]
    # pack fills what no element takes with 0, so elements count from 1 meanwhile.
    numbers = pack(layout, choice.embedding, segment.isa, site.ids + 1, "int64")
    held = region_bytes(layer.schedule.regions[layer.x], numbers).view(np.int64) - 1
    if len(site.roots) == 1:
        held = held.astype(np.int32)
    return {
        "addr": segment.start[private(layer)], "tensors": list(site.roots),
        "table": arrays.name(held),
    }  # fmt: skip
