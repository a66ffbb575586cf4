"""Homes: where each element of a stored tensor lies, in bytes from the tensor's beginning.

Takes: embeddings of layers, and which element of which tensor each index of an operand is.  Leaves:
the homes that an operand's own grid makes, and how another operand's grid lies in a given home:
one pitch per grid dimension, or that it does not fit.

Nothing is derived from an embedding's algebra: the packing of a layer says where each element
stands in its grid, and a home is a table of those places. So two layouts are the same where their
tables are, however they came about.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.algebra.packing import unpack
from csp_embed.ir.embedding import Embedding
from csp_embed.machine.spec import Isa
from csp_embed.schedule.inputs import build as build_problem

Ids = NDArray[np.int64]
Index = NDArray[np.integer[Any]]  # narrow ones: large networks have many
SOME = 500  # elements that are looked at before all are
NARROW = 1 << 30  # bytes: sums of two such fit into int32


@dataclass(frozen=True, eq=False)
class Home:
    """place: byte of each element. size: bytes of the whole. key: equal for equal homes."""

    place: Index
    size: int
    key: bytes

    @staticmethod
    def of(place: Index, size: int) -> Home:
        # The size is part of the key: equal places in a larger home are another one. A digest: a
        # large network has hundreds of homes of a million elements each.
        place = np.ascontiguousarray(place, np.int32 if size < NARROW else np.int64)
        key = hashlib.blake2b(place.data, digest_size=32).digest()
        return Home(place, size, size.to_bytes(8, "little") + key)

    def taken(self, elem: int) -> NDArray[np.bool_]:
        """Which memory elements of that many bytes hold an element of the tensor."""
        if elem not in self._taken:
            found = np.zeros(-(-self.size // elem), bool)
            found[self.place // elem] = True
            self._taken[elem] = found
        return self._taken[elem]

    @cached_property
    def _taken(self) -> dict[int, NDArray[np.bool_]]:
        return {}


@dataclass(frozen=True, eq=False)
class Grid:
    """An operand's elements of one tensor.

    shape: of the region's grid. elem: bytes of a grid element. cell: flat index in the grid, lane:
    byte within the element, ids: which element of the tensor; -1 stands for the border. empty: flat
    indices of what a result stores beside its elements, where its tiles end beyond the tensor.
    """

    shape: tuple[int, ...]
    elem: int
    cell: Index
    lane: Index
    ids: Index
    empty: Index

    @cached_property
    def key(self) -> bytes:
        """Equal for grids that hold the same."""
        text = f"{self.shape} {self.elem} {len(self.cell)} {len(self.empty)}"
        found = hashlib.blake2b(text.encode(), digest_size=32)
        for array in (self.cell, self.lane, self.ids, self.empty):
            found.update(np.ascontiguousarray(array).data)
        return found.digest()

    @cached_property
    def inner(self) -> tuple[Index, Index, Index]:
        """cell, lane and ids without the border."""
        inside = self.ids >= 0
        if inside.all():
            return self.cell, self.lane, self.ids
        return self.cell[inside], self.lane[inside], self.ids[inside]

    @cached_property
    def border(self) -> Index:
        """Flat indices of what holds no element: the border that is read, and `empty`."""
        return np.unique(np.concatenate([self.cell[self.ids < 0], self.empty]))

    @cached_property
    def elements(self) -> int:
        """How many elements of the tensor it holds."""
        seen = np.zeros(int(self.ids.max(initial=-1)) + 1, bool)
        seen[self.inner[2]] = True
        return int(seen.sum())

    @cached_property
    def witnesses(self) -> tuple[tuple[int, int, int], ...] | None:
        """(dimension, number of an element that differs from the first one in this dimension alone,
        by how much) for each dimension in which elements differ; None where one has no such."""
        cell = self.inner[0]
        number = np.full(math.prod(self.shape), -1, np.int64)
        number[cell] = np.arange(len(cell))
        number = number.reshape(self.shape)
        start = np.unravel_index(int(cell[0]), self.shape) if self.shape else ()
        first = tuple(int(i) for i in start)
        out: list[tuple[int, int, int]] = []
        for d in range(len(self.shape)):
            others = tuple(a for a in range(len(self.shape)) if a != d)
            if np.count_nonzero((number >= 0).any(axis=others)) < 2:
                continue
            line = number[(*first[:d], slice(None), *first[d + 1 :])].copy()
            line[first[d]] = -1
            found = np.flatnonzero(line >= 0)
            if not found.size:
                return None
            out.append((d, int(line[found[0]]), int(found[0]) - first[d]))
        return tuple(out)

    def at(self, pitch: Sequence[int]) -> Index:
        """Bytes from grid index 0, of every flat index."""
        total = np.zeros((), np.int64)
        for n, p in zip(self.shape, pitch, strict=True):
            total = total[..., None] + np.arange(n, dtype=np.int64) * p
        return total.reshape(-1)


@dataclass(frozen=True)
class Fit:
    """base: byte of grid index 0 from the home's beginning, which may lie before it. pitch: bytes
    from one index to the next, by grid dimension; 0 where the tensor has one."""

    base: int
    pitch: tuple[int, ...]


def grid_of(embedding: Embedding, isa: Isa, role: str, ids: Ids) -> Grid | None:
    """ids: the tensor's element at each index of the operand's. None where an element stands in
    the grid twice, so that no single place is its home."""
    layout = embedding.layouts[role]
    # An element in two places would have to be stored twice.
    if layout.duplicates:
        return None
    lanes = isa.lane_shape(layout.memory)
    memory = isa.memory(layout.memory)
    # Stores read the shadow, whose elements may be narrower.
    stored = next(
        (m for m in isa.memories if m.shadow_of == layout.memory and m.store_queue), memory
    )
    width = math.prod(lanes)
    shape = (*layout.grid, *lanes)
    # From 1: 0 is what unpack gives for elements without a place.
    numbers = np.arange(1, math.prod(shape) + 1, dtype=np.int32).reshape(shape)
    place = unpack(layout, embedding, isa, numbers) - 1
    known = place >= 0  # what nobody reads has no place
    place, ids = place[known], ids[known]
    cell, grid = place // width, layout.grid
    empty = np.zeros(0, np.int64)
    # The result's region splits coordinates by tiles.
    if role == "dst":
        moved, grid = _split(embedding, isa, grid)
        cell = moved[cell]
        held = np.zeros(math.prod(grid), bool)
        held[cell] = True
        # Elements that are stored without being anything's: they overwrite their bytes.
        empty = np.flatnonzero(~held)
    elem = (stored if role == "dst" else memory).elem_bytes
    lane = (place % width * (elem // width)).astype(np.int16)
    return Grid(grid, elem, cell.astype(np.int32), lane, ids, empty)


def _split(embedding: Embedding, isa: Isa, grid: tuple[int, ...]) -> tuple[Ids, tuple[int, ...]]:
    """Flat index of each grid element of a result in the dimensions that its region has."""
    problem = build_problem(embedding, isa)
    at = np.indices(grid).reshape(len(grid), math.prod(grid))
    columns = [
        at[d] // unit % size for d, parts in enumerate(problem.splits) for unit, size in parts
    ]
    shape = problem.dst.grid
    if not columns:
        return np.arange(math.prod(grid)), shape
    return np.asarray(np.ravel_multi_index(columns, shape), np.int64), shape


def packed(grid: Grid, order: Sequence[int]) -> tuple[Fit, int]:
    """How a grid lies by itself, its dimensions in that order, outermost first; bytes of all."""
    pitch = [0] * len(grid.shape)
    # From the innermost dimension outwards.
    total = grid.elem
    for d in reversed(order):
        pitch[d], total = total, total * grid.shape[d]
    return Fit(0, tuple(pitch)), total


def home_of(grid: Grid, lies: Fit, elements: int, size: int) -> Home | None:
    """A tensor's home in which the grid lies so. None where it lacks elements, or one of them is
    outside of `size` bytes."""
    # Counted before anything is placed.
    if grid.elements < elements:
        return None
    cell, lane, ids = grid.inner
    at = _narrow(grid.at(lies.pitch) + lies.base)
    place = np.empty(elements, at.dtype)
    place[ids] = at[cell] + lane
    return Home.of(place, size) if place.min() >= 0 and place.max() < size else None


def _narrow(at: Index) -> Index:
    """Half as wide where that holds it: tables of a million elements are what takes time here."""
    if at.size and max(-int(at.min()), int(at.max())) >= NARROW:
        return at
    return at.astype(np.int32)


def fit(grid: Grid, home: Home) -> Fit | None:
    """How the grid lies in the home; None where it does not, or where its border would be read from
    bytes that hold something else."""
    cell, lane, ids = grid.inner
    if not len(cell) or grid.witnesses is None:
        return None

    def wanted(of: Any) -> Any:
        return home.place[ids[of]] - lane[of]

    # Pitches are solved from differences, not searched.
    pitch = [0] * len(grid.shape)
    first = int(wanted(0))
    for d, number, step in grid.witnesses:
        # A whole number of bytes from index to index, or the grid does not lie so.
        pitch[d], rest = divmod(int(wanted(number)) - first, step)
        if rest:
            return None
    at = grid.at(pitch)
    base = first - int(at[cell[0]])
    at = _narrow(at + base)
    # Addresses count whole elements.
    if base % grid.elem or any(p < 0 or p % grid.elem for p in pitch):
        return None
    # All elements must agree; most homes are no fit, and a few elements say so.
    for some in (slice(None, None, 1 + len(cell) // SOME), slice(None)):
        if not np.array_equal(at[cell[some]], wanted(some)):
            return None
    # A border is read where nobody writes, and what is stored beside the tensor hits nothing of it.
    border = at[grid.border]
    # By element of the memory: a border must not share one with the tensor.
    if border.size and (
        border.min() < 0 or border.max() >= home.size
        or home.taken(grid.elem)[border // grid.elem].any()
    ):  # fmt: skip
        return None
    return Fit(base, tuple(pitch))


def alone(grid: Grid, home: Home, found: Fit) -> bool:
    """Whether what a result stores, idle lanes and all, holds no element of another layer's."""
    if grid.elements == len(home.place):
        return True
    # Stores write whole elements, all lanes: whose are these?
    stored = np.unique((grid.at(found.pitch)[grid.cell] + found.base) // grid.elem)
    there = np.isin(home.place // grid.elem, stored)
    return int(there.sum()) == grid.elements


def by_pitch(pitch: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Grid dimensions, outermost first: those with the longest pitch; dimensions of one index
    stand first, where they cost nothing."""
    return tuple(sorted(range(len(shape)), key=lambda d: (shape[d] > 1, -pitch[d], d)))
