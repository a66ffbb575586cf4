"""Affine functions over boxes of integers: their reach, where they are inside, how many points.

A box is given by extents: each of its variables takes the values 0 .. extent-1. Builders use these
functions and keep no box algebra of their own. Judges (`judge/`, `ops/reference.py`,
`ops/bound.py`, the cycle engine) must not: they count by enumerating, so that a mistake here cannot
agree with itself. `.importlinter` keeps that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from csp_embed.ir.union import joined

Limit = tuple[Mapping[str, int], int, int]
"""(coefficients by variable, constant, size): 0 <= constant + sum coefficient * value < size."""


@dataclass(frozen=True)
class Affine:
    """const + sum of coefficient * axis, over operator axes; `terms` sorted, without zeros."""

    terms: tuple[tuple[str, int], ...] = ()
    const: int = 0

    def coef(self, axis: str) -> int:
        return dict(self.terms).get(axis, 0)

    def reach(self, extents: Mapping[str, int]) -> tuple[int, int]:
        """Least and greatest value over the box of its axes.

        >>> Affine((("p", 2), ("r", -1)), 3).reach({"p": 4, "r": 3})
        (1, 9)
        """
        # The same reach as below; here by axis names.
        return reach(((c, extents[a]) for a, c in self.terms), self.const)

    def __str__(self) -> str:
        parts = [a if c == 1 else f"-{a}" if c == -1 else f"{c}*{a}" for a, c in self.terms]
        if self.const or not parts:
            parts.append(str(self.const))
        # Terms are joined with "+" whatever their sign, and then read like a person would write
        # them.
        return "+".join(parts).replace("+-", "-")


def reach(parts: Iterable[tuple[int, int]], const: int = 0) -> tuple[int, int]:
    """Least and greatest value of const + sum coefficient * value, for (coefficient, extent)."""
    # One at a time: a sum is least where each term is, because the box has no other corners to
    # forbid it.
    low = high = const
    for coef, extent in parts:
        if coef < 0:
            low += coef * (extent - 1)
        else:
            high += coef * (extent - 1)
    return low, high


def meeting(coef: int, low: int, high: int, size: int) -> tuple[int, int]:
    """First and last integer v at which the interval [low, high] + coef * v meets [0, size).

    coef is not 0. With low = high: where the value itself is inside. First > last: nowhere.

    >>> meeting(2, -3, -3, 8)
    (2, 5)
    """
    # Floor division rounds down for both signs, which is what first and last need.
    if coef > 0:
        return -(high // coef), (size - 1 - low) // coef
    return -((size - 1 - low) // -coef), high // -coef


def count_inside(limits: Sequence[Limit], extents: Mapping[str, int]) -> int:
    """Points of the box at which every limit holds.

    Variables that no limit couples multiply; coupled ones (an output row and a filter row) are
    counted for each value of all but the longest, whose values then are an interval.
    """
    cutting: list[Limit] = []
    # Limits that the box keeps by itself bind nobody.
    for step, origin, size in limits:
        low, high = reach(((s, extents[c]) for c, s in step.items()), origin)
        if low < 0 or high >= size:
            cutting.append((step, origin, size))
    if not cutting:
        return math.prod(extents.values())
    total = 1
    done: set[str] = set()
    # A limit without variables holds for all points or for none: its set is empty, its group too.
    for group in joined(set(step) for step, _, _ in cutting):
        done |= group
        own = [limit for limit in cutting if set(limit[0]) <= group]
        total *= _count_coupled(own, sorted(group), extents)
    return total * math.prod(n for c, n in extents.items() if c not in done)


def _count_coupled(limits: Sequence[Limit], names: list[str], extents: Mapping[str, int]) -> int:
    if not names:
        return int(all(0 <= origin < size for _, origin, size in limits))
    # The longest is not walked: for fixed others its good values are one interval.
    longest = max(names, key=lambda c: extents[c])
    others = [c for c in names if c != longest]
    total = 0
    for values in itertools.product(*(range(extents[c]) for c in others)):
        first, last = 0, extents[longest] - 1
        for step, origin, size in limits:
            at = origin + sum(step.get(c, 0) * v for c, v in zip(others, values, strict=True))
            own = step.get(longest, 0)
            if own:
                low, high = meeting(own, at, at, size)
                first, last = max(first, low), min(last, high)
            elif not 0 <= at < size:
                # No value of the longest helps where a limit without it fails: an empty interval.
                first, last = 1, 0
        total += max(last - first + 1, 0)
    return total
