"""Ways to carry a reduced axis: digits on summed dimensions, skewed by what the outputs need.

Takes: Rules, a reduced axis, what output axes want absorbed.  Leaves: carries.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from fractions import Fraction

from csp_embed.embed.space.digits import LOOP, WHOLE, Carry, live, live_sheared
from csp_embed.embed.space.rules import Rules, Skew
from csp_embed.ir.operator import Role


def offset_ways(rules: Rules, axis: str, other: str, slope: int, laned: bool) -> Iterator[Carry]:
    """A reduced axis whose window begins elsewhere for each value of another axis. laned: that one
    has lanes, so that this one may be a loop."""
    first, count = live_sheared(rules.op, axis, other, slope)
    skew = ((other, WHOLE, slope),)
    if laned:
        yield Carry((axis,), skew=skew)
    for dim, size in rules.unit.size.items():
        if rules.plain(axis, dim):
            for f in rules.factors(axis, count, size):
                yield Carry((axis,), ((dim, f),), skew=skew)
                if f < count:
                    yield Carry((axis,), outer=((dim, f),), skew=skew)
                for early in _shifts(rules, axis, first, f):
                    yield Carry((axis,), ((dim, f),), skew=skew, early=early)


def reduced_ways(
    rules: Rules, axis: str, needs: Sequence[tuple[str, str, int, Skew, Fraction]]
) -> Iterator[Carry | None]:
    """A reduced axis: digits on summed dimensions, skewed where needed; None where it is given."""
    first, count = live(rules.op, axis)
    skew = tuple((a, dim, s.multiplier) for a, dim, _, s, _ in needs)
    # The window grows by what the outputs' lanes shift it.
    span = count + sum(int(abs(c)) * (f - 1) for _, _, f, _, c in needs)
    beats = [int(abs(c)) * f for _, dim, f, _, c in needs if dim == LOOP]
    if not beats:
        yield Carry((axis,), skew=skew)
    # As wide as the outputs' lanes move the window, blocks of one window are those of the next: the
    # same elements in fewer places, though not in the fewest lanes.
    strides = {int(abs(c)) * f for _, _, f, _, c in needs if 1 < abs(c) * f < span}
    # Without needs nobody depends on how this axis is carried, so the fused coordinate may have it.
    if not needs and rules.op.axes[axis] > 1 and len(rules.reduced) > 1:
        yield None
    for dim, size in rules.unit.size.items():
        if rules.plain(axis, dim):
            # A beat fixes the factor: lanes are blocks of the input, and another width would not
            # line up.
            for f in beats or sorted({*rules.factors(axis, span, size), *strides}):
                if f <= size:
                    yield Carry((axis,), ((dim, f),), skew=skew)
                    back = first + sum(min(int(c) * (e - 1), 0) for _, _, e, _, c in needs)
                    for early in _shifts(rules, axis, back, f):
                        yield Carry((axis,), ((dim, f),), skew=skew, early=early)


def _shifts(rules: Rules, axis: str, first: int, factor: int) -> set[int]:
    """How much earlier than `first` the lanes must begin so that they meet whole blocks of a
    tensor's index: padding in front shifts a window against them."""
    out: set[int] = set()
    for role, access in rules.roles.items():
        for ix in access.index if role != Role.DST else ():
            if abs(ix.coef(axis)) == 1:
                # Congruent starts are one start: only the rest modulo the block's width matters.
                out.add(ix.coef(axis) * (ix.const + ix.coef(axis) * first) % factor)
    return out - {0}


def fused_options(rules: Rules) -> Iterator[Carry | None]:
    """None, or several reduced axes flattened in order, with one digit on a summed dimension."""
    yield None
    inputs = {r for r in rules.roles if r != Role.DST}
    # At least two: one axis alone is carried by its own block.
    axes = [a for a in rules.op.reduced_axes if rules.op.axes[a] > 1 and rules.moved[a] & inputs]
    for count in range(2, len(axes) + 1):
        for group in itertools.combinations(axes, count):
            extent = math.prod(rules.op.axes[a] for a in group)
            for dim, size in rules.unit.size.items():
                if all(rules.plain(a, dim) for a in group):
                    for f in rules.factors("*".join(group), extent, size):
                        yield Carry(group, ((dim, f),))
