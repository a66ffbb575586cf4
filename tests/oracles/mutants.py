"""One thing changed in a right program: an instruction, a micro-op, a packed byte, a claim, or the
formula. Deterministic: the n-th mutant of a program is always the same.
"""

from __future__ import annotations

import copy
import random
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.bits import decode, encode
from tests.oracles.formula_mutants import FORMULA_KINDS, other_formula

KINDS = (
    "address", "factor", "count", "stride or padding", "micro-op", "token", "immediate",
    "operation", "order of two", "left out", "twice", "packed constant", "claim", *FORMULA_KINDS,
)  # fmt: skip


@dataclass(frozen=True)
class Subject:
    """What is judged: a program and what it is said to compute, and where."""

    isa: Isa
    program: Program
    op: Operator
    claims: list[dict[str, Any]]


@dataclass(frozen=True)
class Mutant:
    """kind: one of KINDS; what: the change in words."""

    kind: str
    what: str
    subject: Subject


# Roles of fields by kind of mutation; a compute instruction's factors have no role.
_ROLES = {
    "address": ("sram", "dram"),
    "count": ("y_size", "x_size", "iter_out", "iter_in", "uop_begin", "uop_end"),
    "stride or padding": ("x_stride", "y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1"),
    "token": ("pop_prev", "pop_next", "push_prev", "push_next"),
    "immediate": ("imm", "use_imm"),
    "operation": ("op", "reset", "memory"),
}


def mutant(subject: Subject, kind: str, seed: int) -> Mutant | None:
    """None where the program has nothing of this kind to change."""
    rng = random.Random(f"{kind} {seed}")
    if kind == "claim":
        return _claim(subject, rng)
    if kind in FORMULA_KINDS:
        found = other_formula(subject.op, kind, rng)
        return found and Mutant(kind, found[0], replace(subject, op=found[1]))
    if kind in ("micro-op", "packed constant"):
        return _byte(subject, kind, rng)
    if kind in ("order of two", "left out", "twice"):
        return _moved(subject, kind, rng)
    return _field(subject, kind, rng)


def _field(subject: Subject, kind: str, rng: random.Random) -> Mutant | None:
    isa, stream = subject.isa, decode(subject.isa, subject.program.insn)
    places = []
    for n in range(len(stream)):
        instruction = isa.instructions[stream.code[n]]
        if kind == "factor":
            names = [f for o in instruction.operands for f in (o.factor_out, o.factor_in)]
        else:
            names = [instruction.roles[r] for r in _ROLES[kind] if r in instruction.roles]
        places += [(n, instruction.field(name)) for name in names]
    if not places:
        return None
    n, field = rng.choice(places)
    old = int(stream.fields[field.name][n])
    near = [old - 1, old + 1, old + 2, old - 2, 2 * old, old // 2, 0, 1, old ^ 8, old + 16]
    choices = sorted({v for v in near if field.min <= v <= field.max} - {old})
    new = rng.choice(choices or [old ^ 1])
    column = stream.fields[field.name].copy()
    column[n] = new
    words = encode(isa, replace(stream, fields={**stream.fields, field.name: column}))
    what = f"instruction {n}: {field.name} {old} -> {new}"
    return Mutant(kind, what, replace(subject, program=replace(subject.program, insn=words)))


def _moved(subject: Subject, kind: str, rng: random.Random) -> Mutant | None:
    words = subject.program.insn
    n = len(words)
    i = rng.randrange(n - 1)
    j = rng.choice([i + 1, rng.randrange(i + 1, n)])
    order = list(range(n))
    if kind == "order of two":
        order[i], order[j] = order[j], order[i]
        what = f"instructions {i} and {j} change places"
    elif kind == "left out":
        del order[i]
        what = f"instruction {i} is left out"
    else:
        order.insert(i, i)
        what = f"instruction {i} stands twice"
    new = words[order].copy()
    if np.array_equal(new, words):
        return None
    return Mutant(kind, what, replace(subject, program=replace(subject.program, insn=new)))


def _byte(subject: Subject, kind: str, rng: random.Random) -> Mutant | None:
    """A bit of the micro-ops (the first range that a micro-op load reads), or of anything else."""
    isa, program = subject.isa, subject.program
    stream = decode(isa, program.insn)
    code = isa.memory(isa.uop_memory)
    first = set()
    for n in range(len(stream)):
        instruction = isa.instructions[stream.code[n]]
        if instruction.kind == "load":
            role = instruction.roles
            if stream.fields[role["memory"]][n] == code.id:
                first.add(int(stream.fields[role["dram"]][n]) * code.elem_bytes)
    ranges = [
        k for k, (a, d) in enumerate(program.before)
        if len(d) and any(a <= f < a + len(d) for f in first) == (kind == "micro-op")
    ]  # fmt: skip
    if not ranges:
        return None
    k = rng.choice(ranges)
    address, data = program.before[k]
    changed = data.copy()
    at = rng.randrange(len(data))
    changed[at] ^= 1 << rng.randrange(8)
    before = (*program.before[:k], (address, changed), *program.before[k + 1 :])
    what = f"byte {address + at:#x}: {data[at]} -> {changed[at]}"
    return Mutant(kind, what, replace(subject, program=replace(program, before=before)))


def _claim(subject: Subject, rng: random.Random) -> Mutant | None:
    claims = copy.deepcopy(subject.claims)
    claim = rng.choice(claims)
    slots: list[tuple[Any, Any]] = []
    for loop in claim["loops"]:
        slots += [(loop, 0), (loop, 1)]
    for row in [*claim["index"], *(w["value"] for w in claim.get("within", []))]:
        slots.append((row, 0))
        slots += [(row[1], k) for k in range(len(row[1]))]
    for w in claim.get("within", []):
        slots += [(w["extents"], k) for k in range(len(w["extents"]))]
    if "parts" in claim:
        slots += [(claim["parts"]["weights"], k) for k in range(len(claim["parts"]["weights"]))]
        slots += [(claim["parts"], key) for key in ("scale",) if key in claim["parts"]]
    where = rng.randrange(len(slots) + 1)
    if where == len(slots):
        claim["addr"] += rng.choice([1, -1, 16, 64, -16, 4])
        what = f"claim of {claim['tensor']}: address"
    else:
        row, k = slots[where]
        old = row[k]
        row[k] += rng.choice([1, -1, 2])
        what = f"claim of {claim['tensor']}: {old} -> {row[k]}"
    meta = {**subject.program.meta, "claims": claims}
    program = replace(subject.program, meta=meta)
    return Mutant("claim", what, replace(subject, program=program, claims=claims))
