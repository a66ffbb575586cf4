"""What a supposed makespan implies holds of optimal plans, and none that a plan has is refuted.

The judge is brute force in exact arithmetic on odd tiny instances (pins, groups, memory, relays,
queues, buses), and CP-SAT, which knows nothing of these bounds at this size, on larger ones."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from partition_brute import Brute, instance
from partition_cases import platform, random_graph

from csp_embed.errors import Infeasible
from csp_embed.ir.network import Plan, Platform, TaskGraph
from csp_embed.partition.arrays.view import Problem, make_problem, normalised
from csp_embed.partition.bounds.destructive import destructive, tightened
from csp_embed.partition.solve import solve


def optimum(seed: int) -> tuple[Problem, float] | None:
    """A tiny problem and its least makespan in its unit; None where there is none."""
    graph, machines = instance(seed)
    try:
        p = normalised(make_problem(graph, machines))
        least = Brute(graph, machines).latency()
    except (Infeasible, OverflowError):
        return None
    return None if least is None else (p, float(least / p.unit))


def test_no_makespan_of_a_plan_is_refuted() -> None:
    refuted = known = 0
    for seed in range(150):
        if (found := optimum(seed)) is None:
            continue
        p, least = found
        assert tightened(p, least) is not None, seed
        bound, _ = destructive(p, 0.0, 2 * least)
        assert bound <= least * (1 + 1e-9), seed
        known += 1
        refuted += tightened(p, least * (1 - 1e-6)) is None
    # Tiny instances are mostly settled by it; a rule that stopped working would show here.
    assert known > 100
    assert refuted > 0.8 * known


def keeps(p: Problem, plan: Plan, limit: float) -> None:
    """Asserts that a plan keeps everything that its makespan implies."""
    tight = tightened(p, limit)
    assert tight is not None
    at = {d.name: i for i, d in enumerate(p.platform.devices)}
    unit = float(p.unit)
    rows = {row.task: row for row in plan.assignments}
    choices = [t * p.m + at[rows[name].device] for t, name in enumerate(p.ids)]
    for t, name in enumerate(p.ids):
        d, start, end = at[rows[name].device], rows[name].start, rows[name].finish
        assert np.isfinite(tight.cost[t, d])
        assert start / unit >= tight.heads[t, d] * (1 - 1e-9)
        assert (plan.objective - end) / unit >= tight.tails[t, d] * (1 - 1e-9) - 1e-9 * limit
    assert not any(tight.bad[i, j] for i, j in itertools.combinations(choices, 2))


def sized(seed: int) -> tuple[TaskGraph, Platform]:
    """14 tasks on 2 or 3 devices, whose transfers take long."""
    links = [{}, {"duplex": "full"}, {"duplex": "half"}][seed % 3]
    return random_graph(14, 2 + seed % 2, seed, ccr=5.0), platform(2 + seed % 2, **links)


@pytest.mark.parametrize("seed", range(12))
def test_optimal_plans_keep_what_their_makespan_implies(seed: int) -> None:
    graph, machines = sized(seed)
    plan = solve(graph, machines, method="exact")
    assert plan.status == "OPTIMAL"
    p = normalised(make_problem(graph, machines))
    limit = plan.objective / float(p.unit)
    keeps(p, plan, limit)
    keeps(p, plan, 1.2 * limit)
    assert destructive(p, 0.0, 2 * limit)[0] <= limit * (1 + 1e-9)
