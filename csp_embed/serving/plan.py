"""The planner: all searches in turn, and the best plan with what proves its bound.

Takes: an Instance (or a file).  Leaves: a ServingPlan; whatever ends the run, the best plan so far.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from csp_embed.errors import Infeasible, InputError
from csp_embed.serving.bounds.cost import least_cost
from csp_embed.serving.combine import (
    fewest_machines,
    islands,
    of_batches,
    of_devices,
    of_islands,
    on_the_way,
)
from csp_embed.serving.files.load import Variant, variants
from csp_embed.serving.files.plan_file import ServingPlan, named, prices_document, rounded_up
from csp_embed.serving.instance import Instance
from csp_embed.serving.judge.check_prices import refute
from csp_embed.serving.routes.plan import phases_bound, routed_plan, shortest_bound
from csp_embed.serving.searches.chains import aligned, tracks
from csp_embed.serving.searches.cheapest import cheapest_plan
from csp_embed.serving.searches.first import first
from csp_embed.serving.searches.polish import polish
from csp_embed.serving.searches.regions import regions
from csp_embed.serving.searches.search import EQUAL, Progress, Search
from csp_embed.serving.searches.sparse import sparse
from csp_embed.serving.searches.wide import wide
from csp_embed.solver.status import FEASIBLE, OPTIMAL, UNKNOWN

SEARCHING = 0.92  # of the time limit; the rest is for the bound
# What may be added to a bound until its exact sum is below it.
ROUNDINGS = (Fraction(0), Fraction(1, 10**14), Fraction(1, 10**12), Fraction(1, 10**9))
OBJECTIVES = ("tokens", "latency", "cost")
# In the order in which they are tried; each returns at once where it has nothing to offer.
METHODS: tuple[Callable[[Search], None], ...] = (regions, aligned, wide, tracks, sparse, polish)


def serve(
    instance: Instance | Mapping[str, Any] | str | Path,
    *,
    platform: str | None = None,
    **options: Any,
) -> ServingPlan:
    """A placement of a model's layers on unequal machines, with a proved bound on the best.

    instance: an Instance, or a layer-placement-1 or csp-embed-cluster/1 document or file of it.
    platform: a platform file of the partitioner for the cluster's machines. options: those of
    `plan`. Raises: InputError, Infeasible.
    """
    # An Instance has no choice of batches.
    if isinstance(instance, Instance):
        return plan(instance, **options)
    if not isinstance(instance, (Mapping, str, Path)):
        raise InputError(
            f"instance is {instance!r}",
            where="instance",
            why="an Instance, a document or the name of a file is wanted",
            hint="csp_embed.serve('cluster.yaml')",
        )
    return best_of(variants(instance, platform), **options)


def best_of(found: Sequence[Variant], **options: Any) -> ServingPlan:
    """The best plan over all batches on offer. options: those of `plan`."""
    # A single instance needs no certificate over choices.
    if len(found) > 1:
        return of_batches(found, plan, **options)
    return replace(plan(found[0].instance, **options), batch=found[0].batch)


def plan(
    instance: Instance,
    *,
    objective: str = "tokens",
    time_limit: float | None = None,
    seed: int = 0,
    progress: Progress | None = None,
    min_tokens: float | None = None,
    first_token_s: float | None = None,
    token_s: float | None = None,
    stop: bool = False,
) -> ServingPlan:
    """Searches for the best placement.

    objective: "tokens", the most tokens/s; "latency", the shortest requests, with at least
    min_tokens (0); "cost", the cheapest machines that carry min_tokens. first_token_s, token_s:
    seconds that a request alone may take to its first token and for each further one. time_limit:
    seconds since the call, checked between steps of the searches; None = a counted amount of
    work, the same plan on every run. Ctrl-C ends the search and returns the best plan so far
    (`interrupted`).
    stop: no search at all, only a bound.
    Raises: Infeasible where proved, InputError for options that say nothing.
    """
    if objective not in OBJECTIVES:
        raise InputError(f"unknown objective {objective!r}", hint=" or ".join(OBJECTIVES))
    if time_limit is not None and not time_limit > 0:
        raise InputError(f"a time limit of {time_limit} s", hint="give more than 0 seconds")
    # An option without effect would be taken for one with.
    if min_tokens is not None and objective == "tokens":
        raise InputError(
            "min_tokens has no effect on the most tokens/s",
            hint="--objective latency or --objective cost",
        )
    instance = _limited(instance, first_token_s, token_s)
    routed = instance.phases is not None and instance.phases.routed
    if objective == "cost" and routed:
        raise InputError(
            "the least cost is not searched for with split phases or limits on latency",
            hint="leave out limits and split_phases, or use --objective tokens",
        )
    # Proved infeasible before any search, with what is missing.
    must_fit(instance)
    options = _Options(objective, time_limit, seed, progress, min_tokens)
    # Machines that exclude each other come first: everything below assumes that none do.
    if instance.devices is not None:
        return _exclusive(instance, options, stop)
    return _plain(instance, options, stop)


def _limited(instance: Instance, first_s: float | None, token_s: float | None) -> Instance:
    """The instance with these limits, where they are tighter than its own."""
    phases = instance.phases
    for name, value in (("first_token_s", first_s), ("token_s", token_s)):
        if value is not None and not 0 < value < float("inf"):
            raise InputError(f"{name} {value}", hint="a number of seconds above 0")
    if phases is None or (first_s is None and token_s is None):
        return instance
    first_s = phases.first_s if first_s is None else min(first_s, phases.first_s)
    token_s = phases.token_s if token_s is None else min(token_s, phases.token_s)
    return replace(instance, phases=replace(phases, first_s=first_s, token_s=token_s))


@dataclass(frozen=True)
class _Options:
    objective: str
    time_limit: float | None
    seed: int
    progress: Progress | None
    min_tokens: float | None


def _exclusive(instance: Instance, options: _Options, stop: bool) -> ServingPlan:
    """Machines that share devices: the best over sets of them that do not, and a bound on all."""
    begin = time.perf_counter()
    made = of_devices(
        instance,
        # Later sets of machines must beat the earlier ones.
        lambda part, limit, enough: _plain(part, replace(options, time_limit=limit), stop, enough),
        options.time_limit,
    )
    # The bound is of all machines, not of the set that was chosen.
    more: dict[str, Any] = {}
    if options.objective == "latency":
        bound, certificate = shortest_bound(instance)
        more["request_s_bound"] = bound
        reached, proved = made.more.get("request_s"), bound
    elif options.objective == "cost":
        assert options.min_tokens is not None
        bound, certificate = least_cost(instance, options.min_tokens)
        more["cost_bound"] = bound
        reached, proved = made.more.get("cost"), bound
    elif "routes" in made.more or (instance.phases is not None and instance.phases.routed):
        bound, certificate = phases_bound(instance, made.value or 0.0)
        reached, proved, more["bound"] = bound, made.value, bound
    else:
        # A bound towards the value that was found: its prices are looked for there.
        search = Search(instance)
        search.value = Fraction(made.value or 0.0)
        search.tighten()
        bound, certificate = _verified(search)
        reached, proved, more["bound"] = bound, made.value, bound
    # Both are floats: equal is what differs by less than they can tell.
    done = reached is not None and proved is not None and reached - proved <= EQUAL * reached
    status = UNKNOWN if made.value is None else OPTIMAL if done else FEASIBLE
    return replace(
        made,
        instance=instance.name,
        bound=more.pop("bound", None),
        certificate=certificate,
        more={**made.more, **more},
        status=status,
        seconds=time.perf_counter() - begin,
    )


def _plain(instance: Instance, options: _Options, stop: bool, enough: float = 0.0) -> ServingPlan:
    """Machines that exclude nobody. enough: plans of no more tokens/s are not searched for."""
    # Limits and split phases need routes.
    if options.objective == "latency" or (instance.phases is not None and instance.phases.routed):
        return routed_plan(
            instance, METHODS, objective=options.objective, time_limit=options.time_limit,
            seed=options.seed, progress=options.progress, min_tokens=options.min_tokens, stop=stop,
        )  # fmt: skip
    if options.objective == "cost":
        return cheapest_plan(
            instance, options.min_tokens, options.time_limit, options.seed, METHODS
        )
    # Nothing flows between islands: planned apart, their sums are exact.
    parts = islands(instance)
    if len(parts) > 1:
        return of_islands(instance, parts, lambda part, limit: _plain(
            part, replace(options, time_limit=limit), stop), options.time_limit)  # fmt: skip
    search = Search(instance, options.time_limit, options.seed, options.progress)
    interrupted = False
    try:
        if not stop:
            # Before the bound, which takes seconds with many machines: whatever ends the run then
            # finds a plan to keep.
            first(search)
        search.tighten()
        for method in METHODS:
            # A part that cannot beat what another set of machines reached.
            useless = search.most <= enough
            if stop or useless or search.proved or search.late(SEARCHING):
                break
            method(search)
        # Once more: with a better plan the bound has less far to fall.
        search.tighten()
    except KeyboardInterrupt:
        interrupted = True
    return _result(search, interrupted)


def _result(search: Search, interrupted: bool) -> ServingPlan:
    instance = search.instance
    # A value of 0 is no plan.
    value = float(search.value) if search.value else None
    bound, certificate = _verified(search)
    if value is None:
        status = UNKNOWN
    else:
        status = OPTIMAL if bound - value <= EQUAL * bound else FEASIBLE
    return ServingPlan(
        instance=instance.name,
        placement=named(instance, search.placement),
        value=value,
        bound=bound,
        certificate=certificate,
        status=status,
        method=search.method,
        seconds=search.seconds,
        interrupted=interrupted,
    )


def _verified(search: Search) -> tuple[float, dict[str, Any]]:
    """The bound as the judge accepts it: what is printed as proved is what was proved.

    The searches add rates in floats. Where several rates make up the bound, their exact sum may be
    an ulp above it, and then the next candidate holds.
    """
    # The coordinator's own limit, where that is tighter: no prices are needed.
    if search.ceiling <= search.bound.bound:
        bound = max(rounded_up(search.value), search.ceiling)
        certificate: dict[str, Any] = {"rule": "coordinator"}
        if refute(search.instance, certificate, Fraction(bound)) is None:
            return bound, certificate
    # The searched prices, then the crude ones, which surely hold.
    for prices in (search.bound, search.crude):
        certificate = prices_document(search.instance, prices)
        for above in ROUNDINGS:
            exact = max(search.value, Fraction(prices.bound) * (1 + above))
            bound = rounded_up(exact)
            # Asked of the judge itself: what it refuses is never printed.
            if refute(search.instance, certificate, Fraction(bound)) is None:
                return bound, certificate
    raise AssertionError("neither the best nor the first bound can be verified")


def must_fit(instance: Instance) -> None:
    """Raises: Infeasible where no group of joined machines can hold the model and be reached."""
    most, why = 0, ""
    # One island must hold all layers: what is apart cannot be joined.
    for members in islands(instance):
        usable = on_the_way(instance, members)
        room = sum(len(instance.table(i)) for i in usable)
        hops = fewest_machines(instance, usable)
        if room >= instance.layers >= hops:
            return
        # The largest island tells what is missing.
        all_room = sum(len(instance.table(i)) for i in members if max(instance.table(i)) > 0)
        if all_room >= most:
            most = all_room
            why = f"{room} layers fit on the {len(usable)} machines of the largest joined group"
            if all_room > room:
                why += " that lie on a way from the coordinator and back to it"
            elif room >= instance.layers:
                why = f"every way through machines and back to the coordinator has {hops} or more"
    raise Infeasible(
        f"the model fits nowhere: it has {instance.layers} layers",
        where=instance.name,
        why=why,
        hint="add machines or links, or raise max_layers",
    )
