"""Sums of two stored values that no factors meet at all pairs: single pairs take another constant.

Takes: about how the result grows with either value, and what it has to be for all pairs.  Leaves: a
`Recipe` of one channel and the weights of its rounds, proved at all pairs. As in recipes_points.py,
but for what tells a pair: a sum of both values with small factors, which other pairs may share
where both constants give the same.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np

from csp_embed.network.lower.lowered import split
from csp_embed.network.lower.recipe import Recipe
from csp_embed.network.lower.recipes_digits import most_carried
from csp_embed.network.lower.recipes_points import STEP, TELL
from csp_embed.network.lower.thresholds import Ints
from csp_embed.network.quantised.graph import Pair

MOST_PAIRS = 24  # that take the other constant
NEAR = 3  # factors on either side of the slopes
KEYS = ((127, 1), (1, 127), (127, -1), (101, 13), (13, 101), (89, 55), (127, 64))

Found = tuple[Recipe, tuple[Ints, ...]]


def pair_points(
    slopes: tuple[float, float], clamp: Pair, x1: Ints, x2: Ints, wanted: Ints
) -> Found | None:
    """(recipe, weights [1, 2] of each round); None where too many pairs would have to be told."""
    wanted = np.clip(wanted, *clamp)
    for digits in (3, 4):
        amount = math.floor(math.log2(most_carried(digits) / max(map(abs, slopes))))
        amount = min(amount, 8 * (digits - 1) + 31)
        for a, b in _factors(slopes, amount, digits):
            total = a * x1 + b * x2
            reach = wanted.astype(np.int64) << amount
            # At the clamp a value may lie beyond it.
            least = np.where(wanted > clamp[0], reach - total, -(1 << 60))
            most = np.where(wanted < clamp[1], reach + (1 << amount) - 1 - total, 1 << 60)
            # Two constants: none is reached too late with the upper one, none too early with the
            # lower one.
            upper, lower = int(least.max()), int(most.min())
            if not 0 < upper - lower < min(1 << amount, 1 << 30):
                continue
            hits = most < upper
            if np.count_nonzero(hits) > MOST_PAIRS:
                continue
            for key in KEYS:
                sums = key[0] * x1 + key[1] * x2
                told = np.unique(sums[hits])[::-1].astype(np.int64)
                recipe = _recipe(told, upper, upper - lower, amount, digits)
                # The proof, over all pairs: others may have the same sum of a key.
                carried = recipe.told(sums.reshape(1, -1)).reshape(total.shape)
                if np.array_equal(np.clip((total + upper + carried) >> amount, *clamp), wanted):
                    turns = [np.array([key], np.int64)] * told.size
                    return recipe, (*turns, *split(np.array([[a, b]], np.int64), digits))
    return None


def _factors(
    slopes: tuple[float, float], amount: int, digits: int
) -> Iterator[tuple[int, int]]:  # fmt: skip
    first, second = (round(s * 2.0**amount) for s in slopes)
    steps = range(-NEAR, NEAR + 1)
    for p, q in sorted(((p, q) for p in steps for q in steps), key=lambda v: abs(v[0]) + abs(v[1])):
        if max(abs(first + p), abs(second + q)) <= most_carried(digits):
            yield first + p, second + q


def _recipe(keys: Ints, upper: int, step: int, amount: int, digits: int) -> Recipe:
    """keys: falling, of the pairs that take the lower constant, a step below the upper one."""
    count = keys.size
    moved: list[Ints | None] = [keys[n + 1 : n + 2] - keys[n : n + 1] for n in range(count - 1)]
    lanes = (*moved, np.array([-step]), *[None] * (digits - 1))
    between = (*((*TELL, *STEP),) * count, *((("shr", 8),),) * (digits - 1))
    offsets = [1 - keys[n : n + 1] for n in range(count)]
    offsets += split(np.array([upper], np.int64), digits)
    one = np.ones(1, np.int64)
    return Recipe("points", one, tuple(offsets), between, np.array([amount]), np.ones(1, bool),
                  np.zeros(1, np.int64), hits=keys[:, None], lanes=lanes)  # fmt: skip
