"""Neighbouring schedules in different parts of the on-chip memories.

Takes: schedules in program order.  Leaves: the same, each where the one before touches nothing, if
its elements fit there. What one loads overwrites then nothing that the one before still reads, so
that its constants arrive early, and its sums begin while those before are stored.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.schedule import COMPUTE, LOAD, STORE, Schedule, Template
from csp_embed.machine.spec import Isa

Used = NDArray[np.bool_]  # by element of a memory


@dataclass(frozen=True)
class Shift:
    """Elements of a memory from `gap` on move by `above`, the others by `below`: what stands at
    both ends of a memory is one block, as if the ends met."""

    gap: int
    below: int
    above: int

    def of(self, first: int) -> int:
        return self.above if first >= self.gap else self.below


def apart(schedules: Sequence[Schedule], isa: Isa) -> list[Schedule]:
    """The first one stays where it is, and others that are in nobody's way: layers that are alike
    then share their micro-ops."""
    compute = isa.of_kind("finish").queue
    # Those that a queue of loads fills ahead of computation. Sums stay: that their first step waits
    # for the stores before it is what lets all loads of those go on behind it.
    ahead = {m.name for m in isa.memories if m.load_queue and m.load_queue != compute}
    before: dict[str, Used] = {}
    out: list[Schedule] = []
    for schedule in schedules:
        pieces = list(_pieces(schedule, isa))
        shifts: dict[str, Shift] = {}
        now: dict[str, Used] = {}
        for name in dict.fromkeys(name for name, _ in pieces if name in ahead):
            mine = [at for n, at in pieces if n == name]
            now[name] = _used(mine, isa.memory(name).depth)
            if name in before and (now[name] & before[name]).any():
                shift = _beside(mine, now[name], before[name])
                if shift is not None:
                    shifts[name] = shift
                    now[name] = _moved(now[name], shift)
        out.append(moved(schedule, isa, shifts) if shifts else schedule)
        before |= now
    return out


def _pieces(schedule: Schedule, isa: Isa) -> Iterator[tuple[str, slice | NDArray[np.int64]]]:
    """What rows and templates touch, each piece of which moves as a whole."""
    homes = [isa.memory(r.memory).home for r in schedule.regions]
    for kind, region, box, sram in schedule.ops.tolist():
        if kind in (LOAD, STORE):
            yield homes[region], slice(sram, sram + schedule.regions[region].size(box))
    for n in _templates(schedule):
        t = schedule.templates[n]
        operands = isa.instruction(t.instruction).operands
        for operand, at in zip(operands, t.touched, strict=False):
            yield isa.memory(operand.memory).home, at


def _templates(schedule: Schedule) -> list[int]:
    """Those that some row runs."""
    return np.unique(schedule.ops[schedule.ops[:, 0] == COMPUTE, 1]).tolist()


def _used(pieces: Sequence[slice | NDArray[np.int64]], depth: int) -> Used:
    out = np.zeros(depth, bool)
    for at in pieces:
        out[at] = True
    return out


def _beside(
    pieces: Sequence[slice | NDArray[np.int64]], used: Used, before: Used
) -> Shift | None:  # fmt: skip
    """A shift to where `before` is nothing; None where there is no room, or a piece would be torn
    apart."""
    first, last = _gap(used)
    size = len(used) - (last - first)
    # Of what stands at the top, the first element comes first.
    from_, to = _gap(before)
    base = from_ if from_ + size <= len(used) else to - size
    shift = Shift(last, base + len(used) - last, base - last)
    if first == 0 or last == len(used):
        # It stands at one end, or does not touch either.
        low = int(np.flatnonzero(used)[0])
        shift = Shift(len(used), base - low, 0)
    for at in pieces:
        ends = (at.start, at.stop - 1) if isinstance(at, slice) else (at.min(), at.max())
        if shift.of(ends[0]) != shift.of(ends[1]):
            return None
    where = np.flatnonzero(used)
    where = where + np.where(where >= shift.gap, shift.above, shift.below)
    if where.min() < 0 or where.max() >= len(used) or before[where].any():
        return None
    return shift


def _gap(used: Used) -> tuple[int, int]:
    """From and up to: the longest run of elements that nobody touches."""
    padded = np.concatenate([[True], used, [True]])
    taken = np.flatnonzero(padded) - 1
    n = int(np.diff(taken).argmax())
    return int(taken[n]) + 1, int(taken[n + 1])


def _moved(used: Used, shift: Shift) -> Used:
    where = np.flatnonzero(used)
    out = np.zeros_like(used)
    out[where + np.where(where >= shift.gap, shift.above, shift.below)] = True
    return out


def moved(schedule: Schedule, isa: Isa, shifts: Mapping[str, Shift]) -> Schedule:
    """The schedule with its elements of each memory shifted."""
    by_region = [shifts.get(isa.memory(r.memory).home) for r in schedule.regions]
    ops = schedule.ops.copy()
    for row in ops:
        shift = by_region[row[1]] if row[0] in (LOAD, STORE) else None
        if shift is not None:
            row[3] += shift.of(int(row[3]))
    templates = list(schedule.templates)
    for n in _templates(schedule):
        templates[n] = _template(templates[n], isa, shifts)
    return replace(schedule, ops=ops, templates=tuple(templates))


def _template(t: Template, isa: Isa, shifts: Mapping[str, Shift]) -> Template:
    uops = t.uops.copy()
    operands = isa.instruction(t.instruction).operands
    # Fields that no step reads stay as they are, so that lists are equal where they can be.
    for k, (operand, at) in enumerate(zip(operands, t.touched, strict=False)):
        shift = shifts.get(isa.memory(operand.memory).home)
        if shift is not None:
            first = at.start if isinstance(at, slice) else int(at.min())
            uops[:, k] += shift.of(first)
    return replace(t, uops=uops)
