"""Operands of pools and elementwise programs that a contraction with an identity can bring in.

A load of accumulators moves elements as wide as sums and takes the compute queue. A factor is as
narrow as the tensor itself and has a queue of its own; multiplied with an identity matrix its lanes
become those of an accumulator, one step an element. Whether that takes fewer cycles is measured.
"""

from __future__ import annotations

import numpy as np

from csp_embed.ir.schedule import Identity
from csp_embed.machine.spec import Isa, Operand
from csp_embed.schedule.inputs import Problem


def find(problem: Problem) -> Identity | None:
    """What could come in so; None where the machine, or the type of the source, does not allow."""
    if problem.rhs is not None:
        return None
    isa, op = problem.isa, problem.embedding.operator
    contract = next((i for i in isa.instructions if i.kind == "contract"), None)
    if contract is None:
        return None
    operands = {o.role: o for o in contract.operands}
    if operands["dst"].memory != problem.dst.memory:
        return None
    for role, held in (("lhs", "rhs"), ("rhs", "lhs")):
        dims = _dims(isa, operands["dst"], operands[role], operands[held])
        narrow = _item(isa, operands[role].memory)
        layouts = problem.embedding.layouts
        if dims is None or narrow < _declared(problem, op.lhs.tensor):
            continue
        # What a step adds may be added by the contraction itself; other steps need it beside.
        more = [
            m.operand
            for i, m in problem.adds.items()
            if problem.epilogue[i].op == "add"
            and narrow >= _declared(problem, layouts[m.operand].tensor)
        ]
        return Identity(role, held, dims, ("lhs", *more))
    return None


def _dims(isa: Isa, dst: Operand, factor: Operand, held: Operand) -> tuple[str, str] | None:
    """(dimension of the factor, dimension of the result that it becomes), where the factor has the
    result's dimensions but for that one."""
    own = set(factor.dims) - set(dst.dims)
    become = set(dst.dims) - set(factor.dims)
    if len(own) != 1 or len(become) != 1 or set(held.dims) != own | become:
        return None
    (a,), (b,) = own, become
    loaded = all(isa.memory(o.memory).load_queue is not None for o in (factor, held))
    # A result with more lanes than the factor would take several steps an element.
    return (a, b) if loaded and isa.dims[a] >= isa.dims[b] else None


def _item(isa: Isa, memory: str) -> int:
    return np.dtype(isa.memory(memory).dram_dtype).itemsize


def _declared(problem: Problem, tensor: str) -> int:
    return np.dtype(problem.embedding.operator.tensors[tensor].dtype).itemsize
