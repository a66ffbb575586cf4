"""Covers the points of a loop nest with compute instructions: a micro-op list inside two affine
loops.

Takes: counters with extents, range constraints on affine forms of them (points outside are left
out), and
per operand an affine address.  Leaves: pieces (micro-ops, two loops, factors) that meet every valid
point
exactly once.  Assumes: addresses are non-negative at every valid point.

Constraints that bind couple counters (an output row and a filter row, say). A coupled group is
either listed
point by point in the micro-ops, or cut into segments of its longest counter over which the
other counters' valid values are the same; that counter then becomes a loop.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.affine import meeting, reach
from csp_embed.schedule.points import Constraint, Group, groups_of

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Piece:
    """uops: [n, operands] addresses; factors: per operand (outer, inner)."""

    uops: Ints
    iter_out: int
    iter_in: int
    factors: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class CoverLimits:
    """uops: longest micro-op list; iterations: largest loop count; factors: largest factor per
    operand.
    overhead_cycles: what an instruction costs beyond its steps. word_cycles: what a micro-op costs
    to load.
    repeats: how often the nest is expected to run (micro-ops are loaded once)."""

    uops: int
    iterations: int
    factors: tuple[int, ...]
    overhead_cycles: float = 9.0
    word_cycles: float = 0.5
    repeats: int = 1


@dataclass(frozen=True)
class _Loop:
    extent: int
    coef: tuple[int, ...]


Segment = tuple[int, int, Ints]
"""(first, last + 1 of a counter, points of the counters coupled with it)."""


def cover(
    extents: tuple[int, ...],
    constraints: tuple[Constraint, ...],
    coef: Ints,
    base: Ints,
    limits: CoverLimits,
) -> list[Piece]:
    """Instruction pieces for counters in [0, extent); coef is [operands, counters], base
    [operands].
    """
    lo = [0] * len(extents)
    hi = list(extents)
    binding = []
    for c in constraints:
        used = [i for i, k in enumerate(c[0]) if k and extents[i] > 1]
        low, high = reach(zip(c[0], extents, strict=True), c[1])
        # No point leaves this range: the constraint says nothing.
        if low >= 0 and high < c[2]:
            continue
        # Every point leaves it: there is nothing to do.
        if high < 0 or low >= c[2]:
            return []
        # On one counter it is only a narrower range.
        if len(used) == 1:
            i = used[0]
            first, last = meeting(c[0][i], c[1], c[1], c[2])
            lo[i], hi[i] = max(lo[i], first), min(hi[i], last + 1)
            continue
        binding.append((used, c))
    if any(a >= b for a, b in zip(lo, hi, strict=True)):
        return []
    groups = groups_of(binding, lo, hi)
    if groups is None:
        return []
    coupled = {i for g in groups for i in g.counters}
    start = base + coef @ np.array(lo, dtype=np.int64)
    for g in groups:  # group points are absolute counter values
        start = start - coef[:, list(g.counters)] @ np.array([lo[i] for i in g.counters])
    singles = []
    for i in range(len(extents)):
        n = hi[i] - lo[i]
        if i in coupled or n == 1:
            continue
        column = coef[:, i]
        # Factors are unsigned: a loop that runs down for every operand is run up from its other
        # end.
        if (column <= 0).all() and (column < 0).any():
            start = start + column * (n - 1)
            column = -column
        singles.append(_Loop(n, tuple(int(v) for v in column)))
    return _best(_merge(singles), groups, coef, start, limits)


def _merge(loops: list[_Loop]) -> list[_Loop]:
    """Joins loops that together are one longer loop for every operand."""
    loops = sorted(loops, key=lambda x: (sum(x.coef), x.extent))
    changed = True
    while changed:
        changed = False
        for a, b in itertools.permutations(loops, 2):
            if all(x == b.extent * y for x, y in zip(a.coef, b.coef, strict=True)):
                loops.remove(a)
                loops.remove(b)
                loops.append(_Loop(a.extent * b.extent, b.coef))
                changed = True
                break
    return loops


def _segments(group: Group, major: int) -> list[Segment]:
    """(first, last + 1, points of the other counters) with equal others along the major counter."""
    column = group.counters.index(major)
    others = [j for j in range(len(group.counters)) if j != column]
    values = group.points[:, column]
    out: list[Segment] = []
    for v in np.unique(values):
        pts = group.points[values == v][:, others]
        if out and out[-1][1] == v and np.array_equal(out[-1][2], pts):
            out[-1] = (out[-1][0], int(v) + 1, pts)
        else:
            out.append((int(v), int(v) + 1, pts))
    return out


def _loopable(loop: _Loop, limits: CoverLimits) -> bool:
    return loop.extent <= limits.iterations and all(
        0 <= k <= f for k, f in zip(loop.coef, limits.factors, strict=True)
    )


_Combo = tuple[tuple[int | None, list[Segment] | None], ...]
"""Per group: the counter that becomes a loop with its segments, or None: points are listed."""


def _best(
    singles: list[_Loop], groups: list[Group], coef: Ints, start: Ints, limits: CoverLimits
) -> list[Piece]:
    """Chooses which counters are loops, micro-ops or separate instructions, then makes the
    pieces.
    """
    choices = []
    for g in groups:
        options: list[tuple[int | None, list[Segment] | None]] = [(None, None)]
        for m in g.counters:
            if (coef[:, m] >= 0).all() and len(np.unique(g.points[:, g.counters.index(m)])) > 1:
                segments = _segments(g, m)
                longest = max(last - first for first, last, _ in segments)
                if _loopable(_Loop(longest, tuple(int(v) for v in coef[:, m])), limits):
                    options.append((m, segments))
        choices.append(options)
    # A nest has two loops, so at most two groups can have one.
    combos = [c for c in itertools.product(*choices) if sum(m is not None for m, _ in c) <= 2]
    # Long lists and many segments rarely win and take long to weigh. Where every way of a large
    # tile is of that kind they are weighed all the same: a list of any length can be cut.
    few = [c for c in combos if _listed(groups, c) <= 4 * limits.uops and _instructions(c) <= 64]
    best_plan = None
    for combo in few or combos:
        n_segments, listed = _instructions(combo), _listed(groups, combo)
        longest = math.prod(max(len(p) for _, _, p in s) for _, s in combo if s is not None)
        total = math.prod(sum(len(p) for _, _, p in s) for _, s in combo if s is not None)
        free = 2 - sum(m is not None for m, _ in combo)
        for k in range(min(free, len(singles)) + 1):
            for loops in itertools.combinations(range(len(singles)), k):
                if not all(_loopable(singles[i], limits) for i in loops):
                    continue
                rest = sorted(
                    (i for i in range(len(singles)) if i not in loops),
                    key=lambda i: singles[i].extent,
                )
                in_list, sequential = list(rest), []
                size = listed * longest * math.prod(singles[i].extent for i in rest)
                while size > limits.uops and in_list:
                    i = in_list.pop(0)
                    sequential.append(i)
                    size //= singles[i].extent
                parts = -(-size // limits.uops)
                seq = math.prod(singles[i].extent for i in sequential)
                n = n_segments * seq * parts
                words = listed * total * math.prod(singles[i].extent for i in in_list) * max(1, seq)
                price = (
                    limits.repeats * limits.overhead_cycles * n
                    + words * limits.word_cycles
                    + (limits.repeats * words * limits.word_cycles if words > limits.uops else 0)
                )
                if best_plan is None or price < best_plan[0]:
                    best_plan = (price, combo, loops, in_list, sequential)
    assert best_plan is not None  # listing every point, with no loop at all, is always a way
    _, combo, loops, in_list, sequential = best_plan
    return _pieces(singles, groups, combo, loops, in_list, sequential, coef, start, limits)


def _listed(groups: list[Group], combo: _Combo) -> int:
    """Points of the groups that have no loop."""
    return math.prod(len(g.points) for g, (m, _) in zip(groups, combo, strict=True) if m is None)


def _instructions(combo: _Combo) -> int:
    """Segments, each an instruction of its own."""
    return math.prod(len(s) for _, s in combo if s is not None)


def _pieces(
    singles: list[_Loop],
    groups: list[Group],
    combo: _Combo,
    loops: tuple[int, ...],
    in_list: list[int],
    sequential: list[int],
    coef: Ints,
    start: Ints,
    limits: CoverLimits,
) -> list[Piece]:
    """The instructions of a choice: micro-op lists, loops, one instruction per sequential value."""
    n_operands = len(start)
    inner = np.zeros((1, n_operands), dtype=np.int64)
    for g, (m, _) in zip(groups, combo, strict=True):
        if m is None:
            inner = _outer(inner, g.points @ coef[:, list(g.counters)].T)
    for i in sorted(in_list, key=lambda i: -singles[i].extent):
        s = singles[i]
        inner = _outer(inner, np.arange(s.extent)[:, None] * np.array(s.coef)[None, :])
    segment_lists = [s for _, s in combo if s is not None]
    seg_groups = [(g, m) for g, (m, _) in zip(groups, combo, strict=True) if m is not None]
    pieces = []
    for segs in itertools.product(*segment_lists):
        uops = np.zeros((1, n_operands), dtype=np.int64)
        origin = start.copy()
        nest: list[_Loop] = []
        for (first, last, pts), (g, m) in zip(segs, seg_groups, strict=True):
            others = [i for i in g.counters if i != m]
            uops = _outer(uops, pts @ coef[:, others].T)
            origin = origin + coef[:, m] * first
            nest.append(_Loop(last - first, tuple(int(v) for v in coef[:, m])))
        nest += [singles[i] for i in loops]
        nest = [x for x in nest if x.extent > 1]
        nest += [_Loop(1, (0,) * n_operands)] * (2 - len(nest))
        uops = _outer(uops, inner)
        (outer, inner_loop) = sorted(nest, key=lambda x: x.extent)
        factors = tuple(zip(outer.coef, inner_loop.coef, strict=True))
        for values in itertools.product(*(range(singles[i].extent) for i in sequential)):
            shift = origin + sum(
                (v * np.array(singles[i].coef) for v, i in zip(values, sequential, strict=True)),
                np.zeros(n_operands, dtype=np.int64),
            )
            for at in range(0, len(uops), limits.uops):
                part = uops[at : at + limits.uops] + shift
                pieces.append(Piece(part, outer.extent, inner_loop.extent, factors))
    return pieces


def _outer(a: Ints, b: Ints) -> Ints:
    """All sums of a row of a and a row of b, a outermost."""
    return (a[:, None, :] + b[None, :, :]).reshape(-1, a.shape[1])
