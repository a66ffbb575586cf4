"""Splitting for the period: loads move by move, prices, annealing, against plain recounts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from partition_cases import platform, random_graph

from csp_embed.partition.arrays.view import Problem, make_problem
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.bounds.prices import balanced_prices
from csp_embed.partition.methods.communities import levels, merge
from csp_embed.partition.methods.period.balance import balance
from csp_embed.partition.methods.period.period_loads import (
    Loads,
    begin,
    energy,
    load_arrays,
    settle,
    shift,
)
from csp_embed.partition.models.dnn import Dnn
from csp_embed.partition.solve import solve
from csp_embed.partition.times.timetable import loads


def grouped(n: int, seed: int, duplex: str | None = "full") -> Problem:
    """Some tasks colocated, so that groups read values of their own."""
    graph = random_graph(n, 3, seed, integer=False)
    tasks = tuple(replace(t, colocate=f"g{i % 4}" if i % 3 == 0 else None) for i, t in
                  enumerate(graph.tasks))  # fmt: skip
    return make_problem(replace(graph, tasks=tasks), platform(3, duplex=duplex))


def wander(q: Loads, moves: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Devices of groups, and loads kept up to date, after random moves."""
    rng = np.random.default_rng(seed)
    dev = rng.integers(0, len(q.memory), len(q.weight))
    readers = np.zeros((len(q.maker), len(q.memory)), np.int64)
    load = np.zeros(q.lines)
    hops = (q.hop_ptr, q.hop_line, q.hop_lat, q.hop_inv, q.once)
    begin(dev, readers, load, q.cost, q.maker, q.row, q.size, q.use_ptr, q.use, *hops)
    for _ in range(moves):
        g, b = int(rng.integers(len(dev))), int(rng.integers(len(q.memory)))
        if b != dev[g]:
            shift(
                g, b, dev, readers, load, q.cost, q.maker, q.row, q.size, q.inp_ptr, q.inp,
                q.out_ptr,
                q.out, *hops,
            )  # fmt: skip
            settle(g, b, dev, readers, q.inp_ptr, q.inp)
    return dev, load


@pytest.mark.parametrize("duplex", [None, "half", "full"])
def test_loads_kept_up_to_date_are_those_of_a_recount(duplex: str | None) -> None:
    p = grouped(40, 3, duplex)
    q = load_arrays(p)
    for moves in (0, 1, 200):
        dev, load = wander(q, moves, moves)
        plain = [0.0] * (p.m + len(p.resources) + 1)
        for t in range(p.n):
            plain[dev[q.group[t]]] += float(p.cost[t, dev[q.group[t]]])
        for v, u in enumerate(p.value_src):
            a = int(dev[q.group[u]])
            for b in {int(dev[q.group[t]]) for t in p.consumers(v)} - {a}:
                for h in p.hops(a, b, v):
                    if p.hop_res[h] >= 0:
                        plain[p.m + p.hop_res[h]] += float(
                            p.hop_lat[h] + p.value_bytes[v] * p.hop_inv[h]
                        )
        assert load.tolist() == pytest.approx(plain)
        named = loads(p, dev[q.group])
        names = [d.name for d in p.platform.devices] + p.resources
        assert [named.get(k, 0.0) for k in names] == pytest.approx(plain[:-1])


def test_tolls_kept_up_to_date_are_those_of_a_recount() -> None:
    p = grouped(40, 4)
    toll = np.random.default_rng(0).uniform(1, 5, len(p.value_src))
    dnn = Dnn(p, np.array([1, 0, 1]), toll, np.zeros(p.n, np.int64))
    q = load_arrays(p, dnn.accelerator, dnn.toll)
    for moves in (0, 1, 200):
        dev, load = wander(q, moves, moves)
        assert load[: p.m].tolist() == pytest.approx(dnn.loads(dev[q.group]).tolist())


def test_devices_that_cannot_talk_cost_more_than_any_period() -> None:
    machines = platform(3, duplex="full")
    p = make_problem(random_graph(12, 3, 1), replace(machines, links=machines.links[:1]))
    q = load_arrays(p)
    dev, load = wander(q, 50, 1)
    apart = not np.isfinite(p.lat[dev[p.value_src]][:, dev]).all()
    assert apart
    assert energy(load) > 1e9
    dev[:] = 0
    assert balance(q, dev, 3000, 5.0, 0.01, 1) <= p.cost[:, 0].sum()
    readers = np.repeat(np.arange(len(p.value_src)), np.diff(p.use_ptr))
    assert np.isfinite(p.lat[dev[p.value_src[readers]], dev[p.use]]).all()


@pytest.mark.parametrize("n", [5, 60, 300])
def test_prices_give_the_bound_of_the_linear_program(n: int) -> None:
    p = make_problem(random_graph(n, 3, n, integer=False), platform(3))
    w, low = balanced_prices(load_arrays(p).cost)
    exact = bounds.load(p)
    assert 0.998 * exact <= low <= exact * (1 + 1e-9)
    assert w.sum() == pytest.approx(1)
    assert low == pytest.approx((p.cost * w).min(axis=1).sum())


def test_annealing_keeps_memory_and_stops_at_its_target() -> None:
    p = grouped(60, 5)
    p = replace(p, weight=np.full(p.n, 2.0), memory=np.array([60.0, 40.0, 40.0]))
    q = load_arrays(p)
    start = np.repeat([0, 1, 2], [28, 16, 16])[p.group]
    start[:] = np.array([start[np.flatnonzero(p.group == g)[0]] for g in p.group])
    long, short = start.copy(), start.copy()
    best = balance(q, long, 20_000, 20.0, 0.1, 1)
    assert (np.bincount(long, p.weight, minlength=3) <= p.memory).all()
    assert best == pytest.approx(max(loads(p, long).values()))
    early = balance(q, short, 20_000, 20.0, 0.1, 1, target=1.2 * best)
    assert best < early <= 1.2 * best


def test_free_links_are_balanced_nearly_to_the_bound() -> None:
    graph, machines = random_graph(150, 3, 2, integer=False), platform(3)
    plan = solve(graph, machines, objective="throughput", method="split")
    assert (plan.objective or 0.0) <= 1.003 * bounds.load(make_problem(graph, machines))


def test_merged_graphs_have_the_loads_of_their_tasks() -> None:
    p = make_problem(random_graph(80, 3, 6, integer=False), platform(3, duplex="half"))
    merged = merge(p, levels(p)[0])
    q = load_arrays(merged)
    dev, load = wander(q, 100, 2)
    named = loads(p, dev[q.group])
    names = [d.name for d in p.platform.devices] + p.resources
    assert [named.get(k, 0.0) for k in names] == pytest.approx(load[:-1].tolist())
