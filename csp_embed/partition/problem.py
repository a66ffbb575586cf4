"""A task graph on a platform as arrays: what every solver here reads.

Takes: a TaskGraph and a Platform.  Leaves: a `Problem`: indices instead of names, costs as a matrix
with inf where a device may not run a task (no cost, pinned or fixed elsewhere, memory smaller than
its colocation group), routes between devices as hops over links, contended links and buses as
resources.  Assumes: nothing; everything is verified, and what is plainly impossible is refused here
with the task, memory, pin or link at fault.
"""

from __future__ import annotations

import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import Platform, TaskGraph

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
EPS = 1e-9


@dataclass(frozen=True)
class Problem:
    """Arrays of one problem. n tasks in topological order (`ids`), m devices, values, routes.

    cost [n, m] ms, inf = forbidden. group [n]: colocation group of each task (tasks without a label
    are alone). weight, activation [n] bytes; memory [m] bytes (inf = unlimited).
    value_src, value_bytes [v]; CSR lists: `use` (consumers of a value), `inp` (values that a task
    reads), `out` (values that it makes).
    Hops of the route a -> b: hop_ptr[a*m+b] … [a*m+b+1] into hop_link, hop_to, hop_res (resource or
    -1 where uncontended), hop_lat ms, hop_inv ms per byte. lat, inv [m, m]: their sums; inf where a
    cannot reach b; 0 on the diagonal.
    resources: names of the contended links (`a-b`, `a-b:a>b`) and buses.
    """

    graph: TaskGraph
    platform: Platform
    ids: list[str]
    cost: Floats
    group: Ints
    weight: Floats
    activation: Floats
    memory: Floats
    value_src: Ints
    value_bytes: Floats
    value_name: list[str]
    use_ptr: Ints
    use: Ints
    inp_ptr: Ints
    inp: Ints
    out_ptr: Ints
    out: Ints
    hop_ptr: Ints
    hop_link: Ints
    hop_to: Ints
    hop_res: Ints
    hop_lat: Floats
    hop_inv: Floats
    lat: Floats
    inv: Floats
    resources: list[str]
    index: dict[str, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of tasks."""
        return len(self.ids)

    @property
    def m(self) -> int:
        """Number of devices."""
        return len(self.platform.devices)

    def comm(self, value: int, a: int, b: int) -> float:
        """ms from device a to b for a value over an idle route."""
        return float(self.lat[a, b] + self.value_bytes[value] * self.inv[a, b]) if a != b else 0.0

    def consumers(self, value: int) -> Ints:
        """Tasks that read a value."""
        return self.use[self.use_ptr[value] : self.use_ptr[value + 1]]

    def inputs(self, task: int) -> Ints:
        """Values that a task reads."""
        return self.inp[self.inp_ptr[task] : self.inp_ptr[task + 1]]

    def outputs(self, task: int) -> Ints:
        """Values that a task makes."""
        return self.out[self.out_ptr[task] : self.out_ptr[task + 1]]

    def edges(self) -> list[tuple[int, int, int]]:
        """(producer, consumer, value), producers first."""
        return [
            (int(s), int(t), v) for v, s in enumerate(self.value_src) for t in self.consumers(v)
        ]

    def hops(self, a: int, b: int) -> range:
        """Indices of the hops of the route a -> b."""
        return range(int(self.hop_ptr[a * self.m + b]), int(self.hop_ptr[a * self.m + b + 1]))

    def allowed(self, task: int) -> list[int]:
        """Devices that may run a task."""
        return [int(d) for d in np.flatnonzero(np.isfinite(self.cost[task]))]

    def groups(self) -> list[list[int]]:
        """Tasks of each colocation group, by group number."""
        members: list[list[int]] = [[] for _ in range(int(self.group.max(initial=-1)) + 1)]
        for t, g in enumerate(self.group):
            members[g].append(t)
        return members

    def contended(self) -> bool:
        """Whether any link has a queue."""
        return bool((self.hop_res >= 0).any())

    def with_cost(self, cost: Floats) -> Problem:
        """The same with other costs."""
        return replace(self, cost=cost)


def make_problem(
    graph: TaskGraph,
    platform: Platform,
    fix: Mapping[str, str] | None = None,
    *,
    talk: bool = True,
) -> Problem:
    """talk: refuse edges between devices that no link joins.

    Raises: InputError (malformed), Infeasible (a task, group, pin or link is unserved)."""
    graph.verify()
    platform.verify()
    ids = graph.order()
    index = {t: i for i, t in enumerate(ids)}
    by_id, names = graph.by_id(), [d.name for d in platform.devices]
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
    group = _groups(graph, ids)
    _pin(graph, names, index, group, cost, fix or {})
    weight = np.array([by_id[t].weight_bytes for t in ids], float)
    memory = np.array(
        [np.inf if d.memory_bytes is None else d.memory_bytes for d in platform.devices], float
    )
    _fit(ids, names, group, cost, weight, memory)
    values = [(index[s], t, b, [index[c] for c in cs]) for s, t, b, cs in graph.values()]
    use_ptr, use = _csr([sorted(cs) for *_, cs in values])
    inp: list[list[int]] = [[] for _ in range(n)]
    out: list[list[int]] = [[] for _ in range(n)]
    for v, (s, _, _, cs) in enumerate(values):
        out[s].append(v)
        for c in cs:
            inp[c].append(v)
    inp_ptr, inp_all = _csr(inp)
    out_ptr, out_all = _csr(out)
    routes, resources = _routes(platform)
    hops = [hop for r in routes for hop in r or ()]
    hop_ptr = np.cumsum([0] + [len(r or ()) for r in routes]).astype(np.int64)
    lat, inv = np.full((m, m), np.inf), np.full((m, m), np.inf)
    for k, r in enumerate(routes):
        if r is not None:
            lat[divmod(k, m)] = sum(h[3] for h in r)
            inv[divmod(k, m)] = sum(h[4] for h in r)
    problem = Problem(
        graph,
        platform,
        ids,
        cost,
        group,
        weight,
        np.array([by_id[t].activation_bytes for t in ids], float),
        memory,
        np.array([v[0] for v in values], np.int64),
        np.array([v[2] for v in values], float),
        [v[1] for v in values],
        use_ptr,
        use,
        inp_ptr,
        inp_all,
        out_ptr,
        out_all,
        hop_ptr,
        np.array([h[0] for h in hops], np.int64),
        np.array([h[1] for h in hops], np.int64),
        np.array([h[2] for h in hops], np.int64),
        np.array([h[3] for h in hops], float),
        np.array([h[4] for h in hops], float),
        lat,
        inv,
        resources,
        index,
    )
    if talk:
        _reachable(problem, names)
    return problem


def _csr(lists: list[list[int]]) -> tuple[Ints, Ints]:
    ptr = np.cumsum([0] + [len(x) for x in lists]).astype(np.int64)
    return ptr, np.array([y for x in lists for y in x], np.int64)


def _groups(graph: TaskGraph, ids: list[str]) -> Ints:
    by_id, number = graph.by_id(), {}
    keys = [by_id[t].colocate for t in ids]
    return np.array(
        [
            number.setdefault(("label", k) if k is not None else ("task", t), len(number))
            for t, k in zip(ids, keys, strict=True)
        ],
        np.int64,
    )


def _pin(
    graph: TaskGraph,
    names: list[str],
    index: dict[str, int],
    group: Ints,
    cost: Floats,
    fix: Mapping[str, str],
) -> None:
    """Removes devices that pins, --fix or colocation exclude."""
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
        cost[i, np.arange(len(names)) != j] = np.inf
    can = np.ones((int(group.max(initial=-1)) + 1, len(names)), bool)
    np.logical_and.at(can, group, np.isfinite(cost))
    for task, i in index.items():
        if not can[group[i]].any():
            raise Infeasible(
                f"the tasks colocated with {task!r} have no device in common",
                where=f"colocation or pin of task {task}",
                why="their costs and pins leave no device that can run all of them",
                hint="remove a pin or the colocation label",
            )
    cost[~can[group]] = np.inf


def _fit(
    ids: list[str], names: list[str], group: Ints, cost: Floats, weight: Floats, memory: Floats
) -> None:
    """Removes devices that are too small for a group; refuses what cannot fit anywhere."""
    total = np.zeros(int(group.max(initial=-1)) + 1)
    np.add.at(total, group, weight)
    cost[total[group][:, None] > memory[None, :]] = np.inf
    for i, t in enumerate(ids):
        if not np.isfinite(cost[i]).any():
            raise Infeasible(
                f"no device that may run task {t!r} has memory for it",
                where=f"memory: task {t} and those colocated with it",
                why=f"{total[group[i]]:.0f} bytes of weights; memory: "
                + ", ".join(f"{d} {b:.0f}" for d, b in zip(names, memory, strict=True)),
                hint="split the layer or use a larger device",
            )
    usable = np.isfinite(cost).any(axis=0)
    if weight.sum() > memory[usable].sum():
        raise Infeasible(
            "the weights do not fit into all devices together",
            where="memory",
            why=f"{weight.sum():.0f} bytes of weights, {memory[usable].sum():.0f} bytes of memory",
            hint="use more or larger devices",
        )


def _routes(
    platform: Platform,
) -> tuple[list[list[tuple[int, int, int, float, float]] | None], list[str]]:
    """Per pair (a, b): hops (link, to, resource, latency, ms per byte), or None. Fewest links,
    then the least time per byte, then the least latency, then file order."""
    names = [d.name for d in platform.devices]
    m, at = len(names), {d: i for i, d in enumerate(names)}
    resources: dict[str, int] = {}
    arcs: list[list[tuple[int, int, int, float, float]]] = [[] for _ in names]
    for k, link in enumerate(platform.links):
        for a, b in (link.between, link.between[::-1]):
            label = link.shared
            if label is None and link.duplex == "half":
                label = link.name
            elif label is None and link.duplex == "full":
                label = f"{link.name}:{a}>{b}"
            res = -1 if label is None else resources.setdefault(label, len(resources))
            arcs[at[a]].append((k, at[b], res, link.latency_ms, 1.0 / platform.rate(link)))
    routes: list[list[tuple[int, int, int, float, float]] | None] = []
    for a in range(m):
        best: dict[int, tuple[int, float, float]] = {}
        via: dict[int, tuple[int, tuple[int, int, int, float, float]]] = {}
        heap: list[tuple[tuple[int, float, float], int, int, int]] = [((0, 0.0, 0.0), -1, a, -1)]
        best[a] = (0, 0.0, 0.0)
        done: set[int] = set()
        while heap:
            key, _, x, _ = heapq.heappop(heap)
            if x in done:
                continue
            done.add(x)
            for arc in arcs[x]:
                link, y, _, latency, per_byte = arc
                new = (key[0] + 1, key[1] + per_byte, key[2] + latency)
                if y not in best or new < best[y]:
                    best[y], via[y] = new, (x, arc)
                    heapq.heappush(heap, (new, link, y, x))
        for b in range(m):
            hops: list[tuple[int, int, int, float, float]] | None = []
            while b != a and hops is not None:
                if b not in via:
                    hops = None
                    break
                b, arc = via[b]
                hops.append(arc)
            routes.append(None if hops is None else hops[::-1])
    return routes, list(resources)


def _reachable(p: Problem, names: list[str]) -> None:
    """Refuses edges none of whose allowed device pairs can talk."""
    talk = np.isfinite(p.lat)
    if talk.all():
        return
    for s, t, _ in p.edges():
        a, b = p.allowed(s), p.allowed(t)
        if not talk[np.ix_(a, b)].any():
            raise Infeasible(
                f"{p.ids[s]!r} feeds {p.ids[t]!r}, but no link joins their devices",
                where=f"links: edge {p.ids[s]} -> {p.ids[t]}",
                why=f"none of {[names[x] for x in a]} reaches one of {[names[x] for x in b]}",
                hint="add a link or allow both on one device",
            )
