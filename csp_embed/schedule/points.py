"""Points of a loop nest whose operands lie inside their grids: which counters a bound couples, and
how many points are left.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.union import joined
from csp_embed.schedule.inputs import Map, Problem

Ints = NDArray[np.int64]

Constraint = tuple[tuple[int, ...], int, int]
"""(coefficient per counter, constant, size): 0 <= constant + sum coef * value < size."""


@dataclass(frozen=True)
class Group:
    """A coupled group: valid points [m, counters of the group]."""

    counters: tuple[int, ...]
    points: Ints


def groups_of(
    binding: list[tuple[list[int], Constraint]], lo: list[int], hi: list[int]
) -> list[Group] | None:
    """Counters joined by binding constraints, with their valid points; None where one has no
    point.
    """
    groups = []
    for s in sorted(joined(set(used) for used, _ in binding), key=min):
        counters = tuple(sorted(s))
        axes = [np.arange(lo[i], hi[i]) for i in counters]
        points = np.stack([m.ravel() for m in np.meshgrid(*axes, indexing="ij")], axis=1)
        for used, (k, const, size) in binding:
            if set(used) <= s:
                value = const + points @ np.array([k[i] for i in counters])
                points = points[(value >= 0) & (value < size)]
        if not len(points):
            return None
        groups.append(Group(counters, points))
    return groups


def count_steps(problem: Problem) -> int:
    """Multiply-accumulate steps whose operands lie inside their grids, exactly.

    Counters that no common constraint couples multiply; coupled ones are counted point by point.
    """
    groups = _bound_groups(problem)
    if groups is None:
        return 0
    coupled = {c for g in groups for c in g.counters}
    free = math.prod(e for c, e in enumerate(problem.extents) if c not in coupled)
    return free * math.prod(len(g.points) for g in groups)


def every_result_has_a_product(problem: Problem) -> bool:
    """Whether no result is a sum over padding alone. Groups are independent, so it is enough that
    each leaves every value of its output counters a point."""
    groups = _bound_groups(problem)
    if groups is None:
        return False
    for group in groups:
        outputs = [n for n, c in enumerate(group.counters) if not problem.reduced[c]]
        wanted = math.prod(problem.extents[group.counters[n]] for n in outputs)
        if len(np.unique(group.points[:, outputs], axis=0)) < wanted:
            return False
    return True


def _bound_groups(problem: Problem) -> list[Group] | None:
    """Counters that a grid bounds, with the points inside; None where there is none."""
    lo, hi = [0] * len(problem.extents), list(problem.extents)
    binding = []
    for m in (problem.lhs, problem.rhs):
        if m is None:
            continue
        for d, (a, b) in enumerate(m.box(tuple(lo), tuple(hi))):
            if a < 0 or b > m.grid[d]:
                k = tuple(int(s) for s in m.step[:, d])
                used = [c for c, s in enumerate(k) if s]
                if not used:
                    return None  # This operand is padding at every step.
                binding.append((used, (k, m.origin[d], m.grid[d])))
    return groups_of(binding, lo, hi)


def touched(m: Map, extents: tuple[int, ...]) -> int:
    """Elements of an operand's grid that some point reads; fewer are told where one counter moves
    several dimensions."""
    total, counted = 1, set[int]()
    for d, movers in enumerate(m.movers):
        if counted & {c for c, _ in movers}:
            continue
        counted |= {c for c, _ in movers}
        values = np.array([m.origin[d]])
        for c, step in movers:
            values = np.unique(values[:, None] + step * np.arange(extents[c]))
        total *= int(((values >= 0) & (values < m.grid[d])).sum())
    return total
