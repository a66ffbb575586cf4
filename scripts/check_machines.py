"""Every machine that runs C, against NumPy: check_machines [MACHINE ...] [--random N]

The rows of the case table (tests/cases.py), then random operators of tests/property/, each
compiled, judged and run by the first engine that this computer has: natively, by the machine's
emulator, or by the meanings. Prints for each machine instructions a product beside its ideal, where
an instruction is a template that runs and the ideal is one that uses all lanes and nothing else.
Faults are printed, and make the exit code 1.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "property"))
sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

import random_native
from cases import CASES

from csp_embed.compiler.source.chain import compile_source
from csp_embed.compiler.source.suite import engine_of
from csp_embed.errors import CspEmbedError
from csp_embed.ir.operator import Operator
from csp_embed.machine.load import builtin_names, config_names, load_isa
from csp_embed.machine.spec import Isa
from csp_embed.ops.bound import natural
from csp_embed.ops.data import random_tensors
from csp_embed.targets.source.nest import Call, Keep, Loop, Node


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("machines", nargs="*", help="names or files; all that ship")
    parser.add_argument("--random", type=int, default=100, help="random operators (100)")
    parser.add_argument("--first", type=int, default=0, help="seed of the first")
    parser.add_argument("--no-cases", action="store_true", help="leave out the case table")
    parser.add_argument("--all-sizes", action="store_true", help="every named configuration")
    options = parser.parse_args()
    faults = 0
    names = options.machines or [n for n in builtin_names() if load_isa(n).program is not None]
    for name in names:
        for config in config_names(name) if options.all_sizes else [None]:
            isa = load_isa(name, config)
            trials: dict[str, Callable[[], Operator]] = {} if options.no_cases else dict(CASES)
            for seed in range(options.first, options.first + options.random):
                trials[f"random {seed}"] = lambda seed=seed: random_native.operator(seed)
            faults += _machine(isa, trials)
    return int(faults > 0)


def _machine(isa: Isa, trials: dict[str, Callable[[], Operator]]) -> int:
    begin, faults, plain, skipped = time.perf_counter(), 0, 0, 0
    executed, products = 0, 0
    for name, make in trials.items():
        op = make()
        try:
            kernel = compile_source(op, isa, {})
            engine, _ = kernel.engine()
            problems = [str(p) for p in kernel.verify()]
            tensors = random_tensors(op, 1)
            if kernel.program is None:
                plain += 1
            if engine and not problems:
                problems = [
                    p for p in [kernel.difference(tensors, kernel.by(engine, tensors))] if p
                ]
            skipped += not engine
            if kernel.program is not None:
                executed += count(kernel.program.main)
                products += natural(op)["macs"]
        except CspEmbedError as error:
            problems = [error.render()]
        if problems:
            faults += 1
            print(f"  {isa.name} {name}: {op.text()}: {problems[0]}", flush=True)
    assert isa.program is not None
    ideal = min(
        1 / math.prod(isa.dims[d] for d in {d for s in t.slots for d in isa.memory(s.memory).lanes})
        for t in isa.program.contracts()
    )  # fmt: skip
    print(
        f"{isa.name} {isa.config_name} ({engine_of(isa) or 'interpreted'}):"
        f" {len(trials)} operators, {faults} faults, {plain} are plain loops, {skipped} not run;"
        f" {executed / max(1, products):.4f} instructions a product, ideal {ideal:.4f};"
        f" {time.perf_counter() - begin:.0f} s",
        flush=True,
    )
    return faults


def count(nodes: tuple[Node, ...]) -> int:
    """Templates that run."""
    total = 0
    for node in nodes:
        if isinstance(node, Call):
            total += 1
        elif isinstance(node, Loop):
            total += node.count * count(node.body)
        elif not isinstance(node, Keep):
            total += count(node.body)
    return total


if __name__ == "__main__":
    sys.exit(main())
