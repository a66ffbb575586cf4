"""The recipe that makes its products once: sums times two factors, by shifts and additions.

Takes: a search (recipe.py).  Leaves: a `Recipe`, or why none was found. A sum k is kept. Then
((k >> p) + k >> q) + k ... is k times a factor with so many ones, divided by a power of two and
rounded down once: floor((floor(a / 2^p) + k) / 2^q) = floor((a + 2^p k) / 2^(p + q)). The result is
kept in turn and multiplied alike by a second factor: a product of two factors of few ones lies
nearer to a number than one factor of as many. Channels have shifts of their own, a tensor's; one
that needs fewer ones writes 2^n as 2^(n-1) + 2^(n-1). Before that the sum is shifted left, so that
what rounding down loses is a small part of it.

Where halves go away from zero, negative sums have a constant of their own: what is kept for the
second factor tells its sign. Where single sums are reached too early (recipes_points.py says why),
such a sum, a hit, is made one less before all else: clip(k - hit + 1, 0, 2) is odd at the hit
alone, so shifted left and right by 31 it is -1 there and else 0. All of that never falls as the sum
grows, so the proof at the thresholds holds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from csp_embed.network.lower.recipe import WIDE, Recipe, Search, Steps
from csp_embed.network.lower.recipes_windows import UNIT, Windows, early_windows, exact_windows
from csp_embed.network.lower.thresholds import Ints

LONG, SHORT = 27, 17  # bits behind the first one of either factor
MOST = 16  # ones of both factors that are worth trying
TRIED = 6  # pairs of factors a channel whose sums are looked at
MOST_HITS = 96
LEAST = 20  # cycles a vector, below which there is none to be expected
# As in recipes_points.py, and then back to -1 or 0.
TELL: Steps = (("max", 0), ("min", 2), ("shr", -31), ("shr", 31))
# Minus 1 or 0 of what is kept, of which a limit by channel leaves its step.
SIGN: Steps = (("shr", 31), ("shr", -30), ("max_lanes", 0))


def terms(task: Search) -> Recipe | str:
    """Exact with the same constant for all sums, with one for each sign, or with hits."""
    live = np.flatnonzero(task.live)
    if not live.size or (task.rule.slope[live] <= 0).any():
        return "terms: it has no slope"
    room = _room(task, live)
    if room < 0:
        return "terms: its sums leave no bits for fractions"
    signs = [False] if task.rule.even else [False, True]
    for signed in signs:
        windows = exact_windows(task, live, signed)
        if windows is not None:
            return _searched(task, live, room, windows, signed, 0)
    if not task.rule.even:
        return "terms: some channels have no factor"
    return _with_hits(task, live, room)


def _with_hits(task: Search, live: Ints, room: int) -> Recipe | str:
    """The cheapest of as few hits as there can be, and some more: those take shorter factors."""
    found: list[Recipe] = []
    sampled = early_windows(task, live)
    fewest = int(sampled.fewest.max())
    for hits in dict.fromkeys((fewest, fewest + 1, fewest + 3)):
        if hits <= MOST_HITS:
            made = _searched(task, live, room, sampled.within(hits), False, hits)
            found += [made] if isinstance(made, Recipe) else []
    if not found:
        return f"terms: some channels have more than {MOST_HITS} sums that are reached too early"
    return min(found, key=lambda r: r.extra(task.steps))


def _room(task: Search, live: Ints) -> int:
    """Bits by which all sums may be shifted left: twice two factors below 2 stay in int32, and the
    last shift is one of at most 31."""
    low, high = task.rule.low[live], task.rule.high[live]
    most = int(np.maximum(np.abs(low), np.abs(high)).max()) + MOST_HITS
    slope = -np.floor(np.log2(task.rule.slope[live])).astype(np.int64)
    return min(28 - most.bit_length(), 30 - int(slope.max()))


@dataclass(frozen=True, eq=False)
class _Pairs:
    """By channel, odd factors, the bits that each is divided by, and the last shift: v becomes
    (((v << room) * long >> down) * short >> over) >> amount. terms: of the short one."""

    long: Ints
    down: Ints
    short: Ints
    over: Ints
    amount: Ints
    terms: int

    def of(self, rows: Ints) -> _Pairs:
        columns = (self.long, self.down, self.short, self.over, self.amount)
        return _Pairs(*(v[rows] for v in columns), self.terms)

    @property
    def pads(self) -> Ints:
        """Bits of what negative sums lose that fall away: see `_shifts`."""
        return self.over + _pads(self.short, self.terms)

    def value(self, sums: Ints, room: int, step: Ints | None) -> Ints:
        """Before the constant and the last shift; step: what negative sums lose, by channel."""
        one = ((sums << room) * self.long[:, None]) >> self.down[:, None]
        two = one * self.short[:, None]
        if step is None:
            return two >> self.over[:, None]
        # The first of all terms, so that it counts least.
        more = self.pads - self.over
        two = (two << more[:, None]) - np.where(one < 0, step[:, None], 0)
        return two >> self.pads[:, None]


def _searched(
    task: Search, live: Ints, room: int, windows: Windows, signed: bool, hits: int
) -> Recipe | str:
    """The fewest ones with which all channels have a pair of factors, tried on their sums."""
    table = _ones(windows, live.size)
    costs = table.max(axis=1)  # of the long factor, for each number of ones of the short one
    order = sorted(
        (4 * (n + int(costs[n])) + (3 if n > 1 else 0), n, int(costs[n]))
        for n in range(1, len(costs)) if costs[n] <= MOST
    )  # fmt: skip
    for _, short, long in order[:2]:
        for more in (0, 1):
            made = _tried(task, live, room, windows, signed, hits, (long + more, short))
            if made is not None:
                return made
    return "terms: no pair of factors is near enough"


def _ones(windows: Windows, channels: int) -> Ints:
    """[ones of the short factor, channels]: the fewest ones of a long one that goes with it."""
    out = np.full((4, channels), LONG + 1)
    for n in range(1, 4):
        for row in SHORTS[n]:
            out[n] = np.minimum(out[n], windows.ones(float(row))[0])
        # A factor of fewer ones is one of more, too.
        out[n] = np.minimum(out[n], out[n - 1])
    return out


def _tried(
    task: Search, live: Ints, room: int, windows: Windows, signed: bool, hits: int,
    ones: tuple[int, int],
) -> Recipe | None:  # fmt: skip
    """With factors of so many ones, long and short; None where a channel has none or too many
    hits."""
    # A factor of 1 has no lower place that could be taken apart.
    options = [s for n in range(min(2, ones[1]), ones[1] + 1) for s in SHORTS[n]]
    fits = np.zeros((len(options), live.size), bool)
    longs = np.zeros((len(options), live.size), np.int64)
    for n, short in enumerate(options):
        count, longs[n] = windows.ones(short)
        fits[n] = (count <= ones[0]) & ((count > 1) | (ones[0] == 1))
    best = np.full(live.size, np.int64(1) << 40)
    size = live.size
    empty = np.zeros(size, np.int64)
    chosen = _Pairs(empty, empty, empty, empty, empty, ones[1])
    constant, step = empty.copy(), empty.copy()
    # The turns of a channel are its fitting options, in their order.
    number = np.cumsum(fits, axis=0)
    for turn in range(1, TRIED + 1):
        rows = np.flatnonzero((best > hits) & (number[-1] >= turn))
        if not rows.size:
            break
        at = (number[:, rows] == turn).argmax(axis=0)
        short = np.array(options)[at]
        pairs = _pairs(task, live[rows], room, longs[at, rows], short, ones)
        good, b, d = _constants(task, live[rows], room, pairs, signed, hits)
        better = good < best[rows]
        to = rows[better]
        best[to], constant[to], step[to] = good[better], b[better], d[better]
        taken = pairs.of(np.flatnonzero(better))
        for name in ("long", "down", "short", "over", "amount"):
            values = getattr(chosen, name).copy()
            values[to] = getattr(taken, name)
            chosen = replace(chosen, **{name: values})
    if (best > hits).any():
        return None
    return _recipe(task, live, room, chosen, constant, step if signed else None, ones)


def _pairs(
    task: Search, rows: Ints, room: int, long: Ints, short: NDArray[np.float64],
    ones: tuple[int, int],
) -> _Pairs:  # fmt: skip
    """The factors of some channels, with as many ones as the rounds have additions."""
    slope = task.rule.slope[rows]
    # Both lie in 1 .. 2: the rest of the slope is a shift.
    product = long / 2.0**LONG * short
    amount = np.rint(room - np.log2(slope / product)).astype(np.int64)
    return _Pairs(*_odd(long, LONG), *_odd(np.rint(short * 2.0**SHORT).astype(np.int64), SHORT),
                  amount, ones[1])  # fmt: skip


def _odd(factor: Ints, bits: int) -> tuple[Ints, Ints]:
    """(factor, bits) without the zeros at its end."""
    zeros = np.bitwise_count((factor & -factor) - 1).astype(np.int64)
    return factor >> zeros, bits - zeros


def _pads(factor: Ints, terms: int) -> Ints:
    return terms - np.bitwise_count(factor).astype(np.int64)


def _shifts(factor: Ints, down: Ints, ones: int) -> list[Ints]:
    """By term the shift after it, [ones - 1][channels]."""
    pads = _pads(factor, ones)
    out: list[Ints] = []
    # Places of the terms, the lowest first: 0, 0, 1, ... below the last one, where it was taken
    # apart.
    place = np.zeros_like(factor)
    rest = factor & (factor - 1)  # the last one is taken apart into the first terms
    for n in range(1, ones):
        lowest = np.bitwise_count((rest & -rest) - 1).astype(np.int64) + pads
        following = np.where(n <= pads, n - 1, lowest)
        rest = np.where(n <= pads, rest, rest & (rest - 1))
        out.append(following - place)
        place = following
    assert (place == down + pads).all()
    return out


def _constants(
    task: Search, rows: Ints, room: int, pairs: _Pairs, signed: bool, hits: int
) -> tuple[Ints, Ints, Ints]:
    """(hits, constant, step) by channel: the constant is added before the last shift; the step
    is what negative sums lose. Hits are beyond count where there are none."""
    rule = task.rule
    first, low, high = task.first[rows], rule.low[rows, None], rule.high[rows, None]
    reach = rule.levels[None, :] << pairs.amount[:, None]
    below, above = first <= low, first > high
    none = np.zeros(rows.size, np.int64)
    at, before = np.clip(first, low, high), np.clip(first - 1, low, high)
    value_at, value_before = pairs.value(at, room, None), pairs.value(before, room, None)
    least = np.where(above, -WIDE, reach - value_at)
    most = np.where(below, WIDE, reach - 1 - value_before)
    if not signed:
        lowest, highest = least.max(axis=1), most.min(axis=1)
        good = lowest <= highest
        if not hits:
            return np.where(good, 0, WIDE), _round(lowest, highest), none
        # Everything is reached in time; what is reached too early is a hit.
        count, early = none.copy(), ~below
        for n in range(1, hits + 2):
            sums = first - n
            early = early & (sums >= low)
            value = pairs.value(np.clip(sums, low, high), room, None) + lowest[:, None]
            early &= value >= reach
            count += early.sum(axis=1)
            if not early.any():
                break
        # Without hits any constant of the interval does.
        return count, np.where(good, _round(lowest, highest), lowest), none
    # Sums below 0 lose the same, in what is kept for the second factor's units.
    loses_at, loses_before = at < 0, before < 0
    up = (
        np.where(loses_at, -WIDE, least).max(axis=1),
        np.where(loses_before, WIDE, most).min(axis=1),
    )
    down = (
        np.where(loses_at, least, -WIDE).max(axis=1),
        np.where(loses_before, most, WIDE).min(axis=1),
    )
    # The constant of negative sums is the other one less a step of at least 0.
    least_step = np.maximum(up[0] - down[1], 0)
    most_step = up[1] - down[0]
    middle = np.where(least_step > 0, (least_step + np.minimum(most_step, WIDE >> 2)) >> 1, 0)
    step = np.clip(middle << pairs.pads, 0, 1 << 30)
    value_at, value_before = pairs.value(at, room, step), pairs.value(before, room, step)
    lowest = np.where(above, -WIDE, reach - value_at).max(axis=1)
    highest = np.where(below, WIDE, reach - 1 - value_before).min(axis=1)
    return np.where(lowest <= highest, 0, WIDE), _round(lowest, highest), step


def _round(lowest: Ints, highest: Ints) -> Ints:
    """The middle; 0 where it does as well, which needs no addition."""
    middle = lowest + (np.maximum(highest, lowest) - lowest) // 2
    return np.where(
        (lowest <= 0) & (highest >= 0), 0, np.clip(middle, lowest, np.maximum(lowest, highest))
    )


def _recipe(
    task: Search, live: Ints, room: int, pairs: _Pairs, constant: Ints, step: Ints | None,
    ones: tuple[int, int],
) -> Recipe | None:  # fmt: skip
    """Its rounds, with the hits of each channel; None where a constant is no int32."""
    size = task.live.size

    def wide(values: Ints, rest: int | None = None) -> Ints:
        # Channels of one value take what the first one does, so that steps stay alike.
        out = np.full(size, int(values[0]) if rest is None else rest, np.int64)
        out[live] = values
        return out

    if (np.abs(constant) >> 31).any():
        return None
    hits = _hits(task, live, room, pairs, constant) if step is None else np.zeros((0, 0), np.int64)
    rounds = _Rounds(size)
    last = np.zeros(size, np.int64)
    for row in hits:
        target = 1 - wide(row, 0)
        rounds.offset(np.where(task.live, target - last, 0))
        last = np.where(task.live, target, 0)
        rounds.keep()
        rounds.steps(TELL)
        rounds.new()
    rounds.offset(-last)
    if room:
        rounds.steps((("shr", -room),))
    rounds.keep()
    for shift in _shifts(pairs.long, pairs.down, ones[0]):
        rounds.shift(wide(shift))
        rounds.new()
    if ones[1] > 1 or step is not None:
        rounds.keep()
    if step is not None:
        rounds.steps(SIGN, wide(-step, 0))
        rounds.new()
    for shift in _shifts(pairs.short, pairs.over, ones[1]):
        rounds.shift(wide(shift))
        rounds.new()
    rounds.offset(wide(constant, 0))
    made = task.recipe("terms", np.ones(size, np.int64), tuple(rounds.offsets),
                       tuple(map(tuple, rounds.between[:-1])), wide(pairs.amount))  # fmt: skip
    needed = any(kind == "max_lanes" for steps in rounds.between for kind, _ in steps)
    return replace(
        made, hits=np.stack([wide(row, 0) for row in hits]) if len(hits) else None,
        lanes=tuple(rounds.lanes[:-1]) if needed else (),
        shifts=tuple(rounds.shifts[:-1]), kept=tuple(rounds.kept), ends=(task.rule.low, task.rule.high),
    )  # fmt: skip


class _Rounds:
    """Rounds that are written one after the other."""

    def __init__(self, size: int) -> None:
        self._size = size
        self.offsets: list[Ints] = []
        self.between: list[list[tuple[str, int]]] = []
        self.lanes: list[Ints | None] = []
        self.shifts: list[Ints | None] = []
        self.kept: list[tuple[int, int]] = []
        self.new()

    def new(self) -> None:
        self.offsets.append(np.zeros(self._size, np.int64))
        self.between.append([])
        self.lanes.append(None)
        self.shifts.append(None)

    def offset(self, values: Ints) -> None:
        self.offsets[-1] = values

    def keep(self) -> None:
        self.kept.append((len(self.between) - 1, len(self.between[-1])))

    def steps(self, steps: Steps, lanes: Ints | None = None) -> None:
        self.between[-1] += steps
        self.lanes[-1] = lanes

    def shift(self, by: Ints) -> None:
        if (by == by[0]).all():
            self.between[-1] += [("shr", int(by[0]))] if by[0] else []
        else:
            self.between[-1].append(("shr_lanes", 0))
            self.shifts[-1] = by


def _hits(task: Search, live: Ints, room: int, pairs: _Pairs, constant: Ints) -> Ints:
    """[most of any channel, live channels]: falling; first, where a channel has fewer, a sum that
    no input gives."""
    first, low, high = task.first[live], task.rule.low[live, None], task.rule.high[live, None]
    reach = task.rule.levels[None, :] << pairs.amount[:, None]
    found: list[set[int]] = [set() for _ in range(live.size)]
    early, n = first > low, 0
    while early.any():
        n += 1
        sums = first - n
        early = early & (sums >= low)
        value = pairs.value(np.clip(sums, low, high), room, None) + constant[:, None]
        early &= value >= reach
        for c, level in zip(*np.nonzero(early), strict=True):
            found[c].add(int(sums[c, level]))
        if n > MOST_HITS:
            break
    count = max(map(len, found))
    out = np.repeat(high.T + 1, count, axis=0)
    for c, some in enumerate(found):
        out[count - len(some) :, c] = sorted(some, reverse=True)
    return out


def _shorts() -> list[list[float]]:
    """By number of ones, all factors in 1 .. 2 that have as many."""
    out: list[list[float]] = [[], [1.0]]
    for n in (2, 3):
        out.append([
            1.0 + sum(2.0**-b for b in bits)
            for bits in combinations(range(1, SHORT + 1), n - 1)
        ])  # fmt: skip
    return out


SHORTS = _shorts()
assert UNIT > LONG  # windows are finer than factors
