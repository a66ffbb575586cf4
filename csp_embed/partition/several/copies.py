"""Copies of a network for replicas or shares of a batch: their tasks, how they are solved together,
and the plan that comes of it.

Takes: a graph, a platform, samples of each copy.  Leaves: one graph of all copies, named
`copy/task`; bounds of what any copy can cost; a Plan with `replicas`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fractions import Fraction

from csp_embed.errors import Infeasible
from csp_embed.ir.network import (
    FEASIBLE,
    OPTIMAL,
    Assignment,
    Edge,
    Plan,
    Platform,
    Replica,
    Task,
    TaskGraph,
    Transfer,
)
from csp_embed.partition.arrays.symmetry import trimmed
from csp_embed.partition.arrays.view import make_problem, normalised, number
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.links import solve_links
from csp_embed.partition.request import Clock, Request
from csp_embed.partition.times.exact import DOUBLE, Exact, below

LEAST = 0.05  # s that any search gets


def shared(clock: Clock, share: float = 1.0, stopped: bool = False) -> Request:
    """The request with a share of the time that is left. stopped: by Ctrl-C, after which what is
    missing is only completed, the quickest way."""
    own = replace(clock.request, progress=None)
    if stopped:
        return replace(own, method="greedy", time_limit=1.0)
    return replace(own, time_limit=max(LEAST, share * clock.left()) if clock.wall else None)


def solved(
    graph: TaskGraph, platform: Platform, request: Request, fix: dict[str, str] | None = None
) -> Plan:
    """One copy, with a clock of its own."""
    return solve_links(graph, platform, Clock(request), dict(fix or {}), None)


def load(graph: TaskGraph, platform: Platform, fix: dict[str, str], copies: int) -> Fraction:
    """`bounds.load` in ms, exactly, of any mixture of so many placements."""
    # Pins of `fix` count here too; devices that they name must not be trimmed away.
    p = normalised(make_problem(graph, trimmed(graph, platform, fix.values(), copies), fix))
    return Exact.of(p).load(bounds.load_prices(bounds.by_group(p)[0])) if p.n else Fraction(0)


def times(x: float, count: int) -> float:
    """So many times a decimal: three times 0.1 is 0.3."""
    return float(number(x) * count)


def copy_of(task: Task, index: int, names: Sequence[str], platform: Platform, share: int) -> Task:
    """Task of replica `index` for `share` samples, on its own devices only."""
    cost = {}
    for d in platform.devices:
        if d.name in names:
            c, linear = task.batch_cost_on(d, share) if share > 1 else (task.cost_on(d), False)
            if c is not None:
                cost[d.name] = times(task.cost_on(d) or 0.0, share) if linear else c
    if not cost or (task.pin is not None and task.pin not in names):
        raise Infeasible(
            f"replica {index} has no device for task {task.id!r}",
            where=f"task {task.id}",
            hint="fewer replicas, or a cost of the task on more devices",
        )
    return replace(
        task,
        id=f"{index}/{task.id}",
        cost=cost,
        cost_by_batch={},
        activation_bytes=times(task.activation_bytes, share),
        # Copies are apart: a label holds within one copy only.
        colocate=None if task.colocate is None else f"{index}/{task.colocate}",
    )


Copy = tuple[int, Sequence[str], int]
"""Number, devices and samples of a copy."""


def copied(graph: TaskGraph, platform: Platform, copies: Sequence[Copy]) -> TaskGraph:
    """All copies as one graph. Raises: Infeasible where one has no device for a task."""
    return TaskGraph(
        tuple(copy_of(t, i, names, platform, s) for i, names, s in copies for t in graph.tasks),
        tuple(
            Edge(f"{i}/{e.src}", f"{i}/{e.dst}", times(e.bytes, s), e.tensor)
            for i, _, s in copies for e in graph.edges
        ),
    )  # fmt: skip


def replicas_of(plan: Plan, shares: Sequence[int]) -> tuple[Replica, ...]:
    """What a plan of `copied` says of each copy. shares: samples of each."""
    return tuple(
        Replica(float(s), _rows(plan.assignments, i), {}, _hops(plan.transfers, i))
        for i, s in enumerate(shares)
    )


def scaled(graph: TaskGraph, platform: Platform, copies: Sequence[Copy]) -> bool:
    """Whether some cost of a copy is that of one sample times its samples."""
    return any(
        t.batch_cost_on(d, s)[1]
        for _, names, s in copies if s > 1
        for t in graph.tasks
        for d in platform.devices if d.name in names and t.cost_on(d) is not None
    )  # fmt: skip


def cheapest(task: Task, platform: Platform, shares: range, by_sample: bool) -> Task:
    """The least that a task can cost on each device with any share; by_sample: per sample of it."""
    cost = {}
    for d in platform.devices:
        known = []
        for s in shares:
            c, linear = task.batch_cost_on(d, s) if s > 1 else (task.cost_on(d), False)
            if c is not None:
                ms = number(task.cost_on(d) or 0.0) * s if linear else number(c)
                known.append(ms / s if by_sample else ms)
        if known:
            cost[d.name] = float(min(known))
    return replace(task, cost=cost, cost_by_batch={}, pin=None)


def _rows(rows: tuple[Assignment, ...], index: int) -> tuple[Assignment, ...]:
    prefix = f"{index}/"
    return tuple(
        replace(r, task=r.task.removeprefix(prefix)) for r in rows if r.task.startswith(prefix)
    )


def _hops(rows: tuple[Transfer, ...], index: int) -> tuple[Transfer, ...]:
    prefix = f"{index}/"
    return tuple(
        replace(
            r,
            src_task=r.src_task.removeprefix(prefix),
            # Tensors without a name are called "src -> dst", in which both ids carry the prefix.
            tensor=r.tensor.replace(prefix, "") if "->" in r.tensor else r.tensor,
        )
        for r in rows
        if r.src_task.startswith(prefix)
    )


def plan_of(
    graph: TaskGraph, platform: Platform, request: Request, value: Fraction, low: Fraction,
    found: tuple[Replica, ...], bound: str,
) -> Plan:  # fmt: skip
    # Rates are written as doubles, so that even equal figures differ in their last digits.
    if low > value * (1 + 1000 * DOUBLE):
        # A bound above a plan that was judged is wrong: nothing is claimed then.
        low, bound = Fraction(0), ""
    low = min(low, value)
    closed = value - low <= value * DOUBLE
    return Plan(
        request.objective, float(value), below(low),
        0.0 if closed else float((value - low) / value),
        OPTIMAL if closed else FEASIBLE, request.method, replicas=found, bound=bound,
        graph_sha256=graph.sha256, platform_sha256=platform.sha256,
    )  # fmt: skip
