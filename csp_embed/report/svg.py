"""Charts of a sweep as inline SVG: no script, no library, tooltips by `<title>`."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from html import escape
from typing import Any

from csp_embed.report.scene import text_width

Record = Mapping[str, Any]
# The same colours as elsewhere on the page.
PALETTE = ("#2f6db5", "#d9782d", "#3a9a5b", "#b23a6b", "#7a5ab5", "#8a7a2f")
GRID, INK, WAITING = "#dddddd", "#444444", "#bbbbbb"


def scale(low: float, high: float, start: float, end: float) -> Callable[[float], float]:
    """Logarithmic position of a value; what is below the range stands at its start."""
    # A single value has no span: anything but 0 will do.
    span = math.log(high / low) or 1.0
    return lambda v: start + (math.log(max(v, low) / low) / span) * (end - start)


def _drawable(value: float | None) -> bool:
    """Whether a logarithmic axis has a place for it."""
    return value is not None and 0 < value < math.inf


def decades(low: float, high: float) -> list[float]:
    """1, 2, 5, 10, … within the range."""
    out: list[float] = []
    # From the power of ten below.
    e = math.floor(math.log10(low))
    while 10**e <= high:
        out += [m * 10.0**e for m in (1, 2, 5) if low <= m * 10.0**e <= high]
        e += 1
    return out


def text(x: float, y: float, words: str, anchor: str = "start", size: int = 13) -> str:
    """A label."""
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}" text-anchor="{anchor}" fill="{INK}">'
        f"{escape(words)}</text>"
    )


def frame(width: int, height: int, parts: Sequence[str], label: str) -> str:
    """The picture around its parts."""
    return (
        f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}" '
        f'xmlns="http://www.w3.org/2000/svg">{"".join(parts)}</svg>'
    )


def short(value: float) -> str:
    """12000 -> 12k."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if value >= unit:
            return f"{value / unit:g}{name}"
    return f"{value:g}"


def legend(names: Sequence[str], x: float, width: int) -> tuple[list[str], int]:
    """Coloured dots with names in rows of at most `width`, and the height that they take."""
    out: list[str] = []
    at, y = x, 20
    for i, name in enumerate(names):
        room = 26 + text_width(name, 13)
        # A name that does not fit begins a new row, unless it is the first.
        if at > x and at + room > width:
            at, y = x, y + 20
        out.append(f'<circle cx="{at:.1f}" cy="{y - 4:.1f}" r="4" fill="{colour(i)}"/>')
        out.append(text(at + 8, y, name))
        at += room
    return out, y


def spaced(values: Sequence[float], place: Callable[[float], float], apart: float) -> list[float]:
    """Those of `decades` whose labels do not touch: powers of ten are kept first."""
    kept: list[float] = []
    # Powers of ten are the ones that readers look for.
    for v in sorted(values, key=lambda v: (not math.log10(v).is_integer(), v)):
        if all(abs(place(v) - place(other)) >= apart for other in kept):
            kept.append(v)
    return sorted(kept)


def colour(i: int) -> str:
    """The i-th class's colour."""
    return PALETTE[i % len(PALETTE)]


def roofline(records: Sequence[Record], peak_macs: float, port_bytes: float) -> str:
    """MACs per cycle against MACs per natural byte read; one dot a layer."""
    points = [
        # Operational intensity counts bytes as the operator has them, not packed.
        (r["macs"] / max(1, r["natural_bytes"]), r["macs"] / r["cycles"], r)
        for r in records
        if r.get("cycles") and r.get("macs") and r.get("natural_bytes")
    ]
    # What has no place on a logarithmic axis is left out.
    points = [p for p in points if _drawable(p[0]) and _drawable(p[1])]
    if not points or not _drawable(peak_macs) or not _drawable(port_bytes):
        return ""
    names = sorted({r["class"] for _, _, r in points})
    width, left, right, bottom = 680, 68, 16, 54
    key, rows = legend(names, left, width)
    top = rows + 16
    height = top + 330 + bottom
    # Some room around, so that no dot lies on the edge.
    x0, x1 = min(p[0] for p in points) / 1.5, max(p[0] for p in points) * 1.5
    y0, y1 = min(p[1] for p in points) / 1.5, peak_macs * 1.5
    x, y = scale(x0, x1, left, width - right), scale(y0, y1, height - bottom, top)
    parts: list[str] = []
    for v in spaced(decades(x0, x1), x, 44):
        parts.append(f'<line x1="{x(v):.1f}" x2="{x(v):.1f}" y1="{top}" y2="{height - bottom}" '
                     f'stroke="{GRID}"/>')  # fmt: skip
        parts.append(text(x(v), height - bottom + 18, short(v), "middle"))
    for v in spaced(decades(y0, y1), y, 20):
        parts.append(f'<line x1="{left}" x2="{width - right}" y1="{y(v):.1f}" y2="{y(v):.1f}" '
                     f'stroke="{GRID}"/>')  # fmt: skip
        parts.append(text(left - 6, y(v) + 4, short(v), "end"))
    # Left of it the port limits, right of it the lanes.
    knee = peak_macs / port_bytes
    # Slope of the port up to the peak, then flat.
    roof = [(x0, x0 * port_bytes), (min(max(knee, x0), x1), peak_macs), (x1, peak_macs)]
    line = " ".join(f"{x(a):.1f},{y(min(b, peak_macs)):.1f}" for a, b in roof)
    parts.append(f'<polyline points="{line}" fill="none" stroke="{INK}" stroke-width="2"/>')
    for a, b, r in points:
        shade = colour(names.index(r["class"]))
        tip = f"{r['id']}: {b:.1f} MACs a cycle, {a:.1f} MACs a byte, {r['ratio']:.3f} of bound"
        parts.append(
            f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="4" fill="{shade}"'
            f' fill-opacity="0.7"><title>{escape(tip)}</title></circle>'
        )
    parts += key
    parts.append(text(width / 2, height - 10, "MACs per natural byte read", "middle"))
    parts.append(f'<g transform="translate(14 {height / 2}) rotate(-90)">'
                 + text(0, 0, "MACs per cycle", "middle") + "</g>")  # fmt: skip
    return frame(width, height, parts, "roofline")


