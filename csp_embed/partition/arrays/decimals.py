"""Numbers of files as the decimals that they are written as.

Takes: floats.  Leaves: Fractions, so that equal sums are equal in every unit.
"""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction
from functools import lru_cache


# Files have few different numbers and graphs thousands of uses of them; parsing is slow.
@lru_cache(1 << 16)
def number(x: float) -> Fraction:
    """The decimal that a number is written as, exactly."""
    # `repr` of a double is the shortest decimal that reads as it: what the file said.
    return Fraction(repr(float(x)))


def magnitude(x: float) -> int:
    """The power of ten of a positive number's first digit."""
    # By Decimal, not log10, which is off by one near powers of ten.
    return Decimal(repr(x)).adjusted()
