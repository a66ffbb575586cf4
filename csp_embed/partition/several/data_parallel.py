"""Data parallelism: r copies of the network, each on its own devices.

Takes: a graph, a platform, the number of replicas.  Leaves: a Plan with `replicas`.
Throughput: each copy is a throughput plan; rates add up; where copies share a bus that would be
overloaded, all rates are scaled down. Latency: the batch is split; the copies are solved together
as one graph, so that they queue on shared buses.
"""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction

import numpy as np

from csp_embed.errors import CspEmbedError, Infeasible, InputError
from csp_embed.ir.network import LATENCY, Plan, Platform, Replica, TaskGraph
from csp_embed.partition.arrays.symmetry import trimmed
from csp_embed.partition.arrays.view import make_problem, normalised, number
from csp_embed.partition.request import Clock, Request
from csp_embed.partition.several.copies import (
    LEAST,
    cheapest,
    copied,
    load,
    plan_of,
    replicas_of,
    scaled,
    shared,
    solved,
    times,
)
from csp_embed.partition.times.exact import Exact

PATIENCE = 3.0  # s below which nothing is tried out: compiling may take as long
LINES = "the number of replicas must not exceed the number of devices"


def device_sets(platform: Platform, replicas: int) -> list[list[list[str]]]:
    """Ways to deal the devices out: whole servers, round robin by kind, consecutive runs."""
    names = [d.name for d in platform.devices]
    ways: list[list[list[str]]] = []
    servers: dict[str, list[str]] = {}
    for d in platform.devices:
        servers.setdefault(d.server or "", []).append(d.name)
    # Whole servers keep values off the links between servers; only where they deal out evenly.
    if len(servers) > 1 and len(servers) % replicas == 0:
        whole = list(servers.values())
        ways.append([list(itertools.chain(*whole[i::replicas])) for i in range(replicas)])
    kinds: dict[str, list[str]] = {}
    for d in platform.devices:
        kinds.setdefault(d.kind, []).append(d.name)
    # Round robin by kind gives each copy as like a mix of devices as can be.
    dealt: list[list[str]] = [[] for _ in range(replicas)]
    turn = 0
    for group in kinds.values():
        for name in group:
            dealt[turn % replicas].append(name)
            turn += 1
    ways.append(dealt)
    # Neighbours in the file are often neighbours on a bus.
    cuts = np.linspace(0, len(names), replicas + 1).astype(int)
    ways.append([names[a:b] for a, b in itertools.pairwise(cuts)])
    unique: list[list[list[str]]] = []
    for way in ways:
        if all(way) and way not in unique:
            unique.append(way)
    return unique


def part_of(platform: Platform, names: list[str]) -> Platform:
    """The platform with these devices and the links among them."""
    keep = set(names)
    return replace(
        platform,
        devices=tuple(d for d in platform.devices if d.name in keep),
        # Only links wholly inside: a copy must not send by way of another copy's devices.
        links=tuple(k for k in platform.links if set(k.between) <= keep),
        host=replace(platform.host, device=None)
        if platform.host.device not in keep
        else platform.host,
    )


