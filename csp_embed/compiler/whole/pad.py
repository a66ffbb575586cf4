"""Whether lanes of an operand that hold nothing may hold anything.

Where the host packs x, such lanes are 0, and the other factor may be whatever it likes there. A
tensor that another layer stored has its leftovers in them: then the other factor must be 0.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.algebra.packing import pack, unpack
from csp_embed.ir.embedding import Embedding, Layout
from csp_embed.machine.spec import Isa

MOST = 4_000_000  # instruction points that are looked at


def harmless(embedding: Embedding, isa: Isa, role: str) -> bool:
    """No step multiplies an empty lane of operand `role` with a factor that may be other than 0."""
    layouts = embedding.layouts
    other = "rhs" if role == "lhs" else "lhs"
    dst, lhs, rhs = isa.instruction(embedding.instruction).operands
    # The summed lanes: what is multiplied there is added up into every result.
    summed = [d for d in lhs.dims if d in rhs.dims and d not in dst.dims]
    empty = _by_sum(_empty(embedding, isa, layouts[role]), layouts[role], isa, summed, True)
    # Nothing is empty: every lane holds an element.
    if not empty.any():
        return True
    tensor = embedding.operator.tensors[layouts[other].tensor]
    # Ones for every element: what is not 0 may have any value.
    ones = pack(layouts[other], embedding, isa, np.ones(tensor.shape, np.int8)) != 0
    full = _by_sum(ones, layouts[other], isa, summed, False)
    counters = [
        c for c in embedding.counters
        if any(layouts[role].step.get(c.name, ())) or any(layouts[other].step.get(c.name, ()))
    ]  # fmt: skip
    # Too many points to look at: taken as harmful, which only costs a choice.
    if math.prod(c.extent for c in counters) > MOST:
        return False
    extents = [c.extent for c in counters]
    points = np.indices(extents).reshape(len(extents), math.prod(extents))
    names = [c.name for c in counters]
    inside = np.ones(points.shape[1], bool)
    found: list[NDArray[np.bool_]] = []
    for layout, bits in ((layouts[role], empty), (layouts[other], full)):
        at: list[NDArray[np.int64]] = []
        for d, size in enumerate(layout.grid):
            step = np.array([layout.step.get(n, (0,) * len(layout.grid))[d] for n in names], int)
            index = layout.origin[d] + step @ points
            # Beyond the grid zeros are loaded, whatever lies in DRAM.
            inside &= (index >= 0) & (index < size)
            at.append(np.clip(index, 0, size - 1))
        found.append(bits[tuple(at)] if at else np.broadcast_to(bits, (len(inside), bits.size)))
    return not (found[0] & found[1] & inside[:, None]).any()


def _empty(embedding: Embedding, isa: Isa, layout: Layout) -> NDArray[np.bool_]:
    """[*grid, *lanes]: lanes without an element."""
    shape = (*layout.grid, *isa.lane_shape(layout.memory))
    # From 1: 0 stands for no place.
    place = unpack(layout, embedding, isa, np.arange(1, math.prod(shape) + 1).reshape(shape)) - 1
    held = np.zeros(math.prod(shape), bool)
    held[place[place >= 0]] = True
    return ~held.reshape(shape)


def _by_sum(
    lanes: NDArray[np.bool_], layout: Layout, isa: Isa, summed: list[str], leave: bool
) -> NDArray[np.bool_]:
    """[*grid, lanes of the sum]: whether any lane of the other dimensions is so. leave: but for
    those that are so everywhere: they make results that are nobody's."""
    rank = len(layout.grid)
    dims = isa.memory(layout.memory).lanes
    kept = [rank + n for n, d in enumerate(dims) if d in summed]
    rest = [rank + n for n, d in enumerate(dims) if d not in summed]
    moved = lanes.transpose((*range(rank), *rest, *kept))
    size = math.prod(lanes.shape[k] for k in kept)
    moved = moved.reshape((*layout.grid, -1, size))
    if not leave:
        return np.asarray(moved.any(axis=rank))
    # Wholly idle rows make results that nobody reads.
    idle = np.asarray(moved.all(axis=(*range(rank), rank + 1)))
    return np.asarray((moved & ~idle[:, None]).any(axis=rank))
