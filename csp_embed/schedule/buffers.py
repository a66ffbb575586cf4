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


class _Span(NamedTuple):
    """One grid dimension of a box: [low, high) is wanted, [a, b) of it lies in the grid. at: index
    of the counters' first values. guard: the bound that the grid puts on them, where some lie
    outside."""

    low: int
    high: int
    a: int
    b: int
    at: int
    guard: tuple[Constraint, ...]


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
        # A dimension has few ranges, and boxes are their combinations.
        self._spans: list[dict[object, _Span]] = [{} for _ in m.grid]
        self._movers = [[c for c, _ in movers] for movers in m.movers]
        self._coefs: dict[tuple[int, ...], tuple[int, ...]] = {}

    def of(self, key: object, lo: Range, hi: Range) -> Shape:
        """The box for counters in [lo, hi); key: of the ranges of those that move it."""
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._make(lo, hi)
        return found

    def _make(self, lo: Range, hi: Range) -> Shape:
        spans = []
        for known, movers in zip(self._spans, self._movers, strict=True):
            key = tuple([(lo[c], hi[c]) for c in movers])
            span = known.get(key)
            if span is None:
                span = known[key] = self._span(len(spans), lo, hi)
            spans.append(span)
        n = len(spans)
        pitch, first = [0] * n, [0] * n
        size, start, shift, elems = 1, 0, 0, 1
        for d in reversed(self.order):
            low, high, a, b, at, _ = spans[d]
            if a >= b:
                nothing = Form(-1, (0,) * len(lo), 0, ())
                return Shape(None, (0,) * n, (0,) * n, 0, 0, nothing, 0)
            pitch[d], first[d] = size, a
            if self._shifts and d == self.order[0]:
                first[d], shift = low, (a - low) * size
                elems = (high - low) * size
            else:
                elems = size * (b - a)
            start += (at - first[d]) * size
            size *= b - a
        box = tuple([spans[d][2:4] for d in self.order])
        guards = tuple([g for span in spans for g in span.guard])
        steps = tuple(pitch)
        coefs = self._coefs.get(steps)
        if coefs is None:
            coefs = self._coefs[steps] = self._columns(steps, len(lo))
        number = self._forms.setdefault((coefs, guards), len(self._forms))
        form = Form(number, coefs, start - sum(map(mul, coefs, lo)), guards)
        return Shape(box, tuple(first), steps, shift, elems, form, start)

    def _span(self, d: int, lo: Range, hi: Range) -> _Span:
        m, steps, size = self.map, self._steps[d], self.map.grid[d]
        low, high = m.box(lo, hi)[d]
        at = m.origin[d] + sum(map(mul, steps, lo))
        outside = low < 0 or high > size
        guard = ((steps, at, size),) if outside else ()
        return _Span(low, high, max(low, 0), min(high, size), at, guard)

    def _columns(self, pitch: tuple[int, ...], counters: int) -> tuple[int, ...]:
        coefs = [0] * counters
        for p, movers in zip(pitch, self.map.movers, strict=True):
            for c, s in movers:
                coefs[c] += s * p
        return tuple(coefs)


class Frames:
    """All boxes of one operand in one schedule, by counter ranges."""

    def __init__(self, shapes: Shapes) -> None:
        self.shapes, self.map, self.order = shapes, shapes.map, shapes.order
        self.boxes: list[Box] = []
        self.rounds: list[int] = []
        self.largest = 0
        # The ranges of the counters that matter, as one key.
        self._ranges = itemgetter(*shapes.moving) if shapes.moving else lambda bounds: ()
        self._numbers: dict[tuple[int, Box], int] = {}
        self._keys: dict[tuple[int, int], int] = {}
        self._memo: dict[object, Frame] = {}

    def at(self, lo: Range, hi: Range, turn: int = 0) -> Frame:
        """The frame for counters in [lo, hi), in a round of the contraction: an operand whose
        constants differ by round has boxes of its own in each."""
        key = (self._ranges(lo), self._ranges(hi))
        found = self._memo.get((key, turn))
        if found is None:
            found = self._memo[key, turn] = self._number(self.shapes.of(key, lo, hi), turn)
        return found

    def _number(self, shape: Shape, turn: int) -> Frame:
        if shape.box is None:
            return Frame(-1, -1, shape)
        number = self._numbers.setdefault((turn, shape.box), len(self.boxes))
        if number == len(self.boxes):
            self.boxes.append(shape.box)
            self.rounds.append(turn)
        self.largest = max(self.largest, shape.elems)
        return Frame(number, self._keys.setdefault((number, shape.shift), len(self._keys)), shape)


def joined(outer: Range, inner: Range, reduced: Sequence[bool]) -> Range:
    """Bounds of a chunk in a tile: `outer` of the output counters, `inner` of the reduced ones."""
    return tuple([b if r else a for a, b, r in zip(outer, inner, reduced, strict=True)])
