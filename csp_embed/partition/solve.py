"""One function for every method: `solve`.

Takes: a TaskGraph, a Platform, a request.  Leaves: a Plan with a proved lower bound and an honest
status.  Every plan passes the verifier before it is returned; a refusal is our bug.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from csp_embed.errors import InputError
from csp_embed.ir.network import LATENCY, THROUGHPUT, Plan, Platform, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.nearest import did_you_mean
from csp_embed.partition.dnn_solve import solve_dnn
from csp_embed.partition.links import solve_links
from csp_embed.partition.mixture.mix import solve_mixture
from csp_embed.partition.portfolio import METHODS
from csp_embed.partition.request import Clock, Progress, Request
from csp_embed.partition.several.batch_shares import solve_shares
from csp_embed.partition.several.data_parallel import solve_replicated

__all__ = ["METHODS", "solve"]


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
    gap: float = 0.0,
    share: bool = False,
) -> Plan:
    """Places (and for latency schedules) a task graph.

    method: one of METHODS. "auto" combines list schedules, annealing, exact search and
        neighbourhoods by size; "exact" is CP-SAT seeded with the best of them; "milp" is HiGHS.
    contiguous: each device's tasks form a convex set; pipeline: no ring of devices either.
    max_latency (ms), min_throughput (samples per ms, so 0.2 for 200 samples per second): limits on
        the other (or same) objective.
    replicas: data parallelism over so many disjoint device sets; batch: samples per step (latency).
    time_limit (s) and workers > 1 with it: wall clock, not reproducible. Without a limit the work
        is fixed, times `effort`. gap: of an objective to the bound, at which the search ends
        (0.01: what is proved within a hundredth is good enough).
    share: throughput: samples may take several placements, whose shares are chosen; see `mixture`.
        latency: the samples of a batch may share devices; see `batch_shares`.
    fix: device by task. start: a plan to improve; tasks whose device is gone are placed anew.

    Returns: a Plan; status OPTIMAL where objective and proved bound are equal as exact numbers,
    FEASIBLE, or
        UNKNOWN (the limit came first; no assignments).
    Raises: InputError, Infeasible.
    """
    _check(
        objective, method, cost_model, time_limit, workers, effort, replicas, batch,
        max_latency, min_throughput, gap,
    )  # fmt: skip
    request = Request(
        objective, method, contiguous, pipeline, max_latency, min_throughput,
        time_limit, workers, seed, effort, gap, progress,
    )  # fmt: skip
    # One clock: limits and `seconds` of all parts count from here.
    clock = Clock(request)
    if cost_model == "dnn-partitioning":
        # `effects` tells callers that copies and shares mean nothing in this model.
        plan = solve_dnn(graph, platform, clock, dict(fix or {}), start)
    elif share and objective == LATENCY and replicas == 1 and batch > 1:
        plan = solve_shares(graph, platform, clock, dict(fix or {}), batch)
    elif share:
        if replicas > 1 or batch > 1:
            raise InputError(
                "share chooses the copies itself",
                why="replicas and batch state them",
                hint="leave out --replicas and --batch, or --share",
            )
        plan = solve_mixture(graph, platform, clock, dict(fix or {}))
    elif replicas > 1 or batch > 1:
        plan = solve_replicated(graph, platform, clock, dict(fix or {}), replicas, batch)
    else:
        plan = solve_links(graph, platform, clock, dict(fix or {}), start)
    # The plan carries what was asked for, so that it can be checked without this call.
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
    # A plan without assignments has nothing to check.
    if plan.objective is not None:
        faults = check_plan(graph, platform, plan)
        assert not faults, f"our verifier refuses our plan: {faults[:3]}"
    return plan


def _check(
    objective: str, method: str, cost_model: str, time_limit: float | None, workers: int,
    effort: float, replicas: int, batch: int, max_latency: float | None,
    min_throughput: float | None, gap: float,
) -> None:  # fmt: skip
    """Refuses unknown names and meaningless numbers."""
    for what, value, known in (
        ("objective", objective, (LATENCY, THROUGHPUT)),
        ("method", method, METHODS),
        ("cost model", cost_model, ("links", "dnn-partitioning")),
    ):
        if value not in known:
            every = ", ".join(known)
            raise InputError(
                f"unknown {what} {value!r}",
                why=f"there are {every}",
                hint=did_you_mean(value, known, f"one of {every}"),
            )
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"time limit {time_limit} s", hint="give a positive number of seconds")
    for what, limit, unit in (
        ("max_latency", max_latency, "ms"),
        ("min_throughput", min_throughput, "samples per ms (1000 samples per second are 1)"),
    ):
        if limit is not None and not limit > 0:
            raise InputError(f"{what} {limit:g}", hint=f"give a positive number of {unit}")
    if not 0 <= gap < 1:
        raise InputError(f"gap {gap:g}", hint="give a part of the objective: 0.01 is one per cent")
    if min(workers, replicas, batch) < 1 or not effort > 0:
        raise InputError(
            "workers, replicas, batch and effort must be positive",
            hint="leave them out: each is 1 by default",
        )
