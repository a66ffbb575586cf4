"""Pictures and documents of a Pareto front.

Takes: a Front (embed/explain/pareto.py).  Leaves: a JSON document, a picture (`pareto_picture.py`
draws).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from csp_embed.embed.explain.pareto import CRITERIA, Front, Member
from csp_embed.embed.explain.pareto_space import front as needed

LABELS = {
    "input_bytes": "packed input bytes",
    "host_bytes": "bytes the host moves to pack",
    "weight_bytes": "weight bytes",
    "zero_fill": "zero-filled bytes",
}


def name(member: Member) -> str:
    """Its kind, as people call it."""
    return member.embedding.kind + (" commuted" if member.embedding.commuted else "")


def survives(members: Sequence[Member]) -> list[bool]:
    """Which members stay non-dominated when scheduled cycles take the analytic ones' place.

    Members without scheduled cycles are judged by the analytic ones."""
    # Scheduled cycles take the place of the first criterion; the others stay.
    rows = [[cycles(m), *(m.criteria[c] for c in CRITERIA[1:])] for m in members]
    # The same test of dominance as the sweep's, so that both agree.
    kept = set(needed(np.array(rows, float).reshape(len(rows), len(CRITERIA))).tolist())
    return [n in kept for n in range(len(members))]


def cycles(member: Member) -> float:
    """Scheduled cycles, analytic ones where there are none."""
    return member.criteria["cycles"] if member.scheduled is None else member.scheduled


def fastest(members: Sequence[Member]) -> int:
    """Number of the member with the fewest cycles; scheduled cycles count before analytic ones."""
    order = range(len(members))
    # Scheduled ones first: an analytic figure would win by leaving things out.
    return min(order, key=lambda n: (members[n].scheduled is None, cycles(members[n]), n))


def document(front: Front) -> dict[str, Any]:
    """What `csp-embed pareto --json` prints."""
    # -1: a front without members has no fastest.
    stays, first = survives(front.members), fastest(front.members) if front.members else -1
    return {
        "status": "complete" if front.complete else "incomplete",
        "claim": front.status,
        "criteria": {
            "cycles": "analytic, without the host's part: what the search compares",
            "scheduled_cycles": "of a good schedule, by the cycle engine; null: not scheduled",
            **{c: LABELS[c] for c in CRITERIA[1:]},
        },
        "options_weighed": front.weighed,
        "members": [
            {
                "number": n, "kind": name(m), "embedding": m.embedding.formula(),
                **m.criteria, "scheduled_cycles": m.scheduled,
                "non_dominated_when_scheduled": stay, "fewest_cycles": n == first,
            }
            for n, (m, stay) in enumerate(zip(front.members, stays, strict=True))
        ],
    }  # fmt: skip
