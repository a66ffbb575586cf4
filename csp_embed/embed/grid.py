"""Grid dimensions of a packed tensor: which memory elements there are and who meets them.

Takes: rows, counters, mode.  Leaves: one `Axis` per grid dimension, outermost first.

A row whose counters move no other row gets one grid dimension, stepping by the greatest common
divisor of their coefficients (2*p + r: all image rows), unless one dimension per counter holds
fewer elements (groups of 24 channels in blocks of 16); other rows get one per counter. Factors are
clipped to elements with data in some lane: padding is never stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from csp_embed.embed.rows import Reject, Row, sums
from csp_embed.ir.embedding import Counter


@dataclass(frozen=True)
class Axis:
    """One grid dimension: element count, index met at counters 0, what each counter adds to the
    index, what an index adds to each row (coef) and what index 0 adds (shift), by row number."""

    name: str
    size: int
    origin: int
    step: Mapping[str, int]
    coef: Mapping[int, int]
    shift: Mapping[int, int]


CLIPPED, REACHED, STRICT = "clipped", "reached", "strict"


def grid_mode(role: str, constant: bool, layout_mode: str) -> str:
    """How an operand's grid is cut: factors are CLIPPED to elements with data, unless the layout
    keeps run-time tensors STRICT; results and what is added to them keep all REACHED elements."""
    if role not in ("lhs", "rhs"):
        return REACHED
    return STRICT if layout_mode == STRICT and not constant else CLIPPED


def grid_axes(
    rows: Sequence[Row], counters: Sequence[Counter], extents: Mapping[str, int], mode: str
) -> list[Axis]:
    """Grid dimensions in row order. extents: of digits; mode: see `grid_mode`.

    Raises: Reject, where a strict grid cannot hold every element exactly once.
    """
    trips = {c.name: c.extent for c in counters}
    if mode == STRICT:
        return [_whole(n, row, extents) for n, row in enumerate(rows)]
    owner: dict[str, int] = {}
    shared: set[str] = set()
    for n, row in enumerate(rows):
        for c in row.counters:
            if owner.setdefault(c, n) != n:
                shared.add(c)
    axes: list[Axis] = []
    done: set[str] = set()
    for n, row in enumerate(rows):
        if row.counters and not shared & set(row.counters):
            axis = _lattice(n, row, trips, extents, mode)
            if axis.size <= math.prod(trips[c] for c in row.counters):
                axes.append(axis)
                continue
        for c in row.counters:
            if c not in done:
                coef = {m: r.counters[c] for m, r in enumerate(rows) if c in r.counters}
                axes.append(Axis(c, trips[c], 0, {c: 1}, coef, {}))
                done.add(c)
    return axes


def _lattice(
    n: int, row: Row, trips: Mapping[str, int], extents: Mapping[str, int], mode: str
) -> Axis:
    """Multiples of the counters' common divisor that they reach."""
    pitch = math.gcd(*row.counters.values())
    reach = [c * (trips[name] - 1) // pitch for name, c in row.counters.items()]
    first, last = sum(min(r, 0) for r in reach), sum(max(r, 0) for r in reach)
    if mode == CLIPPED:
        low, high = _with_data(row, extents, pitch)
        first, last = max(first, low), min(last, high)
    return _axis(n, row, pitch, first, last)


def _with_data(row: Row, extents: Mapping[str, int], pitch: int) -> tuple[int, int]:
    """Least and greatest k at which const + pitch*k + some digits is a tensor index."""
    low, high = row.reach(extents)
    return -((row.const + high) // pitch), (row.size - 1 - row.const - low) // pitch


def _axis(n: int, row: Row, pitch: int, first: int, last: int) -> Axis:
    size = max(last - first + 1, 1)  # an operand that is all padding keeps one neutral element
    step = {name: c // pitch for name, c in row.counters.items()}
    name = "+".join(row.counters) or f"_{n}"
    return Axis(name, size, -first, step, {n: pitch}, {n: pitch * first})


def _whole(n: int, row: Row, extents: Mapping[str, int]) -> Axis:
    """The grid that holds every index of the tensor exactly once."""
    if row.virtual:
        raise Reject("layout", "fused axes store the elements of a window several times")
    values = sums((c, extents[d]) for d, c in row.digits.items())
    pitch = len(values)
    steps = math.gcd(*row.counters.values()) if row.counters else 0
    if {v % pitch for v in values} != set(range(pitch)) or steps % pitch:
        raise Reject("layout", "lanes and steps do not meet every element exactly once")
    return _axis(n, row, pitch, *_with_data(row, extents, pitch))
