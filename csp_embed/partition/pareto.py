"""The front of latency against period.

Takes: a graph and a platform.  Leaves: plans of which none is better in both.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import numpy as np

from csp_embed.errors import Infeasible
from csp_embed.ir.network import LATENCY, THROUGHPUT, Plan, Platform, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.arrays.view import make_problem, normalised
from csp_embed.partition.solve import solve
from csp_embed.partition.times.exact import Exact
from csp_embed.partition.times.timetable import latency_plan, retimed


def pareto(graph: TaskGraph, platform: Platform, *, points: int = 8, **options: Any) -> list[Plan]:
    """Plans by rising latency, each with `latency` and `period` set (epsilon constraint).

    The ends are the two optima (the second one with the least latency found for its period);
    between them the period is bounded by evenly spaced values and the latency minimised. options:
    those of `solve` but objective, max_latency and min_throughput; points share a wall-clock
    limit. Ctrl-C ends with the points so far, of which one then has "interrupted" in its reasons.
    Raises: InputError, Infeasible."""
    limit = options.pop("time_limit", None)
    begun, rest = time.perf_counter(), max(points - 1, 1) + 2

    def left() -> float:
        """Seconds; inf without a limit."""
        return float("inf") if limit is None else limit - (time.perf_counter() - begun)

    def one(**more: Any) -> Plan:
        """A point with its share of what is left of the limit."""
        nonlocal rest
        share = None if limit is None else max(0.01, left() / rest)
        rest = max(1, rest - 1)
        return solve(graph, platform, time_limit=share, **more, **options)

    found: list[Plan] = []
    try:
        best = one(objective=THROUGHPUT)
        if best.objective is None:
            if "interrupted" in best.reasons:
                raise KeyboardInterrupt
            return []
        found += _with_times(graph, platform, best)
        if "interrupted" in best.reasons:
            raise KeyboardInterrupt
        # Asked for in order to be told its period; as slow as no plan is.
        loosest = one(objective=LATENCY, min_throughput=1e-12 / (best.objective or 1.0))
        if loosest.objective is not None:
            found.append(loosest)
        elif "interrupted" in loosest.reasons:
            raise KeyboardInterrupt
        top = loosest.period or best.objective
        for i in range(max(points - 1, 1)):
            period = best.objective + (top - best.objective) * i / max(points - 1, 1)
            if period <= 0 or left() <= 0 or (found and "interrupted" in found[-1].reasons):
                break
            try:
                plan = one(objective=LATENCY, min_throughput=(1 - 1e-9) / period)
            except Infeasible:
                continue
            if plan.objective is not None:
                found.append(plan)
    except KeyboardInterrupt:  # between two points, or before the first
        if not found:
            raise
        found = [*found[:-1], *(replace(p, reasons=("interrupted",)) for p in found[-1:])]
    front: list[Plan] = []
    found = [plan for plan in found if plan.objective is not None]
    rows = [replace(plan, latency=plan.objective) for plan in found]
    for plan in sorted(rows, key=lambda x: (x.latency or 0.0, x.period or 0.0)):
        if not front or (plan.period or 0.0) < (front[-1].period or 0.0) * (1 - 1e-9):
            front.append(plan)
    if front and any("interrupted" in p.reasons for p in found):
        front[-1] = replace(front[-1], reasons=("interrupted",))
    return front


def _with_times(graph: TaskGraph, platform: Platform, plan: Plan) -> list[Plan]:
    """A plan of the shortest period as a point of the front, its tasks in topological order: what
    there is if the limit or Ctrl-C ends the search before a better one. Nothing is compiled for it.
    [] where it breaks a rule."""
    if plan.cost_model != "links":
        return []
    p = normalised(make_problem(graph, platform, plan.device_of()))
    dev = np.array([p.allowed(t)[0] for t in range(p.n)], np.int64)
    table = Exact.of(p).timetable(retimed(p, dev, range(p.n), {}))
    timed = latency_plan(
        p, table, method=plan.method, period=plan.objective, reasons=plan.reasons, seed=plan.seed,
        deterministic=plan.deterministic, contiguous=plan.contiguous, pipeline=plan.pipeline,
    )  # fmt: skip
    return [] if check_plan(graph, platform, timed) else [timed]
