"""The search space against the complete lifted space and the regular coverings.

    scripts/bench_complete [NAME PART] [--columns N]      counts on the corpus
    scripts/bench_complete --random N [--seed S]          least costs on random small operators
    scripts/bench_complete --random N --windows           the same on windows of few outputs

Corpus columns: effective points, steps, regular coverings, complete lifted space (every affine map
that the lifted algebra accepts), of the rest those that are accidental (tests/oracles/lifted.py:
right only because of where pad falls), the search's (embed/space/options.py), whether the least
analytic
cost over the complete space is the search's. Regular coverings are counted where no frame has too
many columns (--columns).

Random: ratios of the search's least cost to the complete space's, and every operator where it is
above 1; steps are at most one more than the search's best has. The exit code is 1 where a corpus
row's sets differ otherwise than stated.
"""

from __future__ import annotations

import argparse
import math
import random
import sys
import time
from collections.abc import Callable

from csp_embed.embed.ground.expand import lifted_embeddings, named_steps
from csp_embed.embed.ground.numerations import bound
from csp_embed.embed.ground.points import key
from csp_embed.ir.operator import Operator
from tests.oracles.complete import complete_embeddings
from tests.oracles.corpus import corpus, posed, strict_corpus
from tests.oracles.lifted import accidental, lifted_solutions, regular_maps
from tests.oracles.random_problems import (
    random_operator,
    random_problems,
    random_window,
)


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("part", nargs="?", default="")
    parser.add_argument("--columns", type=int, default=400, help="most columns of a frame's digit")
    parser.add_argument("--random", type=int, default=0, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--windows", action="store_true", help="random windows alone")
    options = parser.parse_args()
    if options.random:
        draw = random_window if options.windows else random_operator
        return on_random(options.random, options.seed, draw)
    return on_corpus(options.part, options.columns)


def on_corpus(part: str, columns: int) -> int:
    print(f"{'problem':34} {'N':>3} {'T':>2} regular complete accidental search  cost   seconds")
    wrong = rows = 0
    for row in (*corpus(), *strict_corpus()):
        if part not in row.name or row.tile is not None:
            continue
        started, ground = time.process_time(), posed(row)
        if ground is None:
            continue
        best, keys = math.inf, set()
        for found, embedding in complete_embeddings(ground, row.isa, row.layout):
            keys.add(key(ground, found.at))
            best = min(best, embedding.cost["objective"])
        searched = [
            e.cost["objective"] for e in lifted_embeddings(ground, row.isa, row.layout)
            if named_steps(e) <= ground.steps
        ]  # fmt: skip
        search = lifted_solutions(ground, row.isa, row.layout)
        ratio = min(searched) / best if searched else math.inf
        counts = "      -          -"
        bad = not search <= keys
        if math.prod(2 * bound(ground, (a,)) + 1 for a in row.op.axes) <= columns:
            regular = regular_maps(ground)
            rest = [maps for k, maps in regular.items() if k not in keys]
            chance = sum(all(accidental(ground, m) for m in maps) for maps in rest)
            bad |= chance != len(rest) or not keys <= regular.keys()
            counts = f"{len(regular):7} {chance:10}"
        rows, wrong = rows + 1, wrong + bad
        print(
            f"{row.name:34} {len(ground.points):3} {ground.steps:2} {counts[:7]} {len(keys):8} "
            f"{counts[8:]} {len(search):6} {ratio:6.3f} {time.process_time() - started:7.1f}"
            f"{'  WRONG' if bad else ''}",
            flush=True,
        )
    print(f"{rows - wrong} of {rows} as stated")
    return int(wrong > 0)


def on_random(count: int, seed: int, draw: Callable[[random.Random], Operator]) -> int:
    ratios = []
    for ground, isa, mode, cost in random_problems(random.Random(seed), draw):
        best = min(
            (e.cost["objective"] for _, e in complete_embeddings(ground, isa, mode)),
            default=math.inf,
        )
        ratios.append(max(cost / best, 1.0))
        if cost > best * (1 + 1e-9):
            swapped = " commuted" if ground.commuted else ""
            print(f"{cost / best:6.3f} {isa.name} {dict(ground.sizes)} {mode}{swapped} "
                  f"{ground.op.formula()} {dict(ground.op.axes)}", flush=True)  # fmt: skip
        if len(ratios) == count:
            break
    equal = sum(r <= 1 + 1e-9 for r in ratios)
    print(f"{equal} of {count} equal; mean ratio {sum(ratios) / count:.4f}, most {max(ratios):.3f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
