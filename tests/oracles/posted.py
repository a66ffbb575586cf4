"""The same definition posted to python-constraint: an enumerator that shares no model with CP-SAT.

Takes: Ground.  Leaves: sets of solution keys. Irregular coverings here, regular ones in
posted_regular.py.

One variable per operator point, whose values are the places of one step and its lanes, so rules 3
and 5 hold by all-different; rules 2, 6 and 9 are binary constraints, 4, 7 and 10 are checked on
whole assignments.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from typing import Any

import numpy as np
from constraint import AllDifferentConstraint, Problem

from csp_embed.embed.ground.points import Key, key
from csp_embed.ir.ground import Ground

Place = tuple[int, ...]
Held = Mapping[int, frozenset[tuple[int, Place]]]
"""Step -> (tensor element, lane) of everything in the memory element that it meets."""


def posted_irregular(ground: Ground) -> frozenset[Key]:
    """Every covering, by python-constraint."""
    problem: Any = Problem()
    sizes = [ground.steps, *ground.sizes.values()]
    places = list(itertools.product(*(range(n) for n in sizes)))
    count = len(ground.points)
    if not ground.same_kind or count > len(places):
        return frozenset()
    problem.addVariables(range(count), places)
    problem.addConstraint(AllDifferentConstraint())
    for q in range(count):
        # The least point of each step and lane decides its name: copies are left out.
        problem.addConstraint(_named_first(1 if ground.ordered else 0), list(range(q + 1)))
        for p in range(q):
            problem.addConstraint(_compatible(ground, p, q), [p, q])
    problem.addConstraint(whole(ground), list(range(count)))
    return frozenset(
        key(ground, np.array([s[q] for q in range(count)], np.int64))
        for s in problem.getSolutions()
    )


def _named_first(free: int) -> Callable[..., bool]:
    """The first `free` parts of a place keep their names."""

    def test(*places: Place) -> bool:
        new = places[-1]
        return all(
            v <= 1 + max((p[d] for p in places[:-1]), default=-1)
            for d, v in enumerate(new)
            if d >= free
        )

    return test


def lane_of(ground: Ground, role: str, place: Place) -> Place:
    """Lanes of the role's dimensions."""
    return tuple(v for d, v in zip(ground.sizes, place[1:], strict=True) if d in ground.dims[role])


def single(ground: Ground) -> list[str]:
    """Roles whose tensor elements stand once."""
    return [r for r in ground.dims if r == "dst" or r in ground.strict]


def _compatible(ground: Ground, p: int, q: int) -> Callable[[Place, Place], bool]:
    """Two points' places: rules 2 and 6 (and 9 for strict operands)."""
    same = {r: ground.elements[r][p] == ground.elements[r][q] for r in ground.dims}
    once = single(ground)

    def test(a: Place, b: Place) -> bool:
        for role, shared in same.items():
            one_lane = lane_of(ground, role, a) == lane_of(ground, role, b)
            if not shared and a[0] == b[0] and one_lane:
                return False
            if shared and not one_lane and role in once:
                return False
        return True

    return test


def whole(ground: Ground) -> Callable[..., bool]:
    """Rules 4, 7 and 10 on a whole assignment, for some memory elements."""
    once = single(ground)

    def test(*places: Place) -> bool:
        choices: list[list[Held]] = []
        for role in ground.dims:
            held: dict[int, frozenset[tuple[int, Place]]] = dict.fromkeys(
                range(ground.steps), frozenset()
            )
            for q, place in enumerate(places):
                entry = (int(ground.elements[role][q]), lane_of(ground, role, place))
                held[place[0]] |= {entry}
            if role in once:
                parts = _merged(held)
                if any(_clash(p, held) for p in parts):
                    return False
                more = ground.ordered and role in ground.strict
                choices.append([_spread(c, held) for c in (_coarser(parts) if more else [parts])
                                if not any(_clash(p, held) for p in c)
                                and (not more or _few_moves(ground, c))])  # fmt: skip
            else:
                choices.append([held])
        return any(_harmless(ground, places, held) for held in itertools.product(*choices))

    return test


def _harmless(ground: Ground, places: Sequence[Place], held: Sequence[Held]) -> bool:
    taken = set(places)
    for step in range(ground.steps):
        live = {r: {lane for _, lane in h[step]} for r, h in zip(ground.dims, held, strict=True)}
        for lanes in itertools.product(*(range(n) for n in ground.sizes.values())):
            place = (step, *lanes)
            if place not in taken and all(lane_of(ground, r, place) in live[r] for r in live):
                return False
    return True


def _merged(held: Held) -> list[frozenset[int]]:
    """Steps that share a tensor element meet one memory element."""
    parts = [frozenset({t}) for t in held]
    for a, b in itertools.combinations(held, 2):
        if {e for e, _ in held[a]} & {e for e, _ in held[b]}:
            joined = frozenset().union(*(p for p in parts if a in p or b in p))
            parts = [p for p in parts if not p & joined] + [joined]
    return parts


def _clash(part: frozenset[int], held: Held) -> bool:
    """One memory element would hold two contents in a lane, or one element in two lanes."""
    inside = frozenset().union(*(held[t] for t in part))
    return len({lane for _, lane in inside}) < len(inside) or len({e for e, _ in inside}) < len(
        inside
    )


def _spread(parts: Sequence[frozenset[int]], held: Held) -> Held:
    return {t: frozenset().union(*(held[u] for u in part)) for part in parts for t in part}


def _coarser(parts: Sequence[frozenset[int]]) -> Iterator[list[frozenset[int]]]:
    """Every way to join parts, none included."""
    if not parts:
        yield []
        return
    first, *others = parts
    for joined in _coarser(others):
        yield [first, *joined]
        for n, part in enumerate(joined):
            yield [first | part, *joined[:n], *joined[n + 1 :]]


def _few_moves(ground: Ground, parts: Sequence[frozenset[int]]) -> bool:
    """Whether every tile's memory elements, numbered by first use, are at most R rectangles."""
    order = sorted(parts, key=min)
    number = {t: n for n, part in enumerate(order) for t in part}
    size = ground.tile or ground.steps
    tiles = [range(s, min(s + size, ground.steps)) for s in range(0, ground.steps, size)]
    movable = _movable(len(order), ground.rectangles)
    return all(frozenset(number[t] for t in tile) in movable for tile in tiles)


@cache
def _movable(count: int, rectangles: int) -> frozenset[frozenset[int]]:
    """Sets of numbers below `count` that so many rectangles without a common number make."""
    shapes = {
        frozenset(base + y * stride + x for y in range(rows) for x in range(width))
        for base in range(count)
        for width in range(1, count + 1)
        for stride in range(width, count + 1)
        for rows in range(1, count + 1)
    }
    legal = [s for s in shapes if max(s) < count]
    sums = {frozenset()}
    for _ in range(rectangles):
        sums |= {a | b for a in sums for b in legal if not a & b}
    return frozenset(sums)
