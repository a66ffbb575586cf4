"""The decisions of the lifted model as plain data, and the digits and coordinates they mean.

Takes: Operator, Unit, Decisions.  Leaves: digits, counters and coordinates of `ir.embedding`.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from fractions import Fraction

from csp_embed.ir.affine import Affine, meeting, reach
from csp_embed.ir.embedding import Coordinate, Counter, Digit, Embedding
from csp_embed.ir.operator import Access, Operator

LOOP = "loop"
"""The dimension of a digit that is no lane: a counter inside the axis' own."""

WHOLE = "whole"
"""In a skew, for a dimension: all of the axis, its counter included."""


class Place(Enum):
    """Where a digit stands in its coordinate: inside its counter, outside it, or on two dimensions
    at once. The value is how names show it."""

    INNER = ""
    OUTER = "^"
    DIAGONAL = "="


@dataclass(frozen=True)
class Part:
    """A digit (or an inner counter, on LOOP) of the coordinate that `axes` enumerate."""

    axes: tuple[str, ...]
    dim: str
    place: Place = Place.INNER


# u is no axis: its values are sums, and a name that looked like the axis' own would mislead.
def owner_name(axes: tuple[str, ...], skewed: bool) -> str:
    """How a coordinate's counter is called: k, c*r, or u(s) where other digits skew it."""
    name = "*".join(axes)
    return f"u({name})" if skewed else name


def part_name(owner: str, dim: str, place: Place = Place.INNER) -> str:
    """How a digit of a coordinate is called. Names are for people and files: nothing reads them
    apart; `parts_of` finds what a name stands for by making those that are possible."""
    return f"{owner}.{dim}{place.value}"


def parts_of(embedding: Embedding) -> dict[str, Part]:
    """Name -> what it stands for, of every digit and inner counter that `expand` can have made."""
    dims = {*(d.dim for d in embedding.digits), LOOP}
    # Every name that could be made, because names are not parsed: several may be made for one
    # carry, and those that are present decide.
    made = {
        part_name(owner_name(c.axes, skewed), dim, place): Part(c.axes, dim, place)
        for c in embedding.coordinates
        for skewed in (False, True)
        for dim in dims
        for place in Place
    }
    present = [x.name for x in (*embedding.digits, *embedding.counters)]
    return {name: made[name] for name in present if name in made}


@dataclass(frozen=True)
class Carry:
    """How one coordinate is carried.

    axes: one operator axis, or several fused (row-major). inner / outer: (dimension, extent) of
    lane digits inside / outside its counter, innermost first; an inner one on LOOP is a counter.
    diagonal: (dimension, partner dimension, extent) of an inner digit that two dimensions carry
    together. skew: (axis, dimension, multiplier): digits and counter of this carry enumerate
    u = own axis + sum multiplier * (inner digit of `axis` on `dimension`, weighted); see Skew in
    the embedding problem. On WHOLE it is the axis itself, so that each output has an offset of its
    own into its window; such a skew is the only one of its carry. early: values that are enumerated
    before the first one that some point has, so that blocks of lanes align with blocks of the
    tensor.
    """

    axes: tuple[str, ...]
    inner: tuple[tuple[str, int], ...] = ()
    outer: tuple[tuple[str, int], ...] = ()
    diagonal: tuple[str, str, int] | None = None
    skew: tuple[tuple[str, str, Fraction | int], ...] = ()
    early: int = 0

    @property
    def name(self) -> str:
        return owner_name(self.axes, bool(self.skew))

    @property
    def inner_lanes(self) -> int:
        own = math.prod(e for _, e in self.inner)
        return own * (self.diagonal[2] if self.diagonal else 1)


@dataclass(frozen=True)
class Decisions:
    """All decisions: every operator axis stands in exactly one carry."""

    commuted: bool
    carries: tuple[Carry, ...]


