"""Which devices may run a task, and what is plainly impossible, told with whoever is at fault.

Takes: a TaskGraph, a Platform, costs as a matrix.  Leaves: inf in it where pins, colocation or
memory forbid a device.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import Platform, TaskGraph
from csp_embed.partition.arrays.decimals import number

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
LEAST, MOST = 1e-100, 1e100  # positive times, sizes and rates that sums and quotients can bear


def bearable(graph: TaskGraph, platform: Platform) -> None:
    """Refuses numbers whose sums or quotients would leave the range of floats."""
    rows: list[tuple[str, float]] = []
    for t in graph.tasks:
        times = [
            *t.cost.values(),
            *(x for table in t.cost_by_batch.values() for x in table.values()),
        ]
        sizes = (t.weight_bytes, t.activation_bytes, t.transfer_ms)
        rows += [(f"task {t.id}", x) for x in (*times, *sizes)]
    rows += [(f"edge {e.src} -> {e.dst}", e.bytes) for e in graph.edges]
    rows += [(f"memory of {d.name}", d.memory_bytes or 0) for d in platform.devices]
    rows += [(f"link {k.name}", x) for k in platform.links for x in (k.bytes_per_ms, k.latency_ms)]
    rows += [
        (f"handling of link {k.name}", x)
        for k in platform.links
        for end in k.handling or ()
        for x in (end.ms, end.bytes_per_ms or 0)
    ]
    rows += [(f"bus {b.name}", b.bytes_per_ms or 0) for b in platform.buses]
    # 0 is a time like any other (a task that only forwards); only what is tiny but not 0 is
    # refused.
    for where, x in rows:
        if x and not LEAST <= x <= MOST:
            raise InputError(
                f"{where}: {x:g} is too {'large' if x > 1 else 'small'} to be added up",
                where=where,
                why="times (ms), sizes (bytes) and rates are 0, or lie between"
                f" {LEAST:g} and {MOST:g}",
                hint="state all of them in a larger or a smaller unit",
            )


def costs_of(graph: TaskGraph, ids: list[str], platform: Platform) -> Floats:
    """ms of each task on each device, inf where it has no cost. Raises: Infeasible."""
    by_id, names = graph.by_id(), [d.name for d in platform.devices]
    # inf is "forbidden" all through the package: it never wins a minimum and `isfinite` finds it.
    n, m = len(ids), len(names)
    cost = np.full((n, m), np.inf)
    kinds = {d.kind for d in platform.devices}
    for i, t in enumerate(ids):
        for j, device in enumerate(platform.devices):
            c = by_id[t].cost_on(device)
            if c is not None:
                cost[i, j] = c
        if not np.isfinite(cost[i]).any():
            raise Infeasible(
                f"no device of the platform can run task {t!r}",
                where=f"task {t}",
                why=f"costs on {', '.join(by_id[t].cost)}; devices {', '.join(names)}"
                f" (kinds {', '.join(sorted(kinds))})",
                hint="give a cost for one of these devices or kinds",
            )
    return cost


def keep_pins(
    graph: TaskGraph,
    names: list[str],
    index: dict[str, int],
    group: Ints,
    cost: Floats,
    fix: Mapping[str, str],
) -> None:
    """Removes devices that pins, --fix or colocation exclude."""
    # A pin stands in the graph, `fix` is of this run; both are kept, so two that differ are
    # refused.
    pins = {t.id: t.pin for t in graph.tasks if t.pin is not None}
    for task in fix:
        if task not in index:
            raise InputError(f"--fix: no task {task!r}", where="--fix", hint="see the task ids")
    for task, device in (*pins.items(), *fix.items()):
        if device not in names:
            raise InputError(
                f"task {task!r} is pinned to {device!r}, which the platform does not have",
                where=f"task {task}",
                hint=f"devices: {', '.join(names)}",
            )
        i, j = index[task], names.index(device)
        if not np.isfinite(cost[i, j]):
            raise Infeasible(
                f"task {task!r} is pinned to {device}, which cannot run it",
                where=f"pin of task {task}",
                why="no cost there, or another pin says otherwise",
                hint="remove the pin or give a cost",
            )
        # What an earlier pin left out stays out: a second pin of the task then finds inf above.
        cost[i, np.arange(len(names)) != j] = np.inf
    can = np.ones((int(group.max(initial=-1)) + 1, len(names)), bool)
    # `at`, not indexing: several tasks of a group must all be counted.
    np.logical_and.at(can, group, np.isfinite(cost))
    for task, i in index.items():
        if not can[group[i]].any():
            raise Infeasible(
                f"the tasks colocated with {task!r} have no device in common",
                where=f"colocation or pin of task {task}",
                why="their costs and pins leave no device that can run all of them",
                hint="remove a pin or the colocation label",
            )
    # Colocated tasks lose the same devices, so that one task's allowed devices are the group's.
    cost[~can[group]] = np.inf


def keep_memory(
    ids: list[str], names: list[str], group: Ints, cost: Floats, weight: Floats, memory: Floats
) -> None:
    """Removes devices that are too small for a group; refuses what cannot fit anywhere."""
    # Summed as decimals: three weights of 0.1 fit a memory of 0.3, which floats would refuse.
    exact = [Fraction(0)] * (int(group.max(initial=-1)) + 1)
    for g, w in zip(group, weight, strict=True):
        exact[g] += number(w)
    total = np.array([float(x) for x in exact])
    cost[total[group][:, None] > memory[None, :]] = np.inf
    for i, t in enumerate(ids):
        if not np.isfinite(cost[i]).any():
            raise Infeasible(
                f"no device that may run task {t!r} has memory for it",
                where=f"memory: task {t} and those colocated with it",
                why=f"{total[group[i]]:.9g} bytes of weights; memory: "
                + ", ".join(f"{d} {b:.9g}" for d, b in zip(names, memory, strict=True)),
                hint="split the layer or use a larger device",
            )
    # Memory of a device that nothing may use is no room.
    usable = np.isfinite(cost).any(axis=0)
    # A float sum may lose a little; what it cannot tell is left to the searches.
    if weight.sum() > memory[usable].sum() * (1 + 1e-9):
        raise Infeasible(
            "the weights do not fit into all devices together",
            where="memory",
            why=f"{weight.sum():.9g} bytes of weights, {memory[usable].sum():.9g} bytes of memory",
            hint="use more or larger devices",
        )
