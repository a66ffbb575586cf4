"""Throughput plans on two hosts: what was predicted, and what the pipeline makes.

    scripts/bench_hosts [--models A,B,C] [--rate 400mbit] [--in-flight N|auto] [--samples N]

For each model of the onnx wheel: both devices are profiled where they run, the link is measured,
the planner minimises the period, and run-plan measures it with several inputs in flight; one device
is a worker on this host, the other one behind a network namespace with a limited rate (needs root
and iproute2; elsewhere both are on loopback, and the table says so).
Prints a line a model: predicted and measured ms a sample, the error, the ratio to one device alone.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

COMMAND = [sys.executable, "-m", "csp_embed"]
HERE, THERE = "10.213.78.1", "10.213.78.2"
# Jumbo frames: cutting packets is the work of a network card, which this link has to do on the
# cores that compute.
MTU = 9000


def light(name: str) -> Path:
    """A topology of the onnx wheel."""
    import onnx

    return Path(onnx.__file__).parent / f"backend/test/data/light/light_{name}.onnx"


@contextmanager
def other_host(rate: str) -> Iterator[str]:
    """Name of a network namespace behind a link of that rate, both ways."""
    space, mine, theirs = "cspbench", "cspb0", "cspb1"
    limit = f"root tbf rate {rate} burst 128kb latency 200ms"
    lines = [
        f"ip netns add {space}", f"ip link add {mine} type veth peer name {theirs}",
        f"ip link set {theirs} netns {space}", f"ip addr add {HERE}/24 dev {mine}",
        f"ip link set {mine} mtu {MTU} up", f"ip -n {space} addr add {THERE}/24 dev {theirs}",
        f"ip -n {space} link set {theirs} mtu {MTU} up", f"ip -n {space} link set lo up",
        f"tc qdisc add dev {mine} {limit}", f"tc -n {space} qdisc add dev {theirs} {limit}",
    ]  # fmt: skip
    try:
        for line in lines:
            subprocess.run(line.split(), check=True, capture_output=True)
        yield space
    finally:
        subprocess.run(["ip", "netns", "del", space], check=False, capture_output=True)


@contextmanager
def worker(device: str, core: int, listen: str, token: Path, space: str = "") -> Iterator[str]:
    """Address of a worker that is pinned to a core."""
    inside = ["ip", "netns", "exec", space] if space else []
    words = ["--listen", listen, "--device", device, "--token-file", str(token)]
    command = [*inside, *COMMAND, "worker", *words, "--core", str(core)]
    with subprocess.Popen(command, text=True, stdout=subprocess.PIPE) as process:
        try:
            assert process.stdout is not None
            yield process.stdout.readline().split()[-1]
        finally:
            process.terminate()


def call(*words: str, core: int | None = None) -> Any:
    """The JSON document of a command."""
    pin = ["taskset", "-c", str(core)] if core is not None else []
    done = subprocess.run([*pin, *COMMAND, *words, "--json"], text=True, capture_output=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(words)}:\n{done.stderr}{done.stdout}")
    return json.loads(done.stdout)


def platform_text(folder: Path) -> str:
    """Two equal CPUs; costs come from profiles, the link's figures are placeholders."""
    cpus = "".join(f"  - {{name: cpu{i}, kind: cpu, profile: cpu{i}.json}}\n" for i in (0, 1))
    link = "  - {between: [cpu0, cpu1], bytes_per_ms: 1.0e+5, latency_ms: 0.1, duplex: full}\n"
    return f"devices:\n{cpus}links:\n{link}host: {{device: cpu0}}\n"


def one(model: str, folder: Path, workers: list[str], token: Path, args: Any) -> dict[str, Any]:
    path = str(light(model))
    for core in (0, 1):
        call("profile", path, "-o", str(folder / f"cpu{core}.json"), core=core)
    (folder / "p.yaml").write_text(platform_text(folder))
    reach = [word for w in workers for word in ("--worker", w)] + ["--token-file", str(token)]
    new, plan = str(folder / "measured.yaml"), str(folder / "plan.json")
    links = call("platform", "measure", str(folder / "p.yaml"), *reach, "-o", new)["links"]
    call(
        "partition", path, "--platform", new, "--objective", "throughput", "--time-limit", "20",
        "-o", plan,
    )  # fmt: skip
    ran = call(
        "run-plan", path, plan, "--platform", new, *reach, "--in-flight", args.in_flight,
        "--samples", str(args.samples), "--runs", "3",
    )  # fmt: skip
    return {"model": model, "link": links[0], "whole_ms": ran["whole_ms"], **ran["rate"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", default="squeezenet,shufflenet,resnet50")
    parser.add_argument("--rate", default="400mbit")
    parser.add_argument("--in-flight", default="auto")
    parser.add_argument("--samples", type=int, default=60)
    args = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-hosts-")))
        token = folder / "token"
        token.write_text("a token of this benchmark alone")
        space, there = "", "127.0.0.1"
        if os.geteuid() == 0:
            space, there = stack.enter_context(other_host(args.rate)), THERE
        print(f"second host: {f'namespace, {args.rate}' if space else 'loopback'}")
        workers = [
            stack.enter_context(worker("cpu0", 0, "127.0.0.1:0", token)),
            stack.enter_context(worker("cpu1", 1, f"{there}:0", token, space)),
        ]
        for model in args.models.split(","):
            row = one(model, folder, workers, token, args)
            predicted, found = row["predicted_ms"], row["ms_per_sample"]
            busy = ", ".join(f"{d} {100 * b:.0f} %" for d, b in row["busy"].items())
            print(
                f"{model:<14} predicted {predicted:8.3f} ms  measured {found:8.3f} ms  "
                f"{100 * (found / predicted - 1):+6.1f} %  {row['whole_ms'] / found:.2f} times one "
                f"device  {row['in_flight']} in flight  "
                f"link {row['link']['bytes_per_ms']:.4g} bytes/ms  ({busy})",
                flush=True,
            )


if __name__ == "__main__":
    main()
