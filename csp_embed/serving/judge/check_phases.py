"""Verifies bounds of plans with routes (docs/serving.md): weighted phases, and shortest paths."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from typing import Any

from csp_embed.serving.instance import Delays, Instance, MachineType, Phases, delays
from csp_embed.serving.judge.check_prices import refute


def refute_phases(
    instance: Instance, certificate: Mapping[str, Any], bound: Fraction
) -> str | None:
    """Why the certificate does not prove that no plan with routes carries more than the bound."""
    if certificate.get("rule") != "phases":
        return f"expected a certificate of phases, not {certificate.get('rule')!r}"
    inner = certificate.get("certificate")
    if not isinstance(inner, Mapping):
        return "there are no prices"
    phases = instance.phases
    assert phases is not None
    weight = certificate.get("weight")
    # Without a weight both phases count together, which holds only if they share their machines.
    if weight is None:
        if phases.split:
            return "the phases may be split, so a weight is needed"
        return refute(_together(instance, phases), inner, bound)
    # Between 0 and 1: at the ends one phase would count nothing.
    if isinstance(weight, bool) or not isinstance(weight, (int, float)) or not 0 < weight < 1:
        return f"weight {weight!r} does not lie between 0 and 1"
    return refute(_one_phase(instance, phases, Fraction(weight)), inner, bound)


def _allowed(phases: Phases, kind: int, k: int) -> tuple[Fraction, Fraction]:
    """Rates of prefill and decode, 0 where the machine alone exceeds a limit."""
    p, d = Fraction(phases.prefill[kind][k]), Fraction(phases.decode[kind][k])
    if (
        p > 0
        and phases.first_s < math.inf
        # A hair more than the limit: the planner compares in floats.
        and Fraction(phases.prompt) > p * Fraction(phases.first_s) * (1 + Fraction(1, 10**9))
    ):
        p = Fraction(0)
    if (
        d > 0
        and phases.token_s < math.inf
        and Fraction(phases.step[kind][k]) > Fraction(phases.token_s) * (1 + Fraction(1, 10**9))
    ):
        d = Fraction(0)
    return p, d


def _together(instance: Instance, phases: Phases) -> Instance:
    types = []
    for kind, own in enumerate(instance.types):
        # A machine that exceeds a limit with k layers carries nothing with them.
        usable = [min(_allowed(phases, kind, k)) > 0 for k in range(len(own.table))]
        table = tuple(rate if ok else 0.0 for rate, ok in zip(own.table, usable, strict=True))
        types.append(MachineType(own.name, table))
    return replace(instance, types=tuple(types))


def _one_phase(instance: Instance, phases: Phases, weight: Fraction) -> Instance:
    """One phase in which a machine carries no less than in both, and links no less."""
    p, o = Fraction(phases.prompt), Fraction(phases.output)
    types = []
    for kind, own in enumerate(instance.types):
        table = []
        for k in range(len(own.table)):
            fast, steady = _allowed(phases, kind, k)
            table.append(_above(max(weight * fast / p, (1 - weight) * steady / o) * (p + o)))
        types.append(MachineType(own.name, tuple(table)))
    # Links carry p tokens of a prompt or o of an output: the larger share bounds both.
    wider = _above((p + o) * max(weight / p, (1 - weight) / o)) * (1 + 1e-9)
    return replace(
        instance, types=tuple(types), link=instance.link * wider, start=instance.start * wider,
        end=instance.end * wider,
    )  # fmt: skip


def _above(value: Fraction) -> float:
    near = float(value)
    # Upwards only: a table that is rounded down would prove too much.
    while Fraction(near) < value:
        near = math.nextafter(near, math.inf)
    return near


def refute_path(instance: Instance, certificate: Mapping[str, Any], bound: Fraction) -> str | None:
    """Why the certificate does not prove that every request takes the bound or longer."""
    try:
        if certificate["rule"] != "path":
            return f"expected a certificate of paths, not {certificate['rule']!r}"
        phases = instance.phases
        assert phases is not None
        # Split phases: prefill and decode are paths of their own, whose times add up.
        ways = ("prefill", "decode") if phases.split else ("both",)
        proved = sum((_least(instance, certificate[way], way) for way in ways), Fraction(0))
    except (KeyError, TypeError, ValueError, AttributeError, ZeroDivisionError) as error:
        return f"not of the stated form: {error!r}"
    if bound > proved:
        return f"the prices prove {float(proved)!r} s, not {float(bound)!r}"
    return None


def _least(instance: Instance, prices: Mapping[str, Any], way: str) -> Fraction:
    """Least seconds of a path with a price on every use of a machine, less all prices."""
    paid = {name: Fraction(price) for name, price in prices.items()}
    # A negative price would pay a path for a machine.
    if set(paid) != set(instance.machines) or any(price < 0 for price in paid.values()):
        raise ValueError("not one price of at least 0 for every machine")
    # A set: machines alike are looked at once.
    ways: set[tuple[Any, ...]] = set()
    late = delays(instance)
    assert instance.phases is not None
    passes = [_passes(instance.phases, kind) for kind in range(len(instance.types))]
    for i, name in enumerate(instance.machines):
        ways.add((*_machine(instance, late, passes, i, way), paid[name]))
    # Shortest path over layers: every machine may be used again, which only makes it shorter.
    best: list[Fraction | None] = [None] * (instance.layers + 1)
    for layer in range(instance.layers):
        for seconds, hop, start, end, price in ways:
            # The first machine gets its tokens from the coordinator.
            enter = start if layer == 0 else hop
            before = Fraction(0) if layer == 0 else best[layer]
            if enter is None or before is None:
                continue
            for k, own in enumerate(seconds[: instance.layers - layer], start=1):
                last = layer + k == instance.layers
                if own is None or (last and end is None):
                    continue
                total = before + enter + own + price + (end if last else 0)
                known = best[layer + k]
                if known is None or total < known:
                    best[layer + k] = total
    if best[-1] is None:
        raise ValueError("no path holds all layers")
    return best[-1] - sum(paid.values())


def _machine(
    instance: Instance, late: Delays, passes: Sequence[Fraction], i: int, way: str
) -> tuple[Any, ...]:
    """(seconds by layers held, least of a hop to it, from and to the coordinator); None: never.

    passes: by type, tokens that a decode step hands on at least."""
    phases, kind = instance.phases, int(instance.kind[i])
    assert phases is not None
    # The first token comes with the prompt: one step less than output tokens.
    rest = max(Fraction(0), Fraction(phases.output) - 1)
    prompt = Fraction(phases.prompt)

    def mixed(first: Fraction, token: Fraction) -> Fraction:
        return {"prefill": first, "decode": rest * token, "both": first + rest * token}[way]

    seconds: list[Fraction | None] = []
    for k in range(len(instance.types[kind].table)):
        fast, steady = _allowed(phases, kind, k)
        if (way != "decode" and fast <= 0) or (way != "prefill" and steady <= 0):
            seconds.append(None)
        else:
            step = Fraction(phases.step[kind][k]) if steady > 0 else Fraction(0)
            seconds.append(mixed(prompt / fast if fast > 0 else Fraction(0), step))
    # Who computes k layers may hold more, and then takes the time of those.
    if instance.partial:
        for k in range(len(seconds) - 2, -1, -1):
            known = [x for x in seconds[k : k + 2] if x is not None]
            seconds[k] = min(known, default=None)

    def over(capacity: float, delay: float, sender: int) -> Fraction | None:
        if capacity <= 0:
            return None
        c, s = Fraction(float(capacity)), Fraction(float(delay))
        # What a decode step passes depends on the sender's type.
        return mixed(s + prompt / c, s + passes[sender] / c)

    # Alike ones once: exact fractions of every pair of 200 machines take seconds.
    senders = {
        (float(instance.link[j, i]), float(late.link[j, i]), int(instance.kind[j]))
        for j in range(instance.size)
        if instance.link[j, i] > 0
    }
    hops = [over(*sender) for sender in senders]
    return (
        tuple(seconds),
        min((h for h in hops if h is not None), default=None),
        over(instance.start[i], late.start[i], kind),
        over(instance.end[i], late.end[i], kind),
    )


def _passes(phases: Phases, kind: int) -> Fraction:
    """Tokens that a decode step hands on, at least."""
    return min(
        (
            Fraction(d) * Fraction(s)
            for d, s in zip(phases.decode[kind], phases.step[kind], strict=True)
            if d > 0
        ),
        default=Fraction(1),
    )
