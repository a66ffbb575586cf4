"""Plans with routes: the search, its bound, and what a plan file says of them.

Takes: an Instance with phases.  Leaves: a ServingPlan whose `more` holds the routes.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any

from csp_embed.errors import InputError
from csp_embed.serving.files.plan_file import ServingPlan, named, prices_document
from csp_embed.serving.instance import Instance
from csp_embed.serving.judge.check_phases import refute_path, refute_phases
from csp_embed.serving.routes.bound import PathGroup, path_bound, phase_bound
from csp_embed.serving.routes.search import RouteSearch
from csp_embed.serving.routes.value import Routed
from csp_embed.serving.searches.search import EQUAL, Progress, Search, work_bound
from csp_embed.solver.status import FEASIBLE, OPTIMAL, UNKNOWN

SEARCHING = 0.85  # of the time limit; the rest is for the bound
# Added to a bound until the judge's exact sum is below it.
ABOVE = (0.0, 1e-14, 1e-12, 1e-9)
# Taken off a lower bound likewise; 1.0 leaves 0, which surely holds.
BELOW = (0.0, 1e-13, 1e-11, 1e-9, 1e-6, 1.0)


def routed_plan(
    instance: Instance,
    methods: Sequence[Callable[[Search], None]],
    *,
    objective: str,
    time_limit: float | None,
    seed: int,
    progress: Progress | None,
    min_tokens: float | None,
    stop: bool,
) -> ServingPlan:
    """The most tokens/s, or with objective "latency" the shortest requests, with routes."""
    begin = time.perf_counter()
    phases = instance.phases
    assert phases is not None
    if min_tokens is not None and not 0 <= min_tokens < float("inf"):
        raise InputError(f"at least {min_tokens} tokens/s", hint="a number of at least 0")
    # Latency needs a rate, be it 0; the most tokens/s needs none.
    wanted = (min_tokens or 0.0) if objective == "latency" else None
    share = None if time_limit is None else time_limit * SEARCHING
    search = RouteSearch(instance, methods, share, seed, progress, wanted)

    def late() -> bool:
        # Whoever interrupts wants the plan, not the best bound.
        return interrupted or (time_limit is not None and time.perf_counter() - begin > time_limit)

    # `stop`: no search, so that only the bound is made.
    interrupted = stop
    try:
        if not stop:
            search.run()
    except KeyboardInterrupt:
        interrupted = True
    found = search.best
    if objective == "latency":
        bound, certificate = shortest_bound(instance, late)
        more: dict[str, Any] = {
            "objective": "latency",
            "min_tokens": wanted,
            "request_s_bound": bound,
        }
        # Latency: a lower bound that the value reaches.
        proved = found is not None and (bound or 0.0) >= found.request_s * (1 - EQUAL)
        if found is not None:
            more["request_s"] = found.request_s
        of_value = None
    else:
        reached = 0.0 if found is None else found.tokens_per_s
        of_value, certificate = phases_bound(instance, reached, late)
        more = {}
        proved = found is not None and of_value - found.tokens_per_s <= EQUAL * of_value
    # Written down, so that the judge knows what was promised.
    if phases.limits:
        limits = {"first_token_s": phases.first_s, "token_s": phases.token_s}
        more["limits"] = {k: v for k, v in limits.items() if v < float("inf")}
    if found is None:
        status = UNKNOWN
    else:
        more["routes"] = _rows(instance, found)
        status = OPTIMAL if proved else FEASIBLE
    return ServingPlan(
        instance=instance.name,
        placement=named(instance, dict(sorted(search.placement.items()))),
        value=None if found is None else found.tokens_per_s,
        bound=of_value,
        certificate=certificate,
        status=status,
        method=search.method,
        seconds=time.perf_counter() - begin,
        # `stop` was asked for by the caller, who knows.
        interrupted=interrupted and not stop,
        more=more,
    )


def _rows(instance: Instance, found: Routed) -> list[dict[str, Any]]:
    rows = []
    for route, rate in found.routes:
        row: dict[str, Any] = {"prefill": [instance.machines[i] for i in route.prefill]}
        if route.decode != route.prefill:
            row["decode"] = [instance.machines[i] for i in route.decode]
        row |= {
            "requests_per_s": rate,
            "first_token_s": route.first_s,
            "token_s": route.token_s,
            "request_s": route.request_s,
        }
        rows.append(row)
    return rows


def phases_bound(
    instance: Instance, value: float, late: Callable[[], bool] = lambda: False
) -> tuple[float, dict[str, Any]]:
    """The best bound that the judge accepts, and its certificate. value: of the best plan. late:
    whether to be content with what there is."""
    proof = phase_bound(instance, value, work_bound, late)
    # The searched prices, then the crude ones.
    for prices in (proof.prices, work_bound(proof.relaxation)):
        certificate = {
            "rule": "phases",
            "weight": proof.weight,
            "certificate": prices_document(proof.instance, prices),
        }
        for above in ABOVE:
            bound = max(value, prices.bound * (1 + above))
            if refute_phases(instance, certificate, Fraction(bound)) is None:
                return bound, certificate
    raise AssertionError("neither the best nor the first bound can be verified")


def shortest_bound(
    instance: Instance, late: Callable[[], bool] = lambda: False
) -> tuple[float | None, dict[str, Any]]:
    """Seconds that no request undercuts; None where no path holds all layers. late: whether to be
    content with what there is."""
    assert instance.phases is not None
    ways = ("prefill", "decode") if instance.phases.split else ("both",)
    total = 0.0
    certificate: dict[str, Any] = {"rule": "path"}
    for way in ways:
        seconds, groups, prices = path_bound(instance, way, late)
        if seconds == float("inf"):
            # No path, no bound; the search will have found nothing either.
            return None, certificate
        total += seconds
        certificate[way] = _by_machine(instance, groups, prices)
    for below in BELOW:  # sums of floats may lie a little above what the judge adds up exactly
        bound = max(0.0, total * (1 - below))
        if refute_path(instance, certificate, Fraction(bound)) is None:
            return bound, certificate
    raise AssertionError("the shortest path cannot be verified")


def _by_machine(
    instance: Instance, groups: Sequence[PathGroup], prices: Sequence[float]
) -> dict[str, str]:
    paid = {
        # `repr` is the decimal that was rounded to, exactly.
        i: str(Fraction(repr(price)))
        for group, price in zip(groups, prices, strict=True)
        for i in group.members
    }
    return {instance.machines[i]: paid[i] for i in sorted(paid)}
