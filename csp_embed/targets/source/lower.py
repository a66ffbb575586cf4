"""An embedding as loops around a machine's templates.

Takes: Embedding of a contraction, Isa with templates.  Leaves: a `SourceProgram`. Packed operands
hold padding, so that loops have no conditions; of steps that meet nothing else most are left out
(live.py).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.targets.source import correct, output, tiles
from csp_embed.targets.source.body import Machine, Tiles
from csp_embed.targets.source.live import Live, live
from csp_embed.targets.source.names import variable
from csp_embed.targets.source.nest import Buffer, Node
from csp_embed.targets.source.places import Place, place
from csp_embed.targets.source.streams import Results, Streams, copy_name, results_of, streams_of


@dataclass(frozen=True)
class SourceProgram:
    """What C is written from, and what the interpreter runs.

    places: operand -> its packed buffer ("dst" where the result is unpacked). prepare: nests that
    constants alone need; run: the others, in order. fixed: buffers whose content never changes.
    streams, results: how operands of every run are packed, and the result unpacked, where whole
    runs can be moved. cut: steps that are left out.
    """

    operator: Operator
    embedding: Embedding
    tiling: tiles.Tiling
    places: Mapping[str, Place]
    buffers: tuple[Buffer, ...]
    prepare: tuple[Node, ...]
    run: tuple[Node, ...]
    fixed: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    main: tuple[Node, ...] = ()
    streams: Mapping[str, Streams] = field(default_factory=dict)
    results: Results | None = None
    cut: Live | None = None


def lower(embedding: Embedding, isa: Isa, tiling: tiles.Tiling | None = None) -> SourceProgram:
    """The nests of an embedding. tiling: the best by the spec's rates where none is given."""
    program, op = isa.program, embedding.operator
    assert program is not None
    tiling = tiles.choose(embedding, isa) if tiling is None else tiling
    # Names of counters may be no names of C.
    names = {c.name: variable(c.name, n) for n, c in enumerate(embedding.counters)}
    places = places_of(embedding, isa, tiling)
    # Directly: results lie side by side as the tensor has them.
    direct = output.direct(places["dst"], embedding)
    buffers = [
        Buffer(p.buffer, p.dtype, p.elements, _role(op, p.layout.tensor))
        for r, p in places.items() if r != "dst" or direct is None
    ]  # fmt: skip
    # Streams move whole runs; operands that have none are packed value by value.
    streams = {
        r: found for r, p in places.items()
        if r != "dst" and not op.tensors[p.layout.tensor].constant
        and (found := streams_of(p)) is not None
    }  # fmt: skip
    buffers += [
        Buffer(copy_name(places[r].buffer), "int8", s.source.elements, "work")
        for r, s in streams.items() if s.source.copied
    ]  # fmt: skip
    cut = live(embedding, tiling)
    # At most one factor is unsigned (rules.py).
    unsigned = [r for r in ("lhs", "rhs") if places[r].offset]
    prepare: tuple[Node, ...] = ()
    run: tuple[Node, ...] = ()
    fixed: dict[str, tuple[int, int]] = {}
    start: correct.Correction | None = None
    if unsigned:
        correction = correct.correction(embedding, isa, places, unsigned[0], names, cut)
        # A constant factor's correction is a constant, and computed once.
        role = _role(op, places[correction.signed].layout.tensor)
        buffers.append(Buffer(correct.BUFFER, "int32", correction.elements, role))
        prepare = correction.nest if role == "packed" else ()
        run = () if role == "packed" else correction.nest
        fixed[correct.UNIT] = (places[unsigned[0]].offset, places[unsigned[0]].lane_count)
        start = correction
    results = None
    if direct is None:
        direct = output.packed(places["dst"])
        results = results_of(places["dst"], np.dtype(op.out_dtype).itemsize)
    main = Tiles(
        Machine(program, isa), embedding, tiling, places, names, start, direct, cut
    ).nest()  # fmt: skip
    return SourceProgram(
        op, embedding, tiling, places, tuple(buffers), prepare, (*run, *main), fixed, main,
        streams, results, cut,
    )  # fmt: skip


def places_of(embedding: Embedding, isa: Isa, tiling: tiles.Tiling) -> dict[str, Place]:
    """Where each operand lies."""
    op = embedding.operator
    contract, _, _ = tiles.templates(isa)
    memory = {r: isa.memory(contract.slot(r).memory) for r in ("dst", "lhs", "rhs")}
    columns = () if tiling.columns is None else (tiling.columns[0].name,)
    # Constants are packed in panels, in the order in which tiles read them.
    panel = (*(c.name for c in tiling.outer), *columns)
    places = {}
    for role, layout in embedding.layouts.items():
        at, constant = memory.get(role, memory["dst"]), op.tensors[layout.tensor].constant
        places[role] = place(
            embedding, role, f"{role}_", op.out_dtype if role == "dst" else at.dtype, at.lanes,
            isa.dims, outer=panel if constant else (), run_time=not constant,
            # int8 tensors lie in unsigned lanes as value + 128.
            offset=128 if at.dtype == "uint8" else 0,
        )  # fmt: skip
    return places


def _role(op: Operator, tensor: str) -> str:
    return "packed" if op.tensors[tensor].constant else "work"
