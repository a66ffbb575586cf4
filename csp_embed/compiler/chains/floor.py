"""Cycles that a layer takes in the compute queue of any program that computes it as it was lowered.

Takes: a lowered layer, a machine and its costs.  Leaves: cycles. A machine has one compute queue,
so that floors of layers add up however a program overlaps them: whatever its embeddings, layouts
and schedules are, a constant that is not 0 in some round is multiplied once for each of its points,
and every vector of results is begun once and has all steps of its rounds.
"""

from __future__ import annotations

import math
from functools import reduce

import numpy as np

from csp_embed.machine.costs import Costs
from csp_embed.machine.spec import Isa
from csp_embed.network.lower.lowered import Lowered


def floor_cycles(made: Lowered, isa: Isa, costs: Costs) -> float:
    """See above; a step counts as the cheapest way to make it, every lane as full."""
    op, contract = made.op, isa.of_kind("contract")
    lanes = math.prod(isa.dims[d] for d in {d for o in contract.operands for d in o.dims})
    wide = math.prod(isa.dims[d] for d in contract.operands[0].dims)
    vectors = math.ceil(math.prod(op.tensors[op.out.tensor].shape) / wide)
    steps = sum(map(len, made.rounds)) + len(op.epilogue) - len(made.dropped)
    cheapest = min(costs.step, costs.immediate_step, costs.tensor_step)
    each = min(costs.reset_step, cheapest) + steps * cheapest
    return products(made) / lanes * costs.step + vectors * each


def products(made: Lowered) -> int:
    """Products with constants that are not 0 in every round; 0 where they are not told apart."""
    op = made.op
    assert op.rhs is not None
    # Each index one axis of its own: then every constant has as many points as the others.
    if any(len(ix.terms) != 1 or ix.const or ix.terms[0][1] != 1 for ix in op.rhs.index):
        return 0
    held = [c[op.rhs.tensor] != 0 for c in made.constants if op.rhs.tensor in c]
    if not held:
        return 0
    used = int(np.count_nonzero(reduce(np.logical_or, held)))
    own = {ix.terms[0][0] for ix in op.rhs.index}
    return used * math.prod(n for a, n in op.axes.items() if a not in own)
