"""Operands of pools and elementwise programs that a contraction with an identity can bring in.

A load of accumulators moves elements as wide as sums and takes the compute queue. A factor is as
narrow as the tensor itself and has a queue of its own; multiplied with an identity matrix its lanes
become those of an accumulator, one step an element. Whether that takes fewer cycles is measured.
"""

from __future__ import annotations

import numpy as np

from csp_embed.ir.schedule import Identity
from csp_embed.machine.identities import door
from csp_embed.schedule.inputs import Problem


def find(problem: Problem) -> Identity | None:
    """What could come in so; None where the machine, or the type of the source, does not allow."""
    if problem.rhs is not None:
        return None
    op, layouts = problem.embedding.operator, problem.embedding.layouts
    way = door(problem.isa, problem.dst.memory, _declared(problem, op.lhs.tensor))
    if way is None:
        return None
    narrow = np.dtype(problem.isa.memory(way.memory).dram_dtype).itemsize
    # What a step adds may be added by the contraction itself; other steps need it beside.
    more = [
        m.operand
        for i, m in problem.adds.items()
        if problem.epilogue[i].op == "add"
        and narrow >= _declared(problem, layouts[m.operand].tensor)
    ]
    return Identity(way.role, way.held, way.dims, ("lhs", *more))


def _declared(problem: Problem, tensor: str) -> int:
    return np.dtype(problem.embedding.operator.tensors[tensor].dtype).itemsize
