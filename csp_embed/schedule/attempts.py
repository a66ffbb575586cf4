"""Schedules of one embedding: what is known before one is built, and each measured once.

Takes: a Problem and a `Meter`, which emits a schedule and counts its cycles (the compiler supplies
it).  Leaves: the best Schedule so far with what was measured of it, cycles by decisions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from csp_embed.errors import Infeasible
from csp_embed.ir.schedule import BiasTrick, Schedule
from csp_embed.machine.costs import Costs
from csp_embed.schedule import map_build, tiling
from csp_embed.schedule.build import build
from csp_embed.schedule.config import Config
from csp_embed.schedule.cover import groups_of
from csp_embed.schedule.inputs import Problem
from csp_embed.schedule.nests import Covers
from csp_embed.schedule.tile import Reserve, propose

ROWS = 30  # of a schedule: what building, lowering and simulating one takes beyond its own rows


class Measured(Protocol):
    """What a meter says of a schedule: its cycles, and whatever it made to count them."""

    @property
    def cycles(self) -> float: ...


class Meter(Protocol):
    """Measures schedules. The search keeps what it returns beside the schedule it is of."""

    def measure(self, schedule: Schedule) -> Measured: ...


@dataclass(frozen=True)
class Found:
    """number: of the problem. measured: by the meter. cycles: of it, with the problem's penalty.
    config: the decisions (None: elementwise)."""

    number: int
    schedule: Schedule
    measured: Measured
    cycles: float
    config: Config | None = None


class Attempts:
    """One embedding's problem with what its schedules share, and the best of them so far.

    number: of the embedding. extra: cycles added to every schedule.
    """

    def __init__(
        self,
        number: int,
        problem: Problem,
        bias: BiasTrick | None,
        meter: Meter,
        costs: Costs,
        extra: float = 0.0,
    ) -> None:
        self.number, self.problem, self.bias = number, problem, bias
        self.costs, self.extra = costs, extra
        self.best: Found | None = None
        self._meter = meter
        self._covers: Covers = {}
        # Cycles by what the decisions come to, and the most slots that are of use to such a
        # schedule: half of all changes to a small operator's schedule change nothing.
        self._known: dict[tuple[object, ...], float] = {}
        self._keys: dict[Config, tuple[object, ...]] = {}
        self._useful: dict[tuple[object, ...], int] = {}

    @cached_property
    def work(self) -> float:
        """Cycles that no schedule of a contraction beats: those of its compute steps. 0 for other
        operators."""
        return self.extra + (self._compute if self.problem.rhs is not None else 0.0)

    @cached_property
    def enough(self) -> float:
        """Cycles that are as good as reached: its steps, its operands read once."""
        problem = self.problem
        read = 0
        for m in (problem.lhs, problem.rhs):
            if m is not None:
                read += math.prod(m.grid) * problem.isa.memory(m.memory).elem_bytes
        return 1.003 * max(self._compute, read / self.costs.read_bytes) + self.extra

    @cached_property
    def _compute(self) -> float:
        epilogue = _epilogue_cycles(self.problem, self.bias, self.costs)
        return self.costs.step * self._steps * self.problem.contractions + epilogue

    @cached_property
    def _steps(self) -> int:
        return count_steps(self.problem)

    def measure(self, config: Config | None) -> tuple[float, int]:
        """Cycles of a schedule, without end where it does not fit; and the work of finding out, in
        rows: 0 where an equal one was measured before.

        config: the decisions; None: the one schedule of an operator without a second factor.
        """
        known = self._known.get(self.key(config))
        if known is not None:
            return known, 0
        found = self._attempt(config)
        if found is None:
            self._known[self.key(config)] = math.inf
            return math.inf, ROWS
        if config is not None:
            self._useful[self._keys[config]] = found.schedule.stats["slots"]
        self._known[self.key(config)] = found.cycles
        if self.best is None or found.cycles < self.best.cycles:
            self.best = found
        return found.cycles, ROWS + len(found.schedule.ops)

    def key(self, config: Config | None) -> tuple[object, ...]:
        """What the decisions come to: where equal, so are the schedules. Slots of no use show once
        such a schedule was measured."""
        if config is None:
            return ()
        key = self._keys.get(config)
        if key is None:
            key = self._keys[config] = tiling.key(self.problem, config)
        return (*key, min(config.slots, self._useful.get(key, config.slots)))

    def _attempt(self, config: Config | None) -> Found | None:
        try:
            if config is None:
                schedule = map_build.build(self.problem)
            else:
                schedule = build(self.problem, config, self.bias, self._covers)
        except Infeasible:
            return None
        return self._found(schedule, config)

    def _found(self, schedule: Schedule, config: Config | None) -> Found:
        measured = self._meter.measure(schedule)
        return Found(self.number, schedule, measured, measured.cycles + self.extra, config)

    def surely(self, like: Config | None) -> Found:
        """One point per tile: what fits wherever anything does."""
        if like is None:
            schedule = map_build.build(self.problem)
            return self._found(schedule, None)
        config = replace(like, tile=(1,) * len(self.problem.extents), up=0, down=0)
        schedule = build(self.problem, config, self.bias, self._covers)
        return self._found(schedule, config)

    def propose(self, count: int) -> Sequence[tuple[float, Config | None]]:
        """(estimate, decisions), cheapest first. An elementwise operator has no decisions to make;
        its embeddings are equally near."""
        if self.problem.rhs is None:
            return [(1.0, None)]
        return propose(
            self.problem,
            _reserve(self.problem, self.bias),
            self.costs,
            count=count,
            trimmed_steps=self._steps,
            epilogue_cycles=_epilogue_cycles(self.problem, self.bias, self.costs),
        )


def count_steps(problem: Problem) -> int:
    """Multiply-accumulate steps whose operands lie inside their grids, exactly.

    Counters that no common constraint couples multiply; coupled ones are counted point by point.
    """
    lo, hi = [0] * len(problem.extents), list(problem.extents)
    binding = []
    for m in (problem.lhs, problem.rhs):
        if m is None:
            continue
        for d, (a, b) in enumerate(m.box(tuple(lo), tuple(hi))):
            if a < 0 or b > m.grid[d]:
                k = tuple(int(s) for s in m.step[:, d])
                used = [c for c, s in enumerate(k) if s]
                if not used:
                    return 0  # This operand is padding at every step.
                binding.append((used, (k, m.origin[d], m.grid[d])))
    groups = groups_of(binding, lo, hi)
    if groups is None:
        return 0
    coupled = {c for g in groups for c in g.counters}
    free = math.prod(e for c, e in enumerate(problem.extents) if c not in coupled)
    return free * math.prod(len(g.points) for g in groups)


def _epilogue_cycles(problem: Problem, bias: BiasTrick | None, costs: Costs) -> float:
    vectors = math.prod(problem.extents[c] for c in problem.outputs)
    each = costs.reset_step
    rounds = range(len(problem.rounds) + 1)
    for i, step in [pair for turn in rounds for pair in problem.steps(turn)]:
        if step.access is None:
            each += costs.immediate_step
        else:
            each += costs.step if bias and bias.step == i else costs.tensor_step
    if problem.copies:
        each += costs.reset_step + 2 * costs.tensor_step
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
        whole = math.prod(m.grid) * (len(problem.rounds) + 1)
        taken[memory] = taken.get(memory, 0) + min(whole, problem.depth[memory] // 8)
    return Reserve(taken)
