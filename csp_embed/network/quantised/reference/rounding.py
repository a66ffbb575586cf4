"""The roundings of the two profiles, on arrays of integers. Exact wherever the runtimes are."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
INT32_MAX = (1 << 31) - 1


def double_rounding(acc: Array, multiplier: Array, shift: Array) -> NDArray[np.int64]:
    """acc * multiplier * 2^(shift - 31), rounded twice: the high half of the product, then the
    right shift. acc fits int32; multiplier and shift have one entry or one per last axis."""
    left, right = np.maximum(shift, 0), np.maximum(-shift, 0)
    # The left shift wraps in int32, as C's does on every machine the kernels run on.
    wide = (acc.astype(np.int64) << left).astype(np.int32).astype(np.int64)
    return rounding_shift(doubling_high(wide, multiplier), right)


def doubling_high(a: Array, b: Any) -> NDArray[np.int64]:
    """round(a * b / 2^31) as gemmlowp's saturating rounding doubling high multiplication has it:
    the nudge depends on the product's sign, the division truncates."""
    product = np.asarray(a, np.int64) * np.asarray(b, np.int64)
    nudged = product + np.where(product >= 0, 1 << 30, 1 - (1 << 30))
    # Division towards zero; -2^31 * -2^31 alone exceeds int32.
    high = np.sign(nudged) * (np.abs(nudged) >> 31)
    return np.minimum(high, INT32_MAX)


def rounding_shift(value: Array, bits: Any) -> NDArray[np.int64]:
    """value / 2^bits, halves away from zero."""
    value, bits = np.asarray(value, np.int64), np.asarray(bits, np.int64)
    # The part that is shifted out, against its half; a tie goes away from zero by the sign.
    mask = (np.int64(1) << bits) - 1
    return (value >> bits) + ((value & mask) > (mask >> 1) + (value < 0))


def half_away(total: Array, count: Array) -> NDArray[np.int64]:
    """total / count, halves away from zero."""
    # Twice everything: the half is then a whole number.
    return np.sign(total) * ((2 * np.abs(total) + count) // (2 * count))


def scaled_half_even(acc: Array, scale: Array) -> NDArray[np.int64]:
    """rint(float32(acc) * scale) in float32, halves to even; beyond int32 it stays at its ends."""
    # Through float64, where clipping at int32's ends is exact.
    scaled = np.rint(acc.astype(np.float32) * scale.astype(np.float32)).astype(np.float64)
    return np.clip(scaled, -(2.0**31), 2.0**31 - 1).astype(np.int64)


def fused_multiply_add(
    a: Array, b: Array | np.float32, c: Array | np.float32
) -> NDArray[np.float32]:
    """a * b + c rounded once to float32, where a * b is exact in float64.

    The float64 sum is rounded to odd first (its lost part in its last bit), so that the second
    rounding sees on which side of a tie it lies.
    """
    product, c = np.broadcast_arrays(a.astype(np.float64) * np.float64(b), np.float64(c))
    total = product + c
    part = total - product
    lost = (product - (total - part)) + (c - part)
    # Bits as an integer: its last one says whether the significand is even.
    bits = total.view(np.int64)
    inexact_even = (lost != 0) & ((bits & 1) == 0)
    # Towards the lost part: the magnitude grows where it has the sum's sign.
    grows = np.where((lost > 0) == (total > 0), 1, -1)
    return np.where(inexact_even, bits + grows, bits).view(np.float64).astype(np.float32)
