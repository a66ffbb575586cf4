"""One page about a network's programs: layers, timeline, memory over time."""

from __future__ import annotations

import math
from html import escape
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from csp_embed.compiler.whole.report import cycle_report
from csp_embed.report import svg
from csp_embed.report.network_farthest import farthest
from csp_embed.report.page import number, page, table
from csp_embed.report.plans.gantt import ticks
from csp_embed.report.scene import text_width

if TYPE_CHECKING:
    from csp_embed.compiler.network import Built
    from csp_embed.compiler.whole.segment import Segment
    from csp_embed.sim.cycles.engine import CycleReport

# Pixels of the picture, of its margins, and of a row.
WIDTH, LEFT, RIGHT, ROW = 1120, 74, 16, 26
# Stretches of time into which a queue's work is summed up.
BUCKETS = 420
HEAD = (
    "layer", "kind", "where", "cycles", "bound", "ratio", "share", "MACs", "differing", "recipe",
    "embedding", "why",
)  # fmt: skip


def network_page(built: Built) -> str:
    """The document as text."""
    d = built.document()
    # A network of layers without products has no MACs.
    share = d["macs_on_accelerator"] / d["macs"] if d["macs"] else 0.0
    programs = "one program" if d["segments"] == 1 else f"{d['segments']} programs"
    lines = [
        f"{d['differences']:,} of {d['elements']:,} elements differ from the reference interpreter "
        f"(profile {d['profile']}), {d['inputs']} inputs.",
        f"{d['cycles']:,} cycles in {programs} of {d['instructions']:,} instructions; {share:.2%} "
        f"of {d['macs']:,} MACs on the machine.",
        f"Layouts: {', '.join(d['layout_status']) or 'none'}, {d['layout_cycles']:,} estimated "
        f"cycles, bound {d['layout_bound_cycles']:,}. Activations: {d['activation_bytes']:,} "
        f"bytes, bound {d['activation_bound_bytes']:,}; with constants and micro-ops "
        f"{d['dram_bytes']:,}.",
        *d["notes"],
    ]
    body = "".join(f'<p class="note">{escape(line)}</p>' for line in lines)
    body += "<h2>Layers</h2>" + table(HEAD, _rows(built, d["cycles"]), sort=True)
    runs = [cycle_report(segment, built.options) for segment in built.segments]
    worst = farthest(built, runs)
    if worst:
        body += "<h2>Farthest from their bound</h2>" + worst
    for n, (segment, ran) in enumerate(zip(built.segments, runs, strict=True)):
        title = "" if len(built.segments) == 1 else f" of program {n + 1}"
        # Machines without costs have no timeline.
        if ran is not None:
            body += f"<h2>Timeline{title}</h2>" + _chart(_timeline(built, n, segment, ran))
        body += f"<h2>Memory over time{title}</h2>"
        body += (
            '<p class="note">DRAM of the activations: a block from the layer that stores a tensor '
            "to the last one that reads it; a tensor with a border keeps its bytes.</p>"
        )
        body += _chart(_memory(segment))
    return page(f"{d['model']} on {d['machine']}", body)


def _chart(picture: str) -> str:
    return f'<div class="wide">{picture}</div>'


def _rows(built: Built, total: int) -> list[list[str]]:
    rows: list[list[str]] = []
    for layer in built.layers:
        cycles, bound = layer.cycles, layer.bound_cycles
        # Layers of the host have neither cycles nor a bound.
        ratio = cycles / bound if cycles and bound else None
        part = cycles / total if cycles and total else None
        rows.append(
            [
                f"<td>{escape(layer.name)}</td>", f'<td class="l">{layer.kind}</td>',
                f'<td class="l">{layer.where}</td>', number(cycles), number(bound),
                number(ratio, ".2f"), number(part, ".1%"), number(layer.macs),
                f"<td>{layer.differences:,} of {layer.elements:,}</td>",
                f'<td class="l">{layer.recipe}</td>',
                f'<td class="l f">{escape(layer.embedding.split("|")[0])}</td>',
                f'<td class="l t">{escape(layer.why)}</td>',
            ]
        )  # fmt: skip
    return rows


