"""Fast functional simulation: what a program leaves in DRAM, bit for bit.

Takes: an Isa and a Program.  Leaves: a Run.  Assumes: nothing of the program. Every address is
checked against its memory or the image, work is bounded, deadlock is found before anything runs.

Where the reference simulator and the hardware differ, this engine takes the reference simulator's
side (stores read the live accumulator) and counts what it met in `warnings`; `strict=True` refuses
it instead. `csp_embed.judge.stream.judge` finds the rest of what portable programs avoid.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import SimError
from csp_embed.ir.stream import Program, Stream
from csp_embed.judge.stream.audit import Audit
from csp_embed.judge.stream.instruction_rules import (
    MAX_INSTRUCTION_STEPS,
    first_bad,
    portable_findings,
    static_warnings,
)
from csp_embed.judge.stream.table import (
    CONTRACT,
    KINDS,
    LOAD,
    MAP,
    STORE,
    Table,
    make_table,
)  # fmt: skip
from csp_embed.judge.stream.tokens import Order, deadlock_error, find_order
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.bits import decode
from csp_embed.sim.functional.engine import Engine, error_at
from csp_embed.sim.functional.memory import State, contents, make_state, read_dram

MAX_STEPS = 1 << 32


@dataclass(frozen=True, eq=False)  # by identity: arrays have no one answer to ==
class Run:
    """What a program did.

    outputs: (address, bytes) of each `after` range, as the program left it. values_equal: whether
    they equal the expected bytes (None where the program expects nothing or was stopped). sequence:
    the order of execution; executed: the part of it that ran; stopped: whether a stop condition
    ended it. counters: see `count`.
    """

    isa: Isa
    program: Program
    stream: Stream
    table: Table
    order: Order
    state: State
    outputs: tuple[tuple[int, NDArray[np.uint8]], ...]
    values_equal: bool | None
    sequence: NDArray[np.int64]
    executed: NDArray[np.int64]
    stopped: bool
    counters: dict[str, Any]
    warnings: tuple[str, ...] = ()
    notes: dict[str, Any] = field(default_factory=dict)

    def __repr__(self) -> str:
        said = "not compared with any"
        if self.values_equal is not None:
            said = "as expected" if self.values_equal else "NOT as expected"
        count = len(self.executed)
        return f"<Run of {count} instructions on {self.isa.name}: values {said}>"

    def memory(self, name: str, first: int = 0, last: int | None = None) -> NDArray[np.int64]:
        """Elements of an on-chip memory at the end, int64[n, *lanes] (micro-ops: [n, fields])."""
        memory = self.isa.memory(name)
        return contents(self.isa, self.state, memory, first, memory.depth if last is None else last)

    def dram(self, address: int, length: int) -> NDArray[np.uint8]:
        """Bytes of DRAM at the end (a copy)."""
        return read_dram(self.state, address, length).copy()


def run(
    isa: Isa,
    program: Program,
    *,
    strict: bool = False,
    tokens: bool = True,
    break_at: int | None = None,
    until_store: bool = False,
    max_steps: int = MAX_STEPS,
    progress: Callable[[str, int, int], None] | None = None,
) -> Run:
    """Runs `program`.

    strict: refuse what the reference simulator and the hardware do differently. tokens: False runs
    in program order, as a sequential simulator does, and ignores tokens. break_at: stop before that
    instruction; until_store: stop after the first instruction that stores data.
    Raises: SimError for a deadlock, an address outside the image or a memory, an unknown
        instruction, more than `max_steps` micro-op steps (2**26 in one instruction); the message
        names the instruction by number and text.
    """
    stream = decode(isa, program.insn)
    table = make_table(isa, stream)
    bad = first_bad(isa, table)
    if bad is not None:
        raise error_at(isa, stream, bad.n, bad.what, bad.why)
    _bound_work(isa, stream, table, max_steps)
    order = find_order(isa, table)
    if tokens and order.deadlocked:
        raise deadlock_error(isa, stream, table, order)
    if strict:
        _refuse(isa, program, stream, table, order)
    sequence = order.order if tokens else np.arange(len(table))
    if break_at is not None and not 0 <= break_at < len(table):
        raise SimError(
            f"there is no instruction {break_at}",
            why=f"the program has {len(table)}",
            hint=f"0 to {len(table) - 1}",
        )
    end = _stop(table, sequence, break_at, until_store)
    state = make_state(isa, program)
    engine = Engine(isa, stream, table, state, sequence, strict)
    engine.advance(end, progress)
    stopped = end < len(sequence)
    outputs = tuple((a, read_dram(state, a, len(d)).copy()) for a, d in program.after if len(d))
    equal = None
    if not stopped and program.after:
        expected = [d for _, d in program.after if len(d)]
        equal = all(np.array_equal(g, e) for (_, g), e in zip(outputs, expected, strict=True))
    warnings = (*static_warnings(isa, stream, table), *engine.warnings())
    return Run(
        isa, program, stream, table, order, state, outputs, equal, sequence, sequence[:end],
        stopped, count(isa, table, sequence[:end]), warnings,
    )  # fmt: skip


def watch(
    isa: Isa,
    program: Program,
    stops: Sequence[tuple[int, Sequence[tuple[int, int]]]],
    *,
    progress: Callable[[str, int, int], None] | None = None,
) -> list[list[NDArray[np.uint8]]]:
    """What DRAM holds on the way: at each stop (instructions, ranges), when the first so many
    instructions have run, the bytes of its ranges (address, length).

    Raises: as `run`.
    """
    stream = decode(isa, program.insn)
    table = make_table(isa, stream)
    bad = first_bad(isa, table)
    if bad is not None:
        raise error_at(isa, stream, bad.n, bad.what, bad.why)
    _bound_work(isa, stream, table, MAX_STEPS)
    order = find_order(isa, table)
    if order.deadlocked:
        raise deadlock_error(isa, stream, table, order)
    state = make_state(isa, program)
    engine = Engine(isa, stream, table, state, order.order, strict=False)
    position = np.empty(len(table), np.int64)
    position[order.order] = np.arange(len(table))
    out = []
    for count, ranges in stops:
        engine.advance(int(position[:count].max(initial=-1)) + 1, progress)
        out.append([read_dram(state, a, n).copy() for a, n in ranges])
    engine.advance(len(table), progress)
    return out


def _refuse(isa: Isa, program: Program, stream: Stream, table: Table, order: Order) -> None:
    """Raises SimError for the first instruction that implementations run differently."""
    found = portable_findings(isa, table)
    audit = Audit(isa, program, table, order)
    audit.advance()
    found += [f for f in audit.findings(isa, stream) if f.kind in ("portable", "hazard")]
    if found:
        first = min(found, key=lambda f: f.n)
        raise error_at(isa, stream, first.n, first.what, first.why)
    over = order.over[order.over >= 0]
    if len(over):
        raise error_at(
            isa, stream, int(over.min()), "its token may be lost",
            f"a FIFO holds {isa.limits.max_tokens} and may be full before this push",
        )  # fmt: skip


def _bound_work(isa: Isa, stream: Stream, table: Table, max_steps: int) -> None:
    steps = table.steps
    if not len(steps):
        return
    worst = int(steps.argmax())
    if steps[worst] > MAX_INSTRUCTION_STEPS:
        raise error_at(
            isa, stream, worst, f"asks for {int(steps[worst])} micro-op steps",
            f"at most {MAX_INSTRUCTION_STEPS} in one instruction are simulated",
        )  # fmt: skip
    total = float(steps.sum(dtype=np.float64))
    if total > max_steps:
        raise SimError(
            f"the program asks for {total:.3g} micro-op steps",
            why=f"at most {max_steps} are simulated",
            hint="raise --max-steps",
        )


def _stop(
    table: Table, sequence: NDArray[np.int64], break_at: int | None, until_store: bool
) -> int:
    end = len(sequence)
    if break_at is not None:
        found = np.flatnonzero(sequence == break_at)
        end = int(found[0]) if len(found) else end
    if until_store:
        stores = (table.c.kind[sequence] == STORE) & (table.elements[sequence] > 0)
        found = np.flatnonzero(stores)
        end = min(end, int(found[0]) + 1) if len(found) else end
    return end


def count(isa: Isa, table: Table, executed: NDArray[np.int64]) -> dict[str, Any]:
    """Counters of the instructions in `executed`: instructions by name and in total, micro-op
    steps, MACs (lanes included, resets not), transfers and DRAM bytes by memory."""
    c, steps = table.c, table.steps
    kind = c.kind[executed]
    mine = steps[executed]
    contract = next((i for i in isa.instructions if i.kind == "contract"), None)
    points = 0
    if contract is not None:
        dims = {d for o in contract.operands for d in o.dims}
        points = int(np.prod([isa.dims[d] for d in dims], dtype=np.int64))
    reset = c.reset[executed] != 0
    contract_steps = int(mine[(kind == CONTRACT) & ~reset].sum())
    counters: dict[str, Any] = {
        "instructions": len(executed),
        "by_name": {i.name: int((kind == KINDS[i.kind]).sum()) for i in isa.instructions},
        "macs": contract_steps * points,
        "contract_steps": contract_steps,
        "reset_steps": int(mine[(kind == CONTRACT) & reset].sum()),
        "map_steps": int(mine[kind == MAP].sum()),
    }
    moved = table.dram_elements[executed]
    for name, which in (("loads", LOAD), ("stores", STORE)):
        per_memory = {}
        for k, memory in enumerate(isa.memories):
            here = (kind == which) & (c.named[executed] == k) & (moved > 0)
            if here.any():
                per_memory[memory.name] = {
                    "instructions": int(here.sum()),
                    "bytes": int(moved[here].sum()) * memory.elem_bytes,
                }
        counters[name] = per_memory
    return counters
