"""The int8 softmax of TensorFlow Lite's reference kernels, in 32-bit fixed point.

Qi.f: i bits before the point, f behind, one for the sign.  Source: the kernel's specification in
gemmlowp's fixed-point library (exponential by a Taylor polynomial and a barrel of constants,
reciprocal by three Newton steps); the constants are computed from what they stand for.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.network.quantised.reference.rounding import doubling_high, rounding_shift

Ints = NDArray[np.int64]
INT32_MIN, INT32_MAX = -(1 << 31), (1 << 31) - 1
_SUM_BITS = 12  # Exponentials are summed in Q12.19: 4,096 of them fit.


def softmax(x: NDArray[Any], multiplier: int, left_shift: int, diff_min: int) -> Ints:
    """int8 values of scale 1/256 and zero point -128, over the last axis."""
    wide = x.astype(np.int64)
    # Differences to the largest: exponents are then never positive.
    diff = wide - wide.max(axis=-1, keepdims=True)
    # Below that the exponential is 0 in this format; the kernel leaves such values out.
    kept = diff >= diff_min
    scaled = doubling_high(_int32(np.where(kept, diff, 0) << left_shift), multiplier)
    exps = np.where(kept, _exp_negative(scaled), 0)
    # Shifted before summing, so that 4,096 of them fit 32 bits.
    total = rounding_shift(exps, _SUM_BITS).sum(axis=-1, keepdims=True)
    # Leading zeros of the sum as a 32-bit word; frexp's exponent is the number of its bits.
    zeros = 32 - np.frexp(total.astype(np.float64))[1].astype(np.int64)
    inverse = _one_over_one_plus((total << zeros) - (1 << 31))
    shares = rounding_shift(doubling_high(inverse, exps), _SUM_BITS - zeros + 31 - 8)
    return np.where(kept, np.clip(shares - 128, -128, 127), -128)


def _exp_negative(a: Ints) -> Ints:
    """exp(a), a <= 0 in Q5.26, as Q0.31."""
    # exp(a) = exp(rest) * exp(-missing): rest in [-1/4, 0), missing a multiple of 1/4.
    quarter = 1 << 24
    rest = (a & (quarter - 1)) - quarter
    result = _exp_small(rest << 5)
    missing = rest - a
    # A barrel of constants: one product for each bit of `missing`.
    for exponent in range(-2, 5):
        constant = math.floor(math.exp(-(2.0**exponent)) * 2.0**31 + 0.5)
        has = (missing & (1 << (26 + exponent))) != 0
        result = np.where(has, doubling_high(result, constant), result)
    # exp(0) is 1, which Q0.31 does not hold: its largest number stands for it.
    return np.where(a == 0, INT32_MAX, result)


def _exp_small(a: Ints) -> Ints:
    """exp(a) for -1/4 <= a < 0 in Q0.31, around -1/8."""
    constant = math.floor(math.exp(-0.125) * 2.0**31 + 0.5)
    third = math.floor(2.0**31 / 3 + 0.5)
    # Around the middle of the interval the series needs fewer terms.
    x = a + (1 << 28)
    x2 = doubling_high(x, x)
    x3, x4 = doubling_high(x2, x), doubling_high(x2, x2)
    # x^2/2 + x^3/6 + x^4/24, nested.
    tail = rounding_shift(doubling_high(rounding_shift(x4, 2) + x3, third) + x2, 1)
    return constant + doubling_high(x + tail, constant)


def _one_over_one_plus(a: Ints) -> Ints:
    """1 / (1 + a) for 0 <= a < 1, both Q0.31; Newton steps in Q2.29 from 48/17 - 32/17 d."""
    total = a + INT32_MAX
    half = (total + np.where(total >= 0, 1, -1)) >> 1  # total is not negative here
    # 48/17 and -32/17 in Q2.29: the best line for a first guess of 1/d.
    x = 1515870810 + doubling_high(half, -1010580540)
    # Each step doubles the right digits; three give 32 bits.
    for _ in range(3):
        error = (1 << 29) - doubling_high(half, x)
        x = x + _saturating_left(doubling_high(x, error), 2)
    return _saturating_left(x, 1)


def _saturating_left(a: Ints, bits: int) -> Ints:
    return np.clip(a << bits, INT32_MIN, INT32_MAX)


def _int32(a: Ints) -> Ints:
    return a.astype(np.int32).astype(np.int64)
