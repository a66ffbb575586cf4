"""The flow that a placement carries: plain maximum flow, exactly.

Takes: an Instance and a placement.  Leaves: tokens/s as a rational number, and arc flows.

Machines are split into an entry and an exit joined by their rate. Where a group of machines ends
at the layer at which another begins and none of the links between them can bind (each carries at
least the smaller of the two rates), the links are replaced by one hub: that changes no value, and
keeps 1,000 machines to a few thousand arcs in place of hundreds of thousands.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from csp_embed.serving.instance import Instance, Placement

SOURCE, SINK = "source", "sink"
Node = str | tuple[str, int]


@dataclass(frozen=True)
class Flow:
    """value: tokens/s. through[i]: what machine i passes. arcs: (from, to) -> tokens/s; between
    hubs only the sums are known, so hub arcs are listed as such."""

    value: Fraction
    through: dict[int, Fraction]
    arcs: dict[tuple[Node, Node], Fraction]


def max_flow(instance: Instance, placement: Placement) -> Flow:
    """The maximum flow of a placement in exact arithmetic."""
    arcs = _arcs(instance, placement)
    # One common power of two turns every capacity into an integer.
    # Floats have powers of two below the line, so the largest is a multiple of all.
    scale = max((c.denominator for c in arcs.values()), default=1)
    net = _Network()
    for (a, b), capacity in arcs.items():
        net.add(a, b, int(capacity * scale))
    total = net.run(SOURCE, SINK)
    used = {pair: Fraction(f, scale) for pair, f in net.flows().items() if f}
    through = {
        a[1]: f
        for (a, b), f in used.items()
        if isinstance(a, tuple) and a[0] == "in" and b[0] == "out"
    }
    return Flow(Fraction(total, scale), through, used)


def _arcs(instance: Instance, placement: Placement) -> dict[tuple[Node, Node], Fraction]:
    arcs: dict[tuple[Node, Node], Fraction] = {}
    begins: dict[int, list[int]] = {}
    ends: dict[int, list[int]] = {}
    rate = {i: instance.rate(i, interval) for i, interval in placement.items()}
    for i, (first, end) in placement.items():
        # A machine passes no more than its rate: an arc from its entry to its exit.
        arcs[("in", i), ("out", i)] = Fraction(rate[i])
        begins.setdefault(first, []).append(i)
        ends.setdefault(end, []).append(i)
        if first == 0 and instance.start[i] > 0:
            arcs[SOURCE, ("in", i)] = Fraction(float(instance.start[i]))
        if end == instance.layers and instance.end[i] > 0:
            arcs[("out", i), SINK] = Fraction(float(instance.end[i]))
    if instance.partial:
        _partial_arcs(instance, placement, arcs)
        return arcs
    for layer, senders in ends.items():
        receivers = begins.get(layer, [])
        if not receivers:
            continue
        links = instance.link[np.ix_(senders, receivers)]
        smaller = np.minimum.outer([rate[i] for i in senders], [rate[j] for j in receivers])
        # No link here can bind: what one sends, the others can take by any division.
        if (links >= smaller).all():
            hub: Node = ("hub", layer)
            arcs |= {(("out", i), hub): Fraction(rate[i]) for i in senders}
            arcs |= {(hub, ("in", j)): Fraction(rate[j]) for j in receivers}
            continue
        for a, i in enumerate(senders):
            for b, j in enumerate(receivers):
                if links[a, b] > 0:
                    arcs[("out", i), ("in", j)] = Fraction(float(links[a, b]))
    return arcs


def _partial_arcs(
    instance: Instance, placement: Placement, arcs: dict[tuple[Node, Node], Fraction]
) -> None:
    """With partial inference j may take over anywhere inside its interval: first <= end_i < end."""
    # Any place in the interval may be entered: pairs, not boundaries.
    for i, (_, end_i) in placement.items():
        for j, (first, end) in placement.items():
            if i != j and first <= end_i < end and instance.link[i, j] > 0:
                arcs[("out", i), ("in", j)] = Fraction(float(instance.link[i, j]))


class _Network:
    """Dinic's algorithm on Python integers, which never round."""

    def __init__(self) -> None:
        self.number: dict[Node, int] = {}
        self.names: list[Node] = []
        self.heads: list[list[int]] = []
        self.to: list[int] = []
        self.room: list[int] = []

    # Arc and reverse arc stand side by side: e ^ 1 is the other one.
    def add(self, a: Node, b: Node, capacity: int) -> None:
        for node in (a, b):
            if node not in self.number:
                self.number[node] = len(self.names)
                self.names.append(node)
                self.heads.append([])
        u, v = self.number[a], self.number[b]
        self.heads[u].append(len(self.to))
        self.to.append(v)
        self.room.append(capacity)
        self.heads[v].append(len(self.to))
        self.to.append(u)
        self.room.append(0)

    def flows(self) -> dict[tuple[Node, Node], int]:
        """Flow by arc; the reverse arc's room is what was sent."""
        return {
            # Every second entry is an arc; its flow is its reverse's room.
            (self.names[self.to[e + 1]], self.names[self.to[e]]): self.room[e + 1]
            for e in range(0, len(self.to), 2)
        }

    def run(self, a: Node, b: Node) -> int:
        if a not in self.number or b not in self.number:
            return 0
        source, sink, total = self.number[a], self.number[b], 0
        while True:
            level = self._levels(source)
            if level[sink] < 0:
                # A blocking flow on shortest paths; then levels anew: Dinic's phases.
                return total
            # Where each node goes on looking: arcs that were dead stay so in this phase.
            at = [0] * len(self.names)
            while pushed := self._path(source, sink, level, at):
                total += pushed

    def _levels(self, source: int) -> list[int]:
        level = [-1] * len(self.names)
        level[source] = 0
        queue = deque([source])
        while queue:
            u = queue.popleft()
            for e in self.heads[u]:
                v = self.to[e]
                if self.room[e] > 0 and level[v] < 0:
                    level[v] = level[u] + 1
                    queue.append(v)
        return level

    def _path(self, source: int, sink: int, level: list[int], at: list[int]) -> int:
        """One augmenting path of the level graph, without recursion: chains may be long."""
        path: list[int] = []
        u = source
        while u != sink:
            if at[u] < len(self.heads[u]):
                e = self.heads[u][at[u]]
                # Only one level further: else paths would not be shortest.
                if self.room[e] > 0 and level[self.to[e]] == level[u] + 1:
                    path.append(e)
                    u = self.to[e]
                else:
                    at[u] += 1
            elif path:  # a dead end: go back and never enter it again
                u = self.to[path.pop() ^ 1]
                at[u] += 1
            else:
                return 0
        pushed = min(self.room[e] for e in path)
        for e in path:
            self.room[e] -= pushed
            self.room[e ^ 1] += pushed
        return pushed
