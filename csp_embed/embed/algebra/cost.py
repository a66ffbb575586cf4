"""The analytic cost of an embedding, in cycles: what the search minimises.

Takes: Operator, Isa, Unit, layouts.  Leaves: a dict of figures (see `figures`).
It counts work and bytes, each operand read once; schedules are ranked by the cycle engine later.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from csp_embed.embed.algebra.occupancy import Occupancy
from csp_embed.embed.space.unit import Unit, accesses
from csp_embed.ir.affine import Limit, count_inside
from csp_embed.ir.embedding import Counter, Embedding, Layout
from csp_embed.ir.operator import FACTORS, Operator, Role, Step, added
from csp_embed.machine.costs import Costs
from csp_embed.machine.identities import door
from csp_embed.machine.spec import Isa
from csp_embed.ops.counting import useful_points
from csp_embed.ops.wide import width

# Greatest magnitude that a packed constant may have with both signs; -128 has no counterpart.
_INT8_PEAK = 127


def trimmed_steps(layouts: Mapping[str, Layout], counters: Sequence[Counter]) -> int:
    """Micro-op steps whose lhs and rhs elements both exist."""
    limits: list[Limit] = []
    # Results do not limit steps: every step has a home for what it makes.
    for role in FACTORS:
        if role in layouts:
            grid = layouts[role]
            for d, size in enumerate(grid.grid):
                limits.append(
                    ({c: s[d] for c, s in grid.step.items() if s[d]}, grid.origin[d], size)
                )
    return count_inside(limits, {c.name: c.extent for c in counters})


def step_cycles(step: Step, reach: int, costs: Costs) -> float:
    """Cycles per output element of one epilogue step: by an immediate, by a tensor, or, where one
    contraction against constants can reach the tensor's values, a contraction step."""
    if step.access is None:
        return costs.immediate_step
    promised = step.bias_range
    by_contraction = step.op == "add" and promised is not None and promised <= reach
    return costs.step if by_contraction else costs.tensor_step


def bias_reach(unit: Unit) -> int:
    """Greatest |value| that one contraction step adds when one lane holds 1 and the rest 127."""
    if unit.kind != "contract":
        # No contraction, no reach: -1 is below every promise, so nothing is priced as a
        # contraction.
        return -1
    lanes = math.prod(unit.size[d] for d in unit.reduced)
    return (lanes - 1) * _INT8_PEAK * _INT8_PEAK + _INT8_PEAK


def element_bytes(isa: Isa, memory: str) -> int:
    """Bytes of one element in DRAM."""
    return math.prod(isa.lane_shape(memory)) * np.dtype(isa.memory(memory).dram_dtype).itemsize


@dataclass(frozen=True)
class Weights:
    """Cost per unit of work, in 1/256 cycle: the analytic cost is linear in steps and elements.

    step: a micro-op step. vector: an output element's reset and epilogue. read: operand -> loading
    one of its elements. brought: operand -> compute that brings one of its elements into the
    accumulators, where a load does not. write: storing an output element. host: operand of the
    operator ("lhs", "rhs" as the formula has them, "add0", …) -> bytes of an element that the host
    packs at run time, 0 for constants.
    """

    step: int
    vector: int
    read: Mapping[str, int]
    write: int
    packed: Mapping[str, int]
    run_time: Mapping[str, bool]
    brought: Mapping[str, int] = field(default_factory=dict[str, int])

    def host(self, role: str, commuted: bool) -> int:
        """Host bytes per element of an instruction operand."""
        other: dict[str, str] = {Role.LHS: Role.RHS, Role.RHS: Role.LHS}
        # Commuted, the instruction's lhs serves the formula's rhs, so who is a constant changes
        # places.
        played = other.get(role, role) if commuted else role
        return self.packed[role] if self.run_time.get(played, self.run_time[role]) else 0


