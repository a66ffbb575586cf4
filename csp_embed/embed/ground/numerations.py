"""Numerations of lanes and steps: the digits over which a regular covering is affine (rule 8).

A *frame* fixes the digits of the steps (loop counters) and of every dimension (lane digits), which
pairs of digits carry one value together (a diagonal: places where they differ are pad), and which
reduced axes are flattened row-major into one coordinate. All digits have prime extents: an affine
map over a digit of extent 4 is one over two digits of extent 2. Lanes and steps that no digits name
are pad. A *box* lists a frame's places.

The definition fixed here, so that solution sets are finite: every digit is used (its last value is
met by some operator point; otherwise a smaller frame says the same), digits are counted from the
end that lies nearer to an operator point at which all others are 0 (some corner of the box is an
operator point, possibly one with a factor out of range), and coefficients are bounded (`bound`).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from csp_embed.ir.ground import Ground

STEP = "step"


@dataclass(frozen=True)
class Digit:
    """A digit of a dimension or of the steps (dim = STEP); values 0..extent-1, weight radix."""

    dim: str
    extent: int
    radix: int


@dataclass(frozen=True)
class Frame:
    """digits: steps first. equal: pairs of digit numbers, the second moves nothing by itself.

    coordinates: groups of operator axes, flattened row-major; one axis each unless fused.
    """

    digits: tuple[Digit, ...]
    equal: tuple[tuple[int, int], ...]
    coordinates: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Box:
    """places: (step, lanes). values: digit values of each place, in digit order (empty without a
    frame). sizes: dimension -> lanes that are named. steps: how many are named."""

    places: tuple[tuple[int, tuple[int, ...]], ...]
    values: tuple[tuple[int, ...], ...]
    sizes: Mapping[str, int]
    steps: int


def whole_box(ground: Ground) -> Box:
    """All lanes of all steps, for irregular coverings."""
    lanes = list(itertools.product(*(range(n) for n in ground.sizes.values())))
    places = tuple((t, lane) for t in range(ground.steps) for lane in lanes)
    return Box(places, (), dict(ground.sizes), ground.steps)


def box_of(ground: Ground, frame: Frame) -> Box:
    """The places that the frame names; off-diagonal ones are left out."""
    dims = [STEP, *ground.sizes]
    sizes = {d: math.prod(x.extent for x in frame.digits if x.dim == d) for d in dims}
    places: list[tuple[int, tuple[int, ...]]] = []
    values: list[tuple[int, ...]] = []
    # All digit values, first digit slowest: places in a fixed order.
    for v in itertools.product(*(range(d.extent) for d in frame.digits)):
        # Off the diagonal: no place.
        if any(v[a] != v[b] for a, b in frame.equal):
            continue
        where = dict.fromkeys(dims, 0)
        for digit, value in zip(frame.digits, v, strict=True):
            where[digit.dim] += digit.radix * value
        places.append((where[STEP], tuple(where[d] for d in ground.sizes)))
        values.append(v)
    return Box(tuple(places), tuple(values), {d: sizes[d] for d in ground.sizes}, sizes[STEP])


def frames(ground: Ground, *, steps: int | None = None) -> Iterator[Frame]:
    """All frames with room for every effective point. steps: only those with so many steps.

    Counters stand in ascending order of extent, and in every order where that of steps counts.
    """
    need = len(ground.points)
    most = ground.steps if steps is None else steps
    # Counters of any product up to the steps allowed.
    counters = list(_primes_within(most))
    # Which counter is outer matters only where steps are ordered.
    if ground.ordered:
        counters = sorted({o for c in counters for o in itertools.permutations(c)})
    choices = [counters] + [list(_primes_within(n)) for n in ground.sizes.values()]
    for split in itertools.product(*choices):
        if steps is not None and math.prod(split[0]) != steps:
            continue
        digits: list[Digit] = []
        for dim, extents in zip([STEP, *ground.sizes], split, strict=True):
            # Digits of a dimension from the fastest to the slowest.
            radix = 1
            for extent in extents:
                digits.append(Digit(dim, extent, radix))
                radix *= extent
        for equal in _pairings(digits):
            # A diagonal pair has as many places as one of its digits.
            room = math.prod(d.extent for d in digits) // math.prod(
                digits[a].extent for a, _ in equal
            )
            if room >= need:
                for coordinates in _coordinates(ground):
                    yield Frame(tuple(digits), equal, coordinates)


def bound(ground: Ground, coordinate: Sequence[str]) -> int:
    """Greatest magnitude of a coefficient: the coordinate's extent, and for windows how far the
    other axes of an index can move it (a tap u - q begins before the first one where q is large, so
    u takes as many values more). An axis of extent 1 does not move.
    """
    op = ground.op
    extent = math.prod(op.axes[a] for a in coordinate)
    reach = 0
    for access in ground.accesses.values():
        for ix in access.index:
            own = [abs(c) for a, c in ix.terms if a in coordinate]
            others = [abs(c) * (op.axes[a] - 1) for a, c in ix.terms if a not in coordinate]
            # How far the others move it, in steps of this coordinate: rounded down.
            reach = max(reach, sum(others) // min(own)) if own else reach
    return extent - 1 + reach if extent > 1 else 0


def _primes_within(size: int) -> Iterator[tuple[int, ...]]:
    """Multisets of primes with a product of at most `size`, ascending.

    >>> list(_primes_within(4))
    [(), (2,), (2, 2), (3,)]
    """

    def extend(least: int, room: int) -> Iterator[tuple[int, ...]]:
        yield ()
        # Ascending, so that each multiset comes once.
        for p in range(least, room + 1):
            if all(p % d for d in range(2, p)):
                for rest in extend(p, room // p):
                    yield (p, *rest)

    return extend(2, size)


def _pairings(digits: Sequence[Digit]) -> Iterator[tuple[tuple[int, int], ...]]:
    """Sets of disjoint pairs of lane digits of equal extent in different dimensions; of several
    that differ by exchanging equal digits of a dimension, the first."""
    lanes = [n for n, d in enumerate(digits) if d.dim != STEP]
    seen: set[tuple[tuple[str, str, int], ...]] = set()
    pairs = [
        (a, b)
        for a, b in itertools.combinations(lanes, 2)
        if digits[a].dim != digits[b].dim and digits[a].extent == digits[b].extent
    ]
    for count in range(len(lanes) // 2 + 1):
        for chosen in itertools.combinations(pairs, count):
            # Disjoint: no digit in two pairs.
            if len({n for pair in chosen for n in pair}) == 2 * count:
                # Equal digits of a dimension are exchangeable, so only kinds of pairs count.
                kinds = [(digits[a].dim, digits[b].dim, digits[a].extent) for a, b in chosen]
                if tuple(sorted(kinds)) not in seen:
                    seen.add(tuple(sorted(kinds)))
                    yield chosen


def _coordinates(ground: Ground) -> Iterator[tuple[tuple[str, ...], ...]]:
    """Every axis by itself, and every group of reduced axes flattened in operator order."""
    op = ground.op
    yield tuple((a,) for a in op.axes)
    # An axis of extent 1 adds nothing to a flattened one.
    long = [a for a in op.reduced_axes if op.axes[a] > 1]
    for count in range(2, len(long) + 1):
        for group in itertools.combinations(long, count):
            yield (*((a,) for a in op.axes if a not in group), group)
