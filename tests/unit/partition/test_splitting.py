"""The splitting heuristic: communities, parts, windows, against networkx and brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace

import networkx as nx
import numpy as np
import pytest
from partition_cases import platform, random_graph

from csp_embed.partition.arrays.view import Problem, make_problem
from csp_embed.partition.methods.communities import communities, cyclic, levels, merge, runs
from csp_embed.partition.methods.list_scheduling import ListScheduler
from csp_embed.partition.methods.local.cooling import UNNOTED
from csp_embed.partition.methods.period.exact_groups import solve_loads
from csp_embed.partition.methods.period.period_loads import load_arrays
from csp_embed.partition.methods.windows.window_passes import Sweep, run
from csp_embed.partition.methods.windows.windows import advance, backward, before
from csp_embed.partition.request import Clock, Request
from csp_embed.partition.solve import solve
from csp_embed.partition.times import kernels
from csp_embed.partition.times.timetable import loads


def appended(p: Problem, order: list[int], dev: list[int]) -> float:
    """Makespan of tasks and transfers put behind each other in list order; in plain Python."""
    free, finish = [0.0] * p.m, {}
    queue: dict[int, float] = {}
    there: dict[tuple[int, int], float] = {}
    for t in order:
        ready = free[dev[t]]
        for v in p.inputs(t):
            u = int(p.value_src[v])
            at = finish[u]
            if dev[u] != dev[t] and (v, dev[t]) in there:
                at = there[v, dev[t]]
            elif dev[u] != dev[t]:
                for h in p.hops(dev[u], dev[t], int(v)):
                    r = int(p.hop_res[h])
                    at = max(at, queue.get(r, 0.0)) if r >= 0 else at
                    at += float(p.hop_lat[h] + p.value_bytes[v] * p.hop_inv[h])
                    if r >= 0:
                        queue[r] = at
                there[v, dev[t]] = at
            ready = max(ready, at)
        finish[t] = free[dev[t]] = ready + float(p.cost[t, dev[t]])
    return max(finish.values())


def topological(p: Problem, order: tuple[int, ...]) -> bool:
    place = {t: i for i, t in enumerate(order)}
    return all(place[u] < place[t] for u, t, _ in p.edges())


def heft(p: Problem) -> tuple[np.ndarray, np.ndarray]:
    x = ListScheduler(p, compiled=False).heft()
    return x.order, x.dev


def test_communities_are_as_modular_as_those_of_networkx() -> None:
    p = make_problem(random_graph(200, 3, 2, integer=False), platform(3))
    graph = nx.Graph()
    for u, t, v in p.edges():
        graph.add_edge(u, t, weight=float(p.value_bytes[v]))
    theirs = nx.community.modularity(graph, nx.community.louvain_communities(graph, seed=0))
    assert nx.community.modularity(graph, map(set, communities(p))) >= 0.97 * theirs
    finer, coarser = levels(p)[0], levels(p)[-1]
    assert len(set(zip(finer, coarser, strict=True))) == len(set(finer)) > len(set(coarser))


def test_parts_have_an_acyclic_quotient() -> None:
    p = make_problem(random_graph(60, 3, 2), platform(3))
    found = communities(p)
    label = np.zeros(p.n, int)
    for i, part in enumerate(found):
        label[part] = i
    assert cyclic(p, label)  # the trap: communities alone cannot be scheduled as parts
    parts = runs(p, found, 12)
    for i, part in enumerate(parts):
        label[part] = i
    assert not cyclic(p, label)
    assert sorted(t for part in parts for t in part) == list(range(p.n))
    assert max(map(len, parts)) <= 12


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize(("lo", "hi"), [(0, 5), (3, 7), (6, 10)])
def test_a_part_is_solved_exactly(seed: int, lo: int, hi: int) -> None:
    p = make_problem(random_graph(10, 2, seed, integer=False), platform(2))
    sweep = Sweep(p)
    sweep.begin(*heft(p))
    order, dev = sweep.order.tolist(), sweep.dev.tolist()
    best = np.inf
    for middle in itertools.permutations(order[lo:hi]):
        whole = (*order[:lo], *middle, *order[hi:])
        if not topological(p, whole):
            continue
        for choice in itertools.product(range(2), repeat=hi - lo):
            for t, d in zip(middle, choice, strict=True):
                dev[t] = d
            best = min(best, appended(p, list(whole), dev))
    one_part(sweep, np.array([lo, hi]))
    assert sweep.proved == 1
    assert sweep.value == pytest.approx(best)


def one_part(sweep: Sweep, marks: np.ndarray) -> None:
    """A pass that opens nothing but the part between two marks."""
    p, a = sweep.p, sweep.a
    behind, then = backward(a, sweep.order, sweep.dev, sweep.lines, marks[1:])
    begin = before(p)
    for t in sweep.order[: marks[0]]:
        advance(a, begin.free, begin.finish, begin.arrive, sweep.dev, t, sweep.dev[t])
    room = np.full(p.m, np.inf)
    sweep.value, sweep.proved = run(
        a, sweep.groups, not p.contended(), sweep.order, sweep.dev, marks, room, begin,
        (behind, then), -1e6, 0.0, 0, sweep.value, UNNOTED,
    )  # fmt: skip


@pytest.mark.parametrize("duplex", [None, "half", "full"])
def test_sweeps_only_improve_and_their_values_are_true(duplex: str | None) -> None:
    p = make_problem(random_graph(70, 3, 5, integer=False), platform(3, duplex=duplex))
    sweep, clock = Sweep(p), Clock(Request())
    values = [sweep.begin(*heft(p))]
    for k in range(4):
        sweep.anneal(20, 10 * (k % 2), 60, 0.2, k, clock)
        values.append(sweep.value)
        sweep.exact(np.array([*range(0, 70, 7), 70]), 3000, clock)
        values.append(sweep.value)
        sweep.sort()
    assert all(b <= a * (1 + 1e-9) for a, b in itertools.pairwise(values))
    assert values[-1] < 0.97 * values[0]
    assert topological(p, tuple(sweep.order.tolist()))
    assert sweep.value == pytest.approx(appended(p, sweep.order.tolist(), sweep.dev.tolist()))
    a, w = kernels.arrays(p), kernels.work(p)
    assert kernels.decode(a, w, sweep.order, sweep.dev) <= sweep.value * (1 + 1e-12)


@pytest.mark.parametrize("seed", range(4))
def test_a_part_of_the_loads_is_solved_exactly(seed: int) -> None:
    machines = platform(3, duplex="half")
    graph = random_graph(9, 3, seed, integer=False)
    tasks = tuple(replace(t, weight_bytes=2.0) for t in graph.tasks)
    machines = replace(
        machines, devices=tuple(replace(d, memory_bytes=9) for d in machines.devices)
    )
    p = make_problem(replace(graph, tasks=tasks), machines)
    dev = np.arange(9) % 3

    def energy(placement: list[int]) -> float:
        load = [loads(p, placement).get(k, 0.0) for k in ("p0", "p1", "p2", *p.resources)]
        return max(load) + 0.1 * float(np.sqrt(np.mean(np.square(load))))

    best = np.inf
    for choice in itertools.product(range(3), repeat=5):
        placement = [*choice, *dev[5:].tolist()]
        if np.bincount(placement, minlength=3).max() <= 4:
            best = min(best, energy(placement))
    room = 9.0 - 2.0 * np.bincount(dev, minlength=3)
    ptr, some = np.array([0, 5]), np.arange(5)
    assert solve_loads(load_arrays(p), dev, room, ptr, some, 10**6) == 1
    assert energy(dev.tolist()) == pytest.approx(best)
    assert room.tolist() == (9.0 - 2.0 * np.bincount(dev, minlength=3)).tolist()


@pytest.mark.parametrize("objective", ["latency", "throughput"])
@pytest.mark.parametrize("duplex", [None, "half"])
def test_small_graphs_are_solved_to_the_optimum(objective: str, duplex: str | None) -> None:
    for seed in range(2):
        graph = random_graph(9, 3, seed, integer=False)
        tasks = tuple(
            replace(t, weight_bytes=3.0, colocate="g" if i in (2, 6) else None)
            for i, t in enumerate(graph.tasks)
        )
        machines = platform(3, duplex=duplex)
        machines = replace(
            machines, devices=tuple(replace(d, memory_bytes=14) for d in machines.devices)
        )
        graph = replace(graph, tasks=tasks)
        best = solve(graph, machines, objective=objective)
        assert best.status == "OPTIMAL"
        mine = solve(graph, machines, objective=objective, method="split")
        assert mine.objective == pytest.approx(best.objective, rel=0.02)


def test_merging_keeps_what_no_device_can_take_apart() -> None:
    graph = random_graph(4, 2, 0)
    tasks = tuple(replace(t, weight_bytes=5.0) for t in graph.tasks)
    machines = platform(2)
    machines = replace(
        machines, devices=tuple(replace(d, memory_bytes=11) for d in machines.devices)
    )
    p = make_problem(replace(graph, tasks=tasks), machines)
    assert merge(p, np.array([0, 0, 1, 1])).group.tolist() == [0, 0, 1, 1]
    assert merge(p, np.array([0, 0, 0, 1])).group.tolist() == [0, 1, 2, 3]
