"""Numbers of files as the decimals that they are written as.

Takes: floats.  Leaves: Fractions, so that equal sums are equal in every unit.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache


@lru_cache(1 << 16)
def number(x: float) -> Fraction:
    """The decimal that a number is written as, exactly."""
    return Fraction(repr(float(x)))


def magnitude(x: float) -> int:
    """The power of ten of a positive number's first digit."""
    return Decimal(repr(x)).adjusted()
