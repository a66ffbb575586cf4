"""The lifted model against its targets: bench_lifted.py [conv|gemm|all] [every]

Time to the first solution and to the proof of optimality under the analytic cost, in CPU time of
this process (the solver has one thread; OR-tools' import is not counted). First: the problem posed
and a feasible answer at hand. Proof: posed, solved, bound equal to the objective. Then the same
optimum by sweeping all answers, which shares no solver with it; they must agree.
Targets: medians of 50 ms and 500 ms. The exit code is 1 where a median misses its target, an answer
is not proved, or the two optima differ.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time

from ortools.sat.python import cp_model  # imported here so that no layer pays for it

from csp_embed.embed.algebra.cost import UNIT
from csp_embed.embed.certificate.reuse import least
from csp_embed.embed.model.greedy import warm_start
from csp_embed.embed.model.lifted import search
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.search import DEFAULT
from csp_embed.embed.space.candidates import candidates
from csp_embed.machine.load import load_isa
from csp_embed.ops.deepbench import layer, layers

TARGETS = {"first solution": 50.0, "proof": 500.0}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("selection", nargs="?", choices=("conv", "gemm", "all"), default="all")
    parser.add_argument("every", nargs="?", type=int, default=1, help="every so manieth layer")
    args = parser.parse_args()
    assert cp_model.CpModel
    isa = load_isa("vta")
    times: dict[str, list[tuple[float, str]]] = {n: [] for n in (*TARGETS, "sweep")}
    unproved, unequal = [], []
    for record in layers(args.selection)[:: args.every]:
        op, name = layer(record["id"]), record["id"]
        start = time.process_time()
        problem = EmbedProblem.of(op, isa)
        space = candidates(problem)
        posed = time.process_time()
        warm_start(space)
        times["first solution"].append((1000 * (time.process_time() - start), name))
        again = time.process_time()
        found = search(space, DEFAULT)[0]
        times["proof"].append((1000 * (posed - start + time.process_time() - again), name))
        if found.status != "OPTIMAL" or found.bound != found.objective:
            unproved.append(name)
        start = time.process_time()
        swept = least(problem)
        times["sweep"].append((1000 * (time.process_time() - start), name))
        if swept != found.objective / UNIT:
            unequal.append(name)
    missed = False
    for what, values in times.items():
        median = statistics.median(v for v, _ in values)
        slowest = ", ".join(f"{n} {v:.0f}" for v, n in sorted(values, reverse=True)[:5])
        target = TARGETS.get(what)
        missed |= target is not None and median > target
        aim = f", target {target:.0f} ms" if target else ""
        print(f"{what}: median {median:.0f} ms{aim}; slowest {slowest}")
    print(f"{len(times['proof'])} layers, {len(unproved)} not proved {unproved}, "
          f"{len(unequal)} where the sweep found another optimum {unequal}")  # fmt: skip
    return int(missed or bool(unproved) or bool(unequal))


if __name__ == "__main__":
    sys.exit(main())
