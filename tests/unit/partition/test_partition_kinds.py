"""Kinds of input that were once answered wrongly; right values by hand or by brute force."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import pytest
from partition_cases import platform, random_graph

from csp_embed.errors import InputError
from csp_embed.ir.network import Assignment, Device, Edge, Link, Plan, Platform, Task, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.solve import solve


def chain(costs: list[float]) -> TaskGraph:
    """Tasks one after the other on one device `a`."""
    names = [f"t{i}" for i in range(len(costs))]
    tasks = tuple(Task(t, {"a": c}) for t, c in zip(names, costs, strict=True))
    return TaskGraph(tasks, tuple(Edge(*x, 0) for x in itertools.pairwise(names)))


@pytest.mark.parametrize("unit", [1e-9, 1.0, 1e9])
def test_overlaps_are_refused_in_any_unit(unit: float) -> None:
    graph, alone = chain([2 * unit, 3 * unit]), Platform((Device("a", "a"),))
    rows = (Assignment("t0", "a", 0, 2 * unit), Assignment("t1", "a", unit, 4 * unit))
    cheat = Plan("latency", 4 * unit, 0, 1, "FEASIBLE", "hand", assignments=rows)
    assert {f.kind for f in check_plan(graph, alone, cheat)} == {"early", "overlap"}


def test_many_small_lies_do_not_add_up() -> None:
    # One task of 1 s, then 1000 of 1 us at what looks like one time to six digits.
    graph, alone = chain([1000.0] + [1e-3] * 1000), Platform((Device("a", "a"),))
    rows = [Assignment("t0", "a", 0, 1000.0)]
    rows += [Assignment(f"t{i}", "a", 1000.0, 1000.001) for i in range(1, 1001)]
    cheat = Plan("latency", 1000.001, 0, 1, "FEASIBLE", "hand", assignments=tuple(rows))
    assert {f.kind for f in check_plan(graph, alone, cheat)} == {"time"}


@pytest.mark.parametrize("objective", ["latency", "throughput"])
@pytest.mark.parametrize("power", [-10, 10, 30])
def test_another_unit_gives_the_same_plan(objective: str, power: int) -> None:
    graph, machines = random_graph(12, 3, 4), platform(3, duplex="half")
    factor = Fraction(10) ** power
    tasks = tuple(
        replace(t, cost={d: float(Fraction(repr(c)) * factor) for d, c in t.cost.items()})
        for t in graph.tasks
    )
    links = tuple(
        replace(k, bytes_per_ms=float(Fraction(repr(k.bytes_per_ms)) / factor))
        for k in machines.links
    )
    one = solve(graph, machines, objective=objective)
    two = solve(replace(graph, tasks=tasks), replace(machines, links=links), objective=objective)
    assert one.device_of() == two.device_of()
    assert (one.status, one.gap) == (two.status, two.gap)
    assert Fraction(repr(one.objective)) * factor == Fraction(repr(two.objective))


def test_a_nearly_optimal_plan_is_not_called_optimal() -> None:
    big = 1_000_000_000_000.0
    tasks = (Task("t", {"p0": big + 1, "p1": big}), Task("u", {"p0": 1.0, "p1": 1.0}, pin="p1"))
    graph = TaskGraph(tasks, ())
    assert solve(graph, platform(2)).objective == big + 1
    # One tick of 1e12: nearer than any tolerance for decimals, yet not the same.
    equal = TaskGraph((Task("t", {"p0": big + 1, "p1": big}),), ())
    poor = solve(equal, platform(2), fix={"t": "p0"})
    claim = replace(poor, objective=big + 1, lower_bound=big, status="OPTIMAL")
    assert {f.kind for f in check_plan(equal, platform(2), claim)} == {"bound"}


def test_the_load_bound_knows_memory() -> None:
    # The fast device holds two of ten layers, so eight run on the slow one: 8 * 10 ms; the load
    # alone would balance at 100 / 11 ms.
    tasks = tuple(Task(f"t{i}", {"p0": 1.0, "p1": 10.0}, weight_bytes=10) for i in range(10))
    small = replace(platform(2), devices=(Device("p0", "p0", 20), Device("p1", "p1")))
    plan = solve(TaskGraph(tasks, ()), small, method="greedy", objective="throughput")
    assert plan.lower_bound == pytest.approx(80.0)


@pytest.mark.parametrize("method", ["auto", "split", "genetic", "anneal", "lns", "milp", "exact"])
@pytest.mark.parametrize("objective", ["latency", "throughput"])
def test_an_optimum_of_nothing(method: str, objective: str) -> None:
    tasks = tuple(Task(f"t{i}", {"p0": 0.0, "p1": 0.0}) for i in range(33))
    edges = tuple(Edge(f"t{i}", f"t{i + 1}", 0) for i in range(32))
    plan = solve(
        TaskGraph(tasks, edges), platform(2), objective=objective, method=method, effort=0.01
    )
    assert (plan.objective, plan.lower_bound, plan.gap, plan.status) == (0, 0, 0, "OPTIMAL")


def test_routes_are_the_cheapest_for_each_size() -> None:
    links = (
        Link(("a", "b"), 1.0), Link(("a", "c"), 100.0, 1.0), Link(("c", "b"), 100.0, 1.0),
    )  # fmt: skip
    where = Platform(tuple(Device(d, d) for d in "abc"), links)
    tasks = (Task("s", {"a": 1.0}), Task("t", {"b": 1.0}), Task("u", {"b": 1.0}))
    graph = TaskGraph(tasks, (Edge("s", "t", 1), Edge("s", "u", 100)))
    plan = solve(graph, where)
    # One byte takes the direct link (1 ms), a hundred the relay: 2 + 2 * 100 / 100 = 4 ms, not 100.
    assert {(h.tensor, h.link) for h in plan.transfers} == {
        ("s->t", "a-b"), ("s->u", "a-c"), ("s->u", "c-b"),
    }  # fmt: skip
    assert (plan.objective, plan.status) == (6.0, "OPTIMAL")


@pytest.mark.parametrize("method", ["auto", "split", "milp", "heft", "genetic"])
def test_values_without_bytes_between_devices_without_links(method: str) -> None:
    tasks = tuple(Task(f"t{i}", {"a": 1.0, "b": 2.0}) for i in range(3))
    graph = TaskGraph(tasks, (Edge("t0", "t1", 0), Edge("t1", "t2", 0)))
    apart = Platform((Device("a", "a"), Device("b", "b")))
    plan = solve(graph, apart, method=method)
    assert (plan.objective, set(plan.device_of().values())) == (3.0, {"a"})


def test_replanning_after_the_bridge_is_lost() -> None:
    links = (Link(("a", "b"), 1.0), Link(("b", "c"), 1.0))
    full = Platform(tuple(Device(d, d) for d in "abc"), links)
    tasks = (
        Task("t0", {"a": 9.0, "c": 1.0}), Task("t1", {"a": 7.0, "b": 6.0, "c": 6.0}),
        Task("t2", {"a": 9.0, "c": 1.0}),
    )  # fmt: skip
    graph = TaskGraph(tasks, (Edge("t0", "t2", 0),))
    before = solve(graph, full)
    left = Platform(tuple(Device(d, d) for d in "ac"))
    plan = solve(graph, left, start=before)
    assert (plan.objective, plan.status) == (7.0, "OPTIMAL")


@pytest.mark.parametrize("joined", [False, True])
def test_a_thousand_equal_devices(joined: bool) -> None:
    names = [f"d{i}" for i in range(1000 if not joined else 120)]
    links = tuple(Link((a, b), 1.0) for i, a in enumerate(names) for b in names[:i]) * joined
    many = Platform(tuple(Device(d, "d") for d in names), links)
    tasks = tuple(Task(f"t{i}", {"d": 2.0}) for i in range(6))
    plan = solve(TaskGraph(tasks, ()), many)
    assert (plan.objective, plan.status, len(set(plan.device_of().values()))) == (2, "OPTIMAL", 6)


def test_numbers_beyond_all_sums_are_refused() -> None:
    with pytest.raises(InputError, match="too large to be added up"):
        solve(TaskGraph((Task("t", {"p0": 1e308}),), ()), platform(1))


def test_a_batch_on_one_replica_is_the_graph_so_many_times() -> None:
    graph = TaskGraph(tuple(Task(f"t{i}", {"p0": 0.1, "p1": 0.1}) for i in range(4)), ())
    plan = solve(graph, platform(2), batch=3)
    assert (plan.objective, plan.lower_bound, plan.status) == (0.6, 0.6, "OPTIMAL")
