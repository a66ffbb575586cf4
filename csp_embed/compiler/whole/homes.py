"""Homes: where each element of a stored tensor lies, in bytes from the tensor's beginning.

Takes: embeddings of layers, and which element of which tensor each index of an operand is.  Leaves:
the homes that an operand's own grid makes, and how another operand's grid lies in a given home:
one pitch per grid dimension, or that it does not fit.

Nothing is derived from an embedding's algebra: the packing of a layer says where each element
stands in its grid, and a home is a table of those places. So two layouts are the same where their
tables are, however they came about.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.algebra.packing import unpack
from csp_embed.ir.embedding import Embedding
from csp_embed.machine.spec import Isa
from csp_embed.schedule.inputs import build as build_problem

Ids = NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Home:
    """place: byte of each element. size: bytes of the whole. key: equal for equal homes."""

    place: Ids
    size: int
    key: bytes

    @staticmethod
    def of(place: Ids, size: int) -> Home:
        # The size is part of the key: equal places in a larger home are another one.
        return Home(place, size, size.to_bytes(8, "little") + place.tobytes())


@dataclass(frozen=True, eq=False)
class Grid:
    """An operand's elements of one tensor.

    shape: of the region's grid. elem: bytes of a grid element. at: [n, dims] grid index, lane: byte
    within the element, ids: which element of the tensor; -1 stands for the border. empty: grid
    index of what a result stores beside its elements, where its tiles end beyond the tensor.
    """

    shape: tuple[int, ...]
    elem: int
    at: Ids
    lane: Ids
    ids: Ids
    empty: Ids

    @property
    def inside(self) -> NDArray[np.bool_]:
        return self.ids >= 0


@dataclass(frozen=True, eq=False)
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
    numbers = np.arange(1, math.prod(shape) + 1).reshape(shape)
    place = unpack(layout, embedding, isa, numbers) - 1
    known = place >= 0  # what nobody reads has no place
    place, ids = place[known], ids[known]
    index = np.unravel_index(place // width, layout.grid) if layout.grid else ()
    at = np.stack(index, axis=1) if index else np.zeros((len(place), 0), np.int64)
    grid = layout.grid
    empty = np.zeros((0, at.shape[1]), np.int64)
    # The result's region splits coordinates by tiles.
    if role == "dst":
        at, grid = _split(embedding, isa, at)
        held = np.zeros(grid, bool)
        held[tuple(at.T)] = True
        # Elements that are stored without being anything's: they overwrite their bytes.
        empty = np.argwhere(~held)
    source = stored if role == "dst" else memory
    return Grid(grid, source.elem_bytes, at, place % width * (source.elem_bytes // width), ids,
                empty)  # fmt: skip


def _split(embedding: Embedding, isa: Isa, at: Ids) -> tuple[Ids, tuple[int, ...]]:
    """Grid indices of a result in the dimensions that its region has."""
    problem = build_problem(embedding, isa)
    columns = [
        at[:, d] // unit % size for d, parts in enumerate(problem.splits) for unit, size in parts
    ]
    shape = np.stack(columns, axis=1) if columns else at
    return shape, problem.dst.grid


def own_home(grid: Grid, order: Sequence[int], elements: int) -> Home | None:
    """The home that the grid itself is, its dimensions in that order, outermost first. None where
    it lacks elements of the tensor."""
    pitch = [0] * len(grid.shape)
    # From the innermost dimension outwards.
    total = grid.elem
    for d in reversed(order):
        pitch[d], total = total, total * grid.shape[d]
    inside = grid.inside
    place = np.full(elements, -1, np.int64)
    place[grid.ids[inside]] = (grid.at @ np.array(pitch, np.int64) + grid.lane)[inside]
    # -1: an element that the grid does not hold.
    return None if (place < 0).any() else Home.of(place, total)


def fit(grid: Grid, home: Home) -> Fit | None:
    """How the grid lies in the home; None where it does not, or where its border would be read from
    bytes that hold something else."""
    inside = grid.inside
    at, wanted = grid.at[inside], home.place[grid.ids[inside]] - grid.lane[inside]
    if not len(at):
        return None
    # Pitches are solved from differences, not searched.
    pitch = np.zeros(at.shape[1], np.int64)
    apart = at != at[0]
    for d in np.flatnonzero(apart.any(axis=0)):
        # An element that differs from the first one in this dimension alone tells its pitch.
        alone = np.flatnonzero(apart[:, d] & ~np.delete(apart, d, axis=1).any(axis=1))
        if not alone.size:
            return None
        step = int(at[alone[0], d] - at[0, d])
        # A whole number of bytes from index to index, or the grid does not lie so.
        pitch[d], rest = divmod(int(wanted[alone[0]] - wanted[0]), step)
        if rest:
            return None
    base = int(wanted[0] - at[0] @ pitch)
    # All elements must agree, and addresses count whole elements.
    if not np.array_equal(at @ pitch + base, wanted) or (pitch % grid.elem).any():
        return None
    if base % grid.elem or (pitch < 0).any():
        return None
    # A border is read where nobody writes, and what is stored beside the tensor hits nothing of it.
    for others in (grid.at[~inside], grid.empty):
        # By element of the memory: a border must not share one with the tensor.
        border = others @ pitch + base
        if border.size:
            taken = np.unique(home.place // grid.elem)
            outside = (border < 0) | (border >= home.size)
            if outside.any() or np.isin(border // grid.elem, taken).any():
                return None
    return Fit(base, tuple(int(p) for p in pitch))


def alone(grid: Grid, home: Home, found: Fit) -> bool:
    """Whether what a result stores, idle lanes and all, holds no element of another layer's."""
    if len(np.unique(grid.ids)) == len(home.place):
        return True
    pitch = np.array(found.pitch, np.int64)
    # Stores write whole elements, all lanes: whose are these?
    stored = np.unique((grid.at @ pitch + found.base) // grid.elem)
    there = np.isin(home.place // grid.elem, stored)
    return bool(there.sum() == len(np.unique(grid.ids[grid.inside])))


def by_pitch(pitch: Sequence[int], shape: Sequence[int]) -> tuple[int, ...]:
    """Grid dimensions, outermost first: those with the longest pitch; dimensions of one index
    stand first, where they cost nothing."""
    return tuple(sorted(range(len(shape)), key=lambda d: (shape[d] > 1, -pitch[d], d)))
