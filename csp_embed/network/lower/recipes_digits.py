"""Recipes that multiply: the weights times a factor, as digits of eight bits. See recipes.py."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import numpy as np

from csp_embed.network.lower.recipe import LANES, Coarse, Recipe, Search, Steps
from csp_embed.network.lower.thresholds import Ints

FAR = 29  # bits that a sign may be shifted by
STEPS = tuple((d, j) for d in (1, 3, 5, 7) for j in range(FAR + 1 - d.bit_length() + 1))
"""d * 2^j: by how much a negative sum's constant may be less, when sums are rescaled."""
NEIGHBOURS = 40  # factors on either side of the slope that are tried
MOST_DIGITS = 5
SOON = 3  # factors that are tried before it is asked whether there is one at all
FEW = 8  # channels that are asked first


def digits(task: Search) -> Recipe | str:
    for digits in range(2, MOST_DIGITS + 1):
        for amount in amounts(task, digits):
            factor, offset, found = _factors(task, amount, digits, task.live, whole=True)
            if (found | ~task.live).all():
                between: tuple[Steps, ...] = ((("shr", 8),),) * (digits - 1)
                return task.recipe("digits", factor, (offset,), between, amount)
    # How many is not known: one ends the search.
    return "digits: some channels have none"


def most_carried(digits: int) -> int:
    """Every integer of at most this magnitude has so many digits in -128 .. 127."""
    # 127 at every digit: signed digits reach less far up than down.
    return 127 * (256**digits - 1) // 255


def room_of(task: Search, digits: int) -> Ints:
    """The largest factor whose products with the weights the digits carry, by channel."""
    return most_carried(digits) // np.maximum(np.abs(task.weights).max(axis=1), 1)


def amounts(task: Search, digits: int) -> Iterator[Ints]:
    """Shifts worth trying: the widest factors that the digits carry, one shift for all channels,
    then each channel's own."""
    # Neighbours that will be tried have to fit, too.
    room = np.maximum(room_of(task, digits) - NEIGHBOURS, 1)
    own = np.floor(np.log2(room / np.maximum(task.rule.slope, 2.0**-40))).astype(np.int64)
    # The steps between rounds take 8 bits a digit; the last one shifts by 0 to 31.
    own = np.clip(own, 8 * (digits - 1), 8 * (digits - 1) + 31)
    # One shift for all is an immediate in the last round.
    shared = int(own[task.live].min()) if task.live.any() else 8 * (digits - 1)
    yield np.full_like(own, shared)
    if np.unique(own[task.live]).size > 1:
        yield np.where(task.live, own, shared)


def _factors(
    task: Search,
    amount: Ints,
    digits: int,
    wanted: np.ndarray,
    reach: Ints | None = None,
    whole: bool = False,
) -> tuple[Ints, Ints, np.ndarray]:
    """(factor, offset, whether there is one) by channel, of the channels `wanted`, for shifts by
    `amount`. reach: see Search.scaled_ends. whole: nothing more is looked for where one has
    none."""
    near = np.rint(task.rule.slope * 2.0**amount).astype(np.int64)
    room = room_of(task, digits)
    factor, offset = np.zeros_like(near), np.zeros_like(near)
    found = np.zeros(wanted.size, bool)
    moves = _moves(near[task.live])
    rows = np.flatnonzero(wanted)
    for n, step in enumerate(moves):
        # Most find one at once; of the rest, only those that have one at all go on.
        if n == SOON and rows.size:
            apart = _apart(task, near, amount, reach)
            # A few tell mostly that not all have one.
            if whole and not some_close(apart, rows[:FEW], max(moves)).all():
                break
            some = some_close(apart, rows, max(moves))
            if whole and not some.all():
                break
            rows = rows[some]
        # Channels drop out as they find a factor.
        if not rows.size:
            break
        m = near[rows] + step
        least, most = task.scaled_ends(m, amount, True, reach, rows)
        good = (least <= most) & (m >= 0) & (m <= room[rows])
        at, m, least, most = rows[good], m[good], least[good], most[good]
        # What the machine adds is the bias times the factor, too: the roundest sum is chosen.
        added = task.bias[at] * m
        factor[at], offset[at] = m, _roundest(least + added, most + added) - added
        found[at] = True
        rows = rows[~good]
    return factor, offset, found


