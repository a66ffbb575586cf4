"""Least cost against trying every placement; the judge of what a cheap plan claims."""

from __future__ import annotations

import copy
import json
import random
from pathlib import Path
from typing import Any

import pytest
import serving_oracle as oracle
from command_line import run

import csp_embed as ce
from csp_embed.errors import InputError
from csp_embed.serving.files.read import instance_from
from csp_embed.serving.judge.check import check


def priced(seed: int) -> dict[str, Any]:
    document = oracle.random_document(seed, machines=3, layers=4)
    draw = random.Random(seed)
    price = {t: float(draw.randint(1, 9)) for t in document["node_types"]}
    for node in document["nodes"]:
        node["price_per_hour"] = price[node["type"]]
    return document


@pytest.mark.parametrize("share", [1.0, 0.7, 0.4])
@pytest.mark.parametrize("seed", [0, 4, 7, 9, 12, 13])
def test_least_cost(seed: int, share: float) -> None:
    document = priced(seed)
    price = {n["id"]: n["price_per_hour"] for n in document["nodes"]}
    wanted = float(oracle.best(document)) * share
    assert wanted > 0
    least = min(
        sum(price[m] for m in placed)
        for placed in oracle.placements(document)
        if oracle.carried(document, placed) >= wanted * (1 - 1e-12)
    )
    plan = ce.serve(document, objective="cost", min_tokens=wanted)
    assert plan.more["cost"] == least
    assert plan.more["cost_bound"] <= least
    assert check(instance_from(document), json.loads(json.dumps(plan.document()))) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda p: p.update(cost=p["cost"] - 1), "cost"),
        (lambda p: p.update(min_tokens=p["value"] * 2), "value"),
        (lambda p: p.update(cost_bound=p["cost"] + 1), "bound"),
        (lambda p: p["certificate"].update(least=str(1000)), "certificate"),
        (lambda p: p["certificate"]["groups"].pop(), "certificate"),
        (lambda p: p["certificate"].update(rule="prices"), "certificate"),
        (lambda p: p.pop("cost"), "certificate"),
    ],
)
def test_tampering(change: Any, kind: str) -> None:
    document = priced(4)
    wanted = float(oracle.best(document)) * 0.7
    plan = json.loads(
        json.dumps(ce.serve(document, objective="cost", min_tokens=wanted).document())
    )
    assert plan["cost_bound"] > 0
    plan = copy.deepcopy(plan)
    change(plan)
    assert kind in {f.kind for f in check(instance_from(document), plan)}


def test_what_is_missing() -> None:
    document = priced(4)
    with pytest.raises(InputError) as error:
        ce.serve(document, objective="cost")
    assert "how many tokens" in error.value.what
    del document["nodes"][0]["price_per_hour"]
    with pytest.raises(InputError) as error:
        ce.serve(document, objective="cost", min_tokens=1)
    assert error.value.where.endswith("nodes[0]")
    plain = oracle.random_document(4)
    with pytest.raises(InputError) as error:
        ce.serve(plain, objective="cost", min_tokens=1)
    assert "no prices" in error.value.what


def test_more_than_anything_carries(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "i.json"
    path.write_text(json.dumps(priced(4)))
    options = ["--objective", "cost", "--min-tokens", "1e9"]
    got = run(capsys, "serve", "plan", path, *options, "--json")
    assert got.code == 4
    assert (got.document["status"], got.document["value"]) == ("UNKNOWN", None)
    fine = run(capsys, "serve", "plan", path, "--objective", "cost", "--min-tokens", "5")
    assert fine.code == 0, fine.err
    assert "per hour, lower bound" in fine.out
