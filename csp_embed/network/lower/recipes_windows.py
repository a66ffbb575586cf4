"""Between which two numbers a channel's factor has to lie, so that few bits of it may be chosen.

Takes: a search (recipe.py).  Leaves: `Windows`. The least constant that reaches every level in time
is the largest of functions that are linear in the factor, the most that reaches none too early the
smallest; their difference is convex, so the factors that have a constant are an interval, and its
ends are found by Newton's steps from outside.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from csp_embed.network.lower.recipe import WIDE, Search
from csp_embed.network.lower.thresholds import Ints

UNIT = 50  # factors are counted in units of 2^-50
FAR = 10  # bits: factors beyond a part of 2^-10 are another slope
BEYOND = np.int64(1) << 62  # any constant in these units
STEPS = 60  # of Newton's, far more than it takes
LONG = 27  # bits behind a factor's first one (recipes_terms.py)
# Where hits are counted: parts of 2^-26 of the factor on either side.
PLACES = (0, 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 256, 512, 2048)


@dataclass(frozen=True, eq=False)
class Windows:
    """least, most: of each channel, in units of 2^-UNIT."""

    least: Ints
    most: Ints

    def ones(self, short: float) -> tuple[Ints, Ints]:
        """(how many ones, factor in LONG bits behind the first) of the number with the fewest of
        them that, times `short` and a power of two, lies in the window; LONG + 1 where none
        does."""
        low, high = self.least / short, self.most / short
        # Of the upper end all exponents are taken, so that both ends have one scale.
        scale = np.exp2(LONG + 1 - np.frexp(high)[1].astype(np.float64))
        first = np.ceil(low * scale).astype(np.int64)
        last = np.floor(high * scale).astype(np.int64)
        # The bits that both share, and the next one of the upper end.
        differ = np.frexp((first ^ last).astype(np.float64))[1].astype(np.int64)
        found = np.where(first >= last, last, (last >> np.maximum(differ - 1, 0))
                         << np.maximum(differ - 1, 0))  # fmt: skip
        count = np.bitwise_count(found).astype(np.int64)
        good = (first <= last) & (first >= 1 << (LONG - 1))
        # A window that holds a power of two may lead to one with another exponent.
        good &= (found >= 1 << LONG) & (found < 1 << (LONG + 1))
        return np.where(good, count, LONG + 1), found


def exact_windows(task: Search, rows: Ints, signed: bool) -> Windows | None:
    """Factors with which a constant is exact at all levels (signed: one for each sign); None where
    a channel has none."""
    rule = task.rule
    near = np.rint(rule.slope[rows] * 2.0**UNIT).astype(np.int64)
    parts = [np.ones_like(task.first, bool)]
    if signed:
        middle = rule.apply(np.zeros((rule.low.size, 1), np.int64))
        parts = [rule.levels > middle, rule.levels <= middle]
    ends: list[Ints] = []
    for side in (-1, 1):
        at = near + side * (near >> FAR)
        for _ in range(STEPS):
            over, slope = _apart(task, rows, at, parts)
            if (over <= 0).all():
                break
            # Uphill to the outside only: else the least value lies behind, and is above 0.
            if ((over > 0) & (slope * side <= 0)).any():
                return None
            step = -(-over // np.maximum(np.abs(slope), 1))
            at = np.where(over > 0, at - side * step, at)
        ends.append(at)
    return Windows(*ends) if (ends[0] <= ends[1]).all() else None


def _apart(task: Search, rows: Ints, m: Ints, parts: list[np.ndarray]) -> tuple[Ints, Ints]:
    """By how much the least constant is beyond the most, and how fast that grows with m."""
    first, low, high = task.first[rows], task.rule.low[rows, None], task.rule.high[rows, None]
    reach = task.rule.levels[None, :] << UNIT
    below, above = first <= low, first > high
    at, before = np.where(below, low, first), np.where(above, high, first - 1)
    least, most = reach - at * m[:, None], reach - 1 - before * m[:, None]
    over, slope = np.full(rows.size, -WIDE), np.zeros(rows.size, np.int64)
    for part in parts:
        mine = part[rows]
        # Which levels bind tells the slope.
        i = np.where(above | ~mine, -BEYOND, least).argmax(axis=1)[:, None]
        j = np.where(below | ~mine, BEYOND, most).argmin(axis=1)[:, None]

        def of(values: Ints, at: Ints) -> Ints:
            return np.take_along_axis(values, at, axis=1)[:, 0]

        some = (~above & mine).any(axis=1) & (~below & mine).any(axis=1)
        found = of(least, i) - of(most, j)
        rises = of(before, j) - of(at, i)
        take = some & (found > over)
        over, slope = np.where(take, found, over), np.where(take, rises, slope)
    return over, slope


@dataclass(frozen=True, eq=False)
class Sampled:
    """m: [places, channels], rising, in units of 2^-UNIT; hits: how many sums are reached too early
    there; fewest: by channel."""

    m: Ints
    hits: Ints

    @property
    def fewest(self) -> Ints:
        return self.hits.min(axis=0)

    def within(self, most: int) -> Windows:
        """Around the best place, as far as there are so many at most."""
        best: Ints = np.asarray(self.hits.argmin(axis=0), np.int64)
        good = np.asarray(self.hits <= np.maximum(most, self.fewest))
        count = len(self.m)
        places = np.arange(count)[:, None]
        # The nearest bad place on either side, and one inward.
        left = np.where(~good & (places < best), places, -1).max(axis=0) + 1
        right = np.where(~good & (places > best), places, count).min(axis=0) - 1
        ends = (np.take_along_axis(self.m, at[None, :], axis=0)[0] for at in (left, right))
        return Windows(*ends)


def parities(task: Search) -> list[np.ndarray]:
    """The levels at even numbers, and those at odd ones."""
    odd = (task.rule.levels - task.rule.zero) % 2 == 1
    return [~odd, odd]


def early_windows(task: Search, rows: Ints, odd: bool) -> Sampled:
    """Where all levels are reached in time, and how many sums reach theirs too early; odd: levels
    at odd numbers may have a lower constant."""
    parts = parities(task)
    near = np.rint(task.rule.slope[rows] * 2.0**UNIT).astype(np.int64)
    moves = sorted({s * p for p in PLACES for s in (-1, 1)})
    first, low, high = task.first[rows], task.rule.low[rows, None], task.rule.high[rows, None]
    reach = task.rule.levels[None, :] << UNIT
    above = first > high
    m = np.stack([near + n * np.maximum(near >> 26, 1) for n in moves])
    hits = np.empty_like(m)
    for n, one in enumerate(m):
        least = np.where(above, -BEYOND, reach - first * one[:, None])
        constant: Ints = np.broadcast_to(least.max(axis=1, keepdims=True), least.shape)
        if odd:
            upper: Ints = np.where(parts[0], least, -BEYOND).max(axis=1, keepdims=True)
            lower: Ints = np.where(parts[1], least, -BEYOND).max(axis=1, keepdims=True)
            # The lower one is not above the other; where it would be, one does for all.
            told: np.ndarray = np.asarray((lower <= upper) & (lower > -BEYOND))
            constant = np.where(told, np.where(parts[0], upper, lower), constant)
        mine = -((constant - reach) // one[:, None])
        hits[n] = (first - np.clip(mine, low, high + 1)).sum(axis=1)
    return Sampled(m, hits)
