"""Cycles of the compute queue that an operator's outputs need, at least, whatever the covering.

Each output has one lane of one accumulator element until it is stored, and every step works on one
element. So a step gives an output as many products as the dimensions that the accumulator lacks
have lanes, and what an output needs, its element needs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import ceil, prod

from csp_embed.ir.operator import Operator
from csp_embed.judge.embedding.carried import Carried
from csp_embed.judge.embedding.fewest_passes import fewest_passes, free
from csp_embed.machine.costs import Costs
from csp_embed.machine.spec import Isa
from csp_embed.ops.counting import points_of_outputs


@dataclass(frozen=True)
class Work:
    """steps: of contraction; passes: of one output, the most; cycles: all that the outputs need;
    around: of these, what is neither a step nor brings a tensor; begun: of these, what begins
    sums, which may overlap with the first load."""

    steps: int
    passes: int
    cycles: float
    around: float
    begun: float


def compute_work(op: Operator, isa: Isa, costs: Costs) -> Work:
    """The sum over accumulator elements of what their outputs need.

    Proof. An element that is stored once holds at most `lanes` outputs. If so many outputs need at
    least v, then at least (their number / lanes, rounded up) elements do; the sum over elements is
    the integral of that over v (`_elements_need`).
    """
    counts = points_of_outputs(op) if op.kind == "contract" else None
    contract = isa.of_kind("contract")
    dst = contract.operands[0]
    lanes = prod(isa.dims[d] for d in dst.dims)
    if not counts:
        return Work(0, 0, 0.0, 0.0, 0.0)
    every = {d for o in contract.operands for d in o.dims}
    met = prod(isa.dims[d] for d in every - set(dst.dims))
    carried = Carried(op, met) if free(op) else None
    needs = {p: _Need.of(op, isa, costs, p, met, carried) for p in counts if p}
    outputs = [(needs[p], n) for p, n in counts.items() if p]

    def total(need: Callable[[_Need], float]) -> float:
        return _elements_need(((need(d), n) for d, n in outputs), lanes)

    cycles, each, begin = total(lambda d: d.cycles), cheapest_pass(costs), begin_sum(isa, costs)
    return Work(
        int(total(lambda d: d.steps)),
        max((d.passes for d in needs.values()), default=0),
        cycles,
        total(lambda d: d.passes * each + begin),
        cycles - total(lambda d: d.cycles_begun),
    )


def _elements_need(outputs: Iterable[tuple[float, int]], lanes: int) -> float:
    """Of (need, outputs with that need): what all elements need at least."""
    total, left, before = 0.0, 0, 0.0
    rising = sorted(outputs)
    left = sum(n for _, n in rising)
    for need, n in rising:
        total += (need - before) * ceil(left / lanes)
        left, before = left - n, need
    return total


@dataclass(frozen=True)
class _Need:
    """What an output needs: contraction steps and passes; cycles in all, and without what begins
    its sum."""

    steps: int
    passes: int
    cycles: float
    cycles_begun: float

    @classmethod
    def of(
        cls, op: Operator, isa: Isa, costs: Costs, points: int, met: int, carried: Carried | None
    ) -> _Need:
        """Of an output with so many products; met: products of a step for one output.

        Proof for a tensor that is added (otherwise steps, passes and a beginning are all). A step
        or an addition that brings it is none of the passes, which are no additions. Either (a) a
        load of the accumulator brings it, which begins the sum as well; or (b) some pass has it
        as an operand, and is a tensor step instead of the cheapest one; or (c) a step has no
        product of the sum for this output; or (d) all products that carry it share the steps of the
        sum, before the passes, and then there are as many as `Carried` proves.
        """
        steps = ceil(points / met)
        passes = fewest_passes(op, points) if _one_queue(isa) else 0
        each = cheapest_pass(costs)
        load, begin = begin_by_load(isa, costs), begin_sum(isa, costs)
        work = steps * costs.step + passes * each
        n = carried.least_products(points) if carried is not None else 0
        if not n:
            return cls(steps, passes, work + begin, work)
        shared = (ceil((points + n) / met) - steps) * costs.step
        apart = min(costs.tensor_step - each, costs.step, shared)
        return cls(
            steps, passes,
            work + min(load, begin + apart),
            work + min(load, apart),
        )  # fmt: skip


def cheapest_pass(costs: Costs) -> float:
    """A bound may not know which form of a pass a program uses."""
    return min(costs.immediate_step, costs.tensor_step, costs.step)


def begin_sum(isa: Isa, costs: Costs) -> float:
    """Cycles of the compute queue until an accumulator element can be summed into, at least.

    Proof. A product belongs to one output, so each stored element begins anew: by a reset, a pass
    that leaves a constant, the zeros of a padded load, one a cycle, or a load.
    """
    return min(costs.reset_step, cheapest_pass(costs), 1.0, begin_by_load(isa, costs))


def begin_by_load(isa: Isa, costs: Costs) -> float:
    """Cycles of the compute queue that loading an accumulator element takes; 0 where loads have
    another queue, and may overlap with everything."""
    contract = isa.of_kind("contract")
    name = contract.operands[0].memory
    doors = [m for m in isa.memories if m.name == name or m.alias_of == name]
    return min(
        m.elem_bytes / costs.port_bytes if m.load_queue == contract.queue else 0.0
        for m in doors if m.load_queue is not None
    )  # fmt: skip


def _one_queue(isa: Isa) -> bool:
    """Whether passes wait for steps, and steps for passes."""
    maps = [i.queue for i in isa.instructions if i.kind == "map"]
    return all(q == isa.of_kind("contract").queue for q in maps)
