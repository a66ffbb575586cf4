"""Single-valued content (rule 7). Required: a lane of a memory element has one content for all
steps that meet it. Operands whose elements stand as often as steps want have an element for each
step, where rule 2 says the same."""

from __future__ import annotations

from typing import Any

from csp_embed.embed.ground.constraints.homes import make_homes, nowhere
from csp_embed.embed.ground.variables import Vars
from csp_embed.ir.operator import Role

NAME = "content"


def post(vars: Vars) -> None:
    """All different: homes of the tensor elements that points touch."""
    for role in [Role.DST, *sorted(vars.ground.strict)]:
        make_homes(vars, role)
        # Elements that no point touches have no home.
        homes = [h for h in vars.home[role] if not isinstance(h, int)]
        gates = vars.gate(NAME)
        # Without gates the family always holds, and the plain constraint is quicker.
        if not gates:
            vars.model.add_all_different(homes)
            continue
        # all_different takes no literal: where the family is off, numbers of their own.
        # Above all homes, so that switched-off numbers meet nobody.
        top = vars.box.steps * vars.lane_count(role) + nowhere(vars, role)
        codes: list[Any] = []
        for n, home in enumerate(homes):
            code = vars.model.new_int_var(0, top + n, f"code{n}")
            vars.model.add(code == home).only_enforce_if(gates[0])
            vars.model.add(code == top + n).only_enforce_if(~gates[0])
            codes.append(code)
        vars.model.add_all_different(codes)
