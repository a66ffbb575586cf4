"""Boxes of an operand and how they lie in its on-chip memory.

A box is what a tile touches of an operand's grid, clipped to the grid. In the memory it lies row-
major in the
region's order of dimensions. Where the outermost dimension is clipped, the box is shifted by what
is missing, so that
first and inner tiles have the same addresses and share their micro-ops.
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import itemgetter, mul
from typing import NamedTuple

from csp_embed.ir.schedule import Box
from csp_embed.schedule.inputs import Map
from csp_embed.schedule.points import Constraint

Range = tuple[int, ...]
"""A bound per counter."""


class Form(NamedTuple):
    """The element of an operand, from its frame's first: constant + sum of coefs * counter; and the
    bounds that its grid puts on counters counted from the box's first. number: equal for equal
    coefs and guards, within one embedding."""

    number: int
    coefs: tuple[int, ...]
    constant: int
    guards: tuple[Constraint, ...]

    def first(self, lo: Range) -> int:
        """The element of the counters `lo`."""
        return self.constant + sum(map(mul, self.coefs, lo))


class Shape(NamedTuple):
    """A box but for its numbers in a schedule. box: clipped, in the region's order; None: empty.
    lo: grid index at address 0 of the frame, per dimension. pitch: elements per grid step, per
    dimension. shift: where the loaded part starts. elems: frame length. start: address of the first
    point."""

    box: Box | None
    lo: tuple[int, ...]
    pitch: tuple[int, ...]
    shift: int
    elems: int
    form: Form
    start: int


class Frame(NamedTuple):
    """number: of the clipped box in the region (-1: empty). key: of box and shift together: what a
    slot holds."""

    number: int
    key: int
    shape: Shape


class Shapes:
    """Boxes of one operand in one order of dimensions, by counter ranges: what the schedules of an
    embedding share. forms: numbers of what forms are equal in, by operand and order alike."""

    def __init__(self, m: Map, order: tuple[int, ...], forms: dict[object, int]) -> None:
        self.map, self.order = m, order
        self.moving = tuple(c for c in range(m.step.shape[0]) if any(m.step[c]))
        outer = order[0] if order else 0
        self._shifts = bool(order) and sum(1 for s in m.step[:, outer] if s) > 1
        self._steps = [tuple(int(s) for s in m.step[:, d]) for d in range(len(m.grid))]
        self._forms = forms
        self._memo: dict[object, Shape] = {}

    def of(self, key: object, lo: Range, hi: Range) -> Shape:
        """The box for counters in [lo, hi); key: of the ranges of those that move it."""
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._make(lo, hi)
        return found

    def _make(self, lo: Range, hi: Range) -> Shape:
        grid = self.map.grid
        wanted = self.map.box(lo, hi)
        clipped = [
            (a if a > 0 else 0, b if b < g else g) for (a, b), g in zip(wanted, grid, strict=True)
        ]
        n = len(clipped)
        if any(a >= b for a, b in clipped):
            nothing = Form(-1, (0,) * len(lo), 0, ())
            return Shape(None, (0,) * n, (0,) * n, 0, 0, nothing, 0)
        pitch = [0] * n
        size = 1
        for d in reversed(self.order):
            pitch[d] = size
            size *= clipped[d][1] - clipped[d][0]
        start = [a for a, _ in clipped]
        shift, elems = 0, size
        if self._shifts:
            d = self.order[0]
            start[d] = wanted[d][0]
            shift = (clipped[d][0] - wanted[d][0]) * pitch[d]
            elems = (wanted[d][1] - wanted[d][0]) * pitch[d]
        box = tuple([clipped[d] for d in self.order])
        form = self._form(lo, start, pitch, [] if clipped == wanted else wanted)
        return Shape(box, tuple(start), tuple(pitch), shift, elems, form, form.first(lo))

    def _form(
        self, lo: Range, start: list[int], pitch: list[int], wanted: list[tuple[int, int]]
    ) -> Form:
        """wanted: of a box that was clipped, else empty."""
        m = self.map
        coefs, constant = [0] * len(lo), 0
        for d, p in enumerate(pitch):
            constant += (m.origin[d] - start[d]) * p
            for c, s in m.movers[d]:
                coefs[c] += s * p
        guards = tuple(
            (self._steps[d], m.origin[d] + sum(map(mul, self._steps[d], lo)), m.grid[d])
            for d, (a, b) in enumerate(wanted)
            if a < 0 or b > m.grid[d]
        )
        columns = tuple(coefs)
        number = self._forms.setdefault((columns, guards), len(self._forms))
        return Form(number, columns, constant, guards)


class Frames:
    """All boxes of one operand in one schedule, by counter ranges."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes, self.map, self.order = shapes, shapes.map, shapes.order
        self.boxes: list[Box] = []
        self.largest = 0
        # The ranges of the counters that matter, as one key.
        self._ranges = itemgetter(*shapes.moving) if shapes.moving else lambda bounds: ()
        self._numbers: dict[Box, int] = {}
        self._keys: dict[tuple[int, int], int] = {}
        self._memo: dict[object, Frame] = {}

    def at(self, lo: Range, hi: Range) -> Frame:
        """The frame for counters in [lo, hi)."""
        key = (self._ranges(lo), self._ranges(hi))
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._number(self.shapes.of(key, lo, hi))
        return found

    def _number(self, shape: Shape) -> Frame:
        if shape.box is None:
            return Frame(-1, -1, shape)
        number = self._numbers.setdefault(shape.box, len(self.boxes))
        if number == len(self.boxes):
            self.boxes.append(shape.box)
        self.largest = max(self.largest, shape.elems)
        return Frame(number, self._keys.setdefault((number, shape.shift), len(self._keys)), shape)


def joined(outer: Range, inner: Range, reduced: Sequence[bool]) -> Range:
    """Bounds of a chunk in a tile: `outer` of the output counters, `inner` of the reduced ones."""
    return tuple([b if r else a for a, b, r in zip(outer, inner, reduced, strict=True)])
