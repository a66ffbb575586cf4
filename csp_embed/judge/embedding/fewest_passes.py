"""How many elementwise passes an accumulator needs before it is stored, at least.

A pass shifts, adds, or takes the minimum or maximum, of int32 with wrap-around, with an immediate
or a tensor; for a lane whose tensors are given, all are one of four functions with a constant.
Additions are not counted: a contraction step, or the value that a sum begins with, may be one.
"""

from __future__ import annotations

from math import prod

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Access, Operator

# More runs of equal bytes than a start value, additions and two clamps make without a shift.
RUNS = 16
# Sums beyond are not looked at: what holds for a part of an interval around 0 is a bound too.
REACH = 1 << 20


def fewest_passes(op: Operator, points: int | None = None) -> int:
    """Passes other than additions that any program of the epilogue needs for an output with so many
    products (None: one that lacks none): a lower bound of at most 3.

    Let f(S) be the low byte that is wanted of the sum S, for S in [-D, D], all of which occur;
    tensors that the steps add are 0, which they may be. Constants may be added anywhere.

    *More than 16 runs of equal bytes need a shift to the right.* Without one, a minimum or maximum
    makes a part of each rising piece constant, and nothing else makes constants. S + c rises in two
    pieces, cut where it wraps around; an addition cuts each rising piece once. So two of them, with
    additions between, leave at most 6 constant pieces and 4 rising ones, with 9 places between
    them where equal bytes may meet: fewer than 16 runs of two or more.

    *An end of D/2 values with one byte needs another pass.* Of floor((S + c) / 2^k) the low byte
    changes every 2^k values. Were 2^k at least D/2, there would be no more than 7 runs in all.

    *Two such ends with different bytes need a third.* Beside the shift there is one pass. A shift
    leaves floor((S + c) 2^j) + c' of its kind, and no end is constant, or all bytes are 0. Beside a
    minimum, only what it cuts off is constant for longer than 2^k values, all of it with one value
    that later steps make one byte; so if both ends are constant they are equal. Maxima likewise.
    """
    if not free(op):
        return 0
    terms = prod(op.axes[a] for a in op.reduced_axes) if points is None else points
    # n - 1 products of int8 make every multiple of 127 up to (n - 1) 127^2, and the last one,
    # times 1, every value between.
    reach = min((terms - 1) * 127 * 127, REACH)
    if reach < 1:
        return 0
    wanted = low_bytes(op, np.arange(-reach, reach + 1, dtype=np.int32))
    same = wanted[1:] == wanted[:-1]
    runs = int((same & ~np.concatenate([[False], same[:-1]])).sum())
    # The theorem is about more than RUNS runs; at or below, nothing is proved and 0 is a valid
    # bound.
    if runs <= RUNS:
        return 0
    # A quarter of 2 D + 1 values on each side is the D / 2 that the proof speaks of.
    quarter = len(wanted) // 4 + 1
    ends = wanted[:quarter], wanted[-quarter:]
    flat = [bool((e == e[0]).all()) for e in ends]
    if all(flat) and ends[0][0] != ends[1][0]:
        return 3
    return 2 if any(flat) else 1


def free(op: Operator) -> bool:
    """Whether the elements of each factor can be chosen, and one factor's are different ones in all
    products of an output: then sums take all values of an interval around 0."""
    factors = [a for a in (op.lhs, op.rhs) if a is not None]
    # Known values could rule sums out, and then "all of an interval occurs" is false.
    if op.kind != "contract" or any(a.tensor in op.values for a in factors):
        return False
    # Steps that multiply by a tensor, or take its maximum, may hide values; only added tensors may
    # be chosen 0.
    if any(
        s.access is not None and (s.op != "add" or s.access.tensor in op.values)
        for s in op.epilogue
    ):
        return False
    return any(_different(op, a) for a in factors)


def _different(op: Operator, access: Access) -> bool:
    """Whether no element stands in two products of one output: each summed axis has an index that
    no other summed axis moves."""
    summed = set(op.reduced_axes)
    alone = [{a for a, _ in ix.terms} & summed for ix in access.index]
    return summed <= {a for found in alone if len(found) == 1 for a in found}


def low_bytes(op: Operator, values: NDArray[np.int32], tensors: int = 0) -> NDArray[np.int8]:
    """The formula's low bytes, where all elements of steps' tensors have this value."""
    for step in op.epilogue:
        # The formula's own order, without the normal form of anybody: this is the definition.
        k = np.int32((step.imm or 0) if step.access is None else tensors)
        if step.op == "shr":
            values = values >> k if k >= 0 else values << -k
        else:
            f = {"add": np.add, "max": np.maximum, "min": np.minimum, "mul": np.multiply}[step.op]
            values = f(values, k, dtype=np.int32)
    return values.astype(np.int8)
