"""Where the elements of an operand lie in HOST: grid, rows of an element, block dimension, lanes.

Takes: an embedding's layout, the tile's rows and lanes, a transfer.  Leaves: a `Region`. One grid
dimension stands inside the rows, so that its elements lie beside each other: they are moved
together, and a matrix whose extents fit is its own row-major image.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import Infeasible
from csp_embed.ir.embedding import Embedding
from csp_embed.machine.commands.tiles import Tile
from csp_embed.machine.commands.transfers import Transfer
from csp_embed.machine.spec import Isa
from csp_embed.targets.source.places import Place, place

Array = NDArray[Any]


@dataclass(frozen=True)
class Region:
    """place: the grid box. tile: rows and lanes of an element. block: the grid dimension inside the
    rows, or None for a grid of one element; beside: its elements lie beside each other row by row,
    else one after the other. rows: of an element that are kept (1 where all are alike). group:
    elements of the block dimension that one transfer moves. pitch: values from row to row where
    they are more than the row has (0: as many); what lies between is nobody's."""

    role: str
    place: Place
    tile: Tile
    height: int
    width: int
    block: int | None
    beside: bool
    rows: int
    group: int
    item: int
    address: int = 0
    pitch: int = 0

    @property
    def outer(self) -> tuple[int, ...]:
        """Extents of the box without the block dimension."""
        return tuple(n for d, n in enumerate(self.place.shape) if d != self.block)

    @property
    def blocks(self) -> int:
        return 1 if self.block is None else self.place.shape[self.block]

    @property
    def row_bytes(self) -> int:
        """Bytes of HOST that a row takes."""
        return max(self.width, self.pitch) * self.item

    @property
    def stride(self) -> int:
        """HOST bytes from row to row of an element."""
        # Rows that are all alike lie once, and are read with stride 0.
        if self.rows < self.height:
            return 0
        return self.row_bytes * (self.blocks if self.beside else 1)

    @property
    def size(self) -> int:
        return math.prod(self.outer) * self.blocks * self.rows * self.row_bytes

    def element(self, index: Array) -> tuple[Array, Array]:
        """(outer number, block number) of elements by grid index, [..., rank], in the box."""
        # Row-major over the outer dimensions of the box.
        outer = np.zeros(index.shape[:-1], np.int64)
        for d, n in enumerate(self.place.shape):
            if d != self.block:
                outer = outer * n + index[..., d]
        within = np.zeros_like(outer) if self.block is None else index[..., self.block]
        return outer, within

    def at(self, outer: int, within: int) -> int:
        """HOST address of the first row of an element."""
        if self.beside:
            rows = outer * self.rows * self.blocks
            return self.address + (rows + within) * self.row_bytes
        return self.address + (outer * self.blocks + within) * self.rows * self.row_bytes

    @property
    def _content(self) -> NDArray[np.int64]:
        """Where each lane of each element stands in the flattened tensor, [grid..., lanes...]."""
        p = self.place
        rank = len(p.shape)
        flat = p.index_map().reshape(tuple(p.shape[d] for d in p.order) + p.lanes)
        # Back into the box's own order of dimensions before rows and lanes are placed.
        return flat.transpose((*np.argsort(p.order), *range(rank, flat.ndim)))

    @cached_property
    def used(self) -> Mapping[str, NDArray[np.int64]]:
        """Dimension -> for each element by its number, one more than its last value with data."""
        rank = len(self.place.shape)
        known = self._content >= 0
        order = [d for d in range(rank) if d != self.block]
        order += [] if self.block is None else [self.block]
        known = known.transpose((*order, *range(rank, known.ndim)))
        known = known.reshape((-1, *self.place.lanes))
        found: dict[str, NDArray[np.int64]] = {}
        for n, d in enumerate(self.tile.dims):
            others = tuple(1 + k for k in range(len(self.tile.dims)) if k != n)
            some: NDArray[np.bool_] = np.asarray(known.any(axis=others))
            size = some.shape[1]
            found[d] = np.where(some.any(axis=1), size - np.argmax(some[:, ::-1], axis=1), 0)
        return found

    @cached_property
    def map(self) -> NDArray[np.int64]:
        """For every value of the region, where it stands in the flattened tensor; -1: neutral."""
        p, t = self.place, self.tile
        rank = len(p.shape)
        flat = self._content
        wide = np.full((*p.shape, self.height, max(self.width, self.pitch)), -1, np.int64)
        # Where a lane of the tile stands in rows and lanes of the memory.
        rows = np.zeros(p.lanes, np.int64)
        lanes = np.zeros(p.lanes, np.int64)
        for n, d in enumerate(t.dims):
            along = np.arange(p.lanes[n]).reshape([-1 if k == n else 1 for k in range(len(t.dims))])
            rows = rows + along * t.rows.get(d, 0)
            lanes = lanes + along * t.lanes.get(d, 0)
        wide[..., rows, lanes] = flat
        wide = wide[..., : self.rows, :]
        # Without a block dimension the elements stand one after the other.
        if self.block is None:
            return wide.reshape(-1)
        inside = (rank, self.block) if self.beside else (self.block, rank)
        order = (*(d for d in range(rank) if d != self.block), *inside, rank + 1)
        return wide.transpose(order).reshape(-1)

    def image(self, tensor: Array, dtype: str) -> NDArray[np.uint8]:
        """The region's bytes of a logical tensor; what stands nowhere is 0."""
        flat = np.ascontiguousarray(tensor).reshape(-1)
        # -1 is what no element fills: 0, which multiplies to nothing.
        picked = np.where(self.map >= 0, flat[np.maximum(self.map, 0)], 0)
        return picked.astype(np.dtype(dtype).newbyteorder("<")).view(np.uint8)

    def addresses(self, shape: tuple[int, ...]) -> NDArray[np.int64]:
        """Of every element of a tensor that stands once."""
        out = np.full(math.prod(shape), -1, np.int64)
        known = np.flatnonzero(self.map >= 0)
        out[self.map[known]] = self.address + known * self.item
        return out.reshape(shape)


