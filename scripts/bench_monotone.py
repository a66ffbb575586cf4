"""The default search against every other choice of candidates, pins and effort.

    scripts/bench_monotone [--count 200] [--seed 0]     random small operators
    scripts/bench_monotone --layers conv003,gemm008     DeepBench layers

Prints, per operator where another choice found fewer cycles, by how much; then how many lost more
than 1 %, the worst, and CPU time of the default in units of `--top 1`. Exit code 1 where more
candidates or effort gave more cycles.
"""

from __future__ import annotations

import argparse
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from csp_embed import ops
from csp_embed.compiler.driver import Options, compile
from csp_embed.errors import CspEmbedError
from csp_embed.ir.operator import Operator
from csp_embed.ops import deepbench

TOPS = (1, 2, 4, 8, 16, 24)
EFFORTS = ((4, 20), (8, 80), (16, 200))  # schedules, refine


def random_operator(rng: random.Random) -> Operator:
    """A small operator of any class, channels and images of odd sizes."""
    kind = rng.choice(("conv2d",) * 6 + ("conv1d", "matmul", "matmul", "depthwise", "transposed",
                                         "groups", "bias"))  # fmt: skip
    pick, n = rng.choice, rng.randint
    if kind in ("conv2d", "bias"):
        h, w, r = n(4, 40), n(4, 40), pick((1, 1, 2, 3, 3, 3, 5, 7))
        s = pick((r, r, r, 1, 3))
        rest = {"shift": 6, "bias": True, "bias_range": 4000, "clip": (0, 127)}
        return ops.conv2d(
            n=pick((1, 1, 1, 2)), c=pick((1, 3, 3, 4, 8, 16, 20, 32, 48)), h=h, w=w,
            k=pick((1, 4, 8, 16, 16, 24, 32, 64)), r=min(r, h), s=min(s, w),
            stride=pick((1, 1, 1, 2)), pad=pick((0, 0, 1, r // 2)),
            **(rest if kind == "bias" else {}),
        )  # fmt: skip
    if kind == "conv1d":
        return ops.conv1d(n=n(1, 2), c=n(1, 40), w=n(9, 200), k=n(1, 48), r=pick((1, 3, 5, 9)))
    if kind == "matmul":
        return ops.matmul(m=n(1, 70), n=n(1, 130), k=n(1, 200))
    if kind == "depthwise":
        return ops.depthwise_conv2d(n=1, c=n(1, 40), h=n(4, 24), w=n(4, 24), r=3, s=3)
    if kind == "transposed":
        return ops.conv_transpose2d(n=1, c=n(1, 24), h=n(3, 10), w=n(3, 10), k=n(1, 24),
                                    r=pick((2, 3, 4)), s=pick((2, 3)), stride=2)  # fmt: skip
    g = pick((2, 4))
    return ops.conv2d(n=1, c=g * n(1, 8), h=n(5, 16), w=n(5, 16), k=g * n(1, 8), r=3, s=3, groups=g)


def pins_of(op: Operator) -> Iterator[tuple[str, ...]]:
    """Pins that people try."""
    for text in ("forbid skew", "forbid diagonal", "forbid fuse", "forbid outer"):
        yield (text,)
    yield from (("forbid skew", "forbid diagonal"), ("fix commuted",), ("fix straight",))
    for axis in op.reduced_axes:
        yield (f"fix i={axis}",)
    for axis in op.out_axes:
        yield (f"fix o={axis}",)
    for a, b in zip(op.reduced_axes, op.reduced_axes[1:], strict=False):
        yield (f"fix i={a},{b}", "forbid skew")


def cycles(op: Operator, options: Options) -> tuple[int | None, float]:
    """Cycles and CPU seconds; None where the pins allow no embedding."""
    start = time.process_time()
    try:
        found = compile(op, options=options).cycles
    except CspEmbedError:
        found = None
    return found, time.process_time() - start


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", default="", help="ids of DeepBench layers instead")
    parser.add_argument("--no-pins", action="store_true", help="candidates and effort only")
    args = parser.parse_args()
    if args.layers:
        cases = [(id, deepbench.layer(id)) for id in args.layers.split(",")]
    else:
        seeds = range(args.seed, args.seed + args.count)
        cases = [(f"seed {n}", random_operator(random.Random(n))) for n in seeds]
    compile(ops.matmul(m=3, n=3, k=3))  # compiles the cycle engine, loads the solver
    losses, ratios, grown = [], [], 0
    for name, op in cases:
        default, seconds = cycles(op, Options())
        assert default is not None
        found: dict[str, int | None] = {}
        times = []
        for top in TOPS:
            found[f"top {top}"], spent = cycles(op, Options(top=top))
            times.append(spent)
        for count, refine in EFFORTS:
            label = f"schedules {count} refine {refine}"
            found[label], _ = cycles(op, Options(schedules=count, refine=refine))
        steps = [[found[f"top {t}"] for t in TOPS],
                 [found[f"schedules {c} refine {r}"] for c, r in EFFORTS]]  # fmt: skip
        for series in steps:
            known = [c for c in series if c is not None]
            if known != sorted(known, reverse=True):
                grown += 1
                print(f"{name}: more gave more cycles: {series}", flush=True)
        if not args.no_pins:
            found["strict"], _ = cycles(op, Options(layout="strict"))
            for pins in pins_of(op):
                found[" ".join(pins)], _ = cycles(op, Options(pins=pins))
        best, by = min((c, label) for label, c in found.items() if c is not None)
        loss = default / best - 1
        losses.append(max(loss, 0.0))
        ratios.append(seconds / times[0])
        if loss > 0:
            extents = " ".join(f"{a}={n}" for a, n in op.axes.items())
            print(f"{name}: {default} cycles, {best} by `{by}` ({loss:.2%})  {op.formula()}  "
                  f"{extents}", flush=True)  # fmt: skip
    print(
        f"{len(losses)} operators: {sum(v > 0.01 for v in losses)} lost more than 1 %, worst "
        f"{max(losses):.2%}, mean {statistics.mean(losses):.3%}; {grown} grew with candidates or "
        f"effort; CPU time over --top 1: median {statistics.median(ratios):.2f}, most "
        f"{max(ratios):.2f}"
    )
    return 1 if grown else 0


if __name__ == "__main__":
    sys.exit(main())
