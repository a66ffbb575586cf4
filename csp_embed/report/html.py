"""What the pages of a sweep and of one kernel say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from csp_embed.compiler.compiled import Compiled
from csp_embed.compiler.program.verify import Verdict
from csp_embed.report import svg
from csp_embed.report.kernel import figures, render
from csp_embed.report.page import hanging, number, page, table
from csp_embed.report.sweep import CLASS_HEAD, certified, class_rows, compared, geomean
from csp_embed.report.sweep_source import is_measured, section

Record = Mapping[str, Any]

# Order of the columns: `layer_cells` must keep it.
HEAD = (
    "layer", "class", "cycles", "proved bound", "over it", "binds",
    "plain bound", "ratio", "reference", "speed-up", "strict", "utilisation",
    "embedding", "packed input", "host ms", "compile s", "verified", "certified", "certify s",
    "compute cycles",
)  # fmt: skip


def layer_cells(r: Record) -> list[str]:
    """One row of the layer table."""
    # A failed layer has no figures: one cell over the rest says why.
    if r.get("status") == "failed":
        why = f'<td class="l t" colspan="{len(HEAD) - 2}">failed: {escape(r["error"])}</td>'
        kind = f'<td class="l t">{escape(r.get("class", ""))}</td>'
        return [f"<td>{escape(r['id'])}</td>", kind, why]
    # Not every record has these two.
    host, least = r.get("host_seconds"), r.get("lower_bound")
    kind = f'<td class="l t" title="{escape(r["embedding"])}">{escape(r["kind"])}</td>'
    return [
        f"<td>{escape(r['id'])}</td>", f'<td class="l t">{escape(r["class"])}</td>',
        number(r["cycles"]), number(least), number(r["cycles"] / least if least else None, ".4f"),
        f'<td class="l t">{escape(r.get("lower_bound_binds", "-"))}</td>',
        number(r["bound_cycles"]), number(r["ratio"], ".4f"),
        number(r.get("reference_cycles")),
        number(r.get("speedup"), ".2f"), number(r.get("strict_cycles")),
        number(r["utilisation"], ".1%"), kind, number(r["host_bytes"]),
        number(None if host is None else host * 1e3, ".2f"), number(r["seconds"], ".2f"),
        f'<td class="l t">{escape(compared(r))}</td>',
        f'<td class="l t">{certified(r)}</td>', number(r.get("certify_seconds"), ".2f"),
        f"<td>{svg.breakdown(r)}</td>",
    ]  # fmt: skip


def sweep_page(records: Sequence[Record]) -> str:
    """Summary by class, comparison of machines where there are several, pictures, sortable
    table.
    """
    measured = section(records)
    others = [r for r in records if not is_measured(r)]
    title = "Generated kernels against the bound and the reference"
    # A page of measured machines alone has a title of its own.
    if measured and not others:
        return page("Generated C, measured", "".join(measured))
    # Machines without costs have no cycles, and nothing of them can be drawn.
    done = [r for r in others if r.get("status") != "failed" and r.get("cycles")]
    machines = sorted({r.get("machine", "") for r in done})
    listed = escape(", ".join(machines))
    body = [
        f'<p class="note">{len(done)} layers of {len(others)}; machines: {listed}. '
        "Cycles are predicted by the cycle engine; the bound counts the plain form of each layer "
        "(see the README), so work that an embedding removes shows as a ratio below 1.</p>",
        "<h2>By class (geometric means)</h2>", table(CLASS_HEAD, class_rows(others)),
        *measured,
    ]  # fmt: skip
    # One machine is compared with nobody.
    if len(machines) > 1:
        body += ["<h2>Machines compared</h2>", compare(done, machines)]
    for machine in machines:
        group = [r for r in done if r.get("machine", "") == machine]
        on = f" on {machine}" if len(machines) > 1 else ""
        first = group[0]
        # Peak and port are the same for all layers of a machine.
        roof = svg.roofline(
            group, first.get("peak_macs", 256), first.get("port_bytes_per_cycle", 8)
        )
        body += [f"<h2>Roofline{escape(on)}</h2>", f'<div class="chart">{roof}</div>']
        bars = svg.speedups(group)
        # Machines without a reference have no bars.
        if bars:
            body += [f"<h2>Speed-up over TVM's best schedule{escape(on)}</h2>"]
            body.append(f'<div class="chart">{bars}</div>')
    rows = [layer_cells(r) for r in sorted(others, key=lambda r: (r.get("machine", ""), r["id"]))]
    note = f"Click a head to sort. Compute cycles: {breakdown_key()}"
    body += ["<h2>Layers</h2>", f'<p class="note">{note}</p>', table(HEAD, rows, sort=True)]
    return page(title, "".join(body))


def breakdown_key() -> str:
    """The colours of `svg.breakdown` in words."""
    keys: list[str] = []
    for i, name in enumerate(svg.BREAKDOWN):
        shade = svg.WAITING if name == "waiting" else svg.colour(i)
        keys.append(f'<span style="color:{shade}">&#9632;</span> {name}')
    return "; ".join(keys)


def compare(records: Sequence[Record], machines: Sequence[str]) -> str:
    """Per layer the cycles on each machine, and the geometric mean against the first."""
    by_layer: dict[str, dict[str, Record]] = {}
    for r in records:
        by_layer.setdefault(r["id"], {})[r.get("machine", "")] = r
    rows: list[list[str]] = []
    # Only layers that every machine has can be compared by a mean.
    whole = [v for v in by_layer.values() if len(v) == len(machines)]
    mean = [f"<td>geometric mean against {escape(machines[0])}</td>"]
    mean += [
        number(geomean(v[machines[0]]["cycles"] / v[m]["cycles"] for v in whole), ".3f")
        for m in machines
    ]
    for name in sorted(by_layer):
        cells = [f"<td>{escape(name)}</td>"]
        cells += [number(by_layer[name].get(m, {}).get("cycles")) for m in machines]
        rows.append(cells)
    return table(("layer", *machines), [mean, *rows], sort=True)


def kernel_page(kernel: Compiled, bound: int, verdict: Verdict) -> str:
    """One kernel: its report, its alternatives, its stream's beginning."""
    from csp_embed.machine.words.listing import listing

    f = figures(kernel, bound, verdict)
    rows = [
        [f"<td>{escape(e.kind + (' commuted' if e.commuted else ''))}</td>", number(c),
         f'<td class="l f">{escape(e.formula())}</td>']
        for e, c in kernel.candidates
    ]  # fmt: skip
    lines = listing(kernel.isa, kernel.lowered.stream)
    # A page stays readable: the listing has thousands of lines.
    shown = "\n".join(lines[:200])
    more = f"<p class='note'>{len(lines) - 200} more instructions</p>" if len(lines) > 200 else ""
    body = (
        hanging(render(kernel, bound, verdict), 15)
        # Machines without costs have no cycles to explain.
        + (_spent(kernel, f) if kernel.cycles else "")
        + "<h2>Alternatives</h2>"
        + table(("kind", "cycles", "embedding"), rows)
        + f"<h2>Stream</h2><pre>{escape(shown)}</pre>{more}"
    )
    return page(f"{f['operator']}: {f['formula']}", body)


