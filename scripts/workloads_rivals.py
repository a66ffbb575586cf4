"""Simple programs for dnn-partitioning workloads, which share no code with the package.

Takes: the parsed JSON of a workload (`Net`).  Leaves: placements, and their value by an evaluation
of its own. Cost model: shared with nobody, written from the data set's own description.

throughput: orders cut into stages by a dynamic program, a dynamic program over ideals (few of
them), descent by single groups; training graphs: forward groups take their backward nodes along.
latency: orders dealt out by memory, cut evenly, then descent on the borders. CP-SAT without any
start, as a limit of what a plain model finds.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

Place = list[int]
"""Device of each node: accelerators are 0 to K-1, CPUs behind them."""


class Net:
    """A workload by node numbers in a topological order."""

    def __init__(self, data: dict[str, Any]) -> None:
        ids = [n["id"] for n in data["nodes"]]
        before: dict[int, set[int]] = {i: set() for i in ids}
        cost: dict[int, float] = {}
        for e in data["edges"]:
            before[e["destId"]].add(e["sourceId"])
            cost[e["sourceId"]] = e["cost"]
        order: list[int] = []
        left = {i: len(b) for i, b in before.items()}
        after: dict[int, list[int]] = {i: [] for i in ids}
        for t, b in before.items():
            for u in b:
                after[u].append(t)
        ready = [i for i in ids if not left[i]]
        while ready:
            u = ready.pop(0)
            order.append(u)
            for t in after[u]:
                left[t] -= 1
                if not left[t]:
                    ready.append(t)
        at = {i: k for k, i in enumerate(order)}
        nodes = {n["id"]: n for n in data["nodes"]}
        self.ids, self.n = order, len(order)
        self.pred = [sorted(at[u] for u in before[i]) for i in order]
        self.succ = [sorted(at[t] for t in after[i]) for i in order]
        self.cpu = [nodes[i]["cpuLatency"] for i in order]
        self.acc = [
            nodes[i]["fpgaLatency"] if nodes[i]["supportedOnFpga"] else float("inf") for i in order
        ]
        self.toll = [cost.get(i, 0.0) for i in order]
        self.size = [nodes[i].get("size") or 0.0 for i in order]
        self.back = [bool(nodes[i].get("isBackwardNode")) for i in order]
        self.k, self.cpus = data["maxFPGAs"], data["maxCPUs"]
        self.memory = data["maxSizePerFPGA"]
        colours: dict[Any, int] = {}
        self.group = [
            colours.setdefault(nodes[i].get("colorClass", f"own {i}"), len(colours)) for i in order
        ]
        self.members: list[list[int]] = [[] for _ in colours]
        for t, g in enumerate(self.group):
            self.members[g].append(t)

    def loads(self, dev: Sequence[int], devices: int) -> list[float]:
        """ms a sample of each device."""
        load = [0.0] * devices
        for u in range(self.n):
            d = dev[u]
            load[d] += self.acc[u] if d < self.k else self.cpu[u]
            away = {dev[t] for t in self.succ[u]} - {d}
            if away and d < self.k:
                load[d] += self.toll[u]
            for b in away:
                if b < self.k:
                    load[b] += self.toll[u]
        return load

    def fits(self, dev: Sequence[int]) -> bool:
        """Memory and colours."""
        held = [0.0] * self.k
        for u in range(self.n):
            if dev[u] < self.k:
                held[dev[u]] += self.size[u]
        one = all(len({dev[t] for t in ts}) == 1 for ts in self.members)
        return one and all(x <= self.memory * (1 + 1e-12) for x in held)

    def convex(self, dev: Sequence[int], halves: bool = True) -> bool:
        """No path leaves a device and comes back; halves: forward and backward nodes apart."""
        gone: list[set[int]] = [set() for _ in range(self.n)]
        for t in range(self.n):
            for u in self.pred[t]:
                if halves and self.back[u] != self.back[t]:
                    continue
                gone[t] |= gone[u]
                if dev[u] != dev[t]:
                    gone[t].add(dev[u])
            if dev[t] in gone[t]:
                return False
        return True

    def period(self, dev: Sequence[int]) -> float:
        """inf where memory or colours are broken."""
        if not self.fits(dev):
            return float("inf")
        return max(self.loads(dev, self.k + self.cpus))

    def latency(self, dev: Sequence[int]) -> float:
        """One subgraph an accelerator, CPUs without queues; inf where it is no plan."""
        if not self.fits(dev):
            return float("inf")
        load = self.loads(dev, self.k + 1)
        node = [dev[t] if dev[t] < self.k else self.k + t for t in range(self.n)]
        waits: dict[int, set[int]] = {x: set() for x in node}
        for t in range(self.n):
            waits[node[t]] |= {node[u] for u in self.pred[t]} - {node[t]}
        end: dict[int, float] = {}
        left = list(waits)
        while left:
            ready = [x for x in left if all(y in end for y in waits[x])]
            if not ready:
                return float("inf")
            for x in ready:
                own = load[x] if x < self.k else self.cpu[x - self.k]
                end[x] = max((end[y] for y in waits[x]), default=0.0) + own
            left = [x for x in left if x not in end]
        return max(end.values())


def orders(net: Net, count: int, seed: int) -> Iterator[list[int]]:
    """Orders of the forward nodes: by breadth, by depth, then at random between them."""
    rng = random.Random(seed)
    inside = [t for t in range(net.n) if not net.back[t]]
    for number in range(count):
        left = {t: sum(not net.back[u] for u in net.pred[t]) for t in inside}
        ready, order = [t for t in inside if not left[t]], []
        while ready:
            last = number == 1 or (number > 1 and rng.random() < 0.7)
            t = ready.pop(-1 if last else 0 if number == 0 else rng.randrange(len(ready)))
            order.append(t)
            for s in net.succ[t]:
                if s in left:
                    left[s] -= 1
                    if not left[s]:
                        ready.append(s)
        yield order


def sides(net: Net) -> list[list[int]]:
    """What each forward node takes along: its colour; backward nodes of no forward colour go with
    the forward node that they read, else with what they feed."""
    owner = [-1] * net.n
    for t in range(net.n):
        if not net.back[t]:
            owner[t] = t
    for ts in net.members:
        first = [t for t in ts if not net.back[t]]
        for t in ts:
            if first and net.back[t]:
                owner[t] = first[0]
    twin = {net.ids[t]: t for t in range(net.n) if not net.back[t]}
    half = len(twin)
    for t in range(net.n):
        if owner[t] < 0:
            # Made workloads number a gradient behind all forward nodes; else by what it reads.
            read = [u for u in net.pred[t] if not net.back[u]]
            owner[t] = twin.get(net.ids[t] - half, read[0] if read else 0)
    along: list[list[int]] = [[] for _ in range(net.n)]
    for t, u in enumerate(owner):
        along[u].append(t)
    return along


def stages(net: Net, order: list[int], along: list[list[int]]) -> Place | None:
    """The cut of an order into K accelerators and the CPUs with the least period."""
    n, k, cpus = len(order), net.k, net.cpus
    where = [-1] * net.n
    for i, t in enumerate(order):
        for s in along[t]:
            where[s] = i
    cost = [[float("inf")] * (n + 1) for _ in range(n)]
    slow = [[float("inf")] * (n + 1) for _ in range(n)]
    for a in range(n):
        work = held = wait = toll = 0.0
        inside: set[int] = set()
        sent: set[int] = set()

        for b in range(a + 1, n + 1):
            new = along[order[b - 1]]
            inside.update(new)
            for t in new:
                work += net.acc[t]
                wait += net.cpu[t]
                held += net.size[t]
            touched = set(new) | {u for t in new for u in net.pred[t]}
            for v in touched:
                away = v in inside and any(s not in inside for s in net.succ[v])
                read = v not in inside and any(s in inside for s in net.succ[v])
                if (away or read) and v not in sent:
                    sent.add(v)
                    toll += net.toll[v]
                elif not (away or read) and v in sent:
                    sent.discard(v)
                    toll -= net.toll[v]
            slow[a][b] = wait
            if held <= net.memory:
                cost[a][b] = work + toll
    best: dict[tuple[int, int, int], tuple[float, int, int]] = {(0, 0, 0): (0.0, -1, -1)}
    for b in range(1, n + 1):
        for x in range(k + 1):
            for y in range(cpus + 1):
                found = (float("inf"), -1, -1)
                for a in range(b):
                    for kind, table, was in ((0, cost, (a, x - 1, y)), (1, slow, (a, x, y - 1))):
                        if was in best:
                            value = max(best[was][0], table[a][b])
                            if value < found[0]:
                                found = (value, a, kind)
                if found[1] >= 0:
                    best[b, x, y] = found
    ends = [(best[s][0], s) for s in best if s[0] == n and best[s][0] < float("inf")]
    if not ends:
        return None
    b, x, y = min(ends)[1]
    dev = [0] * net.n
    while b:
        _, a, kind = best[b, x, y]
        x, y = (x - 1, y) if kind == 0 else (x, y - 1)
        for i in range(a, b):
            for t in along[order[i]]:
                dev[t] = x if kind == 0 else k + y
        b = a
    return dev


def ideals(net: Net, most: int) -> Place | None:
    """The dynamic program over ideals of the forward nodes, where there are at most so many; one
    CPU at most."""
    along = sides(net)
    inside = [t for t in range(net.n) if not net.back[t]]
    before = {t: {u for u in net.pred[t] if not net.back[u]} for t in inside}
    after = {t: [s for s in net.succ[t] if not net.back[s]] for t in inside}
    found: dict[frozenset[int], None] = {frozenset(): None}
    front = [frozenset[int]()]
    while front:
        ideal = front.pop()
        for t in {s for u in ideal for s in after[u]} | {t for t in inside if not before[t]}:
            if t not in ideal and before[t] <= ideal:
                larger = ideal | {t}
                if larger not in found:
                    found[larger] = None
                    front.append(larger)
                    if len(found) > most:
                        return None
    ranked = sorted(found, key=len)
    parts: dict[frozenset[int], dict[tuple[int, int], tuple[float, frozenset[int] | None, int]]]
    parts = {ranked[0]: {(0, 0): (0.0, None, 0)}}
    for large in ranked[1:]:
        states = parts.setdefault(large, {})
        for small in ranked:
            if len(small) >= len(large):
                break
            if not small < large:
                continue
            stage = {s for t in large - small for s in along[t]}
            held = sum(net.size[t] for t in stage)
            work = sum(net.acc[t] for t in stage)
            near = stage | {u for t in stage for u in net.pred[t]}
            for v in near:
                # A value pays once where it crosses the stage's border, either way.
                ends = [s in stage for s in net.succ[v]]
                if (v in stage and not all(ends)) or (v not in stage and any(ends)):
                    work += net.toll[v]
            fast = work if held <= net.memory else float("inf")
            slow = sum(net.cpu[t] for t in stage)
            for (x, y), (value, _, _) in parts[small].items():
                for to, ms, kind in (((x + 1, y), fast, 0), ((x, y + 1), slow, 1)):
                    if to[0] <= net.k and to[1] <= min(1, net.cpus):
                        then = max(value, ms)
                        if then < states.get(to, (float("inf"), None, 0))[0]:
                            states[to] = (then, small, kind)
    whole = ranked[-1]
    if not parts[whole]:
        return None
    state = min(parts[whole], key=lambda s: parts[whole][s][0])
    dev = [0] * net.n
    while whole:
        _, small, kind = parts[whole][state]
        assert small is not None
        state = (state[0] - 1, state[1]) if kind == 0 else (state[0], state[1] - 1)
        for t in whole - small:
            for s in along[t]:
                dev[s] = state[0] if kind == 0 else net.k + state[1]
        whole = small
    return dev


def cuts(net: Net, seconds: float) -> Iterator[Place]:
    """Orders cut into stages, until the time is up."""
    end, along = time.process_time() + seconds, sides(net)
    for order in orders(net, 1000, 1):
        dev = stages(net, order, along)
        if dev is not None:
            yield dev
        if time.process_time() > end:
            return


def descent(
    net: Net, start: Place, value: Callable[[Place], float], devices: int, seconds: float
) -> Place:
    """First improvement by single groups and by a node with its neighbours, until time is up."""
    rng, end = random.Random(1), time.process_time() + seconds
    dev, now = list(start), value(start)
    while time.process_time() < end:
        t = rng.randrange(net.n)
        ts = list(net.members[net.group[t]])
        for u in [*net.pred[t], *net.succ[t]] if rng.random() < 0.3 else ():
            ts += net.members[net.group[u]]
        d = rng.randrange(devices)
        kept = [(t, dev[t]) for t in ts]
        for t in ts:
            dev[t] = d
        then = value(dev)
        if then <= now:
            now = then
            continue
        for t, was in reversed(kept):
            dev[t] = was
    return dev


def dealt(net: Net) -> Iterator[Place]:
    """Latency: an order onto one accelerator after the other, by memory or evenly; rest on CPUs."""
    whole = sum(x for x in net.acc if x < float("inf"))
    for order in orders(net, 20, 2):
        full = [*order, *(t for t in range(net.n) if net.back[t])]
        for parts in range(1, net.k + 1):
            for even in (False, True):
                dev, d, held, work = [net.k] * net.n, 0, 0.0, 0.0
                for t in full:
                    if net.acc[t] == float("inf"):
                        continue
                    more = held + net.size[t] > net.memory
                    if more or (even and work + net.acc[t] / 2 > whole / parts):
                        d, held, work = d + 1, 0.0, 0.0
                    if d >= parts or net.size[t] > net.memory:
                        break
                    dev[t], held, work = d, held + net.size[t], work + net.acc[t]
                yield dev
    yield [net.k] * net.n
