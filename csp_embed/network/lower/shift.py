"""Requantisation as one shift: (acc + c) >> n in place of two roundings by a Q31 multiplier.

Takes: a channel's rule y = clamp(rescale(acc) + zero) and the range that its accumulator can have.
Leaves: n and the constants c for which the shift gives the same y for every accumulator of the
range, or nothing where there are none.

Both sides never decrease with acc, so they agree everywhere if and only if they reach each stored
value y at the same accumulator.  T(y), the least accumulator that gives at least y, is found by
bisection over the whole range; the shift reaches y at (y - zero) * 2^n - c.  For each T(y) inside
the range this fixes c; below and above it bounds c from one side.  What is left is an interval.
Nothing here is shared with the reference interpreter, which judges the result.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.network.quantised.graph import FixedPoint, Pair

Ints = NDArray[np.int64]


@dataclass(frozen=True)
class Shift:
    """Per output channel: amount n and the least and largest constant c that are exact."""

    amount: Ints
    least: Ints
    most: Ints


def shifts(
    rescale: FixedPoint, zero: int, clamp: Pair, low: Ints, high: Ints
) -> tuple[Shift | None, int]:
    """(the shifts, the number of channels that have none); the first is None unless that is 0.

    low, high: least and largest accumulator of each channel.
    """
    multiplier, exponent = (
        np.broadcast_to(np.array(v, np.int64), low.shape)
        for v in (rescale.multiplier, rescale.shift)
    )
    levels = np.arange(clamp[0] + 1, clamp[1] + 1)
    first = _first_reaching(multiplier, exponent, zero, levels, low, high)
    # The real multiplier lies at, or a hair beside, 2^-n: n is its logarithm, rounded.
    real = np.maximum(multiplier, 1) * 2.0 ** (exponent - 31.0)
    near = np.clip(np.rint(-np.log2(real)), 0, 31).astype(np.int64)
    least, most = _constants(first, levels - zero, near, low, high)
    values, counts = np.unique(near[~_constant(first, low, high)], return_counts=True)
    if values.size:
        # A channel of one value takes other shifts too, unless its sums spread over several steps
        # of them: the commonest shift of the others may save the table of shifts.
        common = np.full_like(near, values[np.argmax(counts)])
        others = _constants(first, levels - zero, common, low, high)
        takes = _constant(first, low, high) & (others[0] <= others[1])
        near = np.where(takes, common, near)
        least, most = (np.where(takes, o, v) for o, v in zip(others, (least, most), strict=True))
    bad = int((least > most).sum())
    return (None if bad else Shift(near, least, most)), bad


def _constant(first: Ints, low: Ints, high: Ints) -> NDArray[np.bool_]:
    """Channels that give one value over their whole range."""
    inside = (first > low[:, None]) & (first <= high[:, None])
    return ~np.logical_or.reduce(inside, axis=1)


def _constants(first: Ints, steps: Ints, amount: Ints, low: Ints, high: Ints) -> tuple[Ints, Ints]:
    """The interval of c; empty (least > most) where no constant will do."""
    reach = steps[None, :] << amount[:, None]  # the shift gives y from here on, c added
    below = first <= low[:, None]  # reached by every accumulator
    above = first > high[:, None]  # reached by none
    wide = np.int64(1) << 40
    # acc + c >= reach for the least accumulator that must reach it …
    needs = np.where(above, -wide, reach - np.where(below, low[:, None], first))
    # … and acc + c < reach for the largest that must not.
    stops = np.where(below, wide, reach - 1 - np.where(above, high[:, None], first - 1))
    return needs.max(axis=1, initial=-wide), stops.min(axis=1, initial=wide)


def _first_reaching(
    multiplier: Ints, exponent: Ints, zero: int, levels: Ints, low: Ints, high: Ints
) -> Ints:
    """[channels, levels]: the least accumulator of the range that gives at least the level; one
    more than the range where none does, its least where all do."""
    bottom = np.broadcast_to(low[:, None], (low.size, levels.size)).copy()
    top = np.broadcast_to(high[:, None] + 1, bottom.shape).copy()
    while (bottom < top).any():
        middle = (bottom + top) >> 1
        reached = rescaled(middle, multiplier[:, None], exponent[:, None]) + zero >= levels
        active = bottom < top
        top = np.where(active & reached, middle, top)
        bottom = np.where(active & ~reached, middle + 1, bottom)
    return bottom


def rescaled(acc: Ints, multiplier: Any, exponent: Any) -> Ints:
    """acc * multiplier * 2^(exponent - 31) by the profile's two roundings: to 2^-31 with halves up,
    then halves away from zero. Written from the rule's arithmetic, not from a kernel."""
    product = (acc << np.maximum(exponent, 0)) * multiplier
    high = (product + (1 << 30)) >> 31
    bits = np.maximum(-np.asarray(exponent), 0)
    half = np.where(bits > 0, (np.int64(1) << bits) >> 1, 0)
    # Halves away from zero: of a negative number, the half is taken off by one.
    return (high + half - ((high < 0) & (bits > 0))) >> bits
