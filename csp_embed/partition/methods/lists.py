"""List schedules, offered to the incumbent.

Takes: a Problem.  Leaves: the incumbent improved; placements for other methods to start from.
"""

from __future__ import annotations

import numpy as np

from csp_embed.ir.network import LATENCY
from csp_embed.partition.arrays.view import Problem
from csp_embed.partition.methods.list_scheduling import ListScheduler, Placement
from csp_embed.partition.methods.method import Method, Search, always
from csp_embed.partition.methods.period import throughput
from csp_embed.partition.portfolio import NUMBERS, Step
from csp_embed.partition.request import Incumbent
from csp_embed.partition.times.timetable import decoded

OWN = NUMBERS.lists

PLACED = ("greedy", "single")  # rules that place for the period where that is the objective


def lists(p: Problem, inc: Incumbent, compiled: bool, large: bool = False) -> list[Placement]:
    """All list schedules, offered; best first."""
    scheduler = ListScheduler(p, compiled)
    found = scheduler.portfolio(large)
    for x in found:
        table = decoded(p, x.order, x.dev, scheduler.k, scheduler.a, scheduler.w)
        inc.offer(x.dev, table, x.method)
    return found


def _wanted(search: Search, step: Step) -> str | None:
    """For the period, times are needed where the latency is limited."""
    if search.request.objective != LATENCY and search.request.max_latency is None:
        return "no limit on the latency"
    return None


def _all(search: Search, step: Step) -> None:
    """All of them; when "heft" on large graphs HEFT alone: more would take as long as `split`."""
    p, inc = search.p, search.inc
    timed = search.request.objective == LATENCY
    if step.when == "heft" and p.n > step.tasks:
        search.starts = [x for x in (ListScheduler(p).heft(),) if np.isfinite(x.value)]
        for x in search.starts:
            inc.offer(x.dev, decoded(p, x.order, x.dev), x.method)
        return
    search.starts = lists(
        p, inc, compiled=p.n > OWN.interpreted, large=timed and p.n > OWN.few_rules
    )


def _rule(search: Search, step: Step) -> None:
    """The one list rule that the step is named after; for the period it is judged by its loads."""
    p, inc, rule = search.p, search.inc, step.do
    timed = search.request.objective == LATENCY or search.request.max_latency is not None
    if search.request.objective != LATENCY and rule in PLACED:
        for name, dev in throughput.starts(p):
            if name == rule:
                inc.offer(dev, throughput.timed(p, dev, timed), rule)
        return
    # One rule alone takes less time than kernels take to compile or to load; looking ahead takes
    # as many times more as a task has successors and devices.
    quick = p.n * p.m <= OWN.quick_pairs and rule != "lookahead"
    scheduler = ListScheduler(p, compiled=not quick and p.n > OWN.interpreted)
    x: Placement = getattr(scheduler, {"minmin": "min_min"}.get(rule, rule))()
    if np.isfinite(x.value):
        table = decoded(p, x.order, x.dev, scheduler.k, scheduler.a, scheduler.w)
        inc.offer(x.dev, table if timed else None, rule)


METHOD = Method("lists", _wanted, _all)
RULES = tuple(
    Method(name, always, _rule)
    for name in ("heft", "peft", "cpop", "lookahead", "minmin", "greedy", "single")
)
