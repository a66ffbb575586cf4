"""What DRAM holds before a segment runs, and what its tensors are afterwards.

Takes: a Segment and the values of the tensors that the host writes.  Leaves: a Program, and the
values that the simulated machine stores.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed import __version__
from csp_embed.compiler.whole.schedules import Layer, private
from csp_embed.compiler.whole.segment import Segment
from csp_embed.compiler.whole.statement import statement
from csp_embed.embed.algebra.packing import pack
from csp_embed.ir.stream import Program
from csp_embed.machine.program_file import FORMAT, isa_meta
from csp_embed.network.lower.signed import signed
from csp_embed.network.quantised import graph as g
from csp_embed.sim.functional.run import watch
from csp_embed.targets.stream.image import region_bytes
from csp_embed.targets.stream.places import offsets

Array = NDArray[Any]
Ranges = tuple[tuple[int, NDArray[np.uint8]], ...]
SOURCE = "the reference interpreter of the quantised network on this file's inputs"


def before(segment: Segment, values: Mapping[str, Array]) -> Ranges:
    """Micro-ops, constants, activations; values: of the tensors that the host writes."""
    low = min(segment.start.values())
    # Activations share one arena: their lives overlap in time.
    arena = np.zeros(segment.memory.height, np.uint8)
    for layer in segment.layers:
        # Borders first: elements are written over them.
        if not layer.site.border or not layer.choice.fits:
            continue
        for root in layer.site.roots:
            at = segment.start[root] - low
            arena[at : at + segment.sizes[root]] = np.int8(layer.site.made.fill).view(np.uint8)
    # A private x has its own place, packed as the layer likes.
    for layer in segment.layers:
        if not layer.choice.fits:
            at = segment.start[private(layer)] - low
            data = _packed(segment, layer, values)
            arena[at : at + len(data)] = data
            continue
        # Tensors that the host writes go to their homes, byte by byte.
        for root, home in zip(layer.site.roots, layer.choice.inputs, strict=True):
            if root in values and home is not None:
                at = segment.start[root] - low
                arena[at + home.place] = values[root].reshape(-1).view(np.uint8)
    parts = [(a, d) for a, d in segment.held.items() if len(d)]
    parts += [(low, arena)] if len(arena) else []
    parts += [(segment.lowered.uop_address, segment.lowered.uop_words.view(np.uint8))]
    return tuple(sorted(parts, key=lambda r: r[0]))


def _packed(segment: Segment, layer: Layer, values: Mapping[str, Array]) -> NDArray[np.uint8]:
    """x of one layer as its own region has it."""
    site, choice = layer.site, layer.choice
    flat = [values[root].reshape(-1) for root in site.roots]
    x = np.full(site.ids.shape, site.made.fill, np.int8)
    # The tensor's number stands above the element's (FAR).
    owner, number = np.divmod(site.ids, np.int64(1) << 32)
    for n, root in enumerate(flat):
        here = (site.ids >= 0) & (owner == n)
        x[here] = root[number[here]]
    layout = choice.embedding.layouts[choice.role]
    packed = pack(layout, choice.embedding, segment.isa, x)
    return region_bytes(layer.schedule.regions[layer.x], packed)


def run(
    segment: Segment, graph: g.Graph, values: Mapping[str, Array],
    tell: Callable[[str, int, int], None] | None = None,
) -> dict[str, Array]:  # fmt: skip
    """The tensor of each layer, read from DRAM when the layer's last store has ended.

    Raises: SimError where the program cannot run.
    """
    program = Program({}, segment.words, before(segment, values), (), {})
    # A layer's tensor is read when its last store has ended: later layers may reuse the bytes.
    stops = [
        (end, [(segment.start[n], segment.sizes[n])])
        for end, layer in zip(segment.ends, segment.layers, strict=True)
        for n in [layer.site.root]
    ]
    out: dict[str, Array] = {}
    for layer, (data,) in zip(segment.layers, watch(segment.isa, program, stops, progress=tell),
                              strict=True):  # fmt: skip
        t = graph.tensors[layer.site.op.output]
        stored = data.view(np.int8)[layer.choice.output.place[layer.site.own.reshape(-1)]]
        out[t.name] = stored.reshape(t.shape)
    return out


def program(
    segment: Segment, graph: g.Graph, values: Mapping[str, Array], expected: Mapping[str, Array],
    wanted: frozenset[str],
) -> Program:  # fmt: skip
    """A program file's content. expected: what the reference computes; `after` has the elements of
    every tensor whose bytes no later layer takes."""
    # A tensor stored in pieces is whole after its last layer.
    last: dict[str, tuple[int, Layer]] = {}
    for n, layer in enumerate(segment.layers):
        last[layer.site.root] = (n, layer)
    after: list[tuple[int, NDArray[np.uint8]]] = []
    kept: list[str] = []
    for name, (_, layer) in last.items():
        # Bytes that later layers take cannot be expected at the end.
        if _survives(segment, name, [*last]):
            kept.append(name)
            place = segment.start[name] + layer.choice.output.place.astype(np.int64)
            after += _runs(place, expected[name].reshape(-1).view(np.uint8))
    tensors: dict[str, Array] = {}
    where: dict[str, dict[str, Any]] = {}
    # Names of tensors may be no names of arrays.
    for n, name in enumerate([*(v for v in values), *kept]):
        key = f"t{n}"
        tensors[key] = values[name] if name in values else expected[name]
        where[key] = {"name": name} | _where(segment, graph, name)
    count = sum(len(d) for _, d in after)
    stated, arrays = statement(segment, signed(graph))
    meta = {
        "format": FORMAT,
        **isa_meta(segment.isa),
        "version": __version__,
        "network": {
            "name": graph.name, "profile": graph.profile,
            "outputs": sorted(wanted),
            "layers": [
                {"name": layer.site.op.name, "kind": layer.site.op.kind, "end": end,
                 "embedding": layer.choice.embedding.formula(),
                 "exact": layer.site.made.proof}
                for layer, end in zip(segment.layers, segment.ends, strict=True)
            ],
            "statement": stated,
        },
        "tensors": where,
        "after": {"from": SOURCE, "bytes": count, "bytes_left_out": 0},
    }  # fmt: skip
    return Program(meta, segment.words, before(segment, values), tuple(sorted(after, key=_first)),
                   tensors | arrays)  # fmt: skip


def _first(run: tuple[int, Any]) -> int:
    return run[0]


def _survives(segment: Segment, name: str, stored: list[str]) -> bool:
    """Whether no tensor that is stored later takes its bytes."""
    # Rectangles of bytes: a later one that overlaps has overwritten it.
    low, high = segment.start[name], segment.start[name] + segment.sizes[name]
    return not any(
        segment.start[other] < high and low < segment.start[other] + segment.sizes[other]
        for other in stored[stored.index(name) + 1 :]
    )


def _runs(place: NDArray[np.int64], data: NDArray[np.uint8]) -> list[tuple[int, Any]]:
    """Consecutive bytes together."""
    order = np.argsort(place, kind="stable")
    place, data = place[order], data[order]
    # A cut wherever the next byte is not the neighbour.
    cuts = np.flatnonzero(np.diff(place) != 1) + 1
    return [
        (int(part[0]), values)
        for part, values in zip(np.split(place, cuts), np.split(data, cuts), strict=True)
    ]


def _where(segment: Segment, graph: g.Graph, name: str) -> dict[str, Any]:
    """Address and, per axis, what each index adds; nothing where the host packs it for a layer."""
    homes = {
        r: h for layer in segment.layers
        for r, h in [*zip(layer.site.roots, layer.choice.inputs, strict=True),
                     (layer.site.root, layer.choice.output)] if h is not None
    }  # fmt: skip
    shape = list(graph.tensors[name].shape)
    # No home: the host packs it for each layer that reads it.
    if name not in homes:
        return {"shape": shape, "packed_for": [la.site.op.name for la in segment.layers
                                               if name in la.site.roots]}  # fmt: skip
    place = homes[name].place.astype(np.int64).reshape(shape)
    found = offsets(place + segment.start[name])
    if found is None:
        return {"shape": shape}
    return {
        "addr": found[0], "dtype": "int8", "shape": shape,
        "digits": [{"axis": t, "offset_bytes": v} for t, v in enumerate(found[1])],
    }  # fmt: skip
