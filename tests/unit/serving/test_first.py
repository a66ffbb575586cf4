"""Whatever ends a run early finds a plan, and a bound that holds."""

from __future__ import annotations

import json
from typing import Any

import pytest
import serving_oracle as oracle
import serving_routes_oracle as routes
from test_command import hard

import csp_embed as ce
from csp_embed.serving.bounds.relaxation import Relaxation
from csp_embed.serving.files.read import instance_from
from csp_embed.serving.instance import Instance
from csp_embed.serving.judge.check import check
from csp_embed.serving.routes.plan import phases_bound, shortest_bound
from csp_embed.serving.routes.search import RouteSearch
from csp_embed.serving.routes.value import route_plan
from csp_embed.serving.searches.first import first_placements
from csp_embed.serving.searches.search import Search


def named(instance: Instance, placement: Any) -> dict[str, tuple[int, int]]:
    """As the oracle and the documents write them: both ends included."""
    return {instance.machines[i]: (a, b - 1) for i, (a, b) in placement.items()}


@pytest.mark.parametrize("seed", range(40))
def test_first_plans_hold_every_layer(seed: int) -> None:
    """Some first placement carries something wherever any placement does, and machines hold no
    more than they can."""
    document = oracle.random_document(seed, machines=3, layers=4)
    instance = instance_from(document)
    found = [named(instance, p) for p in first_placements(instance)]
    for placed in found:
        assert {x for a, b in placed.values() for x in range(a, b + 1)} == set(range(4))
        kinds = {
            n["id"]: document["node_types"][n["type"]]["max_layers"] for n in document["nodes"]
        }
        assert all(b - a < kinds[m] for m, (a, b) in placed.items())
    carried = [oracle.carried(document, placed) for placed in found]
    assert (max(carried, default=0) > 0) == (oracle.best(document) > 0)


def interrupted(*_: Any) -> Any:
    raise KeyboardInterrupt


def refuted(document: dict[str, Any], plan: Any) -> list[str]:
    return [f.text for f in check(instance_from(document), json.loads(json.dumps(plan.document())))]


def test_ctrl_c_in_the_first_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Search, "tighten", interrupted)
    document = hard()
    plan = ce.serve(document)
    assert plan.interrupted
    assert plan.value
    placed = {m: tuple(span) for m, span in plan.placement.items()}
    assert float(oracle.carried(document, placed)) == pytest.approx(plan.value)
    assert refuted(document, plan) == []


@pytest.mark.parametrize("split", [False, True])
def test_ctrl_c_in_the_first_search_for_routes(
    split: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(RouteSearch, "_few", lambda _: False)
    monkeypatch.setattr(RouteSearch, "_together", interrupted)
    document = routes.random_phases(3, split=split)
    if not split:
        document["limits"] = {"first_token_s": 1000.0}
    plan = ce.serve(document)
    assert plan.interrupted
    assert plan.value
    assert refuted(document, plan) == []


def test_least_cost_has_a_dear_plan_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Relaxation, "prove", interrupted)
    document = hard()
    for node in document["nodes"]:
        node["price_per_hour"] = 2.0
    plan = ce.serve(document, objective="cost", min_tokens=1.0)
    assert plan.interrupted
    assert (plan.value or 0.0) >= 1.0
    assert plan.more["cost"] == 2.0 * len(plan.placement)
    assert refuted(document, plan) == []


@pytest.mark.parametrize("seed", range(8))
def test_bounds_and_routes_of_no_time(seed: int) -> None:
    """A clock that is always over leaves less, and nothing false."""
    document = routes.random_phases(seed, split=seed % 2 == 1)
    instance = instance_from(document)
    bound, _ = phases_bound(instance, 0.0, lambda: True)
    assert bound >= routes.most_tokens(document) * (1 - 1e-9)
    seconds, _ = shortest_bound(instance, lambda: True)
    assert (seconds or 0.0) <= routes.least_seconds(document) * (1 + 1e-9)
    for placement in first_placements(instance):
        asked = iter([False] * 6)
        found = route_plan(instance, placement, stop=lambda asked=asked: next(asked, True))
        most = routes.Tiny(document).most(named(instance, placement))
        assert found is None or found.tokens_per_s <= most * (1 + 1e-9)
