"""Where the elements of an operand lie in a packed buffer: a box of its layout's grid.

Takes: a Layout, the counters that move it.  Leaves: a `Place`: every element that some step meets
is there, neutral ones too, so that the loops around a step need no conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.embedding import Digit, Embedding, Layout
from csp_embed.targets.source.nest import Sum

Array = NDArray[Any]


@dataclass(frozen=True)
class Place:
    """low, shape: the box of grid indices that steps meet; order: its dimensions, outermost first.
    lanes: sizes of the element's dimensions; digits: (digit, distance of its lanes). neutral: what
    an element without data holds, before `offset` is added to every value. tensor_shape: of the
    logical tensor."""

    layout: Layout
    buffer: str
    dtype: str
    low: tuple[int, ...]
    shape: tuple[int, ...]
    order: tuple[int, ...]
    lanes: tuple[int, ...]
    digits: tuple[tuple[Digit, int], ...]
    partners: tuple[tuple[str, str], ...]
    offset: int
    tensor_shape: tuple[int, ...]

    @property
    def lane_count(self) -> int:
        return int(np.prod(self.lanes, dtype=np.int64))

    @property
    def elements(self) -> int:
        """Values in the buffer."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.lane_count

    @property
    def strides(self) -> tuple[int, ...]:
        """Values from one grid index to the next, by grid dimension."""
        # Lanes first, then the grid, its last dimension innermost.
        out, step = [0] * len(self.shape), self.lane_count
        for d in reversed(self.order):
            out[d] = step
            step *= self.shape[d]
        return tuple(out)

    @property
    def base(self) -> int:
        """Where grid index 0 lies, or would lie."""
        return -sum(s * low for s, low in zip(self.strides, self.low, strict=True))

    def at(self) -> Sum:
        """Where the element lies that the counters' values meet."""
        strides, layout = self.strides, self.layout
        # The box begins at `low`, which the origin need not.
        const = sum(
            s * (o - low) for s, o, low in zip(strides, layout.origin, self.low, strict=True)
        )
        terms = {
            c: sum(s * k for s, k in zip(strides, step, strict=True))
            for c, step in layout.step.items()
        }
        return Sum.of(const, terms)

    def index_map(self) -> NDArray[np.int64]:
        """For every value of the buffer, where it stands in the flattened tensor; -1: neutral."""
        # Sparse: axes of one index each, combined by broadcasting.
        grid = np.indices(self.shape, dtype=np.int64, sparse=True)
        rank = len(self.shape)
        wide = (*self.shape, *(d.extent for d, _ in self.digits))
        g = [
            (x + low).reshape(x.shape + (1,) * len(self.digits))
            for x, low in zip(grid, self.low, strict=True)
        ]
        values = {
            d.name: np.arange(d.extent).reshape(
                (1,) * (rank + n) + (-1,) + (1,) * (len(self.digits) - n - 1)
            )
            for n, (d, _) in enumerate(self.digits)
        }
        inside, flat = self._content(g, values)
        # -1 wherever the element has no data.
        found = np.where(np.broadcast_to(inside, wide), np.broadcast_to(flat, wide), -1)
        out = np.full((*self.shape, self.lane_count), -1, np.int64)
        at = np.zeros(wide[rank:], np.int64)
        for n, (_, step) in enumerate(self.digits):
            at += step * np.arange(wide[rank + n]).reshape(
                (-1,) + (1,) * (len(self.digits) - n - 1)
            )
        out[..., at.reshape(-1)] = found.reshape((*self.shape, -1))
        # In the buffer's order, as it lies.
        return out.transpose((*self.order, rank)).reshape(-1)

    def _content(self, g: list[Array], values: Mapping[str, Array]) -> tuple[Any, Any]:
        """(element has data, its place in the flattened tensor) as broadcastable arrays."""
        layout = self.layout
        inside: Any = np.bool_(True)
        for x, size in zip(g, layout.grid, strict=True):
            inside = inside & (x >= 0) & (x < size)
        index: list[Any] = [
            c + sum(k * x for k, x in zip(row, g, strict=True))
            + sum(k * values[d] for d, k in digits.items())
            for c, row, digits in zip(
                layout.const, layout.grid_coef, layout.digit_coef, strict=True
            )
        ]  # fmt: skip
        # A fused coordinate is unravelled, row-major.
        for f in layout.fused:
            z = f.const + sum(k * x for k, x in zip(f.grid_coef, g, strict=True))
            z = z + sum(k * values[d] for d, k in f.digit_coef.items())
            total = int(np.prod(f.extents, dtype=np.int64))
            inside = inside & (z >= 0) & (z < total)
            rest = z
            for axis, n in zip(reversed(f.axes), reversed(f.extents), strict=True):
                rest, value = np.divmod(rest, n)
                index = [i + c * value for i, c in zip(index, f.axis_coef[axis], strict=True)]
        # Lanes off a diagonal hold nothing.
        for first, second in layout.equal:
            inside = inside & (values[first] == values[second])
        flat: Any = np.int64(0)
        for i, size in zip(index, self.tensor_shape, strict=True):
            inside = inside & (i >= 0) & (i < size)
            flat = flat * size + i
        return inside, flat

    def pack(self, array: Array) -> Array:
        """The buffer's values of a logical tensor."""
        where = self.index_map()
        flat = np.ascontiguousarray(array).reshape(-1)
        # Any value will do for -1: it is replaced below.
        picked = flat[np.maximum(where, 0)] if flat.size else np.zeros(where.shape, array.dtype)
        wide = np.where(where >= 0, picked, 0).astype(np.int64) + self.offset
        return wide.astype(self.dtype)

    def unpack(self, buffer: Array) -> Array:
        """The logical tensor of a buffer's values."""
        where = self.index_map()
        out = np.zeros(int(np.prod(self.tensor_shape, dtype=np.int64)), buffer.dtype)
        out[where[where >= 0]] = buffer[where >= 0]
        return out.reshape(self.tensor_shape)


