"""Sets of DRAM addresses that few transfers move: rows of consecutive elements at one stride."""

from __future__ import annotations

from collections.abc import Set
from functools import cache


def covers(addresses: Set[int], rectangles: int) -> bool:
    """Whether at most `rectangles` rectangles {base + y*stride + x}, none overlapping another, are
    exactly `addresses`."""
    return _covers(frozenset(addresses), rectangles)


@cache
def _covers(addresses: frozenset[int], rectangles: int) -> bool:
    if not addresses:
        return True
    if rectangles == 0:
        return False
    first = min(addresses)
    return any(
        _covers(addresses - rectangle, rectangles - 1)
        for rectangle in sorted(_from(first, addresses), key=len, reverse=True)
    )


def _from(first: int, addresses: frozenset[int]) -> set[frozenset[int]]:
    """All rectangles within `addresses` whose least address is `first`."""
    out: set[frozenset[int]] = set()
    width = 1
    while first + width - 1 in addresses:
        row = range(first, first + width)
        out.add(frozenset(row))
        for stride in range(width, max(addresses) - first + 1):
            rows = set(row)
            n = 1
            while all(x + n * stride in addresses for x in row):
                rows |= {x + n * stride for x in row}
                out.add(frozenset(rows))
                n += 1
        width += 1
    return out
