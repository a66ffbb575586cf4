"""Listed placements, window bounds and reinsertion against enumeration."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from partition_cases import platform, random_graph, topcuoglu

from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import Bus, Device, Edge, Link, Platform, Task, TaskGraph
from csp_embed.partition.arrays.view import Problem, make_problem
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.methods.local.cooling import UNNOTED
from csp_embed.partition.methods.local.reinsert import ordered, reinsert
from csp_embed.partition.methods.placements import placements
from csp_embed.partition.solve import solve
from csp_embed.partition.times import kernels


def makespan(p: Problem, order: tuple[int, ...], dev: tuple[int, ...]) -> float:
    """Tasks appended to their devices in the given order."""
    free, end = [0.0] * p.m, [0.0] * p.n
    for t in order:
        ready = free[dev[t]]
        for v in p.inputs(t):
            u = int(p.value_src[v])
            ready = max(ready, end[u] + p.comm(int(v), dev[u], dev[t]))
        end[t] = free[dev[t]] = ready + float(p.cost[t, dev[t]])
    return max(end)


def optima(p: Problem) -> dict[tuple[int, ...], float]:
    """The least makespan of every placement, over all task orders."""
    edges = [(u, t) for u, t, _ in p.edges()]
    orders = [
        order
        for order in itertools.permutations(range(p.n))
        if all(order.index(u) < order.index(t) for u, t in edges)
    ]
    return {
        dev: min(makespan(p, order, dev) for order in orders)
        for dev in itertools.product(range(p.m), repeat=p.n)
        if np.isfinite(p.cost[np.arange(p.n), dev]).all()
    }


@pytest.mark.parametrize("seed", range(4))
def test_no_placement_that_beats_the_makespan_is_missing(seed: int) -> None:
    p = make_problem(random_graph(5, 3, seed, ccr=0.3, integer=False), platform(3))
    best = optima(p)
    least = min(best.values())
    for goal in (least * 1.0001, least * 1.1, least * 1.5):
        listed = placements(p, goal, rows=10_000)
        assert listed is not None
        rows = {tuple(row) for row in listed.tolist()}
        assert rows >= {dev for dev, value in best.items() if value < goal * (1 - 1e-8)}
        # The conditions are worth something: most of what cannot keep the makespan is left out.
        assert len(rows) < 243
    assert placements(p, min(bounds.load(p), least) * 0.999, rows=10_000).shape == (0, 5)


def test_the_list_is_cut_off_where_it_is_long() -> None:
    p = make_problem(random_graph(9, 3, 1), platform(3))
    assert placements(p, 1e4, rows=100) is None
    assert placements(p, 1e4, hits=100) is None
    assert placements(p, 1e4, rows=100_000, stop=lambda: True) is None
    every = placements(p, 1e4, rows=100_000)
    assert every is not None
    assert len({tuple(row) for row in every.tolist()}) == 3**9


def test_colocated_tasks_are_listed_together() -> None:
    graph = random_graph(6, 2, 3)
    tasks = tuple(
        replace(t, colocate="g" if i in (1, 4) else None) for i, t in enumerate(graph.tasks)
    )
    p = make_problem(replace(graph, tasks=tasks), platform(2))
    rows = placements(p, 1e4, rows=1000)
    assert rows is not None
    assert len(rows) == 2**5
    one, two = (p.index[t] for t in ("t1", "t4"))
    assert (rows[:, one] == rows[:, two]).all()


@pytest.mark.parametrize("seed", range(6))
def test_load_and_window_bounds_hold_and_windows_are_no_weaker(seed: int) -> None:
    p = make_problem(random_graph(5, 2, seed, integer=False), platform(2))
    best = min(optima(p).values())
    load, window = bounds.load(p), bounds.window_load(p)
    assert window <= best * (1 + 1e-9)
    assert window >= load * (1 - 1e-6)
    # The fractional load by a fine grid of prices of two devices.
    grid = [
        np.minimum(p.cost[:, 0] * w, p.cost[:, 1] * (1 - w)).sum() for w in np.linspace(0, 1, 4001)
    ]
    assert load == pytest.approx(max(grid), rel=1e-3)
    assert load >= max(grid) * (1 - 1e-9)


def test_a_window_sees_what_the_load_does_not() -> None:
    # One task of 10 ms precedes four of 6 ms: one of two devices idles for 10 ms.
    later = [Task(f"b{i}", {"p0": 6.0, "p1": 6.0}) for i in range(4)]
    tasks = (Task("a", {"p0": 10.0, "p1": 10.0}), *later)
    edges = tuple(Edge("a", f"b{i}", 1e-6) for i in range(4))
    p = make_problem(TaskGraph(tasks, edges), platform(2))
    assert bounds.load(p) == pytest.approx(17)
    assert bounds.window_load(p) == pytest.approx(22)
    assert bounds.critical_path(p) == pytest.approx(16)


def test_what_shares_a_device_loads_it_as_one() -> None:
    # Apart a and b take 1 ms each, on devices of their own; together 11 ms on either.
    tasks = (
        Task("a", {"p0": 1.0, "p1": 10.0}, colocate="g"),
        Task("b", {"p0": 10.0, "p1": 1.0}, colocate="g"),
        Task("c", {"p0": 3.0, "p1": 3.0}),
    )
    p = make_problem(TaskGraph(tasks, ()), platform(2))
    # In fractions: 11 and 3 ms over two devices alike.
    assert bounds.load(p) == pytest.approx(7)
    assert bounds.window_load(p) == pytest.approx(7)
    assert solve(p.graph, p.platform).lower_bound == 11  # and the search knows whole ones


def test_windows_know_the_memory() -> None:
    # After a (10 ms) one of four tasks fits on the fast device: three take 6 ms each on the other.
    later = [Task(f"b{i}", {"p0": 2.0, "p1": 6.0}, weight_bytes=1.0) for i in range(4)]
    tasks = (Task("a", {"p0": 10.0, "p1": 10.0}), *later)
    edges = tuple(Edge("a", f"b{i}", 0.0) for i in range(4))
    machines = platform(2)
    small = replace(machines.devices[0], memory_bytes=1.0)
    machines = replace(machines, devices=(small, machines.devices[1]))
    p = make_problem(TaskGraph(tasks, edges), machines)
    assert bounds.load_within_memory(p) == pytest.approx(18)
    assert bounds.window_load(p) == pytest.approx(28)
    plan = solve(p.graph, p.platform)
    assert (plan.objective, plan.status) == (28, "OPTIMAL")


@pytest.mark.parametrize("seed", range(4))
def test_reinsertion_reports_the_makespan_of_what_it_returns(seed: int) -> None:
    p = make_problem(random_graph(12, 3, seed, integer=False), platform(3))
    order, dev = np.arange(p.n), np.zeros(p.n, np.int64)
    first = makespan(p, tuple(order), tuple(dev))
    value = reinsert(
        ordered(p), order, dev, 2000, 0.02 * first, 0.001 * first, 1.0, 1 + seed, UNNOTED
    )
    position = np.argsort(order)
    assert sorted(order.tolist()) == list(range(p.n))
    assert all(position[u] < position[t] for u, t, _ in p.edges())
    assert value == pytest.approx(makespan(p, tuple(order), tuple(dev)))
    assert value < first


@pytest.mark.parametrize("seed", range(4))
def test_reinsertion_keeps_precedences_among_tasks_that_take_no_time(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tasks = tuple(
        Task(f"t{i}", {f"p{d}": float(c) for d, c in enumerate(rng.integers(0, 3, 3))})
        for i in range(30)
    )
    edges = tuple(
        Edge(f"t{i}", f"t{j}", float(rng.integers(0, 3)))
        for i, j in itertools.combinations(range(30), 2)
        if rng.random() < 0.1
    )
    p = make_problem(TaskGraph(tasks, edges), platform(3))
    order, dev = np.arange(p.n), np.zeros(p.n, np.int64)
    value = reinsert(ordered(p), order, dev, 5000, 3.0, 0.1, 1.0, 1 + seed, UNNOTED)
    position = np.argsort(order)
    assert all(position[u] < position[t] for u, t, _ in p.edges())
    assert value == pytest.approx(makespan(p, tuple(order), tuple(dev)))


@pytest.mark.parametrize("seed", range(3))
def test_reinsertion_finds_the_optimum_of_small_graphs(seed: int) -> None:
    p = make_problem(random_graph(6, 2, seed, integer=False), platform(2))
    order, dev = np.arange(p.n), np.zeros(p.n, np.int64)
    value = reinsert(ordered(p), order, dev, 20_000, 10.0, 0.1, 0.5, 5, UNNOTED)
    assert value == pytest.approx(min(optima(p).values()))


def test_reinsertion_keeps_memory_and_forbidden_devices() -> None:
    graph, machines = topcuoglu()
    tasks = tuple(replace(t, weight_bytes=1.0) for t in graph.tasks)
    small = tuple(replace(d, memory_bytes=4.0) for d in machines.devices)
    p = make_problem(replace(graph, tasks=tasks), replace(machines, devices=small), {"7": "p2"})
    dev = np.array([0, 0, 0, 0, 1, 1, 1, 2, 2, 2], np.int64)
    pinned = p.index["7"]
    dev[pinned], dev[-1] = 2, dev[pinned]
    order = np.arange(p.n)
    reinsert(ordered(p), order, dev, 20_000, 5.0, 0.1, 0.0, 3, UNNOTED)
    assert np.bincount(dev, minlength=3).max() <= 4
    assert dev[pinned] == 2


@pytest.mark.parametrize(
    ("limits", "unit"), [({"max_latency": 0.0}, "ms"), ({"min_throughput": -1.0}, "samples per ms")]
)
def test_limits_must_be_positive_and_the_error_says_the_unit(limits: dict, unit: str) -> None:
    graph, machines = topcuoglu()
    with pytest.raises(InputError, match=next(iter(limits))) as caught:
        solve(graph, machines, **limits)
    assert f"positive number of {unit}" in caught.value.render()


@pytest.mark.parametrize(("rate", "period"), [(1 / 36, 36.0), (1 / 50, 50.0)])
def test_min_throughput_is_in_samples_per_ms(rate: float, period: float) -> None:
    graph, machines = topcuoglu()  # its least period is 36 ms per sample
    plan = solve(graph, machines, min_throughput=rate)
    assert plan.period <= period * (1 + 1e-6)
    with pytest.raises(Infeasible, match="no plan"):
        solve(graph, machines, min_throughput=1.01 / 36)


def test_a_bus_holds_every_hop_of_long_routes() -> None:
    """Three links in a row on one bus: more intervals on its line than two for each value."""
    ends = ("a", "d")
    tasks = tuple(Task(f"t{i}", {ends[i % 2]: 1.0}) for i in range(6))
    edges = tuple(Edge(f"t{i}", f"t{i + 1}", 10.0, f"v{i}") for i in range(5))
    links = tuple(Link((a, b), 1.0, shared="bus") for a, b in ("ab", "bc", "cd"))
    row = Platform(tuple(Device(d, d) for d in "abcd"), links, (Bus("bus"),))
    p = make_problem(TaskGraph(tasks, edges), row)
    w = kernels.work(p)
    dev = np.array([p.allowed(t)[0] for t in range(p.n)])
    # Without compilation, so that a line that is too short would be an error.
    end = kernels.pick(p, False).decode(kernels.arrays(p), w, np.arange(p.n), dev)
    assert end == pytest.approx(6 * 1.0 + 5 * 3 * 10.0)
    assert w.count[p.m] == 15
