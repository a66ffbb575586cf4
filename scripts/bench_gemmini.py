"""Commands and bytes of our streams for Gemmini beside Exo's six published GEMMs.

    scripts/bench_gemmini              counts of commands and bytes at full size
    scripts/bench_gemmini --values     and every stream is run (all points of a command at once) and
                                       compared with NumPy: minutes
    scripts/bench_gemmini --only 512x512x512

Exo's numbers are not measured but counted from its public schedules (exo-lang/exo,
apps/gemmini/src/exo/matmul.py and src/exo/platforms/gemmini.py). What these say:

* `tile_outer_loops` and `fission_inner_blocks` cut a product of N x M x K into tiles of 16 x 16 x
  16, loaded as blocks of 16 rows by 64 columns: one mvin for four tiles.
* Each tile of sums is set to zero by one mvin from address 0, which moves no bytes, and stored by
  one mvout of 16 x 16 int8; each step is a preload and a compute.
* `add_loop(..., guard=True)` around a load says in which iterations it happens. That of A stands
  behind guards over every loop of columns: each block of A is loaded once. That of B stands behind
  guards over loops of rows, all of them in four schedules; in two an outer loop of rows is left,
  and B is loaded as often as that runs: `ioo` of 2 (512x512x512), `io` of 7 (784x1024x256).
* `lift_config` leaves five configuration commands in front.

Ours: `matmul` with a clip to int8, which Exo's store does too. The fence is counted with ours.
"""

from __future__ import annotations

import argparse
import time

import csp_embed as ce
from csp_embed.compiler.commands.chain import compile_commands
from csp_embed.compiler.commands.file import content
from csp_embed.compiler.request.options import Options
from csp_embed.ops.data import random_tensors

# (rows, columns, terms): how often Exo's schedule loads each block of B.
EXO = {
    (12544, 256, 64): 1, (12544, 64, 256): 1, (3136, 512, 128): 1, (3136, 128, 512): 1,
    (512, 512, 512): 2, (784, 1024, 256): 7,
}  # fmt: skip
CONFIGURED = 5


def exo(n: int, m: int, k: int) -> tuple[int, int]:
    """(commands, bytes) of Exo's schedule; see the module's text."""
    passes = EXO[n, m, k]
    sums, steps = n * m // 256, n * m * k // 4096
    loads = n * k // 1024 + passes * m * k // 1024
    commands = CONFIGURED + sums + loads + 2 * steps + sums
    return commands, n * k + passes * m * k + n * m


def main() -> None:
    """Prints one line for each GEMM; exit code 1 where ours moves more or takes more commands."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--values", action="store_true", help="run the streams, compare with NumPy")
    parser.add_argument("--only", help="one size, as 512x512x512")
    asked = parser.parse_args()
    isa = ce.load_isa("gemmini")
    worse = 0
    head = f"{'GEMM':>16} {'commands':>9} {'Exo':>9} {'ratio':>6}"
    print(f"{head} {'bytes':>10} {'Exo':>10} {'ratio':>6}")
    for n, m, k in EXO:
        name = f"{n}x{m}x{k}"
        if asked.only not in (None, name):
            continue
        begin = time.perf_counter()
        op = ce.matmul(n=n, m=m, k=k, clip=(-128, 127))
        kernel = compile_commands(op, isa, {}, options=Options(top=1))
        spent = time.perf_counter() - begin
        p = kernel.lowered
        commands, moved = exo(n, m, k)
        ours = len(p.words), p.loaded + p.stored
        worse += ours[0] > commands or ours[1] > moved
        said = "values not run"
        if asked.values:
            begin = time.perf_counter()
            problems = content(kernel, random_tensors(op, 0)).problems(whole=True)
            worse += bool(problems)
            said = problems[0] if problems else "values equal NumPy's"
            said += f" ({time.perf_counter() - begin:.0f} s)"
        print(
            f"{name:>16} {ours[0]:9,} {commands:9,} {ours[0] / commands:6.3f} {ours[1]:10,}"
            f" {moved:10,} {ours[1] / moved:6.3f}  {p.walk.show()}; {said}; {spent:.0f} s of search"
        )
    raise SystemExit(1 if worse else 0)


if __name__ == "__main__":
    main()
