"""Annealing on loads from several starts, for the period.

Takes: a Search for the period.  Leaves: its incumbent improved.
"""

from __future__ import annotations

from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.methods.period.period_loads import load_arrays
from csp_embed.partition.methods.period.throughput import balanced
from csp_embed.partition.portfolio import NUMBERS, Step

OWN = NUMBERS.balance


def _free(search: Search, step: Step) -> str | None:
    if search.request.shaped:
        return "only the exact model knows convex sets"
    if step.when != "always" and search.p.n <= NUMBERS.lists.interpreted:
        return f"exact search is quicker up to {NUMBERS.lists.interpreted} tasks"
    return None


def _run(search: Search, step: Step) -> None:
    p, steps = search.p, int(OWN.proposals * search.request.effort)
    balanced(p, search.inc, search.clock, load_arrays(p), steps, step.share)


METHOD = Method("balance", _free, _run)
