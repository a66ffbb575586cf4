"""What is wrong with the answers to one random instance, by brute force in exact arithmetic."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from fractions import Fraction

from partition_brute import Brute, batched, decimal, instance

from csp_embed.errors import Infeasible
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.solve import METHODS, solve

LAST = Fraction(1, 2**48)  # relative: the last digits of doubles
COMPLETE = ("auto", "exact")  # methods that must prove the optimum of so few tasks


def faults(seed: int, effort: float = 1.0) -> Iterator[str]:
    """Texts; nothing where every status, bound and objective is right.

    One method beside `auto`, by the seed; every fifth instance is a batch of two or three."""
    graph, platform = instance(seed)
    batch = 2 + seed % 2 if seed % 5 == 0 else 1
    wanted: dict[str, Fraction | None] = {}
    with suppress(OverflowError):  # too many sequences to try
        wanted["latency"] = Brute(batched(graph, batch), platform).latency()
    if batch == 1:
        wanted["throughput"] = Brute(graph, platform).period()
    for objective, want in wanted.items():
        for method in dict.fromkeys(("auto", METHODS[seed % len(METHODS)])):
            where = f"seed {seed} {objective} {method} batch {batch}"
            try:
                plan = solve(
                    graph, platform, objective=objective, method=method, effort=effort, batch=batch
                )
            except Infeasible:
                if want is not None:
                    yield f"{where}: infeasible is said, {float(want)!r} exists"
                continue
            for fault in check_plan(graph, platform, plan) if plan.objective is not None else ():
                yield f"{where}: refused: {fault}"
            figures = f"{plan.status} {plan.objective!r} >= {plan.lower_bound!r}"
            if want is None:
                if plan.objective is not None or method in COMPLETE:
                    yield f"{where}: {figures}, but nothing keeps the constraints"
                continue
            figures += f", least {float(want)!r}"
            if decimal(plan.lower_bound) > want:
                yield f"{where}: a bound above the least: {figures}"
            if plan.objective is not None and decimal(plan.objective) < want * (1 - LAST):
                yield f"{where}: below the least: {figures}"
            best = plan.objective is not None and decimal(plan.objective) <= want * (1 + LAST)
            if plan.status == "OPTIMAL" and not best:
                yield f"{where}: a false proof: {figures}"
            if plan.status != "OPTIMAL" and method in COMPLETE:
                yield f"{where}: no proof: {figures}"
