"""What is wrong with single instructions, seen without running them: opcodes, memories, on-chip
ranges, and the forms that implementations do not agree on."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.stream import Stream
from csp_embed.judge.stream.table import CONTRACT, LOAD, MAP, STORE, Table
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.listing import line

# More than this in one instruction is not looked at: minutes of work for one address field.
MAX_INSTRUCTION_STEPS = 1 << 26
# How a finding about the source of an immediate begins, wherever it was seen.
IMMEDIATE = "immediate form"


@dataclass(frozen=True)
class Finding:
    """Instruction n breaks a rule. kind: "opcode", "memory", "range" (nothing can run these), or
    "portable" (implementations differ)."""

    n: int
    kind: str
    what: str
    why: str


def findings(isa: Isa, table: Table) -> list[Finding]:
    """All findings of kind opcode, memory and range, by instruction."""
    c = table.c
    found: list[Finding] = []

    def add(mask: NDArray[np.bool_], kind: str, what: str, why: str) -> None:
        found.extend(Finding(int(n), kind, what, why) for n in np.flatnonzero(mask))

    known = ", ".join(f"{i.opcode} {i.name}" for i in isa.instructions)
    add(c.kind < 0, "opcode", "unknown opcode", f"known: {known}")
    data = table.elements > 0
    add(data & (c.named < 0), "memory", "unknown memory", _memory_names(isa))
    for k, memory in enumerate(isa.memories):
        mine = data & (c.named == k)
        if memory.load_queue is None:
            add(mine & (c.kind == LOAD), "memory", f"{memory.name} cannot be loaded", memory.note)
        if memory.store_queue is None:
            add(mine & (c.kind == STORE), "memory", f"{memory.name} cannot be stored", memory.note)
        past = mine & (c.sram + table.elements > memory.depth)
        add(past, "range", f"it leaves {memory.name}", f"{memory.name} has {memory.depth} elements")
    active = table.steps > 0
    depth = isa.memory(isa.uop_memory).depth
    add(
        active & (c.uop_end > depth), "range", f"its micro-ops leave {isa.uop_memory}",
        f"{isa.uop_memory} has {depth} elements",
    )  # fmt: skip
    add((c.kind == MAP) & (c.op < 0), "opcode", "unknown operation", _op_names(isa))
    return sorted(found, key=lambda f: f.n)


def first_bad(isa: Isa, table: Table) -> Finding | None:
    """The first instruction that nothing can run."""
    return next(iter(findings(isa, table)), None)


def portable_findings(isa: Isa, table: Table) -> list[Finding]:
    """Single instructions that implementations run differently, or not at all (docs/vta.md)."""
    c = table.c
    found: list[Finding] = []

    def add(mask: NDArray[np.bool_], what: str, why: str) -> None:
        found.extend(Finding(int(n), "portable", what, why) for n in np.flatnonzero(mask))

    compute = (c.kind == CONTRACT) | (c.kind == MAP)
    if isa.limits.nonzero_counts:
        add(
            compute & (table.steps == 0), "a count of 0",
            "some implementations do nothing, others run for ages",
        )  # fmt: skip
        add(
            (table.elements > 0) & (c.y_size == 0), "y_size is 0 and x_size is not",
            "only x_size = 0 makes a token-only instruction",
        )  # fmt: skip
    for k, memory in enumerate(isa.memories):
        if not memory.portable:
            add(
                (c.named == k) & (table.elements > 0), f"{memory.name} is not portable", memory.note
            )
        past = (c.named == k) & (c.sram + table.elements > memory.portable_depth)
        add(
            past & (table.elements > 0) & (memory.portable_depth < memory.depth),
            f"it uses {memory.name} past element {memory.portable_depth}", memory.note,
        )  # fmt: skip
    uops = isa.memory(isa.uop_memory)
    if uops.portable_depth < uops.depth:
        add(
            compute & (c.uop_end > uops.portable_depth),
            f"it uses {uops.name} past element {uops.portable_depth}", uops.note,
        )  # fmt: skip
    for instruction in isa.instructions:
        if instruction.kind != "map":
            continue
        for index, op in enumerate(instruction.ops):
            if not op.portable:
                add(
                    (c.kind == MAP) & (c.op == index), f"{op.name} is not portable",
                    "not every implementation has this operation",
                )  # fmt: skip
        if isa.limits.imm_src_is_dst:
            imm = (c.kind == MAP) & (c.use_imm != 0)
            differ = ((c.dst_out != c.lhs_out) & (c.iter_out > 1)) | (
                (c.dst_in != c.lhs_in) & (c.iter_in > 1)
            )
            add(
                imm & differ, f"{IMMEDIATE} with src factors that differ from dst factors",
                "implementations disagree on which of the two is read",
            )  # fmt: skip
    return sorted(found, key=lambda f: f.n)


def static_warnings(isa: Isa, stream: Stream, table: Table) -> list[str]:
    """The portable findings as text, one line for each sort of them."""
    groups: dict[str, list[Finding]] = {}
    for f in portable_findings(isa, table):
        groups.setdefault(f.what, []).append(f)
    return [
        f"{len(group)} instructions: {what} ({group[0].why}), the first is "
        + " ".join(line(isa, stream, group[0].n).split())
        for what, group in groups.items()
    ]


def _memory_names(isa: Isa) -> str:
    return "known: " + ", ".join(f"{m.id} {m.name}" for m in isa.memories)


def _op_names(isa: Isa) -> str:
    ops = [op for i in isa.instructions if i.kind == "map" for op in i.ops]
    return "known: " + ", ".join(f"{op.code} {op.name}" for op in ops)
