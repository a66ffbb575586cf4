"""A RunReport as text and as JSON."""

from __future__ import annotations

from typing import Any

from csp_embed.ir.network import THROUGHPUT, Plan
from csp_embed.network.onnx.runtime import INTEGERS, PLAIN
from csp_embed.run.execute import RunReport
from csp_embed.run.in_flight import Rate


def report_document(report: RunReport, plan: Plan) -> dict[str, Any]:
    """{equal, tensors, parts, wall_ms, predicted_ms, whole_ms, median_error, …}."""
    return {
        "equal": report.equal,
        "inputs_matter": report.inputs_matter,
        "goal": plan.goal,
        "predicted_ms": plan.objective,
        "wall_ms": report.wall_ms,
        "whole_ms": report.whole_ms,
        "median_error": report.median_error,
        "runs": report.runs,
        "parts": [
            {
                "part": r.part.index,
                "replica": r.part.replica,
                "device": r.part.device,
                "tasks": list(r.part.tasks),
                "predicted_ms": r.part.predicted_ms,
                "ms": r.ms,
                "how": r.how,
                "error": r.error,
            }
            for r in report.parts
        ],
        "tensors": [
            {
                "name": t.name,
                "part": t.maker,
                "dtype": t.dtype,
                "equal": t.equal,
                # JSON has no infinity.
                "worst": t.worst if t.worst != float("inf") else None,
                "allowed": t.allowed,
            }
            for t in report.tensors
        ],
        "notes": list(report.notes),
        "rate": _rate_document(report, plan),
    }


def _rate_document(report: RunReport, plan: Plan) -> dict[str, Any] | None:
    """predicted_ms: the period of a throughput plan; None for other plans. alone_ms, fills: see
    `Rate`."""
    rate = report.rate
    if rate is None:
        return None
    return {
        "samples": rate.samples,
        "in_flight": rate.in_flight,
        "ms_per_sample": rate.ms_per_sample,
        # A latency plan predicts no period.
        "predicted_ms": plan.objective if plan.goal == THROUGHPUT else None,
        "busy": dict(rate.busy),
        "wrong": rate.wrong,
        "alone_ms": rate.alone_ms,
        "fills": rate.fills,
    }


def _rate_text(rate: Rate, plan: Plan) -> str:
    busy = ", ".join(f"{device} {100 * share:.0f} %" for device, share in rate.busy.items())
    text = (
        f"throughput: {rate.ms_per_sample:.4g} ms a sample over {rate.samples} samples, "
        f"{rate.in_flight} in flight ({1e3 / rate.ms_per_sample:.4g} samples/s)"
    )
    if plan.goal == THROUGHPUT and plan.objective:
        error = 100 * (rate.ms_per_sample / plan.objective - 1)
        text += f"; predicted {plan.objective:.4g} ms ({error:+.1f} %)"
    if rate.in_flight < rate.fills:
        text += (
            f"; a sample alone takes {rate.alone_ms:.4g} ms, --in-flight {rate.fills} fills the "
            "pipeline"
        )
    same = "each with its own outputs" if not rate.wrong else f"{rate.wrong} WITH WRONG OUTPUTS"
    return f"{text}\ndevices computing: {busy}; {same}"


_FORMS = {
    PLAIN: "both without graph optimisations, times are with them",
    INTEGERS: "both by the integer kernels of quantised operators",
}


def report_text(report: RunReport, plan: Plan) -> str:
    """A line per part, then the comparison and the times."""
    head = ("part", "device", "layers", "predicted ms", "ms", "error", "how")
    body = [
        (
            str(r.part.index),
            r.part.device,
            str(len(r.part.tasks)),
            f"{r.part.predicted_ms:.4g}",
            f"{r.ms:.4g}",
            "" if r.error is None else f"{100 * r.error:+.1f} %",
            r.how,
        )
        for r in report.parts
    ]
    # By the widest of all rows: columns stand under each other.
    widths = [max(len(head[i]), *(len(row[i]) for row in body)) for i in range(len(head))]
    lines = ["  ".join(c.ljust(w) for c, w in zip(head, widths, strict=True)).rstrip()]
    lines += [
        "  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in body
    ]
    same = sum(t.equal for t in report.tensors)
    lines.append(
        f"{same} of {len(report.tensors)} boundary tensors equal the whole model's "
        f"({_tolerances(report)}; {_FORMS[report.form]})"
    )
    for t in report.tensors:
        if not t.equal:
            lines.append(
                f"  differs: {t.name} ({t.dtype}), made by part {t.maker}, by {t.worst:.3g} of its "
                f"scale, allowed {t.allowed:.3g}"
            )
    if report.median_error is not None:
        lines.append(f"median error of the measured parts: {100 * report.median_error:.1f} %")
    times = sum(r.ms for r in report.parts)
    lines.append(
        # Parts one after the other for comparison: what the plan gains is the overlap.
        f"whole plan {report.wall_ms:.4g} ms here (median of {report.runs}; predicted "
        f"{plan.goal} {plan.objective or 0:.4g} ms), parts one after the other {times:.4g} ms, "
        f"model in one piece on one core {report.whole_ms:.4g} ms"
    )
    if report.rate is not None:
        lines.append(_rate_text(report.rate, plan))
    lines += [f"note: {note}" for note in report.notes]
    return "\n".join(lines)


def _tolerances(report: RunReport) -> str:
    """Which types were compared how, and how far apart they were at most."""
    found: list[str] = []
    for dtype in dict.fromkeys(t.dtype for t in report.tensors):
        rows = [t for t in report.tensors if t.dtype == dtype]
        # Integers are compared exactly, floats within a tolerance, which is told.
        if rows[0].allowed == 0.0:
            found.append(f"{dtype} exactly")
        else:
            worst = max(t.worst for t in rows)
            found.append(
                f"{dtype} within {rows[0].allowed:.2g} of |value| + root mean square, "
                f"at most {worst:.2g} apart"
            )
    return ", ".join(found) or "there were none"
