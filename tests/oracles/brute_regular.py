"""Which coverings are regular, by brute force: straight from rule 8, no solver, no frames.

Takes: Ground, coverings.  Leaves: those of them for which some affine map is found.

For a covering, all numerations of its steps and lanes are tried: every mixed radix of every
dimension (prime extents: a digit of extent 4 is two of extent 2 whose columns are c and 2c), every
naming of the lanes by digit values up to the direction and order of digits, every set of diagonals,
every group of flattened reduced axes. The map is then the solution of linear equations, one for
each point, in exact integers; where points leave it open, every choice within the limit is tried.
Counted from some end of each digit, the map's origin lies in the domain and the digit's other end
is used; every other place of the numeration holds no effective point.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections.abc import Iterator, Sequence
from functools import cache

from csp_embed.embed.ground.points import Key, placed_at
from csp_embed.ir.ground import Ground
from tests.oracles.brute import brute_irregular

Rows = list[list[int]]
Vector = tuple[int, ...]
Naming = tuple[Vector, tuple[Vector, ...]]
"""Extents of a dimension's digits, least weight first, and the digit values of each used lane."""


def brute_regular(ground: Ground, coverings: frozenset[Key] | None = None) -> frozenset[Key]:
    """The regular ones among `coverings` (all coverings where None)."""
    if coverings is None:
        coverings = brute_irregular(ground)
    maps = _Flattened(ground)
    return frozenset(k for k in coverings if _regular(ground, maps, k))


class _Flattened:
    """Coordinates: every axis, and every group of reduced axes flattened in operator order.

    choices: lists of coordinates that name a point. extent, limit: of each coordinate. at: each
    coordinate's value at each point.
    """

    def __init__(self, ground: Ground) -> None:
        axes = ground.op.axes
        alone = [(a,) for a, n in axes.items() if n > 1]  # the others are 0 everywhere
        long = [a for a in ground.op.reduced_axes if axes[a] > 1]
        groups = [g for n in range(2, len(long) + 1) for g in itertools.combinations(long, n)]
        self.names: list[tuple[str, ...]] = [*alone, *groups]
        self.extent = [math.prod(axes[a] for a in names) for names in self.names]
        self.limit = [_limit(ground, names) for names in self.names]
        self.at = []
        for names in self.names:
            column = [0] * len(ground.points)
            for q, point in enumerate(ground.points.tolist()):
                for a, v in zip(axes, point, strict=True):
                    column[q] = column[q] * axes[a] + v if a in names else column[q]
            self.at.append(column)
        whole = list(range(len(alone)))
        self.choices = [whole] + [
            [n for n in whole if self.names[n][0] not in g] + [len(alone) + i]
            for i, g in enumerate(groups)
        ]