def place(
    embedding: Embedding,
    operand: str,
    buffer: str,
    dtype: str,
    lane_dims: tuple[str, ...],
    sizes: Mapping[str, int],
    *,
    offset: int = 0,
    outer: tuple[str, ...] = (),
    run_time: bool = False,
) -> Place:
    """The place of an operand's layout. lane_dims, sizes: of its memory's element. outer: counters
    whose grid dimensions lie outermost, so that the others are read in one go. run_time: packed in
    every run, so that what is closest in the tensor lies innermost."""
    layout = embedding.layouts[operand]
    extents = {c.name: c.extent for c in embedding.counters}
    low, shape = [], []
    # The box: the least and greatest index over all counters.
    for d in range(len(layout.grid)):
        reach = [step[d] * (extents[c] - 1) for c, step in layout.step.items()]
        first = layout.origin[d] + sum(min(r, 0) for r in reach)
        low.append(first)
        shape.append(layout.origin[d] + sum(max(r, 0) for r in reach) - first + 1)
    strides, step = {}, 1
    for dim in reversed(lane_dims):
        strides[dim] = step
        step *= sizes[dim]
    digits = tuple((d, strides[d.dim] * d.radix) for d in embedding.digits if d.dim in lane_dims)
    # Given counters outermost: a panel is read in one go.
    first_dims = [
        d for c in outer if c in layout.step for d in range(len(shape)) if layout.step[c][d]
    ]
    order = list(dict.fromkeys([*first_dims, *range(len(shape))]))
    if run_time and layout.grid_coef:
        # What the tensor's last index moves lies innermost: runs are copied.
        order.sort(key=lambda d: layout.grid_coef[-1][d] > 0 and shape[d] > 1)
    return Place(
        layout=layout, buffer=buffer, dtype=dtype, low=tuple(low), shape=tuple(shape),
        order=tuple(order), lanes=tuple(sizes[d] for d in lane_dims), digits=digits,
        partners=layout.equal, offset=offset,
        tensor_shape=embedding.operator.tensors[layout.tensor].shape,
    )  # fmt: skip
