"""Cycles below which no covering of an operator runs on a machine, however it is scheduled.

Takes: Operator, Isa, Costs.  Leaves: LowerBound: terms with what binds. Not the bound of the plain
form (`ops.bound`): that one can be undercut by removing work, this one not.

*Covering*: every product of the formula whose two elements exist is made in a lane of a contraction
step, for the accumulator lane of its output; afterwards each stored element goes through passes of
the elementwise instruction. A tensor that the epilogue adds is a pass' operand, or loaded into the
accumulator, or a sum of products of constants that depend on it alone; whatever else a step makes
is 0. The stream is right for all elements of all tensors within what is promised of them.
Identities that save products (Winograd, Strassen) are no coverings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from math import ceil, log2, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Access, Operator, Step
from csp_embed.judge.embedding.compute_work import compute_work
from csp_embed.machine.costs import Costs
from csp_embed.machine.spec import Isa, Operand
from csp_embed.ops.counting import elements_met, useful_points


@dataclass(frozen=True)
class LowerBound:
    """cycles: the largest of terms (name -> cycles), rounded up; binds: its name. steps, passes:
    contraction steps, and passes of a stored element, that are needed at least."""

    cycles: int
    binds: str
    terms: Mapping[str, float]
    steps: int
    passes: int

    def show(self) -> str:
        """One line."""
        terms = ", ".join(f"{name} {ceil(v):,}" for name, v in self.terms.items())
        return f"at least {self.cycles:,} cycles for any covering ({self.binds} binds): {terms}"


def lower_bound(
    op: Operator, isa: Isa, costs: Costs, known: Mapping[str, NDArray[Any]] | None = None
) -> LowerBound:
    """The bound. Each function below proves its term.

    known: tensors that the stream was made for; of those that the epilogue adds, no more is taken
    as promised than what they hold.
    """
    op = replace(op, epilogue=tuple(_promised(s, known or {}) for s in op.epilogue))
    contract = isa.of_kind("contract")
    _, lhs, rhs = contract.operands
    work = compute_work(op, isa, costs)
    # What the outputs need takes each lane of an accumulator for itself; this, the factors' lanes.
    steps = needed_steps(op, isa)
    cycles = max(work.cycles, steps * costs.step + work.around)
    first = first_load(isa, (lhs, rhs), costs) if steps else 0.0
    last = last_store(op, costs)
    terms = {
        # Either the first operands are waited for, or the sums are begun before them; both share
        # the compute queue with the work, so the larger one is added, never both.
        "compute": cycles + max(0.0, first - work.begun) + last,
        "reads": needed_bytes(op) / costs.port_bytes + last,
        "writes": prod(op.tensors[op.out.tensor].shape) / costs.port_bytes,
    }
    # Ties go to the first name: the report should not change with the order of a set.
    binds = max(terms, key=lambda name: terms[name])
    # 1e-6 takes back what floating sums add; rounding it up would claim a cycle that is not proved.
    return LowerBound(ceil(terms[binds] - 1e-6), binds, terms, max(steps, work.steps), work.passes)


def _promised(step: Step, known: Mapping[str, NDArray[Any]]) -> Step:
    values = None if step.access is None else known.get(step.access.tensor)
    if values is None:
        return step
    # int64 first: |-2^31| has no int32.
    return replace(step, bias_range=int(np.abs(values.astype(np.int64)).max(initial=0)))


def needed_steps(op: Operator, isa: Isa) -> int:
    """Contraction steps of any covering, regular or not; 0 where products are not counted.

    Proof. A step multiplies one left by one right element. A lane of the left element holds one
    element a of a tensor; it meets as many lanes as the dimensions that it lacks have, and no
    product is made twice, so it makes at most min(these lanes, products of the formula that read a)
    products: at most left lanes times that in all. The same holds for lanes of the right element,
    and for accumulator lanes with the products of one output. Either tensor may be on the left, in
    each step anew: the larger of both capacities is the most that any step makes. Products needed
    over it, rounded up, are needed steps.
    """
    products = useful_points(op) if op.kind == "contract" else 0
    if not products or op.rhs is None:
        return 0
    operands = isa.of_kind("contract").operands
    every = {d for o in operands for d in o.dims}

    def most(operand: Operand, access: Access) -> int:
        own = prod(isa.dims[d] for d in operand.dims)
        met = prod(isa.dims[d] for d in every - set(operand.dims))
        return own * min(met, readers(op, access))

    dst, lhs, rhs = operands
    sides = ((op.lhs, op.rhs), (op.rhs, op.lhs))
    # min: each of the three sides limits a step by itself; max: a step may put either tensor on the
    # left.
    capacity = max(
        min(most(dst, op.out), most(lhs, left), most(rhs, right)) for left, right in sides
    )
    return ceil(products / capacity)


def readers(op: Operator, access: Access) -> int:
    """Points of the operator that name one element of a tensor, at most.

    Proof. Axes that the access lacks are free. Of an index that several axes make, all but one may
    be chosen, and then the index' value leaves at most one value of the last: fewest where the last
    is the longest. An axis that two indices name is counted for both, which only makes it more.
    """
    named = {a for ix in access.index for a, _ in ix.terms}
    free = prod(n for a, n in op.axes.items() if a not in named)
    for ix in access.index:
        sizes = [op.axes[a] for a, _ in ix.terms]
        free *= prod(sizes) // max(sizes, default=1)
    return free


def first_load(isa: Isa, operands: tuple[Operand, Operand], costs: Costs) -> float:
    """Cycles before the first contraction step: its two elements come over the port, in full."""
    return sum(isa.memory(o.memory).elem_bytes for o in operands) / costs.port_bytes


def last_store(op: Operator, costs: Costs) -> float:
    """Cycles after the last step: an element that it wrote, one byte of the result at least, is
    stored."""
    return min(1, prod(op.tensors[op.out.tensor].shape)) / costs.port_bytes


def needed_bytes(op: Operator) -> float:
    """Bytes that any covering reads: each element that some existing product needs, once.

    Proof. An element that takes part in the result must come over the port; an int8 element is one
    byte, whatever the packing, as the host may not do the operator's work. Of tensors of the steps,
    at least the bits of their promised range. Elements are those that points that exist read; none
    where they are not counted.
    """
    total = 0.0
    accesses = [op.lhs, *([] if op.rhs is None else [op.rhs])]
    for access in accesses:
        if access.tensor not in op.values:
            width = 1 if op.tensors[access.tensor].dtype == "int8" else 4
            total += width * (elements_met(op, access) or 0)
    for step in op.epilogue:
        if step.access is not None and step.access.tensor not in op.values:
            most = step.bias_range
            # An unpromised tensor of steps may hold any int32, and 32 bits cannot be told in fewer.
            bits = 32.0 if most is None else log2(2 * most + 1)
            total += bits / 8 * (elements_met(op, step.access) or 0)
    return total
