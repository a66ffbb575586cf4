"""How many lanes of a packed tensor hold tensor elements, and whether some element stands twice.

Takes: rows, grid axes, digits.  Leaves: `Occupancy`; exact wherever rows are independent, which is
every formula whose digits each move one tensor index.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from csp_embed.embed.algebra.grid import Axis
from csp_embed.embed.algebra.rows import Row, sums
from csp_embed.ir.union import joined

# Points per joint group that are counted one by one: 16 MB of int64 and some milliseconds.
_ENUMERATED = 2_000_000


@dataclass(frozen=True)
class Occupancy:
    """filled: lanes with a tensor element; distinct: different tensor elements; both over all grid
    elements. exact: counted; otherwise an upper bound."""

    filled: int
    distinct: int
    exact: bool

    # Elements that are filled more often than there are different ones stand twice somewhere.
    @property
    def duplicates(self) -> bool:
        return self.filled > self.distinct


def occupancy(
    rows: Mapping[int, Row],
    indices: int,
    grid: Sequence[Axis],
    extents: Mapping[str, int],
    broadcast: int,
) -> Occupancy:
    """Counts over independent groups of rows, given by their number in the grid axes; those from
    `indices` on are range checks, no tensor indices. broadcast: lanes that repeat all of it."""
    # Groups share nothing, so their counts multiply.
    filled, distinct, exact = broadcast, 1, True
    for group in _groups(rows, grid):
        members = [rows[n] for n in group]
        if len(group) == 1:
            f, d = _single(group[0], members[0], grid, extents)
            # A range check names no element: whatever it lets through is one and the same.
            d = d if group[0] < indices else min(d, 1)
        else:
            f, d, ok = _joint(group, members, indices, grid, extents)
            exact &= ok
        filled, distinct = filled * f, distinct * d
    return Occupancy(filled, distinct, exact)


def _groups(rows: Mapping[int, Row], grid: Sequence[Axis]) -> list[list[int]]:
    """Row numbers that share a digit, a virtual digit or a grid dimension."""
    moved_by: list[set[int | str]] = []
    for n, row in rows.items():
        # Tagged by kind, because a row's number, a digit and a grid dimension may have equal names.
        own = {*row.digits, *(f"<{a}>" for a, _, _ in row.virtual)}
        moved_by.append({n, *own, *(f"#{k}" for k, axis in enumerate(grid) if n in axis.coef)})
    return [sorted(n for n in group if isinstance(n, int)) for group in joined(moved_by)]


def _single(n: int, row: Row, grid: Sequence[Axis], extents: Mapping[str, int]) -> tuple[int, int]:
    """One row: counted by residue class of its longest grid dimension, the others act as digits."""
    axes = sorted((a for a in grid if n in a.coef), key=lambda a: -a.size)
    parts = [(c, extents[d]) for d, c in row.digits.items()]
    parts += [(a.coef[n], a.size) for a in axes[1:]]
    values = sums([*parts, *((c, e) for _, c, e in row.virtual)])
    # No grid dimension: a pitch that no value reaches makes one block of everything.
    pitch, size = (axes[0].coef[n], axes[0].size) if axes else (1 << 62, 1)
    const = row.const + sum(a.shift.get(n, 0) for a in axes)
    if pitch < 0:  # the same elements, counted from the other end
        const, pitch = const + pitch * (size - 1), -pitch
    spans: dict[int, list[tuple[int, int]]] = {}
    filled = 0
    for v in values:
        low = max(0, -((const + v) // pitch))
        # Blocks at which this lane value is a tensor index: first and last, counted instead of
        # visited.
        high = min(size - 1, (row.size - 1 - const - v) // pitch)
        if low <= high:
            filled += high - low + 1
            base = v // pitch
            # Lanes of one remainder meet the same elements, possibly several of them; others never
            # do.
            spans.setdefault(v % pitch, []).append((low + base, high + base))
    return filled, sum(_union(s) for s in spans.values())


def _union(spans: list[tuple[int, int]]) -> int:
    total, end = 0, None
    for low, high in sorted(spans):
        start = low if end is None else max(low, end + 1)
        total += max(0, high - start + 1)
        end = high if end is None else max(end, high)
    return total


def _joint(
    group: Sequence[int],
    rows: Sequence[Row],
    indices: int,
    grid: Sequence[Axis],
    extents: Mapping[str, int],
) -> tuple[int, int, bool]:
    """Rows that move together: every combination enumerated, up to a limit."""
    factors: dict[str, tuple[int, list[int]]] = {}
    for k, axis in enumerate(grid):
        if any(n in axis.coef for n in group):
            factors[f"#{k}"] = (axis.size, [axis.coef.get(n, 0) for n in group])
    for m, row in enumerate(rows):
        own = [(d, c, extents[d]) for d, c in row.digits.items()]
        for key, coef, extent in [*own, *((f"<{a}>", c, e) for a, c, e in row.virtual)]:
            factors.setdefault(key, (extent, [0] * len(rows)))[1][m] = coef
    total = math.prod(e for e, _ in factors.values())
    if total > _ENUMERATED:
        return total, 1, False
    values = np.array(
        [r.const + sum(a.shift.get(n, 0) for a in grid) for n, r in zip(group, rows, strict=True)]
    )[:, None]
    for extent, coefs in factors.values():
        moved = np.array(coefs)[:, None] * np.arange(extent)
        values = (values[:, :, None] + moved[:, None, :]).reshape(len(rows), -1)
    sizes = np.array([r.size for r in rows])[:, None]
    inside = values[:, ((values >= 0) & (values < sizes)).all(axis=0)]
    flat = np.zeros(inside.shape[1], dtype=np.int64)
    for n, row, v in zip(group, rows, inside, strict=True):
        if n < indices:
            flat = flat * row.size + v
    return len(flat), len(np.unique(flat)), True
