"""What is proved of a problem: lower bounds as exact numbers, and whether they settle it.

Takes: a Problem, bounds of any method.  Leaves: the best of them as a Fraction, and the float that
searches compare with.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np

from csp_embed.ir.network import LATENCY
from csp_embed.partition.arrays.view import Problem
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.request import Incumbent, Request
from csp_embed.partition.times.exact import DOUBLE, Exact

OWN = NUMBERS.bounds

FLOATS = Fraction(1, 10**9)  # relative: more than any sum or product of floats here loses
SAME = 1e-13  # relative: floats of one exact value differ less


@dataclass
class Proof:
    """The best lower bound so far. closed: some exact search proved its optimum.

    sure: ms, holds exactly; value: the same in `unit` ms, as the searches have it. tick: ms of
    which every objective is a multiple (0: not known). rounded: times are too unlike for 64 bits,
    so that a finished search leaves a bound less by that rounding. gap: of an objective, which is
    good enough for the user."""

    value: float = 0.0
    name: str = "none"
    closed: bool = False
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)
    sure: Fraction = Fraction(0)
    unit: Fraction = Fraction(1)
    tick: Fraction = Fraction(0)
    rounded: bool = False
    gap: float = 0.0

    @classmethod
    def of(cls, p: Problem, gap: float = 0.0) -> Proof:
        """Nothing proved yet."""
        # Without a tick every objective is possible: bounds are not rounded up.
        return cls(unit=p.unit, tick=Exact.of(p).tick or Fraction(0), gap=gap)

    def raise_to(self, value: float, name: str) -> None:
        """Keeps the larger bound; `value` was added up in floats, whose errors are given back."""
        if np.isfinite(value):
            self.know(Fraction(float(value)) * (1 - FLOATS) * self.unit, name)

    def know(self, sure: Fraction, name: str) -> None:
        """Keeps the larger bound; `sure` (ms) holds exactly. An objective is a whole number of
        ticks, so a bound between two is as good as the next."""
        if self.tick:
            # Up to a whole number of ticks: no objective lies between.
            sure = -(-sure // self.tick) * self.tick
        if sure > self.sure:
            self.sure, self.name, self.value = sure, name, float(sure / self.unit)

    def meets(self, objective: Fraction) -> bool:
        """Whether an objective (ms) is proved the least: as exact numbers, and only where times had
        to be rounded, to all but the last digits of a double."""
        lost = objective * DOUBLE if self.rounded else 0
        return objective - lost <= self.sure

    def settles(self, value: float) -> bool:
        """Whether nothing better than `value` (in units) can be hoped for, or is wanted."""
        return value * (1 - self.gap) <= self.value * (1 + SAME)


def horizon(p: Problem, inc: Incumbent) -> float:
    """Times beyond this matter to no better plan."""
    # With the period as objective, times matter only up to the limit on latency.
    if inc.request.objective != "latency" and inc.request.max_latency is not None:
        return inc.request.max_latency
    return inc.best.value if inc.best is not None else far(p)


def far(p: Problem) -> float:
    """A makespan that some plan surely keeps: everything one after the other, all values sent."""
    longest = np.where(np.isfinite(p.cost), p.cost, 0.0).max(axis=1).sum()
    # The first class of routes tells who can talk.
    away = np.isfinite(p.lat[: p.m])
    sends = sum(
        float(p.waits(v)[away].max()) * len(p.consumers(v)) for v in range(len(p.value_src))
    )
    # A little above, so that rounding does not cut off the plan itself.
    return float(longest + sends) * (1 + 1e-6)


def first_bounds(p: Problem, proof: Proof, request: Request) -> None:
    """What is known before any search; exactly where that is quick."""
    exact = Exact.of(p)
    if p.n and p.n * p.m <= OWN.path_times:  # before anything is compiled
        least = (min(exact.cost(t, d) for d in p.allowed(t)) for t in range(p.n))
        proof.know(max(least), "largest task")
    # In floats, for any size; what follows is exact where the graph is small enough.
    proof.raise_to(*bounds.best_bound(p, request.objective == LATENCY))
    if p.n and request.objective == LATENCY and len(p.use) * p.m * p.m <= OWN.path_times:
        proof.know(exact.critical_path(), "critical path")
    if p.n and p.n * p.m <= OWN.path_times:
        proof.know(exact.load(bounds.load_prices(bounds.by_group(p)[0])), "load")


def settled(p: Problem, inc: Incumbent, proof: Proof) -> bool:
    """Whether the incumbent is proved optimal, exactly, or as near to it as is wanted."""
    # Cheap first: exact times are counted only once floats meet the bound.
    if inc.best is None or not proof.settles(inc.best.value):
        return False
    if proof.gap and inc.best.value > proof.value * (1 + SAME):
        return True
    exact = Exact.of(p)
    if inc.request.objective == LATENCY:
        assert inc.best.table is not None
        return proof.meets(exact.timetable(inc.best.table).makespan)
    return proof.meets(max(exact.loads(inc.best.dev).values(), default=Fraction(0)))
