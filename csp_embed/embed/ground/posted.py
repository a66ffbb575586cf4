"""The same definition posted to python-constraint: an enumerator that shares no model with CP-SAT.

Takes: Ground.  Leaves: sets of solution keys.

Irregular coverings: one variable per operator point, whose values are the places of one step and
its lanes, so rules 3 and 5 hold by all-different; rules 2 and 6 are binary constraints, 4 and 7 are
checked on whole assignments. Regular ones: one variable per digit, whose values are column vectors,
and one for the constant; the rules are posted on the sub-boxes of one and two digits (a covering's
sub-box breaks no rule but 4 and 5) and on the whole box.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np
from constraint import AllDifferentConstraint, Problem

from csp_embed.embed.ground.frames import STEP, Frame, bound, frames
from csp_embed.embed.ground.problem import Ground, Ints, Key, key

Place = tuple[int, ...]


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
        problem.addConstraint(_first_named_first, list(range(q + 1)))
        for p in range(q):
            problem.addConstraint(_compatible(ground, p, q), [p, q])
    problem.addConstraint(_harmless(ground), list(range(count)))
    return frozenset(
        key(ground, np.array([s[q] for q in range(count)], np.int64))
        for s in problem.getSolutions()
    )


def _first_named_first(*places: Place) -> bool:
    new = places[-1]
    return all(v <= 1 + max((p[d] for p in places[:-1]), default=-1) for d, v in enumerate(new))


def _lane(ground: Ground, role: str, place: Place) -> Place:
    return tuple(v for d, v in zip(ground.sizes, place[1:], strict=True) if d in ground.dims[role])


def _compatible(ground: Ground, p: int, q: int) -> Callable[[Place, Place], bool]:
    """Two points' places: rules 2 and 6 (and 9 for strict operands)."""
    same = {r: ground.elements[r][p] == ground.elements[r][q] for r in ground.dims}

    def test(a: Place, b: Place) -> bool:
        for role, shared in same.items():
            one_lane = _lane(ground, role, a) == _lane(ground, role, b)
            if not shared and a[0] == b[0] and one_lane:
                return False
            if shared and not one_lane and (role == "dst" or role in ground.strict):
                return False
        return True

    return test


def _harmless(ground: Ground) -> Callable[..., bool]:
    """Rules 4 and 7 on a whole assignment."""

    def test(*places: Place) -> bool:
        held: dict[str, dict[int, set[tuple[int, Place]]]] = {}
        for role in ground.dims:
            by_step: dict[int, set[tuple[int, Place]]] = {}
            for q, place in enumerate(places):
                entry = (int(ground.elements[role][q]), _lane(ground, role, place))
                by_step.setdefault(place[0], set()).add(entry)
            if role == "dst" or role in ground.strict:
                by_step = _merged(by_step)
                if any(len({lane for _, lane in v}) < len(v) for v in by_step.values()):
                    return False
            held[role] = by_step
        taken = set(places)
        for step in held["dst"]:
            live = {r: {lane for _, lane in held[r][step]} for r in held}
            for lanes in itertools.product(*(range(n) for n in ground.sizes.values())):
                place = (step, *lanes)
                if place not in taken and all(_lane(ground, r, place) in live[r] for r in held):
                    return False
        return True

    return test


def _merged(by_step: dict[int, set[tuple[int, Place]]]) -> dict[int, set[tuple[int, Place]]]:
    """Steps that share a tensor element meet one memory element: what it holds in all."""
    out = {t: set(v) for t, v in by_step.items()}
    changed = True
    while changed:
        changed = False
        for a, b in itertools.combinations(out, 2):
            if out[a] != out[b] and {e for e, _ in out[a]} & {e for e, _ in out[b]}:
                out[a] = out[b] = out[a] | out[b]
                changed = True
    return out


def posted_regular(ground: Ground) -> frozenset[Key]:
    """Every covering that is affine over some frame, by python-constraint."""
    if not ground.same_kind:
        return frozenset()
    return frozenset(k for frame in frames(ground) for k in _in_frame(ground, frame))


def _in_frame(ground: Ground, frame: Frame) -> set[Key]:
    maps = _Maps(ground, frame)
    problem: Any = Problem()
    problem.addVariable("const", list(itertools.product(*(range(e) for e in maps.extents))))
    columns = itertools.product(*(range(-b, b + 1) for b in maps.bounds))
    vectors = [v for v in columns if any(v)]
    names = [f"column{n}" for n in maps.moving]
    if names:
        problem.addVariables(names, vectors)
    for count in (1, 2):
        for chosen in itertools.combinations(range(len(names)), count):
            if count < len(names):
                part = ["const", *(names[n] for n in chosen)]
                problem.addConstraint(maps.partial(chosen), part)
    for a, b in itertools.pairwise(range(len(names))):
        if maps.exchangeable(a, b):
            problem.addConstraint(lambda u, v: u <= v, [names[a], names[b]])
    for n, name in enumerate(names):
        problem.addConstraint(maps.origin(n), ["const", name])
    problem.addConstraint(maps.complete, ["const", *names])
    found = set()
    for s in problem.getSolutions():
        found.add(key(ground, maps.table(s["const"], [s[n] for n in names])))
    return found


