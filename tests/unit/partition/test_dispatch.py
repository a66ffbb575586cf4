"""Dispatching: what it says of a schedule against the verifier and against a slow simulation."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from csp_embed.ir.network import Device, Edge, Link, Platform, Task, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.arrays.view import Problem, csr, make_problem
from csp_embed.partition.methods.local.cooling import UNNOTED
from csp_embed.partition.methods.local.dispatching import anneal_dispatch
from csp_embed.partition.times import feasible, kernels
from csp_embed.partition.times.dispatch import busy, dispatch, dispatch_within, space, timed
from csp_embed.partition.times.timetable import latency_plan, loads


def case(seed: int, tasks: int = 14) -> tuple[TaskGraph, Platform]:
    """Three devices in a row (values from a to c go through b), queued or idle links; some tasks
    colocated, some pinned, memory for about half of the tasks."""
    rng = np.random.default_rng(seed)
    duplex = [None, "full", "half"][seed % 3]
    devices = tuple(Device(d, d, memory_bytes=float(6 * tasks)) for d in "abc")
    links = tuple(
        Link(pair, float(rng.integers(1, 4)), latency_ms=float(rng.integers(0, 3)), duplex=duplex)
        for pair in ("ab", "bc")
    )
    made = [
        Task(
            f"t{k}", {d: float(rng.integers(1, 9)) for d in "abc"},
            weight_bytes=float(rng.integers(0, 12)), pin="b" if rng.random() < 0.1 else None,
            colocate="pair" if k in (2, 5) else None,
        )
        for k in range(tasks)
    ]  # fmt: skip
    edges = [
        Edge(f"t{u}", f"t{v}", float(rng.integers(0, 6)))
        for u, v in itertools.combinations(range(tasks), 2) if rng.random() < 0.15
    ]  # fmt: skip
    return TaskGraph(tuple(made), tuple(edges)), Platform(devices, links)


def placed(p: Problem, rng: np.random.Generator) -> np.ndarray:
    """Devices that are allowed and hold their weights, by trying."""
    for _ in range(10_000):
        dev = np.array([rng.choice(p.allowed(t)) for t in range(p.n)], np.int64)
        for members in p.groups():
            dev[members] = dev[members[0]]
        if feasible.runs(p, dev):
            return dev
    raise AssertionError("no placement fits")


def slow(p: Problem, dev: np.ndarray, priority: np.ndarray) -> float:
    """The same rule, one event after the other, written apart: the most urgent of what waits."""
    waiting: dict[int, list[tuple[float, int, tuple[int, int, int]]]] = {}
    busy: dict[int, tuple[float, tuple[int, int, int]]] = {}
    free: list[tuple[float, tuple[int, int, int]]] = []  # on links without queues
    missing = [len(p.inputs(t)) for t in range(p.n)]
    number = itertools.count()

    def length(op: tuple[int, int, int]) -> float:
        v, d, k = op
        if k < 0:
            return float(p.cost[v, d])
        h = p.hops(int(dev[p.value_src[v]]), d, v)[k]
        return float(p.hop_lat[h] + p.value_bytes[v] * p.hop_inv[h])

    def ready(op: tuple[int, int, int], now: float) -> None:
        v, d, k = op
        if k < 0:
            waiting.setdefault(d, []).append((float(priority[v]), next(number), op))
            return
        r = int(p.hop_res[p.hops(int(dev[p.value_src[v]]), d, v)[k]])
        if r < 0:
            free.append((now + length(op), op))
            return
        level = max(float(priority[t]) for t in p.consumers(v) if dev[t] == d)
        waiting.setdefault(p.m + r, []).append((level, next(number), op))

    def give(v: int, d: int, now: float) -> None:
        for t in p.consumers(v):
            if dev[t] == d:
                missing[t] -= 1
                if missing[t] == 0:
                    ready((int(t), d, -1), now)

    for t in range(p.n):
        if not missing[t]:
            ready((t, int(dev[t]), -1), 0.0)
    now = end = 0.0
    while True:
        for line, queue in waiting.items():
            if queue and line not in busy:
                # Of equals the last that came, as a stack.
                best = max(queue)
                queue.remove(best)
                busy[line] = (now + length(best[2]), best[2])
        if not busy and not free:
            return end
        now = min([f for f, _ in busy.values()] + [f for f, _ in free])
        over = [(line, op) for line, (f, op) in busy.items() if f <= now]
        over += [(-1, op) for f, op in free if f <= now]
        free = [(f, op) for f, op in free if f > now]
        for line, (v, d, k) in over:
            busy.pop(line, None)
            if k < 0:
                end = now
                for value in p.outputs(v):
                    give(int(value), d, now)
                    for e in {int(dev[t]) for t in p.consumers(int(value))} - {d}:
                        ready((int(value), e, 0), now)
            elif k + 1 < len(p.hops(int(dev[p.value_src[v]]), d, v)):
                ready((v, d, k + 1), now)
            else:
                give(v, d, now)


@pytest.mark.parametrize("seed", range(30))
def test_dispatching_does_what_it_says_and_the_verifier_agrees(seed: int) -> None:
    graph, platform = case(seed)
    p = make_problem(graph, platform, {})
    rng = np.random.default_rng(seed)
    dev, s = placed(p, rng), space(p)
    assert s is not None
    # No two alike, so that only one order is right.
    priority = rng.permutation(p.n).astype(float)
    prices = rng.random(p.m + len(p.resources))
    value, _, priced = dispatch(kernels.arrays(p), s, dev, priority, prices)
    assert value == pytest.approx(slow(p, dev, priority))
    found = loads(p, dev)
    names = [*(d.name for d in platform.devices), *p.resources]
    busy = sum(w * found.get(n, 0.0) for w, n in zip(prices, names, strict=True))
    assert priced == pytest.approx(busy)
    table = timed(p, s, dev)
    assert table.makespan == pytest.approx(value)
    assert check_plan(graph, platform, latency_plan(p, table, lower_bound=0.0)) == []


@pytest.mark.parametrize("seed", range(30))
def test_dispatching_is_given_up_only_where_it_ends_too_late(seed: int) -> None:
    """With the waits that a limit allows: the same makespan up to it, inf only above it; and lines
    work as long as the judge's sums say."""
    graph, platform = case(seed)
    p = make_problem(graph, platform, {})
    rng = np.random.default_rng(seed)
    dev, s, a = placed(p, rng), space(p), kernels.arrays(p)
    assert s is not None
    priority, prices = rng.permutation(p.n).astype(float), np.ones(p.m + len(p.resources))
    value = dispatch(a, s, dev, priority, prices)[0]
    found = loads(p, dev)
    names = [*(d.name for d in platform.devices), *p.resources]
    least = busy(a, s, dev)
    assert s.load == pytest.approx([found.get(n, 0.0) for n in names])
    assert least == pytest.approx(max(found.values()))
    given_up = 0
    for limit in np.linspace(least, value * 1.2, 40):
        s.spare[:] = limit - s.load
        within = dispatch_within(a, s, dev, priority, prices)[0]
        if limit >= value * (1 + 1e-9):
            assert within == pytest.approx(value)
        given_up += within == np.inf
    # Somewhere in between it must have been of use, unless no line waits for anything.
    assert given_up > 0 or value == pytest.approx(least)


@pytest.mark.parametrize("seed", range(6))
def test_annealing_keeps_memory_groups_and_pins_and_is_never_worse(seed: int) -> None:
    graph, platform = case(seed, tasks=20)
    p = make_problem(graph, platform, {})
    rng = np.random.default_rng(seed)
    dev, s, a = placed(p, rng), space(p), kernels.arrays(p)
    assert s is not None
    priority, prices = rng.random(p.n), np.ones(p.m + len(p.resources))
    before = dispatch(a, s, dev, priority, prices)[0]
    ptr, members = csr(p.groups())
    layer = np.arange(p.n) // 2  # pairs of tasks as if they were copies: swaps must keep all too
    twins = np.arange(p.n).reshape(-1, 2)
    best = anneal_dispatch(
        a, s, members, ptr, layer, twins, dev, priority, prices, 1.0, 0.5, 4000, 1.0, 0.01, seed,
        UNNOTED,
    )  # fmt: skip
    assert best < before
    assert dispatch(a, s, dev, priority, prices)[0] == pytest.approx(best)
    assert feasible.runs(p, dev)
    plan = latency_plan(p, timed(p, s, dev), lower_bound=0.0)
    assert plan.objective == pytest.approx(best)
    assert check_plan(graph, platform, plan) == []
