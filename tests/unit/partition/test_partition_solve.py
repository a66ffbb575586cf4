"""Solvers against literature values, brute force and each other."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from partition_cases import platform, random_graph, topcuoglu

from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import Device, Edge, Link, Platform, Task, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.evaluate import evaluate
from csp_embed.partition.pareto import pareto
from csp_embed.partition.solve import METHODS, solve


def test_topcuoglu_heft_80_cpop_86_optimum_73() -> None:
    graph, machines = topcuoglu()
    assert solve(graph, machines, method="heft").objective == 80
    assert solve(graph, machines, method="cpop").objective == 86
    best = solve(graph, machines, method="exact")
    assert (best.objective, best.status) == (73, "OPTIMAL")


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_every_method_gives_a_plan_within_its_bound(method: str, objective: str) -> None:
    graph, machines = topcuoglu()
    plan = solve(graph, machines, method=method, objective=objective, effort=0.05)
    optimum = {"latency": 73, "throughput": 36}[objective]
    assert plan.objective >= optimum - 1e-6
    assert plan.lower_bound <= optimum + 1e-6
    assert check_plan(graph, machines, plan) == []


def brute_latency(graph: TaskGraph, machines: Platform) -> float:
    """Least makespan by trying all devices and all topological orders, appending (uncontended)."""
    tasks, names = graph.by_id(), [d.name for d in machines.devices]
    ids = graph.order()
    before = {t: {e.src for e in graph.edges if e.dst == t} for t in ids}
    size = {(e.src, e.dst): e.bytes for e in graph.edges}
    best = float("inf")

    def walk(done: dict[str, tuple[str, float]], free: dict[str, float]) -> None:
        nonlocal best
        if max(free.values()) >= best:
            return
        if len(done) == len(ids):
            best = max(free.values())
            return
        for t in ids:
            if t in done or not before[t] <= done.keys():
                continue
            for d in names:
                ready = free[d]
                for u in before[t]:
                    where, end = done[u]
                    ready = max(ready, end + (0 if where == d else size[u, t]))
                end = ready + tasks[t].cost[d]
                walk({**done, t: (d, end)}, {**free, d: end})

    walk({}, dict.fromkeys(names, 0.0))
    return best


@pytest.mark.parametrize("seed", range(4))
def test_exact_latency_is_the_brute_force_optimum(seed: int) -> None:
    graph, machines = random_graph(6, 2, seed), platform(2)
    want = brute_latency(graph, machines)
    for method in ("exact", "milp"):
        plan = solve(graph, machines, method=method)
        assert plan.objective == pytest.approx(want)
        assert plan.status == "OPTIMAL"


def brute_period(graph: TaskGraph, machines: Platform, contiguous: bool, pipeline: bool) -> float:
    """Least period over all placements, by the loads of `evaluate` and the verifier's shape."""
    best = float("inf")
    ids, names = graph.order(), [d.name for d in machines.devices]
    for choice in itertools.product(names, repeat=len(ids)):
        plan = evaluate(graph, machines, dict(zip(ids, choice, strict=True)), "throughput")
        plan = replace(plan, contiguous=contiguous, pipeline=pipeline)
        if plan.objective < best and not check_plan(graph, machines, plan):
            best = plan.objective
    return best