def _limit(ground: Ground, names: Sequence[str]) -> int:
    """Greatest coefficient: between any two values that the coordinate can be made to have by its
    own points and by moving the other axes of an index through their extents, in its own units."""
    op = ground.op
    own_range = math.prod(op.axes[a] for a in names) - 1
    if own_range == 0:
        return 0
    furthest = 0
    for access in (op.out, op.lhs, op.rhs):
        for ix in access.index if access is not None else ():
            unit = min((abs(c) for a, c in ix.terms if a in names), default=0)
            away = 0
            for a, c in ix.terms if unit else ():
                away += 0 if a in names else abs(c) * (op.axes[a] - 1)
            furthest = max(furthest, away // unit if unit else 0)
    return own_range + furthest


def _regular(ground: Ground, maps: _Flattened, solution: Key) -> bool:
    at = placed_at(solution).tolist()
    sizes = [ground.steps, *ground.sizes.values()]
    used = [1 + max(p[d] for p in at) for d in range(len(sizes))]
    for picked in _named(ground, maps, at, used, []):
        extents = [e for one, _ in picked for e in one]
        owner = [d for d, (one, _) in enumerate(picked) for _ in one]
        rows = _digits(at, picked, used)
        for twins in _diagonals(rows, extents, owner):
            moving = [n for n in range(len(extents)) if n not in twins]
            table = [[row[n] for n in moving] for row in rows]
            if _affine(maps, table, [extents[n] for n in moving]):
                return True
    return False


def _named(
    ground: Ground, maps: _Flattened, at: Rows, used: Sequence[int], picked: list[Naming]
) -> Iterator[list[Naming]]:
    """Namings of all dimensions, one after another. Given up early: where coordinates are no sum of
    something affine in the digits named so far and anything of each other lane by itself."""
    rows = _digits(at, picked, used)
    if not any(_possible(maps, rows, choice) for choice in maps.choices):
        return
    d = len(picked)
    if d == len(used):
        yield picked
        return
    size = [ground.steps, *ground.sizes.values()][d]
    for naming in _namings(used[d], size, d == 0 and ground.ordered):
        yield from _named(ground, maps, at, used, [*picked, naming])


def _digits(at: Rows, picked: Sequence[Naming], used: Sequence[int]) -> Rows:
    """Digit values of each point, and a column for every lane of a dimension without a name."""
    rows = []
    for place in at:
        row = [v for d, (_, vectors) in enumerate(picked) for v in vectors[place[d]]]
        for d in range(len(picked), len(used)):
            row += [int(place[d] == n) for n in range(1, used[d])]
        rows.append(row)
    return rows


def _possible(maps: _Flattened, rows: Rows, choice: Sequence[int]) -> bool:
    """Whether each of the coordinates is affine in the columns."""
    width = 1 + len(rows[0])
    table = [[1, *row, *(maps.at[n][q] for n in choice)] for q, row in enumerate(rows)]
    return all(not any(row[width:]) for row in _eliminated(table, width)[1])


@cache
def _namings(used: int, size: int, fixed: bool) -> list[Naming]:
    """Digits for lanes 0..used-1 of a dimension; of namings that differ by the directions of digits
    or by an exchange of equal ones, one. fixed: lanes keep their numbers."""
    out: list[Naming] = []
    for extents in _radices(size):
        vectors = list(itertools.product(*(range(e) for e in reversed(extents))))
        vectors = [v[::-1] for v in vectors]  # vectors[n]: digits of n, least weight first
        if len(vectors) < used:
            continue
        if fixed:
            out.append((extents, tuple(vectors[:used])))
            continue
        if list(extents) != sorted(extents):
            continue
        seen: set[tuple[Vector, ...]] = set()
        for names in itertools.permutations(vectors, used):
            if names not in seen:
                out.append((extents, names))
                seen.update(_copies(extents, names))
    return out


def _copies(extents: Vector, names: tuple[Vector, ...]) -> Iterator[tuple[Vector, ...]]:
    orders = [
        p
        for p in itertools.permutations(range(len(extents)))
        if all(extents[n] == extents[m] for n, m in enumerate(p))
    ]
    for flips in itertools.product((False, True), repeat=len(extents)):
        turned = [
            tuple(e - 1 - x if f else x for x, e, f in zip(v, extents, flips, strict=True))
            for v in names
        ]
        for order in orders:
            yield tuple(tuple(v[n] for n in order) for v in turned)


def _radices(size: int) -> Iterator[Vector]:
    """Sequences of prime extents with a product of at most `size`."""
    yield ()
    for first in range(2, size + 1):
        if all(first % d for d in range(2, first)):
            for rest in _radices(size // first):
                yield (first, *rest)


def _diagonals(
    rows: Sequence[Sequence[int]], extents: Sequence[int], owner: Sequence[int]
) -> Iterator[frozenset[int]]:
    """Sets of digits that may be left out, each the twin of a kept one in another dimension: equal
    to it at all placed points, or counted from its other end. Dimension 0 is the steps."""
    lanes = [n for n, d in enumerate(owner) if d > 0]
    twins = []
    for a, b in itertools.combinations(lanes, 2):
        if owner[a] != owner[b] and extents[a] == extents[b]:
            along = all(r[a] == r[b] for r in rows)
            if along or all(r[a] == extents[b] - 1 - r[b] for r in rows):
                twins.append((a, b))
    for count in range(len(twins) + 1):
        for chosen in itertools.combinations(twins, count):
            if len({n for pair in chosen for n in pair}) == 2 * count:
                yield frozenset(b for _, b in chosen)


def _affine(maps: _Flattened, rows: Rows, extents: Sequence[int]) -> bool:
    """Whether coordinates are affine in the digits, and no effective point lies elsewhere."""
    box = list(itertools.product(*(range(e) for e in extents)))
    origins = [
        corner
        for corner in itertools.product(*((0, e - 1) for e in extents))
        if all(
            any(row[n] == e - 1 - c for row in rows)
            for n, (e, c) in enumerate(zip(extents, corner, strict=True))
        )
    ]
    return any(
        _possible(maps, rows, choice) and _from_some(maps, choice, rows, box, origins)
        for choice in maps.choices
    )


def _from_some(
    maps: _Flattened,
    choice: Sequence[int],
    rows: Rows,
    box: Sequence[Vector],
    origins: Sequence[Vector],
) -> bool:
    """The same for one set of coordinates, with one of the corners as origin."""
    spread = []  # for each coordinate, what it can be at every place of the box
    for n in choice:
        table = [[1, *row, value] for row, value in zip(rows, maps.at[n], strict=True)]
        width = 1 + len(rows[0])
        solved = _eliminated(table, width)[0]
        found = set()
        for const, *columns in _integers(solved, width, maps.limit[n]):
            values = [const + sum(map(operator.mul, columns, v)) for v in box]
            found.add(tuple(v if 0 <= v < maps.extent[n] else None for v in values))
        spread.append(found)
    taken = {tuple(row) for row in rows}
    free = [g for g, v in enumerate(box) if v not in taken]
    effective = set(zip(*(maps.at[n] for n in choice), strict=True))
    for origin in origins:
        g = box.index(origin)
        kept = [{tuple(v[f] for f in free) for v in one if v[g] is not None} for one in spread]
        if any(effective.isdisjoint(zip(*one, strict=True)) for one in itertools.product(*kept)):
            return True
    return False


def _eliminated(rows: Rows, width: int) -> tuple[Rows, Rows]:
    """Rows with a pivot among the first `width` columns, each the only one there, in order; and the
    others, which are 0 in these columns."""
    rows = [list(r) for r in rows]
    top = 0
    for column in range(width):
        found = next((r for r in range(top, len(rows)) if rows[r][column]), None)
        if found is None:
            continue
        rows[top], rows[found] = rows[found], rows[top]
        pivot = rows[top]
        for r, row in enumerate(rows):
            if r != top and row[column]:
                a, b = pivot[column], row[column]
                row = [a * y - b * x for x, y in zip(pivot, row, strict=True)]
                shared = math.gcd(*row) or 1
                rows[r] = [v // shared for v in row]
        top += 1
    return rows[:top], rows[top:]


def _integers(rows: Rows, width: int, limit: int) -> Iterator[Vector]:
    """Integer solutions of reduced equations, all but x[0] within the limit."""
    pivots = [next(c for c in range(width) if row[c]) for row in rows]
    loose = [c for c in range(width) if c not in pivots]  # never 0: that column is all ones
    for values in itertools.product(range(-limit, limit + 1), repeat=len(loose)):
        x = [0] * width
        for c, v in zip(loose, values, strict=True):
            x[c] = v
        for c, row in zip(pivots, rows, strict=True):
            x[c], left = divmod(row[width] - sum(row[k] * x[k] for k in loose), row[c])
            if left:
                break
        else:
            if all(abs(v) <= limit for v in x[1:]):
                yield tuple(x)
