"""Regular coverings by python-constraint.

Takes: Ground.  Leaves: sets of solution keys.

In a frame (numerations.py): one variable for the map's constant and one per digit, whose values are
column vectors. A constraint for every number of leading digits: the places where the others are 0
break no rule yet, and moving these places about can meet the points that are missing. (A covering's
sub-box breaks no rule but 4, 5 and 10.)
"""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from constraint import Problem

from csp_embed.embed.ground.numerations import STEP, Frame, bound, frames
from csp_embed.embed.ground.points import Key, key
from csp_embed.ir.ground import Ground
from tests.oracles.posted import Place, lane_of, single, whole


def posted_regular(ground: Ground) -> frozenset[Key]:
    """Every covering that is affine over some frame."""
    if not ground.same_kind:
        return frozenset()
    return frozenset(k for frame in frames(ground) for k in _in_frame(ground, frame))


def _in_frame(ground: Ground, frame: Frame) -> set[Key]:
    maps = _Maps(ground, frame)
    problem: Any = Problem()
    problem.addVariable("const", list(itertools.product(*(range(e) for e in maps.extents))))
    names = [f"column{n}" for n in maps.moving]
    if names and not maps.steps_to:
        return set()  # nothing that a digit could move
    if names:
        problem.addVariables(names, list(maps.steps_to))
    for count in range(len(names) + 1):
        test = maps.last() if 0 < count == len(names) else maps.leading()
        problem.addConstraint(test, ["const", *names[:count]])
    right = whole(ground)
    found = set()
    for s in problem.getSolutions():
        table = maps.table(s["const"], [s[n] for n in names])
        for places in maps.directions(table):
            if right(*places):
                found.add(key(ground, np.array(places, np.int64)))
    return found


@dataclass(frozen=True)
class _Part:
    """The leading digits' places: coordinates of each as one number, and what the points placed
    among them fix: points, slot -> tensor element and tensor element -> lane, by role."""

    codes: tuple[int, ...]
    points: frozenset[int]
    content: tuple[dict[Place, int], ...]
    homes: tuple[dict[int, Place], ...]


