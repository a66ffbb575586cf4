"""Plans put together from plans of parts: batches, islands, machines that share devices."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

import numpy as np

from csp_embed.errors import Infeasible, InputError
from csp_embed.serving.files.load import Variant
from csp_embed.serving.files.plan_file import ServingPlan, rounded_up
from csp_embed.serving.flow import max_flow
from csp_embed.serving.instance import Instance, part_of
from csp_embed.serving.searches.exclusive import best_part
from csp_embed.serving.searches.search import EQUAL, components
from csp_embed.solver.status import FEASIBLE, OPTIMAL, UNKNOWN

NOWHERE = {"rule": "fits nowhere"}


def of_batches(
    found: Sequence[Variant], plan: Callable[..., ServingPlan], **options: Any
) -> ServingPlan:
    """The best plan over all batches; the bound is the best of theirs.

    options: of `plan`; a time limit is shared out. Raises: Infeasible where no choice fits.
    """
    if options.get("objective") == "cost":
        raise InputError(
            "the least cost over several batches is not searched for",
            hint="state one batch in the workload",
        )
    limit = options.pop("time_limit", None)
    begin = time.perf_counter()
    made: list[ServingPlan] = []
    parts: list[dict[str, Any]] = []
    refused: Infeasible | None = None
    latency = options.get("objective") == "latency"
    for at, variant in enumerate(found):
        # What a batch does not use goes to the ones behind it.
        left = None if limit is None else limit - (time.perf_counter() - begin)
        share = None if left is None else max(0.01, left / (len(found) - at))
        # After Ctrl-C the rest are bounded but not searched.
        stop = any(p.interrupted for p in made)
        try:
            own = plan(variant.instance, time_limit=share, stop=stop, **options)
        except Infeasible as error:
            refused = error
            # A batch that fits nowhere carries 0: proved by its own certificate.
            parts.append({"batch": variant.batch, "bound": None if latency else 0.0,
                          "certificate": NOWHERE})  # fmt: skip
            continue
        made.append(replace(own, batch=variant.batch))
        bound = own.more.get("request_s_bound") if latency else own.bound
        parts.append({"batch": variant.batch, "bound": bound, "certificate": own.certificate})
    if not made:
        assert refused is not None
        raise refused
    best = _best_batch(made, parts, latency)
    return replace(
        best,
        certificate={"rule": "choices", "parts": parts},
        seconds=time.perf_counter() - begin,
        interrupted=any(p.interrupted for p in made),
    )


def _best_batch(
    made: Sequence[ServingPlan], parts: Sequence[dict[str, Any]], latency: bool
) -> ServingPlan:
    """The best of these plans, with the bound of all."""
    # A bound on all choices is the worst of theirs, seen from the objective.
    bounds = [part["bound"] for part in parts if part["bound"] is not None]
    if latency:
        best = min(made, key=lambda p: p.more.get("request_s", math.inf))
        bound, reached = min(bounds, default=None), best.more.get("request_s")
        proved = bool(reached and bound is not None and reached - bound <= EQUAL * reached)
        best = replace(best, more={**best.more, "request_s_bound": bound})
    else:
        best = max(made, key=lambda p: p.value or 0.0)
        bound = max(bounds)
        proved = best.value is not None and bound - best.value <= EQUAL * bound
        best = replace(best, bound=bound)
    # Without a plan its status is UNKNOWN, whatever the bound.
    if best.value is None:
        return best
    return replace(best, status=OPTIMAL if proved else FEASIBLE)


def islands(instance: Instance) -> list[list[int]]:
    """Machines joined by links, either way; nothing flows between two of these."""
    label = components(instance, 0.0)
    return [np.flatnonzero(label == g).tolist() for g in range(int(label.max()) + 1)]


def on_the_way(instance: Instance, members: Sequence[int]) -> list[int]:
    """Those that can carry something, on some way from the coordinator and back to it."""
    # A table of zeros stands for a machine on which not one layer fits.
    able = np.array([max(instance.table(i)) > 0 for i in range(instance.size)])
    inside = np.zeros(instance.size, bool)
    inside[list(members)] = True
    reached = able & inside
    # Forward from the coordinator, and backward from it: what both reach is on a way.
    for ends, links in ((instance.start, instance.link), (instance.end, instance.link.T)):
        seen = (ends > 0) & able & inside
        front = seen
        while front.any():
            front = (links[front] > 0).any(axis=0) & able & inside & ~seen
            seen = seen | front
        reached = reached & seen
    return np.flatnonzero(reached).tolist()


def fewest_machines(instance: Instance, usable: Sequence[int]) -> int:
    """Of a pipeline through these; each holds one layer or more. 0 where there are none."""
    inside = np.zeros(instance.size, bool)
    inside[list(usable)] = True
    front = (instance.start > 0) & inside
    seen, steps = front, 1
    # Breadth first: the first end that is met has the fewest machines.
    while front.any():
        if (instance.end[front] > 0).any():
            return steps
        front = (instance.link[front] > 0).any(axis=0) & inside & ~seen
        seen, steps = seen | front, steps + 1
    return 0


def of_islands(
    instance: Instance,
    parts: Sequence[list[int]],
    plan: Callable[[Instance, float | None], ServingPlan],
    limit: float | None,
) -> ServingPlan:
    """Plans of islands beside each other: values and bounds add up."""
    begin = time.perf_counter()
    placement: dict[str, tuple[int, int]] = {}
    rows: list[dict[str, Any]] = []
    bound, interrupted, methods = Fraction(0), False, []
    for at, members in enumerate(parts):
        names = [instance.machines[i] for i in members]
        usable = on_the_way(instance, members)
        room = sum(len(instance.table(i)) for i in usable)
        # Too little room, or more machines on every way than layers to give them.
        if not room >= instance.layers >= fewest_machines(instance, usable):
            rows.append({"machines": names, "bound": 0.0, "certificate": NOWHERE})
            continue
        left = None if limit is None else limit - (time.perf_counter() - begin)
        share = None if left is None else max(0.01, left / (len(parts) - at))
        own = plan(part_of(instance, members), share)
        interrupted |= own.interrupted
        assert own.bound is not None
        # Exact sums: bounds of parts as floats would round.
        bound += Fraction(own.bound)
        rows.append({"machines": names, "bound": own.bound, "certificate": own.certificate})
        if own.value is not None:
            placement |= own.placement
            methods.append(own.method)
    position = {name: i for i, name in enumerate(instance.machines)}
    # Valued anew on the whole: what is printed is what the judge finds.
    flow = max_flow(instance, {position[m]: (a, b + 1) for m, (a, b) in placement.items()})
    value = float(flow.value) if placement else None
    # Never below the value, however both were rounded.
    total = rounded_up(max(bound, flow.value))
    if value is None:
        status = UNKNOWN
    else:
        status = OPTIMAL if total - value <= EQUAL * total else FEASIBLE
    return ServingPlan(
        instance=instance.name,
        placement=placement,
        value=value,
        bound=total,
        certificate={"rule": "islands", "parts": rows},
        status=status,
        method=" + ".join(dict.fromkeys(methods)) or "none",
        seconds=time.perf_counter() - begin,
        interrupted=interrupted,
    )


def of_devices(
    instance: Instance,
    plan: Callable[[Instance, float | None, float], ServingPlan],
    limit: float | None,
) -> ServingPlan:
    """The best plan over sets of machines that share no device (its bound is of one set only).

    plan: of a part, with a time limit and a value that must be exceeded."""
    begin = time.perf_counter()
    best: ServingPlan | None = None
    refused: list[Infeasible] = []

    def late() -> bool:
        # A little before the limit, so that the bound has time.
        out_of_time = limit is not None and time.perf_counter() - begin > limit * 0.9
        return out_of_time or (best is not None and best.interrupted)

    def tried(machines: list[int]) -> float:
        nonlocal best
        left = None if limit is None else max(0.02, limit - (time.perf_counter() - begin))
        # Without devices: among these machines nothing excludes anything.
        part = replace(part_of(instance, machines), devices=None)
        try:
            # A third of what is left: more sets are to come.
            made = plan(
                part, None if left is None else left / 3, (best.value or 0.0) if best else 0.0
            )
        except Infeasible as error:
            refused.append(error)
            # Another set may fit where this one does not.
            return -math.inf
        if best is None or _score(made) > _score(best):
            # Once interrupted, always: the flag of an earlier part must not be lost.
            best = replace(made, interrupted=made.interrupted or (best or made).interrupted)
        elif made.interrupted:
            best = replace(best, interrupted=True)
        return _score(made)

    best_part(instance, tried, late)
    if best is None:
        raise refused[0]
    return best


def _score(plan: ServingPlan) -> float:
    if plan.value is None:
        return -math.inf
    if "request_s" in plan.more:
        return -float(plan.more["request_s"])
    if "cost" in plan.more:
        return -float(plan.more["cost"])
    return plan.value