def weights(op: Operator, isa: Isa, unit: Unit, costs: Costs) -> Weights:
    """The cost of one of each, for this operator on this machine."""
    contract = unit.kind == "contract"
    # Elementwise operators run in the accumulators, two tensors a step.
    # A wide factor is multiplied digit by digit, with a shift after each but the last.
    digits = width(op)
    step = digits * costs.step if contract else costs.tensor_step
    reach = bias_reach(unit)
    vector = sum(step_cycles(s, reach, costs) for s in op.epilogue)
    vector += costs.reset_step + (digits - 1) * costs.immediate_step if contract else 0
    reads = accesses(op, commuted=False) | op.steps_read()
    # What is written is no operand that is read.
    del reads[Role.DST]
    packed = {role: element_bytes(isa, unit.memory_of(role)) for role in reads}
    brought, saved = ({}, 0.0) if contract else _by_identity(op, isa, unit, costs, packed)
    vector -= saved
    return Weights(
        # Whole 1/256 cycles, for CP-SAT counts in integers, and sums are the same on every
        # computer.
        step=round(256 * step),
        vector=round(256 * vector),
        read={role: round(256 * n / costs.read_bytes) for role, n in packed.items()},
        write=round(256 * costs.store_cycles(stored_bytes(isa, unit))),
        packed=packed,
        run_time={r: not op.tensors[a.tensor].constant for r, a in reads.items()},
        brought=brought,
    )


def _by_identity(
    op: Operator, isa: Isa, unit: Unit, costs: Costs, packed: dict[str, int]
) -> tuple[dict[str, int], float]:
    """Narrow operands that come in by an identity where that is cheaper than loads as wide as
    sums: compute for an element of each, as in `Weights.brought`, and what a vector of the result
    saves. Sets the bytes of their elements in `packed`."""
    # Only streams are built that way.
    way = door(isa, unit.memory[Role.DST], _item(op.tensors[op.lhs.tensor].dtype))
    if way is None or isa.program is not None or isa.commands is not None:
        return {}, 0.0
    narrow, work = element_bytes(isa, way.memory), costs.step + costs.reset_step
    if (packed[Role.LHS] - narrow) / costs.read_bytes <= work:
        return {}, 0.0
    packed[Role.LHS] = narrow
    brought, saved = {str(Role.LHS): round(256 * work)}, 0.0
    most = _item(isa.memory(way.memory).dram_dtype)
    reads = [s for s in op.epilogue if s.access is not None]
    for n, step in enumerate(reads):
        assert step.access is not None
        # The contraction is the addition.
        if step.op == "add" and _item(op.tensors[step.access.tensor].dtype) <= most:
            packed[added(n)], brought[added(n)] = narrow, 0
            saved += costs.tensor_step - costs.step
    return brought, saved


def _item(dtype: str) -> int:
    return np.dtype(dtype).itemsize


def stored_bytes(isa: Isa, unit: Unit) -> int:
    """Bytes that storing one output element writes (of the accumulator's shadow, if any)."""
    memory = unit.memory[Role.DST]
    # VTA stores from OUT, which mirrors ACC with a quarter of its bytes; without a mirror the
    # memory itself.
    shadow = next((m.name for m in isa.memories if m.shadow_of == memory and m.store_queue), memory)
    return element_bytes(isa, shadow)


