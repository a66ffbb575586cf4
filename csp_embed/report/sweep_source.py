"""Rows and tables of a sweep on machines whose loops run in a CPU: measured, not predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from csp_embed.report.page import number, table
from csp_embed.report.sweep import compared, geomean

Record = Mapping[str, Any]
CLASS_HEAD = (
    "machine", "class", "layers", "GMAC/s", "share of limit", "least share", "s to compile",
    "equal to NumPy",
)  # fmt: skip
HEAD = (
    "layer", "class", "million products", "run ms", "spread", "GMAC/s", "limit GMAC/s", "share",
    "lanes used", "kernel", "compile s", "verified",
)  # fmt: skip
NOTE = (
    "Times are medians measured on the computer that ran the sweep, one thread, constants packed"
    " beforehand and activations inside; the limit is a loop of independent steps of the machine's"
    " contraction, timed in the same turns."
)


def is_measured(r: Record) -> bool:
    """Whether the record is of a machine that runs C."""
    # A kernel stands in the records of machines that run C only.
    return r.get("status") != "failed" and "kernel" in r


def layer_row(r: Record) -> str:
    """One line about a layer."""
    # Nothing on this computer could run it: compiled, not timed.
    if not r.get("seconds_run"):
        timed = "not timed"
    else:
        share = r.get("share_of_limit")
        timed = f"{1e3 * r['seconds_run']:9.3f} ms  {r['gmacs']:7.1f} GMAC/s"
        timed += f"  {r['limit_words']}" if share is None else f"  {share:.2f} of the limit"
    more = f"  {len(r['problems'])} problems" if r.get("problems") else ""
    return f"{r['id']:<12} {timed}  {r['kind']:<18} {r['kernel']}  {words(r)}{more}"


def words(r: Record) -> str:
    """What was compared."""
    known = {"run": "equal to NumPy", "interpreted": "interpreted, equal to NumPy"}
    # What is not run is told in the words of other machines.
    return known.get(str(r["verified"]), compared(r))


def class_rows(records: Sequence[Record]) -> list[list[str]]:
    """Rows of the class table as text: geometric means."""
    groups: dict[tuple[str, str], list[Record]] = {}
    for r in records:
        if is_measured(r):
            groups.setdefault((r["machine"], r["class"]), []).append(r)
    rows: list[list[str]] = []
    for (machine, name), group in sorted(groups.items()):
        timed = [r for r in group if r.get("seconds_run")]
        # By the share: the slowest layer by time is only the largest.
        # Some machines have no bare loop to compare with.
        shares = [r for r in timed if "share_of_limit" in r]
        worst = min(shares, key=lambda r: r["share_of_limit"], default=None)
        equal = sum(r["verified"] in ("run", "interpreted") for r in group)
        rows.append([
            # Means over timed layers alone.
            machine, name, str(len(group)),
            f"{geomean(r['gmacs'] for r in timed):.1f}" if timed else "-",
            f"{geomean(r['share_of_limit'] for r in shares):.3f}" if shares else "-",
            "-" if worst is None else f"{worst['share_of_limit']:.3f} {worst['id']}",
            f"{sorted(r['seconds'] for r in group)[len(group) // 2]:.2f}", str(equal),
        ])  # fmt: skip
    return rows


def section(records: Sequence[Record]) -> list[str]:
    """The page's part about such machines; empty where there are no such records."""
    own = [r for r in records if is_measured(r)]
    if not own:
        # No heading over an empty table.
        return []
    return [
        "<h2>Measured on a CPU, by class (geometric means)</h2>", f'<p class="note">{NOTE}</p>',
        table(CLASS_HEAD, class_rows(own)), "<h2>Measured layers</h2>",
        table(HEAD, [_cells(r) for r in own], sort=True),
    ]  # fmt: skip


def _cells(r: Record) -> list[str]:
    run = r.get("seconds_run")
    kind = f'<td class="l t" title="{escape(r["embedding"])}">{escape(r["kernel"])}</td>'
    return [
        f"<td>{escape(r['id'])}</td>", f'<td class="l t">{escape(r["class"])}</td>',
        number(r["macs"] / 1e6, ",.1f"), number(None if run is None else 1e3 * run, ",.3f"),
        number(r.get("spread"), ".1%"), number(r.get("gmacs"), ".1f"),
        number(r.get("limit_gmacs"), ".1f"), number(r.get("share_of_limit"), ".3f"),
        number(r.get("lane_utilisation"), ".1%"), kind, number(r["seconds"], ".2f"),
        f'<td class="l t">{escape(words(r))}</td>',
    ]  # fmt: skip
