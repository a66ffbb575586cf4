"""From decisions to a plan: exact times in ms, transfers by hop, loads.

Takes: a Problem and decisions of any solver.  Leaves: rows of a Plan.  Assumes: devices are allowed
and can talk.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from csp_embed.ir.network import LATENCY, THROUGHPUT, Assignment, Plan, Transfer
from csp_embed.partition.arrays.view import Floats, Ints, Problem
from csp_embed.partition.times import kernels


@dataclass(frozen=True)
class Timetable:
    """Start and finish [n]; hop (value, destination, k) -> (start, finish). In the Problem's unit
    as
    floats, or in ms as Fractions."""

    dev: Ints
    start: Floats
    finish: Floats
    hops: dict[tuple[int, int, int], tuple[float, float]] = field(default_factory=dict)

    @property
    def makespan(self) -> Any:
        """Time until the last task ends."""
        return self.finish.max() if len(self.finish) else 0.0

    def order(self) -> Ints:
        """Tasks by start; ties in topological order."""
        # Ties by number: topological, so that zero-length tasks keep their order.
        rows = range(len(self.start))
        return np.array(sorted(rows, key=lambda t: (self.start[t], self.finish[t], t)), np.int64)


def decoded(
    p: Problem, order: Ints, dev: Ints, k: Any = kernels, a: Any = None, w: Any = None
) -> Timetable:
    """The insertion decoder's timetable."""
    a = a or kernels.arrays(p)
    w = w or kernels.work(p)
    # The decoder leaves its times in the work space.
    k.decode(a, w, order, dev)
    v, b, i, hop = carried(p, dev)
    begin = w.hop_start[v, b, i]
    end = begin + (p.hop_lat[hop] + p.value_bytes[v] * p.hop_inv[hop])
    keys = zip(v.tolist(), b.tolist(), i.tolist(), strict=True)
    hops = dict(zip(keys, zip(begin.tolist(), end.tolist(), strict=True), strict=True))
    return Timetable(np.array(dev), w.start.copy(), w.finish.copy(), hops)


def sent(p: Problem, dev: Sequence[int] | Ints) -> list[tuple[int, int]]:
    """(value, destination) pairs: each value once to each other device that reads it."""
    at = np.asarray(dev, np.int64)
    value = np.repeat(np.arange(len(p.value_src)), np.diff(p.use_ptr))
    away = at[p.use] != at[p.value_src[value]]
    # Value and destination in one number: `unique` is then a sort of integers.
    v, b = np.divmod(np.unique(value[away] * p.m + at[p.use[away]]), p.m)
    return list(zip(v.tolist(), b.tolist(), strict=True))


def carried(p: Problem, dev: Sequence[int] | Ints) -> tuple[Ints, Ints, Ints, Ints]:
    """(value, destination, number of the hop on its route, hop) of every hop of every transfer."""
    v, b = np.array(sent(p, dev), np.int64).reshape(-1, 2).T
    route = (p.row[v] + np.asarray(dev, np.int64)[p.value_src[v]]) * p.m + b
    many = p.hop_ptr[route + 1] - p.hop_ptr[route]
    # Numbers of hops on their routes: a count that restarts at each transfer.
    within = np.arange(many.sum()) - np.repeat(np.cumsum(many) - many, many)
    hop = np.repeat(p.hop_ptr[route], many) + within
    return np.repeat(v, many), np.repeat(b, many), within, hop


