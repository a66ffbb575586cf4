"""Arithmetic modulo the prime P = 2^61 - 1, on uint64 values below P."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # pyright: ignore[reportMissingTypeStubs] (it has none)
from numba import types
from numba.core import cgutils as _cgutils
from numpy.typing import NDArray

from csp_embed.jit import intrinsic, njit, vectorize

P = (1 << 61) - 1
Values = NDArray[np.uint64]
Ints = NDArray[np.int64]

cgutils: Any = _cgutils  # Numba ships no types.
_P = np.uint64(P)
_ZERO = np.uint64(0)


@intrinsic
def multiply_add(typing: Any, high: Any, low: Any, a: Any, b: Any) -> Any:
    """(high, low) + a * b in 128 bits, which Numba has no type for."""
    signature = types.UniTuple(types.uint64, 2)(*[types.uint64] * 4)

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        wide, word = ir.IntType(128), ir.IntType(64)
        shift = ir.Constant(wide, 64)
        high, low, a, b = (builder.zext(x, wide) for x in args)
        total = builder.add(builder.or_(builder.shl(high, shift), low), builder.mul(a, b))
        # LLVM has 128-bit integers and lowers this to one multiplication and an add with carry.
        parts = builder.trunc(builder.lshr(total, shift), word), builder.trunc(total, word)
        return cgutils.pack_array(builder, parts)

    return signature, codegen


@njit(inline="always")
def reduced(high: Any, low: Any) -> Any:
    """high * 2^64 + low modulo P, for high below 2^63; 2^61 is 1."""
    # Two parts below 2^61 and two small ones: after one more fold at most one P is too much.
    r = (low & _P) + (low >> np.uint64(61))
    r += ((high << np.uint64(3)) & _P) + (high >> np.uint64(58))
    r = (r & _P) + (r >> np.uint64(61))
    return r - _P if r >= _P else r


@njit(inline="always")
def times(a: Any, b: Any) -> Any:
    """The product."""
    high, low = multiply_add(_ZERO, _ZERO, a, b)
    return reduced(high, low)


@njit(inline="always")
def plus(a: Any, b: Any) -> Any:
    """The sum."""
    r = a + b
    return r - _P if r >= _P else r


@vectorize(["uint64(uint64, uint64)"], cache=True)
def mul(a: Any, b: Any) -> Any:
    """The product of arrays."""
    return times(a, b)


@vectorize(["uint64(uint64, uint64)"], cache=True)
def add(a: Any, b: Any) -> Any:
    """The sum of arrays."""
    return plus(a, b)


def total(values: Values, axis: int) -> Values:
    """The sum along an axis of fewer than 2^31 values."""
    # Halves of 32 bits: sums of 2^31 of them cannot overflow 64 bits, so one reduction at the end
    # is right.
    low = np.add.reduce(values & np.uint64(0xFFFFFFFF), axis=axis, dtype=np.uint64)
    high = np.add.reduce(values >> np.uint64(32), axis=axis, dtype=np.uint64)
    return add(mul(high % _P, np.uint64(1 << 32)), low % _P)


def number(value: int) -> np.uint64:
    """An integer in the field."""
    return np.uint64(value % P)


def integer(value: int) -> int | None:
    """The integer of at most 2^40 in magnitude that stands for this value, or None."""
    value = int(value)
    # Symmetric: small negative constants are as likely as positive ones.
    value = value - P if value > P // 2 else value
    return value if abs(value) <= 1 << 40 else None


def inverse(value: int) -> np.uint64:
    """What times `value` is 1."""
    # Fermat's little theorem; P is prime.
    return np.uint64(pow(int(value), P - 2, P))
