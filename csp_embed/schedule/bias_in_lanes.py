"""Adding an epilogue tensor in lanes of the reduction that the embedding leaves idle: for nothing.

(S >> s) + b = (S + b 2^s) >> s, where the sums do not leave int32. So b 2^s may be a part of the
sum: idle lanes of the activations hold a constant, those of the weights parts of the tensor, in
steps that every output makes. Layouts that other operators share have zeros there, so only an
operator whose activations the host packs for it alone may do so.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import replace

import numpy as np

from csp_embed.ir.embedding import Layout
from csp_embed.ir.schedule import BiasLanes
from csp_embed.schedule.inputs import Map, Problem

PEAK = 127  # -128 has no counterpart
INT8 = 7  # bits of a magnitude
TURNS = 1_000  # steps of a sum that are looked at


def spared(problem: Problem, ranges: Mapping[int, int]) -> Problem:
    """The problem without a tensor step that idle lanes do, or itself. ranges: step number ->
    largest magnitude known."""
    found = find(problem, ranges)
    if found is None:
        return problem
    rest = {i: m for i, m in problem.adds.items() if i != found.step}
    return replace(problem, adds=rest, dropped=frozenset([found.step]), bias_lanes=found)


def find(problem: Problem, ranges: Mapping[int, int]) -> BiasLanes | None:
    """The first tensor step, where idle lanes carry it."""
    op, isa = problem.embedding.operator, problem.isa
    step = next((i for i, s in enumerate(op.epilogue) if s.access is not None), -1)
    if problem.rhs is None or problem.rounds or step < 0 or step not in ranges:
        return None
    before = op.epilogue[:step]
    shifts = [s.imm for s in before if s.op == "shr" and s.imm is not None and s.imm >= 0]
    plain = problem.embedding.layout_mode == "relaxed" and op.epilogue[step].op == "add"
    if not plain or len(shifts) != len(before) or len(before) > 1:
        return None
    shift = shifts[0] if shifts else 0
    operands = {o.role: o for o in problem.instruction.operands}
    lhs, rhs, dst = operands["lhs"], operands["rhs"], operands["dst"]
    summed = [d for d in lhs.dims if d in rhs.dims and d not in dst.dims]
    # A dimension that one factor alone sums over would add every part once more for each lane.
    if len(summed) != 1 or (set(lhs.dims) ^ set(rhs.dims)) - set(dst.dims):
        return None
    (dim,) = summed
    used = math.prod(d.extent for d in problem.embedding.digits if d.dim == dim)
    idle = tuple(range(used, isa.dims[dim]))
    tensors, layouts = op.tensors, problem.embedding.layouts
    narrow = all(
        tensors[layouts[r].tensor].dtype == isa.memory(operands[r].memory).dram_dtype == "int8"
        for r in ("lhs", "rhs")
    )
    if not idle or not narrow or _leaves(problem, ranges[step], shift):
        return None
    for role, held in (("lhs", "rhs"), ("rhs", "lhs")):
        if not _carried(problem, problem.adds[step], held, operands[held].dims):
            continue
        # As large a power of two as int8 has that divides every value: no remainder is left.
        value = -(1 << INT8) if shift >= INT8 else 1 << shift
        parts = -(-(ranges[step] << shift) // abs(value))
        turns = _turns(problem, -(-parts // (PEAK * len(idle))))
        if turns is not None:
            return BiasLanes(step, shift, role, held, dim, idle, value, turns)
    return None


def _leaves(problem: Problem, most: int, shift: int) -> bool:
    """Whether sums with the tensor in them may leave int32."""
    op = problem.embedding.operator
    terms = math.prod(op.axes[a] for a in op.reduced_axes)
    return (terms << 2 * INT8) + (most << shift) >= 1 << 31


def _carried(problem: Problem, add: Map, held: str, dims: tuple[str, ...]) -> bool:
    """Whether an element of the factor meets results of one value of the tensor only: what moves
    the tensor moves that factor."""
    layout: Layout = problem.embedding.layouts[add.operand]
    if layout.fused or layout.equal:
        return False
    dim_of = {d.name: d.dim for d in problem.embedding.digits}
    if any(dim_of[n] not in dims for coefs in layout.digit_coef for n, k in coefs.items() if k):
        return False
    factor = problem.lhs if held == "lhs" else problem.rhs
    assert factor is not None
    moving = {c for c in problem.outputs if factor.step[c].any()}
    if any(add.step[c].any() and c not in moving for c in problem.outputs):
        return False
    # Each of them alone in some dimension: two results never share an element.
    return all(
        any([k for k, _ in movers if not problem.reduced[k]] == [c] for movers in factor.movers)
        for c in moving
    )


def _turns(problem: Problem, count: int) -> tuple[tuple[tuple[str, int], ...], ...] | None:
    """Steps of the sum that every output makes: none of their elements is padding."""
    whole = [
        turn for turn in _every(problem)
        if all(_inside(problem, m, turn) for m in (problem.lhs, problem.rhs))
    ]  # fmt: skip
    if len(whole) < count:
        return None
    return tuple(tuple((problem.names[c], v) for c, v in turn.items()) for turn in whole[:count])


def _every(problem: Problem) -> Iterator[dict[int, int]]:
    counters = problem.reductions
    values = itertools.product(*(range(problem.extents[c]) for c in counters))
    for turn in itertools.islice(values, TURNS):
        yield dict(zip(counters, turn, strict=True))


def _inside(problem: Problem, m: Map | None, turn: Mapping[int, int]) -> bool:
    assert m is not None
    low = tuple(turn.get(c, 0) for c in range(len(problem.extents)))
    high = tuple(turn[c] + 1 if c in turn else e for c, e in enumerate(problem.extents))
    return all(a >= 0 and b <= g for (a, b), g in zip(m.box(low, high), m.grid, strict=True))


def parts(tensor: np.ndarray, lanes: BiasLanes) -> np.ndarray:
    """Parts [turns, lanes, ...] of a tensor's values, each an int8.

    Raises: ValueError where a value is larger than promised.
    """
    rest = (tensor.astype(np.int64) << lanes.shift) // lanes.value
    out = np.zeros((len(lanes.turns), len(lanes.lanes), *rest.shape), np.int64)
    for turn, lane in np.ndindex(out.shape[:2]):
        out[turn, lane] = np.clip(rest, -PEAK, PEAK)
        rest = rest - out[turn, lane]
    if rest.any():
        raise ValueError("a value is out of reach of the lanes")
    return out
