"""Operands agree (rule 2). Required: places that share an operand element touch one element."""

from __future__ import annotations

from typing import Any

from csp_embed.embed.ground.variables import Vars

NAME = "agreement"


def post(vars: Vars) -> None:
    """placed[g] => touched(role, g) = content(role, step, lane), one variable for all g there."""
    for role in vars.ground.dims:
        content: dict[tuple[int, int], Any] = {}
        users: dict[tuple[int, int], list[Any]] = {}
        for g, (step, _) in enumerate(vars.places):
            # One variable for a lane and a step: all places that share it must agree with it.
            where = (step, vars.lane(role, g))
            if where not in content:
                content[where] = vars.model.new_int_var(0, vars.ground.counts[role] - 1, "content")
            users.setdefault(where, []).append(vars.placed[g])
            # Only placed points touch anything.
            same = vars.model.add(vars.touched(role, g) == content[where])
            vars.post(NAME, same, vars.placed[g])
        for where, literals in users.items():
            # A lane that nobody uses holds nothing: one value, so that solutions count once.
            vars.model.add(content[where] == 0).only_enforce_if([~v for v in literals])
