"""Counts an embedding's analytic cost from its digits and layouts; shares no code with the search.

Takes: Embedding, Isa, what `--memory` said.  Leaves: figures by name, the same names as in
`Embedding.cost`.

The cost as defined, in cycles, unit work rounded to 1/256 cycle, all numbers from the spec's costs
and the memory interface with its overrides:
    compute = step * steps + vectors * (reset + epilogue)    an immediate_step, or a tensor_step, or
              a step where it is an addition promised to be within reach of one contraction step
              Of a known factor of n bytes: n * step, and n - 1 times an immediate_step a vector
              Of pools and elementwise programs: a step and a reset for each element of a narrow
              operand that comes in by an identity, where that takes fewer cycles than its bytes as
              wide as sums; a narrow tensor that is added takes a step then
    read    = sum over operands but the result of bytes of their elements / bytes a cycle: of the
              port, or of as many bursts as there are tags in the time from grant to last beat
    write   = result elements * (word_gap + beats, one at least, * (beat_bytes / port bytes a cycle
              + (setup + latency) / burst_beats))
    host    = bytes of run-time operands, packed
    objective = max(compute, read, write) + (compute + read + write) / 32 + host / 256
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from csp_embed.ir.embedding import Embedding, Layout
from csp_embed.machine.interface import MemoryInterface, default_memory, parse_memory
from csp_embed.machine.spec import Isa
from csp_embed.ops.counting import useful_points

# (coefficient by counter, least, most): a step has work only inside all of them.
Window = tuple[dict[str, int], int, int]
# Points per NumPy pass: 8 MB for each counter's table.
_BATCH = 1 << 20


# A machine that states no costs: steps, and bytes at eight a cycle.
_UNSTATED: dict[str, dict[str, float]] = {
    "": {"bytes_per_cycle": 8, "beat_bytes": 8, "burst_beats": 1},
    "contract": {"step": 1, "reset_step": 1},
    "map": {"immediate_step": 1, "tensor_step": 2},
    "read": {"tags": 1},
    "store": {"setup": 0, "word_gap": 0},
}


def count(embedding: Embedding, isa: Isa, memory: str = "") -> dict[str, float]:
    """steps, vectors, macs, *_bytes, *_cycles, utilisation and objective, counted anew. memory: as
    `--memory` says it; "": the first interface of the spec.

    Raises: LookupError where the spec lacks a number, InputError for an unreadable memory.
    """
    derived = not isa.costs
    if derived:
        isa = replace(isa, costs=_stated_otherwise(isa))
    op = embedding.operator
    instruction = isa.instruction(embedding.instruction)
    contract = instruction.kind == "contract"
    steps = working_steps(embedding)
    sizes = {role: math.prod(layout.grid) for role, layout in embedding.layouts.items()}
    vectors = sizes["dst"]
    # Elementwise operators read two tensors: their own instruction counts as such a step.
    per_step = isa.costs["contract"]["step"] if contract else isa.costs["map"]["tensor_step"]
    per_vector = isa.costs["contract"]["reset_step"] if contract else 0.0
    if contract and op.rhs is not None:
        # A factor that is wider than its memory: each of its bytes is multiplied on its own, and
        # the sums are shifted in between.
        held = next(v.memory for v in embedding.layouts.values() if v.tensor == op.rhs.tensor)
        narrow_bytes = np.dtype(isa.memory(held).dram_dtype).itemsize
        times = -(-np.dtype(op.tensors[op.rhs.tensor].dtype).itemsize // narrow_bytes)
        per_step *= times
        per_vector += (times - 1) * isa.costs["map"]["immediate_step"]
    per_vector += sum(_step_cycles(embedding, isa, n) for n in range(len(op.epilogue)))
    unstated = MemoryInterface("")
    asked = unstated if derived else parse_memory(memory or default_memory(isa))
    port = isa.costs[asked.name]
    rate = float(asked.bytes_per_cycle or port["bytes_per_cycle"])
    burst = port["beat_bytes"] * port["burst_beats"]
    # In flight at most `tags` bursts between request and last beat; a slow memory is limited by
    # that and a fast one by its rate.
    loaded = min(rate, isa.costs["read"]["tags"] * burst / (asked.latency + burst / rate))
    narrow = {} if contract else _narrow(embedding, isa, loaded)
    begun = _unit(isa.costs["contract"]["step"] + isa.costs["contract"]["reset_step"])
    per_vector -= sum(
        isa.costs["map"]["tensor_step"] - isa.costs["contract"]["step"]
        for role in narrow if role != "lhs"
    )  # fmt: skip
    compute = _unit(per_step) * steps + _unit(per_vector) * vectors
    compute += begun * sizes["lhs"] if "lhs" in narrow else 0
    read, host = 0, 0
    figures: dict[str, float] = {}
    for role, layout in embedding.layouts.items():
        if role == "dst":
            # The result is written, not read; its bytes are counted below with the store's own
            # costs.
            continue
        bytes_ = narrow.get(role, _bytes(isa, layout.memory))
        figures[f"{role}_bytes"] = float(bytes_ * sizes[role])
        read += _unit(bytes_ / loaded) * sizes[role]
        if not op.tensors[layout.tensor].constant:
            host += bytes_ * sizes[role]
    memory = embedding.layouts["dst"].memory
    # Stores take from the memory that mirrors the accumulators, where there is one: fewer bytes.
    shadow = [m.name for m in isa.memories if m.shadow_of == memory and m.store_queue]
    stored = _bytes(isa, shadow[0] if shadow else memory)
    # A store writes whole beats: an element below a beat's width costs a beat.
    beats = max(stored / port["beat_bytes"], 1.0)
    store = isa.costs["store"]
    between = (store["setup"] + asked.latency) / port["burst_beats"]
    each = beats * (port["beat_bytes"] / rate + between) + store["word_gap"]
    write = _unit(each) * vectors
    macs = math.prod(op.axes.values())
    lanes = math.prod(_lanes(embedding, isa).values())
    # The sum in 1/256 cycle, weighted so that the maximum decides and the rest breaks ties.
    total = 32 * max(compute, read, write) + compute + read + write + 32 * host
    return figures | {
        "dst_bytes": float(stored * vectors),
        "steps": float(steps),
        "vectors": float(vectors),
        "macs": float(macs),
        "utilisation": (useful_points(op) or 0) / (max(steps, 1) * lanes),
        "compute_cycles": compute / 256,
        "read_cycles": read / 256,
        "write_cycles": write / 256,
        "host_bytes": float(host),
        "objective": total / 8192,
    }


def _narrow(embedding: Embedding, isa: Isa, loaded: float) -> dict[str, int]:
    """Operand -> bytes of an element, of those that a contraction with an identity brings in."""
    op = embedding.operator
    makers = [i for i in isa.instructions if i.kind == "contract"]
    if not makers or isa.program is not None or isa.commands is not None:
        return {}
    by_role = {o.role: o for o in makers[0].operands}
    if by_role["dst"].memory != embedding.layouts["dst"].memory:
        return {}
    result = set(by_role["dst"].dims)

    def width(dtype: str) -> int:
        return np.dtype(dtype).itemsize

    for role, other in (("lhs", "rhs"), ("rhs", "lhs")):
        memory = isa.memory(by_role[role].memory)
        summed, new = set(by_role[role].dims) - result, result - set(by_role[role].dims)
        square = len(summed) == len(new) == 1 and set(by_role[other].dims) == summed | new
        wide_enough = square and isa.dims[min(summed)] >= isa.dims[min(new)]
        held = isa.memory(by_role[other].memory)
        if not wide_enough or memory.load_queue is None or held.load_queue is None:
            continue
        if width(op.tensors[op.lhs.tensor].dtype) > width(memory.dram_dtype):
            continue
        few = _bytes(isa, memory.name)
        spared = (_bytes(isa, embedding.layouts["lhs"].memory) - few) / loaded
        # A reset and a step must cost less than the bytes that they spare.
        if spared <= isa.costs["contract"]["step"] + isa.costs["contract"]["reset_step"]:
            return {}
        tensors = [s for s in op.epilogue if s.access is not None]
        return {"lhs": few} | {
            f"add{n}": few for n, s in enumerate(tensors)
            if s.op == "add" and s.access is not None
            and width(op.tensors[s.access.tensor].dtype) <= width(memory.dram_dtype)
        }  # fmt: skip
    return {}


def _stated_otherwise(isa: Isa) -> dict[str, dict[str, float]]:
    if isa.commands is not None:
        return _of_commands(isa)
    return _UNSTATED if isa.program is None else _of_templates(isa)


def _of_commands(isa: Isa) -> dict[str, dict[str, float]]:
    """Those of a machine that is fed commands: steps, and bytes of its bus; what follows the sums
    costs nothing."""
    assert isa.commands is not None
    rate = float(isa.commands.costs["bytes_per_cycle"])
    return {
        "": {"bytes_per_cycle": rate, "beat_bytes": rate, "burst_beats": 1},
        "contract": {"step": float(isa.commands.costs["step"]), "reset_step": 0.0},
        "map": {"immediate_step": 0.0, "tensor_step": 0.0},
        "read": {"tags": 1},
        "store": {"setup": 0, "word_gap": 0},
    }


def _of_templates(isa: Isa) -> dict[str, dict[str, float]]:
    """Those of a machine whose loops are C: the slowest template of each kind, and the last cache,
    which answers at once."""
    assert isa.program is not None
    slowest: dict[str, float] = {}
    for t in isa.program.templates:
        slowest[t.kind] = max(slowest.get(t.kind, 0.0), 1 / t.per_cycle)
    rate, step = float(isa.program.caches[-1].bytes_per_cycle), slowest.get("map", 0.0)
    return {
        "": {"bytes_per_cycle": rate, "beat_bytes": rate, "burst_beats": 1},
        "contract": {"step": slowest["contract"], "reset_step": slowest["reset"]},
        "map": {"immediate_step": step, "tensor_step": 2 * step},
        "read": {"tags": 1},
        "store": {"setup": 0, "word_gap": slowest["copy_out"]},
    }


def _unit(cycles: float) -> int:
    return round(256 * cycles)


def _bytes(isa: Isa, memory: str) -> int:
    m = isa.memory(memory)
    return np.dtype(m.dram_dtype).itemsize * math.prod(isa.dims[d] for d in m.lanes)


def _lanes(embedding: Embedding, isa: Isa) -> dict[str, int]:
    """Dimensions of the instruction; an elementwise one has those of the accumulator."""
    operands = isa.instruction(embedding.instruction).operands
    if isa.instruction(embedding.instruction).kind == "map":
        operands = tuple(o for o in operands if o.role == "dst")
    return {d: isa.dims[d] for o in operands for d in o.dims}


def _step_cycles(embedding: Embedding, isa: Isa, number: int) -> float:
    step, costs = embedding.operator.epilogue[number], isa.costs
    if step.access is None:
        return costs["map"]["immediate_step"]
    instruction = isa.instruction(embedding.instruction)
    if instruction.kind != "contract" or step.op != "add" or step.bias_range is None:
        return costs["map"]["tensor_step"]
    kept = next(o.dims for o in instruction.operands if o.role == "dst")
    summed = math.prod(n for d, n in _lanes(embedding, isa).items() if d not in kept)
    # What one contraction step can add: all lanes but one at 127 * 127, and one at 127 * 1 that
    # makes any remainder.
    reach = (summed - 1) * 127 * 127 + 127
    by_contraction = step.bias_range <= reach
    return costs["contract"]["step"] if by_contraction else costs["map"]["tensor_step"]


def working_steps(embedding: Embedding) -> int:
    """Counter values at which both factors' elements exist, counted over coupled counters only."""
    trips = {c.name: c.extent for c in embedding.counters}
    windows: list[Window] = []
    for role in ("lhs", "rhs"):
        if role in embedding.layouts:
            windows += _windows(embedding.layouts[role])
    total, free = 1, set(trips)
    while windows:
        # Windows that share a counter depend on each other and are counted together; groups
        # multiply.
        group = [windows.pop()]
        names = set(group[0][0])
        while joined := [w for w in windows if names & set(w[0])]:
            group += joined
            windows = [w for w in windows if not any(w is j for j in joined)]
            names |= {n for w in joined for n in w[0]}
        free -= names
        total *= _inside(group, sorted(names), trips)
    return total * math.prod(trips[n] for n in free)


