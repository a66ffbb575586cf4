"""Grid dimensions of a packed tensor: which memory elements there are and who meets them.

Takes: rows, counters, mode.  Leaves: one `Axis` per grid dimension, outermost first.

A row whose counters move no other row gets one grid dimension, stepping by the greatest common
divisor of their coefficients (2*p + r: all image rows), unless one dimension per counter holds fewer
elements (groups of 24 channels in blocks of 16); other rows get one per counter. Clipped to elements with data in some lane: padding is
never stored.
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


def grid_axes(
    rows: Sequence[Row], counters: Sequence[Counter], extents: Mapping[str, int], strict: bool
) -> list[Axis]:
    """Grid dimensions in row order; `extents`: of digits. strict: the whole tensor, nothing twice."""
    trips = {c.name: c.extent for c in counters}
    owner: dict[str, int] = {}
    shared: set[str] = set()
    for n, row in enumerate(rows):
        for c in row.counters:
            if owner.setdefault(c, n) != n:
                shared.add(c)
    axes: list[Axis] = []
    done: set[str] = set()
    for n, row in enumerate(rows):
        if not shared & set(row.counters):
            if not row.counters and not strict:
                continue
            axis = _lattice(n, row, trips, extents, strict)
            if strict or axis.size <= math.prod(trips[c] for c in row.counters):
                axes.append(axis)
                continue
        elif strict:
            raise Reject("layout", "a counter moves two tensor indices")
        for c in row.counters:
            if c not in done:
                coef = {m: r.counters[c] for m, r in enumerate(rows) if c in r.counters}
                axes.append(Axis(c, trips[c], 0, {c: 1}, coef, {}))
                done.add(c)
    return axes


def _lattice(
    n: int, row: Row, trips: Mapping[str, int], extents: Mapping[str, int], strict: bool
) -> Axis:
    low, high = row.reach(extents)
    pitch = math.gcd(*row.counters.values()) if row.counters else 0
    if strict:
        pitch = _strict_pitch(row, extents, pitch)
    first = -((row.const + high) // pitch)  # least k with const + pitch*k + high >= 0
    last = (row.size - 1 - row.const - low) // pitch
    if not strict:
        reach = [c * (trips[name] - 1) // pitch for name, c in row.counters.items()]
        first = max(first, sum(min(r, 0) for r in reach))
        last = min(last, sum(max(r, 0) for r in reach))
    size = max(last - first + 1, 1)  # an operand that is all padding keeps one neutral element
    step = {name: c // pitch for name, c in row.counters.items()}
    return Axis(
        "+".join(row.counters) or f"_{n}", size, -first, step, {n: pitch}, {n: pitch * first}
    )


def _strict_pitch(row: Row, extents: Mapping[str, int], pitch: int) -> int:
    """The pitch at which digits and grid meet every tensor index exactly once."""
    if row.virtual:
        raise Reject("layout", "fused axes store the elements of a window several times")
    values = sums((c, extents[d]) for d, c in row.digits.items())
    width = len(values)
    if width == 1 or pitch == 0:
        pitch = width
    if pitch != width or {v % pitch for v in values} != set(range(pitch)):
        raise Reject("layout", "lanes and steps do not meet every element exactly once")
    return pitch