def _timeline(built: Built, number_of: int, segment: Segment, ran: CycleReport) -> str:
    """A row of layers, a row for each queue with the share of time that it is busy."""
    assert ran.trace is not None
    # A run of 0 cycles still needs a scale.
    total = max(1, ran.total)
    queues = segment.isa.queues
    height = ROW * (2 + len(queues)) + 46

    def x(cycle: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * cycle / total

    parts = [svg.text(4, ROW * 0.9, "layer")]
    # Layers of other programs have their own timeline.
    mine = [la for la in built.layers if la.segment == number_of and la.end is not None]
    for n, layer in enumerate(mine):
        a, b = x(layer.begin or 0), x(layer.end or 0)
        shade = svg.colour(n)
        words = f"{layer.name}: {layer.cycles or 0:,} cycles, {layer.recipe}"
        # At least half a pixel: short layers must not vanish.
        parts.append(
            f'<rect x="{a:.1f}" y="6" width="{max(b - a, 0.5):.1f}" height="{ROW - 6}" '
            f'fill="{shade}"><title>{escape(words)}</title></rect>'
        )
        label = str(n)
        # A number where it fits; the whole name is in the tooltip.
        if text_width(label, 11) + 4 < b - a:
            parts.append(
                f'<text x="{(a + b) / 2:.1f}" y="{ROW - 7}" font-size="11" '
                f'text-anchor="middle" fill="#fff">{label}</text>'
            )
    for q, name in enumerate(queues):
        top = ROW * (q + 1) + 8
        parts.append(svg.text(4, top + ROW * 0.55, name))
        busy = _busy(ran, q, total)
        # As many bars as stretches: one is about two pixels wide.
        step = (WIDTH - LEFT - RIGHT) / len(busy)
        for n, part in enumerate(busy):
            if part > 0:
                # Never above its row, however sums of floats round.
                tall = (ROW - 6) * min(1.0, float(part))
                parts.append(
                    f'<rect x="{LEFT + n * step:.2f}" y="{top + ROW - 6 - tall:.1f}" '
                    f'width="{step:.2f}" height="{tall:.1f}" fill="{svg.colour(q)}"/>'
                )
    bottom = ROW * (len(queues) + 1) + 14
    for tick in ticks(total, 8):
        at = x(tick)
        parts.append(
            f'<line x1="{at:.1f}" y1="4" x2="{at:.1f}" y2="{bottom}" stroke="{svg.GRID}"/>'
        )
        parts.append(svg.text(at, bottom + 14, f"{tick:,.0f}", "middle", 11))
    parts.append(svg.text((LEFT + WIDTH) / 2, bottom + 30, "cycles", "middle", 11))
    return svg.frame(WIDTH, height, parts, "what each queue does when")


def _busy(ran: CycleReport, queue: int, total: int) -> NDArray[np.float64]:
    """Share of each stretch of time in which a queue works."""
    assert ran.trace is not None
    # Instructions that never began have a start of -1.
    here = (ran.trace.queue == queue) & (ran.trace.start >= 0)
    start, end = ran.trace.start[here], ran.trace.end[here]
    # No stretch is shorter than a cycle.
    edges = np.linspace(0, total, min(BUCKETS, total) + 1)
    # Work done up to each edge: whole instructions before it, and the part of one that runs.
    order = np.argsort(start)
    start, end = start[order], end[order]
    done = np.concatenate([[0], np.cumsum(end - start)])
    at = np.searchsorted(start, edges, side="right")
    running = np.where(at > 0, np.clip(end[np.maximum(at - 1, 0)] - edges, 0, None), 0.0)
    return np.diff(done[at] - running) / np.diff(edges)


def _memory(segment: Segment) -> str:
    """Addresses upwards, layers to the right."""
    lives = segment.lives
    count = len(segment.layers) + 1
    # Addresses relative to the first tensor: the pool may begin anywhere.
    base = min(segment.start.values())
    tall, top = 220, 10
    peak = max(1, segment.memory.height)

    def x(layer: float) -> float:
        return LEFT + (WIDTH - LEFT - RIGHT) * layer / count

    def y(byte: float) -> float:
        return top + tall * (1 - byte / peak)

    parts: list[str] = []
    for tick in [t for t in ticks(peak, 5) if t <= peak]:
        parts.append(
            f'<line x1="{LEFT}" y1="{y(tick):.1f}" x2="{WIDTH - RIGHT}" y2="{y(tick):.1f}" '
            f'stroke="{svg.GRID}"/>'
        )
        parts.append(svg.text(LEFT - 6, y(tick) + 4, f"{tick:,.0f}", "end", 11))
    for n, life in enumerate(lives):
        low = segment.start[life.name] - base
        # A tensor lives through its last reader's layer.
        a, b = x(life.first), x(life.last + 1)
        shade = svg.colour(n)
        words = f"{life.name}: {life.size:,} bytes, layers {life.first} to {life.last}"
        # At least a pixel: small tensors must be seen.
        box = max(y(low) - y(low + life.size), 1.0)
        parts.append(
            f'<rect x="{a:.1f}" y="{y(low + life.size):.1f}" width="{b - a:.1f}" '
            f'height="{box:.1f}" fill="{shade}" fill-opacity="0.75" stroke="#fff">'
            f"<title>{escape(words)}</title></rect>"
        )
    # About 32 numbers: more would touch each other.
    every = math.ceil(count / 32)
    for n in range(0, count - 1, every):
        parts.append(svg.text(x(n + 0.5), top + tall + 16, str(n), "middle", 11))
    parts.append(svg.text((LEFT + WIDTH) / 2, top + tall + 32, "layer", "middle", 11))
    return svg.frame(WIDTH, top + tall + 40, parts, "bytes of DRAM that activations take")
