"""Prints the corpus table of the ground model: solutions by each method, and time.

    scripts/bench_ground [NAME PART] [--most-points N]

Columns: effective points, steps, irregular coverings (CP-SAT, python-constraint, brute force),
regular ones (the same three), what the lifted model claims, whether it is contained in the regular
ones, least steps of a regular covering below the lifted model's least (- where there is none),
maps before symmetry breaking per map after it, seconds.
"""

from __future__ import annotations

import argparse
import time

from csp_embed.embed.ground.brute import brute_irregular, brute_regular
from csp_embed.embed.ground.corpus import corpus, posed
from csp_embed.embed.ground.enumerate import irregular_solutions, regular_solutions
from csp_embed.embed.ground.lifted import lifted_solutions
from csp_embed.embed.ground.posted import posted_irregular, posted_regular
from csp_embed.embed.ground.problem import pose_ground


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("part", nargs="?", default="")
    parser.add_argument("--most-points", type=int, default=9)
    options = parser.parse_args()
    print(f"{'problem':32} N  T  irregular(3)   regular(3)    lifted in fewer seconds  verdict")
    agree = total = 0
    for row in corpus():
        if options.part not in row.name:
            continue
        started = time.perf_counter()
        ground = posed(row)
        if ground is None or len(ground.points) > options.most_points:
            continue
        wild = irregular_solutions(ground)
        sets = [wild.keys, posted_irregular(ground), brute_irregular(ground)]
        tame = regular_solutions(ground)
        regular = [tame.keys, posted_regular(ground), brute_regular(ground, sets[2])]
        lifted = lifted_solutions(ground, row.isa)
        fewer = "-"
        for steps in range(1, ground.steps):
            below = pose_ground(row.op, row.isa, steps, commuted=row.commuted)
            if regular_solutions(below, by_rows=True).keys:
                fewer = str(steps)
                break
        same = sets[0] == sets[1] == sets[2] and regular[0] == regular[1] == regular[2]
        inside = lifted <= tame.keys
        total, agree = total + 1, agree + (same and inside)
        counts = "/".join(str(len(s)) for s in sets), "/".join(str(len(s)) for s in regular)
        print(
            f"{row.name:32} {len(ground.points):<2} {ground.steps:<2} {counts[0]:14} "
            f"{counts[1]:13} {len(lifted):<6} {'yes' if inside else 'NO':3} {fewer:5} "
            f"{time.perf_counter() - started:7.1f}  {'same' if same else 'DIFFERENT'}",
            flush=True,
        )
    print(f"{agree} of {total} agree")


if __name__ == "__main__":
    main()
