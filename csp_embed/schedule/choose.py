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
from collections.abc import Mapping, Sequence

from csp_embed.errors import Infeasible
from csp_embed.machine.costs import Costs
from csp_embed.schedule import bias_by_contract as trick
from csp_embed.schedule.attempts import Attempts, Decided, Found, Meter
from csp_embed.schedule.config import Config
from csp_embed.schedule.improve import Front
from csp_embed.schedule.inputs import Problem

POOL = 16  # embeddings that are screened; more where `top` asks for more
# Tiles of each whose outline is looked at, with ramps of the first RAMPED: what estimates call the
# twentieth is now and then the best by outlines, which tell more and cost little.
PROPOSED, RAMPED = 24, 12
SCREENED = 2  # schedules of each that are built
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
    count: int = 2,
    refine: int = 160,
    row_budget: int = 40_000,
) -> list[Found]:
    """The best schedule of every problem that was tried, fewest cycles first; ties: the earlier.

    problems: embeddings of one operator, best first. ranges: epilogue step -> largest magnitude of
    its tensor, where known. penalties: cycles added to every schedule of a problem, for what its
    embedding costs elsewhere. top: problems whose schedules are improved; 0: those that come close
    to the best at first. count: schedules of such a problem built from estimates, at least
    BUILT; refine: schedules built from changes to each start. row_budget: about how many rows
    all screened schedules may have together (compile time).
    Raises: Infeasible where no tile of any problem fits.
    """
    everyone = []
    for n, problem in enumerate(problems):
        extra = penalties[n] if penalties else 0.0
        # Every problem gets its entry, screened or not: numbers count from the caller's list.
        attempts = Attempts(n, problem, trick.find(problem, dict(ranges)), meter, costs, extra)
        everyone.append(_Entry(attempts, count))
    pool = sorted(everyone[:POOL], key=lambda e: (e.attempts.work, e.number))
    refusal = None
    rows, leader, least = 0, math.inf, math.inf
    # The one of least work first: many others need more steps than it has cycles, so that they
    # cannot win, and proposing tiles for them would take most of the time of a large operator.
    for group in (pool[:1], pool[1:], everyone[POOL:]):
        hopeful = []
        for entry in group:
            if entry.attempts.work >= leader:
                continue
            try:
                entry.propose()
            except Infeasible as error:
                # The first refusal is the best embedding's: the one that a person should read.
                refusal = refusal or error
                continue
            hopeful.append(entry)
            # Only the pool decides what is near: what lies beyond must not depend on how much was
            # asked for.
            least = min([least] + [entry.price] * (entry.number < POOL))
        for entry in sorted(hopeful, key=lambda e: (e.price, e.number)):
            late = rows > row_budget // 5 and leader < math.inf
            if late or entry.price > _above(least, NEAR) or entry.attempts.work >= leader:
                continue
            rows += entry.screen(_above(leader, FAR), row_budget // 5)
            leader = min(leader, entry.cycles)
    entries = [e for e in everyone if e.configs]
    screened = [e for e in entries if e.cycles < math.inf]
    if not screened:
        if not entries:
            assert refusal is not None  # every problem either has proposals or was refused
            raise refusal
        # No schedule could be counted within the budget: one is built however long it takes.
        return [entries[0].attempts.surely(entries[0].configs[0])]
    # Those beyond the pool come last, so that the order does not depend on how many there are.
    screened.sort(key=lambda e: (e.number >= POOL, e.cycles, e.number))
    # The one of least analytic cost is second at the latest: its first schedules, not its best, may
    # fall behind others that are alike but for a smaller tile.
    screened = [*screened[:1], *sorted(screened[1:], key=lambda e: e.number > 0)]
    # And the one of least outline third: what its first schedules lack, improving them may give.
    hopeful = min(screened, key=lambda e: (e.number >= POOL, e.price, e.number))
    screened = [*screened[:2], *sorted(screened[2:], key=lambda e: e is not hopeful)]
    chosen = (
        screened[:top]
        if top
        else [e for e in screened if e.cycles <= _above(leader, NEAR if e.number == 0 else CLOSE)][
            :LEADERS
        ]
    )
    incumbent = leader
    for position, entry in enumerate(chosen):
        # An operator without a second factor has nothing to improve.
        if entry.attempts.problem.rhs is None:
            break
        if entry.attempts.work < incumbent:
            # Those behind rarely win, and most that can be had is had soon; the one of least
            # analytic cost wins most often of them.
            share, rows = (1, 3) if position == 0 else (2, 6) if entry.number == 0 else (4, 10)
            # Rows, not seconds, bound the work: the same schedules on every computer.
            entry.improve(count, refine // share, row_budget // rows)
            incumbent = min(incumbent, entry.cycles)
    found = [f for f in (e.attempts.found for e in screened) if f is not None]
    return sorted(found, key=lambda f: (f.cycles, f.number))


class _Entry:
    """A problem on its way: its least estimate, its proposals, and its best schedule so far."""

    def __init__(self, attempts: Attempts, count: int) -> None:
        self.attempts, self.count = attempts, count
        self.price = math.inf
        self.configs: list[Decided] = []
        self.front = Front(attempts)

    def propose(self) -> None:
        """Raises: Infeasible where no tile fits."""
        proposals = self.attempts.propose(max(self.count, PROPOSED))
        self.configs = [config for _, config in proposals]
        for at, config in enumerate(self.configs[:PROPOSED]):
            if isinstance(config, Config):
                self.front.start(config, at < RAMPED)
        outlined = self.front.least
        self.price = outlined if outlined < math.inf else proposals[0][0] + self.attempts.extra

    @property
    def number(self) -> int:
        return self.attempts.number

    @property
    def cycles(self) -> float:
        return self.attempts.cycles

    def screen(self, far: float, row_budget: int) -> int:
        """Builds the first schedules, one only where that has more cycles than `far`; returns how
        many rows all have, few more than `row_budget`."""
        first = self.configs[0]
        if not isinstance(first, Config):
            return sum(self.attempts.measure(config)[1] for config in self.configs)
        rows = self.front.measure(first)
        for _ in range(SCREENED - 1):
            if rows > row_budget or not self.attempts.enough < self.cycles <= far:
                break
            if self.front.least == math.inf:
                break
            rows += self.front.step()
        return rows

    def improve(self, count: int, refine: int, row_budget: int) -> None:
        """Measures what is near by the outline, and then those of the first `count` proposals that
        were not. Proposals are not changed: which of them beat all others would depend on
        `refine`, and a larger one could find less."""
        rows = self.attempts.size  # The next is about as long.
        if self.cycles > self.attempts.enough:
            self.front.sketch()
        self.front.improve(self.attempts.enough, refine, row_budget)
        for config in self.configs[:count]:
            if rows > row_budget // 2 or not isinstance(config, Config):
                break
            rows += self.attempts.measure(config)[1]


def rebuild(
    number: int,
    problem: Problem,
    config: Decided,
    meter: Meter,
    costs: Costs,
    ranges: Mapping[int, int],
) -> Found | None:
    """The schedule of decisions that an earlier search found, or None where they do not fit."""
    bias = None if problem.rhs is None else trick.find(problem, dict(ranges))
    attempts = Attempts(number, problem, bias, meter, costs)
    attempts.measure(config)
    return attempts.best
