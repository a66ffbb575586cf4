"""What the operands of one instruction allow an axis to do (rule 2 of docs/embedding-rules.md).

Takes: Operator, Unit, which operand stands where.  Leaves: answers for one axis: on which
dimensions a digit of it may stand, with which factors, and who has to make up for it.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fractions import Fraction

from csp_embed.embed.space.digits import live, live_sheared
from csp_embed.embed.space.unit import Unit, accesses
from csp_embed.ir.operator import Access, Operator, Role

# Outputs of a window that may each have an offset of their own.
FEW = 16


@dataclass(frozen=True)
class Skew:
    """A reduced axis that absorbs an output axis' lane digit: u = reduced + multiplier * axis."""

    reduced: str
    multiplier: Fraction


def useful_factors(extent: int, lanes: int) -> list[int]:
    """Factors of 2 or more, each the least for its number of steps.

    >>> useful_factors(18, 16)
    [2, 3, 4, 5, 6, 9]
    """
    # One trip over the whole extent is the counter's own case, not a digit's.
    seen = {extent}
    out: list[int] = []
    for f in range(2, min(extent, lanes) + 1):
        steps = -(-extent // f)
        if steps not in seen:
            seen.add(steps)
            out.append(f)
    return out


class Rules:
    """What the operands of one instruction allow an axis to do (rule 2)."""

    def __init__(
        self,
        op: Operator,
        unit: Unit,
        commuted: bool,
        pinned: Mapping[str, Iterable[int]] | None = None,
        mode: str = "relaxed",
    ) -> None:
        """pinned: axis (or a*b, fused) -> factors that are wanted though they are not least.
        mode: strict layouts hold whole tensors, those parts too that no point reads."""
        self.op, self.unit, self.commuted = op, unit, commuted
        self.pinned, self.strict = pinned or {}, mode == "strict"
        self.roles = accesses(op, commuted)
        self.moved = {
            a: {r for r, acc in self.roles.items() if any(ix.coef(a) for ix in acc.index)}
            for a in op.axes
        }
        self.reduced = set(op.reduced_axes)

    def factors(self, axis: str, extent: int, lanes: int) -> list[int]:
        """The least for each number of steps, or of blocks of a tensor that is held whole, and
        those that pins ask for."""
        # A pinned factor is offered even where it wastes lanes: the user asked for it, and is told
        # the price.
        more = {f for f in self.pinned.get(axis, ()) if 2 <= f <= min(extent, lanes)}
        for role, access in self.roles.items() if self.strict else ():
            shape = self.op.tensors[access.tensor].shape
            for ix, size in zip(access.index, shape, strict=True):
                # A tensor longer than its axis (a window's input) has another number of blocks than
                # the axis.
                if role != Role.DST and ix.coef(axis) and size > extent:
                    more |= set(useful_factors(size, lanes))
        out = useful_factors(extent, lanes)
        return sorted({*out, *more}) if more else out

    def plain(self, axis: str, dim: str) -> bool:
        """A digit of `axis` on `dim` moves no operand that lacks `dim`; and it moves the result
        exactly where `dim` is no dimension that the instruction sums over."""
        # Reduced axes live on summed dimensions and outputs on others; anything else adds what must
        # stay apart.
        if (axis in self.reduced) != (dim in self.unit.reduced):
            return False
        return not self.moved[axis] & set(self.unit.lacking(dim))

    def diagonals(self, axis: str, dim: str) -> list[str]:
        """Partner dimensions that let `dim` carry an output axis which a lacking operand reads: a
        factor that has both is zero off the diagonal, a result that has both is dead there."""
        if axis in self.reduced or dim in self.unit.reduced or self.plain(axis, dim):
            return []
        lacking = self.moved[axis] & set(self.unit.lacking(dim))
        dims, order = self.unit.dims, list(self.unit.size)
        return [
            e
            for e in order
            # Each unordered pair once, unless the instruction sums over the partner.
            if (e in self.unit.reduced or order.index(e) > order.index(dim))
            and (e in self.unit.reduced or not self.plain(axis, e))
            and all(e in dims[r] for r in lacking)
            # Somebody must hold both dimensions, or nothing can be zero off the diagonal.
            and any({dim, e} <= set(v) for v in dims.values())
        ]

    def skews(self, axis: str, dim: str) -> list[Skew]:
        """Reduced axes that can absorb a digit of output axis `axis` on `dim`."""
        if axis in self.reduced or dim in self.unit.reduced or self.plain(axis, dim):
            return []
        lacking = self.moved[axis] & set(self.unit.lacking(dim))
        # The lacking operand would see one position for all lanes; with two of them, one skew
        # cannot make up for both, and a result has no second chance.
        if len(lacking) != 1 or Role.DST in lacking:
            return []
        access = self.roles[next(iter(lacking))]
        hit = [ix for ix in access.index if ix.coef(axis)]
        # An axis in two indices moves a diagonal of the tensor, which one shift does not undo.
        if len(hit) != 1:
            return []
        return [
            Skew(s, Fraction(hit[0].coef(axis), c))
            for s, c in hit[0].terms
            if s in self.reduced and self.op.axes[s] > 1 and _indices(access, s) == 1
        ]

    def beats(self, axis: str) -> list[tuple[Skew, tuple[int, ...]]]:
        """Reduced axes that can absorb an inner counter of output axis `axis`, so that elements are
        blocks of the input that no step shifts, and the counter's extents: as many blocks as
        fill a summed dimension, alone or beside other digits."""
        out: list[tuple[Skew, tuple[int, ...]]] = []
        for role, access in self.roles.items():
            for ix in access.index if role != Role.DST else ():
                for s, c in ix.terms if ix.coef(axis) else ():
                    # The result has no window to absorb with.
                    lanes = [n for d, n in self.unit.size.items() if self.plain(s, d)]
                    if s not in self.reduced or self.op.axes[s] == 1 or _indices(access, s) > 1:
                        continue
                    skew = Skew(s, Fraction(ix.coef(axis), c))
                    # What is left of the dimension when k lanes serve other digits; the counter
                    # fills it up.
                    sizes = {n // k // abs(skew.multiplier) for n in lanes for k in range(1, n)}
                    every = {int(f) for f in sizes if f == int(f) and 1 < f <= self.op.axes[axis]}
                    out.append((skew, tuple(sorted(every, reverse=True))))
        return out

    def shears(self, axis: str) -> list[tuple[str, int]]:
        """Reduced axes s that all of an output axis may skew, and slopes c, such that s + c * axis
        has no more values with work than s alone, or is a block of the input that serves all
        outputs. Both are for windows of few outputs: elsewhere every tap is alive at some output.
        """
        out: list[tuple[str, int]] = []
        for role, access in self.roles.items():
            for ix in access.index if role != Role.DST else ():
                for s, c in ix.terms if ix.coef(axis) else ():
                    if s not in self.reduced or self.op.axes[s] == 1 or _indices(access, s) > 1:
                        continue
                    slope = Fraction(ix.coef(axis), c)
                    sign = 1 if slope > 0 else -1
                    for n in range(1, math.ceil(abs(slope)) + 1):
                        if self._pays(axis, s, sign * n, sign * n == slope):
                            out.append((s, sign * n))
        return out

    def _pays(self, axis: str, reduced: str, slope: int, exact: bool) -> bool:
        if not 1 < self.op.axes[axis] <= FEW:
            return False
        count = live_sheared(self.op, reduced, axis, slope)[1]
        own = live(self.op, reduced)[1]
        if count <= own:
            return True
        # The input whole in one block, which no step shifts: where copies may stand beside each
        # other, windows of their own are as short, unless padding cuts what all of them meet.
        lanes = max((n for d, n in self.unit.size.items() if self.plain(reduced, d)), default=1)
        cut = count < own + abs(slope) * (self.op.axes[axis] - 1)
        return (self.strict or cut) and exact and count <= lanes

    def sheared(self, axis: str, reduced: str, slope: int) -> Rules:
        """The rules where u = reduced + slope * axis is what the reduced axis' lanes carry: the
        axis moves other operands then."""
        view = copy.copy(self)
        view.moved = {**self.moved, axis: {
            r for r, access in self.roles.items()
            if any(ix.coef(axis) != slope * ix.coef(reduced) for ix in access.index)
        }}  # fmt: skip
        return view


def _indices(access: Access, axis: str) -> int:
    return sum(1 for ix in access.index if ix.coef(axis))
