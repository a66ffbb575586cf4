"""Exact cover (rule 5). Required: every effective operator point is placed.

With injectivity, counting suffices; points with a factor out of range are never placed.
"""

from __future__ import annotations

from csp_embed.embed.ground.variables import Vars

NAME = "cover"


def post(vars: Vars) -> None:
    """sum of placed >= number of effective points."""
    # Injectivity lets no point count twice, so as many places as points are all points.
    vars.post(NAME, vars.model.add(sum(vars.placed) >= len(vars.ground.points)))
