"""A plan as text and as a picture: who holds which layers, what passes, what binds."""

from __future__ import annotations

from html import escape
from typing import Any

import numpy as np

from csp_embed.files import atomic
from csp_embed.report.svg import colour, frame, legend, text
from csp_embed.serving.files.plan_file import ServingPlan
from csp_embed.serving.flow import max_flow
from csp_embed.serving.instance import Instance
from csp_embed.serving.simulate import Simulated


def report_text(instance: Instance, plan: ServingPlan, most: int = 40) -> str:
    """Value, bound, gap, and a row for each machine that carries anything."""
    assert plan.value is not None
    if "cost" in plan.more:
        first = f"{plan.more['cost']:.6g} per hour, lower bound {plan.more['cost_bound']:.6g}"
        first += f", for {plan.value:.6g} tokens/s"
    else:
        gap = f"{100 * plan.gap:.3g} %" if plan.gap is not None else "unknown"
        first = f"{plan.value:.6g} tokens/s, upper bound {plan.bound:.6g}, gap {gap}"
    lines = [
        f"{plan.status}: {first}",
        f"method {plan.method}, {plan.seconds:.2f} CPU seconds",
    ]
    rows = _rows(instance, plan)
    head = ("machine", "type", "layers", "tokens/s", "of", "use")
    body = [head] + [
        (name, kind, f"{a}..{b}", f"{flow:.1f}", f"{rate:.1f}", f"{100 * flow / rate:.0f} %")
        for name, kind, a, b, flow, rate in rows[:most]
    ]
    widths = [max(len(r[c]) for r in body) for c in range(len(head))]
    for row in body:
        cells = [
            cell.rjust(w) if c > 2 else cell.ljust(w)
            for c, (cell, w) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  " + "  ".join(cells).rstrip())
    if len(rows) > most:
        lines.append(f"  … {len(rows) - most} more machines (all are in the plan file) …")
    idle = instance.size - len(rows)
    if idle:
        lines.append(f"  {idle} machines stay free")
    return "\n".join(lines)


def _rows(instance: Instance, plan: ServingPlan) -> list[tuple[str, str, int, int, float, float]]:
    """(machine, type, first, last, flow, rate) by first layer."""
    position = {name: i for i, name in enumerate(instance.machines)}
    placement = {position[m]: (a, b + 1) for m, (a, b) in plan.placement.items()}
    through = max_flow(instance, placement).through
    rows = [
        (
            instance.machines[i],
            instance.types[int(instance.kind[i])].name,
            first,
            end - 1,
            float(through.get(i, 0)),
            instance.rate(i, (first, end)),
        )
        for i, (first, end) in placement.items()
    ]
    return sorted(rows, key=lambda r: (r[2], r[3], r[0]))


def draw(instance: Instance, plan: ServingPlan, path: str) -> None:
    """Layers from left to right, a bar for each machine. path: ends in .svg."""
    rows = _rows(instance, plan)
    kinds = sorted({r[1] for r in rows})
    left, step, wide = 110, 16, 900
    scale = (wide - left - 20) / instance.layers
    parts, used = legend(kinds, left, wide - 220)
    top = used + 26
    for at, (name, kind, first, last, flow, rate) in enumerate(rows):
        y = top + at * step
        shade = colour(kinds.index(kind))
        parts.append(text(left - 8, y + 10, name, "end"))
        tip = f"{name} ({kind}): layers {first} to {last}, {flow:.1f} of {rate:.1f} tokens/s"
        parts.append(
            f'<rect x="{left + first * scale:.1f}" y="{y}" height="{step - 4}" '
            f'width="{(last - first + 1) * scale:.1f}" fill="{shade}" '
            f'fill-opacity="{0.25 + 0.75 * flow / rate:.2f}"><title>{escape(tip)}</title></rect>'
        )
    height = top + len(rows) * step + 30
    for layer in range(0, instance.layers + 1, max(1, instance.layers // 10)):
        parts.append(text(left + layer * scale, height - 10, str(layer), "middle"))
    assert plan.value is not None
    parts.append(text(wide - 20, 20, f"{plan.value:.6g} tokens/s", "end"))
    with atomic(path) as file:
        file.write(frame(wide, height, parts, "layers by machine"))


def simulation_document(found: Simulated) -> dict[str, Any]:
    """What a simulation says, for `--json`. Times in seconds."""
    return {
        "tokens_per_s": found.tokens_per_s,
        "predicted": found.predicted,
        "served": found.served,
        "seconds": found.seconds,
        "time_to_first_token": _percentiles(found.first),
        "time_per_token": _percentiles(found.each),
        "waited": _percentiles(found.waited),
        "binding": found.binding,
        "busy": dict(found.busy),
    }


def simulation_text(found: Simulated, most: int = 8) -> str:
    """The same for people, with the busiest machines and links."""
    lines = [
        f"{found.tokens_per_s:.6g} tokens/s in the middle of the run, predicted at most "
        f"{found.predicted:.6g} ({100 * found.tokens_per_s / found.predicted:.1f} %)",
        f"{found.served} requests in {found.seconds:.6g} s",
        "seconds          median       95 %       99 %",
    ]
    for name, values in (
        ("first token", found.first),
        ("per token", found.each),
        ("waited", found.waited),
    ):
        p = _percentiles(values)
        lines.append(f"  {name:12} {p['p50']:10.4g} {p['p95']:10.4g} {p['p99']:10.4g}")
    lines.append("busiest:")
    for name in sorted(found.busy, key=lambda n: (-found.busy[n], n))[:most]:
        lines.append(f"  {name}: {100 * found.busy[name]:.0f} %")
    return "\n".join(lines)


def _percentiles(values: Any) -> dict[str, float]:
    return {f"p{q}": float(np.percentile(values, q)) for q in (50, 95, 99)}
