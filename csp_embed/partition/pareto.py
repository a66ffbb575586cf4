"""The front of latency against period.

Takes: a graph and a platform.  Leaves: plans of which none is better in both.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from csp_embed.errors import Infeasible
from csp_embed.ir.network import LATENCY, THROUGHPUT, Plan, Platform, TaskGraph
from csp_embed.partition.solve import solve


def pareto(graph: TaskGraph, platform: Platform, *, points: int = 8, **options: Any) -> list[Plan]:
    """Plans by rising latency, each with `latency` and `period` set (epsilon constraint).

    The ends are the two optima (the second one with the least latency found for its period);
    between them the period is bounded by evenly spaced values and the latency minimised. options:
    those of `solve` but objective, max_latency and min_throughput. Wall-clock limits are per
    point.
    Raises: InputError, Infeasible."""
    best = solve(graph, platform, objective=THROUGHPUT, **options)
    if best.objective is None:
        return []
    found: list[Plan] = []
    # Asked for in order to be told its period; as slow as no plan is.
    slowest = 1e-12 / (best.objective or 1.0)
    loosest = solve(graph, platform, objective=LATENCY, min_throughput=slowest, **options)
    if loosest.objective is not None:
        found.append(loosest)
    top = loosest.period or best.objective
    for i in range(max(points - 1, 1)):
        limit = best.objective + (top - best.objective) * i / max(points - 1, 1)
        if limit <= 0:
            break
        try:
            plan = solve(
                graph, platform, objective=LATENCY, min_throughput=(1 - 1e-9) / limit, **options
            )
        except Infeasible:
            continue
        if plan.objective is not None:
            found.append(plan)
    front: list[Plan] = []
    rows = [replace(plan, latency=plan.objective) for plan in found]
    for plan in sorted(rows, key=lambda x: (x.latency or 0.0, x.period or 0.0)):
        if not front or (plan.period or 0.0) < (front[-1].period or 0.0) * (1 - 1e-9):
            front.append(plan)
    return front