def _windows(layout: Layout) -> list[Window]:
    out: list[Window] = []
    for d, size in enumerate(layout.grid):
        coefs = {c: steps[d] for c, steps in layout.step.items() if steps[d]}
        out.append((coefs, -layout.origin[d], size - 1 - layout.origin[d]))
    return out


def _inside(windows: Sequence[Window], names: Sequence[str], trips: dict[str, int]) -> int:
    """By enumeration, the last counters at once."""
    # Short counters first: many of them fit one table, and long ones are looped over.
    inner: list[str] = []
    for name in sorted(names, key=lambda n: trips[n]):
        if math.prod(trips[n] for n in inner) * trips[name] <= _BATCH:
            inner.append(name)
    outer = [n for n in names if n not in inner]
    tables = np.indices([trips[n] for n in inner]).reshape(
        len(inner), math.prod(trips[n] for n in inner)
    )
    at = dict(zip(inner, tables, strict=True))
    total = 0
    for values in itertools.product(*(range(trips[n]) for n in outer)):
        fixed = dict(zip(outer, values, strict=True))
        good = np.ones(math.prod(trips[n] for n in inner), bool)
        for coefs, low, high in windows:
            value = np.zeros(len(good), np.int64)
            for name, coef in coefs.items():
                value += coef * (fixed[name] if name in fixed else at[name])
            good &= (value >= low) & (value <= high)
        total += int(good.sum())
    return total
