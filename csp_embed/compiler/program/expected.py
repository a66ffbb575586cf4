"""What a program must leave in DRAM, from the reference result alone.

Takes: the result that NumPy computes from the formula, and the layout that the kernel claims for
it.  Leaves: the `after` ranges of a program file. No instruction is looked at and no simulator
runs, so that comparing a simulated stream with these bytes compares two independent answers.

Pad lanes are left out: what the machine stores there follows from what it happened to multiply in
lanes that stand for no element of the result, and the formula says nothing about it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.algebra.packing import pack
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.schedule import Schedule
from csp_embed.machine.spec import Isa
from csp_embed.targets.stream.image import place_region

Ranges = tuple[tuple[int, NDArray[np.uint8]], ...]

SOURCE = "NumPy reference of the formula on this file's tensors"


def expected_ranges(
    schedule: Schedule, embedding: Embedding, isa: Isa, address: int, y: NDArray[Any]
) -> Ranges:
    """(address, bytes) of every run of bytes that belong to elements of the result.

    Shapes: y as the operator's result. address: where the region of the result begins.
    """
    region = next(r for r in schedule.regions if r.operand == "dst")
    layout = embedding.layouts["dst"]
    # The layout is of the accumulator; what is stored of it may be narrower (VTA's OUT).
    lane = np.dtype(isa.memory(region.memory).dram_dtype)
    data = place_region(region, pack(layout, embedding, isa, y).astype(lane))
    # The same walk over ones tells which lanes hold an element: all others stay 0.
    held = place_region(region, pack(layout, embedding, isa, np.ones_like(y)).astype(lane))
    # Where accumulators themselves are stored, the formula fixes their low bytes only: these stand
    # first, lanes are little-endian.
    fixed = np.arange(lane.itemsize) < y.dtype.itemsize
    known = ((held.view(lane) != 0)[:, None] & fixed).ravel()
    edges = np.flatnonzero(np.diff(known, prepend=False, append=False))
    return tuple(
        (address + int(a), data[a:b]) for a, b in zip(edges[::2], edges[1::2], strict=True)
    )
