"""A certificate as one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape
from typing import Any

from csp_embed.report.page import page, table


def certificate_page(document: Mapping[str, Any], file: str) -> str:
    """document: `Certificate.document()`; file: what was judged, for the title."""
    verdict = escape(document["verdict"]) if document["ok"] else "NOT certified"
    rows = [
        [p["name"], "proved" if p["ok"] else "refused", "; ".join(p["problems"]) or p["said"],
         # A part that is checked exactly has no error at all.
         f"2^{p['log2_error']:.0f}" if p["log2_error"] else "none"]
        for p in document["parts"]
    ]  # fmt: skip
    facts = [
        ["file", file], ["SHA-256 of what was judged", document["digest"]],
        ["machine", document["machine"]], ["formula", document["formula"]],
        ["a wrong program passes with probability", f"2^{document['log2_error']:.1f} at most"],
        ["seed, rounds", f"{document['seed']}, {document['rounds']}"],
        ["took", f"{document['seconds']} s"],
    ]  # fmt: skip
    # A refused program has no probability of being wrong.
    facts = [row for row in facts if document["ok"] or not row[0].startswith("a wrong")]
    layers = [
        [la["name"], "certified" if la["ok"] else "not certified", la["said"]]
        # Only certificates of networks have layers.
        for la in document.get("layers", ())
    ]
    assumed = "".join(f"<li>{escape(text)}</li>" for text in document["assumed"])
    by_layer = table(["layer", "verdict", "how, or why not"], layers)
    # No heading over an empty table.
    by_layer = f"<h2>Layers</h2>{by_layer}" if layers else ""
    body = (
        f"<p><b>{verdict}</b></p>"
        + table(["what", "value"], [[escape(k), v] for k, v in facts])
        + "<h2>Parts of the proof</h2>"
        + table(["part", "verdict", "how, or why not", "error"], rows)
        + by_layer
        + f"<h2>Assumed</h2><ul>{assumed}</ul><p class='note'>The argument: docs/certify.md</p>"
    )
    return page(f"Certificate of {file}", body)
