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
    slots: most slots that a ring may have; uops: longest micro-op list. Fewer slots and shorter
    lists mean fewer micro-ops to load, more loads and more instructions. tail: vectors an epilogue
    piece of the last tile holds.
    up, down: halvings at the beginning and end of the outermost loop that has several parts.
    """

    tile: tuple[int, ...]
    order: tuple[int, ...]
    reduce_order: tuple[int, ...]
    lhs_order: tuple[int, ...]
    rhs_order: tuple[int, ...]
    dst_order: tuple[int, ...]
    snake: bool = True
    slots: int = 16
    uops: int = 512
    tail: int = 64
    up: int = 0
    down: int = 0


def ranges(extent: int, tile: int, up: int = 0, down: int = 0) -> list[tuple[int, int]]:
    """[0, tile), [tile, 2 tile), …; what is left over stands before the last.

    up, down: that many halvings lead from a short first part to a whole one, and to a short last
    part: the first loads and the last store then take less time.
    """
    first = [max(1, tile >> i) for i in range(up, 0, -1)]
    last = [max(1, tile >> i) for i in range(1, down + 1)]
    while first and sum(first) + sum(last) + tile > extent:
        first.pop()
    while last and sum(first) + sum(last) + tile > extent:
        last.pop(0)
    middle = extent - sum(first) - sum(last)
    lengths = [*first, *[tile] * (middle // tile)]
    lengths += [middle % tile] if middle % tile else []
    lengths += last
    out, at = [], 0
    for n in lengths:
        out.append((at, at + n))
        at += n
    return out
