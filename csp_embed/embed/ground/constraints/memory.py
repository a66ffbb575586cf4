"""Memory interface. Required: the memory elements that a tile's steps read are at most R rectangles
of consecutive elements at one stride. It binds strict operands alone: their elements stand once,
in the order of first use, which all tiles share; relaxed ones are packed in the order of the steps,
which is one rectangle. So is a tile of all steps."""

from __future__ import annotations

import itertools
from typing import Any

from csp_embed.embed.ground.constraints.homes import make_homes
from csp_embed.embed.ground.rectangles import covers
from csp_embed.embed.ground.variables import Vars
from csp_embed.ir.operator import Role

NAME = "memory"


def post(vars: Vars) -> None:
    """For each tile: (address m is met by the tile) over m is one of the sets that R transfers
    move."""
    ground, model, count = vars.ground, vars.model, vars.box.steps
    # Without tiles all is one rectangle, see above.
    if not ground.ordered:
        return
    # Listed one by one: ground problems have few steps.
    legal = [
        chosen
        for chosen in itertools.product((0, 1), repeat=count)
        if covers({n for n, c in enumerate(chosen) if c}, ground.rectangles)
    ]
    size = ground.tile or count
    for role in sorted(ground.strict):
        make_homes(vars, role)
        address = _addresses(vars, role)
        for start in range(0, count, size):
            # Every tile by itself: a transfer belongs to one tile.
            met = [model.new_bool_var(f"met{m}") for m in range(count)]
            for m in range(count):
                hits = [hit[m] for hit in address[start : start + size]]
                model.add_max_equality(met[m], hits)
            vars.post(NAME, model.add_allowed_assignments(met, legal))


def _addresses(vars: Vars, role: Role) -> list[list[Any]]:
    """[step][m]: Boolean, the step meets address m. The address of a memory element is the number
    of elements that steps meet before the first step that meets it."""
    model, count = vars.model, vars.box.steps
    before: list[Any] = [0]
    for t, element in enumerate(vars.element[role]):
        first = model.new_bool_var(f"first{t}")
        model.add(element == t).only_enforce_if(first)
        # Both ways, so that the literal has one value in each solution.
        model.add(element != t).only_enforce_if(~first)
        before.append(before[-1] + first)
    ranks: list[Any] = []
    for t in range(count):
        ranks.append(model.new_int_var(0, t, f"rank{t}"))
        model.add(ranks[t] == before[t])
    out: list[list[Any]] = []
    for element in vars.element[role]:
        address = model.new_int_var(0, count - 1, "address")
        model.add_element(element, ranks, address)
        hits = [model.new_bool_var(f"hit{m}") for m in range(count)]
        # Exactly one address for each step.
        model.add(sum(hits) == 1)
        model.add(sum(m * hit for m, hit in enumerate(hits)) == address)
        out.append(hits)
    return out
