"""A batch whose samples share devices: against every schedule of tiny batches, and the judge."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from csp_embed.errors import InputError
from csp_embed.ir.network import Device, Edge, Link, Plan, Platform, Replica, Task, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.several.batch_shares import bound
from csp_embed.partition.several.copies import load
from csp_embed.partition.solve import solve


def machines(names: str, memory: float | None = None) -> Platform:
    """Devices of one letter each, every pair joined by an idle link of 1 byte per ms."""
    devices = tuple(Device(d, f"kind-{d}", memory_bytes=memory) for d in names)
    return Platform(devices, tuple(Link(pair, 1.0) for pair in itertools.combinations(names, 2)))


def best_chain(costs: list[dict[str, float]], sizes: list[float], batch: int) -> float:
    """Least makespan of `batch` samples through a chain, each sample by itself on devices of its
    choice: all placements of all samples, all orders of their steps (each device takes its steps in
    that order)."""
    steps = [sample for sample in range(batch) for _ in costs]
    least = float("inf")
    for order in set(itertools.permutations(steps)):
        for row in itertools.product("ab", repeat=batch * len(costs)):
            free, ready, at = {"a": 0.0, "b": 0.0}, [0.0] * batch, [0] * batch
            last = [""] * batch
            for sample in order:
                k = at[sample]
                d = row[sample * len(costs) + k]
                wait = sizes[k - 1] if k and last[sample] != d else 0.0
                end = max(free[d], ready[sample] + wait) + costs[k][d]
                free[d], ready[sample], last[sample], at[sample] = end, end, d, k + 1
            least = min(least, max(ready))
    return least


@pytest.mark.parametrize("seed", range(4))
def test_two_samples_of_a_chain_reach_the_best_of_all_schedules(seed: int) -> None:
    rng = np.random.default_rng(seed)
    costs = [{d: float(rng.integers(2, 12)) for d in "ab"} for _ in range(2)]
    size = float(rng.integers(0, 5))
    graph = TaskGraph(
        tuple(Task(f"t{k}", cost) for k, cost in enumerate(costs)),
        (Edge("t0", "t1", size),),
    )
    plan = solve(graph, machines("ab"), batch=2, share=True)
    # Costs are linear and links free, so samples apart are never worse than together.
    assert plan.objective == pytest.approx(best_chain(costs, [size], 2))
    assert check_plan(graph, machines("ab"), plan) == []
    assert plan.lower_bound <= (plan.objective or 0.0) * (1 + 1e-12)


def test_samples_of_one_layer_are_dealt_out_by_speed() -> None:
    """Five samples of 2 ms and 3 ms: three here and two there, 6 ms on both."""
    graph = TaskGraph((Task("t", {"a": 2.0, "b": 3.0}),), ())
    plan = solve(graph, machines("ab"), batch=5, share=True)
    assert plan.objective == pytest.approx(6)
    where = [replica.assignments[0].device for replica in plan.replicas]
    assert (where.count("a"), where.count("b")) == (3, 2)


def test_a_batch_that_is_cheaper_together_stays_together() -> None:
    by_batch = {"a": {1: 4.0, 2: 4.5, 4: 5.0}, "b": {1: 9.0, 2: 9.0, 4: 9.0}}
    graph = TaskGraph((Task("t", {"a": 4.0, "b": 9.0}, cost_by_batch=by_batch),), ())
    plan = solve(graph, machines("ab"), batch=4, share=True)
    assert plan.objective == pytest.approx(5)
    assert [replica.share for replica in plan.replicas] == [4]


def test_weights_are_held_once_by_all_samples_on_a_device() -> None:
    graph = TaskGraph((Task("t", {"a": 2.0, "b": 2.0}, weight_bytes=10),), ())
    plan = solve(graph, machines("ab", memory=10.0), batch=4, share=True)
    assert plan.objective == pytest.approx(4)
    tight = machines("ab", memory=9.0)
    assert {fault.kind for fault in check_plan(graph, tight, plan)} == {"memory"}


def test_the_judge_sees_two_samples_at_one_time_on_a_device() -> None:
    graph = TaskGraph((Task("t", {"a": 2.0, "b": 3.0}),), ())
    plan = solve(graph, machines("ab"), batch=5, share=True)
    rows = [replace(r.assignments[0], start=0.0, finish=2.0, device="a") for r in plan.replicas]
    moved = tuple(Replica(1.0, (row,)) for row in rows)
    wrong: Plan = replace(plan, replicas=moved, objective=2.0, lower_bound=0.0, status="FEASIBLE")
    assert "overlap" in {fault.kind for fault in check_plan(graph, machines("ab"), wrong)}
    short = replace(plan, replicas=plan.replicas[:-1])
    assert "replica" in {fault.kind for fault in check_plan(graph, machines("ab"), short)}


def test_what_shares_cannot_keep_is_refused() -> None:
    graph = TaskGraph((Task("t", {"a": 2.0, "b": 3.0}),), ())
    with pytest.raises(InputError, match="convex"):
        solve(graph, machines("ab"), batch=4, share=True, contiguous=True)


def test_shares_by_dispatching_keep_the_rules_of_all_plans() -> None:
    """Large enough for the relaxation's start, by eight shares, then by sixteen: better than one
    placement for all, by the verifier a plan, and no better than the work shared out evenly over
    its fastest devices."""
    rng = np.random.default_rng(5)
    layers = 16
    tasks = tuple(
        Task(f"t{k}", {d: float(rng.integers(2, 9)) for d in "abc"}, weight_bytes=1.0)
        for k in range(layers)
    )
    edges = tuple(Edge(f"t{k}", f"t{k + 1}", float(rng.integers(1, 4))) for k in range(layers - 1))
    graph = TaskGraph(tasks, edges)
    links = tuple(Link(pair, 2.0, duplex="full") for pair in itertools.combinations("abc", 2))
    platform = Platform(tuple(Device(d, d, memory_bytes=40.0) for d in "abc"), links)
    plan = solve(graph, platform, batch=16, share=True, effort=0.05)
    assert check_plan(graph, platform, plan) == []
    alone = min(sum(t.cost[d] for t in tasks) for d in "abc")
    assert (plan.objective or 0.0) < 16 * alone / 2
    assert (plan.objective or 0.0) >= 16 * sum(min(t.cost.values()) for t in tasks) / 3
    again = solve(graph, platform, batch=16, share=True, effort=0.05)
    assert replace(again, seconds=None) == replace(plan, seconds=None)


def equal_devices(names: str) -> Platform:
    links = tuple(Link(pair, 1.0) for pair in itertools.combinations(names, 2))
    return Platform(tuple(Device(d, "k") for d in names), links)


def test_the_bound_knows_that_shares_use_more_devices_than_there_are_layers() -> None:
    """One layer on four equal devices: each takes a sample of four."""
    graph, platform = TaskGraph((Task("t", {"k": 10.0}),), ()), equal_devices("abcd")
    assert bound(graph, platform, {}, 4)[0] <= 10
    plan = solve(graph, platform, batch=4, share=True)
    assert (plan.objective, plan.lower_bound) == (10.0, 10.0)
    # Two rows of two layers, 6 ms each: 24 ms a batch of four on two devices would be no bound.
    two = TaskGraph((Task("s", {"k": 6.0}), Task("t", {"k": 6.0})), ())
    assert bound(two, equal_devices("abcdefgh"), {}, 4)[0] <= 6


def test_the_bound_of_replicas_knows_it_too() -> None:
    graph = TaskGraph((Task("t", {"k": 10.0}),), ())
    plan = solve(graph, equal_devices("abcd"), objective="throughput", replicas=4)
    assert plan.objective == 2.5
    assert load(graph, equal_devices("abcd"), {}, 4) == Fraction(5, 2)
    plan = solve(graph, equal_devices("abcd"), batch=8, replicas=4)
    assert plan.objective == 20.0
    assert plan.lower_bound == pytest.approx(20.0)


def test_the_bound_knows_that_small_shares_go_another_way() -> None:
    """Four bytes a sample: 6 ms by the one link, 4.8 by three hops that take 1.6 each; eight
    samples at once 34 ms, or 38.4. Shares of one sample leave the link of the whole batch empty."""
    links = (Link(("a", "b"), 1.0, 2.0, "half"), *(
        Link(pair, 2.5, 0.0, "half") for pair in (("a", "c"), ("c", "d"), ("d", "b"))
    ))  # fmt: skip
    platform = Platform(tuple(Device(d, f"k{d}") for d in "abcd"), links)
    graph = TaskGraph(
        tuple(
            t for i in range(4) for t in (Task(f"s{i}", {"ka": 0.0}), Task(f"t{i}", {"kb": 0.0}))
        ),
        tuple(Edge(f"s{i}", f"t{i}", 4.0) for i in range(4)),
    )
    plan = solve(graph, platform, batch=8, share=True)
    assert check_plan(graph, platform, plan) == []
    assert plan.objective is not None
    assert plan.objective <= 4.8 + 31 * 1.6 + 1e-9
    assert bound(graph, platform, {}, 8)[0] <= plan.objective


@pytest.mark.parametrize("seed", range(6))
def test_no_plan_is_below_the_bound(seed: int) -> None:
    """Random relays, equal devices among others; the bound as it is, before it meets the plan."""
    rng = np.random.default_rng(seed)
    devices = tuple(Device(d, kind) for d, kind in zip("abcde", "kkkll", strict=True))
    links = tuple(
        Link(pair, float(rng.integers(1, 6)), float(rng.integers(0, 6)), "half")
        for pair in itertools.combinations("abcde", 2) if rng.random() < 0.7
    )  # fmt: skip
    tasks = tuple(
        Task(f"t{i}", {"k": float(rng.integers(1, 9)), "l": float(rng.integers(1, 9))})
        for i in range(3)
    )
    edges = (Edge("t0", "t1", float(rng.integers(1, 9))), Edge("t1", "t2", 3.0))
    graph, platform = TaskGraph(tasks, edges), Platform(devices, links)
    for batch in (2, 4):
        plan = solve(graph, platform, batch=batch, share=True, effort=0.05)
        assert check_plan(graph, platform, plan) == []
        assert plan.objective is not None
        assert (
            0
            < bound(graph, platform, {}, batch)[0]
            <= Fraction(plan.objective) * (1 + Fraction(1, 10**9))
        )
