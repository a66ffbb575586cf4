"""The destructive bound as a step: makespans below the best plan are supposed and refuted.

Takes: a Search with a plan.  Leaves: its proof raised.
"""

from __future__ import annotations

from csp_embed.ir.network import LATENCY
from csp_embed.partition.bounds.destructive import destructive, small_enough
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.portfolio import NUMBERS, Step


def _worth(search: Search, step: Step) -> str | None:
    p = search.p
    if search.request.objective != LATENCY:
        return "it bounds the latency"
    if p.n <= NUMBERS.lists.interpreted:
        return f"exact search is quicker up to {NUMBERS.lists.interpreted} tasks"
    if not small_enough(p):
        return "too many pairs of choices"
    return None if search.inc.best is not None else "no plan yet"


def _run(search: Search, step: Step) -> None:
    clock, best = search.clock, search.inc.best
    assert best is not None
    clock.tell("refuting makespans")
    low, _ = destructive(search.p, search.proof.value, best.value, lambda: clock.left() < 0.1)
    if low > search.proof.value:
        search.proof.raise_to(low, "refuted makespans")


METHOD = Method("refute", _worth, _run)
