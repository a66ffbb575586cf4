"""One function for every method: `solve`.

Takes: a TaskGraph, a Platform, a request.  Leaves: a Plan with a proved lower bound and an honest
status.  Every plan passes the verifier before it is returned; a refusal is our bug.
"""

from __future__ import annotations

from collections.abc import Mapping
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
    Plan,
    Platform,
    TaskGraph,
)
from csp_embed.judge.plan import check_plan
from csp_embed.partition import feasible
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.exact import Exact, below
from csp_embed.partition.methods import latency, throughput
from csp_embed.partition.methods.list_scheduling import ListScheduler, Placement
from csp_embed.partition.methods.period_loads import load_arrays
from csp_embed.partition.request import Clock, Incumbent, Progress, Request, in_units
from csp_embed.partition.supervise import INTERRUPTED, supervised
from csp_embed.partition.symmetry import trimmed
from csp_embed.partition.timetable import decoded, latency_plan, retimed, throughput_plan
from csp_embed.partition.view import Problem, make_problem, normalised

LISTS = ("heft", "peft", "cpop", "lookahead", "minmin", "greedy", "single")
METHODS = ("auto", "exact", "milp", "split", "lns", "anneal", "genetic", *LISTS)
TINY = 16  # tasks up to which exact search needs no good start
LARGE = 80  # tasks above which windows replace neighbourhoods
BUILD = 1e-3  # s per task that the exact model takes to build
QUICK = 3000  # tasks times devices up to which list scheduling is quick without compiling
STEPS = 300_000  # times, up to which the critical path is found exactly


def solve(
    graph: TaskGraph,
    platform: Platform,
    *,
    objective: str = LATENCY,
    method: str = "auto",
    cost_model: str = "links",
    contiguous: bool = False,
    pipeline: bool = False,
    max_latency: float | None = None,
    min_throughput: float | None = None,
    replicas: int = 1,
    batch: int = 1,
    time_limit: float | None = None,
    workers: int = 1,
    seed: int = 0,
    fix: Mapping[str, str] | None = None,
    start: Plan | None = None,
    progress: Progress | None = None,
    effort: float = 1.0,
) -> Plan:
    """Places (and for latency schedules) a task graph.

    method: one of METHODS. "auto" combines list schedules, annealing, exact search and
        neighbourhoods by size; "exact" is CP-SAT seeded with the best of them; "milp" is HiGHS.
    contiguous: each device's tasks form a convex set; pipeline: no ring of devices either.
    max_latency (ms), min_throughput (samples per ms, so 0.2 for 200 samples per second): limits on
        the other (or same) objective.
    replicas: data parallelism over so many disjoint device sets; batch: samples per step (latency).
    time_limit (s) and workers > 1 with it: wall clock, not reproducible. Without a limit the work
        is fixed, times `effort`.
    fix: device by task. start: a plan to improve; tasks whose device is gone are placed anew.

    Returns: a Plan; status OPTIMAL where objective and proved bound are equal as exact numbers,
    FEASIBLE, or
        UNKNOWN (the limit came first; no assignments).
    Raises: InputError, Infeasible.
    """
    _check(
        objective, method, cost_model, time_limit, workers, effort, replicas, batch,
        max_latency, min_throughput,
    )  # fmt: skip
    request = Request(
        objective, method, contiguous, pipeline, max_latency, min_throughput,
        time_limit, workers, seed, effort, progress,
    )  # fmt: skip
    clock = Clock(request)
    if cost_model == "dnn-partitioning":
        from csp_embed.partition.models.dnn_solve import solve_dnn

        plan = solve_dnn(graph, platform, clock, dict(fix or {}), start)
    elif replicas > 1 or batch > 1:
        from csp_embed.partition.methods.data_parallel import solve_replicated

        plan = solve_replicated(graph, platform, clock, dict(fix or {}), replicas, batch)
    else:
        plan = solve_links(graph, platform, clock, dict(fix or {}), start)
    plan = replace(
        plan,
        seed=seed,
        deterministic=time_limit is None,
        contiguous=contiguous,
        pipeline=pipeline,
        max_latency=max_latency,
        min_throughput=min_throughput,
        cost_model=cost_model,
        batch=batch,
        seconds=clock.seconds(),
    )
    if plan.objective is not None:
        faults = check_plan(graph, platform, plan)
        assert not faults, f"our verifier refuses our plan: {faults[:3]}"
    return plan


