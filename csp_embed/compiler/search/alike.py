"""Which embeddings are one covering, written in two ways.

`c*s.i:8` of c=4, s=2 is `c.i:4, s.i:2`: the same points in the same lanes of the same steps, up to
the order of lanes within a dimension. A loop over blocks of which every step meets exactly one is
no loop: `r = 4*u-4*p+u.i-2*p.o` of r=2 is `r = u.i-2*p.o`, u being p. One schedule serves both, so
a pool of candidates that holds both holds less.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

from csp_embed.ir.embedding import Coordinate, Embedding

Piece = tuple[Any, ...]


def distinct(found: Iterable[Embedding]) -> list[Embedding]:
    """The first embedding of each covering, in their order."""
    seen: dict[Any, Embedding] = {}
    for e in found:
        seen.setdefault(covering(e), e)
    return list(seen.values())


def covering(e: Embedding) -> Any:
    """Equal for embeddings that are one covering; nothing is said of those that differ."""
    dims = {d.name: (d.dim, d.extent) for d in e.digits}
    loops = {c.name: c.extent for c in e.counters}
    lanes: list[Piece] = []
    steps: list[Piece] = []
    of: dict[str, tuple[Piece, ...]] = {}
    uses = Counter(name for c in e.coordinates for name in c.counters)
    for c in (_untied(c, dims, uses) for c in e.coordinates):
        places = [(name, dims[name][1], k) for name, k in c.digits.items()]
        places += [(name, loops[name], k) for name, k in c.counters.items()]
        for name, pieces in _pieces(c, places, e.operator.axes).items():
            of[name] = pieces
            if name in dims:
                # Lanes of one dimension add up alike in any order.
                lanes += [(dims[name][0], *p) for p in pieces]
            else:
                # A loop over several axes is one loop, which micro-ops can walk in one stride.
                steps.append(pieces)
    equal = sorted((of.get(a, ()), of.get(b, ())) for a, b in e.equal)
    return (e.commuted, tuple(sorted(lanes)), tuple(sorted(steps)), tuple(equal),
            e.layout_mode)  # fmt: skip


def _untied(
    c: Coordinate, dims: Mapping[str, tuple[str, int]], uses: Mapping[str, int]
) -> Coordinate:
    """Without its two counters, where those say no more than that a step meets one certain block:
    one is used here alone, its step divides the other's, and one multiple of it leaves room. With
    three, several steps could meet one block, whose elements then stand in fewer places."""
    if len(c.counters) != 2:
        return c
    for name, k in c.counters.items():
        if uses[name] > 1 or any(other % k for other in c.counters.values()):
            continue
        reach = [v * (dims[digit][1] - 1) for digit, v in c.digits.items()]
        low, high = c.const + sum(min(v, 0) for v in reach), c.const + sum(max(v, 0) for v in reach)
        first, last = -(high // abs(k)), (c.extent - 1 - low) // abs(k)
        if first == last:
            return replace(c, counters={}, const=c.const + first * abs(k))
    return c


def _pieces(
    c: Coordinate, places: Sequence[tuple[str, int, int]], axes: Mapping[str, int]
) -> dict[str, tuple[Piece, ...]]:
    """By digit and counter: what it moves, as (axes, offset, coefficient, extent), axis by axis
    where a fused coordinate falls apart. places: (name, extent, coefficient)."""
    whole = {n: ((c.axes, c.const, k, size),) for n, size, k in places}
    # Only exact numerations fall apart: a value past the end would be another axis' carry.
    exact = prod(size for _, size, _ in places) == c.extent and all(k > 0 for *_, k in places)
    if len(c.axes) < 2 or c.const or not exact:
        return whole
    found: dict[str, tuple[Piece, ...]] = {}
    for name, size, k in places:
        pieces: list[Piece] = []
        stride = 1
        # Row-major: the last axis has stride 1.
        for axis in reversed(c.axes):
            low, high = max(k, stride), min(k * size, stride * axes[axis])
            if low < high:
                if high % low or low % stride:
                    return whole
                pieces.append(((axis,), 0, low // stride, high // low))
            stride *= axes[axis]
        found[name] = tuple(sorted(pieces))
    return found
