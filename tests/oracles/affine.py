"""All affine maps over a numeration of lanes and steps, many at once.

Takes: Ground, Frame, which columns a digit may have, which pairs of points exclude each other.
Leaves: maps that meet every effective point exactly once (rules 3 and 5).

Digits are added one after another, lanes first; after each, the maps in which the sub-box of the
digits so far breaks a pairwise rule are dropped: the whole box would break it too; and those whose
other places are fewer than the points missed. The last digit has to carry some place to the first
point that is missed. Conventions (origin, used ends, bounded coefficients) are those of
ground/numerations.py.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.ground.numerations import STEP, Frame, bound
from csp_embed.ir.ground import Ground, Ints

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


@dataclass(frozen=True)
class _Level:
    """One more digit: its extent, the columns it may have, table: number of a vector -> column or
    -1. places: of the sub-box. room: places that other digits will add. pairs: of places, and which
    points exclude each other there. number: the same table where columns ascend, else None."""

    extent: int
    columns: Ints
    table: Ints
    places: list[Place]
    room: int
    pairs: list[tuple[int, int, NDArray[np.bool_]]]
    number: Ints | None

    @staticmethod
    def of(maps: Maps, chosen: Sequence[int]) -> _Level:
        extent = maps.frame.digits[chosen[-1]].extent
        columns, places = maps.columns_of(chosen[-1]), maps.places(chosen)
        table = np.full(int((2 * maps.bounds + 1).prod()), -1)
        table[maps.number(columns)] = np.arange(len(columns))
        whole = math.prod(maps.frame.digits[n].extent for n in maps.order)
        pairs = maps.pairs(places, len(places) // extent)
        number = table if maps.ascending(chosen) else None
        return _Level(extent, columns, table, places, whole - len(places), pairs, number)


class Maps:
    """The maps of one frame."""

    def __init__(
        self, ground: Ground, frame: Frame, column: Column, clash: Clash | None = None
    ) -> None:
        self.ground, self.frame, self.column, self.clash = ground, frame, column, clash
        axes = ground.op.axes
        self.extents = np.array([math.prod(axes[a] for a in c) for c in frame.coordinates])
        self.bounds = np.array([bound(ground, c) for c in frame.coordinates])
        self.targets = np.zeros((len(ground.points), len(frame.coordinates)), np.int64)
        self.points = np.full(int(self.extents.prod()) + 1, len(ground.points), np.int64)
        for q, p in enumerate(ground.points.tolist()):
            at, flat = dict(zip(axes, p, strict=True)), 0
            for k, c in enumerate(frame.coordinates):
                for a in c:
                    flat = flat * axes[a] + at[a]
                    self.targets[q, k] = self.targets[q, k] * axes[a] + at[a]
            self.points[flat] = q
        self.twin = dict(frame.equal)
        moving = [n for n in range(len(frame.digits)) if n not in self.twin.values()]
        self.order = sorted(moving, key=lambda n: frame.digits[n].dim == STEP)
        self.dims = [STEP, *ground.sizes]

    def __iter__(self) -> Iterator[Affine]:
        origin = np.array(list(itertools.product(*(range(e) for e in self.extents))), np.int64)
        maps = _Partial(np.zeros((len(origin), 0, len(self.extents)), np.int64), origin[:, None])
        levels = [_Level.of(self, self.order[: n + 1]) for n in range(len(self.order))]
        places = np.array(self.places(self.order), np.int64)
        if len(places) >= len(self.ground.points):
            for whole in self._grown(maps, levels):
                yield from self._finished(whole, places)

    def _grown(self, maps: _Partial, levels: Sequence[_Level]) -> Iterator[_Partial]:
        """Batches of maps of all digits; depth first, so that few are held at a time."""
        if not levels:
            yield maps
            return
        level = levels[0]
        tried = len(level.places) * (1 if len(levels) == 1 else len(level.columns))
        batch = max(1, _BATCH // (1 + tried))
        for low in range(0, len(maps.points), batch):
            part = _Partial(maps.columns[low : low + batch], maps.points[low : low + batch])
            new = self._extended(part, level, len(levels) == 1)
            if len(new.points):
                yield from self._grown(new, levels[1:])

    def _finished(self, maps: _Partial, places: Ints) -> Iterator[Affine]:
        codes = self.codes(maps.points)
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

    def _extended(self, maps: _Partial, level: _Level, last: bool) -> _Partial:
        count, extent = len(self.ground.points), level.extent
        if last:
            i, j = self._reaching(maps, level)
        else:
            i, j = (v.ravel() for v in np.indices((len(maps.points), len(level.columns))))
        columns = level.columns[j]
        kept = self._named_first(maps.points[i, 0], columns, extent)
        if level.number is not None:
            kept &= j >= level.number[self.number(maps.columns[i, -1])]
        i, columns = i[kept], columns[kept]
        new = maps.join(i, columns, extent)
        codes = self.codes(new.points)
        met = np.sort(codes, axis=1)
        good = ~((np.diff(met) == 0) & (met[:, 1:] < count)).any(axis=1)
        good &= count - (codes < count).sum(axis=1) <= level.room
        for a, b, table in level.pairs:
            good &= ~table[codes[:, a], codes[:, b]]
        return _Partial(new.columns[good], new.points[good])

    def _reaching(self, maps: _Partial, level: _Level) -> tuple[Ints, Ints]:
        """(map, column) pairs in which the column carries a place to the first missing point."""
        count = len(self.ground.points)
        met = np.zeros((len(maps.points), count + 1), bool)
        np.put_along_axis(met, self.codes(maps.points), True, axis=1)
        missing = np.argmin(met[:, :count], axis=1)
        open_ = ~met[np.arange(len(met)), missing]
        away = self.targets[missing][:, None] - maps.points
        pairs = []
        for v in range(1, level.extent):
            column = away // v
            whole = open_[:, None] & (column * v == away).all(axis=2)
            whole &= (abs(column) <= self.bounds).all(axis=2)
            m, p = np.nonzero(whole)
            j = level.table[self.number(column[m, p])]
            pairs.append(np.stack([m[j >= 0], j[j >= 0]]))
        found = np.unique(np.concatenate(pairs, axis=1), axis=1)
        return found[0], found[1]

    def number(self, columns: Ints) -> Ints:
        """Of each column among all vectors within the bounds."""
        out = np.zeros(columns.shape[:-1], np.int64)
        for k, b in enumerate(self.bounds):
            out = out * (2 * b + 1) + columns[..., k] + b
        return out

    def columns_of(self, n: int) -> Ints:
        every = itertools.product(*(range(-b, b + 1) for b in self.bounds.tolist()))
        kept = [v for v in every if any(v) and self.column(self.frame, n, v)]
        return np.array(kept, np.int64).reshape(len(kept), len(self.bounds))

    def places(self, chosen: Sequence[int]) -> list[Place]:
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

    def pairs(self, places: Sequence[Place], old: int) -> list[tuple[int, int, NDArray[np.bool_]]]:
        if self.clash is None:
            return []
        every = [(a, b) for b in range(old, len(places)) for a in range(b)]
        return [(a, b, self.clash(places[a], places[b])) for a, b in every]

    def _named_first(self, origin: Ints, columns: Ints, extent: int) -> NDArray[np.bool_]:
        """A digit is counted from the end that comes first, if both lie in the domain."""
        far = origin + (extent - 1) * columns
        inside = ((far >= 0) & (far < self.extents)).all(axis=-1)
        return ~inside | (self._flat(far) > self._flat(origin))

    def ascending(self, chosen: Sequence[int]) -> bool:
        """Whether the last two digits may be exchanged: then their columns ascend."""
        if len(chosen) < 2:
            return False
        a, b = (self.frame.digits[n] for n in chosen[-2:])
        paired = {n for pair in self.frame.equal for n in pair}
        return (a.dim, a.extent) == (b.dim, b.extent) and not {*chosen[-2:]} & paired

    def _flat(self, points: Ints) -> Ints:
        out = np.zeros(points.shape[:-1], np.int64)
        for k, extent in enumerate(self.extents):
            out = out * extent + points[..., k]
        return out

    def codes(self, points: Ints) -> Ints:
        """Effective point at each place; N where there is none."""
        inside = ((points >= 0) & (points < self.extents)).all(axis=-1)
        return self.points[np.where(inside, self._flat(points), len(self.points) - 1)]
