"""The judge: flows against networkx on fractions, certificates against the optimum, tampering."""

from __future__ import annotations

import copy
import json
import random
from fractions import Fraction
from typing import Any

import pytest
import serving_oracle as oracle

import csp_embed as ce
from csp_embed.serving.files.read import instance_from
from csp_embed.serving.flow import max_flow
from csp_embed.serving.judge.check import check, flow_of
from csp_embed.serving.judge.check_prices import refute


@pytest.mark.parametrize("partial", [False, True])
def test_flows(partial: bool) -> None:
    """The judge's and the planner's flow of random placements, exactly."""
    carrying = 0
    for seed in range(60):
        document = oracle.random_document(seed, machines=5, layers=6, partial=partial)
        instance = instance_from(document)
        draw = random.Random(seed)
        placement = {}
        for i, name in enumerate(instance.machines):
            k = draw.randint(1, len(instance.table(i)))
            first = draw.choice([0, 6 - k, draw.randint(0, 6 - k)])
            placement[name] = (first, first + k - 1)
        by_position = {i: placement[m] for i, m in enumerate(instance.machines)}
        expected = oracle.carried(document, placement)
        assert flow_of(instance, by_position) == expected
        half_open = {i: (a, b + 1) for i, (a, b) in by_position.items()}
        assert max_flow(instance, half_open).value == expected
        carrying += expected > 0
    assert carrying >= 5


def test_certificates_that_pass_are_true() -> None:
    """Random prices and bounds: what the judge accepts never lies below the optimum."""
    accepted = refused = 0
    for seed in range(30):
        document = oracle.random_document(seed, machines=3, layers=4, partial=seed % 3 == 0)
        best = oracle.best(document)
        instance = instance_from(document)
        draw = random.Random(seed)
        for _ in range(40):
            certificate = {
                "rule": "prices",
                "groups": [
                    {"machines": [m], "price": str(Fraction(draw.randint(0, 8), 4))}
                    for m in instance.machines
                ],
                "alternation": {"multiplier": str(Fraction(draw.randint(0, 3), 4)),
                                "unlinked": draw.sample(instance.machines, draw.randint(0, 2))},
                "side_by_side": draw.choice(["0", "1/4", "1"]),
            }  # fmt: skip
            bound = Fraction(draw.randint(1, 160), 2)
            if refute(instance, certificate, bound) is None:
                accepted += 1
                assert bound >= best
            else:
                refused += 1
    assert accepted > 20
    assert refused > 20


@pytest.fixture(scope="module")
def planned() -> tuple[dict[str, Any], dict[str, Any]]:
    """A document and its plan, with a proved bound."""
    document = oracle.random_document(4, machines=4, layers=4)
    return document, json.loads(json.dumps(ce.serve(document).document()))


def kinds(document: dict[str, Any], plan: dict[str, Any]) -> set[str]:
    return {f.kind for f in check(instance_from(document), plan)}


def test_a_true_plan_passes(planned: tuple[dict[str, Any], dict[str, Any]]) -> None:
    assert kinds(*planned) == set()


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda p: p.update(value=p["value"] * 1.001), "value"),
        (lambda p: p.update(value=float("nan")), "format"),
        (lambda p: p.update(bound=p["value"] * 0.9), "bound"),
        (lambda p: p.pop("certificate"), "certificate"),
        (lambda p: p["certificate"].update(rule="trust me"), "certificate"),
        (lambda p: p["certificate"]["groups"].pop(), "certificate"),
        (lambda p: p["certificate"]["groups"][0].update(price="-1"), "certificate"),
        (lambda p: [g.update(price="0") for g in p["certificate"]["groups"]], "certificate"),
        (lambda p: [g.update(price="1/0") for g in p["certificate"]["groups"]], "certificate"),
        (lambda p: p["certificate"].update(side_by_side="5"), "certificate"),
        (lambda p: p["placement"].update(nobody=[0, 0]), "machine"),
        (lambda p: p["placement"].update(m0=[0, 99]), "interval"),
        (lambda p: p["placement"].update(m0=[2, 1]), "interval"),
        (lambda p: p["placement"].update(m0=[0]), "format"),
        (lambda p: p.pop("placement"), "format"),
    ],
)
def test_tampering_is_found(
    change: Any, kind: str, planned: tuple[dict[str, Any], dict[str, Any]]
) -> None:
    document, plan = planned
    plan = copy.deepcopy(plan)
    change(plan)
    assert kind in kinds(document, plan)


def test_too_many_layers_for_a_machine(planned: tuple[dict[str, Any], dict[str, Any]]) -> None:
    document, plan = copy.deepcopy(planned)
    for kind in document["node_types"].values():
        kind["max_layers"] = 1
    plan["placement"]["m0"] = [0, 3]
    assert "interval" in kinds(document, plan)
