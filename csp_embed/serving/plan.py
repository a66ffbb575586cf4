"""The planner: all searches in turn, and the best plan with what proves its bound.

Takes: an Instance (or a file).  Leaves: a ServingPlan; whatever ends the run, the best plan so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.errors import Infeasible, InputError
from csp_embed.serving.bounds.relaxation import Prices
from csp_embed.serving.files.load import Variant, variants
from csp_embed.serving.files.plan_file import ServingPlan, named, prices_document, rounded_up
from csp_embed.serving.instance import Instance
from csp_embed.serving.judge.check_prices import refute
from csp_embed.serving.routes.plan import routed_plan
from csp_embed.serving.searches.chains import aligned, tracks
from csp_embed.serving.searches.cheapest import cheapest_plan
from csp_embed.serving.searches.polish import polish
from csp_embed.serving.searches.regions import regions
from csp_embed.serving.searches.search import EQUAL, Progress, Search, components
from csp_embed.serving.searches.sparse import sparse
from csp_embed.serving.searches.wide import wide
from csp_embed.solver.status import FEASIBLE, OPTIMAL, UNKNOWN

ROUNDINGS = (Fraction(0), Fraction(1, 10**14), Fraction(1, 10**12), Fraction(1, 10**9))
OBJECTIVES = ("tokens", "latency", "cost")
# In the order in which they are tried; each returns at once where it has nothing to offer.
METHODS: tuple[Callable[[Search], None], ...] = (regions, aligned, wide, tracks, sparse, polish)


def serve(instance: Instance | Mapping[str, Any] | str | Path, **options: Any) -> ServingPlan:
    """A placement of a model's layers on unequal machines, with a proved bound on the best.

    instance: an Instance, or a layer-placement-1 or csp-embed-cluster/1 document or file of it.
    options: those of `plan`. Raises: InputError, Infeasible.
    """
    if isinstance(instance, Instance):
        return plan(instance, **options)
    found = variants(instance)
    if len(found) == 1:
        return replace(plan(found[0].instance, **options), degrees=dict(found[0].degrees))
    return best_of(found, **options)


def best_of(found: Sequence[Variant], **options: Any) -> ServingPlan:
    """The best plan over all choices of degrees; the bound is the largest of theirs.

    Choices that a bound shows to be no better than the best plan so far are not searched. options:
    those of `plan`; a time limit is shared out. Raises: Infeasible where no choice fits.
    """
    limit = options.pop("time_limit", None)
    begin = time.process_time()
    best: ServingPlan | None = None
    parts: list[dict[str, Any]] = []
    refused: Infeasible | None = None
    interrupted = False
    for at, variant in enumerate(found):
        share = None
        if limit is not None:
            left = limit - (time.process_time() - begin)
            share = max(0.01, left / (len(found) - at))
        try:
            made = plan(
                variant.instance,
                time_limit=share,
                enough=best.value if best else None,
                stop=interrupted,
                **options,
            )
        except Infeasible as error:
            refused = error
            parts.append({"degrees": dict(variant.degrees), "bound": 0.0,
                          "certificate": {"rule": "fits nowhere"}})  # fmt: skip
            continue
        interrupted |= made.interrupted
        parts.append({"degrees": dict(variant.degrees), "bound": made.bound,
                      "certificate": made.certificate})  # fmt: skip
        if best is None or (made.value or 0.0) > (best.value or 0.0):
            best = replace(made, degrees=dict(variant.degrees))
    if best is None:
        assert refused is not None
        raise refused
    bound = max(part["bound"] for part in parts)
    proved = best.value is not None and bound - best.value <= EQUAL * bound
    return replace(
        best,
        bound=bound,
        certificate={"rule": "choices", "parts": parts},
        status=OPTIMAL if proved else best.status if best.value is None else FEASIBLE,
        seconds=time.process_time() - begin,
        interrupted=interrupted,
    )


def plan(
    instance: Instance,
    *,
    objective: str = "tokens",
    time_limit: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    min_tokens: float | None = None,
    enough: float | None = None,
    stop: bool = False,
) -> ServingPlan:
    """Searches for the placement with the most tokens/s.

    time_limit: CPU seconds of this process, checked between steps of the searches; None = a counted
    amount of work, the same plan on every run. Ctrl-C ends the search and returns the best plan so
    far (`interrupted`). min_tokens: with objective "cost", what the plan must carry. enough: a
    value that another instance reaches, so that plans which cannot exceed it are not searched for.
    stop: no search at all, only a bound.
    Raises: Infeasible where proved, InputError for an unknown objective.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"unknown objective {objective!r}", hint=" or ".join(OBJECTIVES))
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"a time limit of {time_limit} s", hint="give more than 0 seconds")
    _must_fit(instance)
    routed = instance.phases is not None and instance.phases.routed
    if objective == "latency" or routed:
        if objective == "cost":
            raise InputError(
                "the least cost is not searched for with split phases or limits on latency",
                hint="leave out limits and split_phases, or use --objective tokens",
            )
        return routed_plan(
            instance, METHODS, objective=objective, time_limit=time_limit, seed=seed,
            progress=progress, min_tokens=min_tokens, stop=stop,
        )  # fmt: skip
    if objective == "cost":
        return cheapest_plan(instance, min_tokens, time_limit, seed, METHODS)
    search = Search(instance, time_limit, seed, progress)
    interrupted = False
    try:
        search.tighten()
        for method in METHODS:
            useless = enough is not None and search.bound.bound <= enough
            if stop or useless or search.proved or search.late():
                break
            method(search)
        search.tighten()
    except KeyboardInterrupt:
        interrupted = True
    return _result(search, interrupted)


