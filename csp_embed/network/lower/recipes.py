"""Requantisation as steps of an accumulator: sequences found, proved and priced at compile time.

Takes: a rule (thresholds.py) and the weights of a layer.  Leaves: `Recipe`s, each proved equal to
the rule at every threshold, for every accumulator that can occur.

The machine adds products, adds, shifts and clips; it has no multiplier behind its sums. A recipe
contracts once or several times into the same accumulator, with steps in between:
    shift    ((acc + c) >> n)
    sign     c = max(min(acc, 0), -d) first, then (acc + c + b) >> n: a constant for each sign,
             where halves go away from zero; or c = (acc >> 31) << k, k by channel
    even     c = minus bit n of (acc + half) first, then (acc + c + b) >> n: halves to even
    digits   (acc * m + b) >> s for any m: the weights times m as digits of eight bits, the lowest
             first; acc >>= 8 between them. Rounding down after each digit is rounding down once:
             floor((a + 256 r) / 256) = floor(a / 256) + r
    signed   such a c first, shifted left, then digits of acc * m, to which c is added: any
             multiplier where halves go away from zero
    largest  the sums are differences: max(a, b) = max(a - b, 0) + b, one round for each further
             value
Channels of one value have no products: their constant is that value.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from csp_embed.network.lower.thresholds import Ints, Rule, thresholds

Steps = tuple[tuple[str, int], ...]
"""("shr", n); or by channel: ("shr_lanes", 0) by the last shift, ("sign_lanes", 0) from 30 to k."""
WIDE = np.int64(1) << 56
_LANES: Steps = (("shr", -30), ("sign_lanes", 0))
FAR = 29  # bits that a sign may be shifted by
STEPS = tuple((d, j) for d in (1, 3, 5, 7) for j in range(FAR + 1 - d.bit_length() + 1))
"""d * 2^j: by how much a negative sum's constant may be less, when sums are rescaled."""
NEIGHBOURS = 40  # factors on either side of the slope that are tried
MOST_DIGITS = 5
COPY = 6  # cycles: reset, add to the copy, add it back, and a constant


@dataclass(frozen=True, eq=False)
class Recipe:
    """name: see the module's text. factor: m by channel. offsets: what each round adds to its sum,
    by channel (digits and signed: one, added to acc * m). between: steps after each round but the
    last. amount: the last shift, by channel (digits: the whole s). live: channels of several
    values; constant: the value of the others. bits: k of a sign's step, where it differs by
    channel."""

    name: str
    factor: Ints
    offsets: tuple[Ints, ...]
    between: tuple[Steps, ...]
    amount: Ints
    live: np.ndarray
    constant: Ints
    bits: Ints | None = None

    @property
    def rounds(self) -> int:
        return len(self.between) + 1

    @property
    def digits(self) -> int:
        """Rounds whose weights are digits of the weights times the factor; the last ones."""
        return {"digits": self.rounds, "signed": self.rounds - 1}.get(self.name, 0)

    @property
    def repeats(self) -> bool:
        """Whether every round has the same factors."""
        return not self.digits and self.name != "largest"

    def value(self, acc: Ints) -> Ints:
        """What the machine has after the last shift, for accumulators [channels, n]."""
        amount = self.amount[:, None]
        if self.digits:
            carried = self._stepped(acc, self.between[0]) if self.name == "signed" else 0
            return (acc * self.factor[:, None] + self.offsets[0][:, None] + carried) >> amount
        carried = np.zeros_like(acc)
        for offset, steps in zip(self.offsets[:-1], self.between, strict=True):
            carried = self._stepped(carried + acc + offset[:, None], steps)
        return (carried + acc + self.offsets[-1][:, None]) >> amount

    def _stepped(self, values: Ints, steps: Steps) -> Ints:
        """What steps between two rounds make of int32 values."""
        for op, imm in steps:
            if op == "shr":
                values = values << -imm if imm < 0 else values >> imm
            elif op == "shr_lanes":
                values = values >> self.amount[:, None]
            elif op == "sign_lanes":
                assert self.bits is not None
                values = values >> (30 - self.bits[:, None])
            else:
                values = np.minimum(values, imm) if op == "min" else np.maximum(values, imm)
            values = values.astype(np.int32).astype(np.int64)  # it wraps, on purpose
        return values

    def extra(self, products: float) -> float:
        """Cycles a vector beyond one round with its bias. products: steps of one contraction."""
        steps = sum(2 if op.endswith("lanes") else 1 for s in self.between for op, _ in s)
        lanes = 1 if np.unique(self.amount).size > 1 else 0
        again = COPY if self.copies(products) else (self.rounds - 1) * (products + 1)
        return again + steps + lanes

    def copies(self, products: float) -> bool:
        """Whether a copy of the sums is cheaper than making them again."""
        return self.rounds == 2 and self.repeats and products + 1 > COPY


