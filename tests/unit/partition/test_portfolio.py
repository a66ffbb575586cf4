"""The portfolio: its file is whole, every number is read, every method says when it applies."""

from __future__ import annotations

import ast
import json
from pathlib import Path

import pytest
from partition_cases import platform, random_graph
from pydantic import ValidationError

from csp_embed.partition import portfolio
from csp_embed.partition.arrays.view import make_problem
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.portfolio import Step
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Incumbent, Request
from csp_embed.partition.solve import METHODS
from csp_embed.partition.table import TABLE

TOLD = json.loads(portfolio.FILE.read_text())
ORDERS = [(o, m, steps) for o, ms in TOLD["orders"].items() for m, steps in ms.items()]


def search(n: int, **request: object) -> Search:
    """A search that knows nothing yet."""
    p = make_problem(random_graph(n, 3, 1), platform(3))
    clock = Clock(Request(**request))
    return Search(p, Incumbent(p, clock.request), Proof.of(p), clock)


def numbers_read() -> set[str]:
    """GROUP.NAME of every number that some module of the partitioner reads."""
    found = set()
    for path in portfolio.FILE.parent.rglob("*.py"):
        tree, own = ast.parse(path.read_text()), ""
        for node in ast.walk(tree):
            if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "OWN":
                own = ast.unparse(node.value).removeprefix("NUMBERS.")
        for node in ast.walk(tree):
            text = ast.unparse(node) if isinstance(node, ast.Attribute) else ""
            if text.startswith("OWN.") and own:
                found.add(f"{own}.{text.removeprefix('OWN.')}")
            elif text.startswith("NUMBERS.") and text.count(".") == 2:
                found.add(text.removeprefix("NUMBERS."))
    return found


def test_every_number_has_a_meaning_and_a_reader() -> None:
    entries = {
        f"{group}.{name}": entry
        for group, rows in TOLD["numbers"].items()
        for name, entry in rows.items()
    }
    assert len(entries) > 90
    assert all(set(x) == {"value", "unit", "meaning"} and x["meaning"] for x in entries.values())
    assert set(entries) == numbers_read()


def test_orders_and_table_name_the_same_methods() -> None:
    assert list(TOLD["orders"]["latency"]) == list(TOLD["orders"]["throughput"]) == list(METHODS)
    assert {step["do"] for *_, steps in ORDERS for step in steps} == set(TABLE)
    assert all(name == method.name for name, method in TABLE.items())


def test_graphs_of_tuning_and_of_scoring_are_apart() -> None:
    training, held_out = TOLD["graphs"]["training"], TOLD["graphs"]["held out"]
    assert not set(training["seeds"]) & set(held_out["seeds"])
    scores = TOLD["scores"]["held out"]
    assert [int(seed) for seed in scores] == held_out["seeds"]
    for row in scores.values():
        assert set(row) == set(TOLD["orders"])
        assert 0 < row["latency"] < 1  # better than HEFT
        assert row["throughput"] >= 1  # the period over its lower bound


@pytest.mark.parametrize("change", ["missing", "unknown", "not a number", "field of a step"])
def test_a_malformed_file_is_refused(change: str) -> None:
    told = json.loads(json.dumps(TOLD))
    split = told["numbers"]["split"]
    if change == "missing":
        del split["part"]
    elif change == "unknown":
        split["more"] = split["part"]
    elif change == "not a number":
        split["part"]["value"] = "eight"
    else:
        told["orders"]["latency"]["auto"][0]["times"] = 3
    with pytest.raises(ValidationError):
        portfolio.read(json.dumps(told))


@pytest.mark.parametrize(
    ("name", "step", "n", "request_", "reason"),
    [
        ("anneal", {}, 40, {}, None),
        ("anneal", {}, 40, {"contiguous": True}, "convex"),
        ("anneal", {}, 20, {}, "exact search"),
        ("anneal", {"when": "always"}, 20, {}, None),
        ("balance", {}, 40, {"objective": "throughput", "pipeline": True}, "convex"),
        ("split", {"when": "auto"}, 30, {}, "exact search"),
        ("split", {"when": "auto"}, 31, {}, None),
        ("lists", {}, 10, {"objective": "throughput"}, "no limit"),
        ("steady", {}, 10, {}, "no limit"),
        ("steady", {}, 10, {"min_throughput": 0.1}, None),
        ("neighbourhoods", {"tasks": 80}, 81, {}, "windows"),
        ("neighbourhoods", {"tasks": 80}, 81, {"contiguous": True}, None),
        ("windows", {"tasks": 80}, 80, {}, "neighbourhoods"),
        ("windows", {"tasks": 80}, 81, {}, None),
        ("exact", {}, 200, {}, None),  # nothing is known yet
    ],
)
def test_methods_say_when_they_apply(
    name: str, step: dict[str, object], n: int, request_: dict[str, object], reason: str | None
) -> None:
    found = TABLE[name].applies(search(n, **request_), Step(name, **step))
    assert found is None if reason is None else reason in (found or "")


def test_a_new_method_is_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """One entry in the table and one step in an order make a method."""
    from csp_embed.partition.links import run

    def first_device(search: Search, step: Step) -> None:
        search.inc.offer(search.p.cost.argmin(axis=1) * 0, None, step.do)

    monkeypatch.setitem(TABLE, "first", Method("first", lambda search, step: None, first_device))
    monkeypatch.setitem(portfolio.PORTFOLIO.orders["throughput"], "first", (Step("first"),))
    one = search(12, objective="throughput", method="first")
    run(one)
    assert one.inc.best is not None
    assert one.inc.best.value == pytest.approx(one.p.cost[:, 0].sum())


def test_the_file_is_as_the_script_writes_it(monkeypatch: pytest.MonkeyPatch) -> None:
    scripts = Path(__file__).parents[3] / "scripts"
    monkeypatch.syspath_prepend(scripts)
    from tune import written

    assert written(TOLD) == portfolio.FILE.read_text()
