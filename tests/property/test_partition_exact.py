"""Every method, status and bound against brute force in exact arithmetic on odd tiny instances."""

from __future__ import annotations

from fractions import Fraction

import pytest
from partition_brute import Brute, decimal, instance

from csp_embed.errors import Infeasible
from csp_embed.partition.solve import METHODS, solve

LAST = Fraction(1, 2**48)  # relative: the last digits of doubles


def hungry(seed: int) -> bool:
    """Whether memory of live values may matter, which this brute force does not know."""
    graph, platform = instance(seed)
    limited = any(d.memory_bytes is not None for d in platform.devices)
    return limited and any(t.activation_bytes for t in graph.tasks)


SEEDS = [seed for seed in range(90) if not hungry(seed)]


@pytest.mark.parametrize("seed", SEEDS)
def test_optimum_bound_and_status(seed: int) -> None:
    graph, platform = instance(seed)
    brute = Brute(graph, platform)
    try:
        wanted = {"throughput": brute.period(), "latency": brute.latency()}
    except OverflowError:
        wanted = {"throughput": brute.period()}
    for objective, want in wanted.items():
        for method in ("auto", METHODS[seed % len(METHODS)]):
            if want is None and method == "auto":
                with pytest.raises(Infeasible):
                    solve(graph, platform, objective=objective, method=method, effort=0.02)
            if want is None:
                continue
            plan = solve(graph, platform, objective=objective, method=method, effort=0.02)
            assert decimal(plan.lower_bound) <= want * (1 + LAST)
            if plan.status == "OPTIMAL" or method == "auto":
                assert plan.status == "OPTIMAL"
                assert abs(decimal(plan.objective) - want) <= want * LAST
            elif plan.objective is not None:
                assert decimal(plan.objective) >= want * (1 - LAST)
