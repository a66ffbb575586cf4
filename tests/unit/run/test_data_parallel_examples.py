"""The committed example graphs: data parallelism pays on one platform and not on the other."""

from __future__ import annotations

from pathlib import Path

import pytest

from csp_embed.judge.plan.judge import check_plan
from csp_embed.network.files.graph import read_graph
from csp_embed.partition.solve import solve

EXAMPLES = Path(__file__).parents[3] / "examples"


@pytest.mark.parametrize(("name", "factor"), [("wins", 1.5), ("loses", 1 / 1.3)])
def test_two_copies_against_one(name: str, factor: float) -> None:
    graph, platform = read_graph(EXAMPLES / f"data_parallel_{name}.json")
    assert platform is not None
    one, two = (solve(graph, platform, batch=8, replicas=r) for r in (1, 2))
    for plan in (one, two):
        assert check_plan(graph, platform, plan) == []
        assert not plan.linear_costs  # every batch size has a cost of its own
    assert len(two.replicas) == 2
    assert sum(r.share for r in two.replicas) == 8
    ratio = one.objective / two.objective
    assert ratio > factor if factor > 1 else ratio < factor
