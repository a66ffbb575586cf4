"""A task graph on a platform as arrays: what every solver here reads.

Takes: a TaskGraph and a Platform.  Leaves: a `Problem`: indices instead of names, costs as a matrix
with inf where a device may not run a task (no cost, pinned or fixed elsewhere, memory smaller than
its colocation group), routes between devices as hops over links, contended links and buses as
resources.  Assumes: nothing; everything is verified, and what is plainly impossible is refused here
with the task, memory, pin or link at fault.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from csp_embed.errors import Infeasible
from csp_embed.ir.network import Platform, TaskGraph
from csp_embed.partition.arrays.allowed import (
    Floats,
    Ints,
    bearable,
    costs_of,
    keep_memory,
    keep_pins,
)
from csp_embed.partition.arrays.decimals import magnitude, number
from csp_embed.partition.arrays.routes import Arc, arcs_of, routes_by_size


@dataclass(frozen=True)
class Problem:
    """Arrays of one problem. n tasks in topological order (`ids`), m devices, values, routes.

    cost [n, m] ms, inf = forbidden. group [n]: colocation group of each task (tasks without a label
    are alone). weight, activation [n] bytes; memory [m] bytes (inf = unlimited).
    value_src, value_bytes [v]; CSR lists: `use` (consumers of a value), `inp` (values that a task
    reads), `out` (values that it makes).
    Values of like size share their routes; row [v] = m times the number of that class. Hops of the
    route a -> b: hop_ptr[(row+a)*m+b] … [+1] into hop_link, hop_to, hop_res (resource or -1 where
    uncontended), hop_lat ms, hop_inv ms per byte; hop_from, and hand [h, 4]: what a value takes of
    the devices at the hop's beginning (ms, ms per byte) and end (likewise).
    lat, inv [classes * m, m], at (row+a, b): the hops' sums; 0 where a = b. Where a cannot reach b,
    lat is inf and inv 0 (never inf: a value may have no bytes).
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
    hop_from: Ints
    hop_to: Ints
    hop_res: Ints
    hop_lat: Floats
    hop_inv: Floats
    hand: Floats
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

    def handled(self) -> bool:
        """Whether a value takes time of the devices between which it travels."""
        return bool(self.hand.any())

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
    # Verified first: what follows trusts names and numbers.
    graph.verify()
    platform.verify()
    bearable(graph, platform)
    ids = graph.order()
    index = {t: i for i, t in enumerate(ids)}
    by_id, names = graph.by_id(), [d.name for d in platform.devices]
    n, m = len(ids), len(names)
    cost = costs_of(graph, ids, platform)
    group = _groups(graph, ids)
    # Pins first: memory is then asked only of devices that are left.
    keep_pins(graph, names, index, group, cost, fix or {})
    weight = np.array([by_id[t].weight_bytes for t in ids], float)
    memory = np.array(
        [np.inf if d.memory_bytes is None else d.memory_bytes for d in platform.devices], float
    )
    keep_memory(ids, names, group, cost, weight, memory)
    values = [(index[s], t, b, [index[c] for c in cs]) for s, t, b, cs in graph.values()]
    use_ptr, use = csr([sorted(cs) for *_, cs in values])
    inp: list[list[int]] = [[] for _ in range(n)]
    out: list[list[int]] = [[] for _ in range(n)]
    for v, (s, _, _, cs) in enumerate(values):
        out[s].append(v)
        for c in cs:
            inp[c].append(v)
    inp_ptr, inp_all = csr(inp)
    out_ptr, out_all = csr(out)
    arcs, resources = arcs_of(platform)
    classes, kind = routes_by_size(arcs, [v[2] for v in values], platform)
    routes = [r for routes in classes for r in routes]
    hops = [hop for r in routes for hop in r or ()]
    begins = [x for k, r in enumerate(routes) for x in _begins(k // m % m, r or [])]
    hop_ptr = np.cumsum([0] + [len(r or ()) for r in routes]).astype(np.int64)
    # inf where there is no route; per byte 0, since inf times 0 bytes would be nan.
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
        np.array(begins, np.int64),
        np.array([h[1] for h in hops], np.int64),
        np.array([h[2] for h in hops], np.int64),
        np.array([h[3] for h in hops], float),
        np.array([h[4] for h in hops], float),
        _hands(platform, begins, hops),
        lat,
        inv,
        resources,
        # Rows of a class begin at m times its number.
        m * np.array(kind, np.int64),
        index,
    )
    if talk:
        _reachable(problem, names)
    return problem


def _begins(a: int, route: Sequence[Arc]) -> list[int]:
    """Where each hop of a route from a begins: where the one before ends."""
    return [a, *(arc[1] for arc in route[:-1])][: len(route)]


def _hands(platform: Platform, begins: Sequence[int], hops: Sequence[Arc]) -> Floats:
    """What each hop takes of the devices at its two ends, as `Problem.hand` has it."""
    out = np.zeros((len(hops), 4))
    # Hops are many, links that state it few: mostly none.
    known: dict[tuple[int, int], tuple[float, float]] = {}
    at = {d.name: i for i, d in enumerate(platform.devices)}
    for k, link in enumerate(platform.links):
        for end, own in zip(link.between, link.handling or (), strict=False):
            by_size = float(1 / number(own.bytes_per_ms)) if own.bytes_per_ms else 0.0
            known[k, at[end]] = own.ms, by_size
    for row, (a, hop) in enumerate(zip(begins, hops, strict=True) if known else ()):
        for side, device in ((0, a), (2, hop[1])):
            out[row, side : side + 2] = known.get((hop[0], device), (0.0, 0.0))
    return out


def normalised(p: Problem) -> Problem:
    """The same problem with times of the order of 1 and whole bytes, so that no constant of a
    search depends on the units that somebody chose.

    Times are shifted by a power of ten, which leaves the digits of decimals as they are: the same
    graph in another unit is searched in the same way. `unit` tells how many ms 1 is."""
    able = np.isfinite(p.cost)
    # Times of links count too: they may be longer than all costs.
    top = max(float(p.cost[able].max(initial=0.0)), float(_longest(p).max(initial=0.0)))
    return in_unit(p, p.unit * Fraction(10) ** magnitude(top) if top > 0 else p.unit)


def in_unit(p: Problem, unit: Fraction) -> Problem:
    """The same problem with another `unit`, and bytes as `normalised` has them."""
    # A factor of 1 keeps arrays as they are.
    factor, p = p.unit / unit, _whole_bytes(p)
    if factor == 1:
        return p

    def moved(x: Floats) -> Floats:
        # Each different number is shifted once, as a decimal: costs repeat.
        values, where = np.unique(x, return_inverse=True)
        known = [v if math.isinf(v) else float(number(v) * factor) for v in values.tolist()]
        return np.array(known, float)[where].reshape(x.shape)

    return replace(
        p, cost=moved(p.cost), hop_lat=moved(p.hop_lat), hop_inv=moved(p.hop_inv),
        lat=moved(p.lat), inv=moved(p.inv), hand=moved(p.hand), unit=unit,
    )  # fmt: skip


def _longest(p: Problem) -> Floats:
    """ms of the slowest hop of each value."""
    # By different sizes: values of one size have the same hops.
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
    # 2^53: beyond, doubles are not exact.
    if den * max(parts) * (p.n + 1) > 2**53:
        return p

    def whole(x: Floats) -> Floats:
        return np.array([v if math.isinf(v) else float(number(v) * den) for v in x], float)

    return replace(
        p, weight=whole(p.weight), activation=whole(p.activation), memory=whole(p.memory)
    )


def csr(lists: list[list[int]]) -> tuple[Ints, Ints]:
    """(where each list begins, and one entry more; all entries in a row): compressed rows."""
    ptr = np.cumsum([0] + [len(x) for x in lists]).astype(np.int64)
    return ptr, np.array([y for x in lists for y in x], np.int64)


def _groups(graph: TaskGraph, ids: list[str]) -> Ints:
    by_id, number = graph.by_id(), {}
    # A label is never mistaken for a task's id.
    keys = [by_id[t].colocate for t in ids]
    return np.array(
        [
            number.setdefault(("label", k) if k is not None else ("task", t), len(number))
            for t, k in zip(ids, keys, strict=True)
        ],
        np.int64,
    )


def _reachable(p: Problem, names: list[str]) -> None:
    """Removes devices from which a task cannot reach any device of a neighbour, until nothing
    changes; refuses a task of which nothing is left."""
    # The first class tells who can talk.
    talk = np.isfinite(p.lat[: p.m])
    if talk.all():
        return
    # A removal may leave a neighbour without a way: repeated until nothing changes.
    members, edges, changed = p.groups(), p.edges(), True
    while changed:
        changed = False
        for s, t, _ in edges:
            one, two = np.isfinite(p.cost[s]), np.isfinite(p.cost[t])
            # A device stays if some device of the other end is reached from it.
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
                    # Colocated tasks lose it together.
                    p.cost[np.ix_(members[p.group[task]], np.flatnonzero(~after))] = np.inf
            for task in (s, t):
                if not np.isfinite(p.cost[task]).any():
                    raise Infeasible(
                        f"task {p.ids[task]!r} has no device that reaches its neighbours'",
                        where=f"links: tasks around {p.ids[task]}",
                        why="no link joins its devices with those of what it feeds and reads",
                        hint="add a link or allow them on one device",
                    )