@dataclass(frozen=True, eq=False)
class _Task:
    """first: the rule's thresholds. weights: [channels, products]. bias: what is added to the
    products on the machine, by channel, beside a recipe's offsets."""

    rule: Rule
    first: Ints
    weights: Ints
    bias: Ints
    live: np.ndarray

    def recipe(
        self, name: str, factor: Ints, offsets: tuple[Ints, ...], between: tuple[Steps, ...],
        amount: Ints,
    ) -> Recipe:  # fmt: skip
        constant = self.rule.apply(self.rule.low[:, None])[:, 0]
        constant = np.clip(constant, *self.rule.clamp)
        return Recipe(name, factor, offsets, between, amount, self.live, constant)

    def none(self, name: str, good: np.ndarray) -> str:
        bad = int((self.live & ~good).sum())
        return f"{name}: {bad} of {self.live.size} channels have none"

    @property
    def near(self) -> Ints:
        """The real multiplier lies at, or a hair beside, 2^-n: n is its logarithm, rounded; the
        commonest one where a channel has one value."""
        slope = np.maximum(self.rule.slope, 2.0**-31)
        near = np.clip(np.rint(-np.log2(slope)), 0, 31).astype(np.int64)
        values, counts = np.unique(near[self.live], return_counts=True)
        return np.where(self.live, near, values[np.argmax(counts)] if values.size else 0)

    def ends(self, amount: Ints, chosen: np.ndarray | bool = True) -> tuple[Ints, Ints]:
        """The interval of constants with which a shift is right at the chosen levels."""
        return self.scaled_ends(np.ones_like(amount), amount, chosen)

    def scaled_ends(
        self, factor: Ints, amount: Ints, chosen: np.ndarray | bool = True
    ) -> tuple[Ints, Ints]:
        """As `ends`, of constants that are added to acc * factor."""
        rule, first, wide = self.rule, self.first, WIDE
        reach = rule.levels[None, :] << amount[:, None]
        below, above = first <= rule.low[:, None], first > rule.high[:, None]
        at = np.where(below, rule.low[:, None], first) * factor[:, None]
        before = np.where(above, rule.high[:, None], first - 1) * factor[:, None]
        chosen = np.broadcast_to(chosen, first.shape)
        least = np.where(above | ~chosen, -wide, reach - at).max(axis=1, initial=-wide)
        most = np.where(below | ~chosen, wide, reach - 1 - before).min(axis=1, initial=wide)
        return least, most


def recipes(rule: Rule, weights: Ints, bias: Ints) -> tuple[list[Recipe], list[str]]:
    """(the exact ones, for each other kind why it is not exact). weights: [channels, products];
    bias: what the machine adds to the products, by channel: acc is both together."""
    first = thresholds(rule)
    live = np.asarray(((first > rule.low[:, None]) & (first <= rule.high[:, None])).any(axis=1))
    task = _Task(rule, first, weights, bias, live)
    found: list[Recipe] = []
    reasons: list[str] = []
    # Beyond int8 a factor needs digits anyway.
    wide = weights.size > 0 and (weights.max() > 127 or weights.min() < -128)
    for make in (_digits, _signed) if wide else (_shift, _sign, _even, _digits, _signed):
        # Digits cost more than all others, and those with a sign more still.
        if make in (_digits, _signed) and found:
            continue
        made = make(task)
        if isinstance(made, str):
            reasons.append(made)
            continue
        bad = int((live & ~exact(made, rule, first)).sum())
        if bad:
            reasons.append(f"{made.name}: {bad} of {rule.low.size} channels have none")
        else:
            found.append(made)
    return found, reasons


