"""Steps that close the gap from both ends: what they prove and find beside the optimum."""

from __future__ import annotations

import numpy as np
import pytest
from partition_cases import platform, random_graph

from csp_embed.partition.arrays.view import make_problem, normalised
from csp_embed.partition.methods.exact_search import bisected, exact
from csp_embed.partition.methods.list_scheduling import ListScheduler
from csp_embed.partition.methods.method import Search
from csp_embed.partition.methods.refute import METHOD
from csp_embed.partition.portfolio import Step
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Incumbent, Request
from csp_embed.partition.solve import solve
from csp_embed.partition.times.timetable import decoded


def begun(seed: int) -> tuple[Search, float]:
    """A search that knows a list schedule, and the optimum in its unit."""
    graph, machines = random_graph(12, 3, seed, 5.0, integer=False), platform(3)
    best = solve(graph, machines, method="exact")
    assert best.status == "OPTIMAL"
    assert best.objective is not None
    p = normalised(make_problem(graph, machines))
    clock = Clock(Request(), p.unit)
    inc = Incumbent(p, clock.request)
    x = ListScheduler(p, compiled=False).heft()
    inc.offer(x.dev, decoded(p, x.order, x.dev), "heft")
    return Search(p, inc, Proof.of(p), clock), best.objective / float(p.unit)


@pytest.mark.parametrize("seed", range(4))
def test_below_the_optimum_all_is_refuted_and_above_it_a_plan_is_found(seed: int) -> None:
    search, least = begun(seed)
    p, inc, proof, clock = search.p, search.inc, search.proof, search.clock
    before = inc.best.value
    assert exact(p, inc, proof, clock, 2.0, below=0.97 * least) == "INFEASIBLE"
    # An incumbent stays; nothing is closed that lies above.
    assert inc.best.value == before
    assert not proof.closed
    assert 0.97 * least * (1 - 1e-6) <= proof.value <= least * (1 + 1e-9)
    exact(p, inc, proof, clock, 2.0, below=1.01 * least)
    assert inc.best.value == pytest.approx(least)
    assert proof.value <= least * (1 + 1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_the_gap_is_closed_from_both_ends(seed: int) -> None:
    search, least = begun(seed)
    METHOD.run(search, Step("refute"))
    assert 0 < search.proof.value <= least * (1 + 1e-9)
    known = search.proof.value
    bisected(search, 1.0)
    best, low = search.inc.best.value, search.proof.value
    assert known <= low <= least * (1 + 1e-9) <= best * (1 + 2e-9)
    assert best - low <= 0.02 * best
    assert np.isfinite(best)
