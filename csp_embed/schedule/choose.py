"""Finds a schedule: proposes tiles by estimate, builds the best of them, changes the best.

Takes: Problems (embeddings of one operator) and a `Meter`, which emits a schedule and counts its
cycles (the compiler supplies it).
Leaves: the best Schedule of every problem with what was measured of it.

More candidates never make it worse, by construction. The first POOL problems are screened whatever
the effort; their order by screening says which are improved first, and a larger `top` improves more
of them; a longer improvement is a continuation of the shorter one; and nothing is cut by what was
found so far but what is proved not to beat it. So larger `top`, `count` and `refine` try a superset
of schedules.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from csp_embed.errors import Infeasible
from csp_embed.ir.schedule import BiasTrick, Schedule
from csp_embed.machine.costs import Costs
from csp_embed.schedule import bias_by_contract as trick
from csp_embed.schedule import map_build
from csp_embed.schedule.build import build
from csp_embed.schedule.config import Config
from csp_embed.schedule.cover import groups_of
from csp_embed.schedule.inputs import Problem
from csp_embed.schedule.nests import Covers
from csp_embed.schedule.tile import Reserve, configure, propose


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


POOL = 16  # embeddings that are screened; more where `top` asks for more
SCREENED = 4  # schedules of each that are built
# (share, cycles) above the least: estimates and first schedules err by a share, and by what ramps
# and instructions cost, which is much of a small operator. NEAR: an estimate that is screened; FAR:
# a first schedule that gets no second; CLOSE: a screening that is improved, by default that of
# LEADERS at most. Measured on random small operators by scripts/bench_monotone.
NEAR, FAR, CLOSE, LEADERS = (0.03, 4000.0), (0.02, 600.0), (0.01, 300.0), 3


def _above(value: float, slack: tuple[float, float]) -> float:
    return value * (1 + slack[0]) + slack[1]


def search(
    problems: Sequence[Problem],
    meter: Meter,
    costs: Costs,
    *,
    ranges: Mapping[int, int],
    penalties: Sequence[float] = (),
    top: int = 0,
    count: int = 8,
    refine: int = 80,
    row_budget: int = 40_000,
) -> list[Found]:
    """The best schedule of every problem that was tried, fewest cycles first; ties: the earlier.

    problems: embeddings of one operator, best first. ranges: epilogue step -> largest magnitude of
    its tensor, where known. penalties: cycles added to every schedule of a problem, for what its
    embedding costs elsewhere. top: problems whose schedules are improved; 0: those that come close
    to the best at first. count: schedules of such a problem built from estimates, at least
    SCREENED; refine: schedules built from changes to each start. row_budget: about how many rows
    all screened schedules may have together (compile time).
    Raises: Infeasible where no tile of any problem fits.
    """
    entries, refusal = [], None
    for n, problem in enumerate(problems):
        extra = penalties[n] if penalties else 0.0
        context = _Context(n, problem, trick.find(problem, dict(ranges)), meter, extra)
        try:
            proposals = _propose(context, costs, max(count, SCREENED))
        except Infeasible as error:
            refusal = refusal or error
            continue
        entries.append(_Entry(context, proposals[0][0] + extra, [c for _, c in proposals]))
    pool = sorted((e for e in entries if e.number < POOL), key=lambda e: (e.price, e.number))
    least = min((e.price for e in pool), default=math.inf)
    rows, leader = 0, math.inf
    for entry in [*pool, *(e for e in entries if e.number >= POOL)]:
        if entry.price > _above(least, NEAR) or (rows > row_budget // 5 and leader < math.inf):
            continue
        rows += entry.screen(_above(leader, FAR), row_budget // 5)
        leader = min(leader, entry.cycles)
    screened = [e for e in entries if e.found is not None]
    if not screened:
        if not entries:
            assert refusal is not None  # every problem either has proposals or was refused
            raise refusal
        return [entries[0].context.surely(entries[0].configs[0])]
    # Those beyond the pool come last, so that the order does not depend on how many there are.
    screened.sort(key=lambda e: (e.number >= POOL, e.cycles, e.number))
    chosen = (
        screened[:top]
        if top
        else [e for e in screened if e.cycles <= _above(leader, CLOSE)][:LEADERS]
    )
    incumbent = leader
    for position, entry in enumerate(chosen):
        # An operator without a second factor has nothing to improve.
        if entry.context.problem.rhs is None:
            break
        if entry.context.work(costs) + entry.context.extra < incumbent:
            entry.improve(costs, count, refine, row_budget // (4 * (position + 1)))
            incumbent = min(incumbent, entry.cycles)
    found = [e.found for e in screened if e.found is not None]
    return sorted(found, key=lambda f: (f.cycles, f.number))


@dataclass
class _Entry:
    """A problem on its way: its least estimate, its proposals, and its best schedule so far."""

    context: _Context
    price: float
    configs: list[Config | None]
    found: Found | None = None

    @property
    def number(self) -> int:
        return self.context.number

    @property
    def cycles(self) -> float:
        return math.inf if self.found is None else self.found.cycles

    def screen(self, far: float, row_budget: int) -> int:
        """Builds the first schedules, one only where that has more cycles than `far`; returns how
        many rows all have, few more than `row_budget`."""
        rows = 0
        for config in self.configs[:SCREENED]:
            found = self.context.attempt(config)
            if found is None:
                continue
            rows += len(found.schedule.ops)
            if found.cycles < self.cycles:
                self.found = found
            if self.cycles > far or rows > row_budget:
                break
        return rows

    def improve(self, costs: Costs, count: int, refine: int, row_budget: int) -> None:
        """Changes the best, and each further proposal that beats all before it."""
        start = self.found
        if start is None or start.config is None:
            return
        self.found = _refine(self.context, start, costs, refine, row_budget)
        record, rows = start.cycles, 0
        for config in self.configs[SCREENED:count]:
            if rows + len(start.schedule.ops) > row_budget // 2:
                break
            found = self.context.attempt(config)
            rows += 0 if found is None else len(found.schedule.ops)
            if found is not None and found.cycles < record:
                record = found.cycles
                other = _refine(self.context, found, costs, refine, row_budget)
                self.found = other if other.cycles < self.cycles else self.found


def rebuild(
    number: int, problem: Problem, config: Config, meter: Meter, ranges: Mapping[int, int]
) -> Found | None:
    """The schedule of decisions that an earlier search found, or None where they do not fit."""
    bias = None if problem.rhs is None else trick.find(problem, dict(ranges))
    return _Context(number, problem, bias, meter, 0.0).attempt(config)


class _Context:
    """One embedding's problem with what its schedules share."""

    def __init__(
        self,
        number: int,
        problem: Problem,
        bias: BiasTrick | None,
        meter: Meter,
        extra: float,
    ) -> None:
        self.number, self.problem, self.bias, self.extra = number, problem, bias, extra
        self.meter = meter
        self.covers: Covers = {}

    def work(self, costs: Costs) -> float:
        """Cycles that no schedule of this contraction beats: those of its compute steps."""
        steps = costs.step * count_steps(self.problem)
        return steps + _epilogue_cycles(self.problem, self.bias, costs)

    def floor(self, costs: Costs) -> float:
        """Cycles that are as good as reached: its steps, its operands read once."""
        problem = self.problem
        read = 0
        for m in (problem.lhs, problem.rhs):
            if m is not None:
                read += math.prod(m.grid) * problem.isa.memory(m.memory).elem_bytes
        return max(self.work(costs), read / costs.read_bytes)

    def attempt(self, config: Config | None) -> Found | None:
        """The schedule of `config`, or None where it does not fit; None: the one schedule that an
        operator without a second factor has."""
        try:
            if config is None:
                schedule = map_build.build(self.problem)
            else:
                schedule = build(self.problem, config, self.bias, self.covers)
        except Infeasible:
            return None
        return self._found(schedule, config)

    def _found(self, schedule: Schedule, config: Config | None) -> Found:
        measured = self.meter.measure(schedule)
        return Found(self.number, schedule, measured, measured.cycles + self.extra, config)

    def surely(self, like: Config | None) -> Found:
        """One point per tile: what fits wherever anything does."""
        if like is None:
            schedule = map_build.build(self.problem)
            return self._found(schedule, None)
        config = replace(like, tile=(1,) * len(self.problem.extents), up=0, down=0)
        schedule = build(self.problem, config, self.bias, self.covers)
        return self._found(schedule, config)