def retimed(
    p: Problem, dev: Ints, start: Sequence[float], hop_start: dict[tuple[int, int, int], float],
    cost: Callable[[int, int], Any] | None = None, hop_time: Callable[[int, int], Any] | None =
    None, *, ends: tuple[Sequence[float], Mapping[tuple[int, int, int], float]] | None = None,
) -> Timetable:  # fmt: skip
    """Earliest times that keep the sequence which approximate starts imply.

    start [n] and hop_start by (value, destination, k), in any unit, consistent with precedences up
    to ties. Operations are appended by (start, whether they last, topological position); what an
    operation waits for is appended before it, so that rounded starts do no harm.
    cost (task, device) and hop_time (value, hop): durations of any number type, else the floats of
    the Problem.
    ends: of tasks and hops in the unit of `start`. With them a task whose activation may be one too
    many waits, as it did, for all that had ended when it began: began it sooner, its activation
    would meet others that it never met. (Lives that overlap now overlapped then, pair by pair, so
    by Helly's theorem at one time, when they fitted.)"""
    hop_time = hop_time or (lambda v, h: float(p.hop_lat[h] + p.value_bytes[v] * p.hop_inv[h]))
    # Fractions need arrays of objects.
    kind = float if cost is None else object
    cost = cost or (lambda t, d: float(p.cost[t, d]))
    ops: list[tuple[float, float, int, int]] = []
    for t in range(p.n):
        # What takes no time comes before what lasts, from the same start.
        ops.append((start[t], 1.0 if p.cost[t, dev[t]] > 0 else 0.0, t, -1))
    keys: list[tuple[int, int, int]] = []
    for v, b in sent(p, dev):
        for i, h in enumerate(p.hops(int(dev[p.value_src[v]]), b, v)):
            at = hop_start.get((v, b, i))
            # Hops on uncontended links have no place in the sequence: they follow what they wait
            # for.
            if at is None:
                continue
            length = p.hop_lat[h] + p.value_bytes[v] * p.hop_inv[h]
            ops.append((at, 1.0 if length > 0 else 0.0, int(p.value_src[v]), len(keys)))
            keys.append((v, b, i))
    ops.sort()
    # When each line is free next: lines are used in the order of the operations.
    free: list[Any] = [0] * (p.m + len(p.resources))
    begin: list[Any] = [0] * p.n
    end: list[Any] = [0] * p.n
    hops: dict[tuple[int, int, int], tuple[Any, Any]] = {}

    def hop(v: int, b: int, i: int) -> Any:
        """Schedules hop i of v towards b (and those before it, if not yet done); its end."""
        if (v, b, i) in hops:
            return hops[v, b, i][1]
        a = int(dev[p.value_src[v]])
        h = p.hops(a, b, v)[i]
        ready = hop(v, b, i - 1) if i else end[p.value_src[v]]
        r = int(p.hop_res[h])
        # Queues keep the order in which hops were appended.
        if r >= 0:
            ready = max(ready, free[p.m + r])
        finish = ready + hop_time(v, h)
        if r >= 0:
            free[p.m + r] = finish
        hops[v, b, i] = (ready, finish)
        return finish

    done = np.zeros(p.n, bool)
    # Only tasks on full devices need to wait for what had ended.
    hungry = _hungry(p, dev) if ends is not None else done
    ended: list[tuple[float, int, tuple[int, int, int] | None]] = []
    if ends is not None and hungry.any():
        ended = [(end_, t, None) for t, end_ in enumerate(ends[0])]
        ended += [(end_, int(p.value_src[key[0]]), key) for key, end_ in ends[1].items()]
        # From the back, so that `pop` takes the earliest.
        ended.sort(key=lambda x: x[0], reverse=True)
    past: list[Any] = [0]

    def waited(now: float) -> Any:
        """When all has ended that had ended by `now`; called with rising `now`."""
        while ended and ended[-1][0] <= now:
            _, t, key = ended.pop()
            if done[t]:  # else rounding made it look early
                past[0] = max(past[0], end[t] if key is None else hop(*key))
        return past[0]

    def task(t: int) -> None:
        """Schedules task t behind what it reads."""
        if done[t]:
            return
        # Set before its inputs: there are no rings, and nobody may come twice.
        done[t] = True
        for v in p.inputs(t):
            task(int(p.value_src[v]))
        d = int(dev[t])
        ready = free[d]
        for v in p.inputs(t):
            u = int(p.value_src[v])
            if dev[u] == d:
                ready = max(ready, end[u])
            else:
                ready = max(ready, hop(int(v), d, len(p.hops(int(dev[u]), d, int(v))) - 1))
        if hungry[t]:
            ready = max(ready, waited(start[t]))
        begin[t], end[t] = ready, ready + cost(t, d)
        free[d] = end[t]

    for _, _, t, key in ops:
        if key < 0:
            task(t)
        else:
            task(int(p.value_src[keys[key][0]]))
            hop(*keys[key])
    return Timetable(np.array(dev), np.array(begin, kind), np.array(end, kind), hops)


