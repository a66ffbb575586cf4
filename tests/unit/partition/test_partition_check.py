"""The verifier refuses every kind of broken plan; plans are written by hand, not by a solver."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csp_embed.ir.network import (
    Assignment,
    Bus,
    Device,
    Edge,
    Link,
    Plan,
    Platform,
    Task,
    TaskGraph,
    Transfer,
)
from csp_embed.judge.plan.judge import check_plan

GRAPH = TaskGraph(
    (
        Task("a", {"cpu": 2.0}, weight_bytes=10, activation_bytes=5),
        Task("b", {"cpu": 3.0, "gpu": 1.0}, weight_bytes=10, activation_bytes=5),
        Task("c", {"cpu": 4.0, "gpu": 2.0}, weight_bytes=10, activation_bytes=5),
    ),
    (Edge("a", "b", 4, "x"), Edge("a", "c", 4, "x"), Edge("b", "c", 2, "y")),
)
PLATFORM = Platform(
    (Device("cpu", "cpu", 100), Device("gpu", "gpu", 100)),
    (Link(("cpu", "gpu"), 2.0, 1.0, duplex="half"),),
)
# a: cpu 0-2; x over the link 2-5 (1 + 4/2); b: gpu 5-6; c: gpu 6-8
GOOD = Plan(
    "latency", 8.0, 8.0, 0.0, "OPTIMAL", "hand",
    assignments=(
        Assignment("a", "cpu", 0.0, 2.0),
        Assignment("b", "gpu", 5.0, 6.0),
        Assignment("c", "gpu", 6.0, 8.0),
    ),
    transfers=(Transfer("a", "x", "cpu", "gpu", "cpu-gpu", 4, 2.0, 5.0),),
)  # fmt: skip


def kinds(plan: Plan, graph: TaskGraph = GRAPH, platform: Platform = PLATFORM) -> set[str]:
    """Kinds of all faults."""
    return {fault.kind for fault in check_plan(graph, platform, plan)}


def rows(*changes: tuple[int, dict[str, object]]) -> tuple[Assignment, ...]:
    """GOOD's rows with some fields replaced."""
    found = list(GOOD.assignments)
    for index, fields in changes:
        found[index] = replace(found[index], **fields)
    return tuple(found)


def test_a_right_plan_is_accepted() -> None:
    assert check_plan(GRAPH, PLATFORM, GOOD) == []


@pytest.mark.parametrize(
    ("kind", "plan"),
    [
        ("missing", replace(GOOD, assignments=GOOD.assignments[:2])),
        ("missing", replace(GOOD, assignments=(*GOOD.assignments, GOOD.assignments[0]))),
        ("unknown", replace(GOOD, assignments=(*GOOD.assignments, Assignment("z", "cpu", 0, 1)))),
        ("device", replace(GOOD, assignments=rows((0, {"device": "gpu"})))),
        ("time", replace(GOOD, assignments=rows((2, {"finish": 7.5})), objective=7.5)),
        ("time", replace(GOOD, assignments=rows((2, {"start": None})))),
        ("overlap", replace(GOOD, assignments=rows((2, {"start": 5.5, "finish": 7.5})))),
        ("early", replace(GOOD, assignments=rows((1, {"start": 4.5, "finish": 5.5})))),
        ("transfer", replace(GOOD, transfers=())),
        ("transfer", replace(GOOD, transfers=(replace(GOOD.transfers[0], finish=4.0),))),
        ("transfer", replace(GOOD, transfers=(replace(GOOD.transfers[0], bytes=2),))),
        ("early", replace(GOOD, transfers=(replace(GOOD.transfers[0], start=1.0, finish=4.0),))),
        ("objective", replace(GOOD, objective=7.0, lower_bound=7.0)),
        ("bound", replace(GOOD, lower_bound=9.0)),
        ("bound", replace(GOOD, lower_bound=5.0)),
        ("limit", replace(GOOD, max_latency=7.0)),
        ("objective", replace(GOOD, objective=None)),
    ],
)
def test_each_fault_is_found(kind: str, plan: Plan) -> None:
    assert kind in kinds(plan)


def test_pins_and_colocation() -> None:
    tasks = list(GRAPH.tasks)
    tasks[1] = replace(tasks[1], pin="cpu")
    assert "pin" in kinds(GOOD, replace(GRAPH, tasks=tuple(tasks)))
    tasks = [replace(t, colocate="g") for t in GRAPH.tasks]
    assert "colocation" in kinds(GOOD, replace(GRAPH, tasks=tuple(tasks)))


