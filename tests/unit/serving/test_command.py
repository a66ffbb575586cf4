"""`csp-embed serve`: plan, check, what is printed, exit codes, signals."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import serving_oracle as oracle
from command_line import run

from csp_embed.partition import supervise
from csp_embed.serving.files.read import instance_from
from csp_embed.serving.judge.check import check


@pytest.fixture
def instance(tmp_path: Path) -> Path:
    path = tmp_path / "cluster.json"
    path.write_text(json.dumps(oracle.random_document(4)))
    return path


def test_plan_then_check(
    instance: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, picture = tmp_path / "plan.json", tmp_path / "plan.svg"
    made = run(capsys, "serve", "plan", instance, "-o", out, "--picture", picture, "--json")
    assert made.code == 0, made.err
    assert {"value", "bound", "status", "seconds"} <= set(made.document)
    best = float(oracle.best(json.loads(instance.read_text())))
    assert made.document["value"] == pytest.approx(best)
    assert picture.read_text().startswith("<svg")
    plan = json.loads(out.read_text())
    assert plan["format"] == "csp-embed-serving/1"
    good = run(capsys, "serve", "check", out, "--instance", instance, "--json")
    assert (good.code, good.document["accepted"]) == (0, True)
    plan["value"] *= 2
    out.write_text(json.dumps(plan))
    bad = run(capsys, "serve", "check", out, "--instance", instance, "--json")
    assert (bad.code, bad.document["accepted"]) == (5, False)
    assert bad.document["faults"][0]["kind"] == "value"
    assert run(capsys, "serve", "check", out, "--instance", instance).code == 5


def test_the_table_names_every_machine_of_the_plan(
    instance: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = run(capsys, "serve", "plan", instance)
    assert got.code == 0
    assert "upper bound" in got.out
    assert "m0" in got.out


@pytest.mark.parametrize(
    ("args", "code", "words"),
    [
        (["--objective", "beauty"], 2, "unknown objective"),
        (["--time-limit", "-1"], 2, "time limit"),
        (["--time-limit", "nan"], 2, "time limit"),
        (["-o", "/nowhere/at/all.json"], 2, "cannot write"),
        (["--picture", "x.gif"], 2, "does not end in .svg"),
    ],
)
def test_wrong_options(
    args: list[str], code: int, words: str, instance: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    got = run(capsys, "serve", "plan", instance, *args)
    assert got.code == code
    assert words in got.err


def test_a_file_that_is_no_plan(instance: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(capsys, "serve", "check", instance, "--instance", instance).code == 2


def hard(machines: int = 30) -> dict[str, Any]:
    """An instance that keeps the search busy: many unlike machines, many links missing."""
    document = oracle.random_document(3, machines=machines, layers=40)
    document["node_types"] = {
        f"t{i}": {
            "max_layers": 6,
            "tokens_per_s_by_layers": [
                100.0 * (i + 3) / (k + 0.01 * i * k * k) for k in range(1, 7)
            ],
        }
        for i in range(6)
    }
    for at, node in enumerate(document["nodes"]):
        node["type"] = f"t{at % 6}"
    names = [n["id"] for n in document["nodes"]]
    document["links"] = [
        {"from": a, "to": b, "tokens_per_s": 90.0 + 7 * ((i * 5 + j) % 9)}
        for i, a in enumerate(names) for j, b in enumerate(names)
        if i != j and (i + 2 * j) % 3
    ]  # fmt: skip
    document["coordinator"] = {
        "to_nodes": [{"to": n, "tokens_per_s": 1e6} for n in names],
        "from_nodes": [{"from": n, "tokens_per_s": 1e6} for n in names],
    }
    return document


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_keeps_the_best_plan(
    number: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The plan so far is written, the exit code says that it was stopped, the judge accepts it.

    Partitioning may have been used before in this process: that is not this command's search."""
    assert not supervise.left_behind()
    document = hard()
    path, out = tmp_path / "hard.json", tmp_path / "plan.json"
    path.write_text(json.dumps(document))

    @contextmanager
    def after_the_first_plan(quiet: bool = False) -> Iterator[Any]:
        yield lambda text, done, total: os.kill(os.getpid(), number)

    monkeypatch.setattr("csp_embed.commands.serve.progress", after_the_first_plan)
    got = run(capsys, "serve", "plan", path, "-o", out, "--json")
    assert got.code == 128 + number, got.err
    assert got.document["interrupted"] is True
    plan = json.loads(out.read_text())
    assert 0 < plan["value"] < plan["bound"]
    assert check(instance_from(document), plan) == []
