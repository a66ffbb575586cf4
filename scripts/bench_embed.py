"""Times the lifted embedding model on DeepBench layers: bench_embed.py [conv|gemm|all] [every]

One line a layer, in ms of this process' CPU time (the solver has one thread; OR-tools' import is
not counted): posing the problem, the first answer, the proof; then medians and the worst.
"""

from __future__ import annotations

import statistics
import sys
import time

from ortools.sat.python import cp_model  # imported here so that no layer pays for it

from csp_embed.embed.algebra.cost import UNIT
from csp_embed.embed.model.greedy import warm_start
from csp_embed.embed.model.lifted import search
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.search import DEFAULT
from csp_embed.embed.space.candidates import candidates
from csp_embed.machine.load import load_isa
from csp_embed.ops.deepbench import layer, layers


def milliseconds(start: float) -> float:
    return 1000 * (time.process_time() - start)


def main(selection: str = "all", every: str = "1") -> None:
    assert cp_model.CpModel
    isa = load_isa("vta")
    first, proved, gaps = [], [], []
    for record in layers(selection)[:: int(every)]:
        op = layer(record["id"])
        start = time.process_time()
        space = candidates(EmbedProblem.of(op, isa))
        posed = milliseconds(start)
        begun = warm_start(space)
        first.append(milliseconds(start))
        start = time.process_time()
        found = search(space, DEFAULT)[0]
        proved.append(posed + milliseconds(start))
        gap = begun[1] / found.objective - 1 if begun else 0.0
        gaps.append(gap)
        print(
            f"{record['id']} options {len(space.options):4d} posted {found.weighed:4d} "
            f"pose {posed:6.0f} first {first[-1]:6.0f} proof {proved[-1]:6.0f} ms {found.status} "
            f"{found.objective / UNIT:14.1f} cycles, first {100 * gap:.2f} % above",
            flush=True,
        )
    for name, values in (("first", first), ("proof", proved)):
        print(f"{name}: median {statistics.median(values):.0f} ms, worst {max(values):.0f} ms")
    print(f"first answer above the optimum: worst {100 * max(gaps):.2f} %")


if __name__ == "__main__":
    main(*sys.argv[1:])
