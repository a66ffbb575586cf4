"""Plans of least cost: the machines to pay for, so that so many tokens/s are served.

Takes: an instance with prices.  Leaves: a plan whose price has a proved lower bound (cost.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from fractions import Fraction

from csp_embed.serving.bounds.cost import cost_of, least_cost, must_have_prices, thin_out
from csp_embed.serving.files.plan_file import ServingPlan, named
from csp_embed.serving.flow import max_flow
from csp_embed.serving.instance import Instance
from csp_embed.serving.searches.first import first_placements
from csp_embed.serving.searches.search import EQUAL, Search
from csp_embed.solver.status import FEASIBLE, OPTIMAL, UNKNOWN


def cheapest_plan(
    instance: Instance,
    min_tokens: float | None,
    time_limit: float | None,
    seed: int,
    methods: Sequence[Callable[[Search], None]],
) -> ServingPlan:
    """Searches all machines for a plan that carries enough, then drops machines.

    Raises: InputError where prices or tokens are missing.
    """
    tokens = must_have_prices(instance, min_tokens)
    begin = time.perf_counter()
    # The bound first: it tells the search when to end.
    bound, certificate = least_cost(instance, tokens)

    def carried(part: Instance) -> dict[int, tuple[int, int]] | None:
        """A placement of so many tokens/s; None where none was found."""
        left = None if time_limit is None else time_limit - (time.perf_counter() - begin)
        if left is not None and left <= 0:
            # The time is over: nothing more is found.
            return None
        search = Search(part, left, seed)
        # More than what is asked for is not worth anything here.
        search.goal = Fraction(tokens)
        # The searches begin at the bound, so it is set to what is wanted and not a hair more.
        search.bound = search.relaxation.prove(tokens * (1 + 1e-6)) or search.bound
        for method in methods:
            # The bound below what is asked for: these machines cannot.
            if search.proved or search.late() or search.bound.bound < tokens:
                break
            method(search)
        return search.placement if search.value >= search.goal else None

    def proved(cost: Fraction) -> bool:
        return float(cost) <= bound * (1 + EQUAL)

    placement, interrupted = None, False
    try:
        # A dear one at once, in case that the time ends before a cheaper one is found.
        placement = _first(instance, tokens)
        found = carried(instance)
        if found is not None and (
            placement is None or cost_of(instance, found) <= cost_of(instance, placement)
        ):
            placement = found
        if placement is not None:
            # All machines carry it: now fewer, as long as enough is carried.
            placement = thin_out(instance, tokens, carried, placement, proved)
    except KeyboardInterrupt:
        interrupted = True
    placed = placement or {}
    cost = cost_of(instance, placed)
    if placement is None:
        status = UNKNOWN
    else:
        status = OPTIMAL if proved(cost) else FEASIBLE
    return ServingPlan(
        instance=instance.name,
        placement=named(instance, placed),
        value=float(max_flow(instance, placed).value) if placed else None,
        # The bound is on the price; tokens/s have none.
        bound=None,
        certificate=certificate,
        status=status,
        method="cheapest machines",
        seconds=time.perf_counter() - begin,
        interrupted=interrupted,
        more={
            "objective": "cost",
            "min_tokens": tokens,
            "cost": float(cost) if placed else None,
            "cost_bound": bound,
        },
    )


def _first(instance: Instance, tokens: float) -> dict[int, tuple[int, int]] | None:
    """A placement that carries so many tokens/s, whatever it costs; None where none is at hand."""
    for placement in first_placements(instance):
        flow = max_flow(instance, placement)
        if flow.value >= tokens:
            return {i: placement[i] for i in sorted(placement) if flow.through.get(i)}
    return None
