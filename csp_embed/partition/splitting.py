"""The modularity-based splitting heuristic.

Takes: a Problem, the incumbent.  Leaves: the incumbent improved.

1. Communities: Louvain on the undirected graph, weighted by transfer times, fixed seed.
2. Repair: the quotient of communities is usually cyclic. Tasks are put into a topological order
   that stays within a community as long as it can; its runs, cut and merged to a bounded size, are
   the parts. Intervals of a topological order have an acyclic quotient.
3. Parts: with everything before and behind fixed (availability before, longest paths behind), the
   devices and order of a part's tasks are solved exactly by CP-SAT.
4. Boundaries: the same on windows shifted by half, over the order by start times.

Throughput: communities are merged groups; CP-SAT places them exactly, then communities are opened a
few at a time while the others stay merged.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any, NamedTuple

import networkx as nx
import numpy as np

from csp_embed.partition import kernels, latency, throughput
from csp_embed.partition.list_scheduling import ListScheduler, Placement
from csp_embed.partition.problem import Floats, Ints, Problem
from csp_embed.partition.search import Clock, Incumbent
from csp_embed.partition.timetable import decoded
from csp_embed.solver import cpsat
from csp_embed.solver.params import Params

PART = 12  # tasks of one exact subproblem
BUDGET = 0.3  # deterministic units for all subproblems of a pass
LEAST = 0.003  # of these for one subproblem at least


def communities(p: Problem, seed: int = 0) -> list[list[int]]:
    """Louvain communities of the groups, as task lists, by first task."""
    graph: Any = nx.Graph()
    graph.add_nodes_from(range(int(p.group.max(initial=-1)) + 1))
    away = np.isfinite(p.lat) & ~np.eye(p.m, dtype=bool)
    lat = float(p.lat[away].mean()) if away.any() else 0.0
    inv = float(p.inv[away].mean()) if away.any() else 0.0
    for u, t, v in p.edges():
        a, b = int(p.group[u]), int(p.group[t])
        if a != b:
            weight = lat + float(p.value_bytes[v]) * inv + 1e-9
            old = graph.get_edge_data(a, b, {"weight": 0.0})["weight"]
            graph.add_edge(a, b, weight=old + weight)
    found = nx.community.louvain_communities(graph, weight="weight", seed=seed)
    members = p.groups()
    lists = [sorted(t for g in sorted(c) for t in members[g]) for c in found]
    return sorted(lists)


def cyclic(p: Problem, label: Ints) -> bool:
    """Whether the quotient of a labelling has a cycle."""
    quotient: Any = nx.DiGraph()
    quotient.add_edges_from(
        (int(label[u]), int(label[t])) for u, t, _ in p.edges() if label[u] != label[t]
    )
    return not nx.is_directed_acyclic_graph(quotient)


def runs(p: Problem, parts: list[list[int]], size: int) -> list[list[int]]:
    """Parts repaired: intervals of one topological order, at most `size` tasks each."""
    label = np.zeros(p.n, np.int64)
    for i, part in enumerate(parts):
        label[part] = i
    waiting = np.diff(p.inp_ptr).tolist()
    ready: dict[int, list[int]] = {}
    for t in range(p.n):
        if not waiting[t]:
            ready.setdefault(int(label[t]), []).append(t)
    pieces: list[list[int]] = []
    here = -1
    while ready:
        if here not in ready:  # the ready community whose first task is earliest
            here = min(ready, key=lambda c: ready[c][0])
            pieces.append([])
        t = ready[here].pop(0)
        if not ready[here]:
            del ready[here]
        pieces[-1].append(t)
        for v in p.outputs(t):
            for c in p.consumers(int(v)):
                waiting[c] -= 1
                if not waiting[c]:
                    ready.setdefault(int(label[c]), []).append(int(c))
    done: list[list[int]] = []
    for piece in pieces:
        for i in range(0, len(piece), size):
            chunk = piece[i : i + size]
            if done and len(done[-1]) + len(chunk) <= size:
                done[-1] += chunk
            else:
                done.append(chunk)
    return done


def split_latency(
    p: Problem, inc: Incumbent, proof: latency.Proof, clock: Clock, found: list[Placement]
) -> None:
    """Steps 1 to 4 for the makespan; between 3 and 4 a short annealing, also from `found`."""
    if p.n < 2 or p.m < 2 or inc.request.shaped:
        if inc.best is None or inc.request.shaped:
            latency.exact(p, inc, proof, clock, 10.0)
        return
    parts = runs(p, communities(p, inc.request.seed), PART)
    scheduler = ListScheduler(p, compiled=p.n > latency.SMALL)
    order = np.array([t for part in parts for t in part], np.int64)
    first = scheduler.run("split", order, kernels.HEFT, scheduler.none, np.full(p.n, -1, np.int64))
    if np.isfinite(first.value):
        sizes = np.cumsum([0] + [len(part) for part in parts])
        bounds = [(int(a), int(b)) for a, b in itertools.pairwise(sizes)]
        improve(p, inc, proof, clock, order, first.dev, bounds)
    if inc.best is not None and inc.best.table is not None and not proof.interrupted:
        best = inc.best
        start = Placement(best.table.order(), best.dev, best.value, "split")
        steps = int(min(200_000, max(10_000, 1.5e7 / p.n)) * clock.request.effort)
        latency.annealed(p, inc, clock, [start, *found[:2]], max(steps, 1), 0.2)
    polish(p, inc, proof, clock, 2 if p.n <= 100 else 1)


def polish(p: Problem, inc: Incumbent, proof: latency.Proof, clock: Clock, passes: int) -> None:
    """Windows over the order by start times, shifted by half from pass to pass."""
    for number in range(passes):
        if inc.best is None or inc.best.table is None or proof.interrupted or clock.left() < 0.2:
            return
        order = inc.best.table.order()
        shift = PART // 2 if number % 2 == 0 else PART
        marks = [0, *range(shift, p.n, PART), p.n]
        improve(p, inc, proof, clock, order, inc.best.dev, list(itertools.pairwise(marks)))


def improve(
    p: Problem, inc: Incumbent, proof: latency.Proof, clock: Clock,
    order: Ints, dev: Ints, intervals: list[tuple[int, int]],
) -> None:  # fmt: skip
    """Solves one interval of the order after the other; keeps what the decoder confirms."""
    order, dev = order.copy(), dev.copy()
    # Proposals are compared by appended times; contention is judged by the decoder at the end.
    limit = max(BUDGET / max(len(intervals), 1), LEAST)
    # What lies behind a window does not change before the window is solved.
    behind, then = remaining(p, order, dev, [hi for _, hi in intervals])
    finish, free = np.zeros(p.n), np.zeros(p.m)
    for number, (lo, hi) in enumerate(intervals):
        if proof.interrupted or clock.left() < 0.1:
            break
        fixed = Fixed(finish, free, behind, then[hi])
        found = window(p, order, dev, lo, hi, fixed, clock, limit)
        if found is not None:
            order[lo:hi], changed = found
            dev[order[lo:hi]] = changed
        for t in order[lo:hi]:
            _append(p, int(t), dev, finish, free)
        clock.tell("parts", number + 1, len(intervals))
    inc.offer(dev, decoded(p, order, dev), "split")


class Fixed(NamedTuple):
    """What surrounds a window. finish [n], free [m]: end of earlier tasks, when devices are free.
    behind [n], then [m]: longest path from the start of each later task, and of the first later
    task of each device, to the end of all, along data and device sequences."""

    finish: Floats
    free: Floats
    behind: Floats
    then: Floats


def window(
    p: Problem, order: Ints, dev: Ints, lo: int, hi: int, fixed: Fixed, clock: Clock, limit: float
) -> tuple[Ints, Ints] | None:
    """The best order and devices of order[lo:hi], all else fixed; None where nothing was found."""
    finish, free, behind, then = fixed
    tasks = [int(t) for t in order[lo:hi]]
    inside = {t: i for i, t in enumerate(tasks)}
    cp = cpsat.new_model()
    horizon = now = _value(p, order, dev, lo, hi, fixed)
    factor = 1e6 / max(horizon, 1e-12)
    top = int(now * factor) + 2

    def units(ms: float) -> int:
        return int(min(ms, 2 * horizon + 1) * factor)

    goal = cp.new_int_var(0, top, "")
    outside = {int(p.group[t]) for t in order[:lo]} | {int(p.group[t]) for t in order[hi:]}
    shared: dict[int, dict[int, Any]] = {}
    x: list[dict[int, Any]] = []
    start, end = [], []
    lines: list[list[Any]] = [[] for _ in range(p.m)]
    for t in tasks:
        g = int(p.group[t])
        if g not in shared:
            where = [int(dev[t])] if g in outside else p.allowed(t)
            shared[g] = {d: cp.new_bool_var("") for d in where}
            cp.add_exactly_one(shared[g].values())
        here = shared[g]
        x.append(here)
        s = cp.new_int_var(0, top, "")
        e = s + sum(units(float(p.cost[t, d])) * on for d, on in here.items())
        start.append(s)
        end.append(e)
        for d, on in here.items():
            ready, tail = float(free[d]), float(then[d])
            for v in p.inputs(t):
                u = int(p.value_src[v])
                if u not in inside:
                    ready = max(ready, finish[u] + p.comm(int(v), int(dev[u]), d))
            for v in p.outputs(t):
                for c in p.consumers(int(v)):
                    if int(c) not in inside:
                        tail = max(tail, p.comm(int(v), d, int(dev[c])) + behind[c])
            if not np.isfinite(ready + tail):
                cp.add(on == 0)
                continue
            cp.add(s >= units(ready)).only_enforce_if(on)
            cp.add(goal >= e + units(tail)).only_enforce_if(on)
            length = units(float(p.cost[t, d]))
            if length:
                lines[d].append(cp.new_optional_fixed_size_interval_var(s, length, on, ""))
        cp.add(goal >= e)
    for i, t in enumerate(tasks):
        for v in p.inputs(t):
            u = inside.get(int(p.value_src[v]))
            if u is None:
                continue
            cp.add(start[i] >= end[u])
            for a, xa in x[u].items():
                for b, xb in x[i].items():
                    wait = p.comm(int(v), a, b)
                    if not np.isfinite(wait):
                        cp.add_bool_or([xa.negated(), xb.negated()])
                    elif wait > 0:
                        cp.add(start[i] >= end[u] + units(wait)).only_enforce_if(xa, xb)
    for line in lines:
        if len(line) > 1:
            cp.add_no_overlap(line)
    _memory(p, cp, dev, shared)
    for i, t in enumerate(tasks):
        for d, on in x[i].items():
            cp.add_hint(on, int(dev[t] == d))
    cp.minimize(goal)
    params = Params(
        clock.request.seed,
        deterministic_limit=limit * clock.request.effort,
        time_limit=max(0.05, clock.left()) if clock.wall else None,
    )
    solved = cpsat.solve(cp, params)
    if not solved.found:
        return None
    chosen = [next(d for d, on in here.items() if solved.value(on)) for here in x]
    at = [solved.value(s) for s in start]
    length = [float(p.cost[t, d]) > 0 for t, d in zip(tasks, chosen, strict=True)]
    ranked = sorted(range(len(tasks)), key=lambda i: (at[i], length[i], tasks[i]))
    new = np.array([tasks[i] for i in ranked], np.int64)
    if not _topological(p, new):
        return None
    devices = np.array([chosen[i] for i in ranked], np.int64)
    trial = dev.copy()
    trial[new] = devices
    whole = order.copy()
    whole[lo:hi] = new
    value = _value(p, whole, trial, lo, hi, fixed)
    return (new, devices) if value <= now else None


def _topological(p: Problem, new: Ints) -> bool:
    place = {int(t): i for i, t in enumerate(new)}
    return all(
        place[int(p.value_src[v])] < i
        for t, i in place.items()
        for v in p.inputs(t)
        if int(p.value_src[v]) in place
    )


def _memory(p: Problem, cp: Any, dev: Ints, shared: dict[int, dict[int, Any]]) -> None:
    """Weights of the window's groups into what the others leave."""
    if not np.isfinite(p.memory).any():
        return
    loose = np.isin(p.group, list(shared))
    used = np.bincount(dev[~loose], p.weight[~loose], minlength=p.m)
    weight = np.bincount(p.group, p.weight)
    for d in range(p.m):
        if np.isfinite(p.memory[d]):
            terms = [int(np.ceil(weight[g])) * on[d] for g, on in shared.items() if d in on]
            cp.add(sum(terms) <= int(p.memory[d] - used[d]))


