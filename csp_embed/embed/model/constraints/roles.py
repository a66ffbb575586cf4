"""Operands agree (rule 2): all blocks see the operator's factors in the same operands, straight or
commuted. Digits that would move an operand without their dimension are no options. Required."""

from __future__ import annotations

from typing import Any

from csp_embed.embed.model.variables import Vars
from csp_embed.embed.problem import EmbedProblem


def post(model: Any, vars: Vars, problem: EmbedProblem) -> None:
    """commuted = sum of a block's commuted options, for every block."""
    for block in range(len(problem.blocks) + 1):
        swapped = [v for v, o in vars.pairs if o.block == block and o.commuted]
        vars.gated(model, "roles", model.add(sum(swapped) == vars.commuted))
