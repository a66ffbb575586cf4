"""The alternatives to a chosen embedding, by kind: document and table rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from csp_embed.embed.explain.reasons import because
from csp_embed.ir.embedding import Embedding


def rows(
    chosen: Embedding, others: Sequence[Embedding], scheduled: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """One row each, the chosen one first. scheduled: cycles by formula, where computed."""
    out: list[dict[str, Any]] = []
    # The chosen one first; others of its kind that cost no less would only repeat it.
    for e in [chosen, *(e for e in others if not _covered(e, chosen))]:
        c = e.cost
        out.append(
            {
                # A kind exists straight and commuted, and people compare both.
                "kind": e.kind + (" commuted" if e.commuted else ""),
                "chosen": e is chosen,
                "analytic_cycles": c["objective"],
                "compute_cycles": c["compute_cycles"],
                "read_cycles": c["read_cycles"],
                "write_cycles": c["write_cycles"],
                "host_bytes": c["host_bytes"],
                # Not every alternative was scheduled: then only analytic cycles are known.
                "scheduled_cycles": scheduled.get(e.formula()),
                "lane_utilisation": c["utilisation"],
                "because": "chosen" if e is chosen else because(chosen, e),
                "embedding": e.formula(),
            }
        )
    return out


def _covered(other: Embedding, chosen: Embedding) -> bool:
    """Of the chosen one's kind, and no cheaper: it would say nothing new."""
    same = (other.kind, other.commuted) == (chosen.kind, chosen.commuted)
    return same and other.cost["objective"] >= chosen.cost["objective"]
