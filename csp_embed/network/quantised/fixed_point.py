"""Real multipliers as the integers that TensorFlow Lite's kernels multiply by."""

from __future__ import annotations

import math
from collections.abc import Sequence

from csp_embed.network.quantised.graph import AddFixed, FixedPoint

# The bits by which both summands of an addition are widened first (int8).
ADD_LEFT_SHIFT = 20


def q31(real: float) -> tuple[int, int]:
    """(multiplier, shift): real = multiplier * 2^(shift - 31), multiplier in [2^30, 2^31), half up.

    Below 2^-32 it is 0, as the kernels have it.
    """
    if real == 0.0:
        return 0, 0
    part, exponent = math.frexp(real)
    # floor(x + 1/2): halves up, as TFLite's own rounding of the multiplier.
    multiplier = math.floor(part * 2.0**31 + 0.5)
    # Rounding up may reach 2^31, which int32 does not hold.
    if multiplier == 1 << 31:
        multiplier, exponent = multiplier // 2, exponent + 1
    # A shift of more than 31 leaves nothing of an int32.
    return (0, 0) if exponent < -31 else (multiplier, exponent)


def fixed_point(reals: Sequence[float]) -> FixedPoint:
    """One multiplier and shift for each number."""
    pairs = [q31(r) for r in reals]
    return FixedPoint(tuple(m for m, _ in pairs), tuple(s for _, s in pairs))


def add_rescale(first: float, second: float, result: float) -> AddFixed:
    """The three multipliers of an addition from the scales of its tensors."""
    # Twice the larger scale: both quotients are at most 1/2, so no multiplier exceeds 1.
    twice = 2.0 * max(first, second)
    return AddFixed(
        ADD_LEFT_SHIFT,
        fixed_point([first / twice]),
        fixed_point([second / twice]),
        fixed_point([twice / ((1 << ADD_LEFT_SHIFT) * result)]),
    )


def mul_rescale(first: float, second: float, result: float) -> FixedPoint:
    """The multiplier of a product: scales multiplied and divided in double, as the kernels do."""
    return fixed_point([first * second / result])


def mean_rescale(ratio: float, count: int) -> FixedPoint:
    """Multiplier of a sum of `count` values: the ratio of the scales, divided by the count in
    integers, as the kernels do (the quotient is cut off)."""
    multiplier, shift = q31(ratio)
    # As many bits as the quotient has room for.
    more = min(count.bit_length() - 1, 32, 31 + shift)
    return FixedPoint(((multiplier << more) // count,), (shift - more,))


def softmax_scale(scale: float, beta: float) -> tuple[int, int, int]:
    """(multiplier, left shift, least difference that counts) of an int8 softmax; Q5.26."""
    # 5 integer bits, and the multiplier may not leave int32.
    real = min(beta * scale * 2.0 ** (31 - 5), (1 << 31) - 1.0)
    multiplier, shift = q31(real)
    # Beyond it exp is 0 in this fixed point.
    radius = ((1 << 5) - 1) * 2.0 ** (31 - 5) / 2.0**shift
    return multiplier, shift, -math.floor(radius)
