"""The digits of a dimension fit into its lanes (rule 8). Required.

A product of integers is at most L exactly where the sum of their logarithms is below log(L + 1/2):
scaled by 10^6, rounding is far finer than the gap between L and L + 1.
"""

from __future__ import annotations

import math
from typing import Any

from csp_embed.embed.model.variables import Vars
from csp_embed.embed.problem import EmbedProblem

_SCALE = 1_000_000


def post(model: Any, vars: Vars, problem: EmbedProblem) -> None:
    """sum over picked options of log(lanes on d) <= log(lanes of d), for every dimension d."""
    for dim, size in problem.unit.size.items():
        terms = [
            (v, round(_SCALE * math.log(o.lanes[dim])))
            for v, o in vars.pairs
            if o.lanes.get(dim, 1) > 1
        ]
        # A dimension that no option uses needs no row.
        if terms:
            limit = math.floor(_SCALE * math.log(size + 0.5))
            vars.gated(model, "lanes", model.add(sum(c * v for v, c in terms) <= limit))
