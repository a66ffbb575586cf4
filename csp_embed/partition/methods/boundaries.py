"""Windows over the whole schedule, from the incumbent: the last step of splitting, again and again.

Takes: an incumbent with a timetable.  Leaves: it improved.
"""

from __future__ import annotations

from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.methods.neighbourhoods import in_reach
from csp_embed.partition.methods.splitting import polish
from csp_embed.partition.portfolio import NUMBERS, Step

OWN = NUMBERS.split

ENDLESS = 1000  # rounds on the wall clock, which ends them


def _beyond(search: Search, step: Step) -> str | None:
    """Where `neighbourhoods` are too small to be of use."""
    why = in_reach(search, step)
    if why is None and (search.request.shaped or search.p.n <= step.tasks):
        return f"neighbourhoods serve up to {step.tasks} tasks"
    return why


def _run(search: Search, step: Step) -> None:
    rounds = max(1, int(step.rounds * search.request.effort))
    passes = ENDLESS if search.clock.wall else max(1, rounds // OWN.windows_part)
    polish(search.p, search.inc, search.proof, search.clock, passes)


METHOD = Method("windows", _beyond, _run)