def _propose(context: _Context, costs: Costs, count: int) -> Sequence[tuple[float, Config | None]]:
    """(estimate, decisions), cheapest first. An elementwise operator has no decisions to make; its
    embeddings are equally near."""
    if context.problem.rhs is None:
        return [(1.0, None)]
    return propose(
        context.problem,
        _reserve(context.problem, context.bias),
        costs,
        count=count,
        trimmed_steps=count_steps(context.problem),
        epilogue_cycles=_epilogue_cycles(context.problem, context.bias, costs),
    )


def _refine(context: _Context, start: Found, costs: Costs, most: int, row_budget: int) -> Found:
    """Changes one decision at a time while that saves cycles and there is something to save."""
    best, rows, tried = start, 0, 0
    enough = 1.003 * context.floor(costs) + context.extra
    seen = {start.config}
    improved = True
    while improved:
        improved = False
        assert best.config is not None
        for config in neighbours(context.problem, best.config):
            if config in seen:
                continue
            if tried >= most or best.cycles <= enough or rows + len(best.schedule.ops) > row_budget:
                return best
            seen.add(config)
            found = context.attempt(config)
            tried += 1
            rows += 0 if found is None else len(found.schedule.ops)
            if found is not None and found.cycles < best.cycles:
                best, improved = found, True
                break
    return best


def neighbours(problem: Problem, config: Config) -> Iterator[Config]:
    """Configurations that differ in one decision, likely gains first."""
    for up, down in ((1, 0), (0, 1), (2, 0), (0, 2), (-1, 0), (0, -1)):
        if config.up + up >= 0 and config.down + down >= 0:
            yield replace(config, up=config.up + up, down=config.down + down)
    for slots in (2, 3, 64):
        if slots != config.slots:
            yield replace(config, slots=slots)
    for uops in (config.uops // 4, config.uops * 4):
        if 16 <= uops <= 2048:
            yield replace(config, uops=uops)
    for tail in (config.tail // 2, config.tail * 2):
        if 16 <= tail <= 1024:
            yield replace(config, tail=tail)
    for c, extent in enumerate(problem.extents):
        t = config.tile[c]
        for other in dict.fromkeys((min(extent, 2 * t), -(-t // 2), t + 1, t - 1)):
            if 1 <= other <= extent and other != t:
                tile = (*config.tile[:c], other, *config.tile[c + 1 :])
                yield configure(problem, tile, config.order, like=config)
    several = [c for c in config.order if config.tile[c] < problem.extents[c]]
    if len(several) > 1:
        swapped = tuple(reversed([c for c in config.order if c in several]))
        rest = tuple(c for c in config.order if c not in several)
        yield configure(problem, config.tile, (*rest, *swapped), like=config)
    yield replace(config, snake=not config.snake)


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
    for i, step in enumerate(problem.epilogue):
        if step.access is None:
            each += costs.immediate_step
        else:
            each += costs.step if bias and bias.step == i else costs.tensor_step
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
