"""A task graph on a platform as arrays: what every solver here reads.

Takes: a TaskGraph and a Platform.  Leaves: a `Problem`: indices instead of names, costs as a matrix
with inf where a device may not run a task (no cost, pinned or fixed elsewhere, memory smaller than
its colocation group), routes between devices as hops over links, contended links and buses as
resources.  Assumes: nothing; everything is verified, and what is plainly impossible is refused here
with the task, memory, pin or link at fault.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from decimal import Decimal
from fractions import Fraction
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import Platform, TaskGraph

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
EXACT_ROUTES = 40  # devices
LEAST, MOST = 1e-100, 1e100  # positive times, sizes and rates that sums and quotients can bear


@lru_cache(1 << 16)
def number(x: float) -> Fraction:
    """The decimal that a number is written as, exactly."""
    return Fraction(repr(float(x)))


@dataclass(frozen=True)
class Problem:
    """Arrays of one problem. n tasks in topological order (`ids`), m devices, values, routes.

    cost [n, m] ms, inf = forbidden. group [n]: colocation group of each task (tasks without a label
    are alone). weight, activation [n] bytes; memory [m] bytes (inf = unlimited).
    value_src, value_bytes [v]; CSR lists: `use` (consumers of a value), `inp` (values that a task
    reads), `out` (values that it makes).
    Values of like size share their routes; row [v] = m times the number of that class. Hops of the
    route a -> b: hop_ptr[(row+a)*m+b] … [+1] into hop_link, hop_to, hop_res (resource or -1 where
    uncontended), hop_lat ms, hop_inv ms per byte. lat, inv [classes * m, m], at (row+a, b): their
    sums; 0 where a = b. Where a cannot reach b, lat is inf and inv 0 (never inf: a value may have
    no bytes).
    resources: names of the contended links (`a-b`, `a-b:a>b`) and buses.
    unit: ms per unit of the times here, see `normalised`.
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
    row: Ints
    index: dict[str, int] = field(default_factory=dict)
    unit: Fraction = Fraction(1)

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
        x = int(self.row[value]) + a
        return float(self.lat[x, b] + self.value_bytes[value] * self.inv[x, b]) if a != b else 0.0

    def waits(self, value: int) -> Floats:
        """`comm` [m, m] of a value; inf where devices cannot talk."""
        rows = slice(int(self.row[value]), int(self.row[value]) + self.m)
        return self.lat[rows] + self.value_bytes[value] * self.inv[rows]

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

    def hops(self, a: int, b: int, value: int) -> range:
        """Indices of the hops of a value's route a -> b."""
        return self.route(int(self.row[value]), a, b)

    def route(self, row: int, a: int, b: int) -> range:
        """Indices of the hops of the route a -> b of the values whose routes begin at `row`."""
        at = (row + a) * self.m + b
        return range(int(self.hop_ptr[at]), int(self.hop_ptr[at + 1]))

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
    _bearable(graph, platform)
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
    arcs, resources = _arcs(platform)
    classes, kind = routes_by_size(arcs, [v[2] for v in values], platform)
    routes = [r for routes in classes for r in routes]
    hops = [hop for r in routes for hop in r or ()]
    hop_ptr = np.cumsum([0] + [len(r or ()) for r in routes]).astype(np.int64)
    lat, inv = np.full((len(classes) * m, m), np.inf), np.zeros((len(classes) * m, m))
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
        m * np.array(kind, np.int64),
        index,
    )
    if talk:
        _reachable(problem, names)
    return problem


def _bearable(graph: TaskGraph, platform: Platform) -> None:
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
    rows += [(f"bus {b.name}", b.bytes_per_ms or 0) for b in platform.buses]
    for where, x in rows:
        if x and not LEAST <= x <= MOST:
            raise InputError(
                f"{where}: {x:g} is too {'large' if x > 1 else 'small'} to be added up",
                where=where,
                why="times (ms), sizes (bytes) and rates are 0, or lie between"
                f" {LEAST:g} and {MOST:g}",
                hint="state all of them in a larger or a smaller unit",
            )


def normalised(p: Problem) -> Problem:
    """The same problem with times of the order of 1 and whole bytes, so that no constant of a
    search depends on the units that somebody chose.

    Times are shifted by a power of ten, which leaves the digits of decimals as they are: the same
    graph in another unit is searched in the same way. `unit` tells how many ms 1 is."""
    able = np.isfinite(p.cost)
    top = max(float(p.cost[able].max(initial=0.0)), float(_longest(p).max(initial=0.0)))
    return in_unit(p, p.unit * Fraction(10) ** magnitude(top) if top > 0 else p.unit)