class _Maps:
    """Affine maps over one frame: what they place where, and which rules a part of them breaks."""

    def __init__(self, ground: Ground, frame: Frame) -> None:
        self.ground, self.frame = ground, frame
        partners = {b for _, b in frame.equal}
        self.moving = [n for n in range(len(frame.digits)) if n not in partners]
        axes = ground.op.axes
        self.extents = [math.prod(axes[a] for a in names) for names in frame.coordinates]
        self.bounds = [bound(ground, names) for names in frame.coordinates]
        self.index = {self._coordinates(p): q for q, p in enumerate(ground.points.tolist())}
        self.elements = {r: v.tolist() for r, v in ground.elements.items()}
        self.whole = self._box(range(len(self.moving)))

    def _coordinates(self, point: Sequence[int]) -> Place:
        at = dict(zip(self.ground.op.axes, point, strict=True))
        out = []
        for names in self.frame.coordinates:
            flat = 0
            for a in names:
                flat = flat * self.ground.op.axes[a] + at[a]
            out.append(flat)
        return tuple(out)

    def exchangeable(self, a: int, b: int) -> bool:
        """Equal digits of one dimension, none of them in a diagonal."""
        m, n = self.moving[a], self.moving[b]
        paired = {x for pair in self.frame.equal for x in pair}
        one, two = self.frame.digits[m], self.frame.digits[n]
        return (one.dim, one.extent) == (two.dim, two.extent) and not {m, n} & paired

    def _box(self, chosen: Sequence[int]) -> list[tuple[Place, Place, dict[str, Place]]]:
        """(digit values, place, lane of each operand) of the sub-box where the chosen digits
        move."""
        out = []
        ranges = [range(self.frame.digits[self.moving[n]].extent) for n in chosen]
        twin = dict(self.frame.equal)
        for values in itertools.product(*ranges):
            where = {STEP: 0} | dict.fromkeys(self.ground.sizes, 0)
            for n, v in zip(chosen, values, strict=True):
                for digit in (self.moving[n], twin.get(self.moving[n])):
                    if digit is not None:
                        d = self.frame.digits[digit]
                        where[d.dim] += d.radix * v
            place = tuple(where.values())
            lanes = {r: _lane(self.ground, r, place) for r in self.ground.dims}
            out.append((values, place, lanes))
        return out

    def places(
        self, const: Place, columns: Sequence[Place], box: Sequence[tuple[Place, Place, Any]]
    ) -> list[tuple[int, Place, dict[str, Place]]]:
        """(effective point, place, lane of each operand) where a box holds one."""
        out = []
        for values, place, lanes in box:
            point = list(const)
            for v, column in zip(values, columns, strict=True):
                if v:
                    point = [p + v * c for p, c in zip(point, column, strict=True)]
            q = self.index.get(tuple(point))
            if q is not None:
                out.append((q, place, lanes))
        return out

    def table(self, const: Place, columns: Sequence[Place]) -> Ints:
        """Place of each point."""
        at = np.zeros((len(self.index), 1 + len(self.ground.sizes)), np.int64)
        for q, place, _ in self.places(const, columns, self.whole):
            at[q] = place
        return at

    def partial(self, chosen: Sequence[int]) -> Callable[..., bool]:
        """Rules 2, 3, 6 and 9 on a sub-box."""
        box = self._box(chosen)

        @cache
        def test(const: Place, *columns: Place) -> bool:
            return self._consistent(self.places(const, columns, box))

        return test

    def origin(self, n: int) -> Callable[[Place, Place], bool]:
        """A digit is counted from the end that comes first, if both lie in the domain."""
        last = self.frame.digits[self.moving[n]].extent - 1

        def test(const: Place, column: Place) -> bool:
            far = tuple(a + last * c for a, c in zip(const, column, strict=True))
            inside = all(0 <= f < e for f, e in zip(far, self.extents, strict=True))
            return far >= const or not inside

        return test

    def _consistent(self, placed: Sequence[tuple[int, Place, dict[str, Place]]]) -> bool:
        if len({q for q, _, _ in placed}) < len(placed):
            return False
        for role, elements in self.elements.items():
            content: dict[tuple[int, Place], int] = {}
            homes: dict[int, Place] = {}
            single = role == "dst" or role in self.ground.strict
            for q, place, lanes in placed:
                lane, element = lanes[role], elements[q]
                if content.setdefault((place[0], lane), element) != element:
                    return False
                if single and homes.setdefault(element, lane) != lane:
                    return False
        return True

    def complete(self, const: Place, *columns: Place) -> bool:
        """All rules on the whole box, and every digit used to its end."""
        placed = self.places(const, columns, self.whole)
        if len(placed) != len(self.index) or not self._consistent(placed):
            return False
        at = [tuple(row) for row in self.table(const, columns).tolist()]
        for n in self.moving:
            d = self.frame.digits[n]
            where = [STEP, *self.ground.sizes].index(d.dim)
            if not any(p[where] // d.radix % d.extent == d.extent - 1 for p in at):
                return False
        return _harmless(self.ground)(*at)
