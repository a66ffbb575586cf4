"""Giga-MACs per second of generated C, beside other libraries and the machine's own limit.

One process on one pinned core (--threads N: on N); all are timed in turns, and each figure is the
median of the turns, in processor time of the thread so that other work on the computer disturbs
least (with more threads: of the clock). Weights are packed beforehand on all sides, activations
inside the time. Layers with an epilogue run it on our side.

limit: a loop of independent contraction steps of the spec, on registers; layers whose packed
constants come from further away are held against reading these once, where that takes longer.
share: the limit's time over ours. Peers: onnxruntime, and torch's FBGEMM and oneDNN where torch can
be imported (--peers DIR: site-packages to look in behind our own); those that are absent are named.
With --out a record of each layer is added to a file, layers in it are left out, and --report prints
the table of such a file as Markdown.
"""

from __future__ import annotations

import argparse
import ctypes
import json
import math
import os
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

# fmt: off
sys.path.insert(0, str(Path(__file__).parent))
from bench_native_peers import PEERS
from bench_native_report import report, summary

# fmt: on
from csp_embed.compiler.request.options import Options
from csp_embed.compiler.source.chain import compile_source
from csp_embed.compiler.source.measure import Call, middle, prepared, turns
from csp_embed.errors import CspEmbedError
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa
from csp_embed.ops.bound import natural
from csp_embed.ops.data import random_tensors
from csp_embed.ops.deepbench import build as layer_operator
from csp_embed.ops.layer_list import selected
from csp_embed.targets.source.toolchain.build import build_text
from csp_embed.targets.source.toolchain.limit import bare_loop

DEFAULT = ("conv006", "conv010", "conv015", "conv000", "conv020", "conv030", "conv050", "gemm005",
           "gemm010", "gemm020")  # fmt: skip
SWEEP = """#include <stddef.h>
#include <stdint.h>
uint64_t sweep(const uint64_t *from, ptrdiff_t n);
uint64_t sweep(const uint64_t *from, ptrdiff_t n) {
  uint64_t sum = 0;
  for (ptrdiff_t i = 0; i < n; i++) sum += from[i];
  return sum;
}
"""


def main() -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/bench_native", description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )  # fmt: skip
    parser.add_argument(
        "what", nargs="*", help="ids of layers, all, networks, or a JSON list of your own"
    )
    parser.add_argument("--isa", default="x86_avx512_vnni", help="a machine that this CPU is")
    parser.add_argument("--rounds", type=int, default=7, help="turns (default 7)")
    parser.add_argument("--threads", type=int, default=1, help="of every library (default 1)")
    parser.add_argument("--peers", metavar="DIR", help="site-packages with torch")
    parser.add_argument("--seconds", type=float, default=math.inf, help="begins no layer after")
    parser.add_argument("--out", metavar="FILE", help="records, one JSON line for each layer")
    parser.add_argument("--report", metavar="FILE", help="prints the table of such a file")
    options = parser.parse_args()
    if options.report:
        print(report(_read(options.report)))
        return 0
    if options.peers:
        sys.path.append(options.peers)
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[-options.threads :])
    names = options.what or DEFAULT
    records = [r for name in names for r in selected(name)]
    known = _read(options.out) if options.out and Path(options.out).exists() else []
    done, begin, rows = {r["layer"] for r in known}, time.monotonic(), []
    isa = load_isa(options.isa)
    loop = bare_loop(isa)
    for found in records:
        name = found["id"]
        if name in done or time.monotonic() - begin > options.seconds:
            continue
        row = measured(found, isa, loop, options.rounds, options.threads)
        if "differs" in row:
            print(f"{name} DIFFERS: {row['differs']}")
            return 5
        rows.append(row)
        _print(row)
        if options.out:
            with open(options.out, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
    print(summary([*known, *rows]))
    return 0


def measured(
    layer: Mapping[str, Any], isa: Isa, loop: tuple[Call, int], rounds: int, threads: int
) -> dict[str, Any]:
    """The record of a layer. Units: seconds; giga-MACs a second."""
    op, name = layer_operator(layer), layer["id"]
    kernel = compile_source(op, isa, {}, options=Options(threads=threads))
    tensors = random_tensors(op, 0)
    wrong = kernel.difference(tensors, kernel.native.run(tensors))
    if wrong:
        return {"layer": name, "differs": wrong}
    limit, products = loop
    calls = {"ours": prepared(kernel, tensors), "limit": limit, "sweep": _sweep(kernel, isa)}
    calls |= {n: c for n, make in PEERS.items() if (c := make(op, tensors, threads)) is not None}
    found = turns(list(calls.values()), rounds, wall=threads > 1)
    times = dict(zip(calls, map(middle, found), strict=True))
    work = natural(op)["macs"]
    # With more threads every core has a limit of its own; memory they share.
    least = max(work / (threads * products / times["limit"][0]), times["sweep"][0])
    ours = times["ours"][0]
    return {
        "layer": name, "class": layer.get("class", op.name), "macs": work, "threads": threads,
        "seconds": ours, "spread": times["ours"][1], "gmacs": work / ours / 1e9,
        "limit_gmacs": work / least / 1e9, "share": least / ours,
        "memory_bound": least == times["sweep"][0], "kernel": kernel.ways(),
        "embedding": "" if kernel.embedding is None else kernel.embedding.formula(),
        "formula": op.formula(), "extents": dict(op.axes),
        "peers": {n: times[n][0] for n in PEERS if n in times},
    }  # fmt: skip


def _sweep(kernel: Any, isa: Isa) -> Call:
    """Reads as many bytes as the packed constants have."""
    with tempfile.TemporaryDirectory(prefix="csp-embed-") as folder:
        path = Path(folder, "sweep.so")
        build_text(SWEEP, isa, path)
        library = ctypes.CDLL(str(path))
    size = len(kernel.native.buffer("packed")) // 8 if kernel.file.packed else 1
    values = np.ones(size, np.uint64)
    pointer = ctypes.c_void_p(values.ctypes.data)

    def call(values: Any = values) -> None:
        library.sweep(pointer, ctypes.c_ssize_t(len(values)))

    return call


def _print(row: dict[str, Any]) -> None:
    peers = "".join(f"  {n} x{s / row['seconds']:.2f}" for n, s in row["peers"].items())
    absent = [n for n in PEERS if n not in row["peers"]]
    bound = " (memory)" if row["memory_bound"] else ""
    print(
        f"{row['layer']:<20}{row['macs'] / 1e6:>9.1f} M{row['gmacs']:>8.1f} G/s"
        f" +-{row['spread']:.0%}  share {row['share']:.2f}{bound}{peers}"
        + (f"  absent: {', '.join(absent)}" if absent else "") + f"  {row['kernel']}",
        flush=True,
    )  # fmt: skip


def _read(path: str) -> Sequence[dict[str, Any]]:
    with open(path, encoding="utf-8") as file:
        return [json.loads(line) for line in file]


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CspEmbedError as error:
        print(error.render(), file=sys.stderr)
        sys.exit(error.exit_code)