def solve_replicated(
    graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str],
    replicas: int, batch: int,
) -> Plan:  # fmt: skip
    """The best of the ways to deal devices out. Raises: InputError, Infeasible."""
    request = clock.request
    # Each copy needs a device of its own: sets are disjoint.
    if replicas > len(platform.devices):
        raise InputError(
            f"{replicas} replicas on {len(platform.devices)} devices",
            why=LINES,
            hint=f"--replicas {len(platform.devices)} at most",
        )
    if request.max_latency is not None or request.min_throughput is not None:
        raise InputError(
            "data parallelism takes no limit on latency or throughput",
            hint="leave the limit out, or leave --replicas out",
        )
    # With throughput each replica takes its next sample when it can; there is no batch to split.
    if request.objective != LATENCY and batch > 1:
        raise InputError(
            "throughput is per sample: a batch has no meaning there",
            hint="use a batch with the objective latency",
        )
    if request.objective == LATENCY and batch < replicas:
        raise InputError(
            f"a batch of {batch} cannot be shared by {replicas} replicas",
            hint=f"--batch {replicas} at least",
        )
    solve_one = _latency if request.objective == LATENCY else _throughput
    ways = device_sets(platform, replicas)
    best: Plan | None = None
    reason: CspEmbedError | None = None
    interrupted = unknown = False
    for done, way in enumerate(ways):
        if best is not None and clock.late():
            break
        try:
            # A fair part of what is left: what one way does not use goes to the next.
            plan = solve_one(graph, platform, clock.part(1 / (len(ways) - done)), fix, way, batch)
        except Infeasible as error:
            reason = error
            continue
        except KeyboardInterrupt:  # between two searches, which see to it themselves
            interrupted = True
            break
        # Without a plan and without a proof: then "infeasible" must not be said in the end.
        unknown |= plan.objective is None
        if plan.objective is not None and (
            best is None or best.objective is None or plan.objective < best.objective
        ):
            best = plan
        interrupted |= "interrupted" in plan.reasons
        if interrupted:
            break
    reasons = ("interrupted",) if interrupted else ()
    if best is not None:
        return replace(best, reasons=reasons)
    # No plan, but no proof either that there is none.
    if interrupted or unknown:
        return Plan(
            request.objective, None, 0.0, None, "UNKNOWN", request.method, reasons=reasons,
            graph_sha256=graph.sha256, platform_sha256=platform.sha256,
        )  # fmt: skip
    if best is None:
        raise Infeasible(
            f"{replicas} replicas do not fit",
            where="memory or devices of a replica",
            why=reason.what if reason else "no way to deal out the devices",
            hint="use fewer replicas",
        )
    return best


def _throughput(
    graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str],
    way: list[list[str]], batch: int,
) -> Plan:  # fmt: skip
    """Copies solved apart; rates 1 / period each, scaled where a shared bus is too busy."""
    request = clock.request
    plans: list[Plan] = []
    for done, names in enumerate(way):
        # After Ctrl-C the copies that are missing are only completed, quickly.
        stopped = any("interrupted" in plan.reasons for plan in plans)
        part = part_of(platform, names)
        plan = solved(graph, part, shared(clock, 1 / (len(way) - done), stopped), fix)
        plans.append(plan)
        if plan.objective is None:  # the limit, or Ctrl-C
            return plan
        if not plan.objective:
            raise Infeasible(
                "a replica takes no time, so that its rate has no limit",
                where="costs of 0",
                hint="plan one copy (--replicas 1): its period is 0",
            )
    rates = [1.0 / (plan.objective or 1.0) for plan in plans]
    buses = {name for plan in plans for name in plan.loads}
    # At their own rates, summed over copies: a bus above 1 asks for more than there is.
    busiest = max(
        sum(rate * plan.loads.get(name, 0.0) for rate, plan in zip(rates, plans, strict=True))
        for name in buses
    )
    # All slower by the same factor, which keeps every bus within its time.
    rates = [rate / max(1.0, busiest) for rate in rates]
    found = tuple(
        Replica(rate, plan.assignments, plan.loads, plan.transfers)
        for rate, plan in zip(rates, plans, strict=True)
    )
    # Rates as the decimals that are written, so that the objective is that of the file.
    value = 1 / sum((number(rate) for rate in rates), Fraction(0))
    # The fractional load bound holds for mixtures of placements too.
    low = load(graph, platform, fix, len(found))
    made = plan_of(graph, platform, request, value, low, found, "load")
    return replace(made, reasons=next((p.reasons for p in plans if p.reasons), ()))


