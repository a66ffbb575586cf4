"""Plans as text: which layer runs where, at what cost, and why; one layer explained."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from csp_embed.errors import InputError
from csp_embed.ir.network import (
    LATENCY,
    Assignment,
    Device,
    Edge,
    Plan,
    Platform,
    Task,
    TaskGraph,
)
from csp_embed.report.text_table import table


@dataclass(frozen=True)
class Row:
    """One layer of a plan. times in ms; start and finish None for throughput. bytes_in: what comes
    from other devices. reason: a few words. replica: "" in a plan without replicas."""

    task: str
    op: str
    device: str
    cost: float
    origin: str
    start: float | None
    finish: float | None
    bytes_in: float
    reason: str
    replica: str = ""


def plan_rows(plan: Plan, graph: TaskGraph, platform: Platform) -> list[Row]:
    """A row per assignment, in the plan's order (replicas one after the other)."""
    rows: list[Row] = []
    copies = _copies(plan)
    # Each copy has devices of its own.
    used = [{a.device for a in assignments} for assignments in copies]
    for at, assignments in enumerate(copies):
        # The devices that other replicas have to themselves were no choice here.
        others = set[str]().union(*used[:at], *used[at + 1 :]) - used[at]
        view = _View(graph, platform, others)
        device_of = {a.task: a.device for a in assignments}
        name = str(at) if len(copies) > 1 else ""
        # For the latency a replica's share is its number of samples.
        share = round(plan.replicas[at].share) if plan.replicas and plan.goal == LATENCY else 1
        rows += [
            replace(_row(a, device_of, view, share), replica=name) for a in _in_order(assignments)
        ]
    return rows


class _View:
    """Graph and platform by name, made once for many rows."""

    def __init__(self, graph: TaskGraph, platform: Platform, left_out: set[str]) -> None:
        self.tasks = graph.by_id()
        self.devices = {n: d for n, d in platform.by_name().items() if n not in left_out}
        self.into: dict[str, list[Edge]] = {}
        # Both directions: reasons look at what a layer reads and who reads it.
        self.out_of: dict[str, list[Edge]] = {}
        for edge in graph.edges:
            self.into.setdefault(edge.dst, []).append(edge)
            self.out_of.setdefault(edge.src, []).append(edge)
        self.sharing = Counter(t.colocate for t in graph.tasks if t.colocate is not None)


def _copies(plan: Plan) -> list[Sequence[Assignment]]:
    return [r.assignments for r in plan.replicas] if plan.replicas else [plan.assignments]


def _in_order(rows: Sequence[Assignment]) -> list[Assignment]:
    # Without times the plan's own order stays: sorting is stable.
    return sorted(rows, key=lambda a: a.start if a.start is not None else 0.0)


def _row(a: Assignment, device_of: Mapping[str, str], view: _View, share: int = 1) -> Row:
    task = view.tasks[a.task]
    device = view.devices[a.device]
    # By source and tensor: a value that several edges carry comes once.
    crossing = {
        (e.src, e.tensor or f"->{e.dst}"): e.bytes
        for e in view.into.get(a.task, ())
        if device_of.get(e.src) not in (None, a.device)
    }
    return Row(
        task=a.task,
        op=task.op,
        device=a.device,
        # A batch has its own figure where the graph states one.
        cost=(task.batch_cost_on(device, share)[0] if share > 1 else task.cost_on(device)) or 0.0,
        origin=origin_of(task, device),
        start=a.start,
        finish=a.finish,
        # A replica moves its share of the batch.
        bytes_in=float(sum(crossing.values()) * share),
        reason=_reason(task, device, device_of, view),
    )


def origin_of(task: Task, device: Device) -> str:
    """Where the cost of a task on a device comes from; "given" for graph files that do not say."""
    # By name before kind: the more special statement.
    return task.origin.get(device.name, task.origin.get(device.kind, "given"))


