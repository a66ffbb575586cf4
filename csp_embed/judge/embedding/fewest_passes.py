"""How many elementwise passes an accumulator needs before it is stored, at least.

A pass shifts, adds, or takes the minimum or maximum, of int32 with wrap-around, with an immediate
or a tensor; for a lane whose tensors are given, all are one of four functions with a constant.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator

# More runs of equal bytes than a start value and two passes make without a shift to the right.
RUNS = 8


def fewest_passes(op: Operator) -> int:
    """Passes that any program of the epilogue needs: a lower bound of at most 3.

    Let f(S) be the low byte that is wanted of the sum S, for S in [-D, D], all of which occur;
    tensors that the steps add are 0, which they may be. A start value c may be added to S for
    nothing.

    *More than 8 runs of equal bytes need a shift to the right.* Without one, S + c and each of two
    passes is linear on pieces, and cuts a piece in two at most: 8 pieces, on each of which the low
    byte is constant or changes with every S.

    *An end of D/2 values with one byte needs another pass.* Of floor((S + c) / 2^k) the low byte
    changes every 2^k values. Were 2^k at least D/2, there would be no more than 7 runs in all.

    *Two such ends with different bytes need a third.* Beside the shift there is one pass. A shift
    or an addition leaves floor(x 2^j + c) of its kind, and no end is constant, or all bytes are 0.
    A minimum makes the upper end of each piece of S + c (at most two, cut where it wraps around)
    constant, all with one byte, and leaves a ramp below, which changes every 2^k values; so if both
    ends are constant they are equal. Maxima likewise.
    """
    values = occurring(op)
    if values is None:
        return 0
    wanted = low_bytes(op, values)
    same = wanted[1:] == wanted[:-1]
    runs = int((same & ~np.concatenate([[False], same[:-1]])).sum())
    # The theorem is about more than RUNS runs; at or below, nothing is proved and 0 is a valid
    # bound.
    if runs <= RUNS:
        return 0
    # A quarter of 2 D + 1 values on each side is the D / 2 that the proof speaks of.
    quarter = len(values) // 4 + 1
    ends = wanted[:quarter], wanted[-quarter:]
    flat = [bool((e == e[0]).all()) for e in ends]
    if all(flat) and ends[0][0] != ends[1][0]:
        return 3
    return 2 if any(flat) else 1


def occurring(op: Operator) -> NDArray[np.int32] | None:
    """All of an interval around 0 that sums take; None where it is not known.

    Proof, for n >= 2 products of int8 elements that are free: n - 1 of them make every multiple of
    127 up to (n - 1) 127^2, the last one, times 1, every value between.
    """
    accesses = [op.lhs, op.rhs]
    # Known values could rule sums out, and then "all of an interval occurs" is false.
    if op.kind != "contract" or any(a is None or a.tensor in op.values for a in accesses):
        return None
    # Steps that multiply by a tensor, or take its maximum, may hide values; only added tensors may
    # be chosen 0.
    if any(
        s.access is not None and (s.op != "add" or s.access.tensor in op.values)
        for s in op.epilogue
    ):
        return None
    terms = 1
    for a in op.reduced_axes:
        terms *= op.axes[a]
    # A part of the interval is an interval around 0 too, and the proof holds for it; this keeps it
    # quick.
    reach = min((terms - 1) * 127 * 127, 1 << 20)
    return np.arange(-reach, reach + 1, dtype=np.int32) if terms > 1 else None


def low_bytes(op: Operator, values: NDArray[np.int32]) -> NDArray[np.int8]:
    """The formula's low bytes, tensors of steps being 0."""
    for step in op.epilogue:
        # The formula's own order, without the normal form of anybody: this is the definition.
        k = np.int32(step.imm or 0)
        if step.op == "shr":
            values = values >> k if k >= 0 else values << -k
        else:
            f = {"add": np.add, "max": np.maximum, "min": np.minimum, "mul": np.multiply}[step.op]
            values = f(values, k, dtype=np.int32)
    return values.astype(np.int8)
