"""Tables of the partitioner: known values, methods on networks, random graphs.

    scripts/bench_partition known   --data DIR [--limit S] [--only TEXT]   rows of the known values
    scripts/bench_partition methods [--limit S] [--networks N]   ten methods on twelve networks
    scripts/bench_partition random  [--sizes 20,60,110] [--limit S] [--count N] [--seed S] …
                                                         random task graphs, see bench_random.py

Run from the project's folder. --data: a copy of the public dnn-partitioning data set (MIT), or the
folder above it; ../shared/partition where that is there. --limit: seconds per search (default:
deterministic for `known`; 5 at
20 tasks and 60 above for `random`, 0 is deterministic there; else 10). Times are wall clock, but
for `known`, where they are of the CPU.
Splitting against exact solvers: scripts/bench_split.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from bench_random import FAMILIES, layered, platform, random

from csp_embed.partition.models.dnn_file import read_dnn
from csp_embed.partition.solve import solve

DATA = Path(__file__).parents[2] / "shared/partition"
T, L = "throughput-inputs", "latency-inputs"
# file, objective, contiguous, value in ms, proved (from docs/partition-model.md; where it is not
# proved, the best that anybody found, be it we)
KNOWN = [
    (f"{T}/LayerGraphs/bert24_inference.json", "throughput", True, 17.790, True),
    (f"{T}/LayerGraphs/bert24_inference.json", "throughput", False, 17.715, False),
    (f"{T}/LayerGraphs/bert24_training.json", "throughput", True, 41.746, True),
    (f"{T}/LayerGraphs/bert24_training.json", "throughput", False, 39.790, True),
    (f"{T}/LayerGraphs/gnmt_inference.json", "throughput", True, 32.911, True),
    (f"{T}/LayerGraphs/gnmt_inference.json", "throughput", False, 31.687, False),
    (f"{T}/LayerGraphs/resnet50_inference.json", "throughput", True, 33.775, True),
    (f"{T}/LayerGraphs/resnet50_inference.json", "throughput", False, 33.775, False),
    (f"{T}/LayerGraphs/resnet50_training.json", "throughput", True, 78.632, True),
    (f"{T}/LayerGraphs/resnet50_training.json", "throughput", False, 78.187, False),
    (f"{T}/OperatorGraphs/bert_l-3_inference.json", "throughput", True, 27.919, True),
    (f"{T}/OperatorGraphs/bert_l-3_inference.json", "throughput", False, 21.908, True),
    (f"{T}/OperatorGraphs/bert_l-6_inference.json", "throughput", True, 29.580, True),
    (f"{T}/OperatorGraphs/bert_l-6_inference.json", "throughput", False, 28.332, False),
    (f"{T}/OperatorGraphs/bert_L-12_training.json", "throughput", True, 437.998, False),
    (f"{T}/OperatorGraphs/bert_L-12_training.json", "throughput", False, 373.424, False),
    (f"{T}/OperatorGraphs/resnet50_training.json", "throughput", True, 255.194, False),
    (f"{T}/OperatorGraphs/resnet50_training.json", "throughput", False, 255.194, False),
    (f"{L}/LayerGraphs/bert24_inference.json", "latency", False, 100.218, True),
    (f"{L}/OperatorGraphs/bert_l-3_inference.json", "latency", False, 408.474, True),
    (f"{L}/LayerGraphs/gnmt_inference.json", "latency", False, 225.648, False),
    (f"{L}/LayerGraphs/resnet50_inference.json", "latency", False, 1443.79, False),
    (f"{L}/OperatorGraphs/bert_l-12_inference.json", "latency", False, 867.839, False),
]
METHODS = (
    "single", "greedy", "minmin", "heft", "peft", "lookahead", "genetic", "anneal", "split", "auto",
)  # fmt: skip


def known(data: Path, limit: float | None, only: str = "") -> None:
    """Our value, bound and CPU time beside each known value. only: a part of a file's name."""
    if (data / "dnn-partitioning").is_dir():
        data = data / "dnn-partitioning"
    if not (data / T).is_dir():
        raise SystemExit(f"{data} has no {T}: --data names a copy of the dnn-partitioning data set")
    print("workload, objective, contiguous: known value, ours, our bound, status, CPU time")
    for file, objective, contiguous, value, proved in KNOWN:
        if only not in f"{file} {objective} {'contiguous' if contiguous else 'free'}":
            continue
        begin = time.process_time()
        graph, machines = read_dnn(data / file, objective)
        plan = solve(
            graph, machines, objective=objective, contiguous=contiguous,
            cost_model="dnn-partitioning", time_limit=limit,
        )  # fmt: skip
        ours = float("inf") if plan.objective is None else plan.objective
        over = ours / value - 1
        mark = "" if ours <= value + 1e-3 else f"  WORSE by {100 * over:.2f} %"
        sign = "" if proved else "<= "
        print(
            f"{Path(file).stem} {objective} {'contiguous' if contiguous else 'free'}:"
            f" {sign}{value:.3f}, {ours:.3f}, {plan.lower_bound:.3f}, {plan.status},"
            f" {time.process_time() - begin:.1f} s{mark}",
            flush=True,
        )


def methods(limit: float, networks: int) -> None:
    """Objective over bound and seconds, both objectives."""
    graphs = [
        layered(n, ccr, 1, related)
        for n, ccr in ((40, 0.1), (40, 1), (40, 5), (100, 0.1), (100, 1), (100, 5))
        for related in (True, False)
    ]
    for objective in ("latency", "throughput"):
        print(f"\n{objective}: value / best bound (seconds)")
        for graph in graphs[:networks]:
            plans = {}
            for m in METHODS:
                wall = limit if m in ("anneal", "genetic", "auto") else None
                plans[m] = solve(graph, platform(), objective=objective, method=m, time_limit=wall)
            low = max(p.lower_bound for p in plans.values())
            cells = [
                f"{m} {(p.objective or float('nan')) / low:.3f} ({p.seconds:.1f})"
                for m, p in plans.items()
            ]
            print(f"{graph.name}: " + "  ".join(cells), flush=True)


def main() -> None:
    """Reads the arguments."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=("known", "methods", "random"))
    parser.add_argument("--limit", type=float)
    parser.add_argument("--data", type=Path, default=DATA, help="known: the public workloads")
    parser.add_argument("--only", default="", help="known: part of a row's name")
    parser.add_argument("--sizes", help="random: numbers of tasks")
    parser.add_argument("--count", type=int, default=2, help="random: seeds per kind of graph")
    parser.add_argument("--seed", type=int, default=100, help="random: the first seed")
    parser.add_argument("--reference", type=float, default=0.0, help="random: seconds")
    parser.add_argument("--families", default=",".join(FAMILIES), help="random: kinds of graph")
    parser.add_argument("--duplex", choices=("half", "full"), help="random: links with queues")
    parser.add_argument("--networks", type=int, default=12)
    args = parser.parse_args()
    if args.table == "known":
        known(args.data, args.limit, args.only)
    elif args.table == "methods":
        methods(args.limit or 10.0, args.networks)
    else:
        random(
            numbers(args.sizes or "20,60,110"), args.limit, args.count, args.seed, args.reference,
            args.families.split(","), args.duplex,
        )  # fmt: skip


def numbers(text: str) -> list[int]:
    """ "20,60" as numbers."""
    return [int(x) for x in text.split(",")]


if __name__ == "__main__":
    main()