class _Maps:
    """Affine maps over one frame: what leading digits place where."""

    def __init__(self, ground: Ground, frame: Frame) -> None:
        self.ground, self.frame = ground, frame
        partners = {b for _, b in frame.equal}
        steps = [n for n, d in enumerate(frame.digits) if d.dim == STEP]
        lanes = [n for n in range(len(frame.digits)) if n not in partners and n not in steps]
        self.moving = [*lanes, *steps]  # lanes first: more rules bind them
        self.ends = [frame.digits[n].extent for n in self.moving]
        self.room = math.prod(self.ends)
        axes = ground.op.axes
        self.extents = [math.prod(axes[a] for a in names) for names in frame.coordinates]
        self.bounds = [bound(ground, names) for names in frame.coordinates]
        reach = sum(e - 1 for e in self.ends)
        self.widths = [
            2 * (e + reach * b) + 1 for e, b in zip(self.extents, self.bounds, strict=True)
        ]
        points = [self._coordinates(p) for p in ground.points.tolist()]
        self.index = {self._code(p): q for q, p in enumerate(points)}
        self.elements = [ground.elements[r].tolist() for r in ground.dims]
        self.once = [r in single(ground) for r in ground.dims]
        self.places = [self._place(v) for v in _counted(self.ends)]
        self.lanes = [[lane_of(ground, r, p) for r in ground.dims] for p in self.places]
        self.known: dict[tuple[Place, ...], _Part | None] = {}
        paired = {x for pair in frame.equal for x in pair}
        kind = [(d.dim, d.extent) for d in (frame.digits[n] for n in self.moving)]
        # Whether a digit may be exchanged with the one before it.
        self.after_like = [
            i > 0
            and kind[i - 1] == kind[i]
            and not {self.moving[i - 1], n} & paired
            and not (ground.ordered and n in steps)
            for i, n in enumerate(self.moving)
        ]
        ranges = (range(-b, b + 1) for b in self.bounds)
        self.steps_to = {v: self._code(v) for v in itertools.product(*ranges) if any(v)}

    def _coordinates(self, point: Sequence[int]) -> Place:
        at = dict(zip(self.ground.op.axes, point, strict=True))
        out = []
        for names in self.frame.coordinates:
            flat = 0
            for a in names:
                flat = flat * self.ground.op.axes[a] + at[a]
            out.append(flat)
        return tuple(out)

    def _code(self, vector: Sequence[int]) -> int:
        """Coordinates as one number; adds up as vectors do."""
        code = 0
        for v, width in zip(vector, self.widths, strict=True):
            code = code * width + v
        return code

    def _place(self, values: Sequence[int]) -> Place:
        where = {STEP: 0} | dict.fromkeys(self.ground.sizes, 0)
        twin = dict(self.frame.equal)
        for n, v in zip(self.moving, values, strict=True):
            for digit in (n, twin.get(n)):
                if digit is not None:
                    d = self.frame.digits[digit]
                    where[d.dim] += d.radix * v
        return tuple(where.values())

    def leading(self) -> Callable[..., bool]:
        """Whether constant and leading columns break no rule yet."""

        def test(const: Place, *columns: Place) -> bool:
            return self.part((const, *columns)) is not None

        return test

    def part(self, vectors: tuple[Place, ...]) -> _Part | None:
        """What constant and leading columns place; None where a rule is broken or the points that
        are missing have no room."""
        if vectors not in self.known:
            self.known[vectors] = self._part(vectors)
        return self.known[vectors]

    def _part(self, vectors: tuple[Place, ...]) -> _Part | None:
        *before, last = vectors
        n = len(before) - 1
        if n < 0:
            empty = tuple({} for _ in self.elements)
            return self._grown(_Part((), frozenset(), empty, empty), (self._code(last),))
        if not self._ordered(vectors[0], before[-1], last, n):
            return None
        old = self.part(tuple(before))
        if old is None:
            return None
        by = self._code(last)
        codes = tuple(c + v * by for v in range(1, self.ends[n]) for c in old.codes)
        return self._grown(old, codes)

    def last(self) -> Callable[..., bool]:
        """The last digit meets every point that is still missing, so also the first of them; it has
        to meet one, for its end is used."""
        n = len(self.ends) - 1

        @cache
        def reached(vectors: tuple[Place, ...]) -> frozenset[int]:
            part = self.part(vectors)
            if part is None:
                return frozenset()
            missing = next((c for c, q in self.index.items() if q not in part.points), None)
            return frozenset(missing - c for c in part.codes if missing is not None)

        def test(*vectors: Place) -> bool:
            by, offered = self.steps_to[vectors[-1]], reached(vectors[:-1])
            if all(v * by not in offered for v in range(1, self.ends[n])):
                return False
            return self._part(vectors) is not None

        return test

    def _ordered(self, const: Place, before: Place, column: Place, n: int) -> bool:
        """Of copies, one: exchangeable digits have ascending columns, and a digit is counted from
        the end that comes first, if both lie in the domain."""
        if self.after_like[n] and before > column:
            return False
        last = self.ends[n] - 1
        far = tuple([a + last * c for a, c in zip(const, column, strict=True)])
        return far >= const or not all(map(self._inside, far, self.extents))

    @staticmethod
    def _inside(value: int, extent: int) -> bool:
        return 0 <= value < extent

    def _grown(self, old: _Part, codes: tuple[int, ...]) -> _Part | None:
        points = set(old.points)
        content = tuple(dict(c) for c in old.content)
        homes = tuple(dict(h) for h in old.homes)
        for g, code in enumerate(codes, len(old.codes)):
            q = self.index.get(code)
            if q is None:
                continue
            if q in points:
                return None
            points.add(q)
            step = self.places[g][0]
            for r, lane in enumerate(self.lanes[g]):
                element = self.elements[r][q]
                if content[r].setdefault((step, *lane), element) != element:
                    return None
                if self.once[r] and homes[r].setdefault(element, lane) != lane:
                    return None
        every = (*old.codes, *codes)
        if len(points) + self._still(every) < len(self.index):
            return None
        return _Part(every, frozenset(points), content, homes)

    def _still(self, codes: tuple[int, ...]) -> int:
        """Most points that the digits to come can meet: they repeat these places, each time moved
        by another vector, for no point stands twice."""
        moved = Counter(point - code for point in self.index for code in codes)
        del moved[0]
        times = self.room // len(codes) - 1
        return sum(met for _, met in moved.most_common(times))

    def table(self, const: Place, columns: Sequence[Place]) -> list[Place]:
        """Place of each point; empty where a digit is not used to its end."""
        part = self.part((const, *columns))
        assert part is not None
        at: list[Place] = [()] * len(self.index)
        ends = set()
        for code, place, values in zip(part.codes, self.places, _counted(self.ends), strict=True):
            q = self.index.get(code)
            if q is not None:
                at[q] = place
                ends |= {n for n, v in enumerate(values) if v == self.ends[n] - 1}
        return at if len(ends) == len(self.ends) else []

    def directions(self, table: list[Place]) -> Iterator[list[Place]]:
        """The covering with every counter forwards or, where the order of steps counts, backwards
        too."""
        steps = [d for d in self.frame.digits if d.dim == STEP] if self.ground.ordered else []
        if not table:
            return
        for turned in itertools.product((False, True), repeat=len(steps)):
            out = []
            for step, *lanes in table:
                moved = step
                for d, turn in zip(steps, turned, strict=True):
                    v = step // d.radix % d.extent
                    moved += d.radix * (d.extent - 1 - 2 * v) if turn else 0
                out.append((moved, *lanes))
            yield out


def _counted(ends: Sequence[int]) -> list[Place]:
    """All digit values, the first digit fastest."""
    return [v[::-1] for v in itertools.product(*(range(e) for e in reversed(ends)))]
