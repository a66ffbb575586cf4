"""Packed buffers of constants that are known while a kernel is written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.machine.spec import Isa
from csp_embed.targets.source.correct import BUFFER
from csp_embed.targets.source.lower import SourceProgram
from csp_embed.targets.source.places import Place

Array = NDArray[Any]


def constant_data(
    program: SourceProgram, isa: Isa, tensors: Mapping[str, Array]
) -> dict[str, Array]:
    """The packed buffers of known constants, by NumPy."""
    op = program.operator
    data = {
        p.buffer: p.pack(np.asarray(tensors[p.layout.tensor]))
        for r, p in program.places.items()
        if r != "dst" and op.tensors[p.layout.tensor].constant
    }
    if program.prepare:
        data[BUFFER] = _corrected(program, isa, data)
    return data


def _corrected(program: SourceProgram, isa: Isa, data: Mapping[str, Array]) -> Array:
    """Where sums begin, for a signed factor that is constant; see correct.py."""
    # One factor is unsigned, or there would be nothing to correct.
    unsigned = next(r for r in ("lhs", "rhs") if program.places[r].offset)
    signed = program.places["rhs" if unsigned == "lhs" else "lhs"]
    moves = signed.layout.step
    counters = program.embedding.counters
    # Of the signed factor: what it sums to is what is taken off.
    free = [c for c in counters if not c.reduced and any(moves.get(c.name, ()))]
    order = [*free, *(c for c in counters if c.reduced)]
    terms = dict(signed.at().terms)
    # An address for each step, by broadcasting over the counters.
    at = np.full((1,) * len(order), signed.at().const, np.int64)
    for n, c in enumerate(order):
        values = terms.get(c.name, 0) * np.arange(c.extent)
        at = at + values.reshape((-1,) + (1,) * (len(order) - n - 1))
    element = _summed_lanes(data[signed.buffer].reshape(-1, *signed.lanes), signed, isa)
    sums = element[at // signed.lane_count]
    reduced = tuple(range(len(free), len(order)))
    total = []
    for window in [None] if program.cut is None else program.cut.windows:
        taps = [slice(None)] * len(order)
        # Steps that are left out are not corrected.
        if program.cut is not None and window is not None and program.cut.reduced is not None:
            begin, count = window
            name = program.cut.reduced
            taps[[c.name for c in order].index(name)] = slice(begin, begin + count)
        total.append(-program.places[unsigned].offset * sums[tuple(taps)].sum(axis=reduced))
    return np.stack(total).astype(np.int32).reshape(-1)


def _summed_lanes(elements: Array, place: Place, isa: Isa) -> Array:
    """[n, lanes of the result]: what each element adds to each sum against a factor of ones."""
    contract = next(i for i in isa.instructions if i.kind == "contract")
    dst = next(o.dims for o in contract.operands if o.role == "dst")
    own = next(o.dims for o in contract.operands if o.role == place.layout.operand)
    # Lanes that the sum lacks are added up.
    lost = tuple(n + 1 for n, d in enumerate(own) if d not in dst)
    left = elements.sum(axis=lost, dtype=np.int64)
    kept = [d for d in own if d in dst]
    left = left.transpose((0, *(1 + kept.index(d) for d in dst if d in kept)))
    shape = [isa.dims[d] if d in kept else 1 for d in dst]
    # Lanes that the factor lacks have the same value everywhere.
    wide = np.broadcast_to(left.reshape(-1, *shape), (len(left), *(isa.dims[d] for d in dst)))
    return wide.reshape(len(left), -1)
