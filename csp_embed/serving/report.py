"""A plan as text and as a picture: who holds which layers, what passes, what binds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

import numpy as np

from csp_embed.files import atomic
from csp_embed.report.scene import text_width
from csp_embed.report.svg import colour, frame, legend, text
from csp_embed.serving.files.plan_file import ServingPlan
from csp_embed.serving.flow import max_flow
from csp_embed.serving.instance import Instance
from csp_embed.serving.simulate import Simulated


@dataclass(frozen=True)
class Row:
    """A machine in use: layers first to last; prompt and generated tokens/s (one sum where they are
    not told apart: output 0); use: share of its time."""

    name: str
    kind: str
    first: int
    last: int
    prompt: float
    output: float
    use: float


def report_text(instance: Instance, plan: ServingPlan, most: int = 40) -> str:
    """Value, bound, gap, and a row for each machine that carries anything."""
    assert plan.value is not None
    lines = [f"{plan.status}: {_headline(plan)}"]
    if plan.batch is not None:
        lines.append(f"batch {plan.batch}")
    lines.append(f"method {plan.method}, {plan.seconds:.2f} s")
    rows, routed = machine_rows(instance, plan), "routes" in plan.more
    columns = ("prompt/s", "output/s") if routed else ("tokens/s",)
    head = ("machine", "type", "layers", *columns, "use")
    body = [head] + [
        (r.name, r.kind, f"{r.first}..{r.last}", f"{r.prompt:.1f}",
         *((f"{r.output:.1f}",) if routed else ()), f"{100 * r.use:.0f} %")
        for r in rows[:most]
    ]  # fmt: skip
    lines += _aligned(body, 3)
    if len(rows) > most:
        lines.append(f"  … {len(rows) - most} more machines (all are in the plan file) …")
    # Machines without layers are told by number only.
    idle = instance.size - len(rows)
    if idle:
        lines.append(f"  {idle} machines stay free")
    if routed:
        lines += _routes(plan)
    # A roofline is a model: said once, so that nobody takes it for a measurement.
    if any(t.origin == "roofline" for t in instance.types):
        lines.append("rates are a roofline's where no table is given: a model, no measurement")
    return "\n".join(lines)


def _headline(plan: ServingPlan) -> str:
    more = plan.more
    if "cost" in more:
        return (
            f"{more['cost']:.6g} per hour, lower bound {more['cost_bound']:.6g}, "
            f"for {plan.value:.6g} tokens/s"
        )
    if "request_s" in more:
        bound = more.get("request_s_bound")
        low = "" if bound is None else f", lower bound {bound:.6g} s"
        return f"{more['request_s']:.6g} s a request{low}, {plan.value:.6g} tokens/s"
    # Without a bound there is no gap.
    gap = f"{100 * plan.gap:.3g} %" if plan.gap is not None else "unknown"
    return f"{plan.value:.6g} tokens/s, upper bound {plan.bound:.6g}, gap {gap}"


def _aligned(body: Sequence[Sequence[str]], left: int) -> list[str]:
    """Rows of cells under each other; from column `left` on, to the right."""
    widths = [max(len(r[c]) for r in body) for c in range(len(body[0]))]
    return [
        "  " + "  ".join(
            cell.rjust(w) if c >= left else cell.ljust(w)
            for c, (cell, w) in enumerate(zip(row, widths, strict=True))
        ).rstrip()
        for row in body
    ]  # fmt: skip


def _routes(plan: ServingPlan, most: int = 12) -> list[str]:
    """Who passes a request on to whom, those with most requests first."""
    rows = sorted(plan.more["routes"], key=lambda r: -r["requests_per_s"])
    lines = ["routes: requests/s, seconds to the first token, per token, of a request alone"]
    for row in rows[:most]:
        way = " ".join(row["prefill"])
        if "decode" in row:
            way += " | decode " + " ".join(row["decode"])
        lines.append(
            f"  {row['requests_per_s']:.4g}  {row['first_token_s']:.4g}  {row['token_s']:.4g}  "
            f"{row['request_s']:.4g}  {way}"
        )
    if len(rows) > most:
        lines.append(f"  … {len(rows) - most} more …")
    return lines


def machine_rows(instance: Instance, plan: ServingPlan) -> list[Row]:
    """Machines in use, by first layer."""
    position = {name: i for i, name in enumerate(instance.machines)}
    # Files have the last layer, the code the one behind it.
    placement = {position[m]: (a, b + 1) for m, (a, b) in plan.placement.items()}
    if "routes" in plan.more:
        rows = _routed_rows(instance, plan, placement)
    else:
        through = max_flow(instance, placement).through
        rows = [
            Row(
                instance.machines[i], instance.types[int(instance.kind[i])].name, a, b - 1,
                float(through.get(i, 0)), 0.0,
                # A rate of 0 is no divisor; nothing passes there anyway.
                float(through.get(i, 0)) / (instance.rate(i, (a, b)) or 1.0),
            )
            for i, (a, b) in placement.items()
        ]  # fmt: skip
    return sorted(rows, key=lambda r: (r.first, r.last, r.name))


def _routed_rows(
    instance: Instance, plan: ServingPlan, placement: Mapping[int, tuple[int, int]]
) -> list[Row]:
    phases = instance.phases
    assert phases is not None
    passed = {i: [0.0, 0.0] for i in placement}
    position = {name: i for i, name in enumerate(instance.machines)}
    for row in plan.more["routes"]:
        ways = row["prefill"], row.get("decode", row["prefill"])
        for phase, tokens in ((0, phases.prompt), (1, phases.output)):
            for name in ways[phase]:
                passed[position[name]][phase] += tokens * row["requests_per_s"]
    rows = []
    for i, (a, b) in placement.items():
        kind, k = int(instance.kind[i]), b - a - 1
        speeds = phases.prefill[kind][k], phases.decode[kind][k]
        # Times of both phases add up to the share of its time.
        use = sum(n / s for n, s in zip(passed[i], speeds, strict=True) if n)
        name = instance.types[kind].name
        prompt, output = passed[i]
        rows.append(Row(instance.machines[i], name, a, b - 1, prompt, output, use))
    return rows


def draw(instance: Instance, plan: ServingPlan, path: str) -> None:
    """Layers from left to right, a bar for each machine, darker the more it is used; with routes,
    beside it which phase it serves. path: ends in .svg."""
    rows, routed = machine_rows(instance, plan), "routes" in plan.more
    kinds = sorted({r.kind for r in rows})
    # Room for the longest name, so that bars begin in one column.
    left = 24 + max((text_width(r.name, 13) for r in rows), default=0)
    step, wide = 16, 900
    right = wide - (150 if routed else 70)
    scale = (right - left) / instance.layers
    parts, used = legend(kinds, left, wide - 20)
    assert plan.value is not None
    parts.append(text(left, used + 22, f"{plan.status}: {_headline(plan)}"))
    top = used + 36
    # About ten grid lines, whatever the number of layers.
    for layer in range(0, instance.layers + 1, max(1, instance.layers // 10)):
        x = left + layer * scale
        parts.append(f'<path d="M{x:.1f} {top - 4}V{top + len(rows) * step}" stroke="#dddddd"/>')
        parts.append(text(x, top + len(rows) * step + 16, str(layer), "middle"))
    for at, r in enumerate(rows):
        y = top + at * step
        parts.append(text(left - 8, y + 10, r.name, "end"))
        phases = f"{r.prompt:.1f} prompt and {r.output:.1f} output tokens/s"
        tip = f"{r.name} ({r.kind}): layers {r.first} to {r.last}, "
        tip += phases if routed else f"{r.prompt:.1f} tokens/s"
        parts.append(
            f'<rect x="{left + r.first * scale:.1f}" y="{y}" height="{step - 4}" '
            f'width="{(r.last - r.first + 1) * scale:.1f}" fill="{colour(kinds.index(r.kind))}" '
            # Never invisible: an idle machine is still a bar.
            f'fill-opacity="{0.25 + 0.75 * min(1.0, r.use):.2f}">'
            f"<title>{escape(tip)}</title></rect>"
        )
        share = f"{100 * r.use:.0f} %"
        if routed:
            both = "both" if r.output and r.prompt else "decode" if r.output else "prefill"
            share += f" {both}"
        parts.append(text(right + 12, y + 10, share))
    parts.append(text((left + right) / 2, top + len(rows) * step + 34, "layers", "middle"))
    with atomic(path) as file:
        file.write(frame(wide, top + len(rows) * step + 46, parts, "layers by machine"))


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
        # The middle of the run: the beginning fills the pipelines and the end empties them.
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
    # Ties by name, so that the text is the same on every run.
    for name in sorted(found.busy, key=lambda n: (-found.busy[n], n))[:most]:
        lines.append(f"  {name}: {100 * found.busy[name]:.0f} %")
    return "\n".join(lines)


def _percentiles(values: Any) -> dict[str, float]:
    return {f"p{q}": float(np.percentile(values, q)) for q in (50, 95, 99)}
