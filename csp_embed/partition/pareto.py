"""The front of latency against period.

Takes: a graph and a platform.  Leaves: plans of which none is better in both.
"""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

from csp_embed.errors import Infeasible
from csp_embed.ir.network import LATENCY, THROUGHPUT, Plan, Platform, TaskGraph
from csp_embed.partition.solve import solve


def pareto(graph: TaskGraph, platform: Platform, *, points: int = 8, **options: Any) -> list[Plan]:
    """Plans by rising latency, each with `latency` and `period` set (epsilon constraint).

    The ends are the two optima (the second one with the least latency found for its period);
    between them the period is bounded by evenly spaced values and the latency minimised. options:
    those of `solve` but objective, max_latency and min_throughput; points share a wall-clock
    limit. Ctrl-C ends with the points so far, of which one then has "interrupted" in its reasons.
    Raises: InputError, Infeasible."""
    limit = options.pop("time_limit", None)
    begun, rest = time.perf_counter(), max(points - 1, 1) + 2

    def one(**more: Any) -> Plan:
        """A point with its share of what is left of the limit."""
        nonlocal rest
        left = None if limit is None else max(0.01, limit - (time.perf_counter() - begun)) / rest
        rest = max(1, rest - 1)
        return solve(graph, platform, time_limit=left, **more, **options)

    found: list[Plan] = []
    try:
        best = one(objective=THROUGHPUT)
        if best.objective is None:
            if "interrupted" in best.reasons:
                raise KeyboardInterrupt
            return []
        # Asked for in order to be told its period; as slow as no plan is.
        loosest = one(objective=LATENCY, min_throughput=1e-12 / (best.objective or 1.0))
        if loosest.objective is not None:
            found.append(loosest)
        top = loosest.period or best.objective
        for i in range(max(points - 1, 1)):
            period = best.objective + (top - best.objective) * i / max(points - 1, 1)
            if period <= 0 or (found and "interrupted" in found[-1].reasons):
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
    rows = [replace(plan, latency=plan.objective) for plan in found]
    for plan in sorted(rows, key=lambda x: (x.latency or 0.0, x.period or 0.0)):
        if not front or (plan.period or 0.0) < (front[-1].period or 0.0) * (1 - 1e-9):
            front.append(plan)
    if front and any("interrupted" in p.reasons for p in found):
        front[-1] = replace(front[-1], reasons=("interrupted",))
    return front
