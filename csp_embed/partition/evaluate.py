"""Somebody's placement as a plan: times by list scheduling, or loads."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np

from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import LATENCY, Plan, Platform, TaskGraph
from csp_embed.partition.arrays.view import make_problem, normalised, number
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.methods.list_scheduling import ListScheduler
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.times import feasible
from csp_embed.partition.times.exact import Exact, below
from csp_embed.partition.times.timetable import decoded, latency_plan, throughput_plan

OWN = NUMBERS.lists


def evaluate(
    graph: TaskGraph, platform: Platform, device_of: Mapping[str, str], objective: str = LATENCY
) -> Plan:
    """The plan of a full placement {task: device}; method "given".

    Raises: InputError (a task without a device, an unknown one), Infeasible (forbidden device)."""
    missing = [t.id for t in graph.tasks if t.id not in device_of]
    if missing:
        raise InputError(
            f"no device for task {missing[0]!r}",
            where="placement",
            hint="name a device for every task of the graph",
        )
    # Every task is fixed, so that each has one allowed device and faults of it are told as pins.
    p = normalised(make_problem(graph, platform, device_of))
    dev = np.array([p.allowed(t)[0] for t in range(p.n)], np.int64)
    if not feasible.talks(p, dev):
        raise Infeasible(
            "a value cannot reach its reader",
            where="placement",
            why="no chain of links joins their devices",
            hint="add a link, or place both tasks on one device",
        )
    exact = Exact.of(p)
    low, name = bounds.best_bound(p, objective == LATENCY)
    if objective != LATENCY:
        # A throughput plan has no times; loads are exact.
        plan = throughput_plan(p, dev, exact.loads(dev), None, method="given", bound=name)
    else:
        # Order by upward rank on the given devices: their own costs, not means over all.
        scheduler = ListScheduler(p, compiled=p.n > OWN.interpreted)
        order = scheduler.by_rank(scheduler.upward(p.cost[np.arange(p.n), dev]))
        table = decoded(p, order, dev, scheduler.k, scheduler.a, scheduler.w)
        plan = latency_plan(p, exact.timetable(table), method="given", bound=name)
    value = plan.objective or 0.0
    # The bound was added up in floats: what they may have lost is given back.
    low = min(below(number(low) * p.unit) * (1 - 1e-9), value)
    return replace(plan, lower_bound=low, gap=(value - low) / value if value else 0.0)
