"""Builds whole quantised networks on machines, and compares what they store with recorded tensors.

Usage: scripts/bench_builds [--configs NAME,…] [--farthest N] [--folder FOLDER] [NAME …]
       NAME: kws, resnet8, resnet8_large, vww, ad01, sww (multipliers are shifts), or published/kws,
       pow2/kws, affine/kws (ONNX), …: networks of FOLDER, with the tensors that TensorFlow Lite
       Micro or onnxruntime computed; or a .tflite or .onnx file, with random inputs and our
       reference interpreter. Without names: all of docs/networks.md's table.
       --configs: of isa_specs/configs, 1x16x16 by default. --farthest: the N layers of all that
       lose most cycles to the bound of their plain form, and to what.

Prints a table in Markdown. CPU s: of this process, for building, running and comparing. Exit code 5
where any element differs, 2 where the folder is not there.
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from check_quantised import recorded_network

from csp_embed.commands.network_inputs import random_inputs
from csp_embed.compiler.network import Built, build
from csp_embed.compiler.whole.report import cycle_report
from csp_embed.machine.load import load_isa
from csp_embed.network.quantised.read import read_quantised
from csp_embed.report.network_farthest import lost, why

ROOT = Path(__file__).parents[1]
NETWORKS = ("kws", "resnet8", "resnet8_large", "vww", "ad01", "sww")
ALL = (
    *NETWORKS,
    *(f"published/{n}" for n in NETWORKS if n != "resnet8_large"),
    *(f"affine/{n}" for n in NETWORKS if n != "resnet8_large"),
)
HEAD = ("network", "machine", "elements", "differences", "cycles", "over bound", "MACs on it",
        "programs", "DRAM bytes", "CPU s")  # fmt: skip


def built(root: Path, name: str, config: str) -> tuple[Built, int, int, float]:
    """(the network on a machine, elements compared, differences, CPU seconds)."""
    began = time.process_time()
    isa = load_isa("vta", ROOT / "isa_specs" / "configs" / f"{config}.json")
    if name.endswith((".onnx", ".tflite")):
        graph = read_quantised(name)
        made = build(graph, isa, random_inputs(graph, 1, 0))
        figures = made.document()
        seconds = time.process_time() - began
        return made, figures["elements"], figures["differences"], seconds
    form, _, short = name.rpartition("/")
    graph, golden = recorded_network(root, form or "shift", short)
    count = len(golden[graph.inputs[0]])
    feeds = [{n: golden[n][i : i + 1] for n in graph.inputs} for i in range(count)]
    made = build(graph, isa, feeds)
    on = {la.name for la in made.layers if la.where == "accelerator"}
    elements = wrong = 0
    # Against what a runtime recorded: our reference has no say in this.
    for op in graph.operators:
        expected = golden.get(op.output)
        if op.name in on and expected is not None:
            found = np.concatenate([v[op.output] for v in made.values])
            elements += expected.size
            wrong += int((found != expected).sum())
    return made, elements, wrong, time.process_time() - began


def row(name: str, config: str, made: Built, elements: int, wrong: int, seconds: float) -> str:
    d = made.document()
    over = d["cycles"] / d["bound_cycles"] if d["bound_cycles"] else 0.0
    share = d["macs_on_accelerator"] / d["macs"] if d["macs"] else 0.0
    cells: list[Any] = [
        f"`{name}`", config, f"{elements:,}", f"{wrong:,}", f"{d['cycles']:,}", f"{over:.2f}",
        f"{share:.2%}", d["segments"], f"{d['dram_bytes']:,}", f"{seconds:.0f}",
    ]  # fmt: skip
    return "| " + " | ".join(map(str, cells)) + " |"


def farthest(name: str, made: Built) -> list[tuple[int, str]]:
    """(cycles lost, a row) of every layer."""
    runs = [cycle_report(s, made.options) for s in made.segments]
    return [
        (
            lost(la),
            f"| `{name}` {la.name} | {la.cycles:,} | {la.bound_cycles:,} | {lost(la):,}"
            f" | {why(made, la, runs[la.segment or 0])} |",
        )
        for la in made.layers
        if la.cycles is not None and la.bound_cycles
    ]


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("names", nargs="*", metavar="NAME")
    parser.add_argument("--configs", default="1x16x16")
    parser.add_argument("--farthest", type=int, default=0)
    parser.add_argument("--folder", type=Path, default=Path("../shared/quantised"))
    arguments = parser.parse_args()
    names = arguments.names or list(ALL)
    files = [n for n in names if n.endswith((".onnx", ".tflite"))]
    if len(files) < len(names) and not arguments.folder.is_dir():
        print(f"there is no {arguments.folder}: nothing was compared", file=sys.stderr)
        return 2
    print("| " + " | ".join(HEAD) + " |")
    print("|" + "---|" * len(HEAD))
    bad, layers = 0, list[tuple[int, str]]()
    for config in arguments.configs.split(","):
        for name in names:
            made, elements, wrong, seconds = built(arguments.folder, name, config)
            bad += wrong + made.differences + (not elements)
            print(row(name, config, made, elements, wrong, seconds), flush=True)
            for why_host in dict.fromkeys(la.why for la in made.layers if la.where == "host"):
                which = [la.name for la in made.layers if la.why == why_host]
                print(f"{name}: host: {', '.join(which)}: {why_host}", file=sys.stderr)
            layers += farthest(name, made)
    if arguments.farthest:
        print("\n| layer | cycles | bound | lost | to |\n|---|---|---|---|---|")
        for _, text in sorted(layers, key=lambda f: -f[0])[: arguments.farthest]:
            print(text)
    return 5 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
