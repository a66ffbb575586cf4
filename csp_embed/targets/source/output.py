"""Where results are stored: straight into the result, or packed where its lanes lie apart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from csp_embed.ir.embedding import Embedding
from csp_embed.targets.source.nest import Clamp, Sum
from csp_embed.targets.source.places import Place

# What the kernel calls its result: a template's own variables may be called like the tensor.
RESULT = "result_"


@dataclass(frozen=True)
class Target:
    """at: where the first lane goes, by counters. used: lanes that hold results; limit: how many
    of them exist, by counters, where that differs (a ragged end)."""

    buffer: str
    dtype: str
    at: Sum
    used: int
    limit: Sum | None = None

    def lanes(self, bound: Callable[[Sum], Sum]) -> int | Clamp:
        """How many lanes are stored. bound: counters by loop variables."""
        if self.limit is None:
            return self.used
        limit = bound(self.limit)
        if limit.terms:
            # Known now: no clamp at run time.
            return Clamp(limit, self.used)
        return max(0, min(self.used, limit.const))


def packed(place: Place) -> Target:
    """All lanes, into the packed buffer that is taken apart later."""
    return Target(place.buffer, place.dtype, place.at(), place.lane_count)


def direct(place: Place, embedding: Embedding) -> Target | None:
    """Into the tensor itself; None where its elements do not lie as the lanes do, or where more
    than a ragged end is missing."""
    layout = place.layout
    # Fused and diagonal lanes do not lie side by side in the result.
    if layout.fused or layout.equal:
        return None
    strides, step = [0] * len(place.tensor_shape), 1
    for t in reversed(range(len(place.tensor_shape))):
        strides[t] = step
        step *= place.tensor_shape[t]
    used = 1
    # From the nearest digit outwards: lanes must follow each other in both.
    for digit, distance in sorted(place.digits, key=lambda d: d[1]):
        moved = sum(
            row.get(digit.name, 0) * s for row, s in zip(layout.digit_coef, strides, strict=True)
        )
        if digit.extent > 1 and (distance != used or moved != distance):
            return None
        used *= digit.extent
    extents = {c.name: c.extent for c in embedding.counters}
    at, limit = Sum(), None
    for t, size in enumerate(place.tensor_shape):
        index = _index(place, t)
        low = index.const + sum(min(0, c * (extents[v] - 1)) for v, c in index.terms)
        high = index.const + sum(max(0, c * (extents[v] - 1)) for v, c in index.terms)
        digits = [(d, layout.digit_coef[t].get(d.name, 0)) for d, _ in place.digits]
        high += sum(max(0, k * (d.extent - 1)) for d, k in digits)
        # Lanes below 0 would have to be left out at the beginning.
        if low < 0 or any(k < 0 for _, k in digits):
            return None
        if high >= size:
            # A ragged end can be met only in the innermost dimension, by storing fewer lanes.
            others = any(row.get(d.name, 0) for d, _ in digits for u, row in
                         enumerate(layout.digit_coef) if u != t)  # fmt: skip
            if limit is not None or strides[t] != 1 or others:
                return None
            limit = Sum(size).plus(index, -1)
        at = at.plus(index, strides[t])
    return Target(RESULT, place.dtype, at, used, limit)


def _index(place: Place, t: int) -> Sum:
    """Tensor index t of the first lane, by counters."""
    layout = place.layout
    const = layout.const[t] + sum(
        k * o for k, o in zip(layout.grid_coef[t], layout.origin, strict=True)
    )
    terms = {
        c: sum(k * s for k, s in zip(layout.grid_coef[t], step, strict=True))
        for c, step in layout.step.items()
    }
    return Sum.of(const, terms)
