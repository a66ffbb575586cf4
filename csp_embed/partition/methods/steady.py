"""A first plan that is fast enough in the steady state, where list schedules are not.

Takes: a limit on the rate.  Leaves: a plan that keeps it, or the proof that none does.
"""

from __future__ import annotations

from dataclasses import replace

from csp_embed.ir.network import THROUGHPUT
from csp_embed.partition.arrays.view import Problem
from csp_embed.partition.methods.exact_search import exact
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.methods.period import throughput
from csp_embed.partition.methods.seeds import seed_all
from csp_embed.partition.portfolio import NUMBERS, Step
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Incumbent

OWN = NUMBERS.exact

SLACK = 1 + 2e-9  # relative: what sums of floats may add to a period


def steady_start(p: Problem, inc: Incumbent, proof: Proof, clock: Clock) -> None:
    """Where no plan is fast enough in the steady state: the shortest period alone, which either
    gives one or proves that there is none."""
    request = replace(clock.request, objective=THROUGHPUT, min_throughput=None, max_latency=None)
    alone, known = Incumbent(p, request), Proof.of(p)
    seed_all(p, alone, clock)
    if alone.best is not None:
        exact(p, alone, known, clock.of(request), *OWN.steady)
    if known.value * (clock.request.min_throughput or 0.0) > SLACK:
        proof.notes.append("infeasible")
    elif alone.best is not None:
        inc.offer(alone.best.dev, throughput.timed(p, alone.best.dev, True), "cpsat")


def _missing(search: Search, step: Step) -> str | None:
    if search.request.min_throughput is None:
        return "no limit on the rate"
    return None if search.inc.best is None else "a plan keeps the rate"


def _run(search: Search, step: Step) -> None:
    steady_start(search.p, search.inc, search.proof, search.clock)


METHOD = Method("steady", _missing, _run)
