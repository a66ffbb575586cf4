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
from dataclasses import dataclass

from csp_embed.errors import Infeasible
from csp_embed.machine.costs import Costs
from csp_embed.schedule import bias_by_contract as trick
from csp_embed.schedule.attempts import Attempts, Found, Meter
from csp_embed.schedule.config import Config
from csp_embed.schedule.improve import improve
from csp_embed.schedule.inputs import Problem

POOL = 16  # embeddings that are screened; more where `top` asks for more
SCREENED = 4  # schedules of each that are built
BUILT = 8  # and of one that is improved
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
    BUILT; refine: schedules built from changes to each start. row_budget: about how many rows
    all screened schedules may have together (compile time).
    Raises: Infeasible where no tile of any problem fits.
    """
    everyone = []
    for n, problem in enumerate(problems):
        extra = penalties[n] if penalties else 0.0
        attempts = Attempts(n, problem, trick.find(problem, dict(ranges)), meter, costs, extra)
        everyone.append(_Entry(attempts, max(count, BUILT)))
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
                refusal = refusal or error
                continue
            hopeful.append(entry)
            least = min([least] + [entry.price] * (entry.number < POOL))
        for entry in sorted(hopeful, key=lambda e: (e.price, e.number)):
            late = rows > row_budget // 5 and leader < math.inf
            if late or entry.price > _above(least, NEAR) or entry.attempts.work >= leader:
                continue
            rows += entry.screen(_above(leader, FAR), row_budget // 5)
            leader = min(leader, entry.cycles)
    entries = [e for e in everyone if e.configs]
    screened = [e for e in entries if e.found is not None]
    if not screened:
        if not entries:
            assert refusal is not None  # every problem either has proposals or was refused
            raise refusal
        return [entries[0].attempts.surely(entries[0].configs[0])]
    # Those beyond the pool come last, so that the order does not depend on how many there are.
    screened.sort(key=lambda e: (e.number >= POOL, e.cycles, e.number))
    # The one of least analytic cost is second at the latest: its first schedules, not its best, may
    # fall behind others that are alike but for a smaller tile.
    screened = [*screened[:1], *sorted(screened[1:], key=lambda e: e.number > 0)]
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
            # Those behind rarely win, and most that can be had is had soon.
            share = 1 if position == 0 else 4
            entry.improve(count, refine // share, row_budget // (2 if position == 0 else 8))
            incumbent = min(incumbent, entry.cycles)
    found = [e.found for e in screened if e.found is not None]
    return sorted(found, key=lambda f: (f.cycles, f.number))


@dataclass
class _Entry:
    """A problem on its way: its least estimate, its proposals, and its best schedule so far."""

    attempts: Attempts
    count: int
    price: float = math.inf
    configs: Sequence[Config | None] = ()
    screened: int = 0

    def propose(self) -> None:
        """Raises: Infeasible where no tile fits."""
        proposals = self.attempts.propose(self.count)
        self.price = proposals[0][0] + self.attempts.extra
        self.configs = [config for _, config in proposals]

    @property
    def number(self) -> int:
        return self.attempts.number

    @property
    def found(self) -> Found | None:
        return self.attempts.best

    @property
    def cycles(self) -> float:
        return math.inf if self.found is None else self.found.cycles

    def screen(self, far: float, row_budget: int) -> int:
        """Builds the first schedules, one only where that has more cycles than `far`; returns how
        many rows all have, few more than `row_budget`."""
        rows = 0
        for config in self.configs[:SCREENED]:
            rows += self.attempts.measure(config)[1]
            self.screened += 1
            if self.cycles > far or rows > row_budget:
                break
        return rows

    def improve(self, count: int, refine: int, row_budget: int) -> None:
        """Builds more of the proposals, changes the best, whichever that is, and then those of the
        further proposals that beat all others."""
        known = [c for c in self.configs if c is not None]  # All, where there is something to vary.
        rows = 0
        for config in known[self.screened : BUILT]:
            if rows > row_budget // 4:
                break
            rows += self.attempts.measure(config)[1]
            self.screened += 1
        enough = self.attempts.enough
        improve(self.attempts, known[: self.screened], enough, refine, row_budget - rows)
        record, rows = self.cycles, 0
        for config in known[BUILT:count]:
            if rows > row_budget // 2:
                break
            cycles, spent = self.attempts.measure(config)
            rows += spent
            if cycles < record:
                record = cycles
                improve(self.attempts, [config], enough, refine // 8, row_budget // 8)


def rebuild(
    number: int,
    problem: Problem,
    config: Config,
    meter: Meter,
    costs: Costs,
    ranges: Mapping[int, int],
) -> Found | None:
    """The schedule of decisions that an earlier search found, or None where they do not fit."""
    bias = None if problem.rhs is None else trick.find(problem, dict(ranges))
    attempts = Attempts(number, problem, bias, meter, costs)
    attempts.measure(config)
    return attempts.best
