"""Sets of DRAM addresses that few transfers move: rows of consecutive elements at one stride."""

from __future__ import annotations

from collections.abc import Set
from functools import cache


def covers(addresses: Set[int], rectangles: int) -> bool:
    """Whether at most `rectangles` rectangles {base + y*stride + x}, none overlapping another, are
    exactly `addresses`."""
    return _covers(frozenset(addresses), rectangles)


# Cached: sets of addresses come up again in every tile.
@cache
def _covers(addresses: frozenset[int], rectangles: int) -> bool:
    if not addresses:
        return True
    if rectangles == 0:
        return False
    # Some rectangle must hold the least address, as its corner.
    first = min(addresses)
    return any(
        _covers(addresses - rectangle, rectangles - 1)
        # Large ones first: then few are needed soon.
        for rectangle in sorted(_from(first, addresses), key=len, reverse=True)
    )


def _from(first: int, addresses: frozenset[int]) -> set[frozenset[int]]:
    """All rectangles within `addresses` whose least address is `first`."""
    out: set[frozenset[int]] = set()
    width = 1
    while first + width - 1 in addresses:
        row = range(first, first + width)
        out.add(frozenset(row))
        # Rows may not overlap, so the stride is at least the width.
        for stride in range(width, max(addresses) - first + 1):
            rows = set(row)
            n = 1
            while all(x + n * stride in addresses for x in row):
                rows |= {x + n * stride for x in row}
                out.add(frozenset(rows))
                n += 1
        width += 1
    return out
