"""What a second thread gains: the same layers by `--threads 1` and `--threads N`.

    scripts/bench_threads [--threads 2] [--rounds 40] conv003 gemm020 …

Calls of one kernel follow each other, as in a server: a thread that slept has to be woken and
placed first, which on a busy computer costs more than a layer. Weights are packed beforehand,
activations inside. By the clock: the least of all calls, which other work disturbs least, and the
median.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from typing import Any

from bench_native import prepared

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.source.chain import compile_source
from csp_embed.machine.load import load_isa
from csp_embed.ops.bound import natural
from csp_embed.ops.data import random_tensors
from csp_embed.ops.deepbench import layer

DEFAULT = ("conv003", "conv020", "conv097", "gemm020", "gemm076")


def seconds(kernel: Any, tensors: Any, rounds: int) -> tuple[float, float]:
    """(least, median) of calls. Raises: SystemExit where values differ from NumPy's."""
    wrong = kernel.difference(tensors, kernel.native.run(tensors))
    if wrong:
        raise SystemExit(f"values differ: {wrong}")
    call, found = prepared(kernel, tensors), []
    for n in range(rounds + 3):
        begin = time.perf_counter()
        call()
        # The first ones wake the threads.
        found += [time.perf_counter() - begin] if n >= 3 else []
    return min(found), statistics.median(found)


def main() -> int:
    """One line a layer: milliseconds by one thread and by N, and what it gains."""
    parser = argparse.ArgumentParser(prog="scripts/bench_threads", description=__doc__)
    parser.add_argument("layers", nargs="*", default=DEFAULT, help="DeepBench ids")
    parser.add_argument("--isa", default="x86_avx512_vnni")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    asked = parser.parse_args()
    isa = load_isa(asked.isa)
    for name in asked.layers:
        op = layer(name)
        tensors = random_tensors(op, 0)
        one, more = (
            seconds(compile_source(op, isa, {}, options=Options(threads=n)), tensors, asked.rounds)
            for n in (1, asked.threads)
        )
        gains = f"least x{one[0] / more[0]:.2f}, median x{one[1] / more[1]:.2f}"
        times = f"{one[0] * 1e3:7.3f} ms by 1 thread {more[0] * 1e3:7.3f} by {asked.threads}"
        print(f"{name:9} {natural(op)['macs'] / 1e6:8.1f} M {times}: {gains}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