@pytest.mark.parametrize(("contiguous", "pipeline"), [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("duplex", [None, "half", "full"])
def test_exact_period_is_the_brute_force_optimum(
    contiguous: bool, pipeline: bool, duplex: str | None
) -> None:
    graph, machines = random_graph(4, 3, 11), platform(3, duplex=duplex)
    plan = solve(graph, machines, objective="throughput", contiguous=contiguous, pipeline=pipeline)
    assert plan.status == "OPTIMAL"
    assert plan.objective == pytest.approx(brute_period(graph, machines, contiguous, pipeline))


@pytest.mark.parametrize("duplex", ["half", "full"])
def test_cpsat_and_milp_agree_under_contention(duplex: str) -> None:
    graph, machines = random_graph(5, 2, 3, ccr=0.5), platform(2, duplex=duplex)
    one = solve(graph, machines, method="exact")
    two = solve(graph, machines, method="milp")
    assert one.status == two.status == "OPTIMAL"
    assert one.objective == pytest.approx(two.objective)


def test_constraints_on_both_objectives_and_the_front() -> None:
    graph, machines = topcuoglu()
    plan = solve(graph, machines, objective="throughput", max_latency=73)
    assert plan.latency <= 73
    front = pareto(graph, machines, points=4)
    assert [p.latency for p in front] == sorted(p.latency for p in front)
    assert [p.period for p in front] == sorted((p.period for p in front), reverse=True)
    assert front[0].latency == 73
    assert front[-1].period == 36


def test_symmetry_loses_nothing() -> None:
    # Two devices of equal cost against the same two told apart by 1e-12 (no symmetry found).
    graph = random_graph(7, 1, 5)
    same = TaskGraph(
        tuple(replace(t, cost={"p0": t.cost["p0"], "p1": t.cost["p0"]}) for t in graph.tasks),
        graph.edges,
    )
    apart = replace(platform(2), devices=(Device("p0", "x"), Device("p1", "y", 1e15)))
    for objective in ("latency", "throughput"):
        one = solve(same, platform(2), objective=objective)
        two = solve(same, apart, objective=objective)
        assert one.objective == pytest.approx(two.objective)


def test_memory_pins_and_colocation_are_kept() -> None:
    tasks = tuple(Task(f"t{i}", {"p0": 1, "p1": 5}, weight_bytes=4) for i in range(4))
    machines = replace(platform(2), devices=(Device("p0", "a", 8), Device("p1", "b", 100)))
    plan = solve(TaskGraph(tasks, ()), machines)
    assert plan.objective == 10  # two tasks fit p0, two run on p1 one after the other
    pinned = (replace(tasks[0], pin="p1"), *tasks[1:3], replace(tasks[3], pin="p1"))
    assert solve(TaskGraph(pinned, ()), machines).device_of()["t0"] == "p1"
    glued = tuple(replace(t, colocate="g", weight_bytes=1) for t in tasks)
    assert len(set(solve(TaskGraph(glued, ()), machines).device_of().values())) == 1


def test_infeasible_problems_name_the_fault() -> None:
    tasks = (Task("a", {"p0": 1}, weight_bytes=9), Task("b", {"p0": 1, "p1": 1}, weight_bytes=9))
    small = replace(platform(2), devices=(Device("p0", "a", 8), Device("p1", "b", 8)))
    with pytest.raises(Infeasible, match="memory"):
        solve(TaskGraph(tasks, ()), small)
    apart = replace(platform(2), links=())
    graph = TaskGraph((Task("a", {"p0": 1}), Task("b", {"p1": 1})), (Edge("a", "b", 1),))
    with pytest.raises(Infeasible, match="link"):
        solve(graph, apart)
    with pytest.raises(Infeasible, match="pin"):
        solve(TaskGraph((Task("a", {"p0": 1}, pin="p1"),), ()), platform(2))
    with pytest.raises(Infeasible, match="max latency 72"):
        solve(*topcuoglu(), max_latency=72)
    with pytest.raises(InputError, match="cycle"):
        solve(TaskGraph(graph.tasks, (Edge("a", "b", 1), Edge("b", "a", 1))), platform(2))
    with pytest.raises(InputError, match="unknown method"):
        solve(*topcuoglu(), method="magic")


def test_bin_packing_of_weights_is_proved_infeasible() -> None:
    tasks = tuple(Task(f"t{i}", {"p0": 1, "p1": 1}, weight_bytes=6) for i in range(3))
    machines = replace(platform(2), devices=(Device("p0", "a", 10), Device("p1", "b", 10)))
    with pytest.raises(Infeasible, match="memory"):
        solve(TaskGraph(tasks, ()), machines)


def test_activations_limit_the_overlap() -> None:
    # a and b hold 6 bytes each until c: together they need two devices, or more memory.
    tasks = tuple(Task(t, {"p0": 1, "p1": 2}, activation_bytes=6 if t != "c" else 0) for t in "abc")
    graph = TaskGraph(tasks, (Edge("a", "c", 1), Edge("b", "c", 1)))
    roomy = solve(graph, platform(2))
    tight = replace(platform(2), devices=(Device("p0", "x", 10), Device("p1", "y", 10)))
    plan = solve(graph, tight)
    assert (roomy.objective, plan.objective) == (3, 4)


def test_start_fix_and_lost_devices() -> None:
    graph, machines = topcuoglu()
    best = solve(graph, machines)
    again = solve(graph, machines, method="greedy", start=best)
    assert again.objective == best.objective
    lost = Platform(machines.devices[:2], tuple(k for k in machines.links if "p2" not in k.between))
    assert set(solve(graph, lost, start=best).device_of().values()) <= {"p0", "p1"}
    assert solve(graph, machines, fix={"1": "p0"}).device_of()["1"] == "p0"


def test_runs_are_reproducible() -> None:
    graph = random_graph(36, 3, 1, integer=False)
    one, two = (solve(graph, platform(3), method="split", effort=0.3) for _ in range(2))
    assert replace(one, seconds=None) == replace(two, seconds=None)


def test_data_parallelism_wins_and_loses() -> None:
    # Heavy transfers: copies win. A layer that only one device runs well: one copy wins.
    chain = TaskGraph(
        tuple(Task(t, {"p0": 4, "p1": 4}) for t in "abc"),
        (Edge("a", "b", 50), Edge("b", "c", 50)),
    )
    half = platform(2, duplex="half")
    assert solve(chain, half, objective="throughput").objective == 12
    assert solve(chain, half, objective="throughput", replicas=2).objective == pytest.approx(6)
    unlike = TaskGraph(
        (Task("a", {"p0": 1, "p1": 9}), Task("b", {"p0": 9, "p1": 1})), (Edge("a", "b", 1),)
    )
    assert solve(unlike, half, objective="throughput").objective == 1
    assert solve(unlike, half, objective="throughput", replicas=2).objective == pytest.approx(5)
    plan = solve(chain, half, replicas=2, batch=4)
    assert plan.objective == 24
    assert [r.share for r in plan.replicas] == [2, 2]
    assert plan.linear_costs


def test_hops_over_a_relay_are_in_the_plan() -> None:
    graph = TaskGraph((Task("a", {"p": 1}), Task("b", {"r": 1})), (Edge("a", "b", 2, "x"),))
    machines = Platform(
        tuple(Device(n, n) for n in "pqr"),
        (Link(("p", "q"), 1.0, duplex="half"), Link(("q", "r"), 2.0, duplex="full")),
    )
    plan = solve(graph, machines)
    assert plan.objective == 5
    assert [(h.from_device, h.to_device) for h in plan.transfers] == [("p", "q"), ("q", "r")]


def test_a_limit_with_a_plan_in_hand_is_feasible() -> None:
    graph = random_graph(40, 3, 4, integer=False)
    plan = solve(graph, platform(3), time_limit=0.001)
    assert plan.status == "FEASIBLE"
    assert not plan.deterministic
    assert 0 < plan.gap < 1


def test_ctrl_c_returns_the_plan_in_hand() -> None:
    calls = []

    def stop(text: str, done: int, total: int) -> None:
        calls.append(text)
        raise KeyboardInterrupt

    plan = solve(random_graph(28, 3, 4, integer=False), platform(3), progress=stop)
    assert calls
    assert plan.status == "FEASIBLE"
    assert plan.reasons == ("interrupted",)


def test_answers_do_not_depend_on_the_hash_seed() -> None:
    code = (
        "from partition_cases import random_graph, platform\n"
        "from csp_embed.partition.solve import solve\n"
        "for m in ('split', 'heft', 'exact'):\n"
        "    plan = solve(random_graph(14, 3, 6, integer=False), platform(3), method=m)\n"
        "    print(plan.assignments, plan.transfers)\n"
    )
    here = Path(__file__).parents[2]
    said = {
        subprocess.run(
            [sys.executable, "-c", code], cwd=here, capture_output=True, text=True, check=True,
            env={**os.environ, "PYTHONHASHSEED": seed, "PYTHONPATH": f"{here}:{here.parent}"},
        ).stdout
        for seed in ("1", "2")
    }  # fmt: skip
    assert len(said) == 1
    assert "Assignment" in said.pop()
