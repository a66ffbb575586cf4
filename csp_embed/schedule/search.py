"""Finds a schedule: proposes tiles by estimate, builds the best of them, keeps the one with the
fewest cycles.

Takes: a Problem and `measure`, which emits a schedule and returns its simulated cycles (the driver
supplies it).
Leaves: the best Schedule with its cycles.  Ties go to the earlier proposal, so the result is
deterministic.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from csp_embed.errors import Infeasible
from csp_embed.ir.schedule import BiasTrick, Schedule
from csp_embed.isa.costs import Costs
from csp_embed.schedule import map_build, trick
from csp_embed.schedule.build import build
from csp_embed.schedule.config import Config
from csp_embed.schedule.cover import groups_of
from csp_embed.schedule.nests import Covers
from csp_embed.schedule.problem import Problem
from csp_embed.schedule.tile import Reserve, configure, propose

Measure = Callable[[Schedule], float]


@dataclass(frozen=True)
class Found:
    """number: of the problem. cycles: by `measure`. config: the decisions (None: elementwise)."""

    number: int
    schedule: Schedule
    cycles: float
    config: Config | None = None


def search(
    problems: Sequence[Problem],
    measure: Measure,
    costs: Costs,
    *,
    ranges: Mapping[int, int],
    penalties: Sequence[float] = (),
    count: int = 8,
    refine: int = 80,
    row_budget: int = 40_000,
) -> list[Found]:
    """The best schedule of every problem that was tried, fewest cycles first.

    problems: embeddings of one operator, best first. ranges: epilogue step -> largest magnitude of
    its tensor, where known. penalties: cycles added to every schedule of a problem, for what its
    embedding costs elsewhere. count: schedules built from estimates; refine: schedules built from
    changes to the best one. row_budget: about how many rows all of them may have together (compile
    time).
    Raises: Infeasible where no tile of any problem fits.
    """
    contexts, proposals, refusal = [], [], None
    for n, problem in enumerate(problems):
        if problem.rhs is None:
            schedule = map_build.build(problem)
            return [Found(n, schedule, measure(schedule))]
        extra = penalties[n] if penalties else 0.0
        context = _Context(n, problem, trick.find(problem, dict(ranges)), measure, extra)
        contexts.append(context)
        try:
            proposals += [
                (price + extra, n, rank, config)
                for rank, (price, config) in enumerate(_propose(context, costs, count))
            ]
        except Infeasible as error:
            refusal = error
    if not proposals:
        assert refusal is not None
        raise refusal
    proposals.sort(key=lambda p: p[:3])
    best_of: dict[int, Found] = {}
    rows = 0
    for tried, (price, n, _, config) in enumerate(proposals):
        leader = min((f.cycles for f in best_of.values()), default=math.inf)
        # A second embedding is worth building only while its estimate is near the leader.
        if tried >= count or (rows > row_budget and tried) or price > 1.1 * leader:
            break
        found = contexts[n].attempt(config)
        rows += 0 if found is None else len(found.schedule.ops)
        if found is not None and (n not in best_of or found.cycles < best_of[n].cycles):
            best_of[n] = found
    if not best_of:
        best_of[0] = contexts[0].surely(proposals[0][3])
    leader = min(best_of.values(), key=lambda f: (f.cycles, f.number))
    best_of[leader.number] = _refine(
        contexts[leader.number], leader, costs, refine, row_budget // 4
    )
    return sorted(best_of.values(), key=lambda f: (f.cycles, f.number))


def rebuild(
    number: int, problem: Problem, config: Config, measure: Measure, ranges: Mapping[int, int]
) -> Found | None:
    """The schedule of decisions that an earlier search found, or None where they do not fit."""
    bias = None if problem.rhs is None else trick.find(problem, dict(ranges))
    return _Context(number, problem, bias, measure, 0.0).attempt(config)


class _Context:
    """One embedding's problem with what its schedules share."""

    def __init__(
        self,
        number: int,
        problem: Problem,
        bias: BiasTrick | None,
        measure: Measure,
        extra: float,
    ) -> None:
        self.number, self.problem, self.bias, self.extra = number, problem, bias, extra
        self.measure = lambda schedule: measure(schedule) + extra
        self.covers: Covers = {}

    def floor(self, costs: Costs) -> float:
        """Cycles that no schedule of this embedding beats: its steps, its operands read once."""
        problem = self.problem
        read = 0
        for m in (problem.lhs, problem.rhs):
            if m is not None:
                read += math.prod(m.grid) * problem.isa.memory(m.memory).elem_bytes
        steps = count_steps(problem) + _epilogue_cycles(problem, self.bias)
        return max(float(steps), read / costs.read_bytes)

    def attempt(self, config: Config) -> Found | None:
        """The schedule of `config`, or None where it does not fit."""
        try:
            schedule = build(self.problem, config, self.bias, self.covers)
        except Infeasible:
            return None
        return Found(self.number, schedule, self.measure(schedule), config)

    def surely(self, like: Config) -> Found:
        """One point per tile: what fits wherever anything does."""
        config = replace(like, tile=(1,) * len(self.problem.extents), up=0, down=0)
        schedule = build(self.problem, config, self.bias, self.covers)
        return Found(self.number, schedule, self.measure(schedule), config)


def _propose(context: _Context, costs: Costs, count: int) -> list[tuple[float, Config]]:
    return propose(
        context.problem,
        _reserve(context.problem, context.bias),
        costs,
        count=count,
        trimmed_steps=count_steps(context.problem),
        epilogue_cycles=_epilogue_cycles(context.problem, context.bias),
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
