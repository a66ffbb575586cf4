"""Boxes of an operand and how they lie in its on-chip memory.

A box is what a tile touches of an operand's grid, clipped to the grid. In the memory it lies row-
major in the
region's order of dimensions. Where the outermost dimension is clipped, the box is shifted by what
is missing, so that
first and inner tiles have the same addresses and share their micro-ops.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from operator import itemgetter

from csp_embed.schedule.inputs import Map


@dataclass(frozen=True)
class Frame:
    """number: of the clipped box in the region (-1: empty). key: of box and shift together: what a
    slot holds. lo: grid index at address 0 of the
    frame, per dimension.
    pitch: elements per grid step, per dimension. shift: where the loaded part starts. elems: frame
    length. whole: nothing of the box was clipped."""

    number: int
    key: int
    lo: tuple[int, ...]
    pitch: tuple[int, ...]
    shift: int
    elems: int
    loaded: int
    whole: bool = False


@dataclass
class Frames:
    """All boxes of one operand, by counter ranges."""

    map: Map
    order: tuple[int, ...]
    boxes: list[tuple[tuple[int, int], ...]] = field(default_factory=list)
    rounds: list[int] = field(default_factory=list)
    largest: int = 0
    _numbers: dict[tuple[int, tuple[tuple[int, int], ...]], int] = field(default_factory=dict)
    _keys: dict[tuple[int, int], int] = field(default_factory=dict)
    _memo: dict[object, Frame] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.moving = tuple(c for c in range(self.map.step.shape[0]) if any(self.map.step[c]))
        outer = self.order[0] if self.order else 0
        # Called for every tile and chunk: the ranges of the counters that matter, as one key.
        self._ranges = itemgetter(*self.moving) if self.moving else lambda bounds: ()
        self._shifts = bool(self.order) and sum(1 for s in self.map.step[:, outer] if s) > 1

    def at(self, lo: tuple[int, ...], hi: tuple[int, ...], round: int = 0) -> Frame:
        """The frame for counters in [lo, hi), in a round of the contraction: an operand whose
        constants differ by round has boxes of its own in each."""
        key = (self._ranges(lo), self._ranges(hi), round)
        found = self._memo.get(key)
        if found is None:
            found = self._memo[key] = self._make(lo, hi, round)
            self.largest = max(self.largest, found.elems)
        return found

    def _make(self, lo: tuple[int, ...], hi: tuple[int, ...], round: int) -> Frame:
        wanted = self.map.box(lo, hi)
        clipped = [(max(0, a), min(b, g)) for (a, b), g in zip(wanted, self.map.grid, strict=True)]
        n = len(clipped)
        if any(a >= b for a, b in clipped):
            return Frame(-1, -1, (0,) * n, (0,) * n, 0, 0, 0)
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
        box = tuple(clipped[d] for d in self.order)
        number = self._numbers.setdefault((round, box), len(self.boxes))
        if number == len(self.boxes):
            self.boxes.append(box)
            self.rounds.append(round)
        key = self._keys.setdefault((number, shift), len(self._keys))
        return Frame(number, key, tuple(start), tuple(pitch), shift, elems, size, clipped == wanted)