@dataclass(frozen=True)
class Map:
    """Digits, counters and coordinates that decisions mean, and the pairs of equal digits."""

    digits: tuple[Digit, ...]
    counters: tuple[Counter, ...]
    coordinates: tuple[Coordinate, ...]
    equal: tuple[tuple[str, str], ...] = ()


@dataclass
class _Builder:
    digits: dict[str, tuple[str, int]] = field(default_factory=dict[str, tuple[str, int]])
    counters: list[Counter] = field(default_factory=list[Counter])
    coordinates: list[Coordinate] = field(default_factory=list[Coordinate])
    equal: list[tuple[str, str]] = field(default_factory=list[tuple[str, str]])


def expand(op: Operator, decisions: Decisions) -> Map:
    """Digits, counters and coordinates of `decisions`; counters with reduced ones last."""
    build = _Builder()
    # Skews name the carry that they borrow a lane digit from; fused carries lend none.
    lanes = {c.axes[0]: c for c in decisions.carries if len(c.axes) == 1}
    for carry in decisions.carries:
        _coordinate(op, carry, lanes, build)
    for carry in decisions.carries:
        _offsets(carry, build)
    counters = sorted(build.counters, key=lambda c: c.reduced)
    return Map(
        tuple(_radices(build.digits)),
        tuple(counters),
        tuple(build.coordinates),
        tuple(build.equal),
    )


