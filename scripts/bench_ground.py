"""Tables of the ground model. Seconds are of CPU, on one core.

    scripts/bench_ground corpus [NAME PART]     solutions by each of three enumerators
    scripts/bench_ground symmetry [NAME PART]   what breaking symmetry saves, and orbit equations
    scripts/bench_ground scale [NAME PART]      fewest steps for 100 to 2,000 operator points

corpus: N effective points, T steps, irregular coverings and regular ones (each by CP-SAT,
python-constraint, brute force), and the seconds of the six runs in that order.
symmetry: coverings without breaking constraints against the sum of orbit sizes, maps without them
against the classes of the maps with them (equal, or the row says DIFFERENT); solver branches and
seconds with / without.
scale: lanes, the bound on steps, steps found, status, gap, seconds to pose, solve and check.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from typing import Any

from csp_embed import ops
from csp_embed.embed.ground.enumerate import irregular_solutions, regular_solutions
from csp_embed.embed.ground.solve import solve_ground
from csp_embed.embed.ground.symmetry import copies, orbit
from csp_embed.ir.ground import Ground
from csp_embed.ir.operator import Operator
from tests.oracles.brute import brute_irregular
from tests.oracles.brute_regular import brute_regular
from tests.oracles.corpus import Row, corpus, machines, posed, strict_corpus
from tests.oracles.posted import posted_irregular
from tests.oracles.posted_regular import posted_regular


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("table", choices=["corpus", "symmetry", "scale"])
    parser.add_argument("part", nargs="?", default="", help="rows with this in their names")
    parser.add_argument(
        "--most",
        type=int,
        default=20_000,
        metavar="N",
        help="symmetry: rows of more coverings than N have their irregular part left out (20000)",
    )
    options = parser.parse_args()
    if options.table == "corpus":
        corpus_table(options.part)
    elif options.table == "symmetry":
        symmetry_table(options.part, options.most)
    else:
        scale_table(options.part)


def rows(part: str) -> Iterator[tuple[Row, Ground]]:
    """The corpus and its strict rows, posed."""
    for row in (*corpus(), *strict_corpus()):
        if part in row.name:
            ground = posed(row)
            if ground is not None:
                yield row, ground


def cpu(run: Callable[[], Any]) -> tuple[Any, float]:
    started = time.process_time()
    return run(), time.process_time() - started


def corpus_table(part: str) -> None:
    print(f"{'problem':36} N  T  irregular      regular      seconds")
    same, total, spent = 0, 0, 0.0
    for row, g in rows(part):
        wild, a = cpu(lambda g=g: irregular_solutions(g).keys)
        wild2, b = cpu(lambda g=g: posted_irregular(g))
        wild3, c = cpu(lambda g=g: brute_irregular(g))
        tame, d = cpu(lambda g=g: regular_solutions(g).keys)
        tame2, e = cpu(lambda g=g: posted_regular(g))
        tame3, f = cpu(lambda g=g, w=wild3: brute_regular(g, w))
        equal = wild == wild2 == wild3 and tame == tame2 == tame3
        same, total, spent = same + equal, total + 1, spent + a + b + c + d + e + f
        counts = [f"{len(x)}/{len(y)}/{len(z)}" for x, y, z in
                  ((wild, wild2, wild3), (tame, tame2, tame3))]  # fmt: skip
        seconds = " ".join(f"{s:5.1f}" for s in (a, b, c, d, e, f))
        print(
            f"{row.name:36} {len(g.points):<2} {g.steps:<2} {counts[0]:14} {counts[1]:12} "
            f"{seconds} {'same' if equal else 'DIFFERENT'}",
            flush=True,
        )
    print(f"{same} of {total} agree; {spent:.0f} s of CPU")


def symmetry_table(part: str, most: int) -> None:
    print(f"{'problem':36} coverings      orbits   maps         classes  branches      seconds")
    sums = [0.0] * 8
    different = total = left = 0
    for row, g in rows(part):
        if g.ordered:
            continue  # the order of steps is part of the solution: nothing of it is broken
        wild, wild_s = cpu(lambda g=g: irregular_solutions(g))
        tame, tame_s = cpu(lambda g=g: regular_solutions(g))
        tame2, tame2_s = cpu(lambda g=g: regular_solutions(g, broken=False))
        classes = set().union(*(copies(g, m) for m in tame.maps))
        equal = tame.keys == tame2.keys and tame2.maps == classes
        orbits = sum(orbit(g, k) for k in wild.keys)
        sizes = [0, 0, len(tame.maps), len(tame2.maps)]
        branches, seconds = [tame.branches, tame2.branches], [tame_s, tame2_s]
        if orbits <= most:
            wild2, wild2_s = cpu(lambda g=g: irregular_solutions(g, broken=False))
            equal = equal and wild.keys == wild2.keys and wild2.coverings == orbits
            sizes[:2] = [wild.coverings, wild2.coverings]
            branches = [branches[0] + wild.branches, branches[1] + wild2.branches]
            seconds = [seconds[0] + wild_s, seconds[1] + wild2_s]
        else:
            left += 1
        total, different = total + 1, different + (not equal)
        sums = [x + y for x, y in zip(sums, [*sizes, *branches, *seconds], strict=True)]
        print(
            f"{row.name:36} {sizes[0]:>5}/{sizes[1]:<7} {orbits:>7} {sizes[2]:>5}/{sizes[3]:<6} "
            f"{len(classes):>7} {branches[0]:>6}/{branches[1]:<7} "
            f"{seconds[0]:5.1f}/{seconds[1]:<6.1f} {'' if equal else 'DIFFERENT'}",
            flush=True,
        )
    names = ("coverings", "maps", "branches", "seconds")
    for name, with_, without in zip(names, sums[::2], sums[1::2], strict=True):
        print(f"{name}: {with_:.0f} with breaking, {without:.0f} without: {without / with_:.1f} x")
    print(f"{total - different} of {total} rows: equal keys, orbit equations exact")
    print(f"{left} of them without the irregular part (more than {most} coverings)")


def scale_table(part: str) -> None:
    print(f"{'problem':34} points status    steps bound gap    seconds by")
    late = []
    for name, isa in machines().items():
        for label, op in scaled().items():
            for regular in (True, False):
                row = f"{name} {label} {'regular' if regular else 'irregular'}"
                if part not in row:
                    continue
                a = solve_ground(op, isa, regular=regular)
                gap = "" if a.steps is None else f"{(a.steps - a.bound) / a.bound:6.1%}"
                late += [row] if a.seconds > 60 else []
                print(
                    f"{row:34} {len(a.ground.points):>6} {a.status:9} {a.steps or '-':>5} "
                    f"{a.bound:>5} {gap:6} {a.seconds:7.1f} {a.by}",
                    flush=True,
                )
    print(f"{len(late)} rows took more than 60 s{': ' if late else ''}{', '.join(late)}")


def scaled() -> dict[str, Operator]:
    """About 100, 500, 1000 and 2000 points of each kind."""
    out = {}
    for m, n, k in ((4, 5, 5), (8, 8, 8), (10, 10, 10), (10, 10, 20)):
        out[f"matmul {m}x{n}x{k}"] = ops.matmul(m=m, n=n, k=k)
    for c, w, k in ((2, 8, 3), (4, 12, 4), (4, 18, 5), (5, 34, 4)):
        out[f"conv1d {c}x{w}x{k}"] = ops.conv1d(n=1, c=c, w=w, k=k, r=3)
    for c, h, k in ((1, 5, 2), (2, 5, 3), (3, 6, 3), (3, 8, 2)):
        out[f"conv2d {c}x{h}x{k}"] = ops.conv2d(n=1, c=c, h=h, w=h, k=k, r=3, s=3)
        out[f"strided {c}x{2 * h - 3}x{k}"] = ops.conv2d(
            n=1, c=c, h=2 * h - 3, w=2 * h - 3, k=k, r=3, s=3, stride=2
        )
    for c, h in ((2, 5), (4, 6), (8, 6), (8, 7)):
        out[f"depthwise {c}x{h}"] = ops.depthwise_conv2d(n=1, c=c, h=h, w=h, r=3, s=3)
    return out


if __name__ == "__main__":
    main()
