"""Same kind (rule 1). Required: an instruction that does not compute what the operator needs holds
no operator point."""

from __future__ import annotations

from csp_embed.embed.ground.variables import Vars

NAME = "kind"


def post(vars: Vars) -> None:
    """placed[g] = 0 for all g, where the kinds differ."""
    if not vars.ground.same_kind:
        # Place by place, under the family's literal: so that the conflict can name the family.
        for placed in vars.placed:
            vars.post(NAME, vars.model.add(placed == 0))
