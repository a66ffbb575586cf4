"""The verifier: judges anybody's plan against the graph and the platform alone.

It shares no code with the solvers (no `problem`, `kernels`, …): placement, times, transfers, loads,
memory and objective are derived again from the rules of docs/partition-model.md
(cost models "links", and "dnn-partitioning" in `dnn.py`).

Arithmetic is exact: every number counts as the decimal that its file states. Two times are the same
where they differ by no more than ROUNDED of the larger one, whatever their unit, because people
write plans with a few decimals; so that such differences cannot add up, the whole schedule is
recounted from the plan's decisions (`check_recount`). A plan that claims to be OPTIMAL gets no such
allowance: objective, recount and bound must agree to the last digits of a double.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

from csp_embed.ir.network import (
    LATENCY,
    Assignment,
    Plan,
    Platform,
    Task,
    TaskGraph,
    Transfer,
)
from csp_embed.judge.plan.links import Links, cost_of
from csp_embed.judge.plan.placement import placement
from csp_embed.judge.plan.recount import Hop, recount
from csp_embed.judge.plan.rules import (
    exact,
    live_peak,
    same_time,
    sooner,
    throughput_memory,
)
from csp_embed.judge.plan.shares import joined

PROVED = Fraction(1, 2**46)  # relative: what doubles lose where a proof is written down


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
        from csp_embed.judge.plan.dnn import check_dnn

        return [Problem(*fault) for fault in check_dnn(graph, platform, plan)]
    if plan.objective is None:
        return [Problem("objective", "plan", f"there is no plan to check: {plan.status}")]
    judge = Judge(graph, platform, plan)
    if plan.replicas:
        judge.replicas()
    else:
        judge.placed(plan.assignments)
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
        self.links = Links(platform)
        self.values = {(s, t): (b, cs) for s, t, b, cs in graph.values()}
        self.faults: list[Problem] = []
        self.busy: dict[str, list[tuple[Fraction, Fraction, str]]] = defaultdict(list)
        self.end = Fraction(0)  # as the plan states it
        self.least = Fraction(0)  # recounted
        self.loads: dict[str, Fraction] = {}

    def fault(self, kind: str, where: str, text: str) -> None:
        """Records one fault."""
        self.faults.append(Problem(kind, where, text))

    def placed(self, rows: Sequence[Assignment]) -> dict[str, str]:
        """Device by task; records what is wrong with it."""
        device, faults = placement(self.graph, self.devices, self.plan, rows)
        for fault in faults:
            self.fault(*fault)
        return device

    # --- latency -----------------------------------------------------------------------------

    def latency(
        self, rows: Sequence[Assignment], transfers: Sequence[Transfer], batch: int = 1
    ) -> None:
        """Times, data, queues, peak memory; `end` is the makespan afterwards."""
        start: dict[str, Fraction] = {}
        finish: dict[str, Fraction] = {}
        device: dict[str, str] = {}
        costs: dict[str, Fraction] = {}
        for row in rows:
            task, d = self.tasks.get(row.task), self.devices.get(row.device)
            if task is None or d is None:
                continue
            if row.start is None or row.finish is None:
                self.fault("time", row.task, "no start or finish")
                continue
            begin, end = exact(row.start), exact(row.finish)
            cost = cost_of(task, d, batch)
            if begin < 0:
                self.fault("time", row.task, f"starts at {row.start}")
            if cost is not None and not same_time(end, begin + cost):
                text = f"runs {float(end - begin):.9g} ms, costs {float(cost):.9g} ms"
                self.fault("time", row.task, text)
            costs[row.task] = cost or Fraction(0)
            start[row.task], finish[row.task], device[row.task] = begin, end, row.device
            self.busy[row.device].append((begin, end, row.task))
        arrived = self.hops(transfers, device, finish, batch)
        for (src, tensor), (_, consumers) in self.values.items():
            for c in consumers:
                if src not in finish or c not in start:
                    continue
                if device[c] == device[src]:
                    ready: Fraction | None = finish[src]
                else:
                    ready = arrived.get((src, tensor, device[c]))
                if ready is None:
                    self.fault(
                        "transfer", c, f"value {tensor!r} of {src} never reaches {device[c]}"
                    )
                elif sooner(start[c], ready):
                    text = f"{tensor!r} of {src} comes at {float(ready):.9g}"
                    self.fault("early", c, f"starts at {float(start[c]):.9g}, {text}")
        if not self.plan.replicas:
            self.overlaps()
        self.end = max([self.end, *finish.values()])
        times = {t: (start[t], finish[t]) for t in start}
        for text in live_peak(self.graph, self.platform, device, times, batch):
            self.fault("memory", text[0], text[1])
        # Only what is right line by line can be recounted as a whole.
        if not self.faults:
            self.whole(transfers, device, times, costs, batch)

    def whole(
        self,
        transfers: Sequence[Transfer],
        device: dict[str, str],
        times: dict[str, tuple[Fraction, Fraction]],
        costs: dict[str, Fraction],
        batch: int,
    ) -> None:
        """The least makespan of the plan's decisions, exactly; raises `least`."""
        hops: list[Hop] = []
        for hop in transfers:
            link, size = self.links.link_of(hop), self.values[hop.src_task, hop.tensor][0]
            assert link is not None
            need = self.links.need(link, size, batch)
            hops.append((hop, need, self.links.queue_of(link, hop)))
        found = recount(self.graph, device, times, costs, hops)
        if found is None:
            self.fault("time", "plan", "the stated times contradict the order of the data")
            return
        self.least = max(self.least, found)
        if sooner(self.end, found):
            text = f"ends at {float(self.end):.9g} ms, its sequence takes {float(found):.9g} ms"
            self.fault("time", "plan", text)

    def hops(
        self,
        transfers: Sequence[Transfer],
        device: dict[str, str],
        finish: dict[str, Fraction],
        batch: int,
    ) -> dict[tuple[str, str, str], Fraction]:
        """When each value reaches each device; checks every hop and fills the links' timelines."""
        have = {
            (s, t, device[s]): finish[s] for (s, t) in self.values if s in device and s in finish
        }
        for hop in sorted(transfers, key=lambda h: (h.start or 0.0, h.finish or 0.0)):
            where = f"{hop.src_task}/{hop.tensor} over {hop.link}"
            known = self.values.get((hop.src_task, hop.tensor))
            link = self.links.link_of(hop)
            if known is None or link is None or hop.start is None or hop.finish is None:
                self.fault("transfer", where, "unknown value or link, or no times")
                continue
            size = exact(known[0]) * batch
            if not same_time(exact(hop.bytes), size):
                self.fault("transfer", where, f"{hop.bytes} bytes, the value has {float(size)}")
            need, begin, end = (
                self.links.need(link, known[0], batch),
                exact(hop.start),
                exact(hop.finish),
            )
            if sooner(end, begin + need):
                text = f"takes {float(end - begin):.9g}, needs {float(need):.9g}"
                self.fault("transfer", where, text)
            ready = have.get((hop.src_task, hop.tensor, hop.from_device))
            if ready is None or sooner(begin, ready):
                self.fault("early", where, f"leaves {hop.from_device} before the value is there")
            there = (hop.src_task, hop.tensor, hop.to_device)
            have[there] = min(have.get(there, end), end)
            queue = self.links.queue_of(link, hop)
            if queue is not None:
                self.busy[queue].append((begin, end, where))
        return have

    def overlaps(self) -> None:
        """No two things at a time on a device, contended link or bus."""
        for name, intervals in self.busy.items():
            last = (Fraction(0), Fraction(0), "")
            for interval in sorted(intervals):
                if sooner(interval[0], last[1]) and sooner(last[0], interval[1]):
                    kind, when = "overlap" if name in self.devices else "link", float(interval[0])
                    self.fault(kind, name, f"{last[2]} and {interval[2]} at {when:.9g} ms")
                if interval[1] >= last[1]:
                    last = interval

    # --- throughput --------------------------------------------------------------------------

    def throughput(self, rows: Sequence[Assignment], transfers: Sequence[Transfer]) -> None:
        """Loads per sample and memory with inputs in flight."""
        device = {
            r.task: r.device for r in rows if r.task in self.tasks and r.device in self.devices
        }
        self.loads = self.load_of(device, transfers)
        for text in throughput_memory(self.graph, self.platform, [device]):
            self.fault("memory", text[0], text[1])
        if self.plan.goal != LATENCY:
            self.compare_loads()

    def load_of(self, device: dict[str, str], transfers: Sequence[Transfer]) -> dict[str, Fraction]:
        """Load by device, contended link and bus; checks that each value reaches its consumers."""
        loads: dict[str, Fraction] = defaultdict(Fraction)
        for t, d in device.items():
            loads[d] += exact(self.tasks[t].cost_on(self.devices[d]) or 0.0)
        sent: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
        for hop in transfers:
            where = f"{hop.src_task}/{hop.tensor} over {hop.link}"
            known, link = self.values.get((hop.src_task, hop.tensor)), self.links.link_of(hop)
            if known is None or link is None:
                self.fault("transfer", where, "unknown value or link")
                continue
            if not same_time(exact(hop.bytes), exact(known[0])):
                self.fault("transfer", where, f"{hop.bytes} bytes, the value has {known[0]}")
            sent[hop.src_task, hop.tensor].add((hop.from_device, hop.to_device))
            queue = self.links.queue_of(link, hop)
            if queue is not None:
                loads[queue] += self.links.need(link, known[0])
            for end in (hop.from_device, hop.to_device):
                # A load of nothing is no load: a device that only forwards has none by itself.
                if (ms := self.links.handling(link, end, known[0])) > 0:
                    loads[end] += ms
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
            a, b = self.plan.loads.get(name, 0.0), self.loads.get(name, Fraction(0))
            if not same_time(exact(a), b):
                self.fault("load", name, f"the plan says {a:.9g} ms, it is {float(b):.9g} ms")

    # --- replicas ----------------------------------------------------------------------------

    def shares_devices(self) -> bool:
        """Whether some device serves two replicas."""
        used = [{row.device for row in r.assignments} for r in self.plan.replicas]
        together: set[str] = set()
        return sum(map(len, used)) > len(together.union(*used))

    def whole_shares(self) -> None:
        """Shares of latency replicas are samples of one batch, and have to use it up."""
        total = sum(r.share for r in self.plan.replicas)
        # Shares are doubles in files; anything a solver writes is within 1e-9, anything wrong is
        # not.
        if abs(total - self.plan.batch) > 1e-9:
            self.fault("replica", "plan", f"shares add up to {total:g}, not {self.plan.batch}")
        for i, replica in enumerate(self.plan.replicas):
            if abs(replica.share - round(replica.share)) > 1e-9 or replica.share < 1:
                self.fault("replica", f"replica {i}", f"takes {replica.share:g} samples")

    def replicas(self) -> None:
        """Data parallelism: rates or shares add up; what is shared is not asked for too much.

        Latency: one schedule of all shares, where they have devices in common. Throughput: samples
        may share devices between placements; loads add up by rate, weights of a layer are held once
        on a device."""
        if self.plan.goal == LATENCY and self.shares_devices():
            self.whole_shares()
            joint, one = joined(self.graph, self.platform, self.plan)
            self.faults += check_plan(joint, self.platform, one)
            return
        together: dict[str, Fraction] = defaultdict(Fraction)
        copies: list[dict[str, str]] = []
        if self.plan.goal == LATENCY:
            self.whole_shares()
        for replica in self.plan.replicas:
            device = self.placed(replica.assignments)
            if self.plan.goal == LATENCY:
                self.latency(replica.assignments, replica.transfers, max(1, round(replica.share)))
            else:
                for name, load in self.load_of(device, replica.transfers).items():
                    together[name] += load * exact(replica.share)
                copies.append(device)
        if self.plan.goal == LATENCY:
            self.overlaps()
            self.same("objective", self.plan.objective or 0.0, self.end, self.least)
            return
        for text in throughput_memory(self.graph, self.platform, copies):
            self.fault("memory", text[0], text[1])
        for name, busy in together.items():
            # Loads are per sample times samples per ms: 1 means the device is never idle.
            if sooner(Fraction(1), busy):
                self.fault("load", name, f"needs {float(busy):.9g} ms per ms")
        rate = sum((exact(r.share) for r in self.plan.replicas), Fraction(0))
        if rate <= 0:
            self.fault("replica", "plan", "no replica takes a sample")
            return
        # The period is what one sample takes when all replicas run at their shares.
        self.same("objective", self.plan.objective or 0.0, 1 / rate)

    # --- figures -----------------------------------------------------------------------------

    def objective(self) -> None:
        """The objective and, where it was asked for, the other one."""
        # Without assignments there is no load; 0 is then what the objective must say.
        plan, period = self.plan, max(self.loads.values(), default=Fraction(0))
        if plan.goal == LATENCY:
            self.same("objective", plan.objective or 0.0, self.end, self.least)
            if plan.min_throughput is not None:
                self.same("objective", plan.period or 0.0, period)
            return
        self.same("objective", plan.objective or 0.0, period)
        if plan.max_latency is not None:
            self.same("objective", plan.latency or 0.0, self.end)

    def limits(self) -> None:
        """Bound, status, and the limits that the plan was asked to keep."""
        # Limits are judged on what the plan states, for `objective` above has compared that with
        # the rows.
        plan, value = self.plan, exact(self.plan.objective or 0.0)
        low = exact(plan.lower_bound)
        if low > value * (1 + PROVED):
            text = f"lower bound {plan.lower_bound} above objective {plan.objective}"
            self.fault("bound", "plan", text)
        if plan.status == "OPTIMAL" and value - low > value * PROVED:
            text = f"OPTIMAL with bound {plan.lower_bound}, objective {plan.objective}"
            self.fault("bound", "plan", text)
        latency = plan.objective if plan.goal == LATENCY else plan.latency
        period = plan.period if plan.goal == LATENCY else plan.objective
        most, rate = plan.max_latency, plan.min_throughput
        if most is not None and (latency is None or sooner(exact(most), exact(latency))):
            self.fault("limit", "plan", f"latency {latency}, limit {most}")
        if rate is not None and (
            period is None or sooner(Fraction(1), exact(period) * exact(rate))
        ):
            self.fault("limit", "plan", f"period {period}, wanted {rate} samples per ms")

    def same(self, kind: str, said: float, found: Fraction, proof: Fraction | None = None) -> None:
        """Refuses a figure that is not what it should be. found: as the lines of the plan add up;
        proof: what an OPTIMAL plan must state to the last digits, where that is another figure."""
        claim = exact(said)
        if not same_time(claim, found):
            # %.9g shows what differs: two figures that differ by 1e-6 look alike in fewer digits.
            text = f"the plan says {said:.9g} ms, it is {float(found):.9g} ms"
            self.fault(kind, "plan", text)
        elif self.plan.status == "OPTIMAL" and not self.faults:
            least = found if proof is None else proof
            if abs(claim - found) > PROVED * found or least > claim * (1 + PROVED):
                text = f"OPTIMAL at {said!r} ms, but these decisions take {float(least)!r} ms"
                self.fault(kind, "plan", text)
