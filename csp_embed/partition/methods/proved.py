"""Ends a search whose incumbent is proved optimal.

Takes: the incumbent and the bounds so far.  Leaves: no step after it, where they meet.
"""

from __future__ import annotations

from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.portfolio import Step
from csp_embed.partition.proof import settled


def _open(search: Search, step: Step) -> str | None:
    return None if settled(search.p, search.inc, search.proof) else "not proved yet"


def _end(search: Search, step: Step) -> None:
    search.over = True


METHOD = Method("proved", _open, _end)