def exact(recipe: Recipe, rule: Rule, first: Ints) -> np.ndarray:
    """By channel: whether the recipe reaches each stored value at the same accumulator as the
    rule. Both never decrease, so they are equal then, everywhere in the range."""
    levels = rule.levels[None, :]
    low, high = rule.low[:, None], rule.high[:, None]
    at = recipe.value(np.minimum(first, high)) >= levels
    before = recipe.value(np.maximum(first - 1, low)) < levels
    inside = (first > low) & (first <= high)
    right = np.where(first > high, recipe.value(high) < levels, at)
    right &= np.where(first <= low, recipe.value(low) >= levels, before)
    return np.asarray(np.where(inside, at & before, right).all(axis=1))


def _shift(task: _Task) -> Recipe | str:
    near = task.near
    least, most = task.ends(near)
    if (task.live & (least > most)).any():
        return task.none("shift", least <= most)
    offset = np.clip(-task.bias, least, np.maximum(least, most))
    return task.recipe("shift", np.ones_like(near), (offset,), (), near)


def _sign(task: _Task) -> Recipe | str:
    """The levels above the stored value of 0 have one constant, those below another."""
    near, rule = task.near, task.rule
    middle = rule.apply(np.zeros((rule.low.size, 1), np.int64))
    above = task.ends(near, rule.levels > middle)
    below = task.ends(near, rule.levels <= middle)
    # The constant of negative sums is that of the others less a step, any of these:
    lowest, highest = np.maximum(above[0] - below[1], 0), above[1] - below[0]
    good = (lowest <= highest) & (above[0] <= above[1]) & (below[0] <= below[1])
    if (task.live & ~good).any():
        return task.none("sign", good)
    low = int(lowest[task.live].max(initial=0))
    bits = None
    if low <= min(int(highest[task.live].min(initial=1 << 15)), 1 << 15):
        step: Ints | int = low
        move: Steps = (("min", 0), ("max", -low))
    else:
        bits = np.ceil(np.log2(np.maximum(lowest, 1))).astype(np.int64)
        step, move = np.int64(1) << bits, (("shr", 31), *_LANES)
    least, most = np.maximum(above[0], below[0] + step), np.minimum(above[1], below[1] + step)
    offset = np.clip(-task.bias, least, np.maximum(least, most))
    offsets = np.zeros_like(near), offset
    made = task.recipe("sign", np.ones_like(near), offsets, (move,), near)
    return replace(made, bits=bits)


def _even(task: _Task) -> Recipe | str:
    near = task.near
    if (near < 1).any():
        return task.none("even", near > 0)
    zero = task.rule.apply(np.zeros((near.size, 1), np.int64))[:, 0]
    half = np.int64(1) << (near - 1)
    if np.unique(near).size == 1:
        between: Steps = (("shr", -(31 - int(near[0]))), ("shr", 31))
    else:
        between = (("shr_lanes", 0), ("shr", -31), ("shr", 31))
    # An even zero point does not change which numbers are even: then it is added at once.
    first = half + np.where(zero % 2 == 0, zero << near, 0)
    offsets = (first, half + (zero << near))
    return task.recipe("even", np.ones_like(near), offsets, (between,), near)


def _digits(task: _Task) -> Recipe | str:
    best = np.zeros(task.live.size, bool)
    for digits in range(2, MOST_DIGITS + 1):
        for amount in _amounts(task, digits):
            factor, offset, found = _factors(task, amount, digits)
            best |= found
            if (found | ~task.live).all():
                between: tuple[Steps, ...] = ((("shr", 8),),) * (digits - 1)
                return task.recipe("digits", factor, (offset,), between, amount)
    return task.none("digits", best)


def most_carried(digits: int) -> int:
    """Every integer of at most this magnitude has so many digits in -128 .. 127."""
    return 127 * (256**digits - 1) // 255


def _room(task: _Task, digits: int) -> Ints:
    """The largest factor whose products with the weights the digits carry, by channel."""
    return most_carried(digits) // np.maximum(np.abs(task.weights).max(axis=1), 1)


