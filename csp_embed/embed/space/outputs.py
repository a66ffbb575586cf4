"""Ways to carry an output axis: loops, digits, diagonals, and what reduced axes must absorb.

Takes: Rules, an output axis.  Leaves: `Half`s, each a carry with the skews that it needs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from csp_embed.embed.space.digits import LOOP, Carry
from csp_embed.embed.space.rules import Rules, Skew


@dataclass(frozen=True)
class Half:
    """An output axis' carry and the skews it needs: (dimension, factor, Skew), or (reduced axis,
    slope) where all of it is a skew."""

    carry: Carry
    skews: tuple[tuple[str, int, Skew], ...] = ()
    shear: tuple[str, int] | None = None


def output_ways(rules: Rules, axis: str, coupled: bool) -> Iterator[Half]:
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
    seen: set[Half] = set()
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


def _plainly(rules: Rules, axis: str) -> Iterator[Half]:
    """An output axis as a loop, or with one digit, plain or on a diagonal."""
    yield Half(Carry((axis,)))
    for dim, size in rules.unit.size.items():
        if dim in rules.unit.reduced:
            continue
        if rules.plain(axis, dim):
            for f in rules.factors(axis, rules.op.axes[axis], size):
                yield Half(Carry((axis,), ((dim, f),)))
        for partner in rules.diagonals(axis, dim):
            limit = min(size, rules.unit.size[partner])
            for f in rules.factors(axis, rules.op.axes[axis], limit):
                yield Half(Carry((axis,), diagonal=(dim, partner, f)))


def _half(axis: str, ways: Sequence[tuple[str, str, int, object]]) -> Half | None:
    inner = tuple((d, f) for kind, d, f, _ in ways if kind in ("inner", "skew"))
    outer = tuple((d, f) for kind, d, f, _ in ways if kind == "outer")
    diagonal = [(d, str(e), f) for kind, d, f, e in ways if kind == "diagonal"]
    skews = tuple((d, f, s) for kind, d, f, s in ways if kind == "skew" and isinstance(s, Skew))
    # Two diagonals of one axis would want three equal positions.
    if len(diagonal) > 1:
        return None
    return Half(Carry((axis,), inner, outer, diagonal[0] if diagonal else None), skews)
