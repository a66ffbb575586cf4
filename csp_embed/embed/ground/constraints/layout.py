"""Layout (strict). Required where asked: every element of a run-time operand stands once, in one
lane of one memory element, whichever steps read it. A relaxed layout adds nothing."""

from __future__ import annotations

from csp_embed.embed.ground.constraints.homes import post_homes
from csp_embed.embed.ground.variables import Vars

NAME = "layout"


def post(vars: Vars) -> None:
    """See `post_homes`, for the strict operands."""
    for role in sorted(vars.ground.strict):
        post_homes(vars, role, NAME)
