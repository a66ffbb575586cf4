"""The ground model: CP-SAT straight from the definition, one family of constraints per rule.

Takes: Ground, Frame or None (irregular coverings too).  Leaves: a model with its variables.
Families are gated by one assumption literal each where explanations are asked.
"""

from __future__ import annotations

from csp_embed.embed.ground import symmetry
from csp_embed.embed.ground.constraints import (
    agreement,
    content,
    cover,
    harmless,
    home,
    injectivity,
    kind,
    layout,
    memory,
    regularity,
    rows,
)
from csp_embed.embed.ground.numerations import Frame, box_of, whole_box
from csp_embed.embed.ground.variables import Vars, make
from csp_embed.ir.ground import Ground
from csp_embed.solver.cpsat import new_model

# In posting order; each removes wrong coverings, none only copies. Regularity needs a frame.
FAMILIES = (kind, agreement, injectivity, cover, home, content, layout, harmless, memory)


def build_model(
    ground: Ground,
    frame: Frame | None = None,
    *,
    explain: bool = False,
    broken: bool = True,
    by_rows: bool = False,
) -> Vars:
    """A model of the coverings of `ground`, regular ones in `frame`, or all where it is None.

    explain: constraints hold under their family's literal (`Vars.gates`). broken: symmetry is
    broken by the constraints of symmetry.py. by_rows: with the optional family rows.py.
    """
    # Regular coverings have the frame's places only: others are pad.
    box = whole_box(ground) if frame is None else box_of(ground, frame)
    vars = make(new_model(), ground, box, explain)
    for family in FAMILIES:
        family.post(vars)
    if frame is not None:
        regularity.post(vars, frame)
        # Optional: it only says sooner what the map must keep anyway.
        if by_rows:
            rows.post(vars, frame)
    if broken:
        symmetry.post(vars, frame)
    return vars
