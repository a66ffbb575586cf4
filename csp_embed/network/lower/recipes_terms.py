"""The recipe that makes its products once: sums times two factors, by shifts and additions.

Takes: a search (recipe.py).  Leaves: a `Recipe`, or why none was found. A sum k is kept. Then
((k >> p) + k >> q) + k ... is k times a factor with so many ones, divided by a power of two and
rounded down once: floor((floor(a / 2^p) + k) / 2^q) = floor((a + 2^p k) / 2^(p + q)). The result is
kept in turn and multiplied alike by a second, short factor: a product of two factors of few ones
lies nearer to a number than one factor of as many. Channels have shifts of their own, a tensor's.
Before all that the sum is shifted left, so that what rounding down loses is a small part of it;
where the range of sums leaves no bits for that, they are clipped to where stored values change.

One constant may not suit all levels. What tells which one a sum takes (`_Kind`):
    sign    of what is kept for the short factor: halves that go away from zero
    odd     a first product by the short factor, whose number is odd or even: halves to even
And single sums may be reached too early (recipes_points.py says why): such a sum, a hit, is made
one less before all else. clip(k - hit + 1, 0, 2) is odd at the hit alone, so shifted left and right
by 31 it is -1 there and else 0.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np

from csp_embed.network.lower.recipe import WIDE, Recipe, Search
from csp_embed.network.lower.recipes_terms_rounds import Chosen, Factor, rounds_of
from csp_embed.network.lower.recipes_windows import (
    LONG,
    UNIT,
    Sampled,
    Windows,
    early_windows,
    exact_windows,
    parities,
)  # fmt: skip
from csp_embed.network.lower.thresholds import Ints

SHORT = 17  # bits behind the first one of the short factor
MOST = 16  # ones of the long factor that are worth trying
TRIED = 6  # pairs of factors a channel whose sums are looked at
MOST_HITS = 96
HIT = 10  # cycles a vector
LEAST = 20  # cycles a vector, below which there is none to be expected
FEW = 8  # bits of room, with which nothing is gained by clipping
STEEP = 256
SLACK = 64  # sums below the first level that are left as they are: hits lie there
_Kind = Literal["one", "sign", "odd"]
_TELLING: tuple[tuple[_Kind, int], ...] = (("one", 0), ("odd", 18))  # and about what it costs


def terms(task: Search) -> Recipe | str:
    """Exact with one constant for all sums, with one for each sign, or with hits."""
    live = np.flatnonzero(task.live)
    if not live.size or (task.rule.slope[live] <= 0).any():
        return "terms: it has no slope"
    # From one sum to the next it passes all stored values; windows are numbers of 64 bits.
    if task.rule.slope[live].max() >= STEEP:
        return f"terms: a multiplier of {STEEP} or more"
    plain = _of_room(task, live, False)
    if isinstance(plain, Recipe) and _room(task, live, *_ends(task, live, False)) >= FEW:
        return plain
    clipped = _of_room(task, live, True)
    found = [r for r in (plain, clipped) if isinstance(r, Recipe)]
    return min(found, key=lambda r: r.extra(task.steps)) if found else plain


def _ends(task: Search, live: Ints, clipped: bool) -> tuple[Ints, Ints]:
    """Of the sums that are multiplied."""
    rule, reached = task.rule, task.first[live]
    low, high = rule.low[live], rule.high[live]
    if not clipped:
        return low, high
    # Beyond the first and the last threshold that a sum can reach, nothing changes.
    least = np.maximum(low, reached.min(axis=1) - SLACK)
    inside = np.where(reached <= high[:, None], reached, least[:, None])
    return least, np.minimum(high, inside.max(axis=1) + 1)


def _of_room(task: Search, live: Ints, clipped: bool) -> Recipe | str:
    rule, (low, high) = task.rule, _ends(task, live, clipped)
    room = _room(task, live, low, high)
    if clipped and room < _room(task, live, *_ends(task, live, False)) + 2:
        return "terms: clipping its sums leaves no more bits"
    if room < 0:
        return "terms: its sums leave no bits for fractions"
    hunt = _Hunt(task, live, room, (low, high) if clipped else None, "one", 0)
    kinds: tuple[_Kind, ...] = ("one",) if rule.even else ("one", "sign")
    for kind in kinds:
        windows = exact_windows(task, live, kind == "sign")
        if windows is not None:
            return replace(hunt, kind=kind).searched(windows)
    return _with_hits(hunt) if rule.even else "terms: some channels have no factor"


def _with_hits(hunt: _Hunt) -> Recipe | str:
    """The cheapest of as few hits as there can be, and some more: those take shorter factors."""
    kinds: list[tuple[int, _Kind, Sampled]] = []
    for kind, price in _TELLING:
        sampled = early_windows(hunt.task, hunt.live, kind == "odd")
        fewest = int(sampled.fewest.max())
        kinds.append((HIT * fewest + price, kind, sampled))
        if HIT * fewest <= _TELLING[1][1]:
            break
    # The other kind only where the one that seems cheaper has no factors.
    for _, kind, sampled in sorted(kinds, key=lambda k: k[0]):
        fewest = int(sampled.fewest.max())
        found: list[Recipe] = []
        for hits in (fewest, fewest + 2) if fewest <= MOST_HITS else ():
            made = replace(hunt, kind=kind, hits=hits).searched(sampled.within(hits))
            found += [made] if isinstance(made, Recipe) else []
        if found:
            return min(found, key=lambda r: r.extra(hunt.task.steps))
    return f"terms: some channels have more than {MOST_HITS} sums that are reached too early"


def _room(task: Search, live: Ints, low: Ints, high: Ints) -> int:
    """Bits by which all sums may be shifted left: twice two factors below 2 stay in int32, and the
    last shift is one of at most 31."""
    most = int(np.maximum(np.abs(low), np.abs(high)).max()) + MOST_HITS
    slope = -np.floor(np.log2(task.rule.slope[live])).astype(np.int64)
    return min(28 - most.bit_length(), 30 - int(slope.max()))


@dataclass(frozen=True, eq=False)
class _Hunt:
    """Of the channels `live`. room: bits by which sums are shifted left. clip: ends to which they
    are clipped before. kind: what tells constants apart. hits: so many at most."""

    task: Search
    live: Ints
    room: int
    clip: tuple[Ints, Ints] | None
    kind: _Kind
    hits: int

    def searched(self, windows: Windows) -> Recipe | str:
        """The fewest ones with which all channels have a pair of factors, tried on their sums."""
        table = _ones(windows, self.live.size)
        # Odd and even take the short factor twice.
        each = 8 if self.kind == "odd" else 4
        order = sorted(
            (each * n + 4 * int(costs) + (3 if n > 1 else 0), n, int(costs))
            for n, costs in enumerate(table.max(axis=1))
            if (n > 1 if self.kind == "odd" else n > 0) and costs <= MOST
        )
        for _, short, long in order[:2]:
            for more in (0, 1):
                made = self._tried(windows, (long + more, short))
                if made is not None:
                    return made
        return "terms: no pair of factors is near enough"

    def _tried(self, windows: Windows, ones: tuple[int, int]) -> Recipe | None:
        """With factors of so many ones, long and short; None where a channel has none or too many
        hits."""
        size = self.live.size
        # A factor of 1 has no lower place that could be taken apart.
        options = [s for n in range(min(2, ones[1]), ones[1] + 1) for s in SHORTS[n]]
        fits = np.zeros((len(options), size), bool)
        longs = np.zeros((len(options), size), np.int64)
        for n, short in enumerate(options):
            count, longs[n] = windows.ones(short)
            fits[n] = (count <= ones[0]) & ((count > 1) | (ones[0] == 1))
        best, chosen = np.full(size, WIDE), Chosen.none(size, ones)
        # The turns of a channel are its fitting options, in their order.
        number = np.cumsum(fits, axis=0)
        for turn in range(1, TRIED + 1):
            rows = np.flatnonzero((best > self.hits) & (number[-1] >= turn))
            if not rows.size:
                break
            at = (number[:, rows] == turn).argmax(axis=0)
            one = self._pair(rows, longs[at, rows], np.array(options)[at], ones)
            count, one = self._constants(rows, one)
            better = count < best[rows]
            best[rows[better]] = count[better]
            chosen = chosen.with_rows(rows[better], one.rows(np.flatnonzero(better)))
        if (best > self.hits).any():
            return None
        hits = self._hits(chosen) if self.task.rule.even else np.zeros((0, size), np.int64)
        ceilings = None if self.clip is None else self.clip[1]
        floors = None if self.clip is None else self.clip[0]
        return rounds_of(self.task, self.live, self.room, chosen, hits, floors, ceilings,
                         self.kind)  # fmt: skip

    def _pair(self, rows: Ints, long: Ints, short: Ints, ones: tuple[int, int]) -> Chosen:
        """Some channels' factors and last shift."""
        # Both lie in 1 .. 2: the rest of the slope is a shift.
        slope = self.task.rule.slope[self.live[rows]]
        amount = np.rint(self.room - np.log2(slope / (long / 2.0**LONG * short))).astype(np.int64)
        origin = np.broadcast_to(self.task.rule.origin, self.task.live.shape)[self.live[rows]]
        near = np.rint((origin + 1) * 2.0**amount).astype(np.int64)
        first = Factor.of(long, LONG, ones[0])
        second = Factor.of(np.rint(short * 2.0**SHORT).astype(np.int64), SHORT, ones[1])
        nothing = np.zeros(rows.size, np.int64)
        return Chosen(first, second, amount, nothing, nothing, near)

    def _loses(self, sums: Ints, one: Chosen) -> np.ndarray:
        """Which sums take the lower constant."""
        if self.kind == "sign":
            return sums < 0
        return (one.value(sums, self.room) + one.near[:, None]) >> one.amount[:, None] & 1 == 1

    def _constants(self, rows: Ints, one: Chosen) -> tuple[Ints, Chosen]:
        """(hits by channel, with its constants); without any that suit WIDE hits."""
        at_live = self.live[rows]
        rule, first = self.task.rule, self.task.first[at_live]
        low, high = rule.low[at_live, None], rule.high[at_live, None]
        reach = rule.levels[None, :] << one.amount[:, None]
        below, above = first <= low, first > high
        at, before = np.clip(first, low, high), np.clip(first - 1, low, high)
        least = np.where(above, -WIDE, reach - one.value(at, self.room))
        most = np.where(below, WIDE, reach - 1 - one.value(before, self.room))
        if self.kind == "sign":
            one = replace(one, step=_apart(least, most, self._loses(at, one),
                                           self._loses(before, one)))  # fmt: skip
        elif self.kind == "odd":
            even, odd = parities(self.task)
            upper = np.where(even, least, -WIDE).max(axis=1)
            lower = np.where(odd, least, -WIDE).max(axis=1)
            # Where the other order would do, one constant does.
            told = (lower <= upper) & (lower > -WIDE)
            one = replace(one, step=np.where(told, upper - lower, 0))
        if self.kind != "one":
            # What is lost counts least, and has to be a number of the machine.
            fits = one.step << one.second.pads_and_bits < 1 << 30
            one = replace(one, step=np.where(fits, one.step, 0))
            least = least + np.where(self._loses(at, one), one.step[:, None], 0)
            most = most + np.where(self._loses(before, one), one.step[:, None], 0)
        lowest, highest = least.max(axis=1), most.min(axis=1)
        good = lowest <= highest
        constant = np.where(good, _round(lowest, highest), lowest)
        one = replace(one, constant=constant)
        if not self.hits:
            return np.where(good, 0, WIDE), one
        early = self._early(rows, one, self.hits + 2)
        return np.abs(early).sum(axis=(0, 2)), one

    def _early(self, rows: Ints, one: Chosen, most: int) -> np.ndarray:
        """[n, channels, levels]: whether the sum n + 1 before its threshold reaches a level."""
        at_live = self.live[rows]
        rule, first = self.task.rule, self.task.first[at_live]
        low, high = rule.low[at_live, None], rule.high[at_live, None]
        reach = rule.levels[None, :] << one.amount[:, None]
        early, out = first > low, list[np.ndarray]()
        for n in range(1, most + 1):
            early = early & (first - n >= low)
            sums = np.clip(first - n, low, high)
            value = one.value(sums, self.room) + one.constant[:, None]
            if self.kind != "one":
                value = value - np.where(self._loses(sums, one), one.step[:, None], 0)
            early &= value >= reach
            out.append(early)
            if not early.any():
                break
        return np.stack(out)

    def _hits(self, chosen: Chosen) -> Ints:
        """[most of any channel, live channels]: falling; first, where a channel has fewer, a sum
        that no input gives."""
        first, high = self.task.first[self.live], self.task.rule.high[self.live]
        found: dict[int, set[int]] = {c: set() for c in range(self.live.size)}
        early = self._early(np.arange(self.live.size), chosen, MOST_HITS)
        for n, c, level in np.argwhere(early).tolist():
            found[c].add(int(first[c, level]) - n - 1)
        count = max(map(len, found.values()))
        out = np.repeat((high + 1)[None, :], count, axis=0)
        for c, some in found.items():
            out[count - len(some) :, c] = sorted(some, reverse=True)
        return out


