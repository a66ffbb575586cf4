"""Finds a regular covering in a frame by filling: for problems too large for the solver.

Takes: Ground, Frame.  Leaves: places of all points, or None.

The first point of the domain that is not met yet must be met by a digit that has no column yet. So:
choose the digit, let it carry some place that is known to the point, refuse what breaks a rule, go
on. Not complete (the domain's corner is the origin, which counters carry on, points without effect
are met as well, and only so many attempts are made): None proves nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from csp_embed.embed.ground.numerations import STEP, Frame
from csp_embed.ir.ground import Ground, Ints
from csp_embed.ir.operator import Role

MOST_ATTEMPTS = 300


@dataclass(frozen=True)
class _Known:
    """Places of the digits that have columns. at: their coordinates. step, lanes: where they are.
    slots: per role, step and lane as one number. point: of each point of the domain, its place or
    -1.
    content: per role, slot -> tensor element or -1. homes: tensor element of the result -> lane."""

    at: Ints
    step: Ints
    lanes: Ints
    slots: list[Ints]
    point: Ints
    content: list[Ints]
    homes: dict[Role, Ints]


def fill(ground: Ground, frame: Frame, most: int = MOST_ATTEMPTS) -> tuple[Ints | None, int]:
    """Step and lanes of every point, as of `problem.key`, or None; columns that were tried."""
    filling = _Filling(ground, frame, most)
    return filling.solve(), most - max(filling.left, 0)


class _Filling:
    def __init__(self, ground: Ground, frame: Frame, most: int) -> None:
        self.ground, self.frame, self.left = ground, frame, most
        # Coordinates may be several axes flattened; the domain is their product.
        axes = ground.op.axes
        self.extents = np.array([math.prod(axes[a] for a in c) for c in frame.coordinates])
        grid = np.indices(tuple(self.extents)).reshape(len(self.extents), -1)
        self.domain = grid.T.astype(np.int64)
        # Points without effect are in the domain too, as -1.
        self.effective = np.full(len(self.domain), -1)
        flat = self._number(np.stack([self._flat(c) for c in frame.coordinates], axis=1))
        self.effective[flat] = np.arange(len(flat))
        self.flat = flat
        self.steps = math.prod(d.extent for d in frame.digits if d.dim == STEP)
        self.twin = dict(frame.equal)
        # The second of a diagonal's digits moves with the first.
        moving = [n for n in range(len(frame.digits)) if n not in self.twin.values()]
        # So many places can be met at all: a place for each value of all digits.
        self.room = math.prod(frame.digits[n].extent for n in moving)
        self.moving = moving
        self.still = {n: self._kernel(n) for n in moving}

    def _flat(self, names: Sequence[str]) -> Ints:
        axes = list(self.ground.op.axes)
        out = np.zeros(len(self.ground.points), np.int64)
        for a in names:
            out = out * self.ground.op.axes[a] + self.ground.points[:, axes.index(a)]
        return out

    def _number(self, at: Ints) -> Ints:
        out = np.zeros(len(at), np.int64)
        for i, e in enumerate(self.extents):
            out = out * e + at[:, i]
        return out

    def _dims(self, digit: int) -> set[str]:
        both = [digit] + ([self.twin[digit]] if digit in self.twin else [])
        return {self.frame.digits[n].dim for n in both}

    def _kernel(self, digit: int) -> Ints:
        """Rows that the digit's column must turn to 0: indices of operands that do not see it."""
        rows: list[list[int]] = []
        dims = self._dims(digit)
        for role, access in self.ground.accesses.items():
            # An operand that sees the digit may move with it.
            if dims & {STEP, *self.ground.dims[role]}:
                continue
            for ix in access.index:
                single = [ix.coef(c[0]) if len(c) == 1 else 0 for c in self.frame.coordinates]
                rows.append(single)
                # A flattened coordinate that the operand reads must not move at all.
                for i, c in enumerate(self.frame.coordinates):
                    if len(c) > 1 and any(ix.coef(a) for a in c):
                        rows.append([int(j == i) for j in range(len(single))])
        return np.array(rows, np.int64).reshape(len(rows), len(self.extents))

    def solve(self) -> Ints | None:
        ground = self.ground
        count = len(ground.sizes)
        # The domain's corner stands at the first place: step 0, lane 0.
        known = _Known(
            at=self.domain[:1],
            step=np.zeros(1, np.int64),
            lanes=np.zeros((1, count), np.int64),
            slots=[np.zeros(1, np.int64) for _ in ground.dims],
            point=np.full(len(self.domain), -1),
            content=[np.full(self.steps * ground.lane_count(r), -1) for r in ground.dims],
            homes={r: np.full(ground.counts[r], -1) for r in [Role.DST, *sorted(ground.strict)]},
        )
        if self.room < len(self.domain):
            return None
        start = self._placed(known, known.at, known.step, known.lanes, known.slots)
        found = None if start is None else self._extend(start, self.moving)
        if found is None:
            return None
        return np.column_stack([found.step, found.lanes])[found.point[self.flat]]

    def _extend(self, known: _Known, digits: Sequence[int]) -> _Known | None:
        if not np.any(known.point[self.flat] < 0):
            return known
        # The first point that is missing: some digit without a column must reach it.
        goal = self.domain[np.flatnonzero(known.point < 0)[0]]
        options: list[tuple[float, bool, int, int, _Known]] = []
        for n in self._kinds(digits):
            for column in self._columns(known, goal, n):
                self.left -= 1
                if self.left < 0:
                    return None
                grown = self._grown(known, n, column)
                if grown is not None:
                    dense = np.count_nonzero(grown.point >= 0) / len(grown.at)
                    options.append(
                        # Dense ones first, lanes before steps: counters are left for what lanes
                        # cannot reach.
                        (-dense, self.frame.digits[n].dim == STEP, len(options), n, grown)
                    )
        for *_, n, grown in sorted(options, key=lambda o: o[:3]):
            found = self._extend(grown, [m for m in digits if m != n])
            # All attempts are spent: no other option is looked at either.
            if found is not None or self.left < 0:
                return found
        return None

    def _kinds(self, digits: Sequence[int]) -> Iterator[int]:
        """One of each set of digits that may be exchanged."""
        seen: set[tuple[object, ...]] = set()
        for n in digits:
            kind = (self.frame.digits[n].extent, *sorted(self._dims(n)))
            if kind not in seen:
                seen.add(kind)
                yield n

    def _columns(self, known: _Known, goal: Ints, digit: int) -> Ints:
        """Columns that carry a known place (a counter: the origin) to the goal."""
        # Counters carry on from the origin only; lane digits from any known place.
        at = known.at[:1] if self.frame.digits[digit].dim == STEP else known.at
        columns = np.unique(goal - at, axis=0)
        # Columns that would move an operand which does not see the digit.
        rows = self.still[digit]
        return columns[~np.any(columns @ rows.T, axis=1)] if len(rows) else columns

    def _grown(self, known: _Known, digit: int, column: Ints) -> _Known | None:
        ground = self.ground
        values = np.arange(1, self.frame.digits[digit].extent)
        # All multiples of the column, added to all known places.
        at = (known.at + values[:, None, None] * column).reshape(-1, known.at.shape[1])
        lanes = np.zeros(len(ground.sizes), np.int64)
        step = 0
        for n in [digit] + ([self.twin[digit]] if digit in self.twin else []):
            d = self.frame.digits[n]
            if d.dim == STEP:
                step += d.radix
            else:
                lanes[list(ground.sizes).index(d.dim)] += d.radix
        slots: list[Ints] = []
        for r, old in zip(ground.dims, known.slots, strict=True):
            by = step * ground.lane_count(r) + ground.lane_of(r, lanes.tolist())
            slots.append((old + values[:, None] * by).ravel())
        return self._placed(
            known,
            at,
            (known.step + values[:, None] * step).ravel(),
            (known.lanes + values[:, None, None] * lanes).reshape(len(at), len(lanes)),
            slots,
        )

    def _placed(
        self, known: _Known, at: Ints, step: Ints, lanes: Ints, slots: list[Ints]
    ) -> _Known | None:
        """Known places and new ones; None where a rule is broken or the room is too small."""
        ground, old = self.ground, len(known.at) if known.point[0] >= 0 else 0
        inside = np.all((at >= 0) & (at < self.extents), axis=1)
        hit = np.flatnonzero(inside)
        met = self._number(at[hit])
        # Met twice, or once already: not injective.
        if np.any(known.point[met] >= 0) or len(np.unique(met)) < len(met):
            return None
        point = known.point.copy()
        point[met] = old + hit
        # What is missing must still find room in the places that are left.
        if np.count_nonzero(point[self.flat] < 0) > self.room - old - len(at):
            return None
        real = self.effective[met] >= 0
        hit, met = hit[real], self.effective[met[real]]
        content: list[Ints] = []
        homes: dict[Role, Ints] = {}
        for role, before, slot in zip(ground.dims, known.content, slots, strict=True):
            elements = ground.elements[role][met]
            after = _written(before, slot[hit], elements)
            # Two elements in one slot: operands do not agree.
            if after is None:
                return None
            content.append(after)
            # The result, and strict operands, have one home for each element.
            if role in known.homes:
                home = _written(known.homes[role], elements, slot[hit] % ground.lane_count(role))
                if home is None:
                    return None
                homes[role] = home
        if old == 0:
            return _Known(at, step, lanes, slots, point, content, homes)
        return _Known(
            np.concatenate([known.at, at]),
            np.concatenate([known.step, step]),
            np.concatenate([known.lanes, lanes]),
            [np.concatenate(pair) for pair in zip(known.slots, slots, strict=True)],
            point,
            content,
            homes,
        )


def _written(table: Ints, where: Ints, what: Ints) -> Ints | None:
    """The table with entries added; None where two differ in one place."""
    if np.any((table[where] >= 0) & (table[where] != what)):
        return None
    out = table.copy()
    out[where] = what
    # Two entries for one place in the same call.
    return out if np.array_equal(out[where], what) else None
