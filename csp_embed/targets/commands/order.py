"""In which order steps are done, and which tiles stay on the chip meanwhile.

Takes: steps as (sum, first factor, second factor), groups in which factors are moved, capacities.
Leaves: an `Order`. A block of sums stays in the accumulator while everything that they add up is
walked. All commands are written out, so the whole future is known: the group whose next use is
furthest leaves the scratchpad (Belady's rule), whatever the loops look like.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.embedding import Counter, Embedding

Ints = NDArray[np.int64]
FAR = 1 << 60


@dataclass(frozen=True)
class Walk:
    """counters: loops from the outermost on, with the part of each: "batch", "rows" (moves the
    first factor alone), "columns" (the second alone) or "reduced". rows, columns: how many of their
    joint values a block of sums has. rows_inside: blocks of rows follow each other first."""

    batch: tuple[Counter, ...]
    rows: tuple[Counter, ...]
    columns: tuple[Counter, ...]
    reduced: tuple[Counter, ...]
    row_block: int
    column_block: int
    rows_inside: bool

    def show(self) -> str:
        """The block of sums, then which blocks follow each other."""
        inside, outside = ("rows", "columns") if self.rows_inside else ("columns", "rows")
        return (f"blocks of {self.row_block} x {self.column_block} tiles of sums, {inside} inside"
                f" {outside}")  # fmt: skip


def walks(embedding: Embedding, sums: int) -> Iterator[Walk]:
    """Blocks of at most `sums` sums, in both orders."""

    def moves(role: str, c: Counter) -> bool:
        return any(embedding.layouts[role].step.get(c.name, ()))

    free = [c for c in embedding.counters if not c.reduced]
    rows = tuple(c for c in free if moves("lhs", c) and not moves("rhs", c))
    columns = tuple(c for c in free if moves("rhs", c) and not moves("lhs", c))
    batch = tuple(c for c in free if c not in rows and c not in columns)
    reduced = tuple(c for c in embedding.counters if c.reduced)
    count = math.prod(c.extent for c in rows), math.prod(c.extent for c in columns)
    seen: set[tuple[int, int, bool]] = set()
    size = 1
    shapes: list[tuple[int, int]] = []
    while size <= sums:
        # Whole blocks where the extents divide nearly: a ragged end costs what a block costs.
        r = _even(count[0], min(size, count[0]))
        c = _even(count[1], min(sums // r, count[1]))
        shapes += [(r, c), (_even(count[0], min(sums // c, count[0])), c)]
        size *= 2
    for r, c in shapes:
        for inside in (True, False):
            if (r, c, inside) not in seen and r * c <= sums:
                seen.add((r, c, inside))
                yield Walk(batch, rows, columns, reduced, r, c, inside)


def _even(count: int, most: int) -> int:
    """The block of at most `most` that cuts `count` into as few blocks, as evenly as can be."""
    return math.ceil(count / math.ceil(count / most))


def values(walk: Walk) -> Iterator[dict[str, Ints]]:
    """Counter -> values of the steps, one block of sums after the other."""
    batch = math.prod(c.extent for c in walk.batch)
    rows = _ranges(math.prod(c.extent for c in walk.rows), walk.row_block)
    columns = _ranges(math.prod(c.extent for c in walk.columns), walk.column_block)
    reduced = np.arange(math.prod(c.extent for c in walk.reduced), dtype=np.int64)
    back = False
    turn = False
    outer, inner = (columns, rows) if walk.rows_inside else (rows, columns)
    for b in range(batch):
        for first in outer:
            # To and fro: what the last block used is used again first.
            for second in inner[::-1] if turn else inner:
                row, column = (second, first) if walk.rows_inside else (first, second)
                k = reduced[::-1] if back else reduced
                grid = np.meshgrid(k, np.arange(*column), np.arange(*row), indexing="ij")
                flat_k, flat_c, flat_r = (g.reshape(-1) for g in grid)
                found = _split(walk.batch, np.full_like(flat_k, b))
                found |= _split(walk.reduced, flat_k) | _split(walk.columns, flat_c)
                yield found | _split(walk.rows, flat_r)
                back = not back
            turn = not turn


def _ranges(count: int, size: int) -> list[tuple[int, int]]:
    return [(n, min(n + size, count)) for n in range(0, count, size)]


def _split(counters: Sequence[Counter], flat: Ints) -> dict[str, Ints]:
    out: dict[str, Ints] = {}
    for c in reversed(counters):
        flat, out[c.name] = np.divmod(flat, c.extent)
    return out


@dataclass(frozen=True)
class Steps:
    """One entry a step: its tile of sums, its factors' elements, and their groups. first: the first
    step of its sum; ends: number of each block's first step, and of the end."""

    dst: Ints
    lhs: Ints
    rhs: Ints
    groups: Mapping[str, Ints]
    ends: tuple[int, ...]


