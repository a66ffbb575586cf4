"""How long after its limit a search ends, and what a signal leaves: bench_limits.py limits|signals

A limit of N seconds must end within N + 10 % + 2 s of wall time. Each row states the load of the
machine when it began: with other work on the cores, wall time says little, and CPU seconds beyond
the limit say more. --cold: with an empty cache of compiled code.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "scripts")]

from bench_serving import _cluster  # noqa: E402
from partition_cases import platform, random_graph  # noqa: E402

from csp_embed.network.files.graph import graph_document  # noqa: E402

PARTITION = (
    "auto", "exact", "milp", "split", "lns", "anneal", "genetic", "heft", "lookahead", "single",
)  # fmt: skip


def commands(folder: Path, data: Path) -> Iterator[list[str]]:
    """Every mode that takes a limit."""
    graph, cluster = str(folder / "g.json"), str(folder / "cluster.json")
    for objective in ("latency", "throughput"):
        for method in PARTITION:
            yield ["partition", graph, "--objective", objective, "--method", method]
    yield ["partition", graph, "--pareto", "4"]
    yield ["partition", graph, "--contiguous"]
    yield ["partition", graph, "--objective", "throughput", "--pipeline"]
    yield ["partition", graph, "--objective", "throughput", "--share"]
    yield ["partition", graph, "--objective", "throughput", "--replicas", "2"]
    yield ["partition", graph, "--batch", "4"]
    yield ["partition", graph, "--max-latency", "600", "--objective", "throughput"]
    for name in ("throughput-inputs/OperatorGraphs/bert_l-6_inference.json",
                 "latency-inputs/OperatorGraphs/bert_l-3_inference.json"):  # fmt: skip
        if (data / name).exists():
            goal = name.split("-")[0]
            yield ["partition", str(data / name), "--objective", goal,
                   "--cost-model", "dnn-partitioning"]  # fmt: skip
    yield ["serve", "plan", cluster]
    example = str(ROOT / "examples" / "serving_cluster.yaml")
    yield ["serve", "plan", example]
    yield ["serve", "plan", example, "--objective", "latency"]
    phased = str(folder / "phased.json")
    yield ["serve", "plan", phased]
    yield ["serve", "plan", phased, "--objective", "latency"]
    yield ["serve", "plan", str(folder / "priced.json"), "--objective", "cost",
           "--min-tokens", "20000"]  # fmt: skip


def prepare(folder: Path) -> None:
    graph = graph_document(random_graph(60, 4, 3, ccr=1.0), platform(4, duplex="full"))
    (folder / "g.json").write_text(json.dumps(graph))
    (folder / "cluster.json").write_text(json.dumps(_cluster(200, 0)))
    priced = _cluster(200, 1)
    for at, node in enumerate(priced["nodes"]):
        node["price_per_hour"] = 1.0 + at % 5
    (folder / "priced.json").write_text(json.dumps(priced))
    phased = _cluster(200, 2)
    for entry in phased["node_types"].values():
        table = entry.pop("tokens_per_s_by_layers")
        entry["prefill_tokens_per_s_by_layers"] = [3 * rate for rate in table]
        entry["decode_tokens_per_s_by_layers"] = table
    phased["model"] |= {"activation_bytes_per_token": 16384, "kv_bytes_per_token": 4096}
    phased["workload"] = {
        "prompt_tokens": 700, "output_tokens": 200, "batch": 8, "split_phases": True,
    }  # fmt: skip
    (folder / "phased.json").write_text(json.dumps(phased))


def run(
    command: list[str], folder: Path, send: int | None = None, after: float = 0.0
) -> dict[str, Any]:
    """Wall and CPU seconds of a command, its exit code, and the plan it left."""
    plan = folder / "plan.json"
    plan.unlink(missing_ok=True)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    begin = time.perf_counter()
    job = subprocess.Popen(
        [sys.executable, "-m", "csp_embed", *command, "-o", str(plan)],
        stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    sent = 0.0
    if send is not None:
        while job.poll() is None and used_cpu(job.pid) < after:
            time.sleep(0.05)
        if job.poll() is None:
            sent = time.perf_counter()
            job.send_signal(send)
    _, text = job.communicate()
    end = time.perf_counter()
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = used.ru_utime + used.ru_stime - before.ru_utime - before.ru_stime
    left = json.loads(plan.read_text()) if plan.exists() else {}
    return {
        "wall": end - begin, "cpu": cpu, "rc": job.returncode, "since": end - sent if sent else 0.0,
        "value": left.get("objective") or left.get("value") or left.get("period"),
        "status": left.get("status", "points" if plan.exists() else "no plan"),
        "error": text.strip().splitlines()[-1:] if job.returncode not in (0, 130) else [],
    }  # fmt: skip


def used_cpu(pid: int) -> float:
    """CPU seconds of a process so far: on a busy machine wall time does not tell how far it is."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return float("inf")
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def limits(limit: float, cold: bool, data: Path, only: str) -> None:
    print(" load   wall    CPU  over?  exit  status      command")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for at, command in enumerate(commands(folder, data)):
            if only not in " ".join(command):
                continue
            if cold:
                os.environ["NUMBA_CACHE_DIR"] = str(folder / f"cache{at}")
            load = os.getloadavg()[0]
            got = run([*command, "--time-limit", str(limit)], folder)
            over = got["wall"] - (1.1 * limit + 2)
            print(
                f"{load:5.1f} {got['wall']:6.1f} {got['cpu']:6.1f} "
                f"{f'{over:+.1f}' if over > 0 else '-':>6}"
                f" {got['rc']:5}  {got['status']:10}  {_short(command, folder)} {got['error']}",
                flush=True,
            )


def signals(after: float, data: Path, only: str) -> None:
    print(" load  signal   ends in  exit  status      command")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder)
        for command in commands(folder, data):
            if only not in " ".join(command):
                continue
            for send in (signal.SIGINT, signal.SIGTERM):
                load = os.getloadavg()[0]
                got = run(command, folder, send, after)
                print(
                    f"{load:5.1f}  {send.name:8} {got['since']:6.1f} {got['rc']:5}  "
                    f"{got['status']:10}  {_short(command, folder)} {got['error']}",
                    flush=True,
                )


def _short(command: list[str], folder: Path) -> str:
    return " ".join(word.replace(f"{folder}/", "").split("/")[-1] for word in command)


def main() -> None:
    # A shell that starts this in the background may have told it to ignore Ctrl-C; its children
    # would inherit that.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=("limits", "signals"))
    parser.add_argument("--limit", type=float, default=5.0, help="seconds")
    parser.add_argument("--after", type=float, default=5.0, help="signals: CPU seconds of running")
    parser.add_argument("--cold", action="store_true")
    parser.add_argument("--only", default="", help="commands with these words")
    shared = ROOT.parent / "shared" / "partition" / "dnn-partitioning"
    parser.add_argument("--data", type=Path, default=shared)
    options = parser.parse_args()
    if options.what == "limits":
        limits(options.limit, options.cold, options.data, options.only)
    else:
        signals(options.after, options.data, options.only)


if __name__ == "__main__":
    main()
