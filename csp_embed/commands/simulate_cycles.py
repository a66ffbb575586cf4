"""The cycle part of `simulate`."""

from __future__ import annotations

from typing import Any

from csp_embed.errors import SpecError
from csp_embed.ir.stream import Stream
from csp_embed.machine.spec import Isa
from csp_embed.report.timeline import draw_timeline
from csp_embed.sim.cycles.engine import simulate_cycles
from csp_embed.sim.trace import write_trace


def cycle_part(
    isa: Isa,
    stream: Stream,
    memory: str | None,
    trace: str | None,
    timeline: str | None,
    *,
    optional: bool,
) -> tuple[dict[str, Any], list[str]]:
    """Simulates in cycles and writes the pictures asked for: (entries for the JSON, lines).

    optional: a machine without costs is told of, not refused.
    """
    try:
        # Traces cost memory, so they are kept only for pictures.
        report = simulate_cycles(isa, stream, memory=memory, trace=bool(trace or timeline))
    except SpecError as error:
        # Whoever asked for something of the cycle engine is told why not.
        if not optional or memory or trace or timeline:
            raise
        return {"cycles": None}, [f"cycles: not known, {error.what}"]
    lines = [report.show()]
    if trace:
        write_trace(trace, isa, stream, report)
        lines.append(f"trace: {trace} (open it in https://ui.perfetto.dev)")
    if timeline:
        draw_timeline(isa, stream, report, timeline)
        lines.append(f"timeline: {timeline}")
    return {"cycles": report.total, "utilisation": report.utilisation}, lines
