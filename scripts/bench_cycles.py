"""Prints the cycle engine's error on measured programs, per memory interface, and its speed.

Usage: bench_cycles.py [FOLDER]: micro.jsonl, tvm_streams.npz and, if there, rtl_streams.npz in the
formats of tests/data/cycles/README.md.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "unit" / "sim")]

from cycle_programs import Measured, measured  # noqa: E402
from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from csp_embed.ir.stream import Stream  # noqa: E402
from csp_embed.machine.load import load_isa  # noqa: E402
from csp_embed.sim.cycles.engine import Engine  # noqa: E402

MEMORIES = ("de10", "pynq")


def engine(memory: str, request_wait: int = 16) -> Engine:
    """VTA behind `memory`, whose delay counter runs to `request_wait` (16 as measured)."""
    isa = load_isa("vta")
    costs = {k: {**v, "wake": request_wait + 1} if "wake" in v else v for k, v in isa.costs.items()}
    return Engine(replace(isa, costs=costs), memory)


def accuracy(programs: list[Measured]) -> Table:
    """One row per memory interface and group of programs."""
    table = Table(title="error of predicted cycles against the RTL, in per cent")
    for name in ("memory", "programs", "", "exact", "min", "median", "p90", "max", "worst"):
        left = name in ("memory", "programs", "worst")
        table.add_column(name, justify="left" if left else "right")
    for memory in MEMORIES:
        errors: dict[str, float] = {}
        groups: dict[str, list[str]] = {"all": []}
        for item in programs:
            if memory in item.cycles:
                total = engine(memory, item.request_wait).total(item.stream)
                errors[item.name] = 100 * abs(total / item.cycles[memory] - 1)
                groups.setdefault(item.group, []).append(item.name)
                groups["all"].append(item.name)
        for group, names in groups.items():
            part = np.array([errors[n] for n in names])
            quantiles = (part.min(), np.median(part), np.percentile(part, 90), part.max())
            table.add_row(
                memory,
                group,
                str(len(part)),
                str(int((part == 0).sum())),
                *(f"{q:.3f}" for q in quantiles),
                names[int(part.argmax())] if part.max() > 0 else "-",
            )
    return table


def seconds(work: Callable[[], object], repeats: int = 7) -> float:
    """Least processor time of `work` over some repeats."""
    best = float("inf")
    for _ in range(repeats):
        start = time.process_time()
        work()
        best = min(best, time.process_time() - start)
    return best


def _totals(machine: Engine, rows: list[np.ndarray]) -> list[int]:
    return [machine.total_of(r) for r in rows]


def speed(programs: list[Measured]) -> Table:
    """Millions of instructions a second over the full streams, and of the slowest of them."""
    table = Table(title="million instructions a second (full streams, one core)")
    for name in ("memory", "stream to total", "table to total", "report", "slowest stream"):
        table.add_column(name, justify="right")
    streams = {p.name: p.stream for p in programs if p.group == "tvm"}
    count = sum(len(s) for s in streams.values()) / 1e6

    def rate(work: Callable[[Stream], object]) -> float:
        return count / seconds(lambda: [work(s) for s in streams.values()])

    for memory in MEMORIES:
        machine = engine(memory)
        rows = {name: machine.table(stream).rows for name, stream in streams.items()}
        single = {
            name: len(r) / 1e6 / seconds(partial(machine.total_of, r)) for name, r in rows.items()
        }
        slowest = min(single, key=lambda name: single[name])
        run = count / seconds(partial(_totals, machine, list(rows.values())))
        table.add_row(
            memory,
            f"{rate(machine.total):.2f}",
            f"{run:.2f}",
            f"{rate(machine.report):.2f}",
            f"{slowest} {single[slowest]:.2f}",
        )
    return table


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", nargs="?", type=Path, default=ROOT / "tests" / "data" / "cycles")
    folder = parser.parse_args().folder
    console = Console()
    programs = list(measured(load_isa("vta"), folder))
    start = time.perf_counter()
    engine("de10").total(programs[0].stream)
    console.print(
        f"first call (compiled, or read from the cache): {time.perf_counter() - start:.2f} s"
    )
    console.print(accuracy(programs))
    console.print(speed(programs))


if __name__ == "__main__":
    main()
