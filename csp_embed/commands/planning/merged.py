"""A graph in which the tasks of each program are one, and its plan told task by task again.

A program reads all that it needs before it begins and lets go of what it makes at its end, as
`run-plan` runs it; a plan over merged tasks states just that.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, replace

from csp_embed.ir.network import Assignment, Device, Plan, Platform, Task, TaskGraph


@dataclass(frozen=True)
class Merged:
    """Tasks of a device in running order, each with its ms; name: of the one that they are."""

    name: str
    device: str
    ms: Mapping[str, float]


def merged(graph: TaskGraph, groups: Sequence[Merged]) -> TaskGraph:
    """Groups must be convex. Memory of a group is that of all its tasks at a time."""
    group_of = {task: g for g in groups for task in g.ms}
    by_id = graph.by_id()
    tasks: dict[str, Task] = {}
    for task in graph.tasks:
        g = group_of.get(task.id)
        if g is None:
            tasks[task.id] = task
            continue
        own = [by_id[t] for t in g.ms]
        # At the place of its first task, once.
        tasks.setdefault(
            g.name,
            Task(
                g.name,
                {g.device: sum(g.ms.values())},
                weight_bytes=sum(t.weight_bytes for t in own),
                activation_bytes=sum(t.activation_bytes for t in own),
            ),
        )
    name = {t: g.name for t, g in group_of.items()}
    edges = [
        replace(e, src=name.get(e.src, e.src), dst=name.get(e.dst, e.dst))
        for e in graph.edges
        # What stays inside a program is nobody's transfer.
        if name.get(e.src, e.src) != name.get(e.dst, e.dst)
    ]
    return TaskGraph(tuple(tasks.values()), tuple(dict.fromkeys(edges)), graph.name)


def told(plan: Plan, graph: TaskGraph, groups: Sequence[Merged]) -> Plan:
    """The plan over `graph`: each program's tasks follow each other without a pause."""
    by_name = {g.name: g for g in groups}
    maker = {(e.tensor, g.name): e.src for g in groups for e in graph.edges if e.src in g.ms}
    rows: list[Assignment] = []
    for row in plan.assignments:
        g = by_name.get(row.task)
        rows += [row] if g is None else _rows(row, g)
    transfers = tuple(
        replace(t, src_task=maker[t.tensor, t.src_task]) if t.src_task in by_name else t
        for t in plan.transfers
    )
    return replace(plan, assignments=tuple(rows), transfers=transfers)


def _rows(row: Assignment, group: Merged) -> list[Assignment]:
    at, out = row.start, list[Assignment]()
    for task, ms in group.ms.items():
        end = None if at is None else at + ms
        out.append(Assignment(task, group.device, at, end))
        at = end
    return out


def priced(graph: TaskGraph, groups: Sequence[Merged], origin: Mapping[str, str]) -> TaskGraph:
    """The graph with the costs that the groups' tasks have in their programs. origin: by group."""
    group_of = {task: g for g in groups for task in g.ms}
    return replace(
        graph,
        tasks=tuple(
            task
            if (g := group_of.get(task.id)) is None
            else replace(
                task,
                cost={**task.cost, g.device: g.ms[task.id]},
                origin={**task.origin, g.device: origin[g.name]},
            )
            for task in graph.tasks
        ),
    )


def own_costs(
    graph: TaskGraph, platform: Platform, names: Collection[str], device_of: Mapping[str, str]
) -> TaskGraph:
    """The graph as a plan has it: on the devices of these names only the plan's own tasks cost."""
    tasks: list[Task] = []
    for task in graph.tasks:
        on = [d for d in platform.devices if d.name not in names or device_of[task.id] == d.name]
        cost = {d.name: c for d in on if (c := task.cost_on(d)) is not None}
        origin = {d.name: task.origin.get(d.name, task.origin.get(d.kind, "")) for d in on}
        tasks.append(replace(task, cost=cost, origin={n: origin[n] for n in cost}))
    return replace(graph, tasks=tuple(tasks))


def with_cost(
    graph: TaskGraph, platform: Platform, names: Collection[str],
    cost: Callable[[str, Device], float] | None,
) -> TaskGraph:  # fmt: skip
    """The graph with another cost, of task and device, on the devices of these names wherever they
    have one; None: with none there. Costs are told by device, so that those of a kind do not bring
    it back."""
    tasks: list[Task] = []
    for task in graph.tasks:
        table: dict[str, float] = {}
        for device in platform.devices:
            known = task.cost_on(device)
            if known is not None and device.name in names:
                known = None if cost is None else cost(task.id, device)
            if known is not None:
                table[device.name] = known
        tasks.append(replace(task, cost=table))
    return replace(graph, tasks=tuple(tasks))
