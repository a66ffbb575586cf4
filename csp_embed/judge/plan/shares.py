"""A batch whose samples share devices, judged as one graph: every share's layers side by side.

Takes: a graph and a latency plan with replicas.  Leaves: a graph with a copy of every task for
every share, named `share/task`, and the plan of it. A device holds a layer's weights once, whatever
the number of shares that use it there; activations and values count by samples.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from csp_embed.ir.network import Assignment, Edge, Plan, Platform, Task, TaskGraph, Transfer


def joined(graph: TaskGraph, platform: Platform, plan: Plan) -> tuple[TaskGraph, Plan]:
    """(copies of all tasks, the plan without replicas) for `check_plan`. Shares are whole."""
    tasks: list[Task] = []
    edges: list[Edge] = []
    rows: list[Assignment] = []
    hops: list[Transfer] = []
    held: set[tuple[str, str]] = set()
    for i, replica in enumerate(plan.replicas):
        samples = max(1, round(replica.share))
        where = {row.task: row.device for row in replica.assignments}
        for task in graph.tasks:
            here = (task.id, where.get(task.id, ""))
            tasks.append(_copy(task, platform, i, samples, here not in held))
            held.add(here)
        edges += [
            Edge(f"{i}/{e.src}", f"{i}/{e.dst}", _times(e.bytes, samples), e.tensor)
            for e in graph.edges
        ]
        rows += [replace(row, task=f"{i}/{row.task}") for row in replica.assignments]
        # A value of an edge without a tensor is called by both its ends.
        own = {f"{e.src}->{e.dst}": f"{i}/{e.src}->{i}/{e.dst}" for e in graph.edges}
        hops += [
            replace(hop, src_task=f"{i}/{hop.src_task}", tensor=own.get(hop.tensor, hop.tensor))
            for hop in replica.transfers
        ]
    one = replace(plan, replicas=(), batch=1, assignments=tuple(rows), transfers=tuple(hops))
    return TaskGraph(tuple(tasks), tuple(edges)), one


def _copy(task: Task, platform: Platform, share: int, samples: int, first: bool) -> Task:
    """A task for so many samples; first: the first share that runs it on this device."""
    cost: dict[str, float] = {}
    for device in platform.devices:
        ms, linear = task.batch_cost_on(device, samples)
        if ms is not None:
            cost[device.name] = _times(task.cost_on(device) or 0.0, samples) if linear else ms
    return Task(
        f"{share}/{task.id}", cost,
        weight_bytes=task.weight_bytes if first else 0,
        activation_bytes=_times(task.activation_bytes, samples),
        colocate=None if task.colocate is None else f"{share}/{task.colocate}", pin=task.pin,
    )  # fmt: skip


def _times(x: float, count: int) -> float:
    """So many times the decimal that a file states."""
    return float(Fraction(str(x)) * count)