def _apart(least: Ints, most: Ints, at: np.ndarray, before: np.ndarray) -> Ints:
    """By how much the constant of the sums that lose (at, before: at which thresholds) is less: the
    middle of what suits, and 0 where that does."""
    up = np.where(at, -WIDE, least).max(axis=1), np.where(before, WIDE, most).min(axis=1)
    down = np.where(at, least, -WIDE).max(axis=1), np.where(before, most, WIDE).min(axis=1)
    first, last = np.maximum(up[0] - down[1], 0), np.minimum(up[1] - down[0], WIDE >> 2)
    return np.where(first > 0, (first + np.maximum(last, first)) >> 1, 0)


def _round(lowest: Ints, highest: Ints) -> Ints:
    """The middle; 0 where it does as well, which needs no addition."""
    middle = lowest + (np.maximum(highest, lowest) - lowest) // 2
    return np.where((lowest <= 0) & (highest >= 0), 0, middle)


def _ones(windows: Windows, channels: int) -> Ints:
    """[ones of the short factor, channels]: the fewest ones of a long one that goes with it."""
    out = np.full((len(SHORTS), channels), LONG + 1)
    for n in range(1, len(SHORTS)):
        for row in SHORTS[n]:
            out[n] = np.minimum(out[n], windows.ones(row)[0])
        # A factor of fewer ones is one of more, too.
        out[n] = np.minimum(out[n], out[n - 1])
    return out


def _shorts() -> list[list[float]]:
    """By number of ones, all factors in 1 .. 2 that have as many."""
    out: list[list[float]] = [[], [1.0]]
    for n in (2, 3):
        places = combinations(range(1, SHORT + 1), n - 1)
        out.append([1.0 + sum(2.0**-b for b in bits) for bits in places])
    return out


SHORTS = _shorts()
assert UNIT > LONG  # windows are finer than factors
