"""Memory interface. Required: the memory elements that a tile's steps read are at most R rectangles
of consecutive elements at one stride. It binds strict operands alone: their elements stand once,
in an order that all tiles share (element numbers are addresses); relaxed ones are packed in the
order of the steps, which is one rectangle."""

from __future__ import annotations

import itertools

from csp_embed.embed.ground.rectangles import covers
from csp_embed.embed.ground.variables import Vars

NAME = "memory"


def post(vars: Vars) -> None:
    """For each tile: (element m is met by the tile) over m is one of the sets that R transfers
    move."""
    ground, model = vars.ground, vars.model
    size = ground.tile or vars.box.steps
    for role in sorted(ground.strict):
        count = vars.box.steps
        legal = [
            chosen
            for chosen in itertools.product((0, 1), repeat=count)
            if covers({n for n, c in enumerate(chosen) if c}, ground.rectangles)
        ]
        if len(legal) == 1 << count:
            continue
        for start in range(0, count, size):
            met = [model.new_bool_var(f"met{m}") for m in range(count)]
            tile = vars.element[role][start : start + size]
            for m in range(count):
                hits = []
                for element in tile:
                    hit = model.new_bool_var("hit")
                    model.add(element == m).only_enforce_if(hit)
                    model.add(element != m).only_enforce_if(~hit)
                    hits.append(hit)
                model.add_max_equality(met[m], hits)
            vars.post(NAME, model.add_allowed_assignments(met, legal))
