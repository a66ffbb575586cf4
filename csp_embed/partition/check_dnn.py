"""The verifier's rules for the dnn-partitioning cost model; shares no code with the solvers.

Yields (kind, where, text) for every fault of a plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator

from csp_embed.ir.network import LATENCY, Plan, Platform, TaskGraph
from csp_embed.partition.check_rules import convexity, cycle_among

Fault = tuple[str, str, str]


def check_dnn(graph: TaskGraph, platform: Platform, plan: Plan) -> Iterator[Fault]:
    """Placement, colours, memory, convexity, loads or times, objective, bound."""
    if plan.objective is None:
        yield "objective", "plan", f"there is no plan to check: {plan.status}"
        return
    tasks, devices = graph.by_id(), platform.by_name()
    device: dict[str, str] = {}
    for row in plan.assignments:
        if row.task not in tasks or row.device not in devices:
            yield "unknown", row.task, f"no such task or device: {row.task!r} on {row.device!r}"
        elif row.task in device:
            yield "missing", row.task, "assigned twice"
        else:
            device[row.task] = row.device
    colours: dict[str, str] = {}
    for task in graph.tasks:
        where = device.get(task.id)
        if where is None:
            yield "missing", task.id, "not assigned"
            continue
        if task.cost_on(devices[where]) is None:
            yield "device", task.id, f"{where} cannot run it"
        if task.pin is not None and task.pin != where:
            yield "pin", task.id, f"pinned to {task.pin}, runs on {where}"
        if task.colocate is not None and colours.setdefault(task.colocate, where) != where:
            yield "colocation", task.id, f"{where}, others of {task.colocate} elsewhere"
    tol = 1e-6 + 1e-6 * abs(plan.objective)
    used: dict[str, float] = defaultdict(float)
    for t, d in device.items():
        used[d] += tasks[t].weight_bytes
    for d, size in used.items():
        limit = devices[d].memory_bytes
        if limit is not None and size > limit:
            yield "memory", d, f"{size:.0f} bytes, has {limit:.0f}"
    yield from _shape(graph, platform, plan, device)
    load = _loads(graph, platform, device)
    if plan.goal == LATENCY:
        yield from _times(graph, platform, plan, device, load, tol)
        found = max((row.finish or 0.0 for row in plan.assignments), default=0.0)
    else:
        for d in sorted({*load, *plan.loads}):
            if abs(load.get(d, 0.0) - plan.loads.get(d, 0.0)) > tol:
                yield "load", d, f"says {plan.loads.get(d, 0.0):.6f}, is {load.get(d, 0.0):.6f}"
        found = max(load.values(), default=0.0)
    if abs(found - plan.objective) > tol:
        yield "objective", "plan", f"says {plan.objective:.6f} ms, is {found:.6f} ms"
    if plan.lower_bound > plan.objective + tol:
        yield "bound", "plan", f"{plan.lower_bound} above the objective {plan.objective}"
    if plan.status == "OPTIMAL" and plan.objective - plan.lower_bound > tol:
        yield "bound", "plan", "OPTIMAL, but bound and objective differ"
    if plan.goal == LATENCY and plan.max_latency is not None and found > plan.max_latency + tol:
        yield "limit", "plan", f"latency {found}, limit {plan.max_latency}"
    if plan.goal != LATENCY and plan.min_throughput and found * plan.min_throughput > 1 + 1e-6:
        yield "limit", "plan", f"period {found}, wanted {plan.min_throughput} samples per ms"


def _shape(
    graph: TaskGraph, platform: Platform, plan: Plan, device: dict[str, str]
) -> Iterator[Fault]:
    """Convex sets: for latency those of accelerators, for throughput all, per direction."""
    cpus = {d.name for d in platform.devices if d.kind == "cpu"}
    if plan.goal == LATENCY:
        # Tasks on CPUs are devices of their own here: they need not be convex.
        alone = {t: (f"{d}/{t}" if d in cpus else d) for t, d in device.items()}
        for text in convexity(graph, alone):
            yield "contiguous", "plan", text
        return
    if not (plan.contiguous or plan.pipeline):
        return
    for backward in (False, True):
        part = frozenset(t.id for t in graph.tasks if t.backward == backward)
        for text in convexity(graph, device, part):
            yield "contiguous", "plan", text
        if plan.pipeline:
            edges = tuple(e for e in graph.edges if e.src in part and e.dst in part)
            ring = cycle_among(TaskGraph(graph.tasks, edges), device)
            if ring:
                yield "pipeline", "plan", " -> ".join(ring)


def _loads(graph: TaskGraph, platform: Platform, device: dict[str, str]) -> dict[str, float]:
    """Compute plus, on accelerators, one toll out per task that is read elsewhere and one in per
    task elsewhere that is read here."""
    devices, tasks = platform.by_name(), graph.by_id()
    load: dict[str, float] = defaultdict(float)
    readers: dict[str, set[str]] = defaultdict(set)
    for edge in graph.edges:
        if edge.dst in device:
            readers[edge.src].add(device[edge.dst])
    for t, d in device.items():
        load[d] += tasks[t].cost_on(devices[d]) or 0.0
        away = readers[t] - {d}
        for place in [*sorted(away), *([d] if away else [])]:
            if devices[place].kind != "cpu":
                load[place] += tasks[t].transfer_ms
    return dict(load)


def _times(
    graph: TaskGraph,
    platform: Platform,
    plan: Plan,
    device: dict[str, str],
    load: dict[str, float],
    tol: float,
) -> Iterator[Fault]:
    """One subgraph per accelerator, after its inputs and long enough; CPU tasks after theirs."""
    devices, tasks = platform.by_name(), graph.by_id()
    start: dict[str, float] = {}
    finish: dict[str, float] = {}
    for row in plan.assignments:
        if row.start is None or row.finish is None:
            yield "time", row.task, "no start or finish"
            return
        start[row.task], finish[row.task] = row.start, row.finish
    spans: dict[str, tuple[float, float]] = {}
    for t, d in device.items():
        if start[t] < -tol:
            yield "time", t, f"starts at {start[t]}"
        if devices[d].kind == "cpu":
            cost = tasks[t].cost_on(devices[d]) or 0.0
            if abs(finish[t] - start[t] - cost) > tol:
                yield "time", t, f"runs {finish[t] - start[t]:.6f} ms, costs {cost:.6f} ms"
            continue
        span = spans.setdefault(d, (start[t], finish[t]))
        if max(abs(span[0] - start[t]), abs(span[1] - finish[t])) > tol:
            yield "time", t, f"{d} runs one subgraph, all its tasks share start and finish"
    for d, (a, b) in spans.items():
        if b - a < load[d] - tol:
            yield "time", d, f"runs {b - a:.6f} ms, needs {load[d]:.6f} ms"
    for edge in graph.edges:
        u, t = edge.src, edge.dst
        if u not in device or t not in device:
            continue
        together = device[u] == device[t] and devices[device[u]].kind != "cpu"
        if not together and start[t] < finish[u] - tol:
            yield "early", t, f"starts at {start[t]:.6f}, {u} ends at {finish[u]:.6f}"
