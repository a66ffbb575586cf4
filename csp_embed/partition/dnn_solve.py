"""Solving under the dnn-partitioning cost model.

Takes: a workload, a clock.  Leaves: a Plan.  Starts from splits of topological orders, greedy
balancing and annealing; then CP-SAT in rounds: each model knows the best value so far as its
horizon, which strengthens its bounds, and gets twice the limit of the round before.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np

from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import (
    FEASIBLE,
    LATENCY,
    OPTIMAL,
    THROUGHPUT,
    UNKNOWN,
    Assignment,
    Plan,
    Platform,
    TaskGraph,
)
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.exact import below
from csp_embed.partition.methods import chains, throughput
from csp_embed.partition.methods.balance import balance
from csp_embed.partition.methods.period_loads import load_arrays
from csp_embed.partition.models.dnn import Dnn, make_dnn
from csp_embed.partition.models.dnn_cpsat import build, path_bounds
from csp_embed.partition.models.dnn_times import canonical, convex, exact_loads, timetable
from csp_embed.partition.models.search import reached
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Request, in_units
from csp_embed.partition.supervise import INTERRUPTED, supervised
from csp_embed.partition.symmetry import trimmed
from csp_embed.partition.view import Ints
from csp_embed.solver import cpsat
from csp_embed.solver.status import Solved

OWN = NUMBERS.dnn


class State:
    """The best placement and bound so far."""

    def __init__(self, dnn: Dnn, clock: Clock) -> None:
        self.dnn, self.clock = dnn, clock
        self.latency = clock.request.objective == LATENCY
        self.dev: Ints | None = None
        self.fresh: Ints | None = None  # a plain start for annealing
        self.value, self.method = float("inf"), ""
        self.proof = Proof(unit=dnn.p.unit, tick=dnn.tick)
        self.interrupted = False
        self.shape = (clock.request.contiguous, clock.request.pipeline)

    def offer(self, dev: Ints, method: str) -> None:
        """Takes a placement if it is feasible and better."""
        dnn, p, r = self.dnn, self.dnn.p, self.clock.request
        if not np.isfinite(p.cost[np.arange(p.n), dev]).all():
            return
        if (np.bincount(dev, p.weight, minlength=p.m) > p.memory).any():
            return
        if any(len(set(dev[g].tolist())) > 1 for g in p.groups()):
            return
        if self.latency:
            times = timetable(dnn, dev)
            value = float("inf") if times is None else float(times[1].max(initial=0.0))
        else:
            value = float(dnn.loads(dev).max(initial=0.0))
            shaped = r.contiguous or r.pipeline
            if shaped and not convex(dnn, dev, r.pipeline):
                return
        if value < self.value:
            self.dev, self.value, self.method = np.array(dev), value, method

    def raise_to(self, low: float, name: str) -> None:
        """Keeps the larger bound, added up in floats."""
        self.proof.raise_to(low, name)


def solve_dnn(
    graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str], start: Plan | None
) -> Plan:
    """A plan under this cost model. Raises: InputError, Infeasible."""
    request = clock.request
    if request.method not in ("auto", "exact", "anneal", "split", "greedy", "single"):
        raise InputError(
            f"method {request.method!r} does not serve the cost model dnn-partitioning",
            hint="auto, exact, anneal, split, greedy or single",
        )
    cross = request.max_latency if request.objective == THROUGHPUT else request.min_throughput
    if cross is not None:
        raise InputError(
            "the cost model dnn-partitioning takes no limit on the other objective",
            hint="limit the objective itself or use the default cost model",
        )
    found: list[State] = []
    status = [UNKNOWN]

    def search() -> None:
        _search(graph, platform, clock, fix, start, found, status)

    ended = supervised(search, clock)
    if status[0] == "INFEASIBLE":
        finite = any(d.memory_bytes is not None for d in platform.devices)
        raise Infeasible(
            "no placement keeps memory, colours and shape",
            where="memory" if finite else "pins and colours",
            why="proved by exact search",
            hint="use more or larger accelerators, or drop --contiguous",
        )
    reasons = ("interrupted",) if ended == INTERRUPTED else ()
    if not found:  # the limit came before the first arrays
        return Plan(
            request.objective, None, 0.0, None, UNKNOWN, request.method, reasons=reasons,
            graph_sha256=graph.sha256, platform_sha256=platform.sha256,
        )  # fmt: skip
    return replace(_plan(found[0]), reasons=reasons)


def _search(
    graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str], start: Plan | None,
    found: list[State], status: list[str],
) -> None:  # fmt: skip
    """The whole search; puts its State and the last status where the watching thread sees them."""
    request = clock.request
    few = trimmed(graph, platform, {*fix.values(), *(start.device_of().values() if start else ())})
    dnn = make_dnn(graph, few, fix)
    clock = clock.of(in_units(request, dnn.p), dnn.p.unit)
    request, state = clock.request, State(dnn, clock)
    found.append(state)
    if start is not None:
        at = {d.name: i for i, d in enumerate(few.devices)}
        named = start.device_of()
        if all(named.get(t) in at for t in dnn.p.ids):
            state.offer(np.array([at[named[t]] for t in dnn.p.ids], np.int64), "start")
    _starts(state)
    _bounds(state)
    if request.method in ("auto", "exact"):
        status[0] = _exact(state)


def _bounds(state: State) -> None:
    dnn, p = state.dnn, state.dnn.p
    if state.latency:
        heads, tails = path_bounds(dnn)
        state.raise_to(float((heads + tails).min(axis=1).max(initial=0.0)), "critical path")
        return
    state.raise_to(bounds.load(p), "load")
    state.raise_to(bounds.memory_knapsack(p), "memory knapsack")
    for g in p.groups():
        state.raise_to(float(p.cost[g].sum(axis=0).min()), "largest group")


def _starts(state: State) -> None:
    """Single devices, splits, greedy; for free throughput also annealing."""
    dnn, p, r = state.dnn, state.dnn.p, state.clock.request
    begin: list[tuple[str, Ints]] = [("single", np.full(p.n, d, np.int64)) for d in range(p.m)]
    for order in chains.orders(p):
        crossing = np.zeros(p.n + 1)
        place = np.empty(p.n, np.int64)
        place[order] = np.arange(p.n)
        for v, u in enumerate(p.value_src):
            last = int(place[p.consumers(v)].max())
            crossing[int(place[u]) + 1 : last + 1] += dnn.toll[v]
        dev = chains.split(p, order, crossing)
        if dev is not None:
            begin.append(("split", dev))
    begin.append(("greedy", throughput.greedy(p)))
    for name, dev in begin:
        if r.method not in ("single", "greedy", "split") or r.method == name:
            state.offer(dev, name)
    if state.latency or r.contiguous or r.pipeline or r.method in ("single", "greedy", "split"):
        return
    chainsof = [d for _, d in begin if np.isfinite(p.cost[np.arange(p.n), d]).all()]
    chainsof = [
        d for d in chainsof if (np.bincount(d, p.weight, minlength=p.m) <= p.memory).all()
        and all(len(set(d[g].tolist())) == 1 for g in p.groups())
    ]  # fmt: skip
    rounds = OWN.chains[0 if r.method in ("auto", "exact") else 1]
    state.fresh = chainsof[0] if chainsof else None
    if r.method in ("auto", "exact"):
        # The best contiguous placement is easy to find and a good start for the free one.
        _round(state, replace(r, contiguous=True), OWN.first, 0.1)
    for number in range(rounds if chainsof else 0):
        _chain(state, chainsof[0] if number % 2 == 0 or state.dev is None else state.dev, number)
        if state.clock.left() < (0.6 * r.time_limit if r.time_limit else 0):
            return


def _chain(state: State, start: Ints, number: int) -> None:
    """One annealing chain from `start`; offers its best."""
    dnn, p, r = state.dnn, state.dnn.p, state.clock.request
    q = load_arrays(p, dnn.accelerator, dnn.toll)
    scale = float(p.cost.min(axis=1).sum()) / p.m
    dev = start.copy()
    hot = OWN.heats[number % len(OWN.heats)] * scale
    steps = max(int(OWN.proposals * r.effort), 1000)
    balance(q, dev, steps, max(hot, 1e-9), max(OWN.cold * scale, 1e-12), 1000 * r.seed + number + 1)
    state.offer(dev, "anneal")
    state.clock.tell(f"balancing, {state.clock.ms(state.value)}")


def _worst(dnn: Dnn) -> float:
    """A period and makespan that no placement exceeds."""
    cost = np.where(np.isfinite(dnn.p.cost), dnn.p.cost, 0)
    return float(cost.max(axis=1).sum()) + 2.0 * dnn.p.m * float(dnn.toll.sum()) + 1.0


def _round(state: State, r: Request, limit: float, share: float) -> Solved:
    """One CP-SAT search under the incumbent's horizon; offers what it finds."""
    clock = state.clock
    best = min(state.value, _worst(state.dnn))
    built = build(state.dnn, state.latency, r.contiguous, r.pipeline, best)
    cap = r.max_latency if state.latency else None
    if not state.latency and r.min_throughput is not None:
        cap = 1.0 / r.min_throughput
    if cap is not None:
        built.cp.add(built.goal <= built.scale.limit(cap))
    if state.dev is not None:
        built.hint(state.dnn, canonical(state.dnn, state.dev))
    params = clock.params(limit, share)
    clock.tell(f"exact search, {clock.ms(best)}")
    found = cpsat.solve(built.cp, params)
    state.interrupted |= found.interrupted
    if found.found:
        state.offer(built.placement(state.dnn, found.value), "cpsat")
    if found.status in (OPTIMAL, FEASIBLE) and (r.contiguous, r.pipeline) == state.shape:
        # A model with more constraints than asked for proves nothing about the question.
        state.proof.rounded |= not built.scale.exact
        state.proof.know(reached(built.goal, built.scale, found), "exact search")
    return found


