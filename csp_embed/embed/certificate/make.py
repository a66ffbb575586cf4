"""Certificates: what was proved about an embedding, with all that a judge needs to check it.

Takes: Embedding, Isa, and the scheduled cycles where they are known; or, where there is none, the
problem and the error that ended the search.  Leaves: a JSON-able dict.
`judge/embedding/certificate.py` judges it with no solver and no code of the search.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.program_file import isa_meta
from csp_embed.machine.spec import Isa
from csp_embed.ops.document import to_document

FORMAT = "csp-embed-certificate/1"
COST_UNIT = "cycles of the analytic cost"
SCHEDULED_UNIT = "cycles predicted by the cycle engine for the schedule that was chosen"


def certificate(
    embedding: Embedding,
    isa: Isa,
    *,
    cycles: float | None = None,
    memory: str = "",
    best: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """The certificate of an embedding.

    cycles, memory: of its schedule by the cycle engine, where there is one. best: `proof` of the
    first embedding of the same search, where a schedule made a later one win.
    The objective counts cycles behind the memory interface that stands under `memory`.
    status: "optimal" (bound = objective), "feasible" (a gap is left); what it is about stands in
    `claim`. The first embedding of a search is claimed among all of the lifted model; a later one
    among those of other structures than the ones before it.
    """
    proof = embedding.proof
    # Of a search the proof has them; an embedding from elsewhere only its own figures.
    objective = proof.get("objective_cycles", embedding.cost.get("objective"))
    bound = proof.get("bound_cycles", 0.0)
    document = _head(embedding.operator, isa, embedding.layout_mode, proof)
    document |= {
        "status": str(proof.get("status", "FEASIBLE")).lower(),
        "claim": _claim(proof),
        "memory": str(proof.get("memory", "")),
        "objective": {"value": objective, "bound": bound, "unit": COST_UNIT,
                      "gap": _gap(objective, bound)},
        "scheduled": {"cycles": cycles, "memory": memory, "unit": SCHEDULED_UNIT},
        "formula": embedding.formula(),
        "embedding": solution(embedding),
        "figures": dict(embedding.cost),
    }  # fmt: skip
    # A later embedding won by its schedule: then the best analytic cost stands beside it.
    best = best or proof.get("least")
    if best is not None and proof.get("rank", 0):
        document["best_objective"] = {
            "value": best.get("objective_cycles"), "bound": best.get("bound_cycles"),
            "status": str(best.get("status", "FEASIBLE")).lower(),
        }  # fmt: skip
    return document


def refusal(
    op: Operator,
    isa: Isa,
    mode: str,
    *,
    status: str,
    why: str,
    search: Mapping[str, Any] | None = None,
    conflict: Sequence[str] = (),
    relaxations: Sequence[str] = (),
) -> dict[str, Any]:
    """The certificate of a problem without an embedding: status "infeasible" or "unknown".

    conflict: families and pins that contradict each other, minimal; relaxations: what would help.
    """
    return _head(op, isa, mode, search or {}) | {
        "status": status.lower(),
        "claim": _refusal_claim(status, conflict),
        "why": why,
        "conflict": list(conflict),
        "relaxations": list(relaxations),
    }


def _refusal_claim(status: str, conflict: Sequence[str]) -> str:
    if status.lower() != "infeasible":
        return "the limit ended the search before an answer"
    if conflict:
        return "no embedding of the lifted model keeps all that stands under conflict"
    return "refused for the reason that stands under why"


def solution(embedding: Embedding) -> dict[str, Any]:
    """The whole embedding as JSON values: digits, counters, coordinates, layouts."""
    layouts = {}
    for role, layout in embedding.layouts.items():
        fields = asdict(layout)
        # The judge takes the access from the operator: the certificate may not choose its own.
        fields["access"] = str(layout.access)
        layouts[role] = fields
    return {
        "instruction": embedding.instruction,
        "commuted": embedding.commuted,
        "kind": embedding.kind,
        "layout_mode": embedding.layout_mode,
        "digits": [asdict(d) for d in embedding.digits],
        "counters": [asdict(c) for c in embedding.counters],
        "coordinates": [asdict(c) for c in embedding.coordinates],
        "equal": [list(pair) for pair in embedding.equal],
        "layouts": layouts,
    }


def _head(op: Operator, isa: Isa, mode: str, proof: Mapping[str, Any]) -> dict[str, Any]:
    # What a judge needs to search again, and nothing about the computer.
    names = ("families", "options", "options_posted", "pins", "rank", "seed", "workers",
             "deterministic_limit")  # fmt: skip
    return {
        "format": FORMAT,
        "operator": to_document(op),
        "machine": isa_meta(isa),
        "layout": mode,
        "search": {n: proof[n] for n in names if n in proof},
    }


def _claim(proof: Mapping[str, Any]) -> str:
    among = "all embeddings of the lifted model"
    if proof.get("pins"):
        among += " that keep the pins"
    if proof.get("rank"):
        # Answers differ by structure, so each is the best of what the ones before it leave.
        among += f" of other structures than the {proof['rank']} cheaper ones"
    least = (
        "has the least" if proof.get("status") == "OPTIMAL" else "is within the gap of the least"
    )
    text = f"this embedding {least} analytic cost among {among}"
    return text + ("; it was chosen for its scheduled cycles" if proof.get("rank") else "")


def _gap(objective: float | None, bound: float) -> float | None:
    # No gap where there is nothing to be far from.
    return None if not objective else max(0.0, (objective - bound) / objective)
