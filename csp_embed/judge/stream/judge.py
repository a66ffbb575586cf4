"""Judges a program: may it run on the hardware, and does it compute what it says?

Takes: an Isa and a Program of whatever origin.  Leaves: a list of Problems, empty for a good
program. Shares no code with what builds programs.

What is looked at: opcodes, memories and ranges; DRAM addresses inside the image; what
implementations do differently (facts of the spec's `limits`); tokens: deadlock, capacity, and an
order between every pair of accesses of different queues to the same element, on chip and in DRAM,
of which one writes; the end of the program; and, by simulation, the expected bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from csp_embed.ir.stream import Program, Stream
from csp_embed.judge.stream.audit import Audit
from csp_embed.judge.stream.instruction_rules import (
    IMMEDIATE,
    MAX_INSTRUCTION_STEPS,
    Finding,
    findings,
    portable_findings,
)
from csp_embed.judge.stream.table import FINISH, STORE, TOKENS, Table, make_table
from csp_embed.judge.stream.tokens import Order, describe_deadlock, find_order
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.bits import decode
from csp_embed.machine.words.listing import line

MAX_PROBLEMS = 100


@dataclass(frozen=True)
class Problem:
    """insn: instruction number, or None for the program as a whole. kind: one of opcode, memory,
    range, dram, portable, hazard, stale, token, deadlock, overflow, race, finish, work, values."""

    insn: int | None
    kind: str
    text: str


def judge(
    isa: Isa,
    program: Program,
    *,
    values: Callable[[], list[Problem]] | None = None,
    progress: Callable[[str, int, int], None] | None = None,
) -> tuple[list[Problem], list[str]]:
    """(problems, remarks): remarks are odd but legal, such as tokens that are left at the end.

    values: compares what a simulator stores, asked only where the program can run at all; this
    module runs none itself. At most 100 problems, by instruction.
    """
    stream = decode(isa, program.insn)
    table = make_table(isa, stream)
    blocking = [*findings(isa, table), *_too_much_work(table)]
    found = [*blocking, *portable_findings(isa, table), *_strange_tokens(isa, table)]
    found += _early_ends(table)
    order = find_order(isa, table)
    remarks: list[str] = []
    problems: list[Problem] = []
    if any(i.kind == "finish" for i in isa.instructions) and not (table.c.kind == FINISH).any():
        text = "the program does not end: it has no finish instruction"
        problems.append(Problem(None, "finish", text))
    if order.deadlocked:
        heads = describe_deadlock(isa, stream, table, order)
        head = min(int(h) for h in order.heads if h >= 0)
        problems.append(Problem(head, "deadlock", "deadlock: " + "; ".join(heads)))
    else:
        found += _host_told_early(isa, stream, table, order)
        remarks += _left_over(isa, order)
    found += _overflow(isa, order)
    broken = bool(blocking)
    if not broken:
        audit = Audit(isa, program, table, order)
        audit.advance(progress)
        told = {(f.n, f.what[: len(IMMEDIATE)]) for f in found}
        walked = [
            f for f in audit.findings(isa, stream) if (f.n, f.what[: len(IMMEDIATE)]) not in told
        ]
        found += walked
        remarks += audit.remarks(isa, stream)
        broken = any(f.kind in ("dram", "range") for f in walked)
    problems += [_problem(isa, stream, f) for f in found]
    if values is not None and not broken and not order.deadlocked:
        problems += values()
    problems.sort(key=lambda p: -1 if p.insn is None else p.insn)
    return problems[:MAX_PROBLEMS], remarks


def _problem(isa: Isa, stream: Stream, f: Finding) -> Problem:
    why = f" ({f.why})" if f.why else ""
    return Problem(f.n, f.kind, f"{f.what}{why}: {_text(isa, stream, f.n)}")


def _text(isa: Isa, stream: Stream, n: int) -> str:
    return " ".join(line(isa, stream, n).split())


def _too_much_work(table: Table) -> list[Finding]:
    most = MAX_INSTRUCTION_STEPS
    return [
        Finding(n, "work", f"{table.steps[n]} micro-op steps, at most {most} are looked at", "")
        for n in np.flatnonzero(table.steps > most).tolist()
    ]


def _strange_tokens(isa: Isa, table: Table) -> list[Finding]:
    """Tokens from or to a neighbour that the queue does not have."""
    found: list[Finding] = []
    for bit, token in enumerate(TOKENS):
        edge = 0 if token.endswith("prev") else len(isa.queues) - 1
        bad = (table.tokens[:, bit] != 0) & (table.c.queue == edge) & (table.c.kind >= 0)
        what = f"{token.replace('_', ' ')}, but {isa.queues[edge]} has no such neighbour"
        found += [Finding(n, "token", what, "") for n in np.flatnonzero(bad).tolist()]
    return found


def _early_ends(table: Table) -> list[Finding]:
    ends: list[int] = np.flatnonzero(table.c.kind == FINISH).tolist()
    found = [Finding(n, "finish", "it ends before the last one", "") for n in ends[:-1]]
    left = len(table) - 1 - ends[-1] if ends else 0
    if left:
        found.append(Finding(ends[-1], "finish", f"{left} instructions follow it", ""))
    return found


def _host_told_early(isa: Isa, stream: Stream, table: Table, order: Order) -> list[Finding]:
    """A store that may still run when the host is told that the program is done."""
    ends = np.flatnonzero(table.c.kind == FINISH)
    stores = np.flatnonzero((table.c.kind == STORE) & (table.elements > 0))
    if not len(ends):
        return []
    end = int(ends[-1])
    late = stores[order.position[stores] >= order.clock[end, table.c.queue[stores]]]
    if not len(late):
        return []
    what = f"the host may be told before {len(late)} stores are done, the first is "
    return [Finding(end, "finish", what + _text(isa, stream, int(late[0])), "")]


def _direction(isa: Isa, fifo: int, direction: int) -> str:
    left, right = isa.queues[fifo], isa.queues[fifo + 1]
    return f"from {left} to {right}" if direction == 0 else f"from {right} to {left}"


def _overflow(isa: Isa, order: Order) -> list[Finding]:
    return [
        Finding(
            int(order.over[f, d]), "overflow",
            f"up to {int(order.most[f, d])} tokens {_direction(isa, f, d)} can be waiting, and a"
            f" FIFO holds {isa.limits.max_tokens}", "",
        )
        for f, d in np.argwhere(order.over >= 0)
    ]  # fmt: skip


def _left_over(isa: Isa, order: Order) -> list[str]:
    left = order.pushed - order.popped
    return [
        f"{int(left[f, d])} tokens {_direction(isa, f, d)} are left at the end"
        for f, d in np.argwhere(left > 0)
    ]
