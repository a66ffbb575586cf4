"""Finds a schedule: proposes tiles by estimate, builds the best of them, keeps the one with the
fewest cycles.

Takes: a Problem and `measure`, which emits a schedule and returns its simulated cycles (the driver
supplies it).
Leaves: the best Schedule with its cycles.  Ties go to the earlier proposal, so the result is
deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from csp_embed.errors import Infeasible
from csp_embed.ir.schedule import BiasTrick, Schedule
from csp_embed.schedule import map_build, trick
from csp_embed.schedule.build import build
from csp_embed.schedule.config import Config
from csp_embed.schedule.problem import Problem
from csp_embed.schedule.tile import Costs, Reserve, propose

Measure = Callable[[Schedule], float]


@dataclass(frozen=True)
class Found:
    """cycles: by `measure`. tried: how many schedules were built."""

    schedule: Schedule
    cycles: float
    tried: int


def search(
    problem: Problem,
    measure: Measure,
    costs: Costs,
    *,
    ranges: Mapping[int, int],
    count: int = 10,
    row_budget: int = 60_000,
) -> Found:
    """ranges: epilogue step -> largest magnitude of its tensor, where known. row_budget: about how
    many rows all tried
    schedules may have together (compile time).

    Raises: Infeasible where no tile fits.
    """
    if problem.rhs is None:
        schedule = map_build.build(problem)
        return Found(schedule, measure(schedule), 1)
    bias = trick.find(problem, dict(ranges))
    reserve = _reserve(problem, bias)
    configs = propose(
        problem,
        reserve,
        costs,
        count=count,
        trimmed_steps=count_steps(problem),
        epilogue_cycles=_epilogue_cycles(problem, bias),
    )
    best: Found | None = None
    rows = tried = 0
    for _, config in configs:
        try:
            schedule = build(problem, config, bias)
        except Infeasible:
            continue
        cycles = measure(schedule)
        tried += 1
        rows += len(schedule.ops)
        if best is None or cycles < best.cycles:
            best = Found(schedule, cycles, tried)
        if rows > row_budget:
            break
    if best is None:
        schedule = build(problem, smallest(problem, configs[0][1]), bias)
        best = Found(schedule, measure(schedule), tried + 1)
    return replace(best, tried=tried)


def smallest(problem: Problem, like: Config) -> Config:
    """One point per tile: what always fits."""
    return replace(like, tile=(1,) * len(problem.extents))


def count_steps(problem: Problem) -> int:
    """Multiply-accumulate steps whose operands lie inside their grids, exactly.

    Counters that no common constraint couples multiply; coupled ones are counted point by point.
    """
    from csp_embed.schedule.cover import _groups

    lo, hi = [0] * len(problem.extents), list(problem.extents)
    binding = []
    for m in (problem.lhs, problem.rhs):
        if m is None:
            continue
        for d, (a, b) in enumerate(m.box(tuple(lo), tuple(hi))):
            if a < 0 or b > m.grid[d]:
                k = tuple(int(s) for s in m.step[:, d])
                used = [c for c, s in enumerate(k) if s]
                binding.append((used, (k, m.origin[d], m.grid[d])))
    groups = _groups(binding, lo, hi)
    if groups is None:
        return 0
    coupled = {c for g in groups for c in g.counters}
    free = math.prod(e for c, e in enumerate(problem.extents) if c not in coupled)
    return free * math.prod(len(g.points) for g in groups)


def _epilogue_cycles(problem: Problem, bias: BiasTrick | None) -> int:
    vectors = math.prod(problem.extents[c] for c in problem.outputs)
    each = 1
    for i, step in enumerate(problem.epilogue):
        each += 2 if step.access is not None and not (bias and bias.step == i) else 1
    return vectors * each


def _reserve(problem: Problem, bias: BiasTrick | None) -> Reserve:
    """Elements that the epilogue's tensors and the constant take; build.py shares them out
    alike.
    """
    taken: dict[str, int] = {}
    for i, m in problem.adds.items():
        memory = m.memory
        if bias is not None and bias.step == i:
            side = problem.rhs if bias.factor_side == "rhs" else problem.lhs
            other = problem.lhs if bias.factor_side == "rhs" else problem.rhs
            assert side is not None
            assert other is not None
            memory = side.memory
            taken[other.memory] = taken.get(other.memory, 0) + 1
        whole = math.prod(m.grid)
        taken[memory] = taken.get(memory, 0) + min(whole, problem.depth[memory] // 8)
    return Reserve(taken)
