"""The mixed-integer program, solved by HiGHS.

Takes: a Search.  Leaves: its incumbent and proof improved.
"""

from __future__ import annotations

from csp_embed.partition.methods.method import Method, Search, always
from csp_embed.partition.models.milp import solve_milp
from csp_embed.partition.portfolio import Step


def _run(search: Search, step: Step) -> None:
    solve_milp(search.p, search.inc, search.proof, search.clock)


METHOD = Method("milp", always, _run)
