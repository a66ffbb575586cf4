"""The rules of profile tflm on Python's own integers and fractions, one element at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from typing import Any


def half_away(value: Fraction) -> int:
    """The nearest integer, halves away from zero."""
    whole = math.floor(abs(value) + Fraction(1, 2))
    return whole if value >= 0 else -whole


def q31_of(real: float) -> tuple[int, int]:
    """(multiplier, shift) with real near multiplier * 2^(shift - 31), by exact fractions."""
    exact, shift = Fraction(real), 0
    while exact >= 1:
        exact, shift = exact / 2, shift + 1
    while 0 < exact < Fraction(1, 2):
        exact, shift = exact * 2, shift - 1
    multiplier = math.floor(exact * 2**31 + Fraction(1, 2))
    return (multiplier // 2, shift + 1) if multiplier == 2**31 else (multiplier, shift)


def requantised(acc: int, multiplier: int, shift: int) -> int:
    """acc * multiplier * 2^(shift - 31): the product to the nearest multiple of 2^31 (halves up),
    then to the nearest multiple of the shift (halves away from zero)."""
    high = math.floor(Fraction(acc * 2 ** max(shift, 0) * multiplier, 2**31) + Fraction(1, 2))
    return half_away(Fraction(high, 2 ** max(-shift, 0)))


def conv(
    x: Any, w: Any, bias: Sequence[int], zero: tuple[int, int], scale: Sequence[tuple[int, int]],
    stride: int, pad: int, dilation: int, groups: int, clamp: tuple[int, int],
) -> list[list[list[int]]]:  # fmt: skip
    """One image x [h][w][c], filters w [k][r][s][c / groups], the same stride and pad both ways."""
    rows, columns = len(x), len(x[0])
    k, r, s, per = len(w), len(w[0]), len(w[0][0]), len(w[0][0][0])

    def extent(size: int, taps: int) -> int:
        return (size + 2 * pad - dilation * (taps - 1) - 1) // stride + 1

    def element(p: int, q: int, o: int) -> int:
        acc = int(bias[o])
        first = o // (k // groups) * per
        for i in range(r):
            for j in range(s):
                y, z = p * stride - pad + i * dilation, q * stride - pad + j * dilation
                if 0 <= y < rows and 0 <= z < columns:
                    for c in range(per):
                        acc += (int(x[y][z][first + c]) - zero[0]) * int(w[o][i][j][c])
        return min(max(requantised(acc, *scale[o]) + zero[1], clamp[0]), clamp[1])

    return [
        [[element(p, q, o) for o in range(k)] for q in range(extent(columns, s))]
        for p in range(extent(rows, r))
    ]