def _reason(task: Task, device: Device, device_of: Mapping[str, str], view: _View) -> str:
    """Why a task may stand where it does: the first of these that holds."""
    # Among the devices that this copy could have used.
    costs = {d.name: c for d in view.devices.values() if (c := task.cost_on(d)) is not None}
    if task.pin is not None:
        return "pinned"
    if len(costs) == 1:
        return "no other device can run it"
    fastest = min(costs.values())
    here = costs.get(device.name, fastest)
    # Floats of equal costs may differ in their last digits.
    if here <= fastest * (1 + 1e-9):
        return "fastest device"
    near = [e.src for e in view.into.get(task.id, ()) if device_of.get(e.src) == device.name]
    near += [e.dst for e in view.out_of.get(task.id, ()) if device_of.get(e.dst) == device.name]
    slower = f"+{here - fastest:.4g} ms"
    # Colocated with others, so the sum over all of them decided.
    if task.colocate is not None and view.sharing[task.colocate] > 1:
        return f"colocated ({task.colocate}), {slower}"
    if near:
        return f"beside {near[0]}, saves transfers, {slower}"
    # Slower and alone: the search gave it here to even out loads.
    return f"balances load, {slower}"


def table_text(rows: Sequence[Row], limit: int | None = None, width: int | None = None) -> str:
    """An aligned text table; with `limit` the middle is left out and counted. width: of the
    terminal."""
    head = (
        "layer", "kind", "replica", "device", "ms", "start", "finish", "bytes in", "cost from",
        "why",
    )  # fmt: skip
    body = [
        (
            r.task,
            r.op,
            r.replica,
            r.device,
            f"{r.cost:.4g}",
            "" if r.start is None else f"{r.start:.4g}",
            "" if r.finish is None else f"{r.finish:.4g}",
            f"{r.bytes_in:.0f}" if r.bytes_in else "",
            r.origin,
            r.reason,
        )
        for r in rows
    ]
    left_out = 0
    if limit is not None and len(body) > limit:
        # The ends of a plan are told, the middle counted.
        half = limit // 2
        left_out = len(body) - 2 * half
        body = [*body[:half], *body[len(body) - half :]]
    # Columns without any entry are left out; the name always stays.
    used = [i for i in range(len(head)) if i == 0 or any(row[i] for row in body)]
    shown = [[row[i] for i in used] for row in body]
    if left_out:
        note = f"… {left_out} more layers (all are in the plan file) …"
        return table([head[i] for i in used], shown, width, gap=(len(body) // 2, note))
    return table([head[i] for i in used], shown, width)


def summary_text(plan: Plan, platform: Platform) -> str:
    """Objective, bound, gap, and what each device carries."""
    if plan.objective is None:
        return f"{plan.status}: no plan"
    what = "latency" if plan.goal == LATENCY else "period"
    gap = f"{100 * plan.gap:.2f} %" if plan.gap is not None else "unknown"
    lines = [
        f"{plan.status}: {what} {plan.objective:.6g} ms, lower bound {plan.lower_bound:.6g} ms"
        f" ({plan.bound or 'none'}), gap {gap}",
        f"method {plan.method}, seed {plan.seed}, "
        + ("deterministic" if plan.deterministic else "not reproducible (wall-clock mode)"),
    ]
    # A set: a layer of several replicas on one device is one layer.
    layers: dict[str, set[str]] = {}  # a layer of several replicas is one
    for rows in _copies(plan):
        for a in rows:
            layers.setdefault(a.device, set()).add(a.task)
    loads = all_loads(plan)
    for device in platform.devices:
        load = loads.get(device.name)
        lines.append(
            f"  {device.name}: {len(layers.get(device.name, ()))} layers"
            + ("" if load is None else f", {load:.6g} ms per sample")
        )
    unit = "samples of the batch" if plan.goal == LATENCY else "samples per ms"
    for at, replica in enumerate(plan.replicas):
        names = ", ".join(dict.fromkeys(a.device for a in replica.assignments))
        lines.append(f"  replica {at}: {replica.share:.6g} {unit} on {names}")
    return "\n".join(lines)


def all_loads(plan: Plan) -> Mapping[str, float]:
    """ms per sample by device and link; of replicas the mean by their rates: the period is the
    largest of these."""
    loads: dict[str, float] = dict(plan.loads)
    # Means by rates: a replica with a greater rate counts more.
    rate = sum(replica.share for replica in plan.replicas)
    for replica in plan.replicas:
        for name, ms in replica.loads.items():
            loads[name] = loads.get(name, 0.0) + ms * replica.share / rate
    return loads


def explain_text(
    name: str,
    plan: Plan,
    graph: TaskGraph,
    platform: Platform,
    moved: Callable[[str, str], float | None] | None = None,
    refused: Mapping[str, str] | None = None,
) -> str:
    """One layer: its costs everywhere with their origin, what it waits for, and what moving it
    would do.

    moved: (task, device) -> objective of the plan with that one layer elsewhere, or None where that
    is no plan. refused: why a device cannot run it, where that is known. Raises: InputError for an
    unknown task.
    """
    tasks = graph.by_id()
    if name not in tasks:
        near = [t for t in tasks if name.lower() in t.lower()][:5]
        raise InputError(
            f"--explain: no layer {name!r}",
            hint="perhaps " + ", ".join(near) if near else "layer names are in the table",
        )
    task, device_of = tasks[name], plan.device_of()
    here = device_of.get(name)
    if here is None:
        # A plan for another graph may lack it.
        return f"{name} is not in the plan"
    device = platform.by_name()[here]
    copies = _copies(plan)
    which = f" in the first of {len(copies)} replicas" if len(copies) > 1 else ""
    lines = [f"{name} ({task.op or 'task'}) runs on {here}{which}"]
    # Devices of other copies were no choice here.
    view = _View(graph, platform, {a.device for rows in copies[1:] for a in rows})
    lines.append(f"  why: {_reason(task, device, device_of, view)}")
    if task.nodes:
        lines.append(f"  covers: {', '.join(task.nodes)}")
    lines.append(f"  memory: {task.weight_bytes:.0f} bytes of weights, "
                 f"{task.activation_bytes:.0f} of activations")  # fmt: skip
    for a in plan.assignments:
        if a.task == name and a.start is not None:
            lines.append(f"  runs from {a.start:.6g} to {a.finish:.6g} ms")
    # Values that this layer reads, whoever else reads them.
    feeds = {(s, t) for s, t, _, consumers in graph.values() if name in consumers}
    for t in plan.transfers:
        ends = f"{t.from_device} -> {t.to_device} over {t.link}, {t.bytes:.0f} bytes"
        time = "" if t.start is None else f", {t.start:.6g} to {t.finish:.6g} ms"
        if t.src_task == name:
            lines.append(f"  sends {t.tensor}: {ends}{time}")
        elif t.to_device == here and (t.src_task, t.tensor) in feeds:
            # Only what comes here for it.
            lines.append(f"  waits for {t.tensor}: {ends}{time}")
    # Times of a moved layer come from one list schedule; so must what they are compared with.
    base = None if moved is None else moved(name, here)
    lines.append("  on each device:")
    for d in platform.devices:
        cost = task.cost_on(d)
        if cost is None:
            why = (refused or {}).get(d.name)
            lines.append(f"    {d.name}: cannot run it" + (f", {why}" if why else ""))
            continue
        text = f"    {d.name}: {cost:.6g} ms ({origin_of(task, d)})"
        if d.name == here:
            text += "  <- here"
        elif moved is not None:
            # Alone: other layers stay where they are.
            value = moved(name, d.name)
            text += (
                "; moved there alone: no valid plan"
                if value is None
                else f"; moved there alone: {value:.6g} ms"
                + ("" if base is None else f" ({value - base:+.4g})")
            )
        lines.append(text)
    return "\n".join(lines)
