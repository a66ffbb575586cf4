"""Cycles below which no covering of an operator runs on a machine, however it is scheduled.

Takes: Operator, Isa, Costs.  Leaves: LowerBound: terms with what binds. Not the bound of the plain
form (`ops.bound`): that one can be undercut by removing work, this one not.

*Covering*: every product of the formula whose two elements exist is made in a lane of a contraction
step, for the accumulator lane of its output; afterwards each stored element goes through passes of
the elementwise instruction. Identities that save products (Winograd, Strassen) are no coverings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import ceil, log2, prod

from csp_embed.ir.operator import Access, Operator
from csp_embed.judge.embedding.fewest_passes import fewest_passes
from csp_embed.machine.costs import Costs
from csp_embed.machine.spec import Isa, Operand
from csp_embed.ops.bound import useful_points


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


def lower_bound(op: Operator, isa: Isa, costs: Costs) -> LowerBound:
    """The bound. Each function below proves its term."""
    contract = isa.of_kind("contract")
    dst, lhs, rhs = contract.operands
    lanes = prod(isa.dims[d] for d in dst.dims)
    # Elements, not bytes: passes go over accumulator vectors, each of which holds at most `lanes`
    # results.
    vectors = ceil(prod(op.tensors[op.out.tensor].shape) / lanes)
    steps = needed_steps(op, isa)
    passes = fewest_passes(op)
    # The cheapest form of any pass: a bound may not know which of them a program uses.
    each = min(costs.immediate_step, costs.tensor_step, costs.step)
    work = steps * costs.step + passes * each * vectors
    first = first_load(isa, (lhs, rhs), costs) if steps else 0.0
    last = last_store(op, costs)
    terms = {
        # Either the first operands are waited for, or the accumulators are reset before them; both
        # share the compute queue with the work, so the larger one is added, never both.
        "compute": max(work + first, work + resets(op, isa, costs) * vectors) + last,
        "reads": needed_bytes(op) / costs.port_bytes + last,
        "writes": prod(op.tensors[op.out.tensor].shape) / costs.port_bytes,
    }
    # Ties go to the first name: the report should not change with the order of a set.
    binds = max(terms, key=lambda name: terms[name])
    # 1e-6 takes back what floating sums add; rounding it up would claim a cycle that is not proved.
    return LowerBound(ceil(terms[binds] - 1e-6), binds, terms, steps, passes)


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


def resets(op: Operator, isa: Isa, costs: Costs) -> float:
    """Cycles of the compute queue until an accumulator element can be summed into, at least.

    Proof. A product belongs to one output, so each stored element begins anew: by a reset, or by a
    load that moves the element's bytes, in the queue that loads accumulators.
    """
    if op.kind != "contract":
        return 0.0
    dst = isa.of_kind("contract").operands[0]
    memory = isa.memory(dst.memory)
    # In another queue the load may overlap with everything; then nothing is added.
    if memory.load_queue != isa.of_kind("contract").queue:
        return 0.0
    return min(costs.reset_step, memory.elem_bytes / costs.port_bytes)


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
    at least the bits of their promised range. Elements are counted where indices share no axis and
    the other operand is never out of range; else the largest count along one dimension stands.
    """
    total = 0.0
    accesses = [op.lhs, *([] if op.rhs is None else [op.rhs])]
    for n, access in enumerate(accesses):
        if access.tensor not in op.values:
            others = [a for m, a in enumerate(accesses) if m != n]
            width = 1 if op.tensors[access.tensor].dtype == "int8" else 4
            # Where another operand may be out of range, some elements meet only missing partners
            # and need not be read.
            total += width * _elements(op, access) if all(_inside(op, a) for a in others) else 0
    for step in op.epilogue:
        if step.access is not None and step.access.tensor not in op.values:
            most = step.bias_range
            # An unpromised tensor of steps may hold any int32, and 32 bits cannot be told in fewer.
            bits = 32.0 if most is None else log2(2 * most + 1)
            total += bits / 8 * _elements(op, step.access)
    return total


def _values(op: Operator, access: Access, dimension: int) -> set[int]:
    """Index values in range along one dimension."""
    ix, size = access.index[dimension], op.tensors[access.tensor].shape[dimension]
    found = {ix.const}
    for a, c in ix.terms:
        found = {v + c * k for v in found for k in range(op.axes[a])}
    return {v for v in found if 0 <= v < size}


def _elements(op: Operator, access: Access) -> int:
    counts = [len(_values(op, access, t)) for t in range(len(access.index))]
    axes = [a for ix in access.index for a, _ in ix.terms]
    return prod(counts) if len(set(axes)) == len(axes) else max(counts, default=1)


def _inside(op: Operator, access: Access) -> bool:
    """No point reads out of range."""
    for ix, size in zip(access.index, op.tensors[access.tensor].shape, strict=True):
        ends = [c * (op.axes[a] - 1) for a, c in ix.terms]
        low = ix.const + sum(min(e, 0) for e in ends)
        if low < 0 or ix.const + sum(max(e, 0) for e in ends) >= size:
            return False
    return True