def magnitude(x: float) -> int:
    """The power of ten of a positive number's first digit."""
    return Decimal(repr(x)).adjusted()


def in_unit(p: Problem, unit: Fraction) -> Problem:
    """The same problem with another `unit`, and bytes as `normalised` has them."""
    factor, p = p.unit / unit, _whole_bytes(p)
    if factor == 1:
        return p

    def moved(x: Floats) -> Floats:
        values, where = np.unique(x, return_inverse=True)
        known = [v if math.isinf(v) else float(number(v) * factor) for v in values.tolist()]
        return np.array(known, float)[where].reshape(x.shape)

    return replace(
        p, cost=moved(p.cost), hop_lat=moved(p.hop_lat), hop_inv=moved(p.hop_inv),
        lat=moved(p.lat), inv=moved(p.inv), unit=unit,
    )  # fmt: skip


def _longest(p: Problem) -> Floats:
    """ms of the slowest hop of each value."""
    if not len(p.hop_lat):
        return np.zeros(0)
    return np.array([(p.hop_lat + b * p.hop_inv).max() for b in np.unique(p.value_bytes)])


def _whole_bytes(p: Problem) -> Problem:
    """Weights, activations and memories as multiples of a part of a byte that they all are, so that
    floats add them up exactly; as they were where they are too unlike for that."""
    tables = [p.weight, p.activation, p.memory[np.isfinite(p.memory)]]
    parts = {x for table in tables for x in np.unique(table).tolist()}
    if all(x == int(x) for x in parts):
        return p
    den = math.lcm(*(number(x).denominator for x in parts))
    if den * max(parts) * (p.n + 1) > 2**53:
        return p

    def whole(x: Floats) -> Floats:
        return np.array([v if math.isinf(v) else float(number(v) * den) for v in x], float)

    return replace(
        p, weight=whole(p.weight), activation=whole(p.activation), memory=whole(p.memory)
    )


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
    usable = np.isfinite(cost).any(axis=0)
    # A float sum may lose a little; what it cannot tell is left to the searches.
    if weight.sum() > memory[usable].sum() * (1 + 1e-9):
        raise Infeasible(
            "the weights do not fit into all devices together",
            where="memory",
            why=f"{weight.sum():.9g} bytes of weights, {memory[usable].sum():.9g} bytes of memory",
            hint="use more or larger devices",
        )


Arc = tuple[int, int, int, float, float]  # link, end, resource or -1, latency, ms per byte
Routes = list[list[Arc] | None]  # by pair a * m + b


def _arcs(platform: Platform) -> tuple[list[list[Arc]], list[str]]:
    """Both directions of every link, by the device where they begin, and the resources' names."""
    at = {d.name: i for i, d in enumerate(platform.devices)}
    resources: dict[str, int] = {}
    arcs: list[list[Arc]] = [[] for _ in at]
    for k, link in enumerate(platform.links):
        per_byte = float(1 / number(platform.rate(link)))
        for a, b in (link.between, link.between[::-1]):
            label = link.shared
            if label is None and link.duplex == "half":
                label = link.name
            elif label is None and link.duplex == "full":
                label = f"{link.name}:{a}>{b}"
            res = -1 if label is None else resources.setdefault(label, len(resources))
            arcs[at[a]].append((k, at[b], res, link.latency_ms, per_byte))
    return arcs, list(resources)


