"""Tiny random platforms and graphs, and their optima by trying everything, in Fractions.

Shares nothing with the product but the values of `ir.network`: routes by walking all simple paths,
latency by all sequences in which tasks and queued transfers can be appended (by all starts at ends
of others where activations may not fit), period by all placements.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction

from csp_embed.ir.network import Bus, Device, Edge, Link, Platform, Task, TaskGraph

Hop = tuple[str, str, Link]
SCALES = (1, 1, 1, 1e-10, 1e-6, 1e10, 1e30, 1e-60, 1.1)


def decimal(x: float) -> Fraction:
    """The number as it is written."""
    return Fraction(repr(float(x)))


def instance(seed: int) -> tuple[TaskGraph, Platform]:
    """Zero costs and bytes, missing links, relays, buses, memory, pins, colocation, huge and tiny
    units, costs that differ in their last digits."""
    r = random.Random(seed)
    scale = decimal(r.choice(SCALES))
    m = r.choice([1, 2, 2, 3, 3])
    names = "abc"[:m]
    style = r.choice(["int", "decimal", "float", "zero", "big", "digits", "mixed"])

    def cost() -> float:
        if r.random() < (0.6 if style == "zero" else 0.15):
            return 0.0
        number = {
            "int": lambda: r.randint(1, 9),
            "zero": lambda: r.randint(1, 9),
            "decimal": lambda: r.randint(1, 99) / 10,
            "big": lambda: 10**12 + r.randint(0, 3),
            "float": lambda: r.uniform(0.1, 9),
            "digits": lambda: r.random(),  # up to 17 digits, of any order below 1
            "mixed": lambda: r.choice([3, 0.1, 1e-9, 1e9, 1 / 3]),
        }[style]()
        return float(decimal(number) * scale)

    tasks = []
    for i in range(r.randint(1, 5 if m < 3 else 4)):
        costs = {d: cost() for d in names if r.random() < 0.85} or {r.choice(names): cost()}
        pin = r.choice([None] * 12 + list(costs))
        group = r.choice([None] * 6 + ["g"])
        weight, live = r.choice([0, 0, 10, 20, 0.5]), r.choice([0, 0, 0, 0, 5, 12.5])
        tasks.append(Task(f"t{i}", costs, {}, weight, live, group, pin))
    edges = [
        Edge(f"t{u}", f"t{t}", r.choice([0.0, 1.0, float(r.randint(1, 20)), r.uniform(0.1, 20)]))
        for t in range(len(tasks)) for u in range(t) if r.random() < 0.45
    ]  # fmt: skip
    if r.random() < 0.4:
        size: dict[str, float] = {}
        edges = [Edge(e.src, e.dst, size.setdefault(e.src, e.bytes), "v") for e in edges]
    links = []
    for ends in itertools.combinations(names, 2):
        if r.random() < 0.75:
            rate, lat = r.choice([1.0, 2.0, 3.0, 0.5, 10.0]), r.choice([0, 0, 0.5, 2.0, 5.0])
            kind = r.choice([(None, None), ("half", None), ("full", None), (None, "bus")])
            speed, wait = float(decimal(rate) / scale), float(decimal(lat) * scale)
            links.append(Link(ends, speed, wait, *kind))
    buses = (
        (Bus("bus", r.choice([None, float(1 / scale)])),) if any(k.shared for k in links) else ()
    )
    devices = (Device(d, d, r.choice([None, None, None, 30, 15, 1000.0])) for d in names)
    return TaskGraph(tuple(tasks), tuple(edges)), Platform(tuple(devices), tuple(links), buses)


def batched(graph: TaskGraph, batch: int) -> TaskGraph:
    """The graph of so many samples at once, where no task has costs by batch."""

    def times(x: float) -> float:
        return float(decimal(x) * batch)

    tasks = tuple(
        replace(
            t,
            cost={d: times(c) for d, c in t.cost.items()},
            activation_bytes=times(t.activation_bytes),
        )
        for t in graph.tasks
    )
    return TaskGraph(tasks, tuple(replace(e, bytes=times(e.bytes)) for e in graph.edges))


class Brute:
    """Optima of one instance."""

    def __init__(self, graph: TaskGraph, platform: Platform) -> None:
        self.graph, self.platform = graph, platform
        self.tasks, self.devices = graph.by_id(), platform.by_name()
        self.values = [(s, t, decimal(b), cs) for s, t, b, cs in graph.values()]
        self.known: dict[tuple[str, str, Fraction], list[Hop] | None] = {}

    def takes(self, link: Link, size: Fraction) -> Fraction:
        """ms of a transfer."""
        return decimal(link.latency_ms) + size / decimal(self.platform.rate(link))

    def route(self, a: str, b: str, size: Fraction) -> list[Hop] | None:
        """The cheapest simple path for a size, then the fewest links, the least time per byte."""
        if (a, b, size) not in self.known:
            found = []

            def walk(x: str, seen: set[str], hops: list[Hop]) -> None:
                if x == b:
                    time = sum((self.takes(k, size) for *_, k in hops), Fraction(0))
                    slope = sum(float(1 / decimal(self.platform.rate(k))) for *_, k in hops)
                    found.append((time, len(hops), slope, hops))
                    return
                for k in self.platform.links:
                    for u, v in (k.between, k.between[::-1]):
                        if u == x and v not in seen:
                            walk(v, seen | {v}, [*hops, (u, v, k)])

            walk(a, {a}, [])
            best = min(found, key=lambda x: x[:3], default=None)
            self.known[a, b, size] = None if best is None else best[3]
        return self.known[a, b, size]

    @staticmethod
    def queue(hop: Hop) -> object:
        """What a hop waits for; None where it never does."""
        u, v, k = hop
        if k.shared:
            return ("bus", k.shared)
        return {"half": ("half", k.name), "full": ("full", k.name, u, v), None: None}[k.duplex]

    def cost(self, task: str, device: str) -> Fraction:
        """ms."""
        return decimal(self.tasks[task].cost_on(self.devices[device]))

    def placements(self) -> Iterator[dict[str, str]]:
        """All that keep pins, groups, memory of weights, and links."""
        able = [
            [d.name for d in self.platform.devices
             if t.cost_on(d) is not None and t.pin in (None, d.name)]
            for t in self.graph.tasks
        ]  # fmt: skip
        for choice in itertools.product(*able):
            at = dict(zip(self.tasks, choice, strict=True))
            groups: dict[str, set[str]] = {}
            used: dict[str, Fraction] = {}
            for t in self.graph.tasks:
                if t.colocate:
                    groups.setdefault(t.colocate, set()).add(at[t.id])
                used[at[t.id]] = used.get(at[t.id], Fraction(0)) + decimal(t.weight_bytes)
            memory = {d: self.devices[d].memory_bytes for d in used}
            if any(len(x) > 1 for x in groups.values()):
                continue
            if any(memory[d] is not None and used[d] > decimal(memory[d]) for d in used):
                continue
            if all(self.route(at[s], at[c], b) is not None
                   for s, _, b, cs in self.values for c in cs):  # fmt: skip
                yield at

    def period(self) -> Fraction | None:
        """The least largest load."""
        found = []
        for at in self.placements():
            if not self.flows(at):
                continue
            load: dict[object, Fraction] = {}
            for t, d in at.items():
                load[d] = load.get(d, Fraction(0)) + self.cost(t, d)
            for s, _, b, cs in self.values:
                for d in {at[c] for c in cs} - {at[s]}:
                    for hop in self.route(at[s], d, b) or ():
                        if (q := self.queue(hop)) is not None:
                            load[q] = load.get(q, Fraction(0)) + self.takes(hop[2], b)
            found.append(max(load.values()))
        return min(found, default=None)

    def readers(self, task: str) -> set[str]:
        """Tasks that read any value of a task."""
        return {c for s, _, _, cs in self.values for c in cs if s == task}

    def room(self, device: str, at: dict[str, str]) -> Fraction | None:
        """Bytes left beside the weights; None = any number."""
        memory = self.devices[device].memory_bytes
        if memory is None:
            return None
        mine = (t for t in self.tasks if at[t] == device)
        return decimal(memory) - sum(decimal(self.tasks[t].weight_bytes) for t in mine)

    def flows(self, at: dict[str, str]) -> bool:
        """Whether weights and the activations of all inputs in flight fit, one stage per change of
        device, each device in topological order."""
        order = self.graph.order()
        stage: dict[str, int] = {}
        for t in order:
            stage[t] = max(
                (stage[s] + (at[s] != at[t]) for s in order if t in self.readers(s)), default=0
            )
        for d in self.devices:
            room, mine = self.room(d, at), [t for t in order if at[t] == d]
            if room is None:
                continue
            size = {t: decimal(self.tasks[t].activation_bytes) for t in mine}
            later = {
                t: max((stage[c] - stage[t] for c in self.readers(t)), default=0) for t in mine
            }
            kept = sum((later[t] * size[t] for t in mine), Fraction(0))
            for i in range(len(mine)):
                alive = [
                    t for k, t in enumerate(mine[: i + 1])
                    if later[t] or max([k, *(mine.index(c) for c in self.readers(t))]) >= i
                ]  # fmt: skip
                if kept + sum(size[t] for t in alive) > room:
                    return False
        return True

    def latency(self, most: int = 30_000) -> Fraction | None:
        """The least makespan. Raises: OverflowError where there are too many sequences."""
        best: Fraction | None = None
        count = 0
        hungry = any(t.activation_bytes for t in self.graph.tasks)
        for at in self.placements():
            ops: dict[object, tuple[Fraction, object, list[object]]] = {
                t: (self.cost(t, at[t]), at[t], []) for t in at
            }
            for s, tensor, b, cs in self.values:
                came: dict[str, object] = {at[s]: s}
                for d in sorted({at[c] for c in cs} - {at[s]}):
                    before: object = s
                    for i, hop in enumerate(self.route(at[s], d, b) or ()):
                        name = (s, tensor, d, i)
                        ops[name] = (self.takes(hop[2], b), self.queue(hop), [before])
                        before = name
                    came[d] = before
                for c in cs:
                    ops[c][2].append(came[at[c]])

            if hungry and any(self.room(d, at) is not None for d in set(at.values())):
                found, used = self.within_memory(at, ops, best, most - count)
                best, count = found if found is not None else best, count + used
                continue

            def search(
                done: dict[object, Fraction], free: dict[object, Fraction],
                ops: dict[object, tuple[Fraction, object, list[object]]] = ops,
            ) -> None:  # fmt: skip
                nonlocal best, count
                count += 1
                if count > most:
                    raise OverflowError
                done, grown = dict(done), True
                while grown:  # what never queues starts as soon as it can
                    grown = False
                    for k, (c, q, needs) in ops.items():
                        if k not in done and q is None and all(x in done for x in needs):
                            done[k] = max((done[x] for x in needs), default=Fraction(0)) + c
                            grown = True
                if best is not None and max(done.values(), default=Fraction(0)) >= best:
                    return
                if len(done) == len(ops):
                    best = max(done.values(), default=Fraction(0))
                for k, (c, q, needs) in ops.items():
                    if k not in done and q is not None and all(x in done for x in needs):
                        start = max([free.get(q, Fraction(0)), *(done[x] for x in needs)])
                        search({**done, k: start + c}, {**free, q: start + c})

            search({}, {})
        return best

    def within_memory(
        self, at: dict[str, str], ops: dict[object, tuple[Fraction, object, list[object]]],
        best: Fraction | None, most: int,
    ) -> tuple[Fraction | None, int]:  # fmt: skip
        """(least makespan below `best`, steps taken) where activations must fit at all times.

        In a schedule in which nothing can begin earlier, everything begins at 0 or where something
        else ends. Raises: OverflowError."""
        names, count, found = list(ops), 0, None
        rooms = {d: self.room(d, at) for d in set(at.values())}

        def fits(start: dict[object, Fraction], end: dict[object, Fraction], now: Fraction) -> bool:
            for d, room in rooms.items():
                alive = [
                    t for t in at
                    if at[t] == d and t in start
                    and any(c not in end or end[c] > now for c in {t, *self.readers(t)})
                ]  # fmt: skip
                used = sum(decimal(self.tasks[t].activation_bytes) for t in alive)
                if room is not None and used > room:
                    return False
            return True

        def search(
            start: dict[object, Fraction], end: dict[object, Fraction], now: Fraction, least: int
        ) -> None:
            """least: what begins at `now` begins in the order of `names`, unless it just could."""
            nonlocal best, found, count
            count += 1
            if count > most:
                raise OverflowError
            if best is not None and max(end.values(), default=now) >= best:
                return
            if len(end) == len(ops):
                if fits(start, end, now):
                    best = found = max(end.values())
                return
            for i, k in enumerate(names):
                length, queue, needs = ops[k]
                if k in start or any(x not in end or end[x] > now for x in needs):
                    continue
                late = any(start[x] == now for x in needs)  # of no length: k could not come before
                busy = any(
                    ops[x][1] == queue and end[x] > now and (length or start[x] < now)
                    for x in start
                    if queue is not None
                )
                if not busy and (i >= least or late):
                    more = {**start, k: now}, {**end, k: now + length}
                    search(*more, now, 0 if late else i + 1)
            after = min((x for x in end.values() if x > now), default=None)
            if after is not None and fits(start, end, now):
                search(start, end, after, 0)

        search({}, {}, Fraction(0), 0)
        return found, count
