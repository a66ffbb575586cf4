"""What the records of bench_native say: means, worst layers, a table in Markdown."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

Row = dict[str, Any]
LARGE = 100_000_000  # MACs


def ratio(row: Row, peer: str) -> float | None:
    """The peer's time over ours; "best": of the fastest peer."""
    times = row["peers"]
    if peer == "best":
        return min(times.values()) / row["seconds"] if times else None
    return times[peer] / row["seconds"] if peer in times else None


def mean(values: Sequence[float]) -> float:
    """Geometric."""
    return math.exp(sum(map(math.log, values)) / len(values))


GROUPS: dict[str, Callable[[Row], bool]] = {
    "all layers": lambda r: True,
    "convolutions": lambda r: r["layer"].startswith("conv"),
    "convolutions with 1 or 3 channels": lambda r: "{1,3}" in r["class"],
    "products": lambda r: r["layer"].startswith("gemm"),
}


def summary(rows: Sequence[Row]) -> str:
    """Geometric means and worst layers against each peer, by group; shares of the limit."""
    return "\n".join(" ".join(cells) for cells in _summary(rows))


def _summary(rows: Sequence[Row]) -> list[list[str]]:
    out = []
    peers = list(dict.fromkeys(p for r in rows for p in r["peers"]))
    for group, inside in GROUPS.items():
        chosen = [r for r in rows if inside(r)]
        for peer in [*peers, *(["best"] if len(peers) > 1 else [])]:
            found = [(v, r["layer"]) for r in chosen if (v := ratio(r, peer)) is not None]
            if found:
                worst = min(found)
                below = sum(v < 0.85 for v, _ in found)
                out.append([group, peer, str(len(found)), f"{mean([v for v, _ in found]):.2f}",
                            f"{worst[0]:.2f} {worst[1]}", str(below)])  # fmt: skip
    large = [(r["share"], r["layer"]) for r in rows if r["macs"] >= LARGE]
    if large:
        below = sum(s < 0.85 for s, _ in large)
        out.append(["layers of 100 million MACs", "limit", str(len(large)),
                    f"{mean([s for s, _ in large]):.2f}", "{:.2f} {}".format(*min(large)),
                    str(below)])  # fmt: skip
    return out


def report(rows: Sequence[Row]) -> str:
    """Both tables as Markdown."""
    head = ("layers", "peer", "number", "geometric mean", "worst", "below 0.85")
    lines = [_line(head), _line(["---"] * len(head)), *(_line(c) for c in _summary(rows)), ""]
    peers = list(dict.fromkeys(p for r in rows for p in r["peers"]))
    head2 = ["layer", "extents", "million MACs", "GMAC/s", "spread", "share", *peers, "kernel"]
    lines += [_line(head2), _line(["---"] * len(head2))]
    for r in sorted(rows, key=lambda r: r["layer"]):
        extents = " ".join(f"{a}={n}" for a, n in r["extents"].items())
        share = f"{r['share']:.2f}" + ("m" if r["memory_bound"] else "")
        cells = [r["layer"], extents, f"{r['macs'] / 1e6:,.1f}", f"{r['gmacs']:.1f}",
                 f"{r['spread']:.0%}", share]  # fmt: skip
        cells += ["-" if (v := ratio(r, p)) is None else f"{v:.2f}" for p in peers]
        lines.append(_line([*cells, r["kernel"].removesuffix(" sums in registers")]))
    return "\n".join(lines)


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"
