"""The decisions of the lifted model as plain data, and the digits and coordinates they mean.

Takes: Operator, Unit, Choice.  Leaves: digits, counters and coordinates of `ir.embedding`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction

from csp_embed.ir.embedding import Coordinate, Counter, Digit
from csp_embed.ir.operator import Access, Affine, Operator

LOOP = "loop"
"""The dimension of a digit that is no lane: a counter inside the axis' own."""


@dataclass(frozen=True)
class Carry:
    """How one coordinate is carried.

    axes: one operator axis, or several fused (row-major). inner / outer: (dimension, extent) of
    lane digits inside / outside its counter, innermost first; an inner one on LOOP is a counter.
    diagonal: (dimension, partner dimension, extent) of an inner digit that two dimensions carry
    together. skew: (axis, dimension, multiplier): digits and counter of this carry enumerate
    u = own axis + sum multiplier * (inner digit of `axis` on `dimension`, weighted); see Skew in
    the embedding problem. early: values that are enumerated before the first one that some point
    has, so that blocks of lanes align with blocks of the tensor.
    """

    axes: tuple[str, ...]
    inner: tuple[tuple[str, int], ...] = ()
    outer: tuple[tuple[str, int], ...] = ()
    diagonal: tuple[str, str, int] | None = None
    skew: tuple[tuple[str, str, Fraction | int], ...] = ()
    early: int = 0

    @property
    def name(self) -> str:
        return "*".join(self.axes)

    @property
    def inner_lanes(self) -> int:
        own = math.prod(e for _, e in self.inner)
        return own * (self.diagonal[2] if self.diagonal else 1)


@dataclass(frozen=True)
class Choice:
    """All decisions: every operator axis stands in exactly one carry."""

    commuted: bool
    carries: tuple[Carry, ...]


@dataclass(frozen=True)
class Map:
    """Digits, counters and coordinates that a choice means, and the pairs of equal digits."""

    digits: tuple[Digit, ...]
    counters: tuple[Counter, ...]
    coordinates: tuple[Coordinate, ...]
    equal: tuple[tuple[str, str], ...] = ()


@dataclass
class _Builder:
    digits: dict[str, tuple[str, int]] = field(default_factory=dict)
    counters: list[Counter] = field(default_factory=list)
    coordinates: list[Coordinate] = field(default_factory=list)
    equal: list[tuple[str, str]] = field(default_factory=list)


def expand(op: Operator, choice: Choice) -> Map:
    """Digits, counters and coordinates of `choice`; counters with reduced ones last."""
    build = _Builder()
    lanes = {c.axes[0]: c for c in choice.carries if len(c.axes) == 1}
    for carry in choice.carries:
        _coordinate(op, carry, lanes, build)
    counters = sorted(build.counters, key=lambda c: c.reduced)
    return Map(
        tuple(_radices(build.digits)),
        tuple(counters),
        tuple(build.coordinates),
        tuple(build.equal),
    )


def _coordinate(op: Operator, carry: Carry, lanes: Mapping[str, Carry], build: _Builder) -> None:
    name = carry.name if not carry.skew else f"u({carry.name})"
    extent = math.prod(op.axes[a] for a in carry.axes)
    const, span = live(op, carry.axes[0]) if len(carry.axes) == 1 else (0, extent)
    moved, scale = _place(carry, name, build)
    skewed = {}
    for axis, dim, multiplier in carry.skew:
        key = f"{axis}.{dim}"
        coef = int(dict(inner_digits(lanes[axis]))[key] * multiplier)
        skewed[key] = -coef
        reach = coef * (dict(lanes[axis].inner)[dim] - 1)
        span += abs(reach)
        const += min(reach, 0)
    const, span = const - carry.early, span + carry.early
    outer = math.prod(e for _, e in carry.outer)
    trips = -(-span // (scale * outer))
    counters = {}
    if trips > 1:
        reduced = carry.axes[0] in op.reduced_axes
        build.counters.append(Counter(name, trips, reduced))
        counters[name] = scale
    scale *= trips
    for dim, lane_extent in carry.outer:
        key = f"{name}.{dim}^"
        build.digits[key] = (dim, lane_extent)
        moved[key] = scale
        scale *= lane_extent
    moved.update(skewed)
    loops = {k: v for k, v in moved.items() if k.endswith(f".{LOOP}")}
    digits = {k: v for k, v in moved.items() if k not in loops}
    build.coordinates.append(Coordinate(carry.axes, extent, const, digits, counters | loops))


def live(op: Operator, axis: str) -> tuple[int, int]:
    """First value and number of values of an axis beyond which every point has a factor out of
    range; all values of an output axis, whose elements need a home (dead taps are left out)."""
    first, last = 0, op.axes[axis] - 1
    if axis in op.reduced_axes and last:
        for access in (op.lhs, op.rhs):
            for ix, size in _indices(op, access):
                own = ix.coef(axis)
                reach = [c * (op.axes[a] - 1) for a, c in ix.terms if a != axis]
                low, high = (ix.const + sum(f(r, 0) for r in reach) for f in (min, max))
                # low + own * v < size and high + own * v >= 0
                if own > 0:
                    first, last = max(first, -(high // own)), min(last, (size - 1 - low) // own)
                elif own < 0:
                    first, last = max(first, -((size - 1 - low) // -own)), min(last, high // -own)
    return (first, last - first + 1) if first <= last else (0, op.axes[axis])


def _indices(op: Operator, access: Access | None) -> list[tuple[Affine, int]]:
    """Indices and their extents."""
    if access is None:
        return []
    return list(zip(access.index, op.tensors[access.tensor].shape, strict=True))


def _place(carry: Carry, name: str, build: _Builder) -> tuple[dict[str, int], int]:
    """Adds the inner digits of a carry; their coefficients and what the counter steps by."""
    moved = dict(inner_digits(carry, name))
    for dim, extent in carry.inner:
        if dim == LOOP:
            build.counters.append(Counter(f"{name}.{LOOP}", extent, False))
        else:
            build.digits[f"{name}.{dim}"] = (dim, extent)
    if carry.diagonal:
        dim, partner, extent = carry.diagonal
        build.digits[f"{name}.{dim}="] = (dim, extent)
        build.digits[f"{name}.{partner}="] = (partner, extent)
        build.equal.append((f"{name}.{dim}=", f"{name}.{partner}="))
    return moved, carry.inner_lanes


def inner_digits(carry: Carry, name: str | None = None) -> list[tuple[str, int]]:
    """(digit, coefficient) of the inner lane digits: diagonal outermost."""
    name = carry.name if name is None else name
    out, scale = [], 1
    for dim, extent in carry.inner:
        out.append((f"{name}.{dim}", scale))
        scale *= extent
    if carry.diagonal:
        out.append((f"{name}.{carry.diagonal[0]}=", scale))
    return out


def _radices(digits: Mapping[str, tuple[str, int]]) -> list[Digit]:
    """Mixed radix per dimension: the digit that was made last is the innermost."""
    used: dict[str, int] = {}
    out = []
    for name, (dim, extent) in reversed(digits.items()):
        radix = used.get(dim, 1)
        out.append(Digit(name, dim, extent, radix))
        used[dim] = radix * extent
    return out[::-1]
