"""Schedules one after the other as one: rows joined, tokens decided anew over all of them.

Takes: schedules of contractions in program order, and where their regions lie in DRAM.  Leaves: one
Schedule.  What must keep its order is read off the rows: which elements of which memory a row
writes and reads, on chip and in DRAM, also across the borders of the schedules. So a later part's
constants are loaded as soon as nobody reads what they overwrite, and its activations as soon as
their stores are done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.schedule import COMPUTE, FINISH, LOAD, STORE, Schedule, Template, distinct
from csp_embed.machine.spec import Isa
from csp_embed.targets.stream.building.tokens import Tokens

Ints = NDArray[np.int64]
Row = tuple[int, int, int, int]
Elements = Ints | slice  # an index into the elements of a memory


@dataclass(frozen=True)
class Part:
    """schedule: of one layer. address: of each of its regions, in bytes of DRAM. ahead: so many
    loads of constants more than those of its first product come before its activations."""

    schedule: Schedule
    address: tuple[int, ...]
    ahead: int = 0


@dataclass(frozen=True)
class Linked:
    """schedule: of all parts. address: of its regions. ends: rows up to the end of each part."""

    schedule: Schedule
    address: tuple[int, ...]
    ends: tuple[int, ...]


def link(parts: Sequence[Part], isa: Isa, shared: tuple[int, int]) -> Linked:
    """shared: the bytes of DRAM, from and up to, that some row stores to; everything else is
    constant."""
    rows: list[tuple[int, int, int, int]] = []
    regions, templates, address, ends = [], [], [], []
    for part in parts:
        # Row numbers of regions and templates count from the part; in the whole they go on.
        first_region, first_template = len(regions), len(templates)
        regions += part.schedule.regions
        templates += part.schedule.templates
        address += part.address
        # FINISH belongs to the end of all parts.
        for kind, a, b, sram in _early_constants(part, isa):
            if kind != FINISH:
                first = first_template if kind == COMPUTE else first_region
                rows.append((kind, a + first, b, sram))
        ends.append(len(rows))
    rows.append((FINISH, 0, 0, 0))
    whole = Schedule(
        tuple(regions), tuple(templates), np.array(rows, np.int64), np.zeros(0, np.int64)
    )
    tokens = _Needs(whole, isa, address, shared).tokens(ends)
    return Linked(replace(whole, tokens=tokens), tuple(address), tuple(ends))


def _early_constants(part: Part, isa: Isa) -> list[Row]:
    """The rows, with constants that are loaded before the first product ahead of activations: these
    wait for the stores of the part before. `part.ahead` more of them come along."""
    schedule = part.schedule
    rows: list[Row] = [tuple(r) for r in schedule.ops.tolist()]  # type: ignore[misc]
    first = next(
        (
            n for n, (kind, a, _, _) in enumerate(rows)
            if kind == COMPUTE and not schedule.templates[a].reset
        ),
        0,
    )  # fmt: skip

    def moving(row: Row) -> bool:
        return row[0] == LOAD and not schedule.regions[row[1]].by_box

    head = rows[:first]
    early = [r for r in head if not moving(r)]
    along = _along(part, rows, first, isa) if part.ahead else []
    late = [r for n, r in enumerate(rows[first:], first) if n not in along]
    return [*early, *(rows[n] for n in along), *(r for r in head if moving(r)), *late]


def _along(part: Part, rows: Sequence[Row], first: int, isa: Isa) -> list[int]:
    """The next rows behind `first` that load constants to where nothing stood before."""
    compute = isa.of_kind("finish").queue
    out: list[int] = []
    taken = {m.name: np.zeros(m.depth, bool) for m in isa.memories if m.load_queue != compute}
    for n, (kind, region, box, sram) in enumerate(rows):
        if kind != LOAD or len(out) == part.ahead:
            continue
        r = part.schedule.regions[region]
        if r.memory in taken:
            at = slice(sram, sram + r.size(box))
            if n >= first and r.by_box and not taken[r.memory][at].any():
                out.append(n)
            taken[r.memory][at] = True
    return out


class _Needs:
    """Walks the rows in program order and keeps the last rows that touched each element."""

    def __init__(
        self, schedule: Schedule, isa: Isa, address: Sequence[int], shared: tuple[int, int]
    ) -> None:
        self.schedule, self.isa, self.address = schedule, isa, address
        queues = isa.queues
        self._tokens = Tokens(queues, isa.limits.max_tokens)
        self._memory = {m.name: m for m in isa.memories}
        # Per element of each memory the last row that did this to it: all that a later row may have
        # to wait for.
        depth = {m.name: m.depth for m in isa.memories}
        self._loaded = {n: np.full(d, -1, np.int64) for n, d in depth.items()}
        self._used = {n: np.full(d, -1, np.int64) for n, d in depth.items()}
        self._written = {n: np.full(d, -1, np.int64) for n, d in depth.items()}
        self._stored = {n: np.full(d, -1, np.int64) for n, d in depth.items()}
        # DRAM in units of which every element of every memory that is shared is a multiple.
        # Constants are never stored, so their sizes need not divide the unit.
        sizes = {self._memory[r.memory].elem_bytes for r in schedule.regions if not r.by_box}
        self._unit = int(np.gcd.reduce(np.array(sorted(sizes), np.int64)))
        self._from = shared[0]
        count = -(-(shared[1] - shared[0]) // self._unit)
        self._dram_stored = np.full(max(count, 1), -1, np.int64)
        self._dram_loaded = np.full(max(count, 1), -1, np.int64)
        self._boxes: dict[tuple[int, int], Elements] = {}
        self._touched: dict[int, list[tuple[str, Elements]]] = {}
        self._synced: list[tuple[int, int]] = []  # (compute row, store row that it waits for)
        self._last_compute = self._last_store = -1
        self._compute = isa.of_kind("finish").queue or ""

    def tokens(self, ends: Sequence[int]) -> Ints:
        rows: list[Row] = self.schedule.ops.tolist()
        begins, due, steps = {0, *ends}, -1, 0
        for n, (kind, a, b, sram) in enumerate(rows):
            if n in begins:
                due, steps = self._due(rows, n, min((e for e in ends if e > n), default=n)), 0
            if kind == COMPUTE:
                row = self._compute_row(a)
                steps += not self.schedule.templates[a].reset
                if steps == 2:
                    # The stores before have ended while the first sums were made: what the loads
                    # behind here need of them, they need not wait for a later row to tell.
                    self._wait_for_store(row, due)
            elif kind == LOAD:
                self._load_row(a, b, sram)
            elif kind == STORE:
                self._store_row(a, b, sram)
            else:
                row = self._tokens.row(self._compute)
                self._tokens.need(row, self._last_store)
        return np.array(self._tokens.bits(), np.int64)

    def _due(self, rows: Sequence[Row], first: int, last: int) -> int:
        """The last store so far of what a part loads."""
        out = -1
        for kind, region, box, _ in rows[first:last]:
            where = self._units(region, box) if kind == LOAD else None
            if where is not None:
                out = max(out, int(self._dram_stored[where].max()))
        return out

    def _compute_row(self, number: int) -> int:
        template = self.schedule.templates[number]
        row = self._tokens.row(self.isa.instruction(template.instruction).queue or self._compute)
        touched = self._operands(number, template)
        # Computation waits for the loads of its operands only: earlier computation is in its own
        # queue.
        wanted = max((int(self._loaded[m][at].max()) for m, at in touched), default=-1)
        self._tokens.need(row, wanted)
        memory, at = touched[0]
        self._wait_for_store(row, int(self._stored[memory][at].max()))
        for m, elements in touched:
            self._used[m][elements] = row
        self._written[memory][at] = row
        self._last_compute = row
        return row

    def _operands(self, number: int, template: Template) -> list[tuple[str, Elements]]:
        """(memory, elements) of every operand that the instruction touches, the result first."""
        found = self._touched.get(number)
        if found is None:
            operands = self.isa.instruction(template.instruction).operands
            found = self._touched[number] = [
                (self._memory[operand.memory].home, elements)
                # Resets and immediates touch the result alone.
                for operand, elements in zip(operands, template.touched, strict=False)
            ]
        return found

    def _wait_for_store(self, row: int, store: int) -> None:
        # Stores end in order, so a row that waited for a later one has waited for this one.
        if store >= 0 and (not self._synced or self._synced[-1][1] < store):
            self._tokens.need(row, store)
            self._synced.append((row, store))

    def _load_row(self, region: int, box: int, sram: int) -> None:
        name = self.schedule.regions[region].memory
        memory = self._memory[name]
        home = memory.home
        row = self._tokens.row(memory.load_queue or "")
        at = slice(sram, sram + self.schedule.regions[region].size(box))
        queue_is_compute = memory.load_queue == self._compute
        store = self._stored_before(region, box, row)
        if queue_is_compute:
            self._wait_for_store(row, max(store, int(self._stored[home][at].max())))
            self._last_compute = row
        else:
            # What stood there must have been used before it is overwritten.
            need = int(self._used[home][at].max())
            if store >= 0:
                need = max(need, self._after_store(store))
            self._tokens.need(row, need)
            self._loaded[home][at] = row

    def _after_store(self, store: int) -> int:
        """A compute row behind which the store has ended: tokens pass between neighbours only."""
        # Load and store queues are no neighbours: a compute row in between passes the token on.
        for row, done in self._synced:
            if done >= store:
                return row
        # Parts begin with a reset, which comes before their loads.
        assert self._last_compute > store, "no compute row between a store and a load of it"
        self._wait_for_store(self._last_compute, store)
        return self._last_compute

    def _store_row(self, region: int, box: int, sram: int) -> None:
        name = self.schedule.regions[region].memory
        memory = self._memory[name]
        home = memory.home
        at = slice(sram, sram + self.schedule.regions[region].size(box))
        need = int(self._written[home][at].max())
        where = self._units(region, box)
        assert where is not None, "a store outside the shared part of DRAM"
        loaded = int(self._dram_loaded[where].max())
        if loaded >= 0:
            # The loads of what is overwritten have ended before a compute row that the store
            # waits for.
            # The other way round, for the same reason: load, compute, store.
            self._tokens.need(self._last_compute, loaded)
            need = self._last_compute
        row = self._tokens.row(memory.store_queue or "")
        self._tokens.need(row, need)
        self._stored[home][at] = row
        self._dram_stored[where] = row
        self._last_store = row

    def _stored_before(self, region: int, box: int, row: int) -> int:
        where = self._units(region, box)
        if where is None:
            return -1
        self._dram_loaded[where] = row
        return int(self._dram_stored[where].max())

    def _units(self, region: int, box: int) -> Elements | None:
        """The units of DRAM that a box takes; None for a constant."""
        r = self.schedule.regions[region]
        if r.by_box:
            return None
        key = region, box
        found = self._boxes.get(key)
        if found is None:
            elem = self._memory[r.memory].elem_bytes
            at = np.zeros(1, np.int64)
            for (a, b), pitch in zip(r.boxes[box], r.pitches, strict=True):
                at = (at[:, None] + np.arange(a, b) * pitch).reshape(-1)
            first = (self.address[region] - self._from + at * elem) // self._unit
            each = np.arange(elem // self._unit)
            assert first.min() >= 0, "a box lies before the shared part of DRAM"
            found = self._boxes[key] = distinct(first[:, None] + each)
        return found
