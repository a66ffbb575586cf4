"""Placements to begin with for the period: whole devices, splits, greedy, collapsed servers.

Takes: a Problem.  Leaves: the incumbent improved.
"""

from __future__ import annotations

from csp_embed.errors import Infeasible
from csp_embed.ir.network import LATENCY
from csp_embed.partition.arrays.view import Ints, Problem
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.methods.period.collapse import collapsed
from csp_embed.partition.methods.period.throughput import starts, timed
from csp_embed.partition.portfolio import Step
from csp_embed.partition.request import Clock, Incumbent


def seed_all(p: Problem, inc: Incumbent, clock: Clock) -> list[Ints]:
    """Offers every start; returns those that can run."""
    wanted = inc.request.max_latency is not None or inc.request.objective == "latency"
    placements = []
    for name, dev in starts(p):
        inc.offer(dev, timed(p, dev, wanted), name)
        placements.append(dev)
    try:
        whole = collapsed(p, clock)
    except Infeasible:  # a run that does not fit its server: no such start
        whole = None
    if whole is not None:
        inc.offer(whole, timed(p, whole, wanted), "collapsed")
        placements.append(whole)
    return placements


def _useful(search: Search, step: Step) -> str | None:
    """For the makespan they are worse than lists, unless lists break a constraint."""
    r = search.request
    if r.objective == LATENCY and not (r.shaped or r.min_throughput is not None):
        return "list schedules are better starts" if search.starts else None
    return None


def _run(search: Search, step: Step) -> None:
    seed_all(search.p, search.inc, search.clock)


METHOD = Method("seeds", _useful, _run)
