"""Shared layers: mixtures of placements against a linear program over every placement there is."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from ortools.math_opt.python import mathopt

from csp_embed.errors import InputError
from csp_embed.ir.network import Device, Edge, Link, Plan, Platform, Task, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.solve import solve


def random_case(seed: int) -> tuple[TaskGraph, Platform]:
    """Up to six tasks on two or three devices, all kinds of links, some memories, pins, labels."""
    rng = np.random.default_rng(seed)
    m, n = int(rng.integers(2, 4)), int(rng.integers(2, 7))
    names = [f"d{i}" for i in range(m)]
    size = 100.0
    tasks = []
    for t in range(n):
        cost = {d: float(rng.integers(1, 30)) for d in names}
        if rng.random() < 0.2:
            del cost[names[int(rng.integers(m))]]
        pin = str(rng.choice(list(cost))) if rng.random() < 0.1 else None
        tasks.append(Task(f"t{t}", cost, weight_bytes=float(rng.integers(0, 40)), pin=pin))
    edges = [
        Edge(f"t{a}", f"t{b}", float(rng.integers(0, 20)), f"v{a}" if rng.random() < 0.5 else None)
        for a, b in itertools.combinations(range(n), 2)
        if rng.random() < 0.4
    ]
    shared: dict[str, float] = {}
    for e in edges:  # one value has one size
        if e.tensor:
            shared.setdefault(f"{e.src}/{e.tensor}", e.bytes)
    edges = [replace(e, bytes=shared[f"{e.src}/{e.tensor}"]) if e.tensor else e for e in edges]
    links = tuple(
        Link((a, b), float(rng.integers(1, 5)), float(rng.integers(0, 3)), kind)
        for a, b in itertools.combinations(names, 2)
        for kind in [str(rng.choice(["half", "full"])) if rng.random() < 0.8 else None]
    )
    devices = tuple(Device(d, d, memory_bytes=size if rng.random() < 0.3 else None) for d in names)
    return TaskGraph(tuple(tasks), tuple(edges)), Platform(devices, links)


def all_loads(
    graph: TaskGraph, platform: Platform
) -> list[tuple[dict[str, str], dict[str, float]]]:
    """Every placement of single devices whose weights fit, with its loads, counted anew.

    Memory is not joined over placements: the optimum of these is a bound where memory is short."""
    found = []
    names = [d.name for d in platform.devices]
    memory = {d.name: d.memory_bytes for d in platform.devices}
    direct = {frozenset(k.between): k for k in platform.links}
    for row in itertools.product(names, repeat=len(graph.tasks)):
        at = dict(zip((t.id for t in graph.tasks), row, strict=True))
        if any(at[t.id] not in t.cost or (t.pin or at[t.id]) != at[t.id] for t in graph.tasks):
            continue
        weights = {d: sum(t.weight_bytes for t in graph.tasks if at[t.id] == d) for d in names}
        if any(memory[d] is not None and w > memory[d] for d, w in weights.items()):
            continue
        load: dict[str, float] = dict.fromkeys(names, 0.0)
        for t in graph.tasks:
            load[at[t.id]] += t.cost[at[t.id]]
        sent = {
            (e.src, e.tensor or f"{e.src}->{e.dst}/{i}", at[e.src], at[e.dst], e.bytes)
            for i, e in enumerate(graph.edges)
            if at[e.src] != at[e.dst]
        }
        for *_, a, b, size in sent:
            link = direct[frozenset((a, b))]
            if link.duplex is not None:
                key = link.name if link.duplex == "half" else f"{link.name}:{a}>{b}"
                load[key] = load.get(key, 0.0) + link.latency_ms + size / link.bytes_per_ms
        found.append((at, load))
    return found


def best_mixture(rows: list[dict[str, float]]) -> float:
    """Least period over all mixtures of these loads, by HiGHS."""
    model = mathopt.Model()
    period = model.add_variable(lb=0.0)
    shares = [model.add_variable(lb=0.0) for _ in rows]
    model.add_linear_constraint(mathopt.LinearSum(shares) == 1.0)
    for line in {name for row in rows for name in row}:
        used = [s * row.get(line, 0.0) for s, row in zip(shares, rows, strict=True)]
        model.add_linear_constraint(mathopt.LinearSum(used) <= period)
    model.minimize(period)
    return mathopt.solve(model, mathopt.SolverType.HIGHS).objective_value()


def direct_only(platform: Platform, graph: TaskGraph) -> bool:
    """Whether the shortest way between devices is always the direct link (the test counts no
    relays): true where any relay costs more for every size of value."""
    cost = {}
    for k in platform.links:
        for e in graph.edges:
            key = (*sorted(k.between), e.bytes)
            cost[key] = k.latency_ms + e.bytes / k.bytes_per_ms
    names = [d.name for d in platform.devices]
    return all(
        cost[(*sorted((a, b)), e.bytes)]
        < cost[(*sorted((a, c)), e.bytes)] + cost[(*sorted((c, b)), e.bytes)]
        for e in graph.edges
        for a, b, c in itertools.permutations(names, 3)
    )


@pytest.mark.parametrize("seed", range(40))
def test_a_mixture_is_the_best_there_is_and_never_worse_than_one_placement(seed: int) -> None:
    graph, platform = random_case(seed)
    rows = [load for _, load in all_loads(graph, platform)]
    if not rows or not direct_only(platform, graph):
        graph, platform = random_case(seed + 1000)  # another one: nothing to compare with here
        rows = [load for _, load in all_loads(graph, platform)]
        if not rows or not direct_only(platform, graph):
            graph = replace(graph, edges=())
            rows = [load for _, load in all_loads(graph, platform)]
    assert rows
    plan = solve(graph, platform, objective="throughput", share=True)
    assert plan.objective is not None
    assert check_plan(graph, platform, plan) == []
    least = best_mixture(rows)
    alone = min(max(row.values()) for row in rows)
    assert plan.objective <= alone * (1 + 1e-9)
    assert plan.lower_bound <= plan.objective
    unlimited = all(d.memory_bytes is None for d in platform.devices)
    # Weights held by several placements may not fit together, so that short memory allows less.
    assert plan.objective >= least * (1 - 1e-6)
    if unlimited:
        assert plan.lower_bound <= least * (1 + 1e-9)
        assert plan.objective <= least * (1 + 2e-3)


def two() -> tuple[TaskGraph, Platform]:
    """One layer of 3 ms on either of two equal devices: shared, 1.5 ms a sample."""
    graph = TaskGraph((Task("a", {"x": 3.0, "y": 3.0}, weight_bytes=10.0),), ())
    return graph, Platform((Device("x", "x"), Device("y", "y")), ())


def test_one_layer_on_two_devices() -> None:
    graph, platform = two()
    assert solve(graph, platform, objective="throughput").objective == 3.0
    plan = solve(graph, platform, objective="throughput", share=True)
    assert plan.objective == pytest.approx(1.5, rel=1e-9)
    assert plan.status == "OPTIMAL"
    assert [r.share for r in plan.replicas] == pytest.approx([1 / 3, 1 / 3])


def test_sharing_that_gains_nothing_makes_no_copies() -> None:
    graph = TaskGraph((Task("a", {"x": 3.0}),), ())
    platform = two()[1]
    plan = solve(graph, platform, objective="throughput", share=True)
    assert plan.replicas == ()
    assert plan.objective == 3.0
    assert plan.status == "OPTIMAL"


def shared_plan() -> tuple[TaskGraph, Platform, Plan]:
    graph, platform = two()
    return graph, platform, solve(graph, platform, objective="throughput", share=True)


def test_the_judge_refuses_rates_that_a_device_cannot_keep() -> None:
    graph, platform, plan = shared_plan()
    fast = replace(plan, replicas=tuple(replace(r, share=1.01 * r.share) for r in plan.replicas))
    kinds = {f.kind for f in check_plan(graph, platform, fast)}
    assert {"load", "objective"} <= kinds


def test_the_judge_counts_a_layers_weights_once_on_each_device() -> None:
    graph, platform, plan = shared_plan()
    twice = replace(plan, replicas=(*plan.replicas, *plan.replicas))
    halved = replace(twice, replicas=tuple(replace(r, share=r.share / 2) for r in twice.replicas))
    exact = tuple(replace(d, memory_bytes=10.0) for d in platform.devices)
    assert check_plan(graph, replace(platform, devices=exact), halved) == []
    small = tuple(replace(d, memory_bytes=9.0) for d in platform.devices)
    kinds = {f.kind for f in check_plan(graph, replace(platform, devices=small), halved)}
    assert kinds == {"memory"}


def test_weights_of_several_placements_are_held_together() -> None:
    """Two layers, 10 bytes each; device x and y hold 10: mixing would need 20."""
    tasks = tuple(Task(n, {"x": 2.0, "y": 3.0}, weight_bytes=10.0) for n in "ab")
    graph = TaskGraph(tasks, ())
    tight = Platform(tuple(Device(d, d, memory_bytes=10.0) for d in "xy"), ())
    plan = solve(graph, tight, objective="throughput", share=True)
    assert check_plan(graph, tight, plan) == []
    assert plan.objective == 3.0
    roomy = Platform(tuple(Device(d, d, memory_bytes=20.0) for d in "xy"), ())
    better = solve(graph, roomy, objective="throughput", share=True)
    assert check_plan(graph, roomy, better) == []
    assert better.objective == pytest.approx(2.4, rel=1e-6)  # 4 ms on x or 6 on y: 1 / (1/4 + 1/6)


@pytest.mark.parametrize(
    "options",
    [
        {"objective": "latency"},
        {"contiguous": True},
        {"max_latency": 5.0},
        {"min_throughput": 0.1},
        {"replicas": 2},
        {"batch": 2},
    ],
)
def test_what_a_mixture_cannot_keep_is_refused(options: dict[str, object]) -> None:
    graph, platform = two()
    with pytest.raises(InputError, match="shar"):
        solve(graph, platform, **{"objective": "throughput", "share": True, **options})  # type: ignore[arg-type]
