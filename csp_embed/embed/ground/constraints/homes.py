"""Memory elements and the place of each tensor element in them; no family, used by several.

element[role][t]: number of the memory element that step t meets, that of the first step that meets
it. home[role][v]: element * lanes + lane of tensor element v.
"""

from __future__ import annotations

from csp_embed.embed.ground.variables import Vars
from csp_embed.ir.operator import Role


def make_homes(vars: Vars, role: Role) -> None:
    """Variables of one operand, once; tensor elements that no point touches get 0."""
    # Several families use them; they are made once.
    if role in vars.home:
        return
    model, steps, lanes = vars.model, vars.box.steps, vars.lane_count(role)
    # A step meets its own number or an earlier one.
    vars.element[role] = [model.new_int_var(0, t, f"element{t}") for t in range(steps)]
    for t, element in enumerate(vars.element[role]):
        # The number of an element is that of the first step that meets it.
        model.add_element(element, vars.element[role][: t + 1], element)
    # Elements that no effective point touches would only multiply solutions.
    needed = set(vars.ground.elements[role].tolist())
    last = steps * lanes - 1 + nowhere(vars, role)
    vars.home[role] = [
        model.new_int_var(0, last, f"home{v}") if v in needed else 0
        for v in range(vars.ground.counts[role])
    ]


def nowhere(vars: Vars, role: Role) -> int:
    """Numbers beyond all places, for elements that no placed point touches. Where every family
    holds, every point is placed, so they are only offered where families can be off."""
    return len(set(vars.ground.elements[role].tolist())) if vars.explain else 0


def post_homes(vars: Vars, role: Role, family: str) -> None:
    """placed[g] => home[touched(role, g)] = element[step] * lanes + lane."""
    make_homes(vars, role)
    model, lanes, count = vars.model, vars.lane_count(role), vars.ground.counts[role]
    top = vars.box.steps * lanes - 1 + nowhere(vars, role)
    for g, (step, _) in enumerate(vars.places):
        touched = model.new_int_var(0, count - 1, f"touched{g}")
        model.add(touched == vars.touched(role, g)).only_enforce_if(vars.placed[g])
        # Pad touches nothing; one value, so that solutions count once.
        model.add(touched == 0).only_enforce_if(~vars.placed[g])
        home = model.new_int_var(0, top, f"home of {g}")
        # home[touched] with both variable: an element constraint.
        model.add_element(touched, vars.home[role], home)
        same = model.add(home == vars.element[role][step] * lanes + vars.lane(role, g))
        vars.post(family, same, vars.placed[g])
