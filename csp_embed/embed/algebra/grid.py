"""Grid dimensions of a packed tensor: which memory elements there are and who meets them.

Takes: rows, counters, mode.  Leaves: one `Axis` per grid dimension, outermost first.

A row whose counters move no other row gets one grid dimension, stepping by the greatest common
divisor of their coefficients (2*p + r: all image rows), unless one dimension per counter holds
fewer elements (groups of 24 channels in blocks of 16); other rows get one per counter. Factors are
clipped to elements with data in some lane: padding is never stored.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from csp_embed.embed.algebra.rows import Reject, Row, sums
from csp_embed.ir.affine import meeting, reach
from csp_embed.ir.embedding import Counter
from csp_embed.ir.operator import FACTORS


@dataclass(frozen=True)
class Axis:
    """One grid dimension: element count, index met at counters 0, what each counter adds to the
    index, what an index adds to each row (coef) and what index 0 adds (shift), by row number."""

    name: str
    size: int
    origin: int
    step: Mapping[str, int]
    coef: Mapping[int, int]
    shift: Mapping[int, int]


# CLIPPED may leave elements out, REACHED may not, STRICT must have each exactly once.
CLIPPED, REACHED, STRICT = "clipped", "reached", "strict"


def grid_mode(role: str, constant: bool, layout_mode: str) -> str:
    """How an operand's grid is cut: factors are CLIPPED to elements with data, unless the layout
    keeps run-time tensors STRICT; results and what is added to them keep all REACHED elements."""
    if role not in FACTORS:
        return REACHED
    return STRICT if layout_mode == STRICT and not constant else CLIPPED


def grid_axes(
    rows: Sequence[Row], counters: Sequence[Counter], extents: Mapping[str, int], mode: str
) -> list[Axis]:
    """Grid dimensions in row order. extents: of digits; mode: see `grid_mode`.

    Raises: Reject, where a strict grid cannot hold every element exactly once.
    """
    trips = {c.name: c.extent for c in counters}
    if mode == STRICT:
        return [a for n, row in enumerate(rows) for a in _whole(n, row, trips, extents)]
    # A counter that moves two rows ties them: a divisor of its own for each would meet elements
    # that no step meets.
    owner: dict[str, int] = {}
    shared: set[str] = set()
    for n, row in enumerate(rows):
        for c in row.counters:
            if owner.setdefault(c, n) != n:
                shared.add(c)
    axes: list[Axis] = []
    done: set[str] = set()
    for n, row in enumerate(rows):
        if row.counters and not shared & set(row.counters):
            axis = _lattice(n, row, trips, extents, mode)
            # The lattice is better only if it is not longer than the box of its counters.
            if axis.size <= math.prod(trips[c] for c in row.counters):
                axes.append(axis)
                continue
        for c in row.counters:
            # A shared counter is one dimension for all rows that it moves, made where it is met
            # first.
            if c not in done:
                coef = {m: r.counters[c] for m, r in enumerate(rows) if c in r.counters}
                axes.append(Axis(c, trips[c], 0, {c: 1}, coef, {}))
                done.add(c)
    return axes


def _lattice(
    n: int, row: Row, trips: Mapping[str, int], extents: Mapping[str, int], mode: str
) -> Axis:
    """Multiples of the counters' common divisor that they reach."""
    # Strides without a common divisor meet every index; with one, those between are never met.
    pitch = math.gcd(*row.counters.values())
    first, last = reach((c // pitch, trips[name]) for name, c in row.counters.items())
    # A result's elements all need a home, with data or not; a factor's padding is never stored.
    if mode == CLIPPED:
        low, high = _with_data(row, extents, pitch)
        first, last = max(first, low), min(last, high)
    return _axis(n, row, pitch, first, last)


def _with_data(row: Row, extents: Mapping[str, int], pitch: int) -> tuple[int, int]:
    """Least and greatest k at which const + pitch*k + some digits is a tensor index."""
    low, high = row.reach(extents)
    return meeting(pitch, row.const + low, row.const + high, row.size)


def _axis(n: int, row: Row, pitch: int, first: int, last: int) -> Axis:
    # `first` may be past `last` where nothing has data; one element keeps the layout from being
    # empty.
    size = max(last - first + 1, 1)  # an operand that is all padding keeps one neutral element
    step = {name: c // pitch for name, c in row.counters.items()}
    name = "+".join(row.counters) or f"_{n}"
    return Axis(name, size, -first, step, {n: pitch}, {n: pitch * first})


def _whole(n: int, row: Row, trips: Mapping[str, int], extents: Mapping[str, int]) -> list[Axis]:
    """The grid that holds every index of the tensor exactly once."""
    # A virtual digit takes values without lanes of its own: the same element stands in many
    # windows.
    if row.virtual:
        raise Reject("layout", "fused axes store the elements of a window several times")
    values = sums((c, extents[d]) for d, c in row.digits.items())
    pitch = len(values)
    # As many blocks as lanes have values: they tile the index if their remainders are all
    # different.
    steps = math.gcd(*row.counters.values()) if row.counters else 0
    if {v % pitch for v in values} == set(range(pitch)) and steps % pitch == 0:
        return [_axis(n, row, pitch, *_with_data(row, extents, pitch))]
    return _levels(n, row, trips, extents)


def _levels(n: int, row: Row, trips: Mapping[str, int], extents: Mapping[str, int]) -> list[Axis]:
    """Lanes that lie apart: the index is a mixed-radix number, some of its digits are lanes, and
    each gap between them is a grid dimension of its own; counters step it by less than its size."""
    refused = Reject("layout", "lanes and steps do not meet every element exactly once")
    gaps: list[tuple[int, int]] = []  # (radix, size), least first
    radix = 1
    # Ascending, so that each lane digit is a multiple of what is below it, as digits of a number
    # are.
    for coef, extent in sorted((abs(c), extents[d]) for d, c in row.digits.items()):
        if coef % radix:
            raise refused
        # The gap between two digits is a digit of its own, and no lane has it.
        if coef > radix:
            gaps.append((radix, coef // radix))
        radix = coef * extent
    if not gaps:
        raise refused
    low, high = row.reach(extents)
    # What the counters still have to move, above the gaps that are already dealt with.
    rest = dict(row.counters)
    axes: list[Axis] = []
    for (unit, size), above in zip(gaps, [*(r for r, _ in gaps[1:]), radix], strict=True):
        step = {name: _small(c, unit, above, size) for name, c in rest.items()}
        if any((rest[name] - s * unit) % above for name, s in step.items()):
            raise refused
        rest = {name: rest[name] - s * unit for name, s in step.items() if rest[name] != s * unit}
        step = {name: s for name, s in step.items() if s}
        first, last = reach((s, trips[name]) for name, s in step.items())
        # A gap's dimension may not run over into the digit above.
        if last - first >= size:
            raise refused
        low, high = low + unit * first, high + unit * (first + size - 1)
        axes.append(Axis(f"_{n}.{unit}", size, -first, step, {n: unit}, {n: unit * first}))
    if any(c % radix for c in rest.values()):
        raise refused
    lanes = Row(row.size, row.const, {}, rest)
    first, last = meeting(radix, row.const + low, row.const + high, row.size)
    # Outermost is what lies above all lanes and gaps.
    return [_axis(n, lanes, radix, first, last), *reversed(axes)]


def _small(coef: int, unit: int, above: int, size: int) -> int:
    """The step of less than `size` units that leaves a multiple of `above`, if there is one."""
    step = coef // unit % (above // unit)
    # Steps may go backwards: modulo the digit above, two numbers are possible, and one is small.
    return step if step < size else step - above // unit
