"""Where the tasks of a plan stand: every one once, on a device that may run it.

Takes: graph, devices by name, plan, its rows.  Leaves: the device of each task, and faults of
placement, pins, colocation, shapes (contiguous, pipeline) and weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from fractions import Fraction

from csp_embed.ir.network import Assignment, Device, Plan, TaskGraph
from csp_embed.judge.plan.rules import convexity, cycle_among, exact

Fault = tuple[str, str, str]  # kind, where, text


def placement(
    graph: TaskGraph, devices: Mapping[str, Device], plan: Plan, rows: Sequence[Assignment]
) -> tuple[dict[str, str], list[Fault]]:
    """(device by task, faults)."""
    tasks = graph.by_id()
    faults: list[Fault] = []

    def fault(kind: str, where: str, text: str) -> None:
        faults.append((kind, where, text))

    device: dict[str, str] = {}
    # A row that cannot be read is a fault and is left out, so that what follows sees only rows with
    # a task and a device.
    for row in rows:
        if row.task not in tasks:
            fault("unknown", row.task, f"the graph has no task {row.task!r}")
        elif row.task in device:
            fault("missing", row.task, f"task {row.task!r} is assigned twice")
        elif row.device not in devices:
            fault("unknown", row.device, f"the platform has no device {row.device!r}")
        else:
            device[row.task] = row.device
    labels: dict[str, str] = {}
    for task in tasks.values():
        where = device.get(task.id)
        if where is None:
            fault("missing", task.id, f"task {task.id!r} is not assigned")
            continue
        if task.cost_on(devices[where]) is None:
            fault("device", task.id, f"{where} cannot run task {task.id!r}")
        if task.pin is not None and task.pin != where:
            fault("pin", task.id, f"pinned to {task.pin}, runs on {where}")
        # The first task of a label decides where the others must be.
        if task.colocate is not None and labels.setdefault(task.colocate, where) != where:
            fault(
                "colocation",
                task.id,
                f"{where}, but others of {task.colocate!r} on {labels[task.colocate]}",
            )
    if plan.contiguous or plan.pipeline:
        for text in convexity(graph, device) if plan.contiguous else ():
            fault("contiguous", "plan", text)
        # Over devices, not tasks: in a ring of devices a sample would come back to where it was.
        ring = cycle_among(graph, device) if plan.pipeline else None
        if ring:
            fault("pipeline", "plan", "devices feed each other: " + " -> ".join(ring))
    # Exact: a plan that fits to the byte must not be refused for a sum's rounding.
    weights: dict[str, Fraction] = defaultdict(Fraction)
    for t, d in device.items():
        weights[d] += exact(tasks[t].weight_bytes)
    for d, used in weights.items():
        limit = devices[d].memory_bytes
        if limit is not None and used > exact(limit):
            text = f"{float(used):.12g} bytes of weights, {limit:.12g} bytes of memory"
            fault("memory", d, text)
    return device, faults