def _exact(state: State) -> str:
    """Rounds of CP-SAT, each with twice the limit; the last status."""
    clock, r = state.clock, state.clock.request
    spent, limit, status, number = 0.0, OWN.first, UNKNOWN, 100
    while spent < OWN.total and clock.left() > 0 and not state.interrupted:
        # On the wall clock a round gets a fifth of what is left, at least 4 s.
        share = max(0.2, 4.0 / max(clock.left(), 0.1)) if clock.wall else 1.0
        found = _round(state, r, limit, min(share, 1.0))
        status = found.status
        if status == "INFEASIBLE":
            if state.dev is None or r.max_latency is not None or r.min_throughput is not None:
                return status
            state.raise_to(state.value, "exact search")
            return OPTIMAL
        if status == OPTIMAL:
            return status
        if not state.latency:
            if not (r.contiguous or r.pipeline) and state.dev is not None:
                fresh = state.fresh if number % 2 and state.fresh is not None else state.dev
                _chain(state, fresh, number)
                number += 1
            _pairs(state, limit)
        spent += limit
        limit = min(limit * 2, OWN.last)
        if clock.wall:
            spent = 0.0
    return status


def _pairs(state: State, limit: float) -> None:
    """Neighbourhoods: frees all groups on two devices, keeps the others, solves exactly; busiest
    devices first, until no pair improves."""
    dnn, p, r, clock = state.dnn, state.dnn.p, state.clock.request, state.clock
    improved, spent = True, 0.0
    while improved and state.dev is not None and spent < limit and not state.interrupted:
        improved = False
        ranked = np.argsort(-dnn.loads(state.dev), kind="stable").tolist()
        for one, two in itertools.combinations(ranked, 2):
            if clock.left() < 0.5 or state.interrupted:
                return
            built = build(dnn, False, r.contiguous, r.pipeline, state.value, symmetry=False)
            for g, members in enumerate(p.groups()):
                d = int(state.dev[members[0]])
                if d not in (one, two):
                    built.cp.add(built.x[g][d] == 1)
            built.hint(dnn, state.dev)
            params = clock.params(OWN.pair)
            if clock.wall:
                params = replace(params, time_limit=min(OWN.pair_seconds, clock.left()))
            before = state.value
            found = cpsat.solve(built.cp, params)
            state.interrupted |= found.interrupted
            if found.found:
                state.offer(built.placement(dnn, found.value), "pairs")
            improved |= state.value < before * (1 - 1e-9)
            spent += OWN.pair
            clock.tell(f"pairs of devices, {clock.ms(state.value)}")


