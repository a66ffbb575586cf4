"""Finds a schedule: proposes tiles by estimate, builds the best of them, changes the best.

Takes: Problems (embeddings of one operator) and `measure`, which emits a schedule and returns its
simulated cycles (the driver supplies it).
Leaves: the best Schedule of every problem with its cycles.

More candidates never make it worse, by construction. What is tried for an embedding depends on the
earlier ones' screening alone (SCREENED schedules each, whatever the effort), never on later ones nor
on how far others were improved; a longer search is a continuation of the shorter one; and nothing is
cut by the incumbent but what is proved not to beat it. So larger `problems`, `count` and `refine`
try a superset of schedules.
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


# Schedules of every embedding that are built before it is decided which are improved.
SCREENED = 4
# An embedding is built where its estimate is at most so much above the least so far (estimates of
# small operators are rough), and improved where its screening is at most so much above the least.
NEAR, KEPT = 1.25, 1.02


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
    """The best schedule of every problem that was tried, fewest cycles first; ties: the earlier.

    problems: embeddings of one operator, best first. ranges: epilogue step -> largest magnitude of
    its tensor, where known. penalties: cycles added to every schedule of a problem, for what its
    embedding costs elsewhere. count: schedules of an embedding built from estimates, at least
    SCREENED; refine: schedules built from changes to each start. row_budget: about how many rows
    all screened schedules may have together (compile time).
    Raises: Infeasible where no tile of any problem fits.
    """
    found: list[Found] = []
    screens: list[float] = []
    least, kept, rows = math.inf, 0, 0
    unfit: list[tuple[_Context, Config]] = []
    refusal: Infeasible | None = None
    for n, problem in enumerate(problems):
        extra = penalties[n] if penalties else 0.0
        if screens and rows > row_budget:
            break
        try:
            context = _Context(n, problem, trick.find(problem, dict(ranges)), measure, extra)
            if problem.rhs is None:
                whole = context.elementwise()
                found.append(whole)
                screens.append(whole.cycles)
                rows += len(whole.schedule.ops)
                continue
            proposals = _propose(context, costs, max(count, SCREENED))
        except Infeasible as error:
            refusal = refusal or error
            continue
        least = min(least, proposals[0][0] + extra)
        if proposals[0][0] + extra > NEAR * least:
            continue
        configs = [config for _, config in proposals]
        screened = _screen(context, configs[:SCREENED], NEAR * min(screens, default=math.inf))
        if not screened:
            unfit.append((context, configs[0]))
            continue
        rows += sum(len(f.schedule.ops) for f in screened)
        best = min(screened, key=lambda f: f.cycles)
        screens.append(best.cycles)
        incumbent = min((f.cycles for f in found), default=math.inf)
        if best.cycles <= KEPT * min(screens) and context.work(costs) + extra < incumbent:
            kept += 1
            budget = row_budget // (4 * kept)
            best = _improved(context, best, configs[SCREENED:count], costs, refine, budget)
        found.append(best)
    if not found and unfit:
        context, config = unfit[0]
        found.append(context.surely(config))
    if not found:
        assert refusal is not None  # every problem was refused or screened
        raise refusal
    return sorted(found, key=lambda f: (f.cycles, f.number))


def _screen(context: _Context, configs: Sequence[Config], enough: float) -> list[Found]:
    """The schedules of `configs`; only the first that fits where that is far off."""
    out: list[Found] = []
    for config in configs:
        found = context.attempt(config)
        if found is not None:
            out.append(found)
            if found.cycles > enough:
                break
    return out


def _improved(
    context: _Context,
    start: Found,
    further: Sequence[Config],
    costs: Costs,
    refine: int,
    row_budget: int,
) -> Found:
    """The best found by changes to `start`, and to each of `further` that beats all before it."""
    best, record = _refine(context, start, costs, refine, row_budget), start.cycles
    rows = 0
    for config in further:
        found = context.attempt(config)
        rows += 0 if found is None else len(found.schedule.ops)
        if found is not None and found.cycles < record:
            record = found.cycles
            other = _refine(context, found, costs, refine, row_budget)
            best = other if other.cycles < best.cycles else best
        if rows > row_budget:
            break
    return best


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

    def elementwise(self) -> Found:
        """The one schedule of an operator without a second factor."""
        schedule = map_build.build(self.problem)
        return Found(self.number, schedule, self.measure(schedule))

    def work(self, costs: Costs) -> float:
        """Cycles that no schedule of this embedding beats: those of its compute steps."""
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
