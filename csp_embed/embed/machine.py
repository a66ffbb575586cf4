"""What an embedding needs to know of a compute instruction: its operands and their dimensions.

Takes: Isa, Operator.  Leaves: `Unit`, the instruction that can do the operator, and which of the
operator's accesses plays which operand.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from csp_embed.errors import Infeasible
from csp_embed.ir.operator import Access, Operator
from csp_embed.isa.spec import Instruction, Isa


@dataclass(frozen=True)
class Unit:
    """A compute instruction as the embedding sees it.

    dims: operand role -> its lane dimensions; memory: role -> memory name;
    size: dimension -> lanes.
    """

    instruction: str
    kind: str
    dims: Mapping[str, tuple[str, ...]]
    memory: Mapping[str, str]
    size: Mapping[str, int]

    @property
    def reduced(self) -> tuple[str, ...]:
        """Dimensions over which the instruction itself sums."""
        return tuple(d for d in self.size if d not in self.dims["dst"])

    def lacking(self, dim: str) -> tuple[str, ...]:
        """Operands that a lane of `dim` does not select."""
        return tuple(role for role, dims in self.dims.items() if dim not in dims)


def unit_for(op: Operator, isa: Isa) -> Unit:
    """The instruction of `isa` that can do `op`.

    Raises: Infeasible (rule 1, same kind) where the machine has none, or lacks an epilogue step.
    """
    kind = "contract" if op.kind == "contract" else "map"
    found = [i for i in isa.instructions if i.kind == kind]
    if not found:
        raise _no_kind(op, isa, f"{isa.name} has no {kind} instruction", "use another machine")
    functions = _map_functions(isa)
    needed = [step.op for step in op.epilogue]
    if op.kind in ("max", "min"):
        needed.append(op.kind)
    for name in needed:
        if name not in functions:
            why = f"the elementwise instructions of {isa.name} do {', '.join(sorted(functions))}"
            raise _no_kind(op, isa, f"{why}; not {name}", f"leave out the step `{name}`")
    return _unit(found[0], isa)


def _map_functions(isa: Isa) -> set[str]:
    maps = [i for i in isa.instructions if i.kind == "map"]
    return {m.function for i in maps for m in i.ops if m.portable}


def _unit(instruction: Instruction, isa: Isa) -> Unit:
    dims = {o.role: tuple(o.dims) for o in instruction.operands}
    memory = {o.role: o.memory for o in instruction.operands}
    used = [d for d in isa.dims if any(d in v for v in dims.values())]
    if instruction.kind == "map":
        dims = {"dst": dims["dst"], "lhs": dims["dst"]}
        memory = {"dst": memory["dst"], "lhs": memory["dst"]}
        used = [d for d in isa.dims if d in dims["dst"]]
    return Unit(instruction.name, instruction.kind, dims, memory, {d: isa.dims[d] for d in used})


def _no_kind(op: Operator, isa: Isa, why: str, hint: str) -> Infeasible:
    what = f"{op.name} has no embedding in {isa.name}"
    return Infeasible(what, where=op.formula(), why=f"rule 1 (operation kind): {why}", hint=hint)


def accesses(op: Operator, commuted: bool) -> dict[str, Access]:
    """Instruction operand role -> the operator's access that it serves."""
    roles = {"dst": op.out}
    if op.rhs is None:
        roles["lhs"] = op.lhs
    elif commuted:
        roles["lhs"], roles["rhs"] = op.rhs, op.lhs
    else:
        roles["lhs"], roles["rhs"] = op.lhs, op.rhs
    return roles
