"""The default search against every other choice of candidates, pins and effort.

    scripts/bench_monotone [--count 200] [--seed 0]     random small operators
    scripts/bench_monotone --layers conv003,gemm008     DeepBench layers; `all`: all of them

Prints, per operator where another choice found fewer cycles, by how much; then how many lost more
than 1 %, the worst, and CPU time of the default in units of `--top 1`. Exit code 1 where more
candidates or effort gave more cycles. With `--out FILE` every measurement is a line of that file,
and those that it has are not made again; `--default` measures the default search alone, whatever
the file says of it, and compares it with the other choices that the file has.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from csp_embed import ops
from csp_embed.compiler.chain import chain
from csp_embed.compiler.driver import Options
from csp_embed.compiler.request.setting import setting_of
from csp_embed.errors import CspEmbedError
from csp_embed.ir.operator import Operator
from csp_embed.machine.load import load_isa
from csp_embed.ops import deepbench

DEFAULT = "default"
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


def choices(op: Operator, pins: bool) -> dict[str, Options]:
    """What is tried, by its name; the default first."""
    out = {DEFAULT: Options()}
    out |= {f"top {n}": Options(top=n) for n in TOPS}
    out |= {
        f"schedules {count} refine {refine}": Options(schedules=count, refine=refine)
        for count, refine in EFFORTS
    }
    if pins:
        out["strict"] = Options(layout="strict")
        out |= {" ".join(p): Options(pins=p) for p in pins_of(op)}
    return out


def cycles(op: Operator, options: Options) -> tuple[int | None, float]:
    """Cycles and CPU seconds up to the schedule; None where the pins allow no embedding."""
    start = time.process_time()
    try:
        stages = chain(setting_of(op, load_isa("vta"), options))
        made = stages.run(op, stop_after="schedule", check=False)
        found = int(made["schedule"].measured.cycles)
    except CspEmbedError:
        found = None
    return found, time.process_time() - start


class Records:
    """Measurements by operator and choice, kept in a file where there is one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self.known: dict[tuple[str, str], tuple[int | None, float]] = {}
        if path is not None and path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.known[row["name"], row["choice"]] = row["cycles"], row["seconds"]

    def of(self, name: str, choice: str, op: Operator, options: Options) -> int | None:
        """Cycles, measured now where they are not known."""
        if (name, choice) not in self.known:
            found = self.known[name, choice] = cycles(op, options)
            if self._path is not None:
                row = {"name": name, "choice": choice, "cycles": found[0], "seconds": found[1]}
                with self._path.open("a") as file:
                    file.write(json.dumps(row) + "\n")
        return self.known[name, choice][0]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--count", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--layers", default="", help="ids of DeepBench layers instead, or `all`")
    parser.add_argument("--no-pins", action="store_true", help="candidates and effort only")
    parser.add_argument("--choices", default="", help="of these choices only, comma-separated")
    parser.add_argument("--out", type=Path, help="keeps measurements; finished ones are not redone")
    parser.add_argument(
        "--default", action="store_true", help="the default alone, against what --out has"
    )
    args = parser.parse_args()
    if args.layers:
        ids = (
            [str(r["id"]) for r in deepbench.layers()]
            if args.layers == "all"
            else args.layers.split(",")
        )
        cases = [(id, deepbench.layer(id)) for id in ids]
    else:
        seeds = range(args.seed, args.seed + args.count)
        cases = [(f"seed {n}", random_operator(random.Random(n))) for n in seeds]
    cycles(ops.matmul(m=3, n=3, k=3), Options())  # compiles the cycle engine, loads the solver
    records = Records(args.out)
    losses, ratios, grown = [], [], 0
    for name, op in cases:
        todo = choices(op, not args.no_pins)
        if args.choices:
            todo = {c: o for c, o in todo.items() if c in (DEFAULT, *args.choices.split(","))}
        if args.default:
            todo = {c: o for c, o in todo.items() if (name, c) in records.known or c == DEFAULT}
            records.known[name, DEFAULT] = cycles(op, Options())
        found = {choice: records.of(name, choice, op, o) for choice, o in todo.items()}
        grown += _grown(name, found)
        known = {c: n for c, n in found.items() if n is not None}
        best, by = min((n, c) for c, n in known.items())
        loss = known[DEFAULT] / best - 1
        losses.append(loss)
        if (name, "top 1") in records.known:
            ratios.append(records.known[name, DEFAULT][1] / records.known[name, "top 1"][1])
        if loss > 0:
            extents = " ".join(f"{a}={n}" for a, n in op.axes.items())
            print(f"{name}: {known[DEFAULT]} cycles, {best} by `{by}` ({loss:.2%})  "
                  f"{op.formula()}  {extents}", flush=True)  # fmt: skip
    print(
        f"{len(losses)} operators: {sum(v > 0.01 for v in losses)} lost more than 1 %, worst "
        f"{max(losses):.2%}, mean {statistics.mean(losses):.3%}; {grown} grew with candidates or "
        f"effort"
    )
    if ratios:
        print(
            f"CPU time over --top 1: median {statistics.median(ratios):.2f}, most {max(ratios):.2f}"
        )
    return 1 if grown else 0


def _grown(name: str, found: dict[str, int | None]) -> int:
    """How many series of growing candidates or effort have more cycles somewhere."""
    count = 0
    for word in ("top", "schedules"):
        series = [n for c, n in found.items() if c.split()[0] == word and n is not None]
        if series != sorted(series, reverse=True):
            count += 1
            print(f"{name}: more gave more cycles: {series}", flush=True)
    return count


if __name__ == "__main__":
    sys.exit(main())
