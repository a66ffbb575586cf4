"""The cost model "links", one copy of the graph: bounds, methods, the plan of the best found.

Takes: a TaskGraph, a Platform, a clock.  Leaves: a Plan with a proved lower bound.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from csp_embed.errors import Infeasible
from csp_embed.ir.network import (
    FEASIBLE,
    LATENCY,
    OPTIMAL,
    THROUGHPUT,
    UNKNOWN,
    Plan,
    Platform,
    TaskGraph,
)
from csp_embed.partition.arrays.symmetry import trimmed
from csp_embed.partition.arrays.view import Problem, make_problem, normalised
from csp_embed.partition.conflict import reasons
from csp_embed.partition.methods import lists
from csp_embed.partition.methods.list_scheduling import ListScheduler
from csp_embed.partition.methods.method import Search
from csp_embed.partition.methods.period import throughput
from csp_embed.partition.portfolio import NUMBERS, PORTFOLIO
from csp_embed.partition.proof import Proof, first_bounds, settled
from csp_embed.partition.request import Clock, Incumbent, Request, in_units
from csp_embed.partition.supervise import DONE, INTERRUPTED, supervised
from csp_embed.partition.table import TABLE
from csp_embed.partition.times import feasible
from csp_embed.partition.times.exact import Exact, below
from csp_embed.partition.times.timetable import decoded, latency_plan, retimed, throughput_plan

OWN = NUMBERS.lists

RULES = tuple(rule.name for rule in lists.RULES)


def solve_links(
    graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str], start: Plan | None
) -> Plan:
    """The "links" cost model, one copy of the graph."""
    found: list[Search] = []

    def search() -> None:
        # Devices that a fix or a start names must survive trimming.
        named = {*fix.values(), *(start.device_of().values() if start else ())}
        p = normalised(make_problem(graph, trimmed(graph, platform, named), fix))
        own = clock.of(in_units(clock.request, p), p.unit)
        inc, proof = Incumbent(p, own.request), Proof.of(p, own.request.gap)
        # Called by whoever shows progress, at any time: before the first plan it is inf.
        own.known = lambda: (inc.best.value if inc.best else float("inf"), proof.value)
        found.append(Search(p, inc, proof, own))
        if start is not None:
            restart(p, inc, start)
        if own.request.method in RULES:  # quicker than any bound
            run(found[0])
        elif p.n > OWN.interpreted:
            quick_start(p, inc)
        # Bounds first: methods then stop as soon as one is met.
        first_bounds(p, proof, own.request)
        if own.request.method not in RULES:
            run(found[0])

    ended = supervised(search, clock, lambda: bool(found) and found[0].inc.best is not None)
    if not found:  # the limit came before the first arrays
        return Plan(
            clock.request.objective, None, 0.0, None, UNKNOWN, clock.request.method,
            graph_sha256=graph.sha256, platform_sha256=platform.sha256,
            reasons=("interrupted",) if ended == INTERRUPTED else (),
        )  # fmt: skip
    p, inc, proof = found[0].p, found[0].inc, found[0].proof
    proof.interrupted = ended == INTERRUPTED
    if inc.best is None and ended != DONE:  # rules are compiled first, which may take longer
        quick_start(p, inc)
    return finish(p, inc, proof, inc.request)


def run(search: Search) -> None:
    """The steps of the method that was asked for, until the best plan is proved good enough."""
    p, r = search.p, search.request
    if p.n == 0:
        # A graph without tasks has an empty plan, which no method knows how to make.
        nothing = np.zeros(0, np.int64)
        search.inc.offer(nothing, decoded(p, np.arange(0), nothing), "empty")
        return
    for step in PORTFOLIO.orders[r.objective][r.method]:
        if settled(p, search.inc, search.proof):
            return
        method, own = TABLE[step.do], search
        # Less effort is another clock for this step only; its limits stay those of the request.
        if step.effort != 1:
            effort = step.effort * search.request.effort
            clock = search.clock.of(replace(search.request, effort=effort))
            own = replace(search, clock=clock)
        # `applies` tells why not; a step that does not suit this problem is passed over.
        if method.applies(own, step) is None:
            method.run(own, step)


def quick_start(p: Problem, inc: Incumbent) -> None:
    """A plan before anything is compiled: a limit or Ctrl-C may come while kernels are."""
    if inc.request.objective == LATENCY and p.n * p.m <= OWN.quick_pairs:
        scheduler = ListScheduler(p, compiled=False)
        x = scheduler.heft()
        if np.isfinite(x.value):
            table = decoded(p, x.order, x.dev, scheduler.k, scheduler.a, scheduler.w)
            inc.offer(x.dev, table, "heft")
    elif inc.request.objective == LATENCY:  # one after the other, where that is allowed
        for name, dev in throughput.starts(p):
            if feasible.talks(p, dev):
                inc.offer(dev, retimed(p, dev, range(p.n), {}), name)
    elif inc.request.objective == THROUGHPUT:
        for name, dev in throughput.starts(p):
            inc.offer(dev, None, name)
    if inc.best is None:  # shapes and limits on time: everything on one device may keep them
        for name, dev in throughput.starts(p):
            if feasible.talks(p, dev):
                inc.offer(dev, retimed(p, dev, range(p.n), {}), name)


def restart(p: Problem, inc: Incumbent, start: Plan) -> None:
    """Offers a plan given by the user; tasks on lost or forbidden devices go elsewhere."""
    at = {d.name: i for i, d in enumerate(p.platform.devices)}
    named = start.device_of()
    dev = p.cost.argmin(axis=1).astype(np.int64)
    for t, name in enumerate(p.ids):
        d = at.get(named.get(name, ""), -1)
        if d >= 0 and np.isfinite(p.cost[t, d]):
            dev[t] = d
    # Colocated tasks follow their first, whatever the plan says.
    for members in p.groups():
        dev[members] = dev[members[0]]
    starts = {row.task: row.start for row in start.assignments if row.start is not None}
    order = np.arange(p.n)
    if len(starts) == p.n:
        order = np.array(sorted(range(p.n), key=lambda t: (starts.get(p.ids[t], 0.0), t)), np.int64)
        # A plan of an older graph may contradict an edge: then topological order.
        if any(starts[p.ids[u]] > starts[p.ids[t]] for u, t, _ in p.edges()):
            order = np.arange(p.n)
    if feasible.talks(p, dev):
        inc.offer(dev, decoded(p, order, dev), "start")
    elif inc.request.objective != LATENCY:
        # A plan of loads has no times; `offer` still looks at links and memory.
        inc.offer(dev, None, "start")


def finish(p: Problem, inc: Incumbent, proof: Proof, request: Request) -> Plan:
    """The plan of the incumbent, or UNKNOWN, or an Infeasible error with the reason."""
    said = ("interrupted",) if proof.interrupted else ()
    if inc.best is None:
        # Notes say "infeasible": an exact search has proved it.
        if proof.notes and not proof.interrupted:
            raise _infeasible(p, request)
        return Plan(
            request.objective, None, below(proof.sure), None, UNKNOWN, request.method,
            bound=proof.name, graph_sha256=p.graph.sha256, platform_sha256=p.platform.sha256,
            reasons=said,
        )  # fmt: skip
    best, rational = inc.best, Exact.of(p)
    # Floats led the search; what is printed is counted anew in Fractions.
    table = None if best.table is None else rational.timetable(best.table)
    load = rational.loads(best.dev)
    period = max(load.values(), default=Fraction(0))
    value = period
    if request.objective == LATENCY:
        assert table is not None
        value = table.makespan
    # Only exact numbers that meet make a plan OPTIMAL.
    closed = proof.meets(value)
    low = min(proof.sure, value)
    figures = {
        # "auto:heft": what was asked for, and what found the plan.
        "method": request.method
        if best.method == request.method
        else f"{request.method}:{best.method}",
        "status": OPTIMAL if closed else FEASIBLE,
        "lower_bound": below(low),
        "gap": 0.0 if closed else float((value - low) / value),
        "bound": proof.name,
        "reasons": said,
    }
    if request.objective == LATENCY:
        assert table is not None
        if request.min_throughput is not None:
            figures["period"] = float(period)
        return latency_plan(p, table, **figures)
    timed = table if request.max_latency is not None else None
    return throughput_plan(p, best.dev, load, timed, **figures)


def _infeasible(p: Problem, request: Request) -> Infeasible:
    """Names what stands in the way, found by leaving constraints out one at a time."""
    # Proved again without each constraint: that may take a while, but says whom to blame.
    what = reasons(p, request)
    return Infeasible(
        "no plan keeps all constraints",
        where="; ".join(what) or "the constraints together",
        why="proved by exact search",
        hint="relax one of these",
    )
