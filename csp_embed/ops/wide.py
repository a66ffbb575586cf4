"""Known factors wider than int8: as int8 digits, or as several int8 factors that are added up.

A machine that multiplies int8 makes a wide product digit by digit: the products of the highest
digit, shifted left by a byte, then those of the next into the same sums. Sums wrap around at 32
bits, and shifts left and additions keep that, so nothing is lost.
"""

from __future__ import annotations

from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator

INT8_MIN, INT8_MAX = -128, 127
BITS = 8  # of a digit
MOST = INT8_MAX * 0x01010101  # 127 in each of four digits
# Sixteen passes are already sixteen times the products of a pool.
MAX_PASSES = 16


def dtype_of(m: int) -> str:
    """The narrowest type whose bytes are as many digits as m needs.

    >>> dtype_of(127), dtype_of(1337), dtype_of(32639), dtype_of(32640)
    ('int8', 'int16', 'int16', 'int32')
    """
    if INT8_MIN <= m <= INT8_MAX:
        return "int8"
    # 127 in each of two digits; above, int16 would hold m, but two digits do not.
    return "int16" if -(1 << 15) <= m <= INT8_MAX * 257 else "int32"


def width(op: Operator) -> int:
    """Digits of the operator's second factor; 1 where it is int8 or there is none."""
    return 1 if op.rhs is None else np.dtype(op.tensors[op.rhs.tensor].dtype).itemsize


def digits(values: NDArray[np.integer], count: int) -> list[NDArray[np.int8]]:
    """int8 digits, the highest first: the sum of digit * 256^place is the value, for values that
    `dtype_of` counts so many bytes for, up to `MOST`.

    >>> [d.tolist() for d in digits(np.array([1337, -3]), 2)]
    [[5, 0], [57, -3]]
    """
    left, out = values.astype(np.int64), list[NDArray[np.int8]]()
    for _ in range(count):
        # As a store does: the low byte, with its sign; what it leaves is a multiple of 256.
        low = left.astype(np.int8)
        out.insert(0, low)
        left = (left - low) >> BITS
    return out


def int8_factors(m: int) -> list[int]:
    """int8 numbers whose sum is m, as few as there can be.

    >>> int8_factors(300), int8_factors(-128), int8_factors(0)
    ([127, 127, 46], [-128], [0])
    """
    end = INT8_MAX if m >= 0 else INT8_MIN
    # As few as possible: all but the last are the largest int8.
    full, rest = divmod(abs(m), abs(end))
    return [end] * full + ([rest if m > 0 else -rest] if rest or not full else [])


def in_passes(op: Operator) -> Operator:
    """The same operator with int8 factors, for machines that cannot make digits: its one wide
    factor is the sum of several, each a pass over all products.

    Raises: OperatorError where that takes more than 16.
    """
    assert op.rhs is not None
    name = op.rhs.tensor
    held = op.tensors[name]
    # Only pools have known factors, and these have one.
    assert prod(held.shape) == 1, "one known factor"
    m = int(np.asarray(op.values[name]).reshape(()))
    factors = int8_factors(m)
    if len(factors) > MAX_PASSES:
        raise OperatorError(
            f"the factor {m} takes {len(factors)} passes of int8 factors", where=op.text(),
            why=f"this machine multiplies int8 alone, and shifts no sum to the left; at most "
            f"{MAX_PASSES} passes are made",
            hint=f"take a smaller factor and shift: m={m >> BITS} with the shift less {BITS}",
        )  # fmt: skip
    # Its own index counts the passes now.
    ((axis, _),) = op.rhs.index[0].terms
    shape = (len(factors), *held.shape[1:])
    return replace(
        op,
        axes={**op.axes, axis: len(factors)},
        tensors={**op.tensors, name: replace(held, shape=shape, dtype="int8")},
        values={**op.values, name: np.array(factors, np.int8).reshape(shape)},
    )
