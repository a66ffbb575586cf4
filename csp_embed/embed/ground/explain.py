"""Why a ground problem has no covering: a minimal set of families that contradict each other.

Takes: Ground.  Leaves: names of families (those of model.py, and "regularity").

Found by deletion: all families contradict; one after another is left out, the special ones first,
and stays out where the rest still contradicts. No smaller set does: a solution was found for each.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator

from csp_embed.embed.ground.constraints import regularity
from csp_embed.embed.ground.model import FAMILIES, build_model
from csp_embed.embed.ground.numerations import Frame, frames
from csp_embed.ir.ground import Ground
from csp_embed.solver.cpsat import solve
from csp_embed.solver.params import Params
from csp_embed.solver.status import INFEASIBLE, UNKNOWN

MOST_PLACES = 100
"""Larger models are not solved: above, CP-SAT proved nothing within a minute."""
FAST = {"linearization_level": 0, "cp_model_probing_level": 0}
"""Measured on ground models: relaxations and probing cost more than they save."""
DEFAULT = Params(seed=0, workers=1, deterministic_limit=5.0)


def conflicting_families(
    ground: Ground, *, regular: bool = False, params: Params = DEFAULT
) -> tuple[str, ...]:
    """A minimal set of families without a common solution in the problem's steps.

    Empty where there is a covering, where a limit came first, or where the model is too large.
    Regular coverings: no frame has a solution of the whole set, and for each smaller set some has.
    """
    if ground.steps * ground.lanes > MOST_PLACES:
        return ()
    # All families, in the order in which the model posts them.
    names = [f.NAME for f in FAMILIES] + ([regularity.NAME] if regular else [])
    if status_of(ground, names, params) != INFEASIBLE:
        return ()
    # From the back: the special families go first where several sets would do.
    for name in reversed(list(names)):
        rest = [n for n in names if n != name]
        status = status_of(ground, rest, params)
        # Not known: then no smaller set can be claimed.
        if status == UNKNOWN:
            return ()
        # Without it there is still no solution: it is not needed.
        if status == INFEASIBLE:
            names = rest
    return tuple(names)


def status_of(ground: Ground, names: Collection[str], params: Params = DEFAULT) -> str:
    """Status of the problem under some families alone: of the first frame that is not infeasible,
    where "regularity" is among them."""
    for frame in _models(ground, names):
        vars = build_model(ground, frame, explain=True, broken=False)
        # Fixed, not assumed: each set of families is a model of its own.
        for name, gate in vars.gates.items():
            vars.model.add(gate == (name in names))
        status = solve(vars.model, params, extra=FAST).status
        # One frame with a solution (or unknown) is enough.
        if status != INFEASIBLE:
            return status
    return INFEASIBLE


def _models(ground: Ground, names: Collection[str]) -> Iterator[Frame | None]:
    if regularity.NAME not in names:
        yield None
        return
    # Frames leave room for every point, as injectivity and cover want it: without these, any box.
    yield from frames(ground)