def speedups(records: Sequence[Record]) -> str:
    """Bars of reference cycles over ours, largest first, on a logarithmic axis."""
    rows = sorted((r for r in records if _drawable(r.get("speedup"))), key=lambda r: -r["speedup"])
    if not rows:
        return ""
    names = sorted({r["class"] for r in rows})
    width, left, bottom = 680, 68, 16
    key, lines = legend(names, left, width)
    top = lines + 14
    height = top + 260 + bottom
    # The line of 1 is always inside: it is what bars are read against.
    low, high = min(0.9, rows[-1]["speedup"]), max(2.0, rows[0]["speedup"] * 1.1)
    y = scale(low, high, height - bottom, top)
    step = (width - left - 10) / len(rows)
    parts: list[str] = []
    for v in spaced(decades(low, high), y, 20):
        parts.append(f'<line x1="{left}" x2="{width - 10}" y1="{y(v):.1f}" y2="{y(v):.1f}" '
                     f'stroke="{GRID}"/>')  # fmt: skip
        parts.append(text(left - 6, y(v) + 4, f"{v:g}x", "end"))
    base = y(1.0)
    for i, r in enumerate(rows):
        # Bars begin at 1: what is slower hangs below it.
        at = y(r["speedup"])
        tip = f"{r['id']}: {r['speedup']:.2f}x ({r['reference_cycles']:,} -> {r['cycles']:,})"
        parts.append(
            # Never thinner than can be seen.
            f'<rect x="{left + i * step:.2f}" width="{max(0.6, step * 0.85):.2f}" '
            f'y="{min(at, base):.1f}" height="{max(0.5, abs(base - at)):.1f}" '
            f'fill="{colour(names.index(r["class"]))}"><title>{escape(tip)}</title></rect>'
        )
    parts.append(
        f'<line x1="{left}" x2="{width - 10}" y1="{base:.1f}" y2="{base:.1f}" stroke="{INK}"/>'
    )
    parts += key
    return frame(width, height, parts, "speed-up over the reference")


BREAKDOWN = ("multiply-accumulate", "reset", "elementwise", "other busy", "waiting")


def breakdown(r: Record, width: int = 220) -> str:
    """One layer's compute-module cycles as a stacked bar; "" where they are not known."""
    if not _drawable(r["cycles"]):
        return ""
    total, steps = r["cycles"], r.get("steps", {})
    # Only the compute module's queue: others work beside it.
    busy = max((q["busy"] for n, q in r.get("queues", {}).items() if n == r.get("compute_queue")),
               default=0)  # fmt: skip
    shares = [
        steps.get("contract", 0),
        steps.get("reset", 0),
        r.get("map_cycles", steps.get("map", 0)),
    ]
    # Busy with something else than the three.
    shares.append(max(0, busy - sum(shares)))
    # What is left of all cycles it waited.
    shares.append(max(0, total - sum(shares)))
    parts: list[str] = []
    at = 0.0
    for i, (name, v) in enumerate(zip(BREAKDOWN, shares, strict=True)):
        w = width * v / max(1, total)
        fill = WAITING if name == "waiting" else colour(i)
        parts.append(
            f'<rect x="{at:.2f}" y="0" width="{w:.2f}" height="12" fill="{fill}">'
            f"<title>{name}: {v:,} cycles, {v / max(1, total):.1%}</title></rect>"
        )
        at += w
    size = f'viewBox="0 0 {width} 12" width="{width}" height="12"'
    return f'<svg class="bar" {size}>{"".join(parts)}</svg>'