def _amounts(task: _Task, digits: int) -> Iterator[Ints]:
    """Shifts worth trying: the widest factors that the digits carry, one shift for all channels,
    then each channel's own."""
    room = np.maximum(_room(task, digits) - NEIGHBOURS, 1)
    own = np.floor(np.log2(room / np.maximum(task.rule.slope, 2.0**-40))).astype(np.int64)
    own = np.clip(own, 8 * (digits - 1), 8 * (digits - 1) + 31)
    shared = int(own[task.live].min()) if task.live.any() else 8 * (digits - 1)
    yield np.full_like(own, shared)
    if np.unique(own[task.live]).size > 1:
        yield np.where(task.live, own, shared)


def _factors(task: _Task, amount: Ints, digits: int) -> tuple[Ints, Ints, np.ndarray]:
    """(factor, offset, whether there is one) by channel, for shifts by `amount`."""
    live = task.live
    near = np.rint(task.rule.slope * 2.0**amount).astype(np.int64)
    room = _room(task, digits)
    factor, offset = np.zeros_like(near), np.zeros_like(near)
    found = np.zeros(live.size, bool)
    for step in _moves(near[live]):
        if (found | ~live).all():
            break
        m = np.where(live, near + step, 0)
        least, most = task.scaled_ends(m, amount)
        good = live & ~found & (least <= most) & (m >= 0) & (m <= room)
        # What the machine adds is the bias times the factor, too: the roundest sum is chosen.
        added = task.bias * m
        whole = _roundest(least + added, np.maximum(least, most) + added)
        factor = np.where(good, m, factor)
        offset = np.where(good, whole - added, offset)
        found |= good
    return factor, offset, found


def _signed(task: _Task) -> Recipe | str:
    best = np.zeros(task.live.size, bool)
    for digits in range(3, MOST_DIGITS + 1):
        for wide in _amounts(task, digits):
            # The step between the signs is about 2^(amount - n) for a multiplier of 2^-n.
            amount = np.minimum(wide, np.maximum(task.near + FAR - 1, 8 * (digits - 1)))
            factor, least, most, found = _signed_factors(task, amount, digits)
            best |= found.any(axis=0)
            if not (best | ~task.live).all() or not (found.any(axis=0) | ~task.live).all():
                continue
            # One step for all channels, where there is one; else the powers of two among them.
            whole = np.flatnonzero((found | ~task.live).all(axis=1))
            powers = [n for n, (d, _) in enumerate(STEPS) if d == 1]
            if whole.size:
                number = np.full(task.live.size, whole[0])
                d, j = STEPS[whole[0]]
                move: Steps = (("min", 0), ("max", -d), *([("shr", -j)] if j else []))
            elif (found[powers].any(axis=0) | ~task.live).all():
                number = np.array(powers)[found[powers].argmax(axis=0)]
                move = (("shr", 31), *_LANES)
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


def _signed_factors(task: _Task, amount: Ints, digits: int) -> tuple[Ints, Ints, Ints, np.ndarray]:
    """(factor, least and most of what is added, whether there is one) by step of STEPS and
    channel."""
    rule, live = task.rule, task.live
    middle = rule.apply(np.zeros((rule.low.size, 1), np.int64))
    near = np.rint(rule.slope * 2.0**amount).astype(np.int64)
    room = _room(task, digits)
    shape = (len(STEPS), live.size)
    factor, low, high = (np.zeros(shape, np.int64) for _ in range(3))
    found = np.zeros(shape, bool)
    step = np.array([d << j for d, j in STEPS], np.int64)[:, None]
    for move in _moves(near[live]):
        if (found | ~live).all(axis=1).any():
            break
        m = np.where(live, near + move, 0)
        above = task.scaled_ends(m, amount, rule.levels > middle)
        below = task.scaled_ends(m, amount, rule.levels <= middle)
        # Negative sums have less the step: below[0] <= offset - step <= below[1].
        least = np.maximum(above[0][None], below[0][None] + step)
        most = np.minimum(above[1][None], below[1][None] + step)
        good = live & ~found & (least <= most) & (m >= 0) & (m <= room)
        factor = np.where(good, m, factor)
        low, high = np.where(good, least, low), np.where(good, most, high)
        found |= good
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
