"""What the user pins or forbids. Required.

A pin is a predicate on options: an option that breaks it is out.
"""

from __future__ import annotations

from typing import Any

from csp_embed.embed.model.variables import Vars
from csp_embed.embed.problem import EmbedProblem


def post(model: Any, vars: Vars, problem: EmbedProblem) -> None:
    """option = 0 where some pin refuses it."""
    for name, keeps in problem.pins.keeps.items():
        for v, option in vars.pairs:
            # Gated by name, so that an infeasible model tells which pin is in the
            # way.
            if not keeps(option):
                vars.gated(model, f"pin {name}", model.add(v == 0))