def _result(search: Search, interrupted: bool) -> ServingPlan:
    instance = search.instance
    value = float(search.value) if search.value else None
    prices, bound = _verified(search)
    if value is None:
        status = UNKNOWN
    else:
        status = OPTIMAL if bound - value <= EQUAL * bound else FEASIBLE
    return ServingPlan(
        instance=instance.name,
        placement=named(instance, search.placement),
        value=value,
        bound=bound,
        certificate=prices_document(instance, prices),
        status=status,
        method=search.method,
        seconds=search.seconds,
        interrupted=interrupted,
    )


def _verified(search: Search) -> tuple[Prices, float]:
    """The bound as the judge accepts it: what is printed as proved is what was proved.

    The searches add rates in floats. Where several rates make up the bound, their exact sum may be
    an ulp above it, and then the next candidate holds.
    """
    for prices in (search.bound, search.crude):
        document = prices_document(search.instance, prices)
        for above in ROUNDINGS:
            exact = max(search.value, Fraction(prices.bound) * (1 + above))
            bound = rounded_up(exact)
            if refute(search.instance, document, Fraction(bound)) is None:
                return prices, bound
    raise AssertionError("neither the best nor the first bound can be verified")


def _must_fit(instance: Instance) -> None:
    """Raises: Infeasible where no group of joined machines can hold the model and be reached."""
    label = components(instance, 0.0)
    most, why = 0, ""
    for group in range(int(label.max()) + 1):
        members = np.flatnonzero(label == group)
        room = sum(len(instance.table(int(i))) for i in members if max(instance.table(int(i))) > 0)
        reached = (instance.start[members] > 0).any() and (instance.end[members] > 0).any()
        if room >= instance.layers and reached:
            return
        if room >= most:
            most = room
            why = f"{room} layers fit on the {len(members)} machines of the largest joined group"
            if not reached:
                why += ", to or from which the coordinator has no link"
    raise Infeasible(
        f"the model fits nowhere: it has {instance.layers} layers",
        where=instance.name,
        why=why,
        hint="add machines or links, or raise max_layers",
    )
