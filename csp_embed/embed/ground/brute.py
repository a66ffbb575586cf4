"""Brute force for the tiniest problems: no solver, no model.

Takes: Ground.  Leaves: sets of solution keys.

Irregular coverings: the points one after another at every place that breaks no rule yet, judged by
check.py when all lie. Regular ones: those of them for which some affine map is found, by trying all
names of their steps and lanes in all frames and solving for the map (exactly, in fractions).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

import numpy as np

from csp_embed.embed.ground.check import covering_of, judge
from csp_embed.embed.ground.frames import STEP, Frame, bound, frames
from csp_embed.embed.ground.problem import Ground, Key, key, placed_at

Row = list[Fraction]


def brute_irregular(ground: Ground) -> frozenset[Key]:
    """Every covering, by trying them all."""
    sizes = [ground.steps, *ground.sizes.values()]
    out: set[Key] = set()

    def extend(at: list[tuple[int, ...]]) -> None:
        q = len(at)
        if q == len(ground.points):
            table = np.array(at, np.int64).reshape(q, len(sizes))
            if not judge(ground, covering_of(ground, table)):
                out.add(key(ground, table))
            return
        # A name that nobody bears yet is as good as the next such name.
        names = [
            range(min(n, 1 + max((p[d] + 1 for p in at), default=0))) for d, n in enumerate(sizes)
        ]
        for place in itertools.product(*names):
            if place not in at and all(_fits(ground, at[p], place, p, q) for p in range(q)):
                extend([*at, place])

    extend([])
    return frozenset(out)


def _fits(ground: Ground, a: Sequence[int], b: Sequence[int], p: int, q: int) -> bool:
    """Two placed points share an operand lane of a step only if they share the element, and add
    into one output in one lane only."""
    for role in ground.dims:
        one_lane = ground.lane_of(role, a[1:]) == ground.lane_of(role, b[1:])
        shared = ground.elements[role][p] == ground.elements[role][q]
        if not shared and one_lane and a[0] == b[0]:
            return False
        if shared and not one_lane and role == "dst":
            return False
    return True


def brute_regular(ground: Ground, coverings: frozenset[Key] | None = None) -> frozenset[Key]:
    """The regular ones among `coverings` (all coverings where None)."""
    if coverings is None:
        coverings = brute_irregular(ground)
    every = list(frames(ground))
    return frozenset(k for k in coverings if any(_affine(ground, f, k) for f in every))


def _affine(ground: Ground, frame: Frame, solution: Key) -> bool:
    """Whether some naming of the solution's steps and lanes makes it affine over the frame."""
    at = placed_at(solution)
    namings = []
    for d, dim in enumerate([STEP, *ground.sizes]):
        size = math.prod(x.extent for x in frame.digits if x.dim == dim)
        used = 1 + int(at[:, d].max())
        if used > size:
            return False
        namings.append(itertools.permutations(range(size), used))
    for names in itertools.product(*namings):
        rows = [[names[d][v] for d, v in enumerate(place)] for place in at.tolist()]
        digits = [_digits(ground, frame, row) for row in rows]
        if (
            _diagonal(frame, digits)
            and _ends_used(frame, digits)
            and _solved(ground, frame, digits)
        ):
            return True
    return False


def _digits(ground: Ground, frame: Frame, place: Sequence[int]) -> tuple[int, ...]:
    where = dict(zip([STEP, *ground.sizes], place, strict=True))
    return tuple(where[d.dim] // d.radix % d.extent for d in frame.digits)


def _diagonal(frame: Frame, digits: Sequence[tuple[int, ...]]) -> bool:
    return all(v[a] == v[b] for v in digits for a, b in frame.equal)


def _ends_used(frame: Frame, digits: Sequence[tuple[int, ...]]) -> bool:
    return all(any(v[n] == d.extent - 1 for v in digits) for n, d in enumerate(frame.digits))


def _solved(ground: Ground, frame: Frame, digits: Sequence[tuple[int, ...]]) -> bool:
    """Whether const + sum column * digit can be the points' coordinates, and is no effective point
    anywhere else."""
    axes = ground.op.axes
    partners = {b for _, b in frame.equal}
    moving = [n for n in range(len(frame.digits)) if n not in partners]
    matrix = [[1, *(v[n] for n in moving)] for v in digits]
    points = [dict(zip(axes, p, strict=True)) for p in ground.points.tolist()]
    choices, wanted = [], []
    for names in frame.coordinates:
        flat = []
        for p in points:
            value = 0
            for a in names:
                value = value * axes[a] + p[a]
            flat.append(value)
        wanted.append(flat)
        limit, extent = bound(ground, names), math.prod(axes[a] for a in names)
        found = [v for v in _integer_solutions(matrix, flat, limit, extent) if 0 <= v[0] < extent]
        if not found:
            return False
        choices.append(found)
    effective = set(zip(*wanted, strict=True))
    taken = {tuple(v[n] for n in moving) for v in digits}
    free = [
        v
        for v in itertools.product(*(range(frame.digits[n].extent) for n in moving))
        if v not in taken
    ]
    return any(
        all(
            tuple(c[0] + sum(x * y for x, y in zip(c[1:], v, strict=True)) for c in maps)
            not in effective
            for v in free
        )
        for maps in itertools.product(*choices)
    )


def _integer_solutions(
    matrix: Sequence[Sequence[int]], right: Sequence[int], limit: int, extent: int
) -> Iterator[tuple[int, ...]]:
    """All integer x with matrix x = right, x[0] in 0..extent-1 and the others within the limit."""
    width = len(matrix[0])
    rows = [[Fraction(v) for v in (*m, r)] for m, r in zip(matrix, right, strict=True)]
    pivots: list[int] = []
    for column in range(width):
        found = next((r for r in range(len(pivots), len(rows)) if rows[r][column]), None)
        if found is None:
            continue
        top = len(pivots)
        rows[top], rows[found] = rows[found], rows[top]
        rows[top] = [v / rows[top][column] for v in rows[top]]
        for r in range(len(rows)):
            if r != top and rows[r][column]:
                factor = rows[r][column]
                rows[r] = [v - factor * w for v, w in zip(rows[r], rows[top], strict=True)]
        pivots.append(column)
    if any(row[width] for row in rows[len(pivots) :]):
        return
    loose = [c for c in range(width) if c not in pivots]
    ranges = [range(extent) if c == 0 else range(-limit, limit + 1) for c in loose]
    for values in itertools.product(*ranges):
        x = [Fraction(0)] * width
        for c, v in zip(loose, values, strict=True):
            x[c] = Fraction(v)
        for r, c in enumerate(pivots):
            x[c] = rows[r][width] - sum((rows[r][k] * x[k] for k in loose), start=Fraction(0))
        if all(v.denominator == 1 for v in x) and all(abs(v) <= limit for v in x[1:]):
            yield tuple(int(v) for v in x)
