"""The modularity-based splitting heuristic: quality, speed against exact solvers, scale.

    scripts/bench_split quality      over the optimum, where exact search proves it (20 to 40)
    scripts/bench_split ratio        time of unseeded MILP and CP-SAT to splitting's value
    scripts/bench_split scale        seconds and memory at 1,000 and 10,000 tasks, against HEFT
    scripts/bench_split layers       100-layer networks by the default method: proved, or the gap
    scripts/bench_split transformer  96 layers on 4 equal servers: collapsed and not

--limit S: of an exact solver (default 600; layers: of the search, 60). --sizes, --objective,
--graphs N (kinds of graph per size), --seed S of the graphs (1 to 50 were used for tuning),
--links free,full,half,bus. Every plan goes through the verifier; a row is printed as soon as it is
known. Seconds: CPU time of one core, after a first run that compiles. "splitting" is the heuristic
from the arrays on, one HEFT schedule included; exact solvers start from the arrays too; "whole" is
the command's time, with bounds and all lists.
A contended link (full, half, bus) carries one transfer at a time, as real ones do. With `free`
links the period is a plain load balance, which a MILP solves at once. `ratio` takes free links for
the latency (with a queue on links the MILP's model does not even fit from 200 tasks on).
"""

from __future__ import annotations

import argparse
import resource
import time
from dataclasses import replace

import numpy as np

from csp_embed.ir.network import Bus, Plan, Platform, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.network.files.platform import find_platform, read_platform
from csp_embed.network.made.generate import layered, with_costs
from csp_embed.network.made.transformer import transformer
from csp_embed.partition.arrays.view import make_problem
from csp_embed.partition.links import finish
from csp_embed.partition.methods.exact_search import exact
from csp_embed.partition.methods.list_scheduling import ListScheduler
from csp_embed.partition.methods.period.period import split_throughput
from csp_embed.partition.methods.splitting import split_latency
from csp_embed.partition.models.milp import solve_milp
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Incumbent, Request
from csp_embed.partition.solve import solve

# CCR, related costs: one graph each
KINDS = [(1.0, False), (0.1, True), (5.0, False), (1.0, True), (0.1, False), (5.0, True)]


def case(
    n: int, ccr: float, related: bool, links: str, seed: int = 1
) -> tuple[TaskGraph, Platform]:
    """A layered graph on three unlike devices, with links of the asked kind."""
    graph, machines = layered(n, ccr, seed, related=related)
    if links == "bus":
        shared = tuple(replace(k, shared="bus") for k in machines.links)
        machines = replace(machines, links=shared, buses=(Bus("bus"),))
    elif links != "free":
        machines = replace(machines, links=tuple(replace(k, duplex=links) for k in machines.links))
    return replace(graph, name=f"{graph.name} {links}"), machines


def judged(graph: TaskGraph, machines: Platform, plan: Plan) -> Plan:
    """The plan, if the verifier takes it."""
    faults = check_plan(graph, machines, plan)
    if faults:
        raise SystemExit(f"{graph.name}: {plan.method}: {faults[0]}")
    return plan


def splitting(graph: TaskGraph, machines: Platform, objective: str) -> tuple[Plan, float]:
    """The heuristic's plan and CPU seconds."""
    p = make_problem(graph, machines)
    request = Request(objective, method="split")
    inc, proof, clock = Incumbent(p, request), Proof(), Clock(request)
    began = time.process_time()
    if objective == "latency":
        split_latency(p, inc, proof, clock, [ListScheduler(p).heft()])
    else:
        split_throughput(p, inc, proof, clock)
    took = time.process_time() - began
    return judged(graph, machines, finish(p, inc, proof, request)), took


