"""How many products an epilogue's tensor takes that is a part of the sum it is added to.

    (S >> s) + b = (S + b 2^s) >> s

Such a tensor costs nothing where lanes of the sum's steps are idle, and enough of them: it needs as
many products of int8 as reach all its values.
"""

from __future__ import annotations

from math import ceil

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator
from csp_embed.judge.embedding.fewest_passes import low_bytes

# Between the smallest product of two int8 and the largest: -128 * 127 and 128 * 128.
WIDTH = 128 * 127 + 128 * 128
# A tensor without a promise may hold any int32.
ANY = 1 << 31
# Shifts beyond leave no byte that changes within what is looked at.
SHIFTS = 20


class Carried:
    """Of an operator whose sums are known (`fewest_passes.free`), and steps with so many lanes for
    one output. step: number of the first step that adds a tensor of which a promise is all that is
    known; None where there is none, or where no value of it changes a byte."""

    def __init__(self, op: Operator, lanes: int) -> None:
        self.limit = lanes * WIDTH
        values = np.arange(-2 * self.limit, 2 * self.limit + 1, dtype=np.int32)
        self.bytes = low_bytes(op, values)
        self.step, self.most, self.power = None, 0, 0
        for n, step in enumerate(op.epilogue):
            if step.access is None or step.op != "add" or step.access.tensor in op.values:
                continue
            self.most = ANY if step.bias_range is None else step.bias_range
            before = op.epilogue[:n]
            plain = all(s.op == "shr" and s.access is None and (s.imm or 0) >= 0 for s in before)
            power = sum(s.imm or 0 for s in before)
            # Where it is no power of two times b that is added, no more than one product is proved.
            self.power = power if plain and power <= SHIFTS else None
            tried = [1 << k for k in range(31) if 1 << k <= self.most]
            few = values[:: max(1, len(values) // 4096)]
            if any((low_bytes(op, few, b) != low_bytes(op, few)).any() for b in tried):
                self.step = n
            break

    def least_products(self, points: int) -> int:
        """Products that carry the tensor in a sum of `points` products, at least; beyond the lanes
        of a step, some number beyond them.

        Let S be the sum, b the tensor's value, f_b(S) the byte that is wanted, and c_b what the
        products that carry b add up to. What follows the sum does not know b, so it is one function
        G of S + c_b, and G(S + c_b) = f_b(S).

        *One:* where some byte depends on b, c_b is no constant.

        *More, by distance.* Let f_b(S) = g(S + b q), q = 2^s, for |b| <= K and S in [-D, D], all of
        which occur; on [-2 D, 2 D] let g change from one byte to another, between t - 1 and t, as
        it does nowhere else there; let E = D - |t| - 1 and K q <= E. In the window of b, from
        c_b - D to c_b + D, G has this change at r_b + t alone, with r_b = c_b - b q. Where r_b and
        r_a differ, r_a + t is outside the window of b, and r_b + t outside that of a; as K q <= E,
        r_b < r_a means r_a - r_b >= E + max(b q, -a q).                                        (1)
        Let R be the distance of the largest c from the smallest.
        All r are equal: R = 2 K q. Otherwise let a have the largest r and b the smallest, and
            c_a - c_b = r_a - r_b + (a - b) q.                                                  (2)
        K has the largest r: let a = K in (2); by (1), R >= E + b q + (K - b) q = E + K q. Likewise
        where -K has the smallest. Else r_K < r_a, and r_a - r_b >= r_a - r_K >= E + K q by (1); if
        a >= b - 1, (2) is at least E + K q - q. If no such pair has that, take the largest a, the
        smallest b and an x between: it has neither of their r, so r_a - r_x >= E - a q and
        r_x - r_b >= E + b q by (1), and (2) is at least 2 E.
        So R >= min(2 K q, E + K q - q), while n products reach n * WIDTH at most.
        """
        if self.step is None:
            return 0
        reach = min((points - 1) * 127 * 127, self.limit)
        if self.power is None or reach < 1:
            return 1
        middle = len(self.bytes) // 2
        t = _only_change(self.bytes[middle - 2 * reach : middle + 2 * reach + 1])
        if t is None:
            return 1
        q = 1 << self.power
        return max(1, ceil(least_distance(reach, q, t, self.most) / WIDTH))


def least_distance(reach: int, q: int, t: int, most: int) -> int:
    """R of `Carried.least_products`, for sums up to reach and values up to most."""
    e = reach - abs(t) - 1
    k = min(most, e // q)
    return min(2 * k * q, e + k * q - q)


def _only_change(g: NDArray[np.int8]) -> int | None:
    """The place nearest 0 of a change between two bytes that g has once; None if there is none."""
    at = np.flatnonzero(g[1:] != g[:-1]) + 1
    pairs = g[at - 1].astype(np.int64) * 256 + g[at]
    _, first, times = np.unique(pairs, return_index=True, return_counts=True)
    single = at[first[times == 1]] - len(g) // 2
    return int(single[np.argmin(np.abs(single))]) if len(single) else None
