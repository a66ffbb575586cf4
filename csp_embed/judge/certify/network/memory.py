"""DRAM while a network runs: which byte holds which element, and what layers load of it.

Takes: the file's bytes and where the host writes elements.  Leaves, layer by layer: images for
`walk`, in which a byte is the random value of its element, a constant, or a random number where a
store left what nobody claims.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.ir.stream import Program
from csp_embed.jit import njit
from csp_embed.judge.certify.dram import lane_bytes
from csp_embed.judge.certify.field import Ints
from csp_embed.judge.certify.images import CONSTANT, UNKNOWN
from csp_embed.judge.certify.lanes import Machine
from csp_embed.judge.certify.network.elements import Elements
from csp_embed.judge.certify.network.statement import BASE, Statement
from csp_embed.judge.stream.table import LOAD, STORE, Row, Table
from csp_embed.machine.spec import Isa, Memory


class Owners:
    """held: int64 per byte of every range of `before`: the number of the element that lies there,
    CONSTANT or UNKNOWN."""

    def __init__(self, isa: Isa, program: Program, s: Statement, e: Elements) -> None:
        self.isa = isa
        self.before = program.before
        self.held = [np.full(len(data), CONSTANT, np.int64) for _, data in program.before]
        # All else that the file holds stays what it is: weights, biases, micro-ops.
        for name in sorted(e.written & s.places.keys()):
            self.write(s.places[name].reshape(-1), e.ids[name].reshape(-1), name)
        for p in s.packed:
            owner, number = np.divmod(p.table, 1 << BASE)
            first = np.array([e.first[n] for n in p.tensors])
            at = np.flatnonzero(p.table >= 0)
            self.write(p.addr + at, first[owner[at]] + number[at], " and ".join(p.tensors))

    def write(self, place: Ints, numbers: Ints, name: str) -> None:
        """Elements where the host writes them.

        Raises: InputError where that is nowhere, or taken.
        """
        left = len(place)
        for (address, data), held in zip(self.before, self.held, strict=True):
            inside = (place >= address) & (place < address + len(data))
            at = place[inside] - address
            left -= len(at)
            # Two owners of a byte: whichever is meant, one of the layers reads a wrong value.
            if len(np.unique(at)) < len(at) or (held[at] != CONSTANT).any():
                raise InputError(
                    f"the statement places {name} where another element lies",
                    where="meta.network.statement", hint="docs/program-file.md has the form",
                )  # fmt: skip
            held[at] = numbers[inside]
        if left:
            raise InputError(
                f"the statement places {name} where the file has no bytes",
                where="meta.network.statement", hint="docs/program-file.md has the form",
            )  # fmt: skip

    def at(self, place: Ints) -> Ints:
        """Who owns these bytes; UNKNOWN where the file says nothing."""
        out = np.full(place.shape, UNKNOWN, np.int64)
        for (address, data), held in zip(self.before, self.held, strict=True):
            inside = (place >= address) & (place < address + len(data))
            out[inside] = held[place[inside] - address]
        return out

    def set(self, place: Ints, numbers: Ints | int) -> bool:
        """After stores. False: a byte that the file does not have."""
        left = len(place)
        for (address, data), held in zip(self.before, self.held, strict=True):
            inside = (place >= address) & (place < address + len(data))
            left -= int(inside.sum())
            held[place[inside] - address] = numbers if isinstance(numbers, int) else numbers[inside]
        return not left

    def lanes(self, memory: Memory, n: int, elements: tuple[int, int]) -> tuple[Ints, Ints]:
        """Who lies in a range's lanes, as `images` wants it; each element that is no constant is
        marked."""
        begin, end = (e * memory.elem_bytes - self.before[n][0] for e in elements)
        count = (elements[1] - elements[0]) * (memory.elem_bytes // lane_bytes(self.isa, memory))
        owner = self.held[n][begin:end].reshape(count, -1)
        # A wider lane of which a byte is no constant is nothing that could be told.
        moving = (owner != CONSTANT).any(axis=1)
        who = owner[:, 0] if owner.shape[1] == 1 else np.where(moving, UNKNOWN, CONSTANT)
        marks = moving.reshape(elements[1] - elements[0], -1).any(axis=1)
        return who, marks.astype(np.int64)


def both_ways(machine: Machine, table: Table, sequence: Ints) -> int:
    """A byte that these instructions store and load, or -1: then their order would matter."""
    sizes = np.array([m.elem_bytes for m in machine.isa.memories], np.int64)
    rows, kind = table.rows[sequence], table.c.kind[sequence]
    rows = rows[((kind == LOAD) | (kind == STORE)) & (rows["x_size"] > 0) & (rows["named"] >= 0)]
    if not len(rows):
        return -1
    low = rows["dram"] * sizes[rows["named"]]
    high = low + ((rows["y_size"] - 1) * rows["x_stride"] + rows["x_size"]) * sizes[rows["named"]]
    stores = rows["kind"] == STORE
    if not stores.any():
        return -1
    first, last = int(low[stores].min()), int(high[stores].max())
    marks = np.zeros(last - first, np.uint8)
    found = int(_mark(rows[stores], sizes, first, marks, True))
    assert found < 0
    found = int(_mark(rows[~stores], sizes, first, marks, False))
    return found + first if found >= 0 else -1


@njit(cache=True, nogil=True)
def _mark(rows: Any, sizes: Ints, first: int, marks: NDArray[np.uint8], write: bool) -> int:
    """Marks what rows touch, or returns the first marked byte that they touch, or -1."""
    for n in range(len(rows)):
        r: Row = rows[n]
        for y in range(r.y_size):
            low = (r.dram + y * r.x_stride) * sizes[r.named] - first
            high = low + r.x_size * sizes[r.named]
            for b in range(max(low, 0), min(high, len(marks))):
                if write:
                    marks[b] = 1
                elif marks[b]:
                    return b
    return -1


def stored_bytes(machine: Machine, table: Table, sequence: Ints) -> Ints:
    """Every byte that these instructions store, each once."""
    sizes = np.array([m.elem_bytes for m in machine.isa.memories], np.int64)
    rows, kind = table.rows[sequence], table.c.kind[sequence]
    rows = rows[(kind == STORE) & (rows["x_size"] > 0) & (rows["named"] >= 0)]
    parts = [np.zeros(0, np.int64)]
    for line in rows.tolist():
        r: dict[str, int] = dict(zip(rows.dtype.names or (), line, strict=True))
        size = int(sizes[r["named"]])
        first: Ints = (r["dram"] + np.arange(r["y_size"]) * r["x_stride"]) * size
        parts.append((first[:, None] + np.arange(r["x_size"] * size)).reshape(-1))
    return np.unique(np.concatenate(parts))
