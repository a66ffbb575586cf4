"""The alternatives to a chosen embedding, by kind: document and table rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from csp_embed.embed.explain import because
from csp_embed.ir.embedding import Embedding

COLUMNS = ("kind", "analytic", "compute", "read", "write", "host bytes", "scheduled", "utilisation")


def rows(
    chosen: Embedding, others: Sequence[Embedding], scheduled: Mapping[str, float | None]
) -> list[dict[str, Any]]:
    """One row each, the chosen one first. scheduled: cycles by formula, where computed."""
    out = []
    for e in [chosen, *(e for e in others if e.formula() != chosen.formula())]:
        c = e.cost
        out.append(
            {
                "kind": e.kind + (" commuted" if e.commuted else ""),
                "chosen": e is chosen,
                "analytic_cycles": c["objective"],
                "compute_cycles": c["compute_cycles"],
                "read_cycles": c["read_cycles"],
                "write_cycles": c["write_cycles"],
                "host_bytes": c["host_bytes"],
                "scheduled_cycles": scheduled.get(e.formula()),
                "utilisation": c["utilisation"],
                "because": "chosen" if e is chosen else because(chosen, e),
                "embedding": e.formula(),
            }
        )
    return out
