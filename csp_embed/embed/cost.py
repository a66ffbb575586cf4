"""The analytic cost of an embedding, in cycles: what the search minimises.

Takes: Operator, Isa, Unit, layouts.  Leaves: a dict of figures (see `figures`).
It counts work and bytes, each operand read once; schedules are ranked by the cycle engine later.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from csp_embed.embed.machine import Unit
from csp_embed.embed.occupancy import Occupancy
from csp_embed.ir.embedding import Counter, Embedding, Layout
from csp_embed.ir.operator import Operator, Step
from csp_embed.isa.spec import Isa

# Used where the specification gives no rate; VTA's figures (facts: 8 bytes a beat, 3.4 cycles for
# the two beats of an output element).
_READ_BYTES_PER_CYCLE = 8.0
_WRITE_BYTES_PER_CYCLE = 16 / 3.375
_INT8_PEAK = 127


def rates(isa: Isa) -> tuple[float, float]:
    """Bytes a cycle that the read port and the write port move, of the machine's first cost table."""
    table = next(iter(isa.costs.values()), {})
    read = float(table.get("read_bytes_per_cycle", table.get("bytes_per_cycle", 8.0)))
    return read, float(table.get("write_bytes_per_cycle", _WRITE_BYTES_PER_CYCLE))


def trimmed_steps(layouts: Mapping[str, Layout], counters: Sequence[Counter]) -> int:
    """Micro-op steps whose lhs and rhs elements both exist.

    Counters that no grid boundary couples multiply; coupled ones (an output row and a filter row)
    are counted by enumeration.
    """
    trips = {c.name: c.extent for c in counters}
    limits: list[tuple[dict[str, int], int, int]] = []
    for role in ("lhs", "rhs"):
        layout = layouts.get(role)
        if layout is None:
            continue
        for d, size in enumerate(layout.grid):
            step = {c: s[d] for c, s in layout.step.items() if s[d]}
            reach = [s * (trips[c] - 1) for c, s in step.items()]
            low = layout.origin[d] + sum(min(r, 0) for r in reach)
            high = layout.origin[d] + sum(max(r, 0) for r in reach)
            if low < 0 or high >= size:
                limits.append((step, layout.origin[d], size))
    total, done = 1, set()
    for group in _coupled([set(s) for s, _, _ in limits]):
        names = sorted(group)
        done |= group
        inside = np.ones((1,) * len(names), dtype=bool)
        for step, origin, size in limits:
            if set(step) <= group:
                index = np.array(origin)
                for n, c in enumerate(names):
                    shape = [1] * len(names)
                    shape[n] = trips[c]
                    index = index + (step.get(c, 0) * np.arange(trips[c])).reshape(shape)
                inside = inside & (index >= 0) & (index < size)
        free = math.prod(trips[c] for n, c in enumerate(names) if inside.shape[n] == 1)
        total *= int(inside.sum()) * free
    return total * math.prod(c.extent for c in counters if c.name not in done)


def _coupled(sets: list[set[str]]) -> list[set[str]]:
    groups: list[set[str]] = []
    for s in sets:
        touching = [g for g in groups if g & s]
        groups = [g for g in groups if not g & s] + [s.union(*touching)]
    return groups


def step_cycles(step: Step, reach: int) -> int:
    """Cycles per output element of one epilogue step: an immediate costs 1, a tensor 2; a tensor
    whose values one contraction against constants can reach costs 1 as well."""
    if step.access is None:
        return 1
    promised = step.bias_range
    return 1 if step.op == "add" and promised is not None and promised <= reach else 2


def bias_reach(unit: Unit) -> int:
    """Greatest |value| that one contraction step adds when one lane holds 1 and the rest 127."""
    if unit.kind != "contract":
        return -1
    lanes = math.prod(unit.size[d] for d in unit.reduced)
    return (lanes - 1) * _INT8_PEAK * _INT8_PEAK + _INT8_PEAK


def element_bytes(isa: Isa, memory: str) -> int:
    """Bytes of one element in DRAM."""
    return math.prod(isa.lane_shape(memory)) * np.dtype(isa.memory(memory).dram_dtype).itemsize


def figures(
    op: Operator,
    isa: Isa,
    unit: Unit,
    layouts: Mapping[str, Layout],
    counters: Sequence[Counter],
    counts: Mapping[str, Occupancy],
) -> dict[str, float]:
    """Cost figures of one embedding.

    Units: steps (micro-op steps after trimming), vectors (output elements of the accumulator),
    macs (operator points), *_cycles, *_bytes (packed, in DRAM), utilisation, zero_fill (share of
    packed lanes of lhs and rhs without data), host_bytes (packed at run time), duplication (packed
    tensor elements per distinct one, run-time operands), objective (cycles, with tie-breakers).
    """
    steps = trimmed_steps(layouts, counters)
    vectors = layouts["dst"].elements
    reach = bias_reach(unit)
    per_vector = sum(step_cycles(s, reach) for s in op.epilogue)
    # A map step reads two accumulator elements: two cycles; a contraction first resets its element.
    compute = steps * (1 if unit.kind == "contract" else 2)
    compute += vectors * (per_vector + (1 if unit.kind == "contract" else 0))
    out: dict[str, float] = {
        "steps": steps,
        "vectors": vectors,
        "macs": math.prod(op.axes.values()),
    }
    read_rate, write_rate = rates(isa)
    read = host = held = lanes = 0
    filled = distinct = 0
    for role, layout in layouts.items():
        size = layout.elements * element_bytes(isa, layout.memory)
        constant = op.tensors[layout.tensor].constant
        if role == "dst":
            store = next((m for m in isa.memories if m.shadow_of == layout.memory), None)
            size = layout.elements * element_bytes(isa, store.name if store else layout.memory)
        else:
            read += size
            if not constant:
                host += size
                filled, distinct = filled + counts[role].filled, distinct + counts[role].distinct
        if role in ("lhs", "rhs"):
            held += counts[role].filled
            lanes += layout.elements * math.prod(isa.lane_shape(layout.memory))
        out[f"{role}_bytes"] = size
    out["host_bytes"] = host
    out["compute_cycles"] = compute
    out["read_cycles"] = read / read_rate
    out["write_cycles"] = out["dst_bytes"] / write_rate
    out["utilisation"] = out["macs"] / (steps * math.prod(unit.size.values()))
    out["zero_fill"] = 1 - held / lanes
    out["duplication"] = filled / max(distinct, 1)
    out["objective"] = objective(out)
    return out


def objective(f: Mapping[str, float]) -> float:
    """Cycles of the slowest of compute, read port and write port, and 1/32 of their sum, which
    stands for ramps and re-reads, and 1/256 cycle per byte that the host packs."""
    parts = [f["compute_cycles"], f["read_cycles"], f["write_cycles"]]
    return max(parts) + sum(parts) / 32 + f["host_bytes"] / 256


def describe(embedding: Embedding) -> str:
    """One line for a table."""
    c = embedding.cost
    return (
        f"{embedding.kind:9s} {c['steps']:>10.0f} steps {c['vectors']:>8.0f} vectors "
        f"compute {c['compute_cycles']:>10.0f} read {c['read_cycles']:>10.0f} "
        f"write {c['write_cycles']:>9.0f} util {c['utilisation']:.3f} | {embedding.formula()}"
    )