def _spent(kernel: Compiled, figures: Record) -> str:
    """Where the cycles go: the compute module as a bar, every queue as a row."""
    from csp_embed.sim.cycles.engine import simulate_cycles

    report = simulate_cycles(kernel.isa, kernel.lowered.stream, memory=kernel.memory)
    # The queue that runs the contractions is the compute module.
    compute = kernel.isa.instruction(kernel.embedding.instruction).queue
    queues = {name: {"busy": q.busy} for name, q in report.queues.items()}
    bar = svg.breakdown({**figures, "queues": queues, "compute_queue": compute})
    rows = [
        [f"<td>{escape(name)}</td>", number(q.busy), number(sum(q.tokens.values())),
         number(q.port), number(q.fetch), number(q.done)]
        for name, q in report.queues.items()
    ]  # fmt: skip
    head = (
        "queue",
        "busy",
        "waits for tokens",
        "for the port",
        "for instructions",
        "idle at the end",
    )
    return (
        f'<h2>Where the cycles go</h2><p class="note">Compute module: {breakdown_key()}</p>'
        f'<div class="big">{bar}</div>'
        + table(head, rows)
        + f'<p class="note">{report.read_bytes:,} bytes read by loads, {report.fetch_bytes:,} of '
        f"instructions, {report.written_bytes:,} written.</p>"
    )
