"""Identical servers and repeated layers: collapsing loses nothing on small cases."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from csp_embed.ir.network import Device, Edge, Link, Platform, Task, TaskGraph
from csp_embed.partition.arrays.symmetry import canonical, device_classes
from csp_embed.partition.arrays.view import make_problem
from csp_embed.partition.methods.period.collapse import collapsed
from csp_embed.partition.request import Clock, Request
from csp_embed.partition.solve import solve
from csp_embed.partition.times.timetable import loads


def stack(layers: int) -> TaskGraph:
    """A chain of equal layers of three unlike operators."""
    costs = {"a": (3.0, 1.0), "b": (2.0, 2.0), "c": (1.0, 4.0)}
    tasks = tuple(
        Task(f"{i}{k}", {"cpu": x, "gpu": y}) for i in range(layers) for k, (x, y) in costs.items()
    )
    edges = tuple(Edge(one.id, two.id, 10.0, "y") for one, two in itertools.pairwise(tasks))
    return TaskGraph(tasks, edges)


def cluster(count: int) -> Platform:
    """Servers of a CPU and a GPU, joined CPU to CPU."""
    devices = tuple(
        Device(f"s{i}/{k}", k, server=f"s{i}") for i in range(count) for k in ("cpu", "gpu")
    )
    links = [Link((f"s{i}/cpu", f"s{i}/gpu"), 1000.0, duplex="full") for i in range(count)]
    links += [Link((f"s{i - 1}/cpu", f"s{i}/cpu"), 100.0, duplex="full") for i in range(1, count)]
    return Platform(devices, tuple(links))


@pytest.mark.parametrize(("layers", "count"), [(2, 2), (4, 2), (6, 3)])
def test_nothing_is_lost_by_collapsing(layers: int, count: int) -> None:
    graph, platform = stack(layers), cluster(count)
    apart = replace(platform, devices=tuple(replace(d, server=None) for d in platform.devices))
    with_servers = solve(graph, platform, objective="throughput")
    without = solve(graph, apart, objective="throughput")
    assert with_servers.status == without.status == "OPTIMAL"
    assert with_servers.objective == pytest.approx(without.objective)


def test_runs_are_copied_to_every_server() -> None:
    p = make_problem(stack(4), cluster(2))
    dev = collapsed(p, Clock(Request()))
    assert dev is not None
    assert (dev[6:] - dev[:6]).tolist() == [2] * 6
    # Each server does two layers: a on the GPU twice, c on the CPU twice, b once on either.
    assert max(loads(p, dev).values()) == pytest.approx(4.0)


def test_unlike_servers_are_not_collapsed() -> None:
    platform = cluster(2)
    devices = (*platform.devices[:3], Device("s1/gpu", "gpu", 5, server="s1"))
    assert (
        collapsed(make_problem(stack(2), Platform(devices, platform.links)), Clock(Request()))
        is None
    )


@pytest.mark.parametrize("seed", range(4))
def test_symmetry_breaking_keeps_the_optimum_of_all_placements(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = rng.integers(1, 9, (5, 2))
    tasks = tuple(
        Task(f"t{i}", {"cpu": float(c), "gpu": float(g)}) for i, (c, g) in enumerate(costs)
    )
    edges = tuple(Edge(f"t{int(rng.integers(t))}", f"t{t}", 100.0 * t) for t in range(1, 5))
    graph, machines = TaskGraph(tasks, edges), cluster(2)
    p = make_problem(graph, machines)
    best = min(max(loads(p, list(dev)).values()) for dev in itertools.product(range(4), repeat=5))
    plan = solve(graph, machines, objective="throughput")
    assert plan.status == "OPTIMAL"
    assert plan.objective == pytest.approx(best)


def test_device_classes_see_links() -> None:
    tasks = (Task("a", {"gpu": 1.0, "cpu": 2.0}),)
    devices = (Device("cpu", "cpu"), Device("g0", "gpu"), Device("g1", "gpu"), Device("g2", "gpu"))
    links = (Link(("cpu", "g0"), 5.0), Link(("cpu", "g1"), 5.0), Link(("cpu", "g2"), 4.0))
    p = make_problem(TaskGraph(tasks, ()), Platform(devices, links))
    assert device_classes(p) == [[1, 2]]
    assert canonical(p, np.array([2]), [[1, 2]]).tolist() == [1]
