"""Where a requantisation steps: the accumulators at which each stored value is first reached.

Takes: a rule, which never decreases with the accumulator, and the range of the accumulator.
Leaves: T(y) by channel, found by bisection over the whole range. Two rules that never decrease are
equal if and only if they agree at every T(y) and T(y) - 1; that is how a sequence of the machine's
steps is proved. Nothing here is shared with the reference interpreter, which judges the result.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.network.quantised.graph import FixedPoint, FloatScale, Pair, Rescale

Ints = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Rule:
    """apply: accumulators [channels, n] -> stored values before the clamp. low, high: least and
    largest accumulator of each channel. slope: of apply, about, by channel. zero: the stored value
    that stands for 0, which tells odd from even; origin: what lies above it at an accumulator of 0,
    before it is rounded, about, by channel. even: whether halves go to even."""

    apply: Callable[[Ints], Ints]
    clamp: Pair
    low: Ints
    high: Ints
    slope: NDArray[np.float64]
    zero: int = 0
    origin: NDArray[np.float64] | float = 0.0
    even: bool = False

    @property
    def levels(self) -> Ints:
        """The stored values that are reached by a step."""
        return np.arange(self.clamp[0] + 1, self.clamp[1] + 1)


def rule_of(rescale: Rescale, zero: int, clamp: Pair, low: Ints, high: Ints) -> Rule:
    """The rule of a convolution, a dense layer or a mean, by its profile."""
    if isinstance(rescale, FixedPoint):
        # One multiplier for all, or one a channel: the same shape from here on.
        multiplier, exponent = (
            np.broadcast_to(np.array(v, np.int64), low.shape)[:, None]
            for v in (rescale.multiplier, rescale.shift)
        )
        slope = (multiplier * 2.0 ** (exponent - 31.0))[:, 0]
        return Rule(
            lambda a: rescaled(a, multiplier, exponent) + zero, clamp, low, high, slope, zero
        )
    assert isinstance(rescale, FloatScale)
    # float32, as the runtime multiplies; a product in float64 would round elsewhere.
    scale = np.broadcast_to(np.array(rescale.scale, np.float32), low.shape)[:, None]

    def half_even(acc: Ints) -> Ints:
        product = acc.astype(np.float32) * scale
        # In float64 a clip at int32's ends is exact.
        return np.rint(product).astype(np.float64).clip(-(2.0**31), 2.0**31 - 1).astype(
            np.int64
        ) + zero  # fmt: skip

    slopes = scale[:, 0].astype(np.float64)
    return Rule(half_even, clamp, low, high, slopes, zero, even=True)


def rescaled(acc: Ints, multiplier: Any, exponent: Any) -> Ints:
    """acc * multiplier * 2^(exponent - 31) by the profile's two roundings: to 2^-31 with halves up,
    then halves away from zero. Written from the rule's arithmetic, not from a kernel."""
    product = (acc << np.maximum(exponent, 0)) * multiplier
    # Python's shift rounds down; adding half first makes it halves up.
    high = (product + (1 << 30)) >> 31
    bits = np.maximum(-np.asarray(exponent), 0)
    half = np.where(bits > 0, (np.int64(1) << bits) >> 1, 0)
    # Halves away from zero: of a negative number, the half is taken off by one.
    return (high + half - ((high < 0) & (bits > 0))) >> bits


def thresholds(rule: Rule) -> Ints:
    """[channels, levels]: the least accumulator of the range that gives at least the level; one
    more than the range where none does, its least where all do."""
    levels = rule.levels
    bottom = np.broadcast_to(rule.low[:, None], (rule.low.size, levels.size)).copy()
    top = np.broadcast_to(rule.high[:, None] + 1, bottom.shape).copy()
    while (bottom < top).any():
        middle = (bottom + top) >> 1
        # All channels and levels bisect at once: 32 rounds of vector work for a whole layer.
        reached = rule.apply(middle) >= levels
        active = bottom < top
        top = np.where(active & reached, middle, top)
        bottom = np.where(active & ~reached, middle + 1, bottom)
    return bottom