def unseeded(
    graph: TaskGraph, machines: Platform, objective: str, engine: str, limit: float, target: float
) -> tuple[float, bool, float]:
    """(best value, proved, CPU seconds) of an exact solver that knows no heuristic plan and stops
    at the target value."""
    p = make_problem(graph, machines)
    request = Request(objective, time_limit=limit)
    inc, proof, clock = Incumbent(p, request), Proof(), Clock(request)
    began = time.process_time()
    if engine == "milp":
        solve_milp(p, inc, proof, clock, seeded=False, target=target)
    else:
        exact(p, inc, proof, clock, limit, target=target)
    took = time.process_time() - began
    if inc.best is None:
        return float("inf"), False, took
    judged(graph, machines, finish(p, inc, proof, request))
    return inc.best.value, proof.closed, took


def warm(objective: str) -> None:
    """Compiles."""
    for links in ("free", "full"):
        splitting(*case(50, 1.0, False, links, 9), objective)


def quality(args: argparse.Namespace) -> None:
    """Splitting over the proved optimum, HEFT beside it."""
    for objective in args.objective:
        warm(objective)
        over, closed_gaps = [], []
        for n in args.sizes or (20, 30, 40):
            for links in args.links or ("free", "full", "bus"):
                for ccr, related in KINDS[: args.graphs]:
                    graph, machines = case(n, ccr, related, links, args.seed)
                    mine, took = splitting(graph, machines, objective)
                    best = solve(graph, machines, objective=objective, time_limit=args.limit)
                    heft = solve(graph, machines, objective=objective, method="heft")
                    value, low = mine.objective or 0.0, best.objective or 1.0
                    proved = best.status == "OPTIMAL"
                    if proved:
                        over.append(value / low - 1)
                    gap = (heft.objective or 0.0) - low
                    if gap > 1e-9 * low:
                        closed_gaps.append(((heft.objective or 0.0) - value) / gap)
                    print(
                        f"{objective} {graph.name}: {100 * (value / low - 1):+.2f} % of"
                        f" {'the optimum' if proved else 'the best known'}, HEFT"
                        f" {100 * ((heft.objective or 0.0) / low - 1):+.1f} %, {took:.2f} s",
                        flush=True,
                    )
        if over:
            print(
                f"{objective}: {len(over)} proved; splitting over the optimum: mean"
                f" {100 * np.mean(over):.2f} %, worst {100 * max(over):.2f} %; closes"
                f" {100 * np.mean(closed_gaps):.0f} % of HEFT's gap to the best (mean)\n",
                flush=True,
            )


def ratio(args: argparse.Namespace) -> None:
    """Time of an unseeded exact solver over splitting's, until it is as good."""
    for objective in args.objective:
        warm(objective)
        for n in args.sizes or (40, 100, 200, 400):
            for links in args.links or (
                ("free",) if objective == "latency" else ("full", "bus", "free")
            ):
                for ccr, related in KINDS[: args.graphs]:
                    graph, machines = case(n, ccr, related, links, args.seed)
                    mine, took = splitting(graph, machines, objective)
                    whole = solve(graph, machines, objective=objective, method="split")
                    heft = solve(graph, machines, objective=objective, method="heft")
                    value = mine.objective or 0.0
                    print(
                        f"{objective} {graph.name}: splitting {value:.2f} in {took:.2f} s"
                        f" (whole {whole.seconds:.2f} s),"
                        f" {100 * (1 - value / (heft.objective or 1)):.1f} % under HEFT,"
                        f" {100 * (value / whole.lower_bound - 1):.1f} % over the bound",
                        flush=True,
                    )
                    for engine in args.engines.split(","):
                        print(
                            "   ",
                            race(graph, machines, objective, engine, value, took, args),
                            flush=True,
                        )


def race(
    graph: TaskGraph, machines: Platform, objective: str, engine: str, value: float, mine: float,
    args: argparse.Namespace,
) -> str:  # fmt: skip
    """One engine against a value."""
    theirs, proved, took = unseeded(graph, machines, objective, engine, args.limit, value)
    over = f"{100 * (theirs / value - 1):+.2f} %" if np.isfinite(theirs) else "nothing"
    if theirs <= value * (1 + 1e-6):
        return f"{engine}: as good after {took:.1f} s: ratio {took / mine:.0f} ({over})"
    why = "its optimum" if proved else "limit"
    return f"{engine}: {over} after {took:.0f} s: ratio > {took / mine:.0f}, {why}"


