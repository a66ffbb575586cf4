"""One choice per layer and one home per tensor, the fewest cycles in all: CP-SAT over the segment.

Takes: the choices of every layer.  Leaves: the chosen ones, with objective, bound and status.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from csp_embed.compiler.whole.sites import Choice, Site
from csp_embed.solver.cpsat import new_model, solve
from csp_embed.solver.params import Params
from csp_embed.solver.status import FEASIBLE, OPTIMAL

if TYPE_CHECKING:
    from csp_embed.solver.cpsat import IntVar, LinearExpr

# Few variables; the limit is deterministic, so that builds are.
PARAMS = Params(seed=0, workers=1, deterministic_limit=8.0)


@dataclass(frozen=True)
class Chosen:
    """picked: per layer the number of its choice; empty where none agree. objective, bound: the
    sum of their prices, cycles."""

    picked: tuple[int, ...]
    objective: int
    bound: int
    status: str


def choose(sites: Sequence[Site], choices: Sequence[Sequence[Choice]]) -> Chosen:
    """Layers that share a tensor choose the same home for it."""
    model = new_model()
    picks: list[list[IntVar]] = []
    price: list[LinearExpr] = []
    homes: dict[tuple[str, bytes], IntVar] = {}
    for site, offers in zip(sites, choices, strict=True):
        mine = [model.new_bool_var("") for _ in offers]
        # One way for each layer.
        model.add_exactly_one(mine)
        picks.append(mine)
        for var, choice in zip(mine, offers, strict=True):
            price.append(var * choice.price)
            pairs = [*zip(site.roots, choice.inputs, strict=True), (site.root, choice.output)]
            # A tensor's home is chosen where some layer that uses it chooses it.
            for root, home in pairs:
                # None: packed for this layer alone, in agreement with nobody.
                if home is not None:
                    key = root, home.key
                    chosen = homes.setdefault(key, model.new_bool_var(""))
                    model.add_implication(var, chosen)
    for root in dict.fromkeys(root for root, _ in homes):
        # All that use a tensor must then have chosen the same home.
        model.add_at_most_one([v for (r, _), v in homes.items() if r == root])
    model.minimize(sum(price))
    found = solve(model, PARAMS)
    # A limit without an answer is no answer here: the caller takes a layer off.
    if found.status not in (OPTIMAL, FEASIBLE):
        return Chosen((), 0, 0, found.status)
    picked = tuple(next(n for n, v in enumerate(mine) if found.value(v)) for mine in picks)
    assert found.objective is not None
    assert found.bound is not None
    return Chosen(picked, round(found.objective), round(found.bound), found.status)