def _check(
    objective: str, method: str, cost_model: str, time_limit: float | None, workers: int,
    effort: float, replicas: int, batch: int, max_latency: float | None,
    min_throughput: float | None,
) -> None:  # fmt: skip
    """Refuses unknown names and meaningless numbers."""
    for what, value, known in (
        ("objective", objective, (LATENCY, THROUGHPUT)),
        ("method", method, METHODS),
        ("cost model", cost_model, ("links", "dnn-partitioning")),
    ):
        if value not in known:
            raise InputError(f"unknown {what} {value!r}", hint=f"one of {', '.join(known)}")
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"time limit {time_limit} s", hint="give a positive number of seconds")
    for what, limit, unit in (
        ("max_latency", max_latency, "ms"),
        ("min_throughput", min_throughput, "samples per ms (1000 samples per second are 1)"),
    ):
        if limit is not None and not limit > 0:
            raise InputError(f"{what} {limit:g}", hint=f"give a positive number of {unit}")
    if min(workers, replicas, batch) < 1 or not effort > 0:
        raise InputError("workers, replicas, batch and effort must be positive")


def solve_links(
    graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str], start: Plan | None
) -> Plan:
    """The "links" cost model, one copy of the graph."""
    found: list[tuple[Problem, Incumbent, latency.Proof]] = []

    def search() -> None:
        named = {*fix.values(), *(start.device_of().values() if start else ())}
        p = normalised(make_problem(graph, trimmed(graph, platform, named), fix))
        own = clock.of(in_units(clock.request, p), p.unit)
        inc, proof = Incumbent(p, own.request), latency.Proof.of(p)
        found.append((p, inc, proof))
        if start is not None:
            restart(p, inc, start)
        if p.n > latency.SMALL and own.request.method not in LISTS:
            quick_start(p, inc)
        first_bounds(p, proof, own.request)
        run(p, inc, proof, own)

    ended = supervised(search, clock)
    if not found:  # the limit came before the first arrays
        return Plan(
            clock.request.objective, None, 0.0, None, UNKNOWN, clock.request.method,
            graph_sha256=graph.sha256, platform_sha256=platform.sha256,
            reasons=("interrupted",) if ended == INTERRUPTED else (),
        )  # fmt: skip
    p, inc, proof = found[0]
    proof.interrupted = ended == INTERRUPTED
    return finish(p, inc, proof, inc.request)


def quick_start(p: Problem, inc: Incumbent) -> None:
    """A plan before anything is compiled: a limit or Ctrl-C may come while kernels are."""
    if inc.request.objective == LATENCY and p.n * p.m <= QUICK:
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


def first_bounds(p: Problem, proof: latency.Proof, request: Request) -> None:
    """What is known before any search; exactly where that is quick."""
    exact = Exact.of(p)
    if p.n and p.n * p.m <= STEPS:  # before anything is compiled
        least = (min(exact.cost(t, d) for d in p.allowed(t)) for t in range(p.n))
        proof.know(max(least), "largest task")
    proof.raise_to(*bounds.best_bound(p, request.objective == LATENCY))
    if p.n and request.objective == LATENCY and len(p.use) * p.m * p.m <= STEPS:
        proof.know(exact.critical_path(), "critical path")
    if p.n and p.n * p.m <= STEPS:
        proof.know(exact.load(bounds.load_prices(p.cost)), "load")


def restart(p: Problem, inc: Incumbent, start: Plan) -> None:
    """Offers a plan given by the user; tasks on lost or forbidden devices go elsewhere."""
    at = {d.name: i for i, d in enumerate(p.platform.devices)}
    named = start.device_of()
    dev = p.cost.argmin(axis=1).astype(np.int64)
    for t, name in enumerate(p.ids):
        d = at.get(named.get(name, ""), -1)
        if d >= 0 and np.isfinite(p.cost[t, d]):
            dev[t] = d
    for members in p.groups():
        dev[members] = dev[members[0]]
    starts = {row.task: row.start for row in start.assignments if row.start is not None}
    order = np.arange(p.n)
    if len(starts) == p.n:
        order = np.array(sorted(range(p.n), key=lambda t: (starts.get(p.ids[t], 0.0), t)), np.int64)
        if any(starts[p.ids[u]] > starts[p.ids[t]] for u, t, _ in p.edges()):
            order = np.arange(p.n)
    if feasible.talks(p, dev):
        inc.offer(dev, decoded(p, order, dev), "start")
    elif inc.request.objective != LATENCY:
        inc.offer(dev, None, "start")


