"""Pad is harmless (rule 4). Required: at a pad place some operand's lane holds nothing: an input's
lane that no point uses (a zero), or a result's lane that is no output's home (dead)."""

from __future__ import annotations

from typing import Any

from csp_embed.embed.ground.constraints.homes import make_homes, nowhere
from csp_embed.embed.ground.variables import Vars
from csp_embed.ir.operator import Role

NAME = "harmless"


def post(vars: Vars) -> None:
    """Not placed[g] => some role's lane at g is not live."""
    # Whether a lane holds something, by operand, once for all places.
    live = {role: _live(vars, role) for role in vars.ground.dims}
    for g, (step, _) in enumerate(vars.places):
        lanes = [live[role][step, vars.lane(role, g)] for role in live]
        vars.post(NAME, vars.model.add_bool_or([vars.placed[g], *(~v for v in lanes)]))


def _live(vars: Vars, role: Role) -> dict[tuple[int, int], Any]:
    """(step, lane) -> Boolean, true where the lane holds something."""
    # Operands with homes keep their content in memory, whoever meets it in this step.
    if role == Role.DST or role in vars.ground.strict:
        return _stored(vars, role)
    out: dict[tuple[int, int], Any] = {}
    users: dict[tuple[int, int], list[Any]] = {}
    for g, (step, _) in enumerate(vars.places):
        users.setdefault((step, vars.lane(role, g)), []).append(vars.placed[g])
    for where, literals in users.items():
        out[where] = vars.model.new_bool_var("live")
        vars.model.add_max_equality(out[where], literals)
    return out


def _stored(vars: Vars, role: Role) -> dict[tuple[int, int], Any]:
    """Live where the lane of the met element is some tensor element's home."""
    make_homes(vars, role)
    model, lanes, steps = vars.model, vars.lane_count(role), vars.box.steps
    full = [model.new_bool_var(f"full{n}") for n in range(steps * lanes)]
    # Homes beyond all places count as full, or nobody could live there.
    full_or_nowhere = full + [1] * nowhere(vars, role)
    for home in vars.home[role]:
        if not isinstance(home, int):
            model.add_element(home, full_or_nowhere, 1)
    # A lane is full only if somebody lives there: one value, so that solutions count once.
    count = sum(1 for h in vars.home[role] if not isinstance(h, int))
    model.add(sum(full) <= count)
    out: dict[tuple[int, int], Any] = {}
    for t, element in enumerate(vars.element[role]):
        for lane in range(lanes):
            out[t, lane] = model.new_bool_var("live")
            # Only elements of earlier steps: an element's number is that of its first step.
            model.add_element(element, [full[m * lanes + lane] for m in range(t + 1)], out[t, lane])
    return out
