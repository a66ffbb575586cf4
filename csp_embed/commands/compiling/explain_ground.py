"""`csp-embed explain … --ground`: what the ground model says of a tiny operator.

Takes: an `Asked`.  Leaves: fewest steps of regular and of all coverings, each with what is proved,
and how many coverings have so few, where they are few enough to enumerate.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from csp_embed.commands.common import print_json, say
from csp_embed.commands.compiling.operator_options import Asked
from csp_embed.errors import InputError
from csp_embed.solver.params import Params
from csp_embed.solver.status import OPTIMAL

if TYPE_CHECKING:
    from csp_embed.embed.ground.solve import GroundAnswer


# Its points are placed one by one.
MOST_POINTS = 2000
# Above, enumerating takes minutes.
_MOST_PLACES, _MOST_COUNTED_POINTS = 36, 12
# Deterministic units: the same answer on every machine.
_COUNTING = Params(seed=0, workers=1, deterministic_limit=5.0)
KINDS = {True: "regular (loops and strides)", False: "all, irregular ones too"}


def explain_ground(asked: Asked, as_json: bool) -> None:
    """Prints the answers. Raises: InputError, for too many operator points or with pins."""
    points = math.prod(asked.op.axes.values())
    if points > MOST_POINTS:
        raise InputError(
            f"{asked.op.name} has {points:,} points, the ground model takes {MOST_POINTS:,}",
            where=asked.op.formula(),
            why="it places every operator point by itself",
            hint="smaller extents, or leave out --ground",
        )
    # Options that the ground model does not know must not be passed over.
    if asked.options.pins:
        raise InputError(
            "--ground knows no pins",
            why="pins name digits, the ground model has none",
            hint="leave out --fix, --forbid and --layout TENSOR=…",
        )
    # Regular first: every regular covering is one of all.
    answers = [_answer(asked, regular) for regular in KINDS]
    if as_json:
        print_json({"operator": asked.op.formula(), "machine": asked.isa.name, "ground": answers})
        return
    say(f"{asked.op.name}  {asked.op.formula()}  {points} points on {asked.isa.name}")
    for answer in answers:
        _print(answer)


def _answer(asked: Asked, regular: bool) -> dict[str, Any]:
    from csp_embed.embed.ground.solve import solve_ground

    found = solve_ground(asked.op, asked.isa, regular=regular, layout=asked.options.layout)
    return {
        "coverings_of": KINDS[regular],
        "status": found.status,
        "steps": found.steps,
        "bound": found.bound,
        "found_by": found.by or None,
        "conflict": list(found.families),
        "coverings": _count(asked, found, regular),
    }


def _count(asked: Asked, found: GroundAnswer, regular: bool) -> int | None:
    """Coverings with the fewest steps, up to order of steps and lanes; None where not counted."""
    from csp_embed.embed.ground.enumerate import irregular_solutions, regular_solutions
    from csp_embed.embed.ground.points import pose_ground

    # The fewest steps must be proved: else the count would be of something else.
    if found.status != OPTIMAL or found.steps is None:
        return None
    if found.steps * found.ground.lanes > _MOST_PLACES:
        return None
    if len(found.ground.points) > _MOST_COUNTED_POINTS:
        return None
    total = 0
    # Both ways to commute count: their coverings differ.
    for commuted in (False, True) if asked.op.rhs is not None else (False,):
        ground = pose_ground(
            asked.op, asked.isa, found.steps, commuted=commuted, layout=asked.options.layout
        )
        every = regular_solutions if regular else irregular_solutions
        solutions = every(replace(ground, steps=found.steps), _COUNTING)
        # An enumeration that was cut short counts nothing.
        if solutions.status != OPTIMAL:
            return None
        total += len(solutions.keys)
    return total


def _print(answer: dict[str, Any]) -> None:
    what, bound = answer["coverings_of"], answer["bound"]
    if answer["steps"] is None:
        why = f"; in conflict: {', '.join(answer['conflict'])}" if answer["conflict"] else ""
        say(f"  {what}: {answer['status']}, at least {bound} steps{why}")
        return
    # A bound that is reached leaves no gap.
    gap = f", gap {answer['steps'] / bound - 1:.1%}" if answer["steps"] > bound else ""
    count = answer["coverings"]
    many = "not counted" if count is None else f"{count} up to order of steps and lanes"
    say(
        f"  {what}: {answer['status']}, {answer['steps']} steps (bound {bound}{gap}), found by "
        f"{answer['found_by']}; coverings: {many}"
    )
