"""Identical servers and repeated layers, collapsed and expanded.

Takes: a Problem whose devices belong to servers.  Leaves: a placement for throughput, or None where
the servers differ.

The topological order is cut into one run of nearly equal work per server. Runs of the same shape
(equal costs on a server's devices, equal inner edges) are solved once; the answer is copied to each
server that has such a run. Nothing is lost by trying it: the result is one more start.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from csp_embed.ir.network import THROUGHPUT, Edge, Platform, Task, TaskGraph
from csp_embed.partition.arrays.symmetry import trimmed
from csp_embed.partition.arrays.view import Floats, Ints, Problem, make_problem, normalised
from csp_embed.partition.methods.chains import orders
from csp_embed.partition.methods.period.period import split_throughput
from csp_embed.partition.methods.period.throughput import starts
from csp_embed.partition.proof import Proof, first_bounds, settled
from csp_embed.partition.request import Clock, Incumbent, Request


def servers(p: Problem) -> list[list[int]] | None:
    """Device numbers of each server in matching order; None where servers differ or are alone."""
    found: dict[str, list[int]] = {}
    for i, d in enumerate(p.platform.devices):
        if d.server is None:
            return None
        found.setdefault(d.server, []).append(i)
    groups = list(found.values())
    first = groups[0]
    if len(groups) < 2 or len(first) < 2:
        return None
    for other in groups[1:]:
        if len(other) != len(first) or not np.array_equal(p.cost[:, first], p.cost[:, other]):
            return None
        if not np.array_equal(p.memory[first], p.memory[other]):
            return None
        for table in (p.lat, p.inv):
            if not np.array_equal(table[np.ix_(first, first)], table[np.ix_(other, other)]):
                return None
    return groups


def shape(p: Problem, run: Ints, devices: list[int]) -> tuple[object, ...]:
    """Equal for runs that are the same but for names."""
    place = {int(t): i for i, t in enumerate(run)}
    values = []
    for t in run:
        for v in p.outputs(int(t)):
            readers = tuple(place[int(c)] for c in p.consumers(int(v)) if int(c) in place)
            values.append((place[int(t)], float(p.value_bytes[v]), readers))
    rows: Floats = p.cost[np.ix_(run, np.array(devices))]
    return (rows.tobytes(), p.weight[run].tobytes(), p.activation[run].tobytes(), tuple(values))


def collapsed(p: Problem, clock: Clock) -> Ints | None:
    """The placement. Solves each distinct run on the first server, exactly within a limit."""
    groups = servers(p)
    if groups is None or p.n < 2 * len(groups):
        return None
    order = orders(p)[0]
    rate = np.where(
        np.isfinite(p.cost[:, groups[0]]), 1 / np.maximum(p.cost[:, groups[0]], 1e-9), 0
    )
    work = np.cumsum(1 / np.maximum(rate.sum(axis=1), 1e-12)[order])
    cuts = np.searchsorted(work, work[-1] * np.arange(1, len(groups)) / len(groups)) + 1
    dev = np.zeros(p.n, np.int64)
    known: dict[tuple[object, ...], Ints] = {}
    for devices, run in zip(groups, np.split(order, cuts), strict=True):
        if not len(run):
            continue
        key = shape(p, run, groups[0])
        if key not in known:
            local = _solve(p, run, groups[0], clock)
            if local is None:
                return None
            known[key] = local
        dev[run] = np.array(devices, np.int64)[known[key]]
    return dev


def _solve(p: Problem, run: Ints, devices: list[int], clock: Clock) -> Ints | None:
    """Device (by place within the server) of each task of a run alone on its server."""
    names = [p.platform.devices[d].name for d in devices]
    by_id, inside = p.graph.by_id(), {int(t) for t in run}
    keep = set(names)
    own = Platform(
        tuple(p.platform.devices[d] for d in devices),
        tuple(k for k in p.platform.links if set(k.between) <= keep),
        p.platform.buses,
    )
    # Alone on its server, a run sees no servers.
    own = replace(own, devices=tuple(replace(d, server=None) for d in own.devices))
    tasks = tuple(
        Task(
            p.ids[t],
            {
                device.name: by_id[p.ids[t]].cost_on(device) or 0.0
                for d, device in zip(devices, own.devices, strict=True)
                if np.isfinite(p.cost[t, d])
            },
            weight_bytes=by_id[p.ids[t]].weight_bytes,
            activation_bytes=by_id[p.ids[t]].activation_bytes,
            colocate=f"g{p.group[t]}",
        )
        for t in run
    )
    edges = tuple(
        Edge(p.ids[u], p.ids[t], float(p.value_bytes[v]), f"v{v}")
        for u, t, v in p.edges()
        if u in inside and t in inside
    )
    graph = TaskGraph(tasks, edges)
    q = normalised(make_problem(graph, trimmed(graph, own, ())))
    # No limit of its own: equal shares would leave none of the runs time enough.
    request = Request(THROUGHPUT, "split", seed=clock.request.seed, effort=clock.request.effort)
    inc, proof = Incumbent(q, request), Proof.of(q)
    first_bounds(q, proof, request)
    for name, dev in starts(q):
        inc.offer(dev, None, name)
    if not settled(q, inc, proof):
        split_throughput(q, inc, proof, clock.of(request, q.unit))
    if inc.best is None:
        return None
    chosen = {t: q.platform.devices[d].name for t, d in zip(q.ids, inc.best.dev, strict=True)}
    return np.array([names.index(chosen[p.ids[t]]) for t in run], np.int64)
