"""When the default search ends: gaps, neighbourhoods of the period, progress for pipes."""

from __future__ import annotations

import itertools
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from partition_cases import platform, random_graph

from csp_embed.errors import InputError
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.arrays.view import make_problem, normalised
from csp_embed.partition.methods.list_scheduling import ListScheduler
from csp_embed.partition.methods.method import Search
from csp_embed.partition.methods.period import load_neighbourhoods
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Incumbent, Request
from csp_embed.partition.solve import solve


@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_a_gap_ends_the_search_as_soon_as_it_is_proved(objective: str) -> None:
    graph, machines = random_graph(40, 3, 5), platform(3, duplex="full")
    stages: dict[float, list[str]] = {}
    values = {}
    for gap in (0.0, 0.9):
        told: list[str] = []
        plan = solve(
            graph, machines, objective=objective, gap=gap, effort=0.05,
            progress=lambda text, done, total, told=told: told.append(text),
        )  # fmt: skip
        assert plan.objective is not None
        assert (plan.objective - plan.lower_bound) / plan.objective <= (gap or 1)
        assert check_plan(graph, machines, plan) == []
        stages[gap], values[gap] = told, plan.objective
    assert len(stages[0.9]) < len(stages[0.0])
    assert values[0.0] <= values[0.9]
    if plan.gap:
        assert plan.status == "FEASIBLE"  # good enough is not proved the best


def test_a_gap_beyond_the_objective_is_refused() -> None:
    with pytest.raises(InputError, match="gap 2"):
        solve(random_graph(3, 2, 1), platform(2), gap=2)


def search_of(n: int, seed: int) -> tuple[Search, list[str]]:
    """The period of a random graph on contended links, everything on p0 to begin with."""
    p = normalised(make_problem(random_graph(n, 3, seed), platform(3, duplex="full")))
    told: list[str] = []
    request = Request(objective="throughput", progress=lambda text, done, total: told.append(text))
    search = Search(p, Incumbent(p, request), Proof.of(p), Clock(request, p.unit))
    search.inc.offer(np.zeros(n, np.int64), None, "all on p0")
    return search, told


def period(search: Search, dev: tuple[int, ...]) -> float:
    """The largest load of a placement, from the graph file's terms alone, in ms."""
    graph = search.p.graph
    at = {t.id: f"p{d}" for t, d in zip(graph.by_id().values(), dev, strict=True)}
    load: dict[object, float] = {}
    for task in graph.tasks:
        load[at[task.id]] = load.get(at[task.id], 0.0) + task.cost[at[task.id]]
    # Every edge is a value of its own, links carry one byte a ms, each direction by itself.
    for e in graph.edges:
        if at[e.src] != at[e.dst]:
            load[at[e.src], at[e.dst]] = load.get((at[e.src], at[e.dst]), 0.0) + e.bytes
    return max(load.values())


@pytest.mark.parametrize("seed", range(3))
def test_a_neighbourhood_of_everything_is_the_optimum(seed: int) -> None:
    search, told = search_of(7, seed)
    load_neighbourhoods.improve(search, 30, 1.0)
    want = min(period(search, way) for way in itertools.product(range(3), repeat=7))
    assert search.inc.best is not None
    assert search.inc.best.value * float(search.p.unit) == pytest.approx(want)
    assert told


def test_neighbourhoods_only_improve_and_end_without_gain(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        load_neighbourhoods, "OWN", replace(load_neighbourhoods.OWN, size=5, least=5, step=0)
    )
    search, told = search_of(30, 4)
    assert search.inc.best is not None
    begin = search.inc.best.value
    load_neighbourhoods.improve(search, 400, 1.0)
    best = search.inc.best
    assert best.value < 0.8 * begin
    order = search.p.ids
    dev = {t: int(d) for t, d in zip(order, best.dev, strict=True)}
    way = tuple(dev[t.id] for t in search.p.graph.tasks)
    assert best.value * float(search.p.unit) == pytest.approx(period(search, way))
    assert len(told) < 400  # patience, not the number of rounds


def test_progress_in_a_pipe(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("csp_embed.commands.common._LINE_SECONDS", 0.0)
    graph = tmp_path / "g.json"
    assert run(capsys, "partition", "generate", "layered", "--n", 40, "-o", graph).code == 0
    found = run(capsys, "partition", graph, "--effort", 0.05)
    assert found.code == 0
    lines = [x for x in found.err.splitlines() if " ms, bound " in x]
    assert lines
    assert all(x.startswith("csp-embed: ") and " gap " in x for x in lines)


@pytest.mark.parametrize(
    ("options", "text"),
    [
        (("--gap", 2), "gap 2"),
        (("--effort", 2, "--time-limit", 3), "--effort has no effect with --time-limit"),
        (("--method", "heft", "--gap", 0.1), "--gap has no effect with --method heft"),
    ],
)
def test_what_means_nothing_is_refused(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, options: tuple, text: str
) -> None:
    graph = tmp_path / "g.json"
    assert run(capsys, "partition", "generate", "layered", "--n", 5, "-o", graph).code == 0
    found = run(capsys, "partition", graph, *options)
    assert found.code == 2
    assert text in found.err


@pytest.mark.parametrize("method", ["auto", "heft", "single"])
@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_a_limit_before_anything_is_found_waits_for_the_first_plan(
    method: str, objective: str
) -> None:
    """On a busy machine the limit may pass before the arrays are built."""
    graph, machines = random_graph(60, 4, 3), platform(4, duplex="full")
    plan = solve(graph, machines, method=method, objective=objective, time_limit=1e-6)
    assert plan.objective is not None
    assert check_plan(graph, machines, plan) == []


@pytest.mark.parametrize(
    "asked", [{"contiguous": True}, {"objective": "throughput", "max_latency": 600.0}]
)
def test_so_it_does_with_shapes_and_limits_on_time(asked: dict[str, Any]) -> None:
    graph, machines = random_graph(60, 4, 3), platform(4, duplex="full")
    plan = solve(graph, machines, time_limit=1e-6, **asked)
    assert plan.objective is not None
    assert check_plan(graph, machines, plan) == []


@pytest.mark.parametrize("method", ["heft", "peft", "cpop", "minmin"])
def test_interpreted_and_compiled_rules_agree(method: str) -> None:
    graph, machines = random_graph(60, 4, 8), platform(4, duplex="full")
    p = normalised(make_problem(graph, machines))
    name = {"minmin": "min_min"}.get(method, method)
    one, other = (getattr(ListScheduler(p, compiled=c), name)() for c in (False, True))
    assert one.value == pytest.approx(other.value, rel=1e-12)
    assert (one.dev == other.dev).all()
