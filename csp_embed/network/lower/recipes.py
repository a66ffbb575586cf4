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
    parity   digits of two first, near enough to tell odd from even; then a c of minus that bit,
             shifted left, and digits of acc * m, to which c is added: halves to even at any m
    signed   such a c first, shifted left, then digits of acc * m, to which c is added: any
             multiplier where halves go away from zero
    points   two constants for digits of acc * m: which one a sum takes is told by a bit as in
             parity, or is the same for all but single sums: exact where rule and line are near
    terms    the products once, their sum kept: times two factors of few ones, each of them a
             shift and an addition of what was kept; with a constant for each sign, or hits
    largest  the sums are differences: max(a, b) = max(a - b, 0) + b, one round for each further
             value
Channels of one value have no products: their constant is that value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from csp_embed.network.lower.recipe import LANES, PLAIN, Recipe, Search, Steps
from csp_embed.network.lower.recipes_digits import digits, parity, signed
from csp_embed.network.lower.recipes_points import points
from csp_embed.network.lower.recipes_terms import LEAST, terms
from csp_embed.network.lower.thresholds import Ints, Rule, thresholds


def recipes(
    rule: Rule, weights: Ints, bias: Ints, steps: float | None = None, read: float = 0.0
) -> tuple[list[Recipe], list[str]]:
    """(the exact ones, for each other kind why it is not taken). weights: [channels, products];
    bias: what the machine adds to the products, by channel: acc is both together. steps: of the
    machine that one vector's products take; none: sixteen products each. read: cycles a vector
    that loading the factors of one round takes."""
    first = thresholds(rule)
    # A channel whose value never steps needs no products at all.
    live = np.asarray(((first > rule.low[:, None]) & (first <= rule.high[:, None])).any(axis=1))
    task = Search(rule, first, weights, bias, live, steps or -(-weights.shape[1] // 16), read)
    found: list[Recipe] = []
    reasons: list[str] = []
    # Beyond int8 a factor needs digits anyway.
    # Weights of int8 times a factor 1 fit; wider ones do not.
    wide = weights.size > 0 and (weights.max() > 127 or weights.min() < -128)
    for make in _KINDS:
        if _idle(make, task, found, wide):
            continue
        made = make(task)
        if isinstance(made, str):
            reasons.append(made)
            continue
        bad = int((live & ~exact(made, rule, first)).sum())
        # Proved here whatever the search thought: this is the only place that says "exact".
        if bad:
            reasons.append(f"{made.name}: {bad} of {rule.low.size} channels have none")
        else:
            found.append(made)
    return found, reasons


def exact(recipe: Recipe, rule: Rule, first: Ints) -> np.ndarray:
    """By channel: whether the recipe reaches each stored value at the same accumulator as the
    rule. Both never decrease, so they are equal then, everywhere in the range. Where a coarse
    product changes, the recipe may step back: it is compared on either side of those places, too,
    and never decreases between them."""
    levels = rule.levels[None, :]
    low, high = rule.low[:, None], rule.high[:, None]
    at = recipe.value(np.minimum(first, high)) >= levels
    before = recipe.value(np.maximum(first - 1, low)) < levels
    inside = (first > low) & (first <= high)
    right = np.where(first > high, recipe.value(high) < levels, at)
    right &= np.where(first <= low, recipe.value(low) >= levels, before)
    good = np.where(inside, at & before, right).all(axis=1)
    places: list[Ints] = []
    if recipe.coarse is not None:
        # Two numbers beyond the clamp a step back stays beyond it.
        ends = rule.clamp[0] - rule.zero - 2, rule.clamp[1] - rule.zero + 3
        changes = recipe.coarse.changes(*ends)
        places += [changes - 1, changes]
    if recipe.tells is not None:
        changes = _changes(recipe, rule)
        places += [changes - 1, changes]
    if recipe.hits is not None and recipe.hits.size:
        places += [recipe.hits.T + n for n in (-1, 0, 1)]
    for sums in places:
        sums = np.clip(sums, low, high)
        same = np.clip(recipe.value(sums), *rule.clamp) == np.clip(rule.apply(sums), *rule.clamp)
        good &= same.all(axis=1)
    return np.asarray(good)


def _changes(recipe: Recipe, rule: Rule) -> Ints:
    """[channels, n]: the sums at which what is odd or even takes each number near the clamp; as the
    number never falls, it is the same between them."""
    numbers = np.arange(rule.clamp[0] - rule.zero - 2, rule.clamp[1] - rule.zero + 4)
    low, high = rule.low[:, None], rule.high[:, None]
    guess = np.rint((numbers[None, :] - 1 - np.reshape(rule.origin, (-1, 1))) / rule.slope[:, None])
    guess = np.clip(guess, low, high).astype(np.int64)
    bottom, top = np.clip(guess - NEAR, low, high + 1), np.clip(guess + NEAR, low, high + 1)

    def reached(sums: Ints) -> np.ndarray:
        return (recipe.number(np.minimum(sums, high)) >= numbers) | (sums > high)

    # Most lie where the slope says; for others the whole range is halved.
    bottom = np.where((bottom > low) & ~reached(bottom - 1), bottom, low)
    top = np.where(reached(top), top, high + 1)
    while (bottom < top).any():
        middle = (bottom + top) >> 1
        there = reached(middle)
        top, bottom = np.where(there, middle, top), np.where(there, bottom, middle + 1)
        top = np.maximum(top, bottom)
    return bottom


def _shift(task: Search) -> Recipe | str:
    near = task.near
    least, most = task.ends(near)
    if (task.live & (least > most)).any():
        return task.none("shift", least <= most)
    # The offset nearest to minus the bias: where their sum is 0 the step falls away.
    offset = np.clip(-task.bias, least, np.maximum(least, most))
    return task.recipe("shift", np.ones_like(near), (offset,), (), near)


def _sign(task: Search) -> Recipe | str:
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
    # One step suits all channels, and an immediate of 16 bits holds it.
    bits = None
    if low <= min(int(highest[task.live].min(initial=1 << 15)), 1 << 15):
        step: Ints | int = low
        move: Steps = (("min", 0), ("max", -low))
    else:
        bits = np.ceil(np.log2(np.maximum(lowest, 1))).astype(np.int64)
        step, move = np.int64(1) << bits, (("shr", 31), *LANES)
    least, most = np.maximum(above[0], below[0] + step), np.minimum(above[1], below[1] + step)
    offset = np.clip(-task.bias, least, np.maximum(least, most))
    offsets = np.zeros_like(near), offset
    made = task.recipe("sign", np.ones_like(near), offsets, (move,), near)
    return replace(made, bits=bits)


def _even(task: Search) -> Recipe | str:
    near = task.near
    if (near < 1).any():
        return task.none("even", near > 0)
    zero = task.rule.apply(np.zeros((near.size, 1), np.int64))[:, 0]
    half = np.int64(1) << (near - 1)
    # One shift for all channels: by immediates.
    if np.unique(near).size == 1:
        between: Steps = (("shr", -(31 - int(near[0]))), ("shr", 31))
    else:
        between = (("shr_lanes", 0), ("shr", -31), ("shr", 31))
    # An even zero point does not change which numbers are even: then it is added at once.
    first = half + np.where(zero % 2 == 0, zero << near, 0)
    offsets = (first, half + (zero << near))
    return task.recipe("even", np.ones_like(near), offsets, (between,), near)


NEAR = 8  # sums around the place that a slope tells, in which it is looked for
_KINDS: tuple[Callable[[Search], Recipe | str], ...] = (
    _shift, _sign, _even, digits, terms, points, parity, signed,
)  # fmt: skip
KINDS = tuple(make.__name__.lstrip("_") for make in _KINDS)  # for people, in order of price


def _idle(
    make: Callable[[Search], Recipe | str], task: Search, found: list[Recipe], wide: bool
) -> bool:
    """Whether a kind need not be looked for: it cannot be, or would cost no less."""
    if make in (_shift, _sign, _even):
        return wide
    if not found:
        return make is signed and task.rule.even
    # Beyond one round of products, loads of factors included.
    best = min(r.price(task.steps, task.read) for r in found) - task.steps - PLAIN
    if make is terms:
        return best <= LEAST
    if make is points:
        # Three further rounds, and a bit that is told.
        return best <= 3 * (task.steps + 2)
    if make is parity:
        # It is points without hits, with one step for all channels, which costs a little less.
        return any(r.hits is None or len(r.hits) or r.coarse is None for r in found)
    # Digits cost more than all others, and no less than three rounds where signs are told apart.
    return make is not signed or task.rule.even or best <= 3 * (task.steps + 1)
