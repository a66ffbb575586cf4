"""The recipe that is always there, at a price: two constants, and the sums that take the other one.

Takes: a search (recipe.py).  Leaves: a `Recipe`, or why none was found. With acc * m near enough to
the rule, two constants suffice: with the upper one no stored value is reached too late, with the
lower one none too early. What tells which of them a sum takes is a bit:
    - odd or even, of a coarse product, where halves go to even (`parity`); or the same for all;
    - and at single sums, the hits, the other one. clip(acc - hit + 1, 0, 2) is odd at the hit
      alone; shifted left by 31 only that bit is left. A sum that was a hit is moved onto the next
      one, so that the last one tells of all.
The first round's sums are kept, so that each hit but the first costs no products. Hits are where
float32 is the reason: it takes what lies beside a half for that half, the farther from 0 the more.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from csp_embed.network.lower.recipe import WIDE, Coarse, Recipe, Search, Steps
from csp_embed.network.lower.recipes_digits import amounts, coarse_of, room_of
from csp_embed.network.lower.thresholds import Ints

MOST_HITS = 128
HOPELESS = 4 * MOST_HITS  # hits, after the nearest factors were tried
NONE = np.int64(1) << 40  # hits, where there is no such recipe
NEAR = 12  # factors on either side of the slope that are tried
SOON = 3  # of them, before only the channels that decide go on
# After a shift left by 31: minus 2^30 or 0, of which a limit by channel leaves its step.
TELL: Steps = (("max", 0), ("min", 2), ("shr", -31))
STEP: Steps = (("shr", 1), ("max_lanes", 0))
PLAIN, ODD, ALL = 0, 1, 2
"""Which sums take the lower constant, but for the hits: none, those at odd numbers, all."""


@dataclass(frozen=True, eq=False)
class _Lines:
    """[5, channels]: how many hits, factor, upper and lower constant, kind (PLAIN, ...)."""

    rows: Ints

    @property
    def hits(self) -> Ints:
        return self.rows[0]

    @classmethod
    def none(cls, task: Search) -> _Lines:
        rows = np.zeros((5, task.live.size), np.int64)
        rows[0, task.live] = NONE
        return cls(rows)

    def take(self, at: Ints, found: Ints) -> None:
        """Of the channels `at` what has fewer hits than before."""
        better = found[0] < self.rows[0, at]
        self.rows[:, at[better]] = found[:, better]

    def deciding(self, turn: int) -> np.ndarray:
        """The channels that are worth another factor: the worst ones decide how many hits the
        layer needs."""
        return self.hits > (int(self.hits.max()) // 2 if turn >= SOON else 0)


def points(task: Search) -> Recipe | str:
    """The cheaper of those with and without a coarse product."""
    weights = task.weights
    if weights.max(initial=0) > 127 or weights.min(initial=0) < -128:
        return "points: its weights are no int8"
    coarse = _coarse(task)
    fewest = np.full(task.live.size, NONE)
    found: list[Recipe] = []
    # Four digits hold all bits of a float32 factor; three cost less, but may take more hits.
    for digits in (3, 4, 5):
        if digits == 5 and found:
            break
        for amount in amounts(task, digits):
            plain, each = _lines(task, amount, digits, coarse is not None)
            fewest = np.minimum(fewest, each.hits)
            for lines, near in ((plain, None), (each, coarse)):
                if lines.hits.max(initial=0) <= MOST_HITS and (near is coarse or lines is plain):
                    found.append(_recipe(task, lines, amount, digits, near))
    if not found:
        return task.none("points", fewest <= MOST_HITS)
    return min(found, key=lambda r: r.extra(task.steps))


def _coarse(task: Search) -> Coarse | None:
    if not task.live.any():
        return None
    coarse = coarse_of(task)
    left = coarse.amount - 8 * (coarse.digits - 1)
    # A hit takes one off its number, and that number's unit has to be an int32.
    return coarse if left >= 1 and coarse.amount <= 30 else None


def _lines(task: Search, amount: Ints, digits: int, told: bool) -> tuple[_Lines, _Lines]:
    """What takes the fewest hits, of the factors near the slope: of the kind PLAIN; and of the best
    kind for each channel (told: whether odd and even are told)."""
    near = np.rint(task.rule.slope * 2.0**amount).astype(np.int64)
    most = room_of(task, digits)
    plain, each = _Lines.none(task), _Lines.none(task)
    for turn, move in enumerate(sorted(range(-NEAR, NEAR + 1), key=abs)):
        if turn >= SOON and each.hits.max(initial=0) > HOPELESS:
            break
        rows = np.flatnonzero(plain.deciding(turn) | each.deciding(turn))
        m = near[rows] + move
        fits = (m > 0) & (m <= most[rows])
        rows, m = rows[fits], m[fits]
        if not rows.size:
            continue
        ends = _ends(task, m, amount, rows)
        for kind in (PLAIN, ODD, ALL) if told else (PLAIN,):
            limit = (plain if kind == PLAIN else each).hits[rows]
            found = _of_kind(task, m, amount, rows, *ends, kind, limit)
            each.take(rows, found)
            if kind == PLAIN:
                plain.take(rows, found)
    return plain, each


def _ends(task: Search, m: Ints, amount: Ints, rows: Ints) -> tuple[Ints, Ints]:
    """[rows, levels]: the constants with which each level is reached where it has to be."""
    first, low, high = task.first[rows], task.rule.low[rows, None], task.rule.high[rows, None]
    reach = task.rule.levels[None, :] << amount[rows, None]
    below, above = first <= low, first > high
    at = np.where(below, low, first) * m[:, None]
    before = np.where(above, high, first - 1) * m[:, None]
    return np.where(above, -WIDE, reach - at), np.where(below, WIDE, reach - 1 - before)


def _upper(task: Search, kind: int) -> np.ndarray:
    """The levels that are reached with the upper constant."""
    levels: Ints = task.rule.levels
    even = np.asarray((levels - task.rule.zero) % 2 == 0)
    return even if kind == ODD else np.full(even.size, kind == PLAIN)


def _of_kind(
    task: Search,
    m: Ints,
    amount: Ints,
    rows: Ints,
    least: Ints,
    largest: Ints,
    kind: int,
    most: Ints,
) -> Ints:
    """[5, rows] as in `_Lines`; where that takes `most` hits or more, NONE."""
    up = _upper(task, kind)[None, :]
    # The upper constant reaches all of its levels, the lower one none too early; at a hit each
    # has to do what the other one failed to.
    upper: Ints = np.where(up, least, -WIDE).max(axis=1, initial=-WIDE)
    lower: Ints = np.where(~up, largest, WIDE).min(axis=1, initial=WIDE)
    while True:
        early, late = up & (largest < upper[:, None]), ~up & (least > lower[:, None])
        down = np.minimum(lower, np.where(early, largest, WIDE).min(axis=1, initial=WIDE))
        over = np.maximum(upper, np.where(late, least, -WIDE).max(axis=1, initial=-WIDE))
        if (down == lower).all() and (over == upper).all():
            break
        upper, lower = over, down
    # Without hits a constant may lie anywhere in its interval; the lower one is not above.
    end: Ints = np.where(up & ~early, largest, WIDE).min(axis=1, initial=WIDE)
    start: Ints = np.where(~up & ~late, least, -WIDE).max(axis=1, initial=-WIDE)
    upper = np.maximum(upper, np.minimum(end, lower))
    lower = np.minimum(upper, lower)
    # One that nothing bounds stays by the other, so that both are small numbers.
    lower = np.where(lower <= -WIDE // 2, upper, lower)
    upper = np.where(upper <= -WIDE // 2, lower, upper)
    good = (lower >= start) & (upper - lower < np.minimum(np.int64(1) << amount[rows], 1 << 30))
    # Each level that is reached at another sum takes a hit at least.
    good &= early.sum(axis=1) + late.sum(axis=1) < most
    hits = np.full(rows.size, NONE)
    off = _changes(task, m[good], amount, rows[good], up, upper[good], lower[good])
    hits[good] = np.abs(off).sum(axis=1)
    return np.stack([hits, m, upper, lower, np.full(rows.size, kind)])


def _changes(
    task: Search, m: Ints, amount: Ints, rows: Ints, up: np.ndarray, upper: Ints, lower: Ints
) -> Ints:
    """[rows, levels]: by how many sums each level is reached too early; below 0 too late."""
    ends = task.rule.low[rows, None], task.rule.high[rows, None] + 1
    constant = np.where(up, upper[:, None], lower[:, None])
    reach = task.rule.levels[None, :] << amount[rows, None]
    mine = np.clip(-((constant - reach) // m[:, None]), *ends)
    return np.clip(task.first[rows], *ends) - mine


def _recipe(
    task: Search, lines: _Lines, amount: Ints, digits: int, coarse: Coarse | None
) -> Recipe:
    live = task.live
    _, factor, upper, lower, kind = lines.rows
    hits = _hits(task, lines, amount)
    count = len(hits)
    step = np.where(live, upper - lower, 0)
    # A sum that was a hit is moved onto the next one; the last ones tell.
    lanes: list[Ints | None] = [hits[n + 1] - hits[n] for n in range(count - 1)]
    between: list[Steps] = [(*TELL, *STEP)] * (count - 1)
    carry: tuple[Steps, ...] = ((("shr", 8),),)
    if coarse is None:
        between += [(*TELL, *STEP)] if count else []
        lanes += [-step] if count else []
    else:
        odd = kind == ODD
        # A number of 0 or 1 where none is told.
        flat = np.where(kind == ALL, np.int64(1) << coarse.amount, 0)
        coarse = replace(coarse, factor=np.where(odd, coarse.factor, 0),
                         offset=np.where(odd, coarse.offset, flat))  # fmt: skip
        left = coarse.amount - 8 * (coarse.digits - 1)
        between += [(*TELL, ("shr", 31 - coarse.amount))] if count else []
        lanes += [None] if count else []
        tell: Steps = (("shr", -(31 - left)), ("shr", 31), ("shr", -30), ("max_lanes", 0))
        between += [*carry * (coarse.digits - 1), tell]
        lanes += [*[None] * (coarse.digits - 1), -step]
    between += carry * (digits - 1)
    lanes += [None] * (digits - 1)
    offsets = (*(1 - row for row in hits), upper)
    made = task.recipe("points", factor, offsets, tuple(between), amount)
    needed = any(k == "max_lanes" for steps in between for k, _ in steps)
    return replace(made, coarse=coarse, hits=hits, lanes=tuple(lanes) if needed else ())


def _hits(task: Search, lines: _Lines, amount: Ints) -> Ints:
    """[most of any channel, channels]: falling; in the first places, where a channel has fewer,
    a sum that no input gives."""
    _, factor, upper, lower, kind = lines.rows
    count = int(lines.hits.max(initial=0))
    out = np.repeat((task.rule.high + 1)[None, :], count, axis=0)
    for k in (PLAIN, ODD, ALL):
        rows = np.flatnonzero((lines.hits > 0) & (kind == k))
        off = _changes(task, factor[rows], amount, rows, _upper(task, k)[None, :], upper[rows],
                       lower[rows])  # fmt: skip
        ends = task.rule.low[rows, None], task.rule.high[rows, None] + 1
        starts = np.clip(task.first[rows], *ends)
        for c, start, by in zip(rows.tolist(), starts, off, strict=True):
            some = np.flatnonzero(by)
            # From where the line has it to where the rule has it, or the other way round.
            found = [
                a
                for first, n in zip(start[some].tolist(), by[some].tolist(), strict=True)
                for a in range(first - max(n, 0), first + max(-n, 0))
            ]
            out[count - len(found) :, c] = sorted(found, reverse=True)
    return out