def _apart(
    task: Search, near: Ints, amount: Ints, reach: Ints | None
) -> Callable[[Ints, Ints], Ints]:
    """By how much the least constant is beyond the most, of some channels at some steps from their
    nearest factor."""

    def apart(rows: Ints, step: Ints) -> Ints:
        least, most = task.scaled_ends(near[rows] + step, amount, True, reach, rows)
        return least - most

    return apart


def some_close(apart: Callable[[Ints, Ints], Ints], rows: Ints, far: int) -> np.ndarray:
    """Which of the channels have a factor within `far` steps: bisection for the least of `apart`.

    The least constant is the largest of functions that are linear in the factor, and the most the
    smallest, so that their difference is convex: it falls up to its least value, then rises."""
    low, high = np.full(rows.size, -far), np.full(rows.size, far)
    while (low < high).any():
        middle = (low + high) >> 1
        falls = apart(rows, middle) > apart(rows, middle + 1)
        active = low < high
        low, high = np.where(active & falls, middle + 1, low), np.where(
            active & ~falls, middle, high)  # fmt: skip
    return apart(rows, low) <= 0


def coarse_of(task: Search) -> Coarse:
    """A factor that is off by less than a quarter at the farthest stored value."""
    rule, live = task.rule, task.live
    far = rule.clamp[1] - rule.clamp[0] + 2
    count = 2
    while True:
        amount = next(amounts(task, count))
        factor = np.rint(rule.slope * 2.0**amount).astype(np.int64)
        # Of live channels: others may have no slope.
        off = np.abs(factor[live] / (rule.slope * 2.0**amount)[live] - 1) * far
        # Three digits are taken as they are: more would only cost rounds.
        if off.max(initial=0.0) < 0.25 or count == 3:
            origin = np.broadcast_to(np.asarray(rule.origin, float), factor.shape)
            offset = np.rint((origin + 1) * 2.0**amount).astype(np.int64)
            return Coarse(factor, offset, int(amount[0]), count)
        count += 1


def parity(task: Search) -> Recipe | str:
    """Halves to even at any multiplier: above an even number a window is taken off the sum, so that
    what lies within it, halves among others, still rounds down. Channels that digits alone meet
    count as even everywhere, so that one window need not suit them, too."""
    rule, live = task.rule, task.live
    odd = (rule.levels[None, :] - rule.zero) % 2 == 1
    coarse = coarse_of(task)
    left = coarse.amount - 8 * (coarse.digits - 1)
    best = np.zeros(live.size, bool)
    # The bit that tells odd from even must lie in the last digit's word.
    if not live.any() or not 1 <= left <= 30:
        return task.none("parity", best)
    for count in range(3, MOST_DIGITS + 1):
        amount = next(amounts(task, count))
        plain, first, alone = _factors(task, amount, count, live)
        # Windows of 2^-21 to 2^-10: halves lie less than that from where float32 has them.
        for window in range(max(0, int(amount[0]) - 21), min(30, int(amount[0]) - 10) + 1, 2):
            levels = rule.levels[None, :] << amount[:, None]
            reach = levels + np.where(odd, np.int64(1) << window, 0)
            factor, offset, found = _factors(task, amount, count, live & ~alone, reach)
            factor, offset = np.where(alone, plain, factor), np.where(alone, first, offset)
            found |= alone
            best |= found
            if not (found | ~live).all():
                continue
            back: Steps = (("shr", -window),) if window else ()
            tell: Steps = (("shr", -(31 - left)), ("shr", 31), *back)
            carry: tuple[Steps, ...] = ((("shr", 8),),)
            between = (*carry * (coarse.digits - 1), tell, *carry * (count - 1))
            made = task.recipe("parity", factor, (offset,), between, amount)
            told, origin = (np.where(alone, 0, v) for v in (coarse.factor, coarse.offset))
            return replace(made, coarse=replace(coarse, factor=told, offset=origin))
    return task.none("parity", best)