def region(
    embedding: Embedding, isa: Isa, role: str, tile: Tile, transfer: Transfer, *,
    most_group: int, reduced_first: bool,
) -> Region:  # fmt: skip
    """The region of an operand, at address 0. most_group: tiles that one transfer may fill."""
    layout = embedding.layouts[role]
    sizes = isa.dims
    p = place(embedding, role, role, transfer.dtype, tile.dims, sizes)
    if role in ("lhs", "rhs"):  # steps outside the grid multiply nothing, and are left out
        # Clipped to the grid: elements beyond it would be loaded for nothing.
        low = tuple(max(0, n) for n in p.low)
        high = tuple(min(g, a + n) for g, a, n in zip(layout.grid, p.low, p.shape, strict=True))
        p = replace(p, low=low, shape=tuple(max(1, h - a) for h, a in zip(high, low, strict=True)))
    height = tile.height(sizes)
    width = 1 + sum(s * (sizes[d] - 1) for d, s in tile.lanes.items())
    beside = transfer.strided()
    group = transfer.blocks
    # No blocks, but many rows: elements below each other are one copy.
    if group == 1 and transfer.rows is None and transfer.most_rows >= 2 * height:
        group, beside = transfer.most_rows // height, False
    # Where addresses count units, tiles whose rows are none lie apart.
    if beside and width * transfer.item % transfer.unit:
        group = 1
    group = max(1, min(group, most_group))
    block = _block(embedding, role, p, group, reduced_first)
    found = Region(role, p, tile, height, width, block, beside, height, group, transfer.item,
                   pitch=transfer.pitch(width))  # fmt: skip
    if role.startswith("add") and (transfer.strided() or transfer.repeats):
        found = _one_row(found)
    if transfer.repeats and found.rows > 1:
        where = embedding.operator.text()
        raise Infeasible(
            f"{transfer.command.name} fills all rows of a tile with one row of {role}", where=where,
            why="rows of this tensor differ from each other in a tile",
            hint="a copy that walks rows of HOST, in the machine's file",
        )  # fmt: skip
    return found


def _block(
    embedding: Embedding, role: str, p: Place, group: int, reduced_first: bool
) -> int | None:
    """The dimension whose elements lie beside each other: that which fills groups, then one that
    sums walk, then that of the tensor's last index."""
    layout = embedding.layouts[role]
    reduced = {c.name for c in embedding.counters if c.reduced}

    def rank(d: int) -> tuple[float, bool, bool]:
        n = p.shape[d]
        # Full groups first: a ragged one costs a copy as well.
        filled = n / (math.ceil(n / group) * group)
        walked = any(c in reduced and step[d] for c, step in layout.step.items())
        # The last index lies beside itself in the user's tensor, so packing copies rows.
        last = bool(layout.grid_coef) and layout.grid_coef[-1][d] > 0
        return filled, walked and reduced_first, last

    return max(range(len(p.shape)), key=rank, default=None)


def _one_row(found: Region) -> Region:
    """Keeps one row of each element where all rows hold the same values."""
    whole = found.map
    width = max(found.width, found.pitch)
    shape = (math.prod(found.outer), found.rows, found.blocks, width)
    rows = whole.reshape(shape) if found.beside else whole.reshape(
        shape[0], found.blocks, found.rows, width
    ).transpose(0, 2, 1, 3)  # fmt: skip
    # A row without data is alike to any: what it adds is read by nobody.
    alike = ((rows == rows[:, :1]) | (rows < 0)).all()
    return replace(found, rows=1) if alike else found