def _plan(state: State) -> Plan:
    """The State as a Plan."""
    dnn, p, r = state.dnn, state.dnn.p, state.clock.request
    names = [d.name for d in p.platform.devices]
    limit = r.max_latency if state.latency else (1 / r.min_throughput if r.min_throughput else None)
    reasons: tuple[str, ...] = ()
    proof = state.proof
    if state.dev is None or (limit is not None and state.value > limit * (1 + 1e-9)):
        return Plan(
            r.objective, None, below(proof.sure), None, UNKNOWN, r.method, bound=proof.name,
            graph_sha256=p.graph.sha256, platform_sha256=p.platform.sha256, reasons=reasons,
        )  # fmt: skip
    rows = tuple(Assignment(t, names[d]) for t, d in zip(p.ids, state.dev, strict=True))
    load, found = exact_loads(dnn, state.dev), {}
    if state.latency:
        times = timetable(dnn, state.dev, load)
        assert times is not None
        begin, end = times
        order = sorted(range(p.n), key=lambda t: (begin[t], end[t], t))
        rows = tuple(
            Assignment(p.ids[t], names[state.dev[t]], float(begin[t]), float(end[t])) for t in order
        )
        value = max(end, default=Fraction(0))
    else:
        found = {name: float(x) for name, x in zip(names, load, strict=True)}
        value = max(load, default=Fraction(0))
    closed = proof.meets(value)
    low = min(proof.sure, value)
    return Plan(
        r.objective, float(value), below(low),
        0.0 if closed else float((value - low) / value),
        OPTIMAL if closed else FEASIBLE, f"{r.method}:{state.method}",
        assignments=rows, loads=found, bound=proof.name, reasons=reasons,
        graph_sha256=p.graph.sha256, platform_sha256=p.platform.sha256,
    )  # fmt: skip