def _coordinate(op: Operator, carry: Carry, lanes: Mapping[str, Carry], build: _Builder) -> None:
    name = carry.name
    extent = math.prod(op.axes[a] for a in carry.axes)
    # Only axes carried alone lose their dead values: a fused one is enumerated without gaps.
    const, span = live(op, carry.axes[0]) if len(carry.axes) == 1 else (0, extent)
    moved, loops, scale = _place(carry, build)
    skewed: dict[str, int] = {}
    for axis, dim, multiplier in carry.skew:
        if dim == WHOLE:
            const, span = live_sheared(op, carry.axes[0], axis, int(multiplier))
            continue
        coef = int(inner_scale(lanes[axis])[dim] * multiplier)
        skewed[part_name(lanes[axis].name, dim)] = -coef
        reach = coef * (dict(lanes[axis].inner)[dim] - 1)
        # The borrowed digit moves u by up to this much, and u must take all values for each of its
        # positions.
        span += abs(reach)
        const += min(reach, 0)
    const, span = const - carry.early, span + carry.early
    # Rounded up: the last round may be ragged, its excess lanes are pad.
    outer = math.prod(e for _, e in carry.outer)
    trips = -(-span // (scale * outer))
    counters: dict[str, int] = {}
    # One trip is no loop, and a counter of extent 1 would be a dimension without meaning.
    if trips > 1:
        reduced = carry.axes[0] in op.reduced_axes
        build.counters.append(Counter(name, trips, reduced))
        counters[name] = scale
    # What is outside of the counter steps by all that is inside it, lanes and trips.
    scale *= trips
    for dim, lane_extent in carry.outer:
        key = part_name(name, dim, Place.OUTER)
        build.digits[key] = (dim, lane_extent)
        moved[key] = scale
        scale *= lane_extent
    lent = [dim for _, dim, _ in carry.skew if dim != WHOLE]
    for dim, (key, coef) in zip(lent, skewed.items(), strict=True):
        (loops if dim == LOOP else moved)[key] = coef
    build.coordinates.append(Coordinate(carry.axes, extent, const, moved, counters | loops))


def _offsets(carry: Carry, build: _Builder) -> None:
    """Takes the axis off the window of a carry that is skewed by all of it: u is own + c * axis."""
    for axis, dim, multiplier in carry.skew:
        if dim != WHOLE:
            continue
        at = next(n for n, c in enumerate(build.coordinates) if c.axes == carry.axes)
        own, other = build.coordinates[at], next(c for c in build.coordinates if c.axes == (axis,))
        factor = int(multiplier)
        digits = dict(own.digits) | {n: -factor * k for n, k in other.digits.items()}
        counters = dict(own.counters) | {n: -factor * k for n, k in other.counters.items()}
        const = own.const - factor * other.const
        build.coordinates[at] = Coordinate(own.axes, own.extent, const, digits, counters)


def live(op: Operator, axis: str) -> tuple[int, int]:
    """First value and number of values of an axis beyond which every point has a factor out of
    range; all values of an output axis, whose elements need a home (dead taps are left out)."""
    first, last = _live(op, axis, {})
    # No live value at all: the sum is 0 everywhere, and all values are kept so that there is a
    # loop.
    return (first, last - first + 1) if first <= last else (0, op.axes[axis])


def live_sheared(op: Operator, axis: str, other: str, factor: int) -> tuple[int, int]:
    """As `live`, of axis + factor * other, where the other axis has each of its values."""
    ends: list[int] = []
    for value in range(op.axes[other]):
        first, last = _live(op, axis, {other: value})
        if first <= last:
            ends += [first + factor * value, last + factor * value]
    return (min(ends), max(ends) - min(ends) + 1) if ends else (0, op.axes[axis])


def _live(op: Operator, axis: str, known: Mapping[str, int]) -> tuple[int, int]:
    """First and last value of an axis at which some point has all factors. known: values of other
    axes, which have any value otherwise."""
    first, last = 0, op.axes[axis] - 1
    if axis in op.reduced_axes and (last or known):
        for access in (op.lhs, op.rhs):
            for ix, size in _indices(op, access):
                own = ix.coef(axis)
                if own:
                    # A value counts where at some position of the others the index falls into the
                    # tensor.
                    fixed = ix.const + sum(ix.coef(a) * v for a, v in known.items())
                    free = [(c, op.axes[a]) for a, c in ix.terms if a != axis and a not in known]
                    begin, end = meeting(own, *reach(free, fixed), size)
                    first, last = max(first, begin), min(last, end)
    return first, last


def _indices(op: Operator, access: Access | None) -> list[tuple[Affine, int]]:
    """Indices and their extents."""
    if access is None:
        return []
    return list(zip(access.index, op.tensors[access.tensor].shape, strict=True))


def _place(carry: Carry, build: _Builder) -> tuple[dict[str, int], dict[str, int], int]:
    """Adds the inner digits of a carry, the diagonal one outermost; coefficients of its lane digits
    and of its inner counters, and what its own counter steps by."""
    moved: dict[str, int] = {}
    loops: dict[str, int] = {}
    for (dim, extent), scale in zip(carry.inner, inner_scale(carry).values(), strict=True):
        key = part_name(carry.name, dim)
        if dim == LOOP:
            build.counters.append(Counter(key, extent, False))
            loops[key] = scale
        else:
            build.digits[key] = (dim, extent)
            moved[key] = scale
    if carry.diagonal:
        dim, partner, extent = carry.diagonal
        # One logical digit on two dimensions: the pair says that only equal positions are meant.
        key, other = (part_name(carry.name, d, Place.DIAGONAL) for d in (dim, partner))
        build.digits[key] = (dim, extent)
        build.digits[other] = (partner, extent)
        build.equal.append((key, other))
        moved[key] = math.prod(e for _, e in carry.inner)
    return moved, loops, carry.inner_lanes


def inner_scale(carry: Carry) -> dict[str, int]:
    """Dimension -> coefficient of the carry's inner digit on it, innermost first."""
    scale = 1
    out: dict[str, int] = {}
    for dim, extent in carry.inner:
        out[dim] = scale
        scale *= extent
    return out


def _radices(digits: Mapping[str, tuple[str, int]]) -> list[Digit]:
    """Mixed radix per dimension: the digit that was made last is the innermost."""
    used: dict[str, int] = {}
    out: list[Digit] = []
    # Later carries stand inside: reduced axes come last, so their digits are next to each other.
    for name, (dim, extent) in reversed(list(digits.items())):
        radix = used.get(dim, 1)
        out.append(Digit(name, dim, extent, radix))
        used[dim] = radix * extent
    return out[::-1]