def _hungry(p: Problem, dev: Ints) -> Any:
    """[n] tasks whose activation may be one too many on their device."""
    # Where all weights and activations fit at once nothing can be too much.
    at = np.asarray(dev, np.int64)
    needed = np.bincount(at, p.weight + p.activation, minlength=p.m)
    return (p.activation > 0) & (needed > p.memory)[at]


def loads(p: Problem, dev: Sequence[int] | Ints) -> dict[str, float]:
    """ms per sample on each device that works and each contended link or bus that carries."""
    at = np.asarray(dev, np.int64)
    names = [d.name for d in p.platform.devices]
    work = np.bincount(at, p.cost[np.arange(p.n), at], minlength=p.m)
    found = {names[d]: float(work[d]) for d in dict.fromkeys(at.tolist())}
    v, _, _, hop = carried(p, at)
    if p.handled():
        ends = np.concatenate([p.hop_from[hop], p.hop_to[hop]])
        fixed, by_size = p.hand[hop, 0::2].T, p.hand[hop, 1::2].T
        ms = (fixed + p.value_bytes[v] * by_size).ravel()
        for d, more in enumerate(np.bincount(ends, ms, minlength=p.m).tolist()):
            if more:
                found[names[d]] = found.get(names[d], 0.0) + more
    queued = p.hop_res[hop] >= 0
    v, hop = v[queued], hop[queued]
    on = p.hop_res[hop]
    length = np.bincount(on, p.hop_lat[hop] + p.value_bytes[v] * p.hop_inv[hop])
    return found | {p.resources[r]: float(length[r]) for r in dict.fromkeys(on.tolist())}


def transfers(p: Problem, dev: Ints, table: Timetable | None) -> tuple[Transfer, ...]:
    """All hops, by start where there are times."""
    names = [d.name for d in p.platform.devices]
    rows = []
    for v, b in sent(p, dev):
        here = int(dev[p.value_src[v]])
        for i, h in enumerate(p.hops(here, b, v)):
            there = int(p.hop_to[h])
            times = table.hops[v, b, i] if table else (None, None)
            rows.append(
                Transfer(
                    p.ids[p.value_src[v]],
                    p.value_name[v],
                    names[here],
                    names[there],
                    p.platform.links[p.hop_link[h]].name,
                    float(p.value_bytes[v]),
                    *(None if x is None else float(x) for x in times),
                )
            )
            here = there
    return tuple(sorted(rows, key=lambda r: (r.start or 0.0, r.finish or 0.0)))


def latency_plan(p: Problem, table: Timetable, **figures: Any) -> Plan:
    """A plan from a timetable in ms. figures: fields of Plan."""
    names = [d.name for d in p.platform.devices]
    rows = tuple(
        Assignment(p.ids[t], names[table.dev[t]], float(table.start[t]), float(table.finish[t]))
        for t in table.order()
    )
    return _plan(
        p, LATENCY, float(table.makespan), rows, transfers(p, table.dev, table), {}, figures
    )


def throughput_plan(
    p: Problem, dev: Ints, load: Mapping[str, Any], table: Timetable | None = None, **figures: Any
) -> Plan:
    """A plan from a placement and its loads in ms; with a timetable (ms) the rows carry times and
    `latency` is set."""
    names = [d.name for d in p.platform.devices]
    found = {name: float(x) for name, x in load.items()}
    if table is not None:
        rows = latency_plan(p, table).assignments
        figures = {"latency": float(table.makespan), **figures}
    else:
        rows = tuple(Assignment(p.ids[t], names[dev[t]]) for t in range(p.n))
    # A placement without tasks has period 0.
    period = max(found.values(), default=0.0)
    return _plan(p, THROUGHPUT, period, rows, transfers(p, dev, table), found, figures)


def _plan(
    p: Problem,
    goal: str,
    objective: float,
    rows: tuple[Assignment, ...],
    hops: tuple[Transfer, ...],
    load: dict[str, float],
    figures: dict[str, Any],
) -> Plan:
    plan = Plan(
        goal,
        objective,
        0.0,
        None,
        "FEASIBLE",
        figures.pop("method", ""),
        assignments=rows,
        transfers=hops,
        loads=load,
        graph_sha256=p.graph.sha256,
        platform_sha256=p.platform.sha256,
    )
    return replace(plan, **figures)
