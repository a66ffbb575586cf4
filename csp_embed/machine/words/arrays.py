"""A machine and a program's DRAM as plain arrays, for the loops of judges and simulators.

Facts only: nothing here executes or judges an instruction.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.stream import Program
from csp_embed.machine.spec import Isa, Operand

WORDS, PAIRS, UOPS = range(3)
# A cache line, and more than any lane needs.
_ALIGN = 64

# One memory: arena, first item in it, items per element, lanes, depth, bytes of an element and of a
# lane in DRAM, first flag in `written`, bits of a lane on chip, first entry in `perm` (lane -> item
# in the element; -1: the same), memory that it shadows (or -1).
_MEMORY_PARTS = (
    "storage", "base", "stride", "lanes", "depth", "elem_bytes", "lane_bytes", "flags", "bits",
    "perm_at", "shadow",
)  # fmt: skip
# Plain int64 throughout: compiled loops take one array, and padding of structs is no question.
MEMORY = np.dtype([(part, np.int64) for part in _MEMORY_PARTS])
# Addresses start .. end-1 lie at dram[offset:]. Bits of a micro-op's field.
RANGE = np.dtype([("start", np.int64), ("end", np.int64), ("offset", np.int64)])
FIELD = np.dtype([("lo", np.int64), ("width", np.int64), ("signed", np.int64)])


def compute_operands(isa: Isa, kind: str) -> tuple[Operand, ...]:
    """Operands of the instruction of that kind; () where the machine has none."""
    return next((i.operands for i in isa.instructions if i.kind == kind), ())


def operand_table(isa: Isa, kind: str, count: int) -> NDArray[np.int64]:
    """int64[count, 2]: memory and micro-op field of each operand, for kernels."""
    table = np.zeros((count, 2), dtype=np.int64)
    names = [f.name for f in isa.uop_fields]
    memories = [m.name for m in isa.memories]
    for k, operand in enumerate(compute_operands(isa, kind)):
        # By number: kernels know no names.
        table[k] = memories.index(operand.memory), names.index(operand.uop_field)
    return table


def image(
    program: Program, wanted: Sequence[tuple[int, int]] | None = None
) -> tuple[NDArray[np.uint8], NDArray[Any]]:
    """DRAM bytes and the merged ranges (RANGE), sorted by address.

    wanted: keep only what meets one of these intervals (start, end), which are sorted and disjoint.
    """
    # Neighbours are joined, so that a read across two ranges is one slice.
    merged = _merged(program)
    if wanted is not None:
        merged = _meet(merged, wanted)
    ranges = np.zeros(len(merged), dtype=RANGE)
    total = 0
    for r, (low, high) in enumerate(merged):
        # As aligned in the buffer as in DRAM, so that wider lanes can be read at once.
        # What lies before the first byte of a range is padding; nothing points there.
        total = -(-total // _ALIGN) * _ALIGN + low % _ALIGN
        ranges[r] = (low, high, total)
        total += high - low
    total = -(-total // _ALIGN) * _ALIGN
    buffer = np.zeros(total, dtype=np.uint8)
    # Only `before` has bytes; `after` says where results will be.
    for address, data in program.before:
        # Both ends are sorted: the ranges that a piece meets are neighbours.
        first = int(np.searchsorted(ranges["end"], address, side="right"))
        last = int(np.searchsorted(ranges["start"], address + len(data), side="left"))
        for r in range(first, last):
            low = max(address, int(ranges["start"][r]))
            high = min(address + len(data), int(ranges["end"][r]))
            at = int(ranges["offset"][r]) + low - int(ranges["start"][r])
            buffer[at : at + high - low] = data[low - address : high - address]
    return buffer, ranges


def _merged(program: Program) -> list[list[int]]:
    """The image's intervals, sorted, neighbours joined."""
    spans = sorted((a, a + len(d)) for a, d in (*program.before, *program.after) if len(d))
    merged: list[list[int]] = []
    for low, high in spans:
        if merged and low <= merged[-1][1]:
            # A short range may lie inside a longer one before it.
            merged[-1][1] = max(merged[-1][1], high)
        else:
            merged.append([low, high])
    return merged


def extent(program: Program) -> NDArray[Any]:
    """The image's ranges without its bytes."""
    return np.array([(low, high, 0) for low, high in _merged(program)], dtype=RANGE)


def _meet(a: Sequence[Sequence[int]], b: Sequence[Sequence[int]]) -> list[list[int]]:
    """The intersection of two sorted lists of disjoint intervals."""
    found: list[list[int]] = []
    i = j = 0
    while i < len(a) and j < len(b):
        low, high = max(a[i][0], b[j][0]), min(a[i][1], b[j][1])
        if low < high:
            found.append([low, high])
        # Whichever ends first can meet nothing more.
        if a[i][1] < b[j][1]:
            i += 1
        else:
            j += 1
    return found
