"""One home per output (rule 6). Required: all points that add into an output element meet it in one
lane of one accumulator element, in whatever steps they run."""

from __future__ import annotations

from csp_embed.embed.ground.constraints.homes import post_homes
from csp_embed.embed.ground.variables import Vars
from csp_embed.ir.operator import Role

NAME = "home"


def post(vars: Vars) -> None:
    """See `post_homes`, for the result."""
    post_homes(vars, Role.DST, NAME)
