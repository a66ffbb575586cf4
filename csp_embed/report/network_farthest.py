"""The layers of a network that lose most cycles to their bound, and to what."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

import numpy as np

from csp_embed.report.page import number, table

if TYPE_CHECKING:
    from csp_embed.compiler.network import Built
    from csp_embed.compiler.whole.report import LayerReport
    from csp_embed.sim.cycles.engine import CycleReport

COUNT = 10
HEAD = ("layer", "cycles", "bound", "ratio", "lost", "why")


def farthest(built: Built, runs: list[CycleReport | None]) -> str:
    """A table of at most ten layers; empty where no layer has a bound. runs: of each program."""
    known = [la for la in built.layers if la.cycles is not None and la.bound_cycles]
    # By what would be won, not by the ratio: a layer of 50 cycles is never worth a look.
    worst = sorted(known, key=lambda la: lost(la), reverse=True)[:COUNT]
    rows = [
        [
            f"<td>{escape(la.name)}</td>", number(la.cycles), number(la.bound_cycles),
            number((la.cycles or 0) / (la.bound_cycles or 1), ".2f"), number(lost(la)),
            f'<td class="l t">{escape(why(built, la, runs[la.segment or 0]))}</td>',
        ]
        for la in worst
    ]  # fmt: skip
    return table(HEAD, rows, sort=True) if rows else ""


def lost(layer: LayerReport) -> int:
    """Cycles beyond the bound."""
    return (layer.cycles or 0) - (layer.bound_cycles or 0)


def why(built: Built, layer: LayerReport, ran: CycleReport | None) -> str:
    """What takes the time: further rounds, and how busy each queue is meanwhile."""
    parts: list[str] = []
    if layer.extra_cycles:
        parts.append(f"rounds and steps of {layer.recipe}: about {layer.extra_cycles:,} cycles")
    if ran is not None and ran.trace is not None and layer.end is not None:
        t, begin, end = ran.trace, layer.begin or 0, layer.end
        busy: list[tuple[float, str]] = []
        for q, name in enumerate(built.isa.queues):
            mine = (t.queue == q) & (t.start >= 0)
            # Only what falls into the layer's own time, whosever work it is.
            inside = np.minimum(t.end[mine], end) - np.maximum(t.start[mine], begin)
            busy.append((float(np.clip(inside, 0, None).sum()) / max(1, end - begin), name))
        parts += [f"{name} works {share:.0%} of its time" for share, name in sorted(busy)[::-1]]
        if max(busy)[0] < 0.8:
            parts.append("no queue is full: they wait for each other")
    return "; ".join(parts)
