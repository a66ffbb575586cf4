"""Held-out random task graphs: quality and time against HEFT, twenty list rules, bound, reference.

    scripts/bench_partition random [--sizes 20,60,110] [--limit S] [--count N] [--seed S]
                                   [--reference S] [--families bench,generate,dense]
                                   [--duplex half|full]

3 devices, related and unrelated costs, CCR 0.1, 1, 5; equal shares of all. Links are uncontended
unless --duplex makes transfers queue on them. Each
graph is solved by `auto` with --limit seconds on two workers (default: 5 at up to 30 tasks, else
60; 0: the deterministic mode). A line per graph: value over HEFT, over the best of twenty list
rules, over greedy, over the lower bound, the part of HEFT's gap that was closed, and with
--reference S over the best of two runs of S seconds from other seeds. Every plan is judged by the
verifier, which shares no code with the methods. Times are wall clock.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from csp_embed.ir.network import Device, Edge, Link, Plan, Platform, Task, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.network.made.generate import layered as generated
from csp_embed.partition.arrays.view import make_problem
from csp_embed.partition.methods.list_scheduling import SUMMARIES, ListScheduler
from csp_embed.partition.solve import solve
from csp_embed.partition.times import kernels

FAMILIES = ("bench", "generate", "dense")


def platform(m: int = 3) -> Platform:
    """m unlike devices, uncontended links of 1 byte per ms."""
    return Platform(
        tuple(Device(f"p{j}", f"kind{j}") for j in range(m)),
        tuple(Link((f"p{a}", f"p{b}"), 1.0) for a in range(m) for b in range(a)),
    )


def layered(n: int, ccr: float, seed: int, related: bool, m: int = 3) -> TaskGraph:
    """Layers of random width; each task reads one or more of the three layers before it."""
    rng = np.random.default_rng(seed)
    width = max(2, round(n**0.5))
    layers: list[list[int]] = []
    at = 0
    while at < n:
        size = int(min(n - at, rng.integers(1, 2 * width)))
        layers.append(list(range(at, at + size)))
        at += size
    base = rng.uniform(1, 100, n)
    if related:
        cost = np.outer(base, 1 / rng.uniform(0.5, 2, m))
    else:
        cost = base[:, None] * rng.uniform(0.5, 2, (n, m))
    pairs: set[tuple[int, int]] = set()
    for i in range(1, len(layers)):
        for t in layers[i]:
            pairs.add((int(rng.choice(layers[i - 1])), t))
            for _ in range(rng.poisson(1.5)):
                pairs.add((int(rng.choice(layers[int(rng.integers(max(0, i - 3), i))])), t))
    tasks = tuple(Task(f"t{i}", {f"p{j}": float(cost[i, j]) for j in range(m)}) for i in range(n))
    size = cost.mean() * ccr
    edges = tuple(
        Edge(f"t{u}", f"t{t}", float(rng.uniform(0.2, 1.8) * size)) for u, t in sorted(pairs)
    )
    kind = "related" if related else "unrelated"
    return TaskGraph(tasks, edges, f"{n} tasks, CCR {ccr:g}, {kind}, seed {seed}")


def dense(n: int, ccr: float, seed: int, related: bool, m: int = 3) -> TaskGraph:
    """Each pair i < j is an edge with chance 3/n; whole-numbered costs (many equal sums)."""
    rng = np.random.default_rng([seed, n, 7])
    if related:
        cost = np.outer(rng.integers(1, 51, n), rng.integers(1, 5, m))
    else:
        cost = rng.integers(1, 101, (n, m))
    tasks = tuple(Task(f"t{i}", {f"p{j}": float(cost[i, j]) for j in range(m)}) for i in range(n))
    edges = tuple(
        Edge(f"t{i}", f"t{j}", float(round(rng.uniform(0, 2) * ccr * cost.mean())))
        for i, j in itertools.combinations(range(n), 2)
        if rng.random() < 3 / n
    )
    kind = "related" if related else "unrelated"
    return TaskGraph(tasks, edges, f"dense {n} tasks, CCR {ccr:g}, {kind}, seed {seed}")


def make(family: str, n: int, ccr: float, seed: int, related: bool) -> tuple[TaskGraph, Platform]:
    """A graph of a family and its platform."""
    if family == "generate":
        return generated(n, ccr, seed, related=related)
    return (layered if family == "bench" else dense)(n, ccr, seed, related), platform()


def twenty(graph: TaskGraph, machines: Platform) -> dict[str, float]:
    """Makespans of twenty list rules: ranks (upward by mean, best or worst cost, with and without
    transfers) x device rules (earliest finish, optimistic table, lookahead), CPOP and greedy."""
    s = ListScheduler(make_problem(graph, machines))
    modes = {"finish": kernels.HEFT, "table": kernels.OCT, "lookahead": kernels.LOOKAHEAD}
    found = {}
    for how, (rule, mode), comm in itertools.product(SUMMARIES, modes.items(), (True, False)):
        if how != "median":
            name = f"{how}-{rule}-{'comm' if comm else 'free'}"
            found[name] = s.ranked(how, mode, name, comm).value
    found |= {"cpop": s.cpop().value, "greedy": s.greedy().value}
    assert len(found) == 20
    return found


def judged(graph: TaskGraph, machines: Platform, plan: Plan) -> float:
    """The plan's makespan, after the verifier's word."""
    faults = check_plan(graph, machines, plan)
    if faults or plan.objective is None:
        raise SystemExit(f"{graph.name}: {faults[:3] or plan.status}")
    return plan.objective


def best_known(graph: TaskGraph, machines: Platform, seconds: float) -> float:
    """The best of two long runs."""
    runs = [solve(graph, machines, time_limit=seconds, workers=2, seed=s) for s in (101, 102)]
    return min(judged(graph, machines, plan) for plan in runs)


def random(
    sizes: list[int], limit: float | None, count: int, seed: int, reference: float,
    families: list[str], duplex: str | None = None,
) -> None:  # fmt: skip
    """All tables."""
    solve(*make("bench", 40, 1.0, 0, True), method="anneal", effort=0.01)  # compiles
    for n in sizes:
        wall = limit if limit is not None else (5.0 if n <= 30 else 60.0)
        rows, proved, slowest = [], 0, 0.0
        grid = itertools.product(families, (True, False), (0.1, 1.0, 5.0), range(count))
        for family, related, ccr, k in grid:
            graph, machines = make(family, n, ccr, seed + k, related)
            if duplex:
                links = tuple(replace(link, duplex=duplex) for link in machines.links)
                machines = replace(machines, links=links)
            rules = twenty(graph, machines)
            heft, greedy = rules["mean-finish-comm"], rules["greedy"]
            if wall:
                plan = solve(graph, machines, time_limit=wall, workers=2)
            else:
                plan = solve(graph, machines)
            value = judged(graph, machines, plan)
            known = min(value, best_known(graph, machines, reference)) if reference else value
            low = known if plan.status == "OPTIMAL" or reference else plan.lower_bound
            closed = 1.0 if heft <= low * (1 + 1e-9) else (heft - value) / (heft - low)
            row = (
                value / heft, value / min(rules.values()), value / greedy,
                value / plan.lower_bound, value / known, closed, plan.seconds or 0.0,
            )  # fmt: skip
            rows.append(row)
            proved += plan.status == "OPTIMAL"
            slowest = max(slowest, row[-1])
            print(
                f"{family} {graph.name}: HEFT {row[0]:.4f}, best of 20 {row[1]:.4f}, greedy"
                f" {row[2]:.4f}, bound {row[3]:.4f}, best known {row[4]:.4f},"
                f" HEFT's gap closed {row[5]:.2f}, {plan.status} {row[6]:.1f} s",
                flush=True,
            )
        mean = np.mean(rows, axis=0)
        print(
            f"{n} tasks, {len(rows)} graphs, seeds {seed} to {seed + count - 1}: mean over HEFT"
            f" {mean[0]:.4f}, best of 20 {mean[1]:.4f} (worst {max(r[1] for r in rows):.4f}),"
            f" greedy {mean[2]:.4f}, bound {mean[3]:.4f}, best known {mean[4]:.4f} (worst"
            f" {max(r[4] for r in rows):.4f}); HEFT's gap closed {mean[5]:.2f} (to the"
            f" {'best known' if reference else 'bound, or optimum'}); proved {proved},"
            f" slowest {slowest:.1f} s\n",
            flush=True,
        )
