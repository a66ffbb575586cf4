"""Reach of `csp-embed serve`: published instances, tiny ones tried out, large clusters."""

from __future__ import annotations

import argparse
import json
import random
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests" / "unit" / "serving"))

import serving_oracle as oracle  # noqa: E402

from csp_embed.errors import Infeasible  # noqa: E402
from csp_embed.serving.files.plan_file import ServingPlan  # noqa: E402
from csp_embed.serving.files.read import instance_from, read_instance  # noqa: E402
from csp_embed.serving.judge.check import check  # noqa: E402
from csp_embed.serving.plan import plan, serve  # noqa: E402


def known(folder: Path, limit: float | None) -> None:
    """Value, bound and CPU seconds beside what is published and what is known."""
    table = json.loads((folder / "known.json").read_text())
    print("instance            published  best known      value      bound  status    CPU s")
    for name, entry in table.items():
        instance = read_instance(folder / f"{name}.json")
        found = plan(instance, time_limit=limit)
        print(
            f"{name:18} {entry['gurobi']['value']:10.2f}  {entry['best_value']:10.2f} "
            f"{found.value or 0:10.2f} {found.bound:10.2f}  {found.status:8} "
            f"{found.seconds:6.2f}  {_judged(instance, found)}",
            flush=True,
        )


def tiny(count: int) -> None:
    """Every placement tried: how often the optimum is found and proved, and is any claim wrong."""
    equal = proved = wrong = 0
    for seed in range(count):
        document = oracle.random_document(seed, machines=3 + seed % 2, layers=4 + seed % 2)
        best = float(oracle.best(document))
        try:
            found = serve(document)
        except Infeasible:
            equal += best == 0
            wrong += best != 0
            continue
        value = found.value or 0.0
        equal += abs(value - best) <= 1e-9 * max(best, 1)
        proved += found.status == "OPTIMAL"
        wrong += value > best * (1 + 1e-9) or found.bound < best * (1 - 1e-9)
    print(f"{count} instances: optimum found in {equal}, proved in {proved}, wrong claims {wrong}")


def large(sizes: list[int], limit: float) -> None:
    """Clusters of eight types whose rates fall about as 1/k."""
    print("machines      value      bound   gap %   CPU s  judged")
    for size in sizes:
        instance = instance_from(_cluster(size))
        found = plan(instance, time_limit=limit)
        print(
            f"{size:8} {found.value or 0:10.1f} {found.bound:10.1f} {100 * (found.gap or 0):7.3f} "
            f"{found.seconds:7.1f}  {_judged(instance, found)}",
            flush=True,
        )


def _cluster(size: int) -> dict[str, Any]:
    draw = random.Random(size)
    types = {
        f"t{t}": {
            "max_layers": 4 + 3 * t,
            "tokens_per_s_by_layers": [
                6000 * (1 + t) * draw.uniform(0.9, 1.1) / (k * (1 + 0.05 * k / (1 + t)))
                for k in range(1, 5 + 3 * t)
            ],
        }
        for t in range(8)
    }
    nodes = [{"id": i, "type": f"t{draw.randrange(8)}"} for i in range(size)]
    return {
        "format": "layer-placement-1",
        "name": f"large{size}",
        "model": {"layers": 80},
        "node_types": types,
        "nodes": nodes,
        "links": [
            {"from": i, "to": j, "tokens_per_s": 61035.15625}
            for i in range(size) for j in range(size) if i != j
        ],
        "coordinator": {
            "to_nodes": [{"to": i, "tokens_per_s": 5e8} for i in range(size)],
            "from_nodes": [{"from": i, "tokens_per_s": 5e8} for i in range(size)],
        },
    }  # fmt: skip


def _judged(instance: Any, found: ServingPlan) -> str:
    begin = time.process_time()
    faults = check(instance, json.loads(json.dumps(found.document())))
    return f"{'accepted' if not faults else faults[0].text} in {time.process_time() - begin:.2f} s"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("known", "tiny", "large"))
    parser.add_argument("--folder", type=Path, default=ROOT.parent / "shared" / "serving")
    parser.add_argument("--limit", type=float, default=None, help="CPU seconds per instance")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000])
    options = parser.parse_args()
    if options.what == "known":
        known(options.folder, options.limit)
    elif options.what == "tiny":
        tiny(options.count)
    else:
        large(options.sizes, options.limit or 60.0)


if __name__ == "__main__":
    main()
