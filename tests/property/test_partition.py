"""Random problems: every method's plan passes the verifier and no bound exceeds any plan."""

from __future__ import annotations

from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from partition_cases import platform, random_graph

from csp_embed.ir.network import Bus, Platform
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.arrays.view import make_problem
from csp_embed.partition.bounds.latency_period import all_bounds
from csp_embed.partition.solve import solve

LINKS = st.sampled_from(
    [{}, {"duplex": "half"}, {"duplex": "full"}, {"shared": "bus"}, {"latency_ms": 0.5}]
)


def machines(m: int, link: dict[str, object]) -> Platform:
    """m devices; a bus where the links share one."""
    buses = (Bus("bus", 2.0),) if "shared" in link else ()
    return replace(platform(m, **link), buses=buses)


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.integers(1, 9), st.integers(1, 3), st.integers(0, 10**6), LINKS)
def test_plans_pass_and_bounds_hold(n: int, m: int, seed: int, link: dict[str, object]) -> None:
    graph, where = random_graph(n, m, seed, integer=seed % 2 == 0), machines(m, link)
    p = make_problem(graph, where)
    for objective in ("latency", "throughput"):
        best = solve(graph, where, objective=objective, method="exact")
        assert best.status == "OPTIMAL"
        for value in all_bounds(p, objective == "latency").values():
            assert value <= best.objective * (1 + 1e-6)
        for method in ("heft", "split", "greedy"):
            plan = solve(graph, where, objective=objective, method=method)
            assert check_plan(graph, where, plan) == []
            assert plan.objective >= best.objective * (1 - 1e-6)
