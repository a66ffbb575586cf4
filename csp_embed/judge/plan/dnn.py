"""The verifier's rules for the dnn-partitioning cost model; shares no code with the solvers.

Yields (kind, where, text) for every fault of a plan.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from fractions import Fraction

from csp_embed.ir.network import LATENCY, Plan, Platform, TaskGraph
from csp_embed.judge.plan.rules import convexity, cycle_among, exact, same_time, sooner

Fault = tuple[str, str, str]
PROVED = Fraction(1, 2**46)  # relative: what doubles lose where a proof is written down


def check_dnn(graph: TaskGraph, platform: Platform, plan: Plan) -> Iterator[Fault]:
    """Placement, colours, memory, convexity, loads or times, objective, bound."""
    if plan.objective is None:
        yield "objective", "plan", f"there is no plan to check: {plan.status}"
        return
    tasks, devices = graph.by_id(), platform.by_name()
    device: dict[str, str] = {}
    # Unknown and double rows are left out of `device`, so later rules see every task at most once.
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
        # The first task of a colour decides where the others belong.
        if task.colocate is not None and colours.setdefault(task.colocate, where) != where:
            yield "colocation", task.id, f"{where}, others of {task.colocate} elsewhere"
    # Weights only: this model has no activations.
    used: dict[str, Fraction] = defaultdict(Fraction)
    for t, d in device.items():
        used[d] += exact(tasks[t].weight_bytes)
    for d, size in used.items():
        limit = devices[d].memory_bytes
        if limit is not None and size > exact(limit):
            yield "memory", d, f"{float(size):.12g} bytes, has {limit:.12g}"
    yield from _shape(graph, platform, plan, device)
    load = _loads(graph, platform, device)
    if plan.goal == LATENCY:
        yield from _times(graph, platform, plan, device, load)
        # Stated times must add up to the objective; that they are possible is judged in `_times`.
        ends = [exact(row.finish or 0.0) for row in plan.assignments]
        found = max(ends, default=Fraction(0))
        least = _recount(graph, platform, device, load)
    else:
        for d in sorted({*load, *plan.loads}):
            said, is_ = plan.loads.get(d, 0.0), load.get(d, Fraction(0))
            if not same_time(exact(said), is_):
                yield "load", d, f"says {said:.9g}, is {float(is_):.9g}"
        found = least = max(load.values(), default=Fraction(0))
    value, low = exact(plan.objective), exact(plan.lower_bound)
    # Two questions: do the lines add up to what is said, and could these decisions be faster than
    # said? The second would make an OPTIMAL claim false.
    if least is None or not same_time(found, value) or sooner(value, least):
        yield (
            "objective",
            "plan",
            f"says {plan.objective:.9g} ms, is {float(least or found):.9g} ms",
        )
    elif plan.status == "OPTIMAL" and abs(value - least) > PROVED * least:
        yield (
            "objective",
            "plan",
            # repr: a claim of optimality is about the solver's doubles, down to the last digit.
            f"OPTIMAL at {plan.objective!r}, these decisions {float(least)!r}",
        )
    if low > value * (1 + PROVED):
        yield "bound", "plan", f"{plan.lower_bound} above the objective {plan.objective}"
    if plan.status == "OPTIMAL" and value - low > value * PROVED:
        yield "bound", "plan", "OPTIMAL, but bound and objective differ"
    most, rate = plan.max_latency, plan.min_throughput
    if plan.goal == LATENCY and most is not None and sooner(exact(most), found):
        yield "limit", "plan", f"latency {float(found)}, limit {most}"
    if plan.goal != LATENCY and rate and sooner(Fraction(1), found * exact(rate)):
        yield "limit", "plan", f"period {float(found)}, wanted {rate} samples per ms"


# Not the solvers' recurrence: pieces are collapsed first and then walked as a graph of pieces.
def _recount(
    graph: TaskGraph, platform: Platform, device: dict[str, str], load: dict[str, Fraction]
) -> Fraction | None:
    """Makespan of a placement: each accelerator's subgraph in one piece, CPU tasks one by one, all
    as soon as what they read is there; None where pieces wait for each other."""
    tasks, devices = graph.by_id(), platform.by_name()
    piece = {t: t if devices[d].kind == "cpu" else f"/{d}" for t, d in device.items()}
    takes = {
        x: load[x[1:]] if x.startswith("/") else exact(tasks[t].cost_on(devices[device[t]]) or 0.0)
        for t, x in piece.items()
    }
    before: dict[str, set[str]] = {x: set() for x in takes}
    for edge in graph.edges:
        if edge.src in piece and edge.dst in piece and piece[edge.src] != piece[edge.dst]:
            before[piece[edge.dst]].add(piece[edge.src])
    end: dict[str, Fraction] = {}
    while len(end) < len(takes):
        ready = [x for x in takes if x not in end and before[x] <= end.keys()]
        # Pieces that wait for each other: no order runs them, so the placement has no makespan.
        if not ready:
            return None
        for x in ready:
            end[x] = max((end[y] for y in before[x]), default=Fraction(0)) + takes[x]
    return max(end.values(), default=Fraction(0))


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


def _loads(graph: TaskGraph, platform: Platform, device: dict[str, str]) -> dict[str, Fraction]:
    """Compute plus, on accelerators, one toll out per task that is read elsewhere and one in per
    task elsewhere that is read here."""
    devices, tasks = platform.by_name(), graph.by_id()
    load: dict[str, Fraction] = defaultdict(Fraction)
    readers: dict[str, set[str]] = defaultdict(set)
    for edge in graph.edges:
        if edge.dst in device:
            readers[edge.src].add(device[edge.dst])
    for t, d in device.items():
        load[d] += exact(tasks[t].cost_on(devices[d]) or 0.0)
        away = readers[t] - {d}
        # The producer pays for sending once however many read, and every reading device pays once;
        # so tolls are per pair of task and device, not per edge.
        for place in [*sorted(away), *([d] if away else [])]:
            if devices[place].kind != "cpu":
                load[place] += exact(tasks[t].transfer_ms)
    return dict(load)


def _times(
    graph: TaskGraph,
    platform: Platform,
    plan: Plan,
    device: dict[str, str],
    load: dict[str, Fraction],
) -> Iterator[Fault]:
    """One subgraph per accelerator, after its inputs and long enough; CPU tasks after theirs."""
    devices, tasks = platform.by_name(), graph.by_id()
    start: dict[str, Fraction] = {}
    finish: dict[str, Fraction] = {}
    for row in plan.assignments:
        if row.start is None or row.finish is None:
            yield "time", row.task, "no start or finish"
            return
        start[row.task], finish[row.task] = exact(row.start), exact(row.finish)
    spans: dict[str, tuple[Fraction, Fraction]] = {}
    for t, d in device.items():
        if start[t] < 0:
            yield "time", t, f"starts at {float(start[t])}"
        if devices[d].kind == "cpu":
            cost = exact(tasks[t].cost_on(devices[d]) or 0.0)
            if not same_time(finish[t], start[t] + cost):
                runs = float(finish[t] - start[t])
                yield "time", t, f"runs {runs:.9g} ms, costs {float(cost):.9g} ms"
            continue
        span = spans.setdefault(d, (start[t], finish[t]))
        if not (same_time(span[0], start[t]) and same_time(span[1], finish[t])):
            yield "time", t, f"{d} runs one subgraph, all its tasks share start and finish"
    for d, (a, b) in spans.items():
        if sooner(b, a + load[d]):
            yield "time", d, f"runs {float(b - a):.9g} ms, needs {float(load[d]):.9g} ms"
    for edge in graph.edges:
        u, t = edge.src, edge.dst
        if u not in device or t not in device:
            continue
        together = device[u] == device[t] and devices[device[u]].kind != "cpu"
        if not together and sooner(start[t], finish[u]):
            text = f"starts at {float(start[t]):.9g}, {u} ends at {float(finish[u]):.9g}"
            yield "early", t, text