def signed(task: Search) -> Recipe | str:
    best = np.zeros(task.live.size, bool)
    for digits in range(3, MOST_DIGITS + 1):
        for wide in amounts(task, digits):
            # The step between the signs is about 2^(amount - n) for a multiplier of 2^-n.
            amount = np.minimum(wide, np.maximum(task.near + FAR - 1, 8 * (digits - 1)))
            factor, least, most, found = _signed_factors(task, amount, digits)
            best |= found.any(axis=0)
            if not (best | ~task.live).all() or not (found.any(axis=0) | ~task.live).all():
                # Channels found at different steps of the sign do not make one program.
                continue
            # One step for all channels, where there is one; else the powers of two among them.
            whole = np.flatnonzero((found | ~task.live).all(axis=1))
            powers = [n for n, (d, _) in enumerate(STEPS) if d == 1]
            if whole.size:
                number = np.full(task.live.size, whole[0])
                d, j = STEPS[int(whole[0])]
                move: Steps = (("min", 0), ("max", -d), *([("shr", -j)] if j else []))
            elif (found[powers].any(axis=0) | ~task.live).all():
                number = np.array(powers)[found[powers].argmax(axis=0)]
                move = (("shr", 31), *LANES)
            else:
                continue
            pick = number, np.arange(task.live.size)
            between: tuple[Steps, ...] = (move, *((("shr", 8),),) * (digits - 1))
            m = factor[pick]
            added = task.bias * m
            offset = _roundest(least[pick] + added, np.maximum(least[pick], most[pick]) + added)
            made = task.recipe("signed", m, (offset - added,), between, amount)
            bits = np.array([j for _, j in STEPS])[number]
            return replace(made, bits=None if whole.size else np.where(task.live, bits, 0))
    return task.none("signed", best)


def _signed_factors(task: Search, amount: Ints, digits: int) -> tuple[Ints, Ints, Ints, np.ndarray]:
    """(factor, least and most of what is added, whether there is one) by step of STEPS and
    channel."""
    rule, live = task.rule, task.live
    middle = rule.apply(np.zeros((rule.low.size, 1), np.int64))
    near = np.rint(rule.slope * 2.0**amount).astype(np.int64)
    room = room_of(task, digits)
    shape = (len(STEPS), live.size)
    factor, low, high = (np.zeros(shape, np.int64) for _ in range(3))
    found = np.zeros(shape, bool)
    step = np.array([d << j for d, j in STEPS], np.int64)[:, None]

    def ends(rows: Ints, m: Ints) -> tuple[Ints, Ints, Ints, Ints]:
        up = rule.levels > middle
        above = task.scaled_ends(m, amount, up, rows=rows)
        return *above, *task.scaled_ends(m, amount, ~up, rows=rows)

    def apart(rows: Ints, move: Ints) -> Ints:
        # Each sign by itself has to have a constant, whatever the step between them.
        least_up, most_up, least_down, most_down = ends(rows, near[rows] + move)
        return np.maximum(least_up - most_up, least_down - most_down)

    moves = _moves(near[live])
    rows, lost = np.flatnonzero(live), False
    for n, move in enumerate(moves):
        if (found | ~live).all(axis=1).any():
            break
        if n == SOON and rows.size:
            some = some_close(apart, rows, max(moves)) | found[:, rows].any(axis=0)
            lost, rows = not some.all(), rows[some]
        if lost:
            # No program: whether the others have a factor is only told.
            rows = rows[~found[:, rows].any(axis=0)]
        if not rows.size:
            break
        m = near[rows] + move
        least_up, most_up, least_down, most_down = ends(rows, m)
        # Negative sums have less the step: least_down <= offset - step <= most_down.
        least = np.maximum(least_up[None], least_down[None] + step)
        most = np.minimum(most_up[None], most_down[None] + step)
        good = ~found[:, rows] & (least <= most) & (m >= 0) & (m <= room[rows])
        factor[:, rows] = np.where(good, m, factor[:, rows])
        low[:, rows] = np.where(good, least, low[:, rows])
        high[:, rows] = np.where(good, most, high[:, rows])
        found[:, rows] |= good
    return factor, low, high, found


def _moves(near: Ints) -> list[int]:
    """Steps from the nearest factor that are worth trying, the shortest first: beyond a 256th part
    the slope is another."""
    most = min(NEIGHBOURS, int(near.max(initial=0)) >> 8)
    return sorted(range(-most, most + 1), key=abs)


def _roundest(least: Ints, most: Ints) -> Ints:
    """The multiple of the largest power of two in each interval: digits of it that are 0 need no
    step. 0 where the interval holds it."""
    best = least.copy()
    for bits in range(48):
        unit = np.int64(1) << bits
        up = -((-least) // unit) * unit
        best = np.where(up <= most, up, best)
    return np.where((least <= 0) & (most >= 0), 0, best)