def _append(p: Problem, t: int, dev: Ints, finish: Floats, free: Floats) -> None:
    d = int(dev[t])
    ready = float(free[d])
    for v in p.inputs(t):
        u = int(p.value_src[v])
        ready = max(ready, finish[u] + p.comm(int(v), int(dev[u]), d))
    finish[t] = free[d] = ready + float(p.cost[t, d])


def remaining(
    p: Problem, order: Ints, dev: Ints, marks: list[int]
) -> tuple[Floats, dict[int, Floats]]:
    """behind [n] of all tasks, and `then` [m] at each of the marked positions (see `Fixed`)."""
    behind, then = np.zeros(p.n), np.zeros(p.m)
    kept = {p.n: then.copy()}
    wanted = set(marks)
    for k in range(p.n - 1, -1, -1):
        t = int(order[k])
        d = int(dev[t])
        tail = float(then[d])
        for v in p.outputs(t):
            for c in p.consumers(int(v)):
                tail = max(tail, p.comm(int(v), d, int(dev[c])) + behind[c])
        behind[t] = then[d] = float(p.cost[t, d]) + tail
        if k in wanted:
            kept[k] = then.copy()
    return behind, kept


def _value(p: Problem, order: Ints, dev: Ints, lo: int, hi: int, fixed: Fixed) -> float:
    """Makespan through the window: its tasks appended, then the longest paths behind."""
    finish, free = fixed.finish.copy(), fixed.free.copy()
    behind, then = fixed.behind, fixed.then
    for t in order[lo:hi]:
        _append(p, int(t), dev, finish, free)
    value = float((free + then).max())
    inside = set(order[lo:hi].tolist())
    for t in order[lo:hi]:
        for v in p.outputs(int(t)):
            for c in p.consumers(int(v)):
                if int(c) not in inside:
                    wait = p.comm(int(v), int(dev[t]), int(dev[c]))
                    value = max(value, float(finish[t] + wait + behind[c]))
    return value


