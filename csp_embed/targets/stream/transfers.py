"""What the loads and stores of a schedule come to: rectangles, as columns of instructions."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csp_embed.ir.schedule import (
    LOAD,
    POP_NEXT,
    POP_PREV,
    PUSH_NEXT,
    PUSH_PREV,
    STORE,
    Box,
    Region,
    Schedule,
)
from csp_embed.machine.spec import Instruction, Isa
from csp_embed.targets.stream.columns import Columns, Ints
from csp_embed.targets.stream.rectangles import DmaLimits, Rectangle, rectangles

Rects = dict[tuple[Box, tuple[int, ...], DmaLimits], list[Rectangle]]
"""Rectangles by box, pitches and limits: the schedules of an operator load many boxes alike."""


def limits_of(instruction: Instruction) -> DmaLimits:
    roles = ("y_size", "x_size", "x_stride")
    return DmaLimits(*(instruction.field(instruction.roles[r]).max for r in roles))


def rectangle_fields(
    instruction: Instruction, memory: Ints | int, sram: Ints, dram: Ints, shape: Ints
) -> dict[str, Ints | int]:
    """shape: int64[n, 3], rows, their length and their distance."""
    r = instruction.roles
    y, x, stride = shape.T
    return {
        r["memory"]: memory, r["sram"]: sram, r["dram"]: dram, r["y_size"]: y, r["x_size"]: x,
        r["x_stride"]: stride,
    }  # fmt: skip


class Transfers:
    """What the LOAD and STORE rows of a schedule come to. rows: those; count: instructions of
    each."""

    def __init__(
        self,
        schedule: Schedule,
        isa: Isa,
        address: Sequence[int],
        starts: Sequence[tuple[int, ...]],
        known: Rects,
    ) -> None:
        self._schedule, self._isa = schedule, isa
        ops = schedule.ops
        self.rows = np.flatnonzero((ops[:, 0] == LOAD) | (ops[:, 0] == STORE))
        kind, region, box, _ = ops[self.rows].T
        many = max((len(r.boxes) for r in schedule.regions), default=0) + 1
        # Many rows move the same box: its rectangles are found once.
        pairs, first, self._pair = np.unique(
            (kind * len(schedule.regions) + region) * many + box,
            return_index=True,
            return_inverse=True,
        )
        limits = {LOAD: limits_of(isa.of_kind("load")), STORE: limits_of(isa.of_kind("store"))}
        found = [
            _of_box(schedule.regions[r], b, starts[r], limits[k], known)
            for k, r, b in zip(*(v[first].tolist() for v in (kind, region, box)), strict=True)
        ]
        counts = np.array([len(several) for several in found], dtype=np.int64)
        self._first = np.cumsum(counts) - counts
        # dram, sram, y, x, stride of all, those of a pair together.
        self._table = np.array(
            [(e.dram, e.sram, e.y, e.x, e.stride) for several in found for e in several],
            dtype=np.int64,
        ).reshape(-1, 5)
        self.count = counts[self._pair] if len(pairs) else counts
        # Addresses count elements of the region's memory.
        self._base = np.array(
            [a // isa.memory(r.memory).elem_bytes
             for a, r in zip(address, schedule.regions, strict=True)], dtype=np.int64,
        )  # fmt: skip
        self._memory = np.array([isa.memory(r.memory).id for r in schedule.regions], dtype=np.int64)

    def write(self, writer: Columns, at: Ints) -> None:
        """at: position of each row's first instruction."""
        # Row by row, each as often as it has rectangles.
        each = np.repeat(np.arange(len(self.rows)), self.count)
        within = np.arange(len(each)) - np.repeat(np.cumsum(self.count) - self.count, self.count)
        rows = self.rows[each]
        table = self._table[self._first[self._pair[each]] + within]
        _, region, _, sram = self._schedule.ops[rows].T
        bits = self._schedule.tokens[rows]
        # The pops go to a row's first instruction, the pushes to its last.
        bits = np.where(within == 0, bits, bits & ~(POP_PREV | POP_NEXT))
        bits = np.where(within == self.count[each] - 1, bits, bits & ~(PUSH_PREV | PUSH_NEXT))
        for kind, name in ((LOAD, "load"), (STORE, "store")):
            here = np.flatnonzero(self._schedule.ops[rows, 0] == kind)
            instruction = self._isa.of_kind(name)
            fields = rectangle_fields(
                instruction,
                self._memory[region[here]],
                sram[here] + table[here, 1],
                self._base[region[here]] + table[here, 0],
                table[here, 2:],
            )
            writer.put(at[rows[here]] + within[here], instruction, fields, bits[here])


def _of_box(
    region: Region, number: int, starts: Sequence[int], limits: DmaLimits, known: Rects
) -> list[Rectangle]:
    if region.by_box:  # Where it starts depends on all boxes before it.
        return rectangles(region, number, starts[number], limits)
    key = (region.boxes[number], region.pitches, limits)
    found = known.get(key)
    if found is None:
        found = known[key] = rectangles(region, number, 0, limits)
    return found