def routes_by_size(
    arcs: list[list[Arc]], sizes: list[float], platform: Platform
) -> tuple[list[Routes], list[int]]:
    """The cheapest routes of each class of sizes, and the class of each size.

    A route's time is linear in the bytes, so what is cheapest for two sizes is so for all between
    them: sizes are halved until both ends agree, which is at once on most platforms."""
    # Decimals add up exactly as Fractions; on large platforms ties may fall as floats round.
    real: Callable[[float], Any] = number if len(arcs) <= EXACT_ROUTES else float
    links = [(real(k.latency_ms), real(platform.rate(k))) for k in platform.links]
    order = sorted(set(sizes)) or [0.0]
    found: dict[float, Routes] = {}

    def fill(lo: int, hi: int) -> None:
        for k in (lo, hi):
            if order[k] not in found:
                bytes_ = real(order[k])
                found[order[k]] = _routes(arcs, [lat + bytes_ / rate for lat, rate in links])
        if found[order[lo]] == found[order[hi]]:
            for k in range(lo + 1, hi):
                found[order[k]] = found[order[lo]]
        elif hi - lo > 1:
            fill(lo, (lo + hi) // 2)
            fill((lo + hi) // 2, hi)

    fill(0, len(order) - 1)
    classes: list[Routes] = []
    kind: dict[float, int] = {}
    for size in order:
        if not classes or found[size] != classes[-1]:
            classes.append(found[size])
        kind[size] = len(classes) - 1
    return classes, [kind[s] for s in sizes]


def _routes(arcs: list[list[Arc]], price: Sequence[Any]) -> Routes:
    """Per pair (a, b): hops, or None. The least time over idle links (price: by link), then the
    fewest links, then the least time per byte and latency, then file order."""
    m = len(arcs)
    routes: Routes = []
    if _direct(arcs, price):
        best: dict[tuple[int, int], Arc] = {}
        for a, some in enumerate(arcs):
            for arc in some:
                old = best.get((a, arc[1]))
                new = (price[arc[0]], arc[4], arc[3])
                if old is None or new < (price[old[0]], old[4], old[3]):
                    best[a, arc[1]] = arc
        return [[] if a == b else [best[a, b]] for a in range(m) for b in range(m)]
    for a in range(m):
        near: dict[int, tuple[Any, ...]] = {a: (0, 0, 0.0, 0.0)}
        via: dict[int, tuple[int, Arc]] = {}
        heap: list[tuple[tuple[Any, ...], int, int]] = [(near[a], -1, a)]
        done: set[int] = set()
        while heap:
            key, _, x = heapq.heappop(heap)
            if x in done:
                continue
            done.add(x)
            for arc in arcs[x]:
                link, y, _, latency, per_byte = arc
                new = (key[0] + price[link], key[1] + 1, key[2] + per_byte, key[3] + latency)
                if y not in near or new < near[y]:
                    near[y], via[y] = new, (x, arc)
                    heapq.heappush(heap, (new, link, y))
        for b in range(m):
            hops: list[Arc] | None = []
            while b != a and hops is not None:
                if b not in via:
                    hops = None
                    break
                b, arc = via[b]
                hops.append(arc)
            routes.append(None if hops is None else hops[::-1])
    return routes


def _direct(arcs: list[list[Arc]], price: Sequence[Any]) -> bool:
    """Whether every pair has a link and no two links together are cheaper than any one."""
    m = len(arcs)
    if m < 2 or any(len({arc[1] for arc in some}) < m - 1 for some in arcs):
        return False
    return 2 * min(price) >= max(price)


def _reachable(p: Problem, names: list[str]) -> None:
    """Removes devices from which a task cannot reach any device of a neighbour, until nothing
    changes; refuses a task of which nothing is left."""
    talk = np.isfinite(p.lat[: p.m])
    if talk.all():
        return
    members, edges, changed = p.groups(), p.edges(), True
    while changed:
        changed = False
        for s, t, _ in edges:
            one, two = np.isfinite(p.cost[s]), np.isfinite(p.cost[t])
            sends, gets = one & talk[:, two].any(axis=1), two & talk[one].any(axis=0)
            if not sends.any() or not gets.any():
                raise Infeasible(
                    f"{p.ids[s]!r} feeds {p.ids[t]!r}, but no link joins their devices",
                    where=f"links: edge {p.ids[s]} -> {p.ids[t]}",
                    why=f"none of {[names[x] for x in np.flatnonzero(one)]} that fit their other"
                    f" neighbours reaches one of {[names[x] for x in np.flatnonzero(two)]}",
                    hint="add a link or allow both on one device",
                )
            for task, before, after in ((s, one, sends), (t, two, gets)):
                if (before != after).any():
                    changed = True
                    p.cost[np.ix_(members[p.group[task]], np.flatnonzero(~after))] = np.inf
            for task in (s, t):
                if not np.isfinite(p.cost[task]).any():
                    raise Infeasible(
                        f"task {p.ids[task]!r} has no device that reaches its neighbours'",
                        where=f"links: tasks around {p.ids[task]}",
                        why="no link joins its devices with those of what it feeds and reads",
                        hint="add a link or allow them on one device",
                    )
