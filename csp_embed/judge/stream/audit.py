"""Prepares and reads the walk of `walk`: element states, epochs, and findings as text."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.stream import Program, Stream
from csp_embed.judge.stream import walk as kernels
from csp_embed.judge.stream.instruction_rules import IMMEDIATE, Finding
from csp_embed.judge.stream.table import CONTRACT, LOAD, MAP, STORE, Table
from csp_embed.judge.stream.tokens import Order
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.arrays import MEMORY, UOPS, WORDS, extent, image, operand_table
from csp_embed.machine.words.listing import line

# Work between two looks at Ctrl-C: a kernel without the GIL cannot be interrupted, and this much
# takes it a fraction of a second.
PORTION = 1 << 24
# A broken stream often breaks one rule everywhere; rows beyond these are counted in found[0, 1]
# only.
MAX_FINDINGS = 2000
# Beyond this many granules of stored DRAM, neighbours are taken together.
MAX_GRANULES = 1 << 26


class Audit:
    """One walk over the instructions of `order`."""

    def __init__(self, isa: Isa, program: Program, table: Table, order: Order) -> None:
        self.isa, self.table, self.order = isa, table, order
        # Row 0 is the header: [0, 0] rows used, [0, 1] findings met, those without room included.
        self.found = np.zeros((MAX_FINDINGS, 6), dtype=np.int64)
        n_queues = len(isa.queues)
        mem = _memories(isa)
        elements = int(mem["flags"][-1] + mem["depth"][-1])
        ranges = extent(program)
        code, places = micro_ops(isa, program, table)
        names = [m.name for m in isa.memories]
        uop_memory = names.index(isa.uop_memory)
        contract_ops = operand_table(isa, "contract", 4)
        map_ops = operand_table(isa, "map", 4)
        # Both kinds read micro-ops as a fourth operand; it stands where neither of the two has one.
        contract_ops[3, 0] = map_ops[3, 0] = uop_memory
        # Looked up from the memory that is shadowed, because that is the one that instructions
        # name.
        shadows = np.full(len(names), -1, dtype=np.int64)
        for k, memory in enumerate(isa.memories):
            if memory.shadow_of:
                shadows[names.index(memory.shadow_of)] = k
        shared = _shared(isa, table, contract_ops, map_ops, shadows)
        rows = table.rows
        dram_epochs, granule, first = _dram_epochs(isa, table, n_queues)
        queue = np.ascontiguousarray(rows["queue"])
        # Stable, so that each queue keeps program order: places in it are what clocks count.
        by_queue = np.argsort(queue, kind="stable")
        starts = np.searchsorted(queue[by_queue], np.arange(n_queues + 1))
        limits = isa.limits
        uops = np.zeros((isa.memory(isa.uop_memory).depth, code.shape[1]), np.int64)
        self._arguments = (
            rows, code, places, ranges, uops, mem, contract_ops, map_ops, shadows, shared,
            np.zeros(elements, np.uint8),
            np.zeros((elements, n_queues, 2), np.int32), dram_epochs, granule, first,
            order.position, order.clock, by_queue, starts, limits.map_hazard,
            limits.imm_src_is_dst, limits.stale_shadow, self.found,
        )  # fmt: skip

    def advance(self, progress: Callable[[str, int, int], None] | None = None) -> None:
        """Walks all instructions, in portions so that Ctrl-C gets its turn."""
        sequence = self.order.order
        # Transfers cost elements and computations steps; 20 is what an instruction costs by itself.
        total = np.cumsum((self.table.steps + self.table.elements + 20)[sequence])
        at = 0
        while at < len(sequence):
            done = int(total[at - 1]) if at else 0
            stop = min(int(np.searchsorted(total, done + PORTION)) + 1, len(sequence))
            kernels.audit(sequence, at, stop, *self._arguments)
            at = stop
            if progress is not None:
                progress("check", int(total[stop - 1]), int(total[-1]))

    def _rows(self) -> NDArray[np.int64]:
        return self.found[1 : int(self.found[0, 0]) + 1]

    def findings(self, isa: Isa, stream: Stream) -> list[Finding]:
        """What breaks a rule."""
        # Rows of UNWRITTEN are remarks, not findings: real hardware holds something there.
        return [f for row in self._rows() for f in [_finding(isa, stream, *map(int, row))] if f]

    def remarks(self, isa: Isa, stream: Stream) -> list[str]:
        """Reads of elements that nothing has written: one line for each memory."""
        texts: dict[int, str] = {}
        for kind, n, _, memory, element, _ in self._rows():
            if kind == kernels.UNWRITTEN and int(memory) not in texts:
                texts[int(memory)] = (
                    f"{isa.memories[int(memory)].name}[{element}] is read before anything wrote "
                    "it, by " + " ".join(line(isa, stream, int(n)).split())
                )
        return [texts[k] for k in sorted(texts)]


def _finding(
    isa: Isa, stream: Stream, kind: int, n: int, other: int, memory: int, element: int, detail: int
) -> Finding | None:
    name = isa.memories[memory].name if memory >= 0 else ""
    if kind in (kernels.RACE, kernels.DRAM_RACE):
        place = f"{name}[{element}]" if kind == kernels.RACE else f"DRAM {element:#x}"
        first = " ".join(line(isa, stream, other).split())
        return Finding(n, "race", f"no token orders its access to {place} after {first}", "")
    if kind == kernels.DRAM_OUTSIDE:
        return Finding(
            n, "dram", "DRAM outside the program's image", f"{detail} bytes at {element:#x}"
        )
    if kind == kernels.OPERAND:
        depth = isa.memories[memory].depth
        return Finding(
            n, "range", f"its micro-ops leave {name}", f"element {element}, {depth} elements"
        )
    if kind == kernels.STALE:
        source = isa.memories[memory].shadow_of
        state = "was loaded or reset last" if detail == kernels.LOADED else "was never written"
        return Finding(
            n, "stale", f"it stores {name}[{element}], and {source}[{element}] {state}",
            f"only compute steps write {name}",
        )  # fmt: skip
    if kind == kernels.HAZARD:
        return Finding(
            n, "hazard", f"element {element} is read {detail} steps after it is written",
            f"at least {isa.limits.map_hazard + 1} are safe",
        )  # fmt: skip
    if kind == kernels.IMM_SRC:
        return Finding(
            n, "portable", f"{IMMEDIATE} with dst {element} and src {detail}",
            "implementations disagree on which of the two is read",
        )  # fmt: skip
    if kind == kernels.UOP_STORED:
        return Finding(
            n, "dram", "it loads micro-ops that the program itself stores", f"at {element:#x}"
        )
    return None


def micro_ops(isa: Isa, program: Program, table: Table) -> tuple[NDArray[np.int64], NDArray[Any]]:
    """(fields of the micro-ops that loads may read, one behind another, where their bytes lie
    (RANGE)). Only these bytes decide which elements are touched."""
    memory = isa.memory(isa.uop_memory)
    c = table.c
    loads = (c.kind == LOAD) & (c.memory == isa.memories.index(memory)) & (table.dram_elements > 0)
    wanted: list[tuple[int, int]] = []
    if loads.any():
        low = c.dram[loads]
        high = low + (c.y_size[loads] - 1) * c.x_stride[loads] + c.x_size[loads]
        starts, ends = _merge(low * memory.elem_bytes, high * memory.elem_bytes)
        wanted = list(zip(starts.tolist(), ends.tolist(), strict=True))
    data, places = image(program, wanted)
    # Little-endian, whatever the machine that judges is.
    words = data.view("<u4").astype(np.int64)
    found = np.empty((len(words), len(isa.uop_fields)), np.int64)
    for k, f in enumerate(isa.uop_fields):
        value = (words >> f.lo) & ((1 << f.width) - 1)
        # Two's complement: the upper half of the values is negative.
        found[:, k] = value - ((value >> (f.width - 1)) << f.width if f.signed else 0)
    return found, places


def _memories(isa: Isa) -> NDArray[Any]:
    """MEMORY records with one flag per element; aliases share those of what they stand for."""
    mem = np.zeros(len(isa.memories), dtype=MEMORY)
    names = [m.name for m in isa.memories]
    flags = 0
    for k, memory in enumerate(isa.memories):
        mem[k]["storage"] = UOPS if memory.name == isa.uop_memory else WORDS
        mem[k]["depth"], mem[k]["elem_bytes"] = memory.depth, memory.elem_bytes
        mem[k]["shadow"] = names.index(memory.shadow_of) if memory.shadow_of else -1
        mem[k]["flags"] = flags
        # Aliases get flags of their own here, and no row uses them: `memory` is resolved before.
        flags += memory.depth
    return mem


def _shared(
    isa: Isa, table: Table, contract_ops: Any, map_ops: Any, shadows: NDArray[np.int64]
) -> NDArray[np.bool_]:
    """Memories that instructions of more than one queue touch."""
    # A memory that one queue alone touches cannot race, and its accesses need not be followed: that
    # is most of the walk's time.
    c = table.c
    users: list[set[int]] = [set() for _ in isa.memories]
    data = table.elements > 0
    for k in range(len(isa.memories)):
        loads = (c.kind == LOAD) & (c.memory == k)
        stores = (c.kind == STORE) & (c.named == k)
        users[k] |= set(np.unique(c.queue[data & (loads | stores)]).tolist())
    for kind, ops, count in ((CONTRACT, contract_ops, 3), (MAP, map_ops, 2)):
        # An instruction without steps touches nothing, whatever its fields say.
        queues = set(np.unique(c.queue[(c.kind == kind) & (table.steps > 0)]).tolist())
        touched = {int(ops[k, 0]) for k in range(count)} | {int(ops[3, 0])}
        # A compute step that writes an accumulator also writes the memory that stores read from.
        touched |= {int(shadows[k]) for k in touched if shadows[k] >= 0}
        for k in touched:
            users[k] |= queues
    return np.array([len(u) > 1 for u in users])


def _dram_epochs(isa: Isa, table: Table, n_queues: int) -> tuple[NDArray[np.int32], int, int]:
    """(epochs, granule bytes, first granule) over the stored addresses; empty where no load reads
    what a store of another queue may write and only one queue stores."""
    c = table.c
    # An empty array tells the kernel not to follow DRAM at all.
    nothing = np.zeros((0, n_queues, 2), np.int32)
    moved = table.dram_elements > 0
    stores, loads = moved & (c.kind == STORE), moved & (c.kind == LOAD)
    if not stores.any():
        return nothing, 1, 0
    # An unknown memory is a finding of its own; its width only has to be some number here.
    elem = np.array([m.elem_bytes for m in isa.memories])[np.maximum(c.named, 0)]
    low: NDArray[np.int64] = c.dram * elem
    high = low + ((c.y_size - 1) * c.x_stride + c.x_size) * elem
    starts, ends = _merge(low[stores], high[stores])
    # Stored interval that ends after a load begins: does it begin before the load ends?
    k = np.searchsorted(ends, low[loads], side="right")
    meets = (k < len(starts)) & (starts[np.minimum(k, len(starts) - 1)] < high[loads])
    if not meets.any() and len(np.unique(c.queue[stores])) == 1:
        return nothing, 1, 0
    # No access is smaller than the smallest element, so nothing is told apart that must be
    # together.
    granule = math.gcd(*(m.elem_bytes for m in isa.memories))
    first, last = int(starts[0]), int(ends[-1])
    # Coarser granules may report a race that is none, and never hide one.
    while (last - first) // granule + 2 > MAX_GRANULES:
        granule *= 2
    count = last // granule - first // granule + 1
    return np.zeros((count, n_queues, 2), np.int32), granule, first // granule


def _merge(
    low: NDArray[np.int64], high: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Overlapping intervals as disjoint sorted ones."""
    order = np.argsort(low, kind="stable")
    # `reach` is the furthest end so far: an interval may lie inside one that began long before.
    low, reach = low[order], np.maximum.accumulate(high[order])
    begins = np.concatenate([[True], low[1:] > reach[:-1]])
    first = np.flatnonzero(begins)
    last = np.concatenate([first[1:] - 1, [len(low) - 1]])
    return low[first], reach[last]