def scale(args: argparse.Namespace) -> None:
    """The whole command at size, and within a wall-clock limit."""
    for objective in args.objective:
        warm(objective)
        for n in args.sizes or (1000, 10_000):
            for ccr, related in KINDS[: args.graphs]:
                graph, machines = case(n, ccr, related, (args.links or ["free"])[0], args.seed)
                began = time.process_time()
                plan = solve(graph, machines, objective=objective, method="split")
                took = time.process_time() - began
                heft = solve(graph, machines, objective=objective, method="heft")
                _, alone = splitting(graph, machines, objective)
                begun = time.perf_counter()
                short = solve(graph, machines, objective=objective, method="split", time_limit=20)
                rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
                better = 100 * (1 - (plan.objective or 0.0) / (heft.objective or 1.0))
                print(
                    f"{objective} {graph.name}: {took:.1f} s whole, {alone:.1f} s splitting, peak"
                    f" {rss:.2f} GiB, {better:.1f} % under HEFT, gap {100 * (plan.gap or 0):.1f} %;"
                    f" limit 20 s: search {short.seconds:.1f} s, with reading and verifying"
                    f" {time.perf_counter() - begun:.1f} s",
                    flush=True,
                )


def layers(args: argparse.Namespace) -> None:
    """Networks of about 100 layers on a CPU and two GPUs, by the default method."""
    limit = min(args.limit, 60.0)
    for name in ("cpu_2gpu", "cpu_2gpu_affinity"):
        machines = read_platform(find_platform(name))
        for sketch in (transformer(98, blocks=True), transformer(17), transformer(16, hidden=2048)):
            graph = with_costs(sketch, machines)
            for objective in args.objective:
                plan = solve(graph, machines, objective=objective, time_limit=limit, workers=2)
                judged(graph, machines, plan)
                print(
                    f"{objective} {sketch.name} ({len(graph.tasks)} tasks) on {name}:"
                    f" {plan.objective:.4f} ms, {plan.status}, gap {100 * (plan.gap or 0):.2f} %,"
                    f" {plan.seconds:.1f} s",
                    flush=True,
                )


def stack(args: argparse.Namespace) -> None:
    """A transformer on four equal servers of three unlike devices, with and without collapsing."""
    machines = read_platform(find_platform("four_servers"))
    apart = replace(machines, devices=tuple(replace(d, server=None) for d in machines.devices))
    for size in args.sizes or (96,):
        graph = with_costs(transformer(size, blocks=args.blocks), machines)
        for objective in args.objective:
            for name, platform in (("collapsed", machines), ("uncollapsed", apart)):
                for method in ("split", "auto"):
                    plan = solve(
                        graph, platform, objective=objective, method=method,
                        time_limit=None if method == "split" else min(args.limit, 60.0),
                    )  # fmt: skip
                    judged(graph, platform, plan)
                    print(
                        f"{objective}, {size} layers ({len(graph.tasks)} tasks), {name}, {method}:"
                        f" {plan.objective:.4f} ms, bound {plan.lower_bound:.4f} ({plan.bound}),"
                        f" gap {100 * (plan.gap or 0):.2f} %, {plan.seconds:.1f} s, {plan.method}",
                        flush=True,
                    )


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    tables = {"quality": quality, "ratio": ratio, "scale": scale, "layers": layers}
    tables["transformer"] = stack
    parser.add_argument("table", choices=tables)
    parser.add_argument("--limit", type=float, default=600.0)
    parser.add_argument("--sizes", type=lambda s: [int(x) for x in s.split(",")])
    parser.add_argument("--links", type=lambda s: s.split(","))
    parser.add_argument("--graphs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=1, help="of the graphs")
    parser.add_argument("--engines", default="milp,cpsat")
    parser.add_argument(
        "--objective", type=lambda s: s.split(","), default=["latency", "throughput"]
    )
    parser.add_argument("--blocks", action="store_true", help="transformer: one task per layer")
    args = parser.parse_args()
    tables[args.table](args)


if __name__ == "__main__":
    main()
