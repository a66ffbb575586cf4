"""Schedules of one embedding: what is known before one is built, and each measured once.

Takes: a Problem and a `Meter`, which makes schedules for its target and counts their cycles (the
compiler supplies it).  Leaves: the best Schedule so far with what was measured of it, cycles by
decisions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Protocol

from csp_embed.errors import Infeasible
from csp_embed.ir.schedule import BiasTrick, Identity, Schedule
from csp_embed.machine.costs import Costs
from csp_embed.schedule import identity, tiling
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Problem
from csp_embed.schedule.outline import Outline
from csp_embed.schedule.points import count_steps, every_result_has_a_product, touched
from csp_embed.schedule.tile import Reserve, propose

NEAR = 0.03  # of the cycles: schedules that what stands around them may make the better ones
ROWS = 30  # of a schedule: what building, lowering and simulating one takes beyond its own rows


Decided = Config | Identity | None
"""What is decided of a schedule: of a contraction; of an operator without a second factor whose
operands come in by an identity, or all by loads (None)."""


class Measured(Protocol):
    """What a meter says of a schedule: its cycles, and whatever it made to count them."""

    @property
    def cycles(self) -> float: ...


class Builder(Protocol):
    """Makes schedules of one problem for one family of targets."""

    def build(self, config: Decided) -> Schedule:
        """The schedule of these decisions.

        Raises: Infeasible where it does not fit.
        """
        ...


class Meter(Protocol):
    """Makes schedules for a target and measures them. The search keeps what it returns beside the
    schedule it is of."""

    def builder(self, problem: Problem, bias: BiasTrick | None) -> Builder: ...

    def measure(self, schedule: Schedule) -> Measured: ...


@dataclass(frozen=True)
class Found:
    """number: of the problem. measured: by the meter. cycles: of it, with the problem's penalty.
    config: the decisions. near: others whose cycles were measured as
    within NEAR of these, fewest first: what stands around the operator may tell them apart."""

    number: int
    schedule: Schedule
    measured: Measured
    cycles: float
    config: Decided = None
    near: tuple[Found, ...] = ()


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
        self._builder = meter.builder(problem, bias)
        # Cycles by what the decisions come to, and the most slots and micro-ops that are of use to
        # such a schedule: half of all changes to a small operator's schedule change nothing.
        self._known: dict[tuple[object, ...], float] = {}
        self._keys: dict[Config, tuple[object, ...]] = {}
        self._useful: dict[tuple[object, ...], int] = {}
        self._listed: dict[tuple[object, ...], tuple[int, int]] = {}  # of use, the limit then
        self._near: list[Found] = []  # each once

    @property
    def found(self) -> Found | None:
        """The best so far, with what comes near it."""
        if self.best is None:
            return None
        near = sorted(self._nearly(self._near), key=lambda f: f.cycles)
        return replace(self.best, near=tuple(f for f in near if f.config != self.best.config))

    def _nearly(self, found: Sequence[Found]) -> list[Found]:
        return [f for f in found if f.cycles <= (1 + NEAR) * self.cycles]

    @property
    def cycles(self) -> float:
        """Fewest so far."""
        return math.inf if self.best is None else self.best.cycles

    @property
    def size(self) -> int:
        """Rows of the best schedule so far."""
        return 0 if self.best is None else len(self.best.schedule.ops)

    @cached_property
    def work(self) -> float:
        """Cycles that no schedule of a contraction beats: those of its compute steps. 0 for other
        operators."""
        return self.extra + (self._compute if self.problem.rhs is not None else 0.0)

    @cached_property
    def enough(self) -> float:
        """Cycles that are as good as reached: its steps, its operands read once."""
        problem = self.problem
        read = sum(
            touched(m, problem.extents) * problem.isa.memory(m.memory).elem_bytes
            for m in (problem.lhs, problem.rhs)
            if m is not None
        )
        return 1.003 * max(self._compute, read / self.costs.read_bytes) + self.extra

    @cached_property
    def _compute(self) -> float:
        return self.costs.step * self._steps * self.problem.passes + self._epilogue

    @cached_property
    def _epilogue(self) -> float:
        filled = every_result_has_a_product(self.problem)
        return _epilogue_cycles(self.problem, self.bias, self.costs, filled)

    @cached_property
    def _steps(self) -> int:
        return count_steps(self.problem)

    @cached_property
    def _outline(self) -> Outline:
        vectors = math.prod(self.problem.extents[c] for c in self.problem.outputs)
        return Outline(
            self.problem,
            self.costs,
            each=self._epilogue / vectors - self.costs.reset_step,
            taken=_reserve(self.problem, self.bias).elems,
        )

    def outline(self, config: Config) -> float:
        """An estimate of its cycles."""
        return self._outline.cycles(config) + self.extra

    def measure(self, config: Decided) -> tuple[float, int]:
        """Cycles of a schedule, without end where it does not fit; and the work of finding out, in
        rows: 0 where an equal one was measured before.

        """
        known = self._known.get(self.key(config))
        if known is not None:
            return known, 0
        found = self._attempt(config)
        if found is None:
            self._known[self.key(config)] = math.inf
            return math.inf, ROWS
        if isinstance(config, Config):
            stats = found.schedule.stats
            self._useful[self._keys[config]] = stats["slots"]
            if config.uops >= self._listed.get(self._keys[config], (0, 0))[1]:
                self._listed[self._keys[config]] = stats["uops"], config.uops
            self._near.append(found)
        self._known[self.key(config)] = found.cycles
        if self.best is None or found.cycles < self.best.cycles:
            self.best = found
            # Those that have fallen behind are let go: a schedule may have thousands of rows.
            self._near = self._nearly(self._near)
        return found.cycles, ROWS + len(found.schedule.ops)

    def key(self, config: Decided) -> tuple[object, ...]:
        """What the decisions come to: where equal, so are the schedules. Slots and micro-ops of no
        use show once such a schedule was measured."""
        if config is None:
            return ()
        if isinstance(config, Identity):
            return (config,)
        key = self._keys.get(config)
        if key is None:
            key = self._keys[config] = tiling.key(self.problem, config)
        listed, limit = self._listed.get(key, (config.uops, config.uops))
        uops = listed if listed <= config.uops <= limit else config.uops
        return (*key, min(config.slots, self._useful.get(key, config.slots)), uops)

    def known(self, config: Decided) -> bool:
        """Whether an equal one was measured."""
        return self.key(config) in self._known

    def _attempt(self, config: Decided) -> Found | None:
        try:
            schedule = self._builder.build(config)
        except Infeasible:
            return None
        return self._found(schedule, config)

    def _found(self, schedule: Schedule, config: Decided) -> Found:
        measured = self._meter.measure(schedule)
        return Found(self.number, schedule, measured, measured.cycles + self.extra, config)

    def surely(self, like: Decided) -> Found:
        """One point per tile: what fits wherever anything does."""
        ones = (1,) * len(self.problem.extents)
        config = replace(like, tile=ones, up=0, down=0) if isinstance(like, Config) else None
        return self._found(self._builder.build(config), config)

    def propose(self, count: int) -> Sequence[tuple[float, Decided]]:
        """(estimate, decisions), cheapest first. Those of an operator without a second factor are
        equally near, and so are its embeddings."""
        if self.problem.rhs is None:
            by_identity = identity.find(self.problem)
            return [(1.0, None), *([] if by_identity is None else [(1.0, by_identity)])]
        return propose(
            self.problem,
            _reserve(self.problem, self.bias),
            self.costs,
            count=count,
            trimmed_steps=self._steps,
            epilogue_cycles=self._epilogue,
        )


def _epilogue_cycles(problem: Problem, bias: BiasTrick | None, costs: Costs, filled: bool) -> float:
    """filled: no result sums padding alone."""
    vectors = math.prod(problem.extents[c] for c in problem.outputs)
    each = costs.reset_step
    if not problem.epilogue and not filled:
        each += costs.immediate_step
    rounds = range(len(problem.rounds) + 1)
    for i, step in [pair for turn in rounds for pair in problem.steps(turn)]:
        if step.access is None:
            each += costs.immediate_step
        else:
            each += costs.step if bias and bias.step == i else costs.tensor_step
    each += len(problem.kept) * (costs.reset_step + costs.tensor_step)
    each += problem.copies * costs.tensor_step
    return vectors * each


def _reserve(problem: Problem, bias: BiasTrick | None) -> Reserve:
    """Elements that the epilogue's tensors and the constant take; builders share them out
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
