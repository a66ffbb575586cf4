"""What an embedding needs to know of a compute instruction: its operands and their dimensions.

Takes: Isa, Operator.  Leaves: `Unit`, the instruction that can do the operator, and which of the
operator's accesses plays which operand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from csp_embed.errors import Infeasible
from csp_embed.ir.operator import FACTORS, Access, Operator, Role
from csp_embed.machine.compilable import require
from csp_embed.machine.digits import shifts_left
from csp_embed.machine.spec import Instruction, Isa

NEUTRAL = {"max": ("min", -128), "min": ("max", 127)}
"""How pooling fills an accumulator with its neutral element: operation, immediate."""

_ROLES = {role.value: role for role in Role}


@dataclass(frozen=True)
class Unit:
    """A compute instruction as the embedding sees it.

    dims: operand role -> its lane dimensions; memory: role -> memory name;
    size: dimension -> lanes.
    """

    instruction: str
    kind: str
    dims: Mapping[Role, tuple[str, ...]]
    memory: Mapping[Role, str]
    size: Mapping[str, int]

    @property
    def reduced(self) -> tuple[str, ...]:
        """Dimensions over which the instruction itself sums."""
        return tuple(d for d in self.size if d not in self.dims[Role.DST])

    def dims_of(self, operand: str) -> tuple[str, ...]:
        """Lane dimensions of an operand; what an epilogue adds has those of the result."""
        return self.dims.get(_ROLES.get(operand, Role.DST), self.dims[Role.DST])

    def memory_of(self, operand: str) -> str:
        """The memory that holds an operand; what an epilogue adds lies where the result does."""
        return self.memory.get(_ROLES.get(operand, Role.DST), self.memory[Role.DST])

    def lacking(self, dim: str) -> tuple[str, ...]:
        """Operands that a lane of `dim` does not select."""
        return tuple(role for role, dims in self.dims.items() if dim not in dims)


def unit_for(op: Operator, isa: Isa) -> Unit:
    """The instruction of `isa` that can do `op`.

    Raises: SpecError where the machine cannot be compiled for at all; Infeasible (rule 1, same
    kind) where it has no such instruction, or lacks what the epilogue or the tensors need.
    """
    # The machine first: without instructions of the kinds that compilation needs no other text
    # would help.
    require(isa)
    kind = "contract" if op.kind == "contract" else "map"
    found = [i for i in isa.instructions if i.kind == kind]
    if not found:
        raise _no_kind(op, isa, f"{isa.name} has no {kind} instruction", "use another machine")
    functions = _map_functions(isa)
    needed = [step.op for step in op.epilogue]
    # Pools have no contraction; their step belongs to what the machine must be able to do.
    if op.kind in ("max", "min"):
        needed.append(op.kind)
    for name in needed:
        if name not in functions:
            why = f"the elementwise instructions of {isa.name} do {', '.join(sorted(functions))}"
            raise _no_kind(op, isa, f"{why}; not {name}", f"leave out the step `{name}`")
    _immediates(op, isa)
    unit = _unit(found[0], isa)
    _types(op, isa, unit)
    return unit


def _immediates(op: Operator, isa: Isa) -> None:
    """Constants that elementwise steps take from the instruction fit its field."""
    mapped = isa.of_kind("map")
    field = mapped.field(mapped.roles["imm"])
    needed = [(s.imm, f"the step `{s}`", "a smaller constant") for s in op.epilogue]
    # A pool's accumulators start from an immediate too, and it has to fit like any other.
    if op.kind in NEUTRAL:
        step, value = NEUTRAL[op.kind]
        if step not in _map_functions(isa):
            why = f"a pool begins with {step} {value}, and {mapped.name} has no portable {step}"
            raise _no_kind(op, isa, why, "use a machine that has the operation")
        needed.append((value, f"the first step of a pool, {step} {value}", "another machine"))
    for imm, what, hint in needed:
        if imm is not None and not field.min <= imm <= field.max:
            why = (
                f"{what} needs {imm}, and immediates of {mapped.name} are {field.min}..{field.max}"
            )
            raise _no_kind(op, isa, why, f"use {hint}")


def _types(op: Operator, isa: Isa, unit: Unit) -> None:
    """Every tensor can be loaded into the memory of its operand without losing bits."""
    accumulator = unit.memory[Role.DST]
    wanted = [(op.lhs.tensor, unit.memory[Role.LHS])]
    # A known factor comes in digit by digit, where sums can be shifted between them.
    if op.rhs is not None and not (op.rhs.tensor in op.values and shifts_left(isa)):
        wanted.append((op.rhs.tensor, unit.memory[Role.RHS]))
    wanted += [(s.access.tensor, accumulator) for s in op.epilogue if s.access is not None]
    for name, where in wanted:
        memory, declared = isa.memory(where), op.tensors[name].dtype
        if memory.load_queue is None:
            why = f"{name} must be loaded into {where}, which nothing loads"
            raise _no_kind(op, isa, why, f"leave it out, or give {where} a `load_queue`")
        # Wider is fine, the host sign-extends; narrower would lose bits without a word.
        if np.dtype(memory.dram_dtype).itemsize < np.dtype(declared).itemsize:
            why = f"{name} is {declared}, and {where} is loaded from {memory.dram_dtype}"
            raise _no_kind(op, isa, why, "use a machine with a wider memory")


def _map_functions(isa: Isa) -> set[str]:
    maps = [i for i in isa.instructions if i.kind == "map"]
    return {m.function for i in maps for m in i.ops if m.portable}


def _unit(instruction: Instruction, isa: Isa) -> Unit:
    dims: Mapping[Role, tuple[str, ...]] = {
        Role(o.role): tuple(o.dims) for o in instruction.operands
    }
    memory: Mapping[Role, str] = {Role(o.role): o.memory for o in instruction.operands}
    # The machine's own order: names and goldens do not change with the order of operands.
    used = [d for d in isa.dims if any(d in v for v in dims.values())]
    # A map may read two accumulators; for the embedding it works in place, which every map can.
    if instruction.kind == "map":
        dims = dict.fromkeys((Role.DST, Role.LHS), dims[Role.DST])
        memory = dict.fromkeys((Role.DST, Role.LHS), memory[Role.DST])
        used = [d for d in isa.dims if d in dims[Role.DST]]
    return Unit(instruction.name, instruction.kind, dims, memory, {d: isa.dims[d] for d in used})


def _no_kind(op: Operator, isa: Isa, why: str, hint: str) -> Infeasible:
    what = f"{op.name} has no embedding in {isa.name}"
    return Infeasible(what, where=op.formula(), why=f"rule 1 (operation kind): {why}", hint=hint)


def accesses(op: Operator, commuted: bool) -> dict[Role, Access]:
    """Instruction operand role -> the operator's access that it serves."""
    factors = [op.lhs] if op.rhs is None else [op.lhs, op.rhs]
    # Commuting swaps which factor is on the left; multiplication does not care, lanes and memories
    # do.
    return {Role.DST: op.out, **dict(zip(FACTORS, factors[:: -1 if commuted else 1], strict=False))}
