"""Verifies what a plan of least cost claims: its tokens/s, its price, and the bound on the price.

The bound: if every set of machines that carries `min_tokens` is worth t or more, where a machine of
worth m with k layers counts m / k, the machines in use are worth L t or more in all, so they cost
L t less what the worths exceed the prices by, or more.
"""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction
from typing import Any

from csp_embed.serving.instance import Instance
from csp_embed.serving.judge.check_prices import grouped, no_set_below

NEAR = Fraction(1, 10**9)


def cost_faults(
    instance: Instance, plan: Mapping[str, Any], flow: Fraction
) -> list[tuple[str, str, str]]:
    """(kind, where, text) of every false claim."""
    try:
        return _faults(instance, plan, flow)
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        return [("certificate", "cost", f"not of the stated form: {error!r}")]


def _faults(
    instance: Instance, plan: Mapping[str, Any], flow: Fraction
) -> list[tuple[str, str, str]]:
    if instance.price is None:
        return [("cost", "cost", "the instance states no prices")]
    # As the numbers that the file states, exactly.
    wanted, stated = Fraction(plan["min_tokens"]), Fraction(plan["cost"])
    faults = []
    if flow < wanted * (1 - NEAR):
        faults.append(("value", "min_tokens", f"the plan carries {float(flow)!r} only"))
    position = {name: i for i, name in enumerate(instance.machines)}
    # Prices of machines in use, whether or not anything flows through them.
    paid = sum(Fraction(float(instance.price[position[m]])) for m in plan["placement"])
    if abs(stated - paid) > NEAR * max(paid, 1):
        faults.append(("cost", "cost", f"the machines in use cost {float(paid)!r}"))
    bound = Fraction(plan["cost_bound"])
    if bound > paid * (1 + NEAR):
        faults.append(("bound", "cost_bound", "lies above the cost"))
    # A bound of 0 needs no proof.
    if bound > 0:
        reason = _bound(instance, plan["certificate"], wanted, bound)
        if reason is not None:
            faults.append(("certificate", "certificate", reason))
    return faults


def _bound(
    instance: Instance, certificate: Mapping[str, Any], wanted: Fraction, bound: Fraction
) -> str | None:
    assert instance.price is not None
    if certificate["rule"] != "worth":
        return f"unknown rule {certificate['rule']!r}"
    groups = grouped(instance, certificate)
    if isinstance(groups, str):
        return groups
    # Any `least` is allowed; whether it holds is what is searched for below.
    least = Fraction(certificate["least"])
    # "At least `wanted`" as "more than a little less".
    reason = no_set_below(instance, groups, wanted * (1 - NEAR / 1000), least)
    if reason is not None:
        return reason
    over = sum(
        max(Fraction(0), worth - Fraction(float(instance.price[i])))
        for members, worth in groups
        for i in members
    )
    # What the machines must be worth, less what their worths exceed their prices by.
    proved = instance.layers * least - over
    if bound > max(proved, Fraction(0)):
        return f"the worths prove {float(proved)!r}, not {float(bound)!r}"
    return None
