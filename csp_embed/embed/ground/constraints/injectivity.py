"""Injective (rule 3). Required: no operator point at two places."""

from __future__ import annotations

import math
from typing import Any

from csp_embed.embed.ground.variables import Vars

NAME = "injectivity"


def post(vars: Vars) -> None:
    """All different: the point's number where placed, a number of its own where pad."""
    axes = vars.ground.op.axes
    total = math.prod(axes.values())
    codes: list[Any] = []
    for g, placed in enumerate(vars.placed):
        number = 0
        for a, v in vars.axis_values(g).items():
            number = number * axes[a] + v
        # Numbers beyond all points, one for each place: pads never meet.
        code = vars.model.new_int_var(0, total + g, f"code{g}")
        literals = [placed, *vars.gate(NAME)]
        vars.model.add(code == number).only_enforce_if(literals)
        # Off by either literal: pad, or the family left out.
        for literal in literals:
            vars.model.add(code == total + g).only_enforce_if(~literal)
        codes.append(code)
    vars.model.add_all_different(codes)
