"""Latency of a batch whose samples share devices: data and model parallelism in one plan.

Takes: a graph, a platform, a batch.  Leaves: a Plan with a replica for each share of the batch.

The batch is cut into equal shares, at most one for each sample, and every share's layers are placed
and ordered on all devices in one schedule: a layer runs on several devices if its shares do, and
whatever crosses a border is sent by shares. One share is the whole batch under one placement, so
sharing is chosen only where it helps.

How many shares: list schedules of all numbers tell where that is quickly known. Else few shares are
searched first; then each is cut, its parts keep its placement, and the search goes on from there: a
few large shares are quickly placed well, and small ones leave fewer gaps.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

from csp_embed.errors import InputError
from csp_embed.ir.network import OPTIMAL, Assignment, Link, Plan, Platform, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.arrays.routes import arcs_of, routes_by_size
from csp_embed.partition.arrays.symmetry import trimmed
from csp_embed.partition.arrays.view import Problem, make_problem, normalised, number
from csp_embed.partition.methods.period.period_loads import load_arrays
from csp_embed.partition.methods.period.relaxation import relax
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.request import Clock
from csp_embed.partition.several.copies import (
    cheapest,
    copied,
    load,
    plan_of,
    replicas_of,
    scaled,
    shared,
    solved,
)
from csp_embed.partition.several.dispatched import dispatched
from csp_embed.partition.times.exact import Exact

OWN = NUMBERS.batch_shares
ROUNDING = 1 - Fraction(1, 10**9)


def solve_shares(
    graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str], batch: int
) -> Plan:
    """Raises: InputError (options that shares cannot keep), Infeasible."""
    request = clock.request
    if request.shaped or request.max_latency is not None or request.min_throughput is not None:
        raise InputError(
            "shares of a batch keep no limit on latency or rate, and no convex sets",
            hint="leave out --share, or --contiguous, --pipeline, --max-latency, --min-throughput",
        )
    counts = [k for k in range(1, batch + 1) if batch % k == 0 and k * len(graph.tasks) <= OWN.most]
    found: list[Plan] = []
    for k in counts or [1]:
        # Ctrl-C during one of them is the end of all.
        if found and (clock.late() or found[-1].reasons):
            break
        quick = clock.of(replace(clock.request, method="heft", progress=None))
        found.append(_one(graph, platform, quick, fix, [batch // k] * k))
        clock.tell("shares", len(found), len(counts))
    known = [plan for plan in found if plan.objective is not None]
    if not known:
        return found[0]
    best = min(known, key=lambda plan: plan.objective or 0.0)
    levels, fewer = _levels(known, len(graph.tasks)) or [best], best
    for level, plan in enumerate(levels):
        if clock.late() or best.reasons:
            break
        count = len(plan.replicas)
        if level and (fewer.objective or 0.0) < (plan.objective or 0.0):
            plan = _cut(fewer, count)
        # What a level does not use of a wall clock's limit is left to the next.
        own = clock.part(1 / (len(levels) - level))
        shares = [round(r.share) for r in plan.replicas]
        fewer = _one(graph, platform, own, fix, shares, plan, level + 1 == len(levels))
        if fewer.objective is not None and fewer.objective <= (best.objective or 0.0):
            best = fewer
        best = replace(best, reasons=fewer.reasons)
        if fewer.objective is None:
            break
    low, name = bound(graph, platform, fix, batch)
    if len(counts) == 1 and number(best.lower_bound) > low:  # there is no other way to share
        return best
    value = number(best.objective or 0.0)
    plan = plan_of(graph, platform, request, value, low, best.replicas, name)
    return replace(plan, linear_costs=best.linear_costs, reasons=best.reasons)


def _levels(known: list[Plan], tasks: int) -> list[Plan]:
    """Of list schedules those to search from, few shares first: each number divides the next, and
    all but the last have more tasks than the usual search is for. [] where that is enough."""
    levels: list[Plan] = []
    for plan in sorted(known, key=lambda plan: -len(plan.replicas)):
        count = len(plan.replicas)
        if count * tasks > OWN.whole and (not levels or len(levels[-1].replicas) % count == 0):
            levels.append(plan)
    return levels[OWN.levels - 1 :: -1] if len(levels) >= OWN.levels else levels[::-1]


def _cut(plan: Plan, count: int) -> Plan:
    """Each share as several, one behind the other, which keep its placement."""
    each = count // len(plan.replicas)
    parts = [replace(r, share=r.share / each) for r in plan.replicas for _ in range(each)]
    return replace(plan, replicas=tuple(parts))


def _one(
    graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str], shares: list[int],
    known: Plan | None = None, last: bool = True,
) -> Plan:  # fmt: skip
    """The plan with these shares: by the method of the request, and by dispatching from a known
    placement, for long if that is the last time.

    Weights are counted once per layer and device where a plan that leaves them out keeps the memory
    so; else once per share, which never holds too little."""
    names = [d.name for d in platform.devices]
    together = copied(graph, platform, [(i, names, s) for i, s in enumerate(shares)])
    fixed = {f"{i}/{t}": d for i in range(len(shares)) for t, d in fix.items()}
    request = clock.request
    # Of hundreds of tasks the usual search would take more time than it is worth.
    large = known is not None and len(together.tasks) > OWN.whole
    deal = known is not None and len(shares) > 1
    own = replace(
        # Half of a limit for the search of the whole, then `dispatched`.
        shared(clock, 0.5 if deal and not large else 1.0),
        method="heft" if large else request.method,
        effort=request.effort * min(1.0, OWN.tasks / max(1, len(together.tasks))),
        progress=request.progress,
    )
    held = sum(t.weight_bytes for t in graph.tasks)
    roomy = all(d.memory_bytes is None for d in platform.devices) or not held
    plan = Plan(request.objective, None, 0.0, None, "UNKNOWN", request.method)
    for weigh in (False, True):
        tasks = together.tasks
        some = tasks if weigh else tuple(replace(t, weight_bytes=0) for t in tasks)
        given = replace(together, tasks=some)
        joint = solved(given, platform, own, fixed)
        if joint.objective is None:
            return joint
        if deal and joint.status != OPTIMAL and not joint.reasons and not clock.late():
            one = tuple(t for t in some if t.id.startswith("0/"))
            edges = tuple(e for e in together.edges if e.src.startswith("0/"))
            rows = joint.assignments if known is None or weigh else _together(known)
            other = dispatched(
                TaskGraph(one, edges), given, platform, clock, fixed, joint, rows, last
            )
            if other is not None:
                joint = replace(other, lower_bound=joint.lower_bound, bound=joint.bound)
            elif large and last:  # no use here: the usual search after all
                joint = solved(given, platform, replace(own, method=request.method), fixed)
        found = replicas_of(joint, shares)
        low = number(joint.lower_bound)
        plan = plan_of(graph, platform, request, number(joint.objective), low, found, joint.bound)
        linear = scaled(graph, platform, [(0, names, s) for s in set(shares)])
        plan = replace(plan, batch=sum(shares), linear_costs=linear, reasons=joint.reasons)
        if roomy or not any(f.kind == "memory" for f in check_plan(graph, platform, plan)):
            break
    return plan


def _together(plan: Plan) -> tuple[Assignment, ...]:
    """Rows of a plan's replicas under the names that their tasks have in one graph of all."""
    return tuple(
        replace(row, task=f"{i}/{row.task}")
        for i, replica in enumerate(plan.replicas) for row in replica.assignments
    )  # fmt: skip


