"""The scalar dataflow of one micro-operation of an instruction, from its parsed statement.

Takes: a compute instruction.  Leaves: `ir.dfg.Dataflow`, the type that operators have: points are
the lanes' index space, tensors are single memory elements; `Dataflow.expand()` lists the edges.
"""

from __future__ import annotations

from csp_embed.errors import SpecError
from csp_embed.ir.affine import Affine
from csp_embed.ir.dfg import Dataflow, Read
from csp_embed.ir.operator import Access
from csp_embed.machine.spec import Instruction, Isa, Operand

# How `ir.dfg` calls a function of two reads where the plain name means a reduction.
_PAIRWISE = {"min": "min2", "max": "max2"}


def expand(isa: Isa, name: str, op: str | None = None, *, immediate: bool = False) -> Dataflow:
    """The dataflow of one micro-operation of instruction `name`.

    op: name of the operation of a map instruction. immediate: its form that reads no second tensor.
    A contraction reads lhs and rhs and adds into the result; a map reads its dst and lhs.
    Raises: SpecError for an instruction without points (loads, stores, finish) or an unknown op.

    >>> from csp_embed.machine.load import load_isa
    >>> expand(load_isa("vta"), "GEMM").statement()
    'ACC[b,o] += INP[b,i] * WGT[o,i]'
    """
    instruction = next((i for i in isa.instructions if i.name == name), None)
    # Loads and stores move whole elements; they have no points to join.
    if instruction is None or not instruction.operands:
        compute = [i.name for i in isa.instructions if i.operands]
        raise SpecError(
            f"{isa.name} has no compute instruction '{name}'",
            why=f"it has {', '.join(compute)}",
            hint=f"one of {', '.join(compute)}",
        )
    dst, *sources = instruction.operands
    if instruction.kind == "contract":
        function, reads = "mac", sources
    else:
        function = _function(isa, instruction, op)
        # With an immediate both reads are one tensor: the second is a constant of the instruction.
        reads = [dst] if immediate else [dst, *sources]
    # Dimensions in the order of the operands: a list of names that is the same in every run.
    dims = dict.fromkeys(d for operand in instruction.operands for d in operand.dims)
    return Dataflow(
        name=f"{isa.name}.{name}" + (f".{op}" if op else ""),
        function=function,
        axes={d: isa.dims[d] for d in dims},
        out=_access(dst),
        out_shape=isa.lane_shape(dst.memory),
        reads=tuple(Read(o.role, _access(o), isa.lane_shape(o.memory)) for o in reads),
    )


def _function(isa: Isa, instruction: Instruction, op: str | None) -> str:
    for known in instruction.ops:
        if known.name == op:
            return _PAIRWISE.get(known.function, known.function)
    raise SpecError(
        f"{isa.name}.{instruction.name} has no operation '{op}'",
        why=f"it has {', '.join(o.name for o in instruction.ops)}",
        hint=f"one of {', '.join(o.name for o in instruction.ops)}",
    )


def _access(operand: Operand) -> Access:
    # Lanes index an element directly: one dimension each, factor 1.
    return Access(operand.memory, tuple(Affine(((d, 1),)) for d in operand.dims))