def test_peak_memory_counts_weights_and_live_activations() -> None:
    # gpu: weights 20, activations of b (5-8) and c (6-8): 10 at the peak.
    small = (PLATFORM.devices[0], replace(PLATFORM.devices[1], memory_bytes=30))
    assert check_plan(GRAPH, replace(PLATFORM, devices=small), GOOD) == []
    small = (PLATFORM.devices[0], replace(PLATFORM.devices[1], memory_bytes=29))
    assert "memory" in kinds(GOOD, platform=replace(PLATFORM, devices=small))


# Two values from one device to another at the same time, and one in the other direction.
PAIR = TaskGraph(
    tuple(Task(t, {d: 1}) for t, d in zip("abcde", "pqqpq", strict=True)),
    (Edge("a", "b", 4, "x"), Edge("a", "c", 4, "y"), Edge("e", "d", 4, "z")),
)


def busy(link: Link, buses: tuple[Bus, ...] = ()) -> set[str]:
    """Faults where x, y and z all travel from 1 to 5 ms."""
    hops = [("a", "x", "p", "q"), ("a", "y", "p", "q"), ("e", "z", "q", "p")]
    plan = Plan(
        "latency", 7.0, 7.0, 0.0, "OPTIMAL", "hand",
        assignments=(
            Assignment("a", "p", 0, 1), Assignment("e", "q", 0, 1), Assignment("b", "q", 5, 6),
            Assignment("c", "q", 6, 7), Assignment("d", "p", 5, 6),
        ),
        transfers=tuple(Transfer(s, t, a, b, "p-q", 4, 1.0, 5.0) for s, t, a, b in hops),
    )  # fmt: skip
    platform = Platform((Device("p", "p"), Device("q", "q")), (link,), buses)
    return {f"{f.kind} {f.where}" for f in check_plan(PAIR, platform, plan)}


def test_contention_by_kind_of_link() -> None:
    assert busy(Link(("p", "q"), 1.0)) == set()
    assert busy(Link(("p", "q"), 1.0, duplex="full")) == {"link p-q:p>q"}
    assert busy(Link(("p", "q"), 1.0, duplex="half")) == {"link p-q"}
    assert busy(Link(("p", "q"), 1.0, shared="bus"), (Bus("bus", 5.0),)) == {"link bus"}
    slow = busy(Link(("p", "q"), 1.0, shared="bus"), (Bus("bus", 0.5),))
    assert any(fault.startswith("transfer") for fault in slow)


def test_store_and_forward() -> None:
    graph = TaskGraph((Task("a", {"p": 1}), Task("b", {"r": 1})), (Edge("a", "b", 2, "x"),))
    platform = Platform(
        tuple(Device(n, n) for n in "pqr"), (Link(("p", "q"), 1.0), Link(("q", "r"), 1.0))
    )
    hops = (
        Transfer("a", "x", "p", "q", "p-q", 2, 1, 3),
        Transfer("a", "x", "q", "r", "q-r", 2, 3, 5),
    )
    plan = Plan(
        "latency", 6.0, 6.0, 0.0, "OPTIMAL", "hand",
        assignments=(Assignment("a", "p", 0, 1), Assignment("b", "r", 5, 6)), transfers=hops,
    )  # fmt: skip
    assert check_plan(graph, platform, plan) == []
    early = replace(plan, transfers=(hops[0], replace(hops[1], start=2, finish=4)))
    assert "early" in kinds(early, graph, platform)


def test_throughput_loads_shape_and_memory() -> None:
    plan = Plan(
        "throughput", 3.0, 0.0, 1.0, "FEASIBLE", "hand",
        assignments=tuple(Assignment(t, d) for t, d in (("a", "cpu"), ("b", "gpu"), ("c", "gpu"))),
        loads={"cpu": 2.0, "gpu": 3.0, "cpu-gpu": 3.0},
        transfers=(Transfer("a", "x", "cpu", "gpu", "cpu-gpu", 4),),
    )  # fmt: skip
    assert check_plan(GRAPH, PLATFORM, plan) == []
    assert "load" in kinds(replace(plan, loads={"cpu": 2.0, "gpu": 3.0}))
    assert "objective" in kinds(replace(plan, objective=2.0))
    assert "transfer" in kinds(replace(plan, transfers=()))
    back = replace(
        plan, contiguous=True, pipeline=True,
        assignments=(plan.assignments[0], plan.assignments[1], Assignment("c", "cpu")),
    )  # fmt: skip
    assert {"contiguous", "pipeline"} <= kinds(back)
    # cpu keeps a's activation for one more input: weights 10 + 2 * 5.
    small = (replace(PLATFORM.devices[0], memory_bytes=19), PLATFORM.devices[1])
    assert "memory" in kinds(plan, platform=replace(PLATFORM, devices=small))
    small = (replace(PLATFORM.devices[0], memory_bytes=20), PLATFORM.devices[1])
    assert check_plan(GRAPH, replace(PLATFORM, devices=small), plan) == []
