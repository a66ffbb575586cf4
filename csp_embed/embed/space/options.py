"""Every way to carry one block's axes that keeps the rules: the domain of the lifted model.

Takes: Operator, Unit, block.  Leaves: tuples of carries, not yet evaluated (see evaluate.py).

This is a subset of the complete space (tests/oracles/complete.py: all affine maps). What is left
out, and why it never costs less ("steps" and "elements" are what the cost counts):
- Factors that are not the least for their number of steps (9 of 16 lanes for 18 channels in two
  steps): more lanes are pad. Where a tensor is held whole (strict), those that are least for its
  blocks count too.
- Offsets and reversed digits: renaming an axis' values moves its pad to another end. Values that
  no point has (dead taps) are not enumerated (`digits.live`). In a window the pad of lanes may
  cost less in front, where blocks then begin early (`Carry.early`).
- Other numerations (a digit outside its counter, several counters, digits in another order) of an
  axis that shares no tensor index with another: a permutation of its values changes neither steps
  nor elements. In a window an output axis may have outer digits, and an inner counter that the
  window absorbs (`Rules.beats`).
- Shears: a digit that moves two axes which no operand adds up makes some elements stand for fewer
  values. Those that an operand adds up are skews, by one digit or by a whole axis of few outputs
  (`Rules.shears`).
- Outer digits of a reduced axis without such an offset: seen to cost at most 0.1 %.
- A diagonal of two result dimensions for an axis that either could carry alone.
- Diagonals and fusions with several digits, and several fusions: rarely cheaper, by a few elements.
tests/unit/ground/test_ground_lifted.py and scripts/bench_complete compare least costs.
"""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import TypeVar

from csp_embed.embed.space.digits import LOOP, WHOLE, Carry, inner_scale, live, live_sheared
from csp_embed.embed.space.unit import Unit, accesses
from csp_embed.ir.operator import Access, Operator, Role

T = TypeVar("T")
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
        if count <= live(self.op, reduced)[1]:
            return True
        # The input whole in one block, which no step shifts: where copies may stand beside each
        # other, windows of their own are as short and nothing is gained.
        lanes = max((n for d, n in self.unit.size.items() if self.plain(reduced, d)), default=1)
        return self.strict and exact and count <= lanes

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


@dataclass(frozen=True)
class _Half:
    """An output axis' carry and the skews it needs: (dimension, factor, Skew), or (reduced axis,
    slope) where all of it is a skew."""

    carry: Carry
    skews: tuple[tuple[str, int, Skew], ...] = ()
    shear: tuple[str, int] | None = None


def block_options(
    rules: Rules, block: Sequence[str]
) -> Iterator[tuple[tuple[Carry, ...], frozenset[str]]]:
    """Carries of all axes of a block but the given ones, and those."""
    outs = [a for a in block if a not in rules.reduced]
    reds = [a for a in block if a in rules.reduced]
    # Coupled: the block has a window. Elsewhere outer digits only permute values (see above).
    ways = [list(_output(rules, a, len(block) > 1)) for a in outs]
    for halves in _fitting(rules.unit, ways, lambda half: [half.carry], []):
        needs: dict[str, list[tuple[str, str, int, Skew, Fraction]]] = {}
        for axis, half in zip(outs, halves, strict=True):
            weight = inner_scale(half.carry)
            for dim, factor, skew in half.skews:
                coef = weight[dim] * skew.multiplier
                needs.setdefault(skew.reduced, []).append((axis, dim, factor, skew, coef))
        shears = {h.shear[0]: (a, h.shear[1]) for a, h in zip(outs, halves, strict=True) if h.shear}
        # One offset for each output is one axis' doing.
        if len(shears) < sum(h.shear is not None for h in halves) or shears.keys() & needs.keys():
            continue
        # Multipliers may be fractions (stride 2 over dilation 3); whole only where lanes are far
        # enough apart.
        if any(c.denominator > 1 for need in needs.values() for *_, c in need):
            continue  # a lane would stand between two taps
        carried = [h.carry for h in halves]
        # Loops alone gain nothing by offsets: they make the same steps in a worse order.
        laned = {c.axes[0] for c in carried if c.inner or c.outer or c.diagonal}
        choices = [
            list(_offset(rules, a, *shears[a], shears[a][0] in laned) if a in shears
                 else _reduced(rules, a, needs.get(a, [])))
            for a in reds
        ]  # fmt: skip
        # Reduced axes see what the outputs have taken of each dimension, and what these need of
        # them.
        for picked in _fitting(rules.unit, choices, lambda c: [c] if c else [], carried):
            given = frozenset(a for a, c in zip(reds, picked, strict=True) if c is None)
            yield tuple([*carried, *(c for c in picked if c is not None)]), given


def _fitting(
    unit: Unit,
    choices: Sequence[Sequence[T]],
    carries: Callable[[T], list[Carry]],
    taken: list[Carry],
) -> Iterator[tuple[T, ...]]:
    """Tuples of the product of `choices` whose digits fit with those taken; pruned early."""
    if not choices:
        yield ()
        return
    # Depth first with a check at every level: most prefixes are too wide already, and the product
    # never gets enumerated.
    for first in choices[0]:
        so_far = [*taken, *carries(first)]
        if _fits(unit, so_far):
            for rest in _fitting(unit, choices[1:], carries, so_far):
                yield (first, *rest)


