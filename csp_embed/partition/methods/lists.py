"""List schedules, offered to the incumbent.

Takes: a Problem.  Leaves: the incumbent improved; placements for other methods to start from.
"""

from __future__ import annotations

from csp_embed.partition.methods.list_scheduling import ListScheduler, Placement
from csp_embed.partition.request import Incumbent
from csp_embed.partition.timetable import decoded
from csp_embed.partition.view import Problem

SMALL = 30  # tasks up to which interpreted list schedulers are quicker than compiling


def lists(p: Problem, inc: Incumbent, compiled: bool, large: bool = False) -> list[Placement]:
    """All list schedules, offered; best first."""
    scheduler = ListScheduler(p, compiled)
    found = scheduler.portfolio(large)
    for x in found:
        table = decoded(p, x.order, x.dev, scheduler.k, scheduler.a, scheduler.w)
        inc.offer(x.dev, table, x.method)
    return found