def split_throughput(p: Problem, inc: Incumbent, proof: latency.Proof, clock: Clock) -> None:
    """Communities placed exactly as wholes, then opened a few at a time."""
    parts = communities(p, inc.request.seed)
    label = np.zeros(p.n, np.int64)
    for i, part in enumerate(parts):
        label[part] = i
    merged = merge(p, label)
    rough = latency.Proof()
    latency.exact(merged, inc, rough, clock, 0.5, 0.3)
    proof.interrupted |= rough.interrupted
    rng = np.random.default_rng(inc.request.seed)
    for number in range(4):
        if inc.best is None or proof.interrupted or clock.left() < 0.2:
            break
        # Open the communities that meet on the busiest device, and some others.
        busiest = int(np.bincount(inc.best.dev, p.cost[np.arange(p.n), inc.best.dev]).argmax())
        near = sorted({int(label[t]) for t in range(p.n) if inc.best.dev[t] == busiest})
        few = max(2, len(parts) // 6)
        opened = set(rng.permutation(near)[:few].tolist())
        opened |= set(rng.permutation(len(parts))[:few].tolist())
        finer = np.where(
            np.isin(label, list(opened)), p.n + np.arange(p.n), label * p.m + inc.best.dev
        )
        latency.exact(merge(p, finer), inc, rough, clock, 0.15, 0.3)
        proof.interrupted |= rough.interrupted
        clock.tell("communities", number + 1, 4)
    if inc.best is not None and not inc.request.shaped and p.n > latency.SMALL:
        q = throughput.load_arrays(p)
        throughput.balanced(p, inc, clock, q, int(50_000 * inc.request.effort), 0.5)


def merge(p: Problem, label: Ints) -> Problem:
    """The same problem where tasks of one label (and group) share a device, where some can."""
    joined: Any = nx.Graph()
    joined.add_nodes_from(range(p.n))
    for key in (label, p.group):
        first: dict[int, int] = {}
        for t in range(p.n):
            joined.add_edge(first.setdefault(int(key[t]), t), t)
    group = np.zeros(p.n, np.int64)
    cost = p.cost.copy()
    number = 0
    own = p.groups()
    for part in sorted(sorted(c) for c in nx.connected_components(joined)):
        together = np.isfinite(p.cost[part]).all(axis=0)
        together &= p.memory >= p.weight[part].sum()
        if together.any():
            group[part] = number
            cost[np.ix_(part, np.flatnonzero(~together))] = np.inf
            number += 1
            continue
        for g in sorted({int(p.group[t]) for t in part}):
            group[own[g]] = number
            number += 1
    return replace(p, group=group, cost=cost)