def figures(
    op: Operator,
    isa: Isa,
    unit: Unit,
    layouts: Mapping[str, Layout],
    counters: Sequence[Counter],
    counts: Mapping[str, Occupancy],
    commuted: bool,
    w: Weights,
) -> dict[str, float]:
    """Cost figures of one embedding.

    Units: steps (micro-op steps after trimming), vectors (output elements of the accumulator),
    macs (operator points), *_cycles, *_bytes (packed, in DRAM), utilisation (of lanes, by points
    that read no padding; 0 where they are not counted), zero_fill (share of
    packed lanes of lhs and rhs without data), host_bytes (packed at run time), widened_bytes (those
    of them that the host also widens, int8 into int32), duplication (packed tensor elements per
    distinct one, run-time operands), objective (cycles, with tie-breakers).
    """
    # Everything below is a function of these counts alone.
    steps, elements = trimmed_steps(layouts, counters), {r: v.elements for r, v in layouts.items()}
    inputs = [r for r in layouts if r != Role.DST]
    run_time = [r for r in inputs if w.host(r, commuted)]
    # Constants are packed before the program runs, so their copies cost nobody a second time.
    distinct = sum(counts[r].distinct for r in run_time)
    lanes = {r: elements[r] * math.prod(isa.lane_shape(layouts[r].memory)) for r in inputs}
    factors = [r for r in inputs if r in FACTORS]
    spent = parts(w, steps, elements, commuted)
    compute, read, write, host = spent
    macs = math.prod(op.axes.values())
    sizes = {f"{r}_bytes": float(elements[r] * w.packed[r]) for r in inputs}
    return sizes | {
        "dst_bytes": elements[Role.DST] * stored_bytes(isa, unit),
        "steps": steps,
        "vectors": elements[Role.DST],
        "macs": macs,
        # Useful points over lanes spent: counting pad as use would reward wide lanes that hold
        # nothing.
        "utilisation": (useful_points(op) or 0) / (max(steps, 1) * math.prod(unit.size.values())),
        "compute_cycles": compute / 256,
        "read_cycles": read / 256,
        "write_cycles": write / 256,
        "host_bytes": host,
        "widened_bytes": sum(
            elements[r] * w.packed[r]
            for r in run_time
            if r not in w.brought and widened(op, isa, layouts[r])
        ),
        "zero_fill": 1 - sum(counts[r].filled for r in factors) / sum(lanes[r] for r in factors),
        # max with 1: an operator without run-time operands duplicates nothing.
        "duplication": sum(counts[r].filled for r in run_time) / max(distinct, 1),
        "objective": objective(*spent) / UNIT,
    }


def widened(op: Operator, isa: Isa, layout: Layout) -> bool:
    """Whether the tensor's type is narrower than the memory's lanes in DRAM."""
    return isa.memory(layout.memory).dram_dtype != op.tensors[layout.tensor].dtype


# 256 for the units of work and 32 for the share of the sum.
UNIT = 8192  # of the objective, in a cycle


def parts(
    w: Weights, steps: Any, elements: Mapping[str, Any], commuted: bool
) -> tuple[Any, Any, Any, Any]:
    """Compute, read and write in 1/256 cycle, and bytes that the host packs; of numbers, arrays or
    expressions of the solver."""
    # The order of the parts is that of `objective`.
    compute = w.step * steps + w.vector * elements[Role.DST]
    compute += sum(cost * elements[r] for r, cost in w.brought.items())
    read = sum(cost * elements[r] for r, cost in w.read.items())
    host = sum(w.host(r, commuted) * elements[r] for r in w.read)
    return compute, read, w.write * elements[Role.DST], host


def objective(compute: Any, read: Any, write: Any, host: Any, slowest: Any = max) -> Any:
    """In 1/8192 cycle: the slowest of compute, read port and write port, 1/32 of their sum, which
    stands for ramps and re-reads, and 1/256 cycle per byte that the host packs.

    The only place that says so: it takes numbers, arrays (slowest: `elementwise`) and expressions
    of the solver (slowest: a variable's constraints).
    """
    # Integers throughout where the inputs are: no bound of the solver hangs on rounding.
    return 32 * slowest(compute, read, write) + compute + read + write + 32 * host


def elementwise(*parts: Any) -> Any:
    """`max` of arrays."""
    return functools.reduce(np.maximum, parts)


def describe(embedding: Embedding) -> str:
    """One line for a table."""
    c = embedding.cost
    return (
        f"{embedding.kind:9s} {c['steps']:>10.0f} steps {c['vectors']:>8.0f} vectors "
        f"compute {c['compute_cycles']:>10.0f} read {c['read_cycles']:>10.0f} "
        f"write {c['write_cycles']:>9.0f} util {c['utilisation']:.3f} | {embedding.formula()}"
    )