def run(p: Problem, inc: Incumbent, proof: latency.Proof, clock: Clock) -> None:
    """The requested method."""
    request, method = clock.request, clock.request.method
    if p.n == 0:
        inc.offer(np.zeros(0, np.int64), decoded(p, np.arange(0), np.zeros(0, np.int64)), "empty")
        return
    if request.objective == THROUGHPUT:
        run_throughput(p, inc, proof, clock)
        return
    if method in LISTS:
        scheduler = ListScheduler(p, compiled=p.n > latency.SMALL)
        rule = {"minmin": "min_min"}.get(method, method)
        x: Placement = getattr(scheduler, rule)()
        if np.isfinite(x.value):
            table = decoded(p, x.order, x.dev, scheduler.k, scheduler.a, scheduler.w)
            inc.offer(x.dev, table, method)
        return
    small = p.n <= latency.SMALL
    if method == "split" and p.n > LARGE:  # which begins with HEFT; more lists would take as long
        found = [x for x in (ListScheduler(p).heft(),) if np.isfinite(x.value)]
        for x in found:
            inc.offer(x.dev, decoded(p, x.order, x.dev), x.method)
    else:
        found = latency.lists(p, inc, compiled=not small, large=p.n > 1500)
    if request.shaped or request.min_throughput is not None or not found:
        throughput.seed_all(p, inc)
    if request.min_throughput is not None and inc.best is None:
        steady_start(p, inc, proof, clock)
        if proof.notes:
            return
    if method not in ("split", "genetic", "milp") and settled(p, inc, proof):
        return
    # Without queues exact search alone settles small graphs, with them it hardly begins to.
    least = TINY if p.contended() else latency.SMALL
    if method == "split" or (method == "auto" and p.n > least):
        from csp_embed.partition.methods.splitting import split_latency

        split_latency(p, inc, proof, clock if method == "split" else clock.part(0.9), found)
        if method == "split":
            return
    if method == "genetic":
        from csp_embed.partition.methods.genetic import genetic

        genetic(p, inc, clock, found)
        return
    if method == "milp":
        from csp_embed.partition.models.milp import solve_milp

        solve_milp(p, inc, proof, clock)
        return
    if settled(p, inc, proof):
        return
    steps = int(min(400_000, 4e7 / max(p.n, 1)) * request.effort)
    if (not small or method in ("anneal", "lns")) and not request.shaped:
        usual = 0.8 if p.n <= 250 and not p.contended() else 0.5
        share = {"anneal": 0.98, "lns": 0.2, "exact": 0.1}.get(method, usual)
        latency.annealed(p, inc, clock, found[:6], max(steps, 1000), share, proof.value)
    if method == "anneal":
        return
    near_proof = inc.best is not None and inc.best.value <= proof.value * (1 + latency.NEAR)
    worth = p.n <= latency.EXACT or request.shaped or (near_proof and p.n <= 160)
    if method == "exact" or (method == "auto" and worth) or inc.best is None:
        share = 1.0 if method == "exact" or small else 0.4
        latency.exact_rounds(p, inc, proof, clock, share)
    near = method != "exact" and not (small and method == "auto") and p.n <= 1200
    if near and not proof.closed and not proof.interrupted:
        rounds = max(1, int((12 if method == "auto" else 40) * request.effort))
        if request.shaped or p.n <= (250 if method == "lns" else LARGE):
            latency.neighbourhoods(p, inc, proof, clock, rounds, 18)
            return
        from csp_embed.partition.methods.splitting import polish

        polish(p, inc, proof, clock, 1000 if clock.wall else max(1, rounds // 4))


def settled(p: Problem, inc: Incumbent, proof: latency.Proof) -> bool:
    """Whether the incumbent is proved optimal, exactly."""
    if inc.best is None or not proof.settles(inc.best.value):
        return False
    exact = Exact.of(p)
    if inc.request.objective == LATENCY:
        assert inc.best.table is not None
        return proof.meets(exact.timetable(inc.best.table).makespan)
    return proof.meets(max(exact.loads(inc.best.dev).values(), default=Fraction(0)))


def steady_start(p: Problem, inc: Incumbent, proof: latency.Proof, clock: Clock) -> None:
    """Where no plan is fast enough in the steady state: the shortest period alone, which either
    gives one or proves that there is none."""
    request = replace(clock.request, objective=THROUGHPUT, min_throughput=None, max_latency=None)
    alone, known = Incumbent(p, request), latency.Proof.of(p)
    throughput.seed_all(p, alone)
    if alone.best is not None:
        latency.exact(p, alone, known, clock.of(request), 3.0, 0.3)
    if known.value * (clock.request.min_throughput or 0.0) > 1 + 2e-9:
        proof.notes.append("infeasible")
    elif alone.best is not None:
        inc.offer(alone.best.dev, throughput.timed(p, alone.best.dev, True), "cpsat")


def run_throughput(p: Problem, inc: Incumbent, proof: latency.Proof, clock: Clock) -> None:
    """Methods for the period; list rules place for latency and are judged by their period."""
    request, method = clock.request, clock.request.method
    if method in LISTS and method not in ("greedy", "single"):
        scheduler = ListScheduler(p, compiled=p.n > latency.SMALL)
        x: Placement = getattr(scheduler, {"minmin": "min_min"}.get(method, method))()
        if np.isfinite(x.value):
            table = decoded(p, x.order, x.dev, scheduler.k, scheduler.a, scheduler.w)
            inc.offer(x.dev, table if request.max_latency is not None else None, method)
        return
    if method in ("greedy", "single"):
        for name, dev in throughput.starts(p):
            if name == method:
                wanted = request.max_latency is not None
                inc.offer(dev, throughput.timed(p, dev, wanted), method)
        return
    throughput.seed_all(p, inc)
    if request.max_latency is not None:
        latency.lists(p, inc, compiled=p.n > latency.SMALL)
    if settled(p, inc, proof):
        return
    if method == "milp":
        from csp_embed.partition.models.milp import solve_milp

        solve_milp(p, inc, proof, clock)
        return
    if method == "split" or (method == "auto" and p.n > TINY):
        from csp_embed.partition.methods.period import split_throughput

        split_throughput(p, inc, proof, clock)
        if method == "split":
            return
    if not request.shaped and (p.n > latency.SMALL or method in ("anneal", "genetic", "lns")):
        q = load_arrays(p)
        steps = int(200_000 * request.effort)
        alone = method in ("anneal", "genetic", "lns")
        throughput.balanced(p, inc, clock, q, steps, 1.0 if alone else 0.25)
        if alone:
            return
    if inc.best is None or (p.n <= 2000 and clock.left() > BUILD * p.n):
        latency.exact_rounds(p, inc, proof, clock, 1.0)


def finish(p: Problem, inc: Incumbent, proof: latency.Proof, request: Request) -> Plan:
    """The plan of the incumbent, or UNKNOWN, or an Infeasible error with the reason."""
    reasons = ("interrupted",) if proof.interrupted else ()
    if inc.best is None:
        if proof.notes and not proof.interrupted:
            raise _infeasible(p, request)
        return Plan(
            request.objective, None, below(proof.sure), None, UNKNOWN, request.method,
            bound=proof.name, graph_sha256=p.graph.sha256, platform_sha256=p.platform.sha256,
            reasons=reasons,
        )  # fmt: skip
    best, exact = inc.best, Exact.of(p)
    table = None if best.table is None else exact.timetable(best.table)
    load = exact.loads(best.dev)
    period = max(load.values(), default=Fraction(0))
    value = period
    if request.objective == LATENCY:
        assert table is not None
        value = table.makespan
    closed = proof.meets(value)
    low = min(proof.sure, value)
    figures = {
        "method": request.method
        if best.method == request.method
        else f"{request.method}:{best.method}",
        "status": OPTIMAL if closed else FEASIBLE,
        "lower_bound": below(low),
        "gap": 0.0 if closed else float((value - low) / value),
        "bound": proof.name,
        "reasons": reasons,
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
    from csp_embed.partition.conflict import reasons

    what = reasons(p, request)
    return Infeasible(
        "no plan keeps all constraints",
        where="; ".join(what) or "the constraints together",
        why="proved by exact search",
        hint="relax one of these",
    )
