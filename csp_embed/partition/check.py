"""The verifier: judges anybody's plan against the graph and the platform alone.

It shares no code with the solvers (no `problem`, `kernels`, …): placement, times, transfers, loads,
memory and objective are derived again from the rules of docs/partition-model.md
(cost models "links", and "dnn-partitioning" in `check_dnn.py`).

Tolerance: times may differ by 1e-6 ms + 1e-6 of the objective.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from csp_embed.ir.network import (
    LATENCY,
    Assignment,
    Link,
    Plan,
    Platform,
    Task,
    TaskGraph,
    Transfer,
)
from csp_embed.partition.check_rules import convexity, cycle_among, live_peak, throughput_memory


@dataclass(frozen=True)
class Problem:
    """One reason to refuse a plan. kind: missing, unknown, device, pin, colocation, time, overlap,
    early, transfer, link, memory, contiguous, pipeline, load, objective, bound, limit, replica."""

    kind: str
    where: str
    text: str


def check_plan(graph: TaskGraph, platform: Platform, plan: Plan) -> list[Problem]:
    """All faults of `plan`; [] = accepted.

    A latency plan that promises a throughput is also judged by its loads, a throughput plan that
    promises a latency also by the times of its assignments.
    Raises: InputError where graph or platform are malformed.
    """
    graph.verify()
    platform.verify()
    if plan.cost_model == "dnn-partitioning":
        from csp_embed.partition.check_dnn import check_dnn

        return [Problem(*fault) for fault in check_dnn(graph, platform, plan)]
    if plan.objective is None:
        return [Problem("objective", "plan", f"there is no plan to check: {plan.status}")]
    judge = Judge(graph, platform, plan)
    if plan.replicas:
        judge.replicas()
    else:
        judge.one(plan.assignments)
        if plan.goal == LATENCY or plan.max_latency is not None:
            judge.latency(plan.assignments, plan.transfers)
        if plan.goal != LATENCY or plan.min_throughput is not None:
            judge.throughput(plan.assignments, plan.transfers)
        judge.objective()
    judge.limits()
    return judge.faults


class Judge:
    """Collects the faults of one plan."""

    def __init__(self, graph: TaskGraph, platform: Platform, plan: Plan) -> None:
        self.graph, self.platform, self.plan = graph, platform, plan
        self.tasks: dict[str, Task] = graph.by_id()
        self.devices = platform.by_name()
        self.links: dict[str, list[Link]] = defaultdict(list)
        for link in platform.links:
            self.links[link.name].append(link)
        self.values = {(s, t): (b, cs) for s, t, b, cs in graph.values()}
        self.faults: list[Problem] = []
        self.tol = 1e-6 + 1e-6 * abs(plan.objective or 0.0)
        self.busy: dict[str, list[tuple[float, float, str]]] = defaultdict(list)
        self.end = 0.0
        self.loads: dict[str, float] = {}

    def fault(self, kind: str, where: str, text: str) -> None:
        """Records one fault."""
        self.faults.append(Problem(kind, where, text))

    # --- placement ---------------------------------------------------------------------------

    def one(self, rows: Sequence[Assignment]) -> dict[str, str]:
        """Every task once, on a device that may run it; pins, shapes. Returns device by task."""
        device: dict[str, str] = {}
        for row in rows:
            if row.task not in self.tasks:
                self.fault("unknown", row.task, f"the graph has no task {row.task!r}")
            elif row.task in device:
                self.fault("missing", row.task, f"task {row.task!r} is assigned twice")
            elif row.device not in self.devices:
                self.fault("unknown", row.device, f"the platform has no device {row.device!r}")
            else:
                device[row.task] = row.device
        labels: dict[str, str] = {}
        for task in self.tasks.values():
            where = device.get(task.id)
            if where is None:
                self.fault("missing", task.id, f"task {task.id!r} is not assigned")
                continue
            if task.cost_on(self.devices[where]) is None:
                self.fault("device", task.id, f"{where} cannot run task {task.id!r}")
            if task.pin is not None and task.pin != where:
                self.fault("pin", task.id, f"pinned to {task.pin}, runs on {where}")
            if task.colocate is not None and labels.setdefault(task.colocate, where) != where:
                self.fault(
                    "colocation",
                    task.id,
                    f"{where}, but others of {task.colocate!r} on {labels[task.colocate]}",
                )
        if self.plan.contiguous or self.plan.pipeline:
            for text in convexity(self.graph, device) if self.plan.contiguous else ():
                self.fault("contiguous", "plan", text)
            ring = cycle_among(self.graph, device) if self.plan.pipeline else None
            if ring:
                self.fault("pipeline", "plan", "devices feed each other: " + " -> ".join(ring))
        weights: dict[str, float] = defaultdict(float)
        for t, d in device.items():
            weights[d] += self.tasks[t].weight_bytes
        for d, used in weights.items():
            limit = self.devices[d].memory_bytes
            if limit is not None and used > limit * (1 + 1e-12):
                self.fault("memory", d, f"{used:.0f} bytes of weights, {limit:.0f} bytes of memory")
        return device

    # --- latency -----------------------------------------------------------------------------

    def latency(
        self, rows: Sequence[Assignment], transfers: Sequence[Transfer], batch: int = 1
    ) -> None:
        """Times, data, queues, peak memory; `end` is the makespan afterwards."""
        start: dict[str, float] = {}
        finish: dict[str, float] = {}
        device: dict[str, str] = {}
        for row in rows:
            task, d = self.tasks.get(row.task), self.devices.get(row.device)
            if task is None or d is None:
                continue
            if row.start is None or row.finish is None:
                self.fault("time", row.task, "no start or finish")
                continue
            cost, _ = task.batch_cost_on(d, batch) if batch > 1 else (task.cost_on(d), False)
            if row.start < -self.tol:
                self.fault("time", row.task, f"starts at {row.start}")
            if cost is not None and abs(row.finish - row.start - cost) > self.tol:
                self.fault(
                    "time", row.task, f"runs {row.finish - row.start:.6f} ms, costs {cost:.6f} ms"
                )
            start[row.task], finish[row.task], device[row.task] = row.start, row.finish, row.device
            self.busy[row.device].append((row.start, row.finish, row.task))
        arrived = self.hops(transfers, device, finish, batch)
        for (src, tensor), (_, consumers) in self.values.items():
            for c in consumers:
                if src not in finish or c not in start:
                    continue
                if device[c] == device[src]:
                    ready: float | None = finish[src]
                else:
                    ready = arrived.get((src, tensor, device[c]))
                if ready is None:
                    self.fault(
                        "transfer", c, f"value {tensor!r} of {src} never reaches {device[c]}"
                    )
                elif start[c] < ready - self.tol:
                    self.fault(
                        "early",
                        c,
                        f"starts at {start[c]:.6f}, {tensor!r} of {src} comes at {ready:.6f}",
                    )
        if not self.plan.replicas:
            self.overlaps()
        self.end = max([self.end, *finish.values()])
        times = {t: (start[t], finish[t]) for t in start}
        for text in live_peak(self.graph, self.platform, device, times, batch, self.tol):
            self.fault("memory", text[0], text[1])

    def hops(
        self,
        transfers: Sequence[Transfer],
        device: dict[str, str],
        finish: dict[str, float],
        batch: int,
    ) -> dict[tuple[str, str, str], float]:
        """When each value reaches each device; checks every hop and fills the links' timelines."""
        have = {
            (s, t, device[s]): finish[s] for (s, t) in self.values if s in device and s in finish
        }
        for hop in sorted(transfers, key=lambda h: (h.start or 0.0, h.finish or 0.0)):
            where = f"{hop.src_task}/{hop.tensor} over {hop.link}"
            known = self.values.get((hop.src_task, hop.tensor))
            link = self.link_of(hop)
            if known is None or link is None or hop.start is None or hop.finish is None:
                self.fault("transfer", where, "unknown value or link, or no times")
                continue
            size = known[0] * batch
            if abs(hop.bytes - size) > 1e-6 * max(1.0, size):
                self.fault("transfer", where, f"{hop.bytes} bytes, the value has {size}")
            need = link.latency_ms + size / self.platform.rate(link)
            if hop.finish - hop.start < need - self.tol:
                self.fault(
                    "transfer", where, f"takes {hop.finish - hop.start:.6f}, needs {need:.6f}"
                )
            ready = have.get((hop.src_task, hop.tensor, hop.from_device))
            if ready is None or hop.start < ready - self.tol:
                self.fault("early", where, f"leaves {hop.from_device} before the value is there")
            there = (hop.src_task, hop.tensor, hop.to_device)
            have[there] = min(have.get(there, hop.finish), hop.finish)
            queue = self.queue_of(link, hop)
            if queue is not None:
                self.busy[queue].append((hop.start, hop.finish, where))
        return have

    def link_of(self, hop: Transfer) -> Link | None:
        """The link that a hop names, if it joins the hop's devices (the fastest of that name)."""
        ends = {hop.from_device, hop.to_device}
        found = [
            k
            for ks in self.links.values()
            for k in ks
            if k.name == hop.link and set(k.between) == ends
        ]
        return max(found, key=self.platform.rate, default=None)

    @staticmethod
    def queue_of(link: Link, hop: Transfer) -> str | None:
        """The queue of a link in the hop's direction; None where it is uncontended."""
        if link.shared is not None:
            return link.shared
        if link.duplex == "half":
            return link.name
        if link.duplex == "full":
            return f"{link.name}:{hop.from_device}>{hop.to_device}"
        return None

    def overlaps(self) -> None:
        """No two things at a time on a device, contended link or bus."""
        for name, intervals in self.busy.items():
            last = (0.0, 0.0, "")
            for interval in sorted(intervals):
                if interval[0] < last[1] - self.tol and interval[1] > last[0] + self.tol:
                    kind = "overlap" if name in self.devices else "link"
                    self.fault(kind, name, f"{last[2]} and {interval[2]} at {interval[0]:.6f} ms")
                if interval[1] >= last[1]:
                    last = interval

    # --- throughput --------------------------------------------------------------------------

    def throughput(self, rows: Sequence[Assignment], transfers: Sequence[Transfer]) -> None:
        """Loads per sample and memory with inputs in flight."""
        device = {
            r.task: r.device for r in rows if r.task in self.tasks and r.device in self.devices
        }
        self.loads = self.load_of(device, transfers)
        for text in throughput_memory(self.graph, self.platform, device):
            self.fault("memory", text[0], text[1])
        if self.plan.goal != LATENCY:
            self.compare_loads()

    def load_of(self, device: dict[str, str], transfers: Sequence[Transfer]) -> dict[str, float]:
        """Load by device, contended link and bus; checks that each value reaches its consumers."""
        loads: dict[str, float] = defaultdict(float)
        for t, d in device.items():
            loads[d] += self.tasks[t].cost_on(self.devices[d]) or 0.0
        sent: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
        for hop in transfers:
            where = f"{hop.src_task}/{hop.tensor} over {hop.link}"
            known, link = self.values.get((hop.src_task, hop.tensor)), self.link_of(hop)
            if known is None or link is None:
                self.fault("transfer", where, "unknown value or link")
                continue
            if abs(hop.bytes - known[0]) > 1e-6 * max(1.0, known[0]):
                self.fault("transfer", where, f"{hop.bytes} bytes, the value has {known[0]}")
            sent[hop.src_task, hop.tensor].add((hop.from_device, hop.to_device))
            queue = self.queue_of(link, hop)
            if queue is not None:
                loads[queue] += link.latency_ms + known[0] / self.platform.rate(link)
        for (src, tensor), (_, consumers) in self.values.items():
            reach, grown = {device.get(src)}, True
            while grown:
                more = {b for a, b in sent[src, tensor] if a in reach} - reach
                grown = bool(more)
                reach |= more
            for c in consumers:
                if device.get(c) is not None and device[c] not in reach:
                    self.fault(
                        "transfer", c, f"value {tensor!r} of {src} never reaches {device[c]}"
                    )
        return dict(loads)

    def compare_loads(self) -> None:
        """Loads as written against those found; a load that is not written counts as 0."""
        for name in sorted({*self.plan.loads, *self.loads}):
            a, b = self.plan.loads.get(name, 0.0), self.loads.get(name, 0.0)
            if abs(a - b) > self.tol:
                self.fault("load", name, f"the plan says {a:.6f} ms, it is {b:.6f} ms")

    # --- replicas ----------------------------------------------------------------------------

    def replicas(self) -> None:
        """Data parallelism: disjoint devices; rates or shares add up; shared links add up."""
        taken: dict[str, int] = {}
        together: dict[str, float] = defaultdict(float)
        if self.plan.goal == LATENCY:
            total = sum(r.share for r in self.plan.replicas)
            if abs(total - self.plan.batch) > 1e-9:
                self.fault("replica", "plan", f"shares add up to {total:g}, not {self.plan.batch}")
        for i, replica in enumerate(self.plan.replicas):
            device = self.one(replica.assignments)
            for d in sorted(set(device.values())):
                if taken.setdefault(d, i) != i:
                    self.fault("replica", d, f"{d} serves replicas {taken[d]} and {i}")
            if self.plan.goal == LATENCY:
                if abs(replica.share - round(replica.share)) > 1e-9 or replica.share < 1:
                    self.fault("replica", f"replica {i}", f"takes {replica.share:g} samples")
                self.latency(replica.assignments, replica.transfers, max(1, round(replica.share)))
            else:
                for name, load in self.load_of(device, replica.transfers).items():
                    together[name] += load * replica.share
                for text in throughput_memory(self.graph, self.platform, device):
                    self.fault("memory", text[0], text[1])
        if self.plan.goal == LATENCY:
            self.overlaps()
            self.same("objective", self.plan.objective or 0.0, self.end)
            return
        for name, busy in together.items():
            if busy > 1 + 1e-6:
                self.fault("load", name, f"needs {busy:.6f} ms per ms")
        rate = sum(r.share for r in self.plan.replicas)
        self.same("objective", self.plan.objective or 0.0, 1.0 / rate if rate else float("inf"))

    # --- figures -----------------------------------------------------------------------------

    def objective(self) -> None:
        """The objective and, where it was asked for, the other one."""
        plan, period = self.plan, max(self.loads.values(), default=0.0)
        first, second = (self.end, period) if plan.goal == LATENCY else (period, self.end)
        self.same("objective", plan.objective or 0.0, first)
        if plan.goal == LATENCY and plan.min_throughput is not None:
            self.same("objective", plan.period or 0.0, second)
        if plan.goal != LATENCY and plan.max_latency is not None:
            self.same("objective", plan.latency or 0.0, second)

    def limits(self) -> None:
        """Bound, status, and the limits that the plan was asked to keep."""
        plan, value = self.plan, self.plan.objective or 0.0
        if plan.lower_bound > value + self.tol:
            self.fault("bound", "plan", f"lower bound {plan.lower_bound} above objective {value}")
        if plan.status == "OPTIMAL" and value - plan.lower_bound > self.tol:
            self.fault("bound", "plan", f"OPTIMAL with bound {plan.lower_bound}, objective {value}")
        latency = value if plan.goal == LATENCY else plan.latency
        period = plan.period if plan.goal == LATENCY else value
        if plan.max_latency is not None and (
            latency is None or latency > plan.max_latency + self.tol
        ):
            self.fault("limit", "plan", f"latency {latency}, limit {plan.max_latency}")
        if plan.min_throughput is not None and (
            period is None or period * plan.min_throughput > 1 + 1e-6
        ):
            self.fault(
                "limit", "plan", f"period {period}, wanted {plan.min_throughput} samples per ms"
            )

    def same(self, kind: str, said: float, found: float) -> None:
        """Refuses a figure that is not what it should be."""
        if abs(said - found) > self.tol:
            self.fault(kind, "plan", f"the plan says {said:.6f} ms, it is {found:.6f} ms")
