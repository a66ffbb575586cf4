"""Every operator axis is carried exactly once (rules 3 and 5): one option per block, and an axis is
given away exactly where the fused coordinate takes it. Required."""

from __future__ import annotations

from typing import Any

from csp_embed.embed.model.variables import Vars
from csp_embed.embed.problem import EmbedProblem


def post(model: Any, vars: Vars, problem: EmbedProblem) -> None:
    """A block's options sum to 1; those that give axis a sum to the fusions that hold a."""
    # The fused coordinate is one more block; taking nothing is an option of it.
    fused = len(problem.blocks)
    for block in range(fused + 1):
        picked = [v for v, o in vars.pairs if o.block == block]
        vars.gated(model, "cover", model.add(sum(picked) == 1))
    for axis in problem.op.axes:
        giving = [v for v, o in vars.pairs if o.block != fused and axis in o.given]
        taking = [v for v, o in vars.pairs if o.block == fused and axis in o.given]
        if giving or taking:
            vars.gated(model, "cover", model.add(sum(giving) == sum(taking)))
