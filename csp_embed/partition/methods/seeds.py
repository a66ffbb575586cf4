"""Placements to begin with for the period: whole devices, splits, greedy, collapsed servers.

Takes: a Problem.  Leaves: the incumbent improved.
"""

from __future__ import annotations

from csp_embed.errors import Infeasible
from csp_embed.partition.methods.collapse import collapsed
from csp_embed.partition.methods.throughput import starts, timed
from csp_embed.partition.request import Clock, Incumbent
from csp_embed.partition.view import Ints, Problem


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