def _shares(
    graph: TaskGraph, platform: Platform, clock: Clock, way: list[list[str]], batch: int
) -> tuple[list[int], bool]:
    """Samples of each replica: one each, then each further one where HEFT ends first (where the
    mean load is least, once time is short or Ctrl-C came). Also whether Ctrl-C came."""
    stopped, trials = False, clock.part(0.5)

    def ends(index: int, share: int) -> float:
        nonlocal stopped
        # HEFT of a large graph takes seconds: mean load instead, once there is no time for trials.
        if stopped or (clock.wall and trials.left() < PATIENCE):
            part = part_of(platform, way[index])
            costs = ([t.cost_on(d) for d in part.devices] for t in graph.tasks)
            known = (min((c for c in row if c is not None), default=0.0) for row in costs)
            return sum(known) * share / len(part.devices)
        one = copied(graph, platform, [(index, way[index], share)])
        limit = max(LEAST, trials.left()) if trials.wall else None
        part = part_of(platform, way[index])
        heft = Request(method="heft", time_limit=limit)
        plan = solved(one, part, heft)
        stopped |= "interrupted" in plan.reasons
        return float("inf") if plan.objective is None else plan.objective

    shares = [1] * len(way)
    # The end with one more sample, so that the least of them says who gets it.
    following = [ends(i, 2) for i in range(len(way))] if batch > len(way) else []
    for _ in range(batch - len(way)):
        i = int(np.argmin(following))
        shares[i] += 1
        following[i] = ends(i, shares[i] + 1)
    return shares, stopped


def _latency(
    graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str],
    way: list[list[str]], batch: int,
) -> Plan:  # fmt: skip
    """All copies as one graph on disjoint devices."""
    shares, stopped = _shares(graph, platform, clock, way, batch)
    copies = [(i, names, shares[i]) for i, names in enumerate(way)]
    together = copied(graph, platform, copies)
    fixed = {f"{i}/{t}": d for i, names in enumerate(way) for t, d in fix.items() if d in names}
    inside = {name for names in way for name in names}
    # Links between the sets are left out: copies share buses, nothing else.
    links = tuple(k for k in platform.links if any(set(k.between) <= set(names) for names in way))
    joint = replace(part_of(platform, sorted(inside)), links=links)
    plan = solved(together, joint, shared(clock, 1.0, stopped), fixed)
    if plan.objective is None:
        return plan
    value, name = number(plan.objective), "critical path"
    # Bounds of the joint plan hold for these sets only; `_least` holds for all.
    low = _least(graph, platform, batch, len(way))
    if low[0] < low[1]:
        name = "load"
    best = max(low)
    if len(way) == 1 and number(plan.lower_bound) > best:  # there is no other way to deal out
        best, name = number(plan.lower_bound), plan.bound
    return replace(
        plan_of(graph, platform, clock.request, value, best, replicas_of(plan, shares), name),
        linear_costs=scaled(graph, platform, copies),
        reasons=("interrupted",) if stopped else plan.reasons,
    )


def _least(
    graph: TaskGraph, platform: Platform, batch: int, replicas: int
) -> tuple[Fraction, Fraction]:
    """(critical path, load) in ms whatever the shares and the sets of devices.

    Each replica runs every task with some share s, which takes no less than the least over all s;
    and no less than s times the least cost per sample. The latter adds up over replicas to the
    batch, so by the proof of `bounds.load` the makespan is at least batch times that load."""
    # Each of the other replicas takes one sample at least.
    shares = range(1, batch + 2 - replicas) if replicas > 1 else range(batch, batch + 1)
    single = [cheapest(t, platform, shares, False) for t in graph.tasks]
    each = [cheapest(t, platform, shares, True) for t in graph.tasks]
    edges = tuple(replace(e, bytes=times(e.bytes, min(shares))) for e in graph.edges)
    few = trimmed(graph, platform, (), replicas)
    p = normalised(make_problem(replace(graph, tasks=tuple(single), edges=edges), few))
    # Costs per sample are rounded to doubles in `cheapest`; this gives that back.
    rest = load(replace(graph, tasks=tuple(each)), few, {}, replicas) * (1 - Fraction(1, 10**12))
    return Exact.of(p).critical_path(), rest * batch
