"""Reach of `csp-embed serve`: published instances and unseen ones like them, tiny ones
tried out, large clusters."""

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

import bench_serving_fresh  # noqa: E402
import serving_tiny as tiny_cases  # noqa: E402

from csp_embed.serving.files.plan_file import ServingPlan  # noqa: E402
from csp_embed.serving.files.read import instance_from, read_instance  # noqa: E402
from csp_embed.serving.judge.check import check  # noqa: E402
from csp_embed.serving.plan import plan  # noqa: E402
from csp_embed.serving.simulate import generated_trace, simulate  # noqa: E402


def known(folder: Path, limit: float | None) -> None:
    """Value, bound and seconds beside what is published and what is known."""
    table = json.loads((folder / "known.json").read_text())
    print("instance            published  best known      value      bound  status        s")
    for name, entry in table.items():
        instance = read_instance(folder / f"{name}.json")
        found = plan(instance, time_limit=limit)
        print(
            f"{name:18} {entry['gurobi']['value']:10.2f}  {entry['best_value']:10.2f} "
            f"{found.value or 0:10.2f} {found.bound:10.2f}  {found.status:8} "
            f"{found.seconds:6.2f}  {_judged(instance, found)}",
            flush=True,
        )


def fresh(folder: Path, limit: float | None, seeds: int) -> None:
    """Members of the published families that nobody tuned to: value beside the proved bound."""
    print("instance               value      bound   gap %  status        s")
    for seed in range(seeds):
        for name, document in bench_serving_fresh.members(folder, seed):
            instance = instance_from(document)
            found = plan(instance, time_limit=limit)
            print(
                f"{name:18} {found.value or 0:9.2f}  {found.bound:9.2f} "
                f"{100 * (found.gap or 0):7.3f}  {found.status:8} {found.seconds:6.2f}  "
                f"{_judged(instance, found)}",
                flush=True,
            )


def tiny(count: int, only: str | None) -> None:
    """Every placement tried, extension by extension: how often the optimum is found and proved; is
    any claim wrong, or refused by the judge?"""
    print("extension                 instances  found  proved  infeasible  wrong  refused  CPU s")
    for name in tiny_cases.NAMES:
        if only is not None and only != name:
            continue
        tally = dict.fromkeys(("found", "proved", "infeasible", "wrong", "refused"), 0)
        seconds = 0.0
        for seed in range(count):
            document, options, best = tiny_cases.case(name, seed)
            begin = time.process_time()
            for key, value in tiny_cases.compared(document, options, best).items():
                tally[key] += value
            seconds += time.process_time() - begin
        print(
            f"{name:25} {count:9} {tally['found']:6} {tally['proved']:7} {tally['infeasible']:11} "
            f"{tally['wrong']:6} {tally['refused']:8} {seconds:6.1f}",
            flush=True,
        )


def large(sizes: list[int], limit: float, seeds: int) -> None:
    """Clusters of eight types whose rates fall about as 1/k."""
    print("machines  seed      value      bound   gap %   CPU s  judged")
    for size in sizes:
        for seed in range(seeds):
            instance = instance_from(_cluster(size, seed))
            found = plan(instance, time_limit=limit, seed=seed)
            print(
                f"{size:8} {seed:5} {found.value or 0:10.1f} {found.bound:10.1f} "
                f"{100 * (found.gap or 0):7.3f} {found.seconds:7.1f}  {_judged(instance, found)}",
                flush=True,
            )


def simulated(folder: Path, limit: float) -> None:
    """Predicted tokens/s beside those of a simulation of 2,000 requests that are all there."""
    print("instance            predicted   simulated  share %  binds")
    for path in sorted(folder.glob("*.json")):
        if json.loads(path.read_text()).get("format") != "layer-placement-1":
            continue
        instance = read_instance(path)
        found = plan(instance, time_limit=limit)
        at = {name: i for i, name in enumerate(instance.machines)}
        placed = {at[m]: (a, b + 1) for m, (a, b) in found.placement.items()}
        run = simulate(instance, placed, generated_trace(2000, None))
        print(
            f"{path.stem:18} {run.predicted:10.1f} {run.tokens_per_s:11.1f} "
            f"{100 * run.tokens_per_s / run.predicted:8.1f}  {run.binding}",
            flush=True,
        )


def _cluster(size: int, seed: int) -> dict[str, Any]:
    draw = random.Random(size + 10_000 * seed)
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
    parser.add_argument("what", choices=("known", "fresh", "tiny", "large", "simulated"))
    parser.add_argument("--folder", type=Path, default=ROOT.parent / "shared" / "serving")
    parser.add_argument("--limit", type=float, default=None, help="seconds per instance")
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--only", default=None, help="tiny: one extension")
    parser.add_argument("--seeds", type=int, default=1, help="large, fresh: clusters of each")
    parser.add_argument("--sizes", type=int, nargs="+", default=[50, 200, 1000])
    options = parser.parse_args()
    if options.what == "known":
        known(options.folder, options.limit)
    elif options.what == "fresh":
        fresh(options.folder, options.limit, options.seeds)
    elif options.what == "tiny":
        tiny(options.count, options.only)
    elif options.what == "simulated":
        simulated(options.folder, options.limit or 20.0)
    else:
        large(options.sizes, options.limit or 60.0, options.seeds)


if __name__ == "__main__":
    main()