def _fits(unit: Unit, carries: Sequence[Carry]) -> bool:
    used = lanes_of(carries)
    return all(used.get(d, 1) <= n for d, n in unit.size.items())


def lanes_of(carries: Sequence[Carry]) -> dict[str, int]:
    """Dimension -> product of the digits on it."""
    used: dict[str, int] = {}
    for c in carries:
        for dim, extent in (*c.inner, *c.outer):
            if dim != LOOP:
                used[dim] = used.get(dim, 1) * extent
        if c.diagonal:
            for dim in c.diagonal[:2]:
                used[dim] = used.get(dim, 1) * c.diagonal[2]
    return used


def _output(rules: Rules, axis: str, coupled: bool) -> Iterator[_Half]:
    """An output axis: a digit or none on each dimension that is not summed over."""
    extent = rules.op.axes[axis]
    per_dim: list[list[tuple[str, str, int, object]]] = []
    for dim, size in rules.unit.size.items():
        if dim in rules.unit.reduced:
            continue
        ways: list[tuple[str, str, int, object]] = [("none", dim, 1, None)]
        factors = rules.factors(axis, extent, size)
        if rules.plain(axis, dim):
            ways += [("inner", dim, f, None) for f in factors]
            if coupled:
                # A skew may start at any multiple that the partner's digit has, so a digit is a
                # plain inner one here.
                ways += [("outer", dim, f, None) for f in factors if f < extent]
        skews = rules.skews(axis, dim)
        for partner in rules.diagonals(axis, dim):
            limit = min(size, rules.unit.size[partner])
            ways += [("diagonal", dim, f, partner) for f in rules.factors(axis, extent, limit)]
        for skew in skews:
            ways += [("skew", dim, f, skew) for f in factors]
        per_dim.append(ways)
    if coupled:
        beats = [("skew", LOOP, f, s) for s, extents in rules.beats(axis) for f in extents]
        per_dim.append([("none", LOOP, 1, None), *beats])
    seen: set[_Half] = set()
    for chosen in itertools.product(*per_dim):
        half = _half(axis, chosen)
        if half is not None and half not in seen:
            total = math.prod(w[2] for w in chosen)
            least = [w for w in chosen if w[0] != "none"]
            # Several digits that together need no fewer rounds than all but the smallest: that one
            # buys nothing.
            if len(least) > 1 and total // min(w[2] for w in least) >= extent:
                continue  # one digit alone would do
            seen.add(half)
            yield half
    if coupled:
        for reduced, slope in rules.shears(axis):
            view = rules.sheared(axis, reduced, slope)
            yield from (replace(h, shear=(reduced, slope)) for h in _plainly(view, axis))


def _plainly(rules: Rules, axis: str) -> Iterator[_Half]:
    """An output axis as a loop, or with one digit, plain or on a diagonal."""
    yield _Half(Carry((axis,)))
    for dim, size in rules.unit.size.items():
        if dim in rules.unit.reduced:
            continue
        if rules.plain(axis, dim):
            for f in rules.factors(axis, rules.op.axes[axis], size):
                yield _Half(Carry((axis,), ((dim, f),)))
        for partner in rules.diagonals(axis, dim):
            limit = min(size, rules.unit.size[partner])
            for f in rules.factors(axis, rules.op.axes[axis], limit):
                yield _Half(Carry((axis,), diagonal=(dim, partner, f)))


def _offset(rules: Rules, axis: str, other: str, slope: int, laned: bool) -> Iterator[Carry]:
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


def _half(axis: str, ways: Sequence[tuple[str, str, int, object]]) -> _Half | None:
    inner = tuple((d, f) for kind, d, f, _ in ways if kind in ("inner", "skew"))
    outer = tuple((d, f) for kind, d, f, _ in ways if kind == "outer")
    diagonal = [(d, str(e), f) for kind, d, f, e in ways if kind == "diagonal"]
    skews = tuple((d, f, s) for kind, d, f, s in ways if kind == "skew" and isinstance(s, Skew))
    # Two diagonals of one axis would want three equal positions.
    if len(diagonal) > 1:
        return None
    return _Half(Carry((axis,), inner, outer, diagonal[0] if diagonal else None), skews)


def _reduced(
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
    # Without needs nobody depends on how this axis is carried, so the fused coordinate may have it.
    if not needs and rules.op.axes[axis] > 1 and len(rules.reduced) > 1:
        yield None
    for dim, size in rules.unit.size.items():
        if rules.plain(axis, dim):
            # A beat fixes the factor: lanes are blocks of the input, and another width would not
            # line up.
            for f in beats or rules.factors(axis, span, size):
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


def structure(carries: Sequence[Carry]) -> tuple[object, ...]:
    """Who is carried where, without factors and without the order of digit and counter."""
    out: list[object] = []
    for c in carries:
        dims = tuple(sorted(d for d, _ in (*c.inner, *c.outer)))
        # Carries that do nothing are left out, so that options differ only where it matters.
        if dims or c.diagonal or c.skew or len(c.axes) > 1:
            out.append((c.axes, dims, c.diagonal[:2] if c.diagonal else (), c.skew))
    return tuple(out)