@dataclass(frozen=True)
class Residence:
    """loads: step -> groups (role, number, slot) loaded in front of it. slots: role -> slot of the
    group of every step."""

    loads: Mapping[int, tuple[tuple[str, int, int], ...]]
    slots: Mapping[str, Ints]
    count: int


def reside(
    steps: Steps, pools: Mapping[str, str], slots: Mapping[str, int], limit: int | None = None
) -> Residence | None:
    """pools: role -> the pool of slots that its groups lie in; slots: pool -> how many it has.
    None: more than `limit` loads are needed."""
    n = len(steps.dst)
    loads: dict[int, list[tuple[str, int, int]]] = {}
    slot_of: dict[str, Ints] = {r: np.zeros(n, np.int64) for r in steps.groups}
    total = 0
    for pool in dict.fromkeys(pools.values()):
        roles = [r for r in steps.groups if pools[r] == pool]
        # One sequence of uses: step by step, role by role.
        offset = 0
        keys = np.zeros((n, len(roles)), np.int64)
        for k, r in enumerate(roles):
            keys[:, k] = steps.groups[r] + offset
            offset += int(steps.groups[r].max(initial=0)) + 1
        sequence = keys.reshape(-1)
        following = _next_uses(sequence)
        where: dict[int, int] = {}
        due: dict[int, int] = {}
        queue: list[tuple[int, int]] = []
        free = list(range(slots[pool]))[::-1]
        first = [0]
        for r in roles[:-1]:
            first.append(first[-1] + int(steps.groups[r].max(initial=0)) + 1)
        chosen = np.zeros(len(sequence), np.int64)
        width = len(roles)
        for at, (key, later) in enumerate(zip(sequence.tolist(), following.tolist(), strict=True)):
            if key not in where:
                if not free:
                    # A group of this very step stays: its next use is not behind the step.
                    step = at - at % width
                    held = set(sequence[step : step + width].tolist())
                    kept: list[tuple[int, int]] = []
                    while True:
                        when, old = heapq.heappop(queue)
                        if old not in where or due[old] != -when:
                            continue
                        if old in held:
                            kept.append((when, old))
                            continue
                        break
                    for entry in kept:
                        heapq.heappush(queue, entry)
                    free.append(where.pop(old))
                where[key] = free.pop()
                total += 1
                if limit is not None and total > limit:
                    return None
                k = at % width
                loads.setdefault(at // width, []).append((roles[k], key - first[k], where[key]))
            due[key] = later
            heapq.heappush(queue, (-later, key))
            chosen[at] = where[key]
        for k, r in enumerate(roles):
            slot_of[r] = chosen[k::width]
    return Residence({k: tuple(v) for k, v in loads.items()}, slot_of, total)


def _next_uses(sequence: Ints) -> Ints:
    """For every use, the position of the next one of the same key; FAR + position where none."""
    n = len(sequence)
    order = np.lexsort((np.arange(n), sequence))
    following = np.full(n, FAR, np.int64)
    same = sequence[order][:-1] == sequence[order][1:]
    following[order[:-1][same]] = order[1:][same]
    return following


def block_starts(parts: Sequence[int]) -> tuple[int, ...]:
    return (0, *itertools.accumulate(parts))
