"""The decisions of a schedule, before anything is built."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Config:
    """tile: extent per counter (outputs and reductions). order: output counters, outermost tile
    loop first.
    reduce_order: reduction counters, outermost first. lhs_order, rhs_order, dst_order: grid
    dimensions, outermost first, in DRAM and in the memory.
    snake: walk the reduction chunks backwards in every second tile, so that the last one is met
    again.
    slots: most slots that a ring may have. tail: vectors an epilogue piece of the last tile holds.
    """

    tile: tuple[int, ...]
    order: tuple[int, ...]
    reduce_order: tuple[int, ...]
    lhs_order: tuple[int, ...]
    rhs_order: tuple[int, ...]
    dst_order: tuple[int, ...]
    snake: bool = True
    slots: int = 8
    tail: int = 64
    ramp: int = 1


def ranges(extent: int, tile: int) -> list[tuple[int, int]]:
    """[0, tile), [tile, 2 tile), …; the last may be shorter."""
    return [(at, min(at + tile, extent)) for at in range(0, extent, tile)]
