"""The default search on made dnn-partitioning workloads, beside simple programs.

    scripts/bench_workloads [--only TEXT] [--seed N] [--seconds S] [--plain S] [--data FILE,FILE]

Ten workloads (`workloads_made`), three models each: throughput with convex sets, without, latency
(inference only). Rivals (`workloads_rivals`, `workloads_plain`) share no code with the package and
evaluate our plan, too. --seconds: CPU seconds of each rival that goes on; --plain: of CP-SAT (0:
none). --data: workloads of one's own. --memory, --devices: the same with other figures.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

from workloads_made import WORKLOADS, made
from workloads_plain import plain
from workloads_rivals import Net, Place, cuts, dealt, descent, ideals

from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.models.dnn_file import parse_dnn
from csp_embed.partition.solve import solve

Values = dict[str, tuple[float, Place]]


def contiguous_rivals(net: Net, seconds: float) -> Values:
    """Periods of pipelines."""
    found: Values = {}

    def keep(name: str, dev: Place) -> None:
        value = net.period(dev)
        if net.convex(dev) and value < found.get(name, (float("inf"), []))[0]:
            found[name] = (value, dev)

    for d in range(net.k + net.cpus):
        keep("single", [d] * net.n)
    for dev in cuts(net, seconds):
        keep("cuts", dev)
    dev = ideals(net, 400)
    if dev is not None:
        keep("ideals", dev)
    return found


def free_rivals(net: Net, known: Values, seconds: float) -> Values:
    """Periods without a shape: descent from the best pipeline."""
    found = dict(known)
    start = min(known.values())[1]
    dev = descent(net, start, net.period, net.k + net.cpus, seconds)
    found["descent"] = (net.period(dev), dev)
    return found


def latency_rivals(net: Net, seconds: float) -> Values:
    """Makespans."""
    found: Values = {}
    for dev in dealt(net):
        value = net.latency(dev)
        if value < found.get("dealt", (float("inf"), []))[0]:
            found["dealt"] = (value, dev)
    dev = descent(net, found["dealt"][1], net.latency, net.k + 1, seconds)
    found["descent"] = (net.latency(dev), dev)
    return found


def row(title: str, data: dict[str, Any], objective: str, convex: bool, rivals: Values, net: Net,
        seconds: float) -> float:  # fmt: skip
    """Prints a line; ours over the best rival."""
    graph, machines = parse_dnn(data, objective, title)
    began = time.process_time()
    plan = solve(
        graph, machines, objective=objective, contiguous=convex, cost_model="dnn-partitioning"
    )
    spent = time.process_time() - began
    assert not check_plan(graph, machines, plan), title
    device = plan.device_of()
    number = {f"fpga{d}": d for d in range(net.k)} | {f"cpu{d}": net.k + d for d in range(net.cpus)}
    dev = [number[device[str(i)]] for i in net.ids]
    value = net.latency(dev) if objective == "latency" else net.period(dev)
    assert abs(value - (plan.objective or 0.0)) <= 1e-6 * value, (title, value, plan.objective)
    assert not convex or net.convex(dev), title
    told = ", ".join(f"{name} {x:.3f}" for name, (x, _) in rivals.items())
    if seconds and objective != "latency":
        other, low = plain(net, convex, seconds)
        if other is not None:
            rivals = {**rivals, "plain": (net.period(other), other)}
        told += f", plain {rivals['plain'][0] if other else float('inf'):.3f} (>= {low:.3f})"
    ratio = value / min(rivals.values())[0]
    mark = f"  ABOVE by {100 * (ratio - 1):.2f} %" if ratio > 1 + 1e-6 else ""
    shape = "latency" if objective == "latency" else "contiguous" if convex else "free"
    text = f"{title} ({net.n}, {net.k}+{net.cpus}) {shape}: {value:.3f}"
    text += f", bound {plan.lower_bound:.3f}, {plan.method}, {spent:.1f} CPU s"
    print(f"{text}; {told}{mark}", flush=True)
    return ratio


def table(title: str, data: dict[str, Any], seconds: float, limit: float) -> list[float]:
    """The rows of one workload."""
    net = Net(data)
    pipes = contiguous_rivals(net, seconds)
    line = partial(row, title, data)
    ratios = [
        line("throughput", True, pipes, net, limit),
        line("throughput", False, free_rivals(net, pipes, seconds), net, limit),
    ]
    if not any(net.back):
        ratios.append(line("latency", False, latency_rivals(net, seconds), net, 0.0))
    return ratios


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", default="", help="part of a workload's name")
    parser.add_argument("--seed", type=int, default=1, help="of the drawn figures")
    parser.add_argument("--seconds", type=float, default=10.0, help="CPU seconds of a rival")
    parser.add_argument("--plain", type=float, default=0.0, help="seconds of CP-SAT")
    parser.add_argument("--data", type=Path, nargs="*", help="files instead of made workloads")
    parser.add_argument("--memory", type=float, default=1.0, help="times the memory of the file")
    parser.add_argument("--devices", type=int, default=0, help="accelerators more than in the file")
    args = parser.parse_args()
    if args.data:
        given = {p.stem: json.loads(p.read_text()) for p in args.data if args.only in str(p)}
    else:
        given = {n: made(n, args.seed) for n in WORKLOADS if args.only in n}
    ratios: list[float] = []
    for title, data in given.items():
        data["maxSizePerFPGA"] *= args.memory
        data["maxFPGAs"] += args.devices
        ratios += table(title, data, args.seconds, args.plain)
    above = sum(r > 1 + 1e-6 for r in ratios)
    print(f"# {len(ratios)} rows, {above} above the best rival, worst {max(ratios):.4f}")


if __name__ == "__main__":
    main()
