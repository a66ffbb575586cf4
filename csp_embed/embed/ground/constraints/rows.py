"""Operands agree, said of the columns (rule 2 for regular coverings): an operand without a digit's
dimension does not move with the digit. A diagonal digit counts for both of its dimensions.

Stronger than agreement of the placed points, which a map may also keep by sending all conflicting
lanes out of the domain; frames with diagonals say such coverings as well. So this family is
optional: it makes large problems solvable, and the corpus compares the solution sets with and
without it.
"""

from __future__ import annotations

from csp_embed.embed.ground.numerations import STEP, Frame
from csp_embed.embed.ground.variables import Vars

NAME = "rows"


def post(vars: Vars, frame: Frame) -> None:
    """sum over coordinates of coefficient * column[digit] = 0 for each index of the operand; a
    flattened coordinate that the operand reads does not move at all."""
    # Dimensions of each digit; the partner's are added for diagonals.
    dims_of = [{d.dim} for d in frame.digits]
    for a, b in frame.equal:
        dims_of[a] |= dims_of[b]
    partners = {b for _, b in frame.equal}
    for role, access in vars.ground.accesses.items():
        for n, dims in enumerate(dims_of):
            # An operand that has one of the dimensions, and anything in time, may move.
            if n in partners or dims & {STEP, *vars.ground.dims[role]}:
                continue
            for ix in access.index:
                moved = 0
                for names, column in zip(frame.coordinates, vars.columns, strict=True):
                    if len(names) == 1:
                        moved += ix.coef(names[0]) * column[n]
                    elif any(ix.coef(a) for a in names):
                        # Flattened: whatever moves the coordinate moves some of its axes.
                        vars.post(NAME, vars.model.add(column[n] == 0))
                vars.post(NAME, vars.model.add(moved == 0))