def bound(
    graph: TaskGraph, platform: Platform, fix: dict[str, str], batch: int
) -> tuple[Fraction, str]:
    """(ms, its name) whatever the shares.

    path: every share runs every task, in no less than its least time over all shares.
    load: a share's cost is no less than its samples times the least cost per sample, so the busiest
    device works at least batch times the fractional load of a sample.
    load and transfers: likewise for links, where a share pays the latency of a hop once, so that a
    sample's part of it is at least 1/batch; all samples' placements together are a mixture, whose
    period times the batch nothing beats. Transfers whose route depends on the share's size count
    nothing."""
    shares = range(1, batch + 1)
    few = trimmed(graph, platform, fix.values(), batch)
    single = replace(graph, tasks=tuple(cheapest(t, platform, shares, False) for t in graph.tasks))
    each = replace(graph, tasks=tuple(cheapest(t, platform, shares, True) for t in graph.tasks))
    path = Exact.of(normalised(make_problem(single, few, fix))).critical_path()
    # Costs per sample are rounded to doubles in `cheapest`; ROUNDING gives that back.
    found = [(path, "critical path"), (load(each, few, fix, batch) * batch * ROUNDING, "load")]
    p = normalised(make_problem(each, _light(few, batch), fix))
    if p.contended() and len(p.use) * p.m * p.m <= NUMBERS.relaxed.places:
        p = _steady(p, few, batch)
        relaxed = relax(load_arrays(p)) if p.contended() else None
        if relaxed is not None:
            low = number(relaxed.bound) * p.unit * batch * ROUNDING
            found.append((low, "load and transfers"))
    return max(found)


def _light(platform: Platform, batch: int) -> Platform:
    """The platform with a sample's least part of the latencies."""

    def own(link: Link) -> Link:
        # A makespan does not know what devices do for values.
        return replace(link, latency_ms=link.latency_ms / batch, handling=None)

    return replace(platform, links=tuple(own(link) for link in platform.links))


def _steady(p: Problem, platform: Platform, batch: int) -> Problem:
    """Without the resources of routes that shares of some size do not take: their transfers wait in
    other queues."""
    sizes = [s * float(size) for size in p.value_bytes for s in range(1, batch + 1)]
    classes, kind = routes_by_size(arcs_of(platform)[0], sizes, platform)
    # Routes of the values that share a row of the problem, at all sizes.
    taken: dict[int, set[int]] = {}
    for n, k in enumerate(kind):
        taken.setdefault(int(p.row[n // batch]), set()).add(k)
    held = p.hop_res.copy()
    for row, kinds in taken.items():
        for a in range(p.m):
            for b in range(p.m):
                own = p.route(row, a, b)
                links = [int(p.hop_link[h]) for h in own]
                if any([arc[0] for arc in classes[k][a * p.m + b] or ()] != links for k in kinds):
                    held[own.start : own.stop] = -1
    return replace(p, hop_res=held)
