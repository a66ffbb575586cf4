"""Lines and rows of a sweep for the terminal and the page."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

Record = Mapping[str, Any]


def geomean(values: Iterable[float]) -> float:
    """Geometric mean; nan for nothing."""
    # Layers without a figure do not count; 0 has no logarithm.
    logs = [math.log(v) for v in values if v and v > 0]
    return math.exp(sum(logs) / len(logs)) if logs else math.nan


def compared(r: Record) -> str:
    """What was compared, for a table's cell: "checks" alone would read like compared values."""
    words = {"checks": "values not compared", "unequal": "NOT EQUAL to NumPy",
             "interpreted": "run by the meanings"}  # fmt: skip
    return words.get(r["verified"], str(r["verified"]))


def certified(r: Record) -> str:
    """Whether the layer's stream was proved right for all inputs."""
    # None: certification was not asked for.
    return {True: "for all inputs", False: "REFUSED", None: "-"}[r.get("certified")]


def layer_row(r: Record) -> str:
    """One line about a layer."""
    if r.get("status") == "failed":
        return f"{r['id']:<12} failed: {r['error']} {r.get('why', '')}"
    speedup = f"{r['speedup']:8.2f}x" if r.get("speedup") else "        -"
    ratio = f"{r['ratio']:.4f}" if r.get("ratio") else "-"
    return (
        f"{r['id']:<12} {r['cycles'] or 0:>13,} cycles  {ratio} of bound  {speedup} of reference  "
        f"{r['kind']:<18} {r['seconds']:6.2f} s  {compared(r)}"
        + (f"  certified {certified(r)}" if "certified" in r else "")
        + (f"  {len(r['problems'])} problems" if r.get("problems") else "")
    )


def classes(results: Sequence[Record]) -> dict[tuple[str, str], list[Record]]:
    """Finished records by (machine, class), in order of name."""
    out: dict[tuple[str, str], list[Record]] = {}
    # Failed layers and those without a bound are no part of a mean.
    for r in results:
        if r.get("status") != "failed" and r.get("ratio"):
            out.setdefault((str(r.get("machine", "")), r["class"]), []).append(r)
    return dict(sorted(out.items()))


def class_rows(results: Sequence[Record]) -> list[list[str]]:
    """Rows of the class table as text."""
    rows: list[list[str]] = []
    for (machine, name), group in classes(results).items():
        # The worst is named: a mean hides it.
        worst = max(group, key=lambda r: r["ratio"])
        speedups = [r["speedup"] for r in group if r.get("speedup")]
        strict = [r["strict_cycles"] / r["bound_cycles"] for r in group if r.get("strict_cycles")]
        seconds = sorted(r["seconds"] for r in group)
        rows.append([
            machine, name, str(len(group)),
            # Geometric: ratios of layers of all sizes count alike.
            f"{geomean(r['ratio'] for r in group):.4f}", f"{worst['ratio']:.4f} {worst['id']}",
            f"{geomean(speedups):.2f}x" if speedups else "-",
            f"{min(speedups):.2f}x" if speedups else "-",
            f"{geomean(strict):.4f}" if strict else "-",
            # Median and worst: a mean of times says little of either.
            f"{seconds[len(seconds) // 2]:.2f}", f"{seconds[-1]:.2f}",
            str(sum(r["verified"] in ("simulated", "interpreted") for r in group)),
        ])  # fmt: skip
    return rows


CLASS_HEAD = (
    "machine", "class", "layers", "cycles/bound", "worst", "over reference", "least", "strict",
    "s median", "s worst", "simulated",
)  # fmt: skip
