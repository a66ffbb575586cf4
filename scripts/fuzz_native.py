"""Random operators as C against NumPy: fuzz_native FIRST:LAST [--sanitize] [--isa SPEC]

Each seed is an operator (tests/property/random_native.py), one to three threads, constants known or
not, operands of its own. --sanitize: the C file with its self test, built with the address and
undefined-behaviour sanitizers, instead of the library. Faults are printed with their seed and make
the exit code 1.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "property"))

import random_native

from csp_embed.compiler.request.options import Options
from csp_embed.compiler.source.chain import compile_source
from csp_embed.compiler.source.kernel import SourceKernel
from csp_embed.errors import CspEmbedError
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa
from csp_embed.ops.data import random_tensors
from csp_embed.targets.source.toolchain.build import c_compiler

SANITIZE = ["-std=c11", "-Wall", "-Wextra", "-Werror", "-O1", "-g",
            "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("seeds", help="FIRST:LAST")
    parser.add_argument("--isa", default="x86_avx512_vnni")
    parser.add_argument("--sanitize", action="store_true")
    parser.add_argument("--seconds", type=float, default=1e9, help="begins no seed after")
    options = parser.parse_args()
    first, last = map(int, options.seeds.split(":"))
    isa, begin, faults, seed = load_isa(options.isa), time.perf_counter(), 0, first
    for seed in range(first, last):
        if time.perf_counter() - begin > options.seconds:
            break
        try:
            text = _trial(seed, isa, options.sanitize)
        except CspEmbedError as error:
            text = error.render()
        if text:
            faults += 1
            print(f"seed {seed}: {random_native.operator(seed).text()}: {text}", flush=True)
    else:
        seed = last
    print(f"seeds {first}:{seed}, {faults} faults, {time.perf_counter() - begin:.0f} s")
    return int(faults > 0)


def _trial(seed: int, isa: Isa, sanitize: bool) -> str:
    """What is wrong; "" for a good kernel."""
    op, rng = random_native.operator(seed), np.random.default_rng([seed, 1])
    tensors = random_tensors(op, seed)
    constants = {n: v for n, v in tensors.items() if op.tensors[n].constant}
    known = constants if rng.random() < 0.3 else {}
    threads = 1 if sanitize else int(rng.integers(1, 4))
    kernel = compile_source(op, isa, known, options=Options(threads=threads))
    problems = [str(p) for p in kernel.verify()]
    if problems:
        return "; ".join(problems[:3])
    if sanitize:
        return _sanitized(kernel, tensors, isa)
    return kernel.difference(tensors, kernel.native.run(tensors))


def _sanitized(kernel: SourceKernel, tensors: dict[str, np.ndarray], isa: Isa) -> str:
    assert isa.program is not None
    with tempfile.TemporaryDirectory() as folder:
        kernel.save(Path(folder, "k.c"), tensors)
        command = [c_compiler(), *SANITIZE, *isa.program.flags, "k.c", "-o", "main"]
        for run in (command, ["./main"]):
            done = subprocess.run(run, cwd=folder, capture_output=True, text=True, check=False)
            if done.returncode:
                return (done.stderr or done.stdout)[:2000]
    return ""


if __name__ == "__main__":
    sys.exit(main())
