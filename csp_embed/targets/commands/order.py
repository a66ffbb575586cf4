"""In which order steps are done: blocks of sums, one after the other.

Takes: an embedding's loops, how many sums the accumulator holds.  Leaves: `Walk`s and, for each,
an `Order` of all steps. A block of sums stays in the accumulator while everything that they add up
is walked.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.embedding import Counter, Embedding

Ints = NDArray[np.int64]
PARTS = ("batch", "rows", "columns", "reduced")


@dataclass(frozen=True)
class Walk:
    """counters: loops from the outermost on, with the part of each: "batch", "rows" (moves the
    first factor alone), "columns" (the second alone) or "reduced". rows, columns: how many of their
    joint values a block of sums has. rows_inside: blocks of rows follow each other first.
    rows_fastest: so do the rows of a block, else its columns."""

    batch: tuple[Counter, ...]
    rows: tuple[Counter, ...]
    columns: tuple[Counter, ...]
    reduced: tuple[Counter, ...]
    row_block: int
    column_block: int
    rows_inside: bool
    rows_fastest: bool = True

    def counters(self, part: str) -> tuple[Counter, ...]:
        """The loops of a part."""
        found: tuple[Counter, ...] = getattr(self, part)
        return found

    def count(self, part: str) -> int:
        """Joint values of the loops of a part."""
        return math.prod(c.extent for c in self.counters(part))

    def show(self) -> str:
        """The block of sums, then which blocks follow each other."""
        inside, outside = ("rows", "columns") if self.rows_inside else ("columns", "rows")
        return (f"blocks of {self.row_block} x {self.column_block} tiles of sums, {inside} inside"
                f" {outside}")  # fmt: skip


def walks(embedding: Embedding, sums: int, rows_fastest: bool = True) -> Iterator[Walk]:
    """Blocks of at most `sums` sums, in both orders."""

    def moves(role: str, c: Counter) -> bool:
        return any(embedding.layouts[role].step.get(c.name, ()))

    free = [c for c in embedding.counters if not c.reduced]
    # rows move the first factor alone, columns the second; together they fill a block.
    rows = tuple(c for c in free if moves("lhs", c) and not moves("rhs", c))
    columns = tuple(c for c in free if moves("rhs", c) and not moves("lhs", c))
    batch = tuple(c for c in free if c not in rows and c not in columns)
    reduced = tuple(c for c in embedding.counters if c.reduced)
    count = math.prod(c.extent for c in rows), math.prod(c.extent for c in columns)
    seen: set[tuple[int, int, bool]] = set()
    size = 1
    shapes: list[tuple[int, int]] = []
    # Shapes by doubling: both factors' traffic depends on the block's sides.
    while size <= sums:
        # Whole blocks where the extents divide nearly: a ragged end costs what a block costs.
        r = _even(count[0], min(size, count[0]))
        c = _even(count[1], min(sums // r, count[1]))
        # Either side is fixed first, so that thin blocks are tried in both directions.
        shapes += [(r, c), (_even(count[0], min(sums // c, count[0])), c)]
        size *= 2
    for r, c in shapes:
        for inside in (True, False):
            if (r, c, inside) not in seen and r * c <= sums:
                seen.add((r, c, inside))
                yield Walk(batch, rows, columns, reduced, r, c, inside, rows_fastest)


def _even(count: int, most: int) -> int:
    """The block of at most `most` that cuts `count` into as few blocks, as evenly as can be."""
    # As few blocks as `most` allows, then as even as can be.
    return math.ceil(count / math.ceil(count / most))


@dataclass(frozen=True)
class Order:
    """at: part -> its joint value in every step. ends: each block's first step, and the end."""

    at: Mapping[str, Ints]
    ends: Ints


def order_of(walk: Walk) -> Order:
    """All steps, one block of sums after the other."""
    rows, columns, depth = (walk.count(p) for p in ("rows", "columns", "reduced"))
    row_blocks, column_blocks = -(-rows // walk.row_block), -(-columns // walk.column_block)
    many, few = (row_blocks, column_blocks) if walk.rows_inside else (column_blocks, row_blocks)
    # Batch outermost: nothing is shared across it.
    turns, inner = np.divmod(np.arange(walk.count("batch") * few * many), many)
    batch, outer = np.divmod(turns, few)
    # To and fro: what the last block used is used again first.
    inner = np.where(turns % 2 == 1, many - 1 - inner, inner)
    row, column = (inner, outer) if walk.rows_inside else (outer, inner)
    row, column = row * walk.row_block, column * walk.column_block
    # Blocks at the end are smaller.
    high = np.minimum(walk.row_block, rows - row)
    wide = np.minimum(walk.column_block, columns - column)
    ends = np.concatenate([[0], np.cumsum(depth * high * wide)])
    size = np.diff(ends)
    within = np.arange(ends[-1]) - np.repeat(ends[:-1], size)
    k, sums = np.divmod(within, np.repeat(high * wide, size))
    # Downwards: a ragged end is the last by number, and a short step costs least where the factor
    # that stays is not changed behind it.
    if walk.rows_fastest:
        c, r = np.divmod(sums, np.repeat(high, size))
        r = np.repeat(high, size) - 1 - r
    else:
        r, c = np.divmod(sums, np.repeat(wide, size))
        c = np.repeat(wide, size) - 1 - c
    # Every other block is walked backwards, so that factors at the turn are still there.
    back = np.repeat(np.arange(len(size)) % 2 == 1, size)
    at = {
        "batch": np.repeat(batch, size), "rows": r + np.repeat(row, size),
        "columns": c + np.repeat(column, size), "reduced": np.where(back, depth - 1 - k, k),
    }  # fmt: skip
    return Order(at, ends)


@dataclass(frozen=True)
class Table:
    """What depends on the loops of some parts alone: one entry for each of their joint values."""

    parts: tuple[str, ...]
    extents: tuple[int, ...]
    entries: NDArray[np.int64]

    def of(self, at: Mapping[str, Ints]) -> Ints:
        """The entries of these steps."""
        flat = np.zeros_like(at["batch"])
        for part, extent in zip(self.parts, self.extents, strict=True):
            # Mixed radix over the parts that matter.
            flat = flat * extent + at[part]
        return self.entries[flat]


def joint_values(walk: Walk, parts: Sequence[str]) -> dict[str, Ints]:
    """Counter -> its value, for every joint value of the parts, the last part fastest."""
    flat = np.arange(math.prod(walk.count(p) for p in parts), dtype=np.int64)
    found: dict[str, Ints] = {}
    # The last counter is the fastest.
    for c in reversed([c for p in parts for c in walk.counters(p)]):
        flat, found[c.name] = np.divmod(flat, c.extent)
    return found


@dataclass(frozen=True)
class Steps:
    """One entry a step: its tile of sums, its factors' elements, and their groups. ends: number of
    each block's first step, and of the end."""

    dst: Ints
    lhs: Ints
    rhs: Ints
    groups: Mapping[str, Ints]
    ends: tuple[int, ...]
