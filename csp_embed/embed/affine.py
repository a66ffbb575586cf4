"""All affine maps over a numeration of lanes and steps, many at once.

Takes: Ground, Frame, which columns a digit may have, which pairs of points exclude each other.
Leaves: maps that meet every effective point exactly once (rules 3 and 5).

Digits are added one after another, lanes first; after each, the maps in which the sub-box of the
digits so far breaks a pairwise rule are dropped: the whole box would break it too. Conventions
(origin, used ends, bounded coefficients) are those of ground/frames.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.ground.frames import STEP, Frame, bound
from csp_embed.embed.ground.problem import Ground, Ints

Place = tuple[int, ...]
# (frame, digit, column) -> whether the digit may move the coordinates so.
Column = Callable[[Frame, int, Sequence[int]], bool]
# (place, place) -> bool[N + 1, N + 1]: points that may not stand in these two places; N is pad.
Clash = Callable[[Place, Place], NDArray[np.bool_]]

_BATCH = 200_000


@dataclass(frozen=True)
class Affine:
    """const: of each coordinate. columns: digit number -> what its unit adds to each coordinate.
    at: int64[N, 1 + dimensions], step and lanes of each effective point."""

    frame: Frame
    const: tuple[int, ...]
    columns: Mapping[int, tuple[int, ...]]
    at: Ints


@dataclass
class _Partial:
    """columns: int64[M, digits so far, coordinates]. points: int64[M, places, coordinates]."""

    columns: Ints
    points: Ints

    def join(self, i: Ints, column: Ints, extent: int) -> _Partial:
        """Map i[m] with one more digit, whose column is column[m]."""
        parts = [self.points[i] + v * column[:, None, :] for v in range(extent)]
        columns = np.concatenate([self.columns[i], column[:, None, :]], axis=1)
        return _Partial(columns, np.concatenate(parts, axis=1))


class Maps:
    """The maps of one frame."""

    def __init__(
        self, ground: Ground, frame: Frame, column: Column, clash: Clash | None = None
    ) -> None:
        self.ground, self.frame, self.column, self.clash = ground, frame, column, clash
        axes = ground.op.axes
        self.extents = np.array([math.prod(axes[a] for a in c) for c in frame.coordinates])
        self.points = np.full(int(self.extents.prod()) + 1, len(ground.points), np.int64)
        for q, p in enumerate(ground.points.tolist()):
            at, flat = dict(zip(axes, p, strict=True)), 0
            for a in (a for c in frame.coordinates for a in c):
                flat = flat * axes[a] + at[a]
            self.points[flat] = q
        self.twin = dict(frame.equal)
        moving = [n for n in range(len(frame.digits)) if n not in self.twin.values()]
        self.order = sorted(moving, key=lambda n: frame.digits[n].dim == STEP)
        self.dims = [STEP, *ground.sizes]

    def __iter__(self) -> Iterator[Affine]:
        origin = np.array(list(itertools.product(*(range(e) for e in self.extents))), np.int64)
        maps = _Partial(np.zeros((len(origin), 0, len(self.extents)), np.int64), origin[:, None])
        for count in range(1, len(self.order) + 1):
            maps = self._extended(maps, self.order[:count])
            if not len(maps.points):
                return
        places = np.array(self._places(self.order), np.int64)
        codes = self._codes(maps.points)
        whole = (codes < len(self.ground.points)).sum(axis=1) == len(self.ground.points)
        for n in self.order:
            digit = self.frame.digits[n]
            value = places[:, self.dims.index(digit.dim)] // digit.radix % digit.extent
            used = (codes < len(self.ground.points)) & (value == digit.extent - 1)
            whole &= used.any(axis=1)
        for m in np.flatnonzero(whole):
            at = np.zeros((len(self.ground.points) + 1, places.shape[1]), np.int64)
            at[codes[m]] = places
            columns = zip(self.order, map(tuple, maps.columns[m].tolist()), strict=True)
            const = tuple(maps.points[m, 0].tolist())
            yield Affine(self.frame, const, dict(columns), at[:-1])

    def _extended(self, maps: _Partial, chosen: Sequence[int]) -> _Partial:
        digit = self.frame.digits[chosen[-1]]
        columns = self.columns_of(chosen[-1])
        places = self._places(chosen)
        pairs = self._pairs(places, len(places) // digit.extent)
        rank = self._rank(chosen, columns)
        batch = max(1, _BATCH // (1 + len(columns) * len(places)))
        empty = maps.join(np.zeros(0, np.int64), columns[:0], digit.extent)
        out = [empty]
        for low in range(0, len(maps.points), batch):
            part = _Partial(maps.columns[low : low + batch], maps.points[low : low + batch])
            i, j = np.nonzero(self._named_first(part, columns, digit.extent) & rank(part))
            new = part.join(i, columns[j], digit.extent)
            codes = self._codes(new.points)
            met = np.sort(codes, axis=1)
            good = ~((np.diff(met) == 0) & (met[:, 1:] < len(self.ground.points))).any(axis=1)
            for a, b, table in pairs:
                good &= ~table[codes[:, a], codes[:, b]]
            out.append(_Partial(new.columns[good], new.points[good]))
        return _Partial(
            np.concatenate([p.columns for p in out]), np.concatenate([p.points for p in out])
        )

    def columns_of(self, n: int) -> Ints:
        bounds = [bound(self.ground, c) for c in self.frame.coordinates]
        every = itertools.product(*(range(-b, b + 1) for b in bounds))
        kept = [v for v in every if any(v) and self.column(self.frame, n, v)]
        return np.array(kept, np.int64).reshape(len(kept), len(bounds))

    def _places(self, chosen: Sequence[int]) -> list[Place]:
        """Of the sub-box: the digit chosen last varies slowest."""
        out = []
        for values in itertools.product(
            *(range(self.frame.digits[n].extent) for n in chosen[::-1])
        ):
            where = dict.fromkeys(self.dims, 0)
            for n, v in zip(chosen[::-1], values, strict=True):
                for m in {n, self.twin.get(n, n)}:
                    where[self.frame.digits[m].dim] += self.frame.digits[m].radix * v
            out.append(tuple(where.values()))
        return out

    def _pairs(self, places: Sequence[Place], old: int) -> list[tuple[int, int, NDArray[np.bool_]]]:
        if self.clash is None:
            return []
        every = [(a, b) for b in range(old, len(places)) for a in range(b)]
        return [(a, b, self.clash(places[a], places[b])) for a, b in every]

    def _named_first(self, maps: _Partial, columns: Ints, extent: int) -> NDArray[np.bool_]:
        """A digit is counted from the end that comes first, if both lie in the domain."""
        origin = maps.points[:, None, 0]
        far = origin + (extent - 1) * columns[None]
        inside = ((far >= 0) & (far < self.extents)).all(axis=2)
        return ~inside | (self._flat(far) > self._flat(origin))

    def _rank(self, chosen: Sequence[int], columns: Ints) -> Callable[[_Partial], Ints]:
        """Equal digits of a dimension that are in no pair have ascending columns."""
        if len(chosen) > 1:
            a, b = (self.frame.digits[n] for n in chosen[-2:])
            paired = {n for pair in self.frame.equal for n in pair}
            if (a.dim, a.extent) == (b.dim, b.extent) and not {*chosen[-2:]} & paired:
                number = {tuple(c): n for n, c in enumerate(columns.tolist())}

                def ascending(maps: _Partial) -> Ints:
                    before = [number[tuple(c)] for c in maps.columns[:, -1].tolist()]
                    return np.arange(len(columns)) >= np.array(before, np.int64)[:, None]

                return ascending
        return lambda maps: np.ones((1, 1), bool)

    def _flat(self, points: Ints) -> Ints:
        out = np.zeros(points.shape[:-1], np.int64)
        for k, extent in enumerate(self.extents):
            out = out * extent + points[..., k]
        return out

    def _codes(self, points: Ints) -> Ints:
        """Effective point at each place; N where there is none."""
        inside = ((points >= 0) & (points < self.extents)).all(axis=-1)
        return self.points[np.where(inside, self._flat(points), len(self.points) - 1)]
