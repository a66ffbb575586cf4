"""Verifies plans with routes: every route, every load, both limits, and what they add up to.

Rules, all in exact arithmetic (a relative 1e-9 is allowed for rounding):

    route     machines that hold all layers one after another, joined by links, from and to the
              coordinator; prefill and decode on the same ones unless the phases may be split
    time      sum over routes of r (p / P + o / D) <= 1 on every machine
    link      sum over routes of r (p or o tokens, and p c per layer whose cache moves) <= capacity
    limits    prompt and decode step of each route alone
    value     (p + o) sum r; or the mean seconds of a request alone on its route
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from typing import Any

from csp_embed.serving.instance import Delays, Instance, Phases, delays

NEAR = Fraction(1, 10**9)
Found = tuple[str, str, str]  # kind, where, text


def limited(instance: Instance, plan: Mapping[str, Any]) -> Instance:
    """The instance with the limits that the plan was made for, where they are tighter."""
    limits = plan.get("limits")
    if not isinstance(limits, Mapping) or instance.phases is None:
        return instance
    kept = {}
    for key, name in (("first_token_s", "first_s"), ("token_s", "token_s")):
        value = limits.get(key, math.inf)
        own = getattr(instance.phases, name)
        # Tighter only: a plan may promise more than the instance asks, never less.
        kept[name] = min(own, float(value)) if _number(value) else own
    return replace(instance, phases=replace(instance.phases, **kept))


def route_faults(
    instance: Instance, plan: Mapping[str, Any], placement: Mapping[int, tuple[int, int]]
) -> tuple[list[Found], Fraction]:
    """(faults of the routes, tokens/s that they carry). placement: first and last layer."""
    assert instance.phases is not None
    # A file may hold anything.
    try:
        return _faults(instance, plan, placement)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        return [("route", "routes", f"not of the stated form: {error!r}")], Fraction(0)


def _faults(
    instance: Instance, plan: Mapping[str, Any], placement: Mapping[int, tuple[int, int]]
) -> tuple[list[Found], Fraction]:
    phases, late = instance.phases, delays(instance)
    assert phases is not None
    position = {name: i for i, name in enumerate(instance.machines)}
    load: dict[tuple[Any, ...], Fraction] = {}
    faults: list[Found] = []
    total, weighed = Fraction(0), Fraction(0)
    for at, entry in enumerate(plan["routes"]):
        where = f"routes[{at}]"
        rate = Fraction(entry["requests_per_s"])
        if rate < 0:
            return [("route", where, "a negative rate")], Fraction(0)
        # Without `decode` both phases take the same way.
        ways = [entry["prefill"], entry.get("decode", entry["prefill"])]
        paths = [[position[str(m)] for m in way] for way in ways]
        for path in paths:
            reason = _path(instance, placement, path)
            if reason:
                return [("route", where, reason)], Fraction(0)
        # Only split phases may part.
        if paths[0] != paths[1] and not phases.split:
            return [("route", where, "prefill and decode differ, but phases are not split")], total
        # Loads add up over routes: machines and links are shared.
        walk = _Walk(instance, phases, late, placement)
        seconds = walk.go(paths[0], paths[1], rate, load)
        if seconds is None:
            return [("route", where, walk.reason)], Fraction(0)
        first, token, moved = seconds
        for name, taken, limit in (
            ("first token", first, phases.first_s), ("token", token, phases.token_s)
        ):  # fmt: skip
            # A hair more than the limit, for times that were added up in floats.
            if limit < math.inf and taken > Fraction(limit) * (1 + NEAR):
                faults.append(("limit", where, f"a {name} takes {float(taken):.6g} s"))
        total += rate
        # Further tokens: the first one comes with the prompt.
        rest = max(Fraction(0), Fraction(phases.output) - 1)
        weighed += rate * (first + moved + rest * token)
    # After all routes: a machine that one of them may load is full with two.
    faults += _overloads(instance, load)
    stated = plan.get("request_s")
    mean = weighed / total if total else Fraction(0)
    # Stated means of requests are those of the routes, weighed by rate.
    if stated is not None and abs(Fraction(stated) - mean) > NEAR * max(mean, NEAR):
        faults.append(("value", "request_s", f"the routes take {float(mean)!r} s"))
    return faults, total * (Fraction(phases.prompt) + Fraction(phases.output))


def _path(
    instance: Instance, placement: Mapping[int, tuple[int, int]], path: Sequence[int]
) -> str | None:
    """Why these machines are no pipeline."""
    if not path or any(i not in placement for i in path):
        return "a machine of the route holds no layers"
    if placement[path[0]][0] != 0 or instance.start[path[0]] <= 0:
        return "the route does not begin at the first layer with a link from the coordinator"
    if placement[path[-1]][1] != instance.layers - 1 or instance.end[path[-1]] <= 0:
        return "the route does not end at the last layer with a link to the coordinator"
    # Hand-over at the end of a machine's interval; with partial inference anywhere inside the next.
    for a, b in pairwise(path):
        after, (first, last) = placement[a][1] + 1, placement[b]
        joined = first <= after <= last if instance.partial else first == after
        if not joined:
            return f"{instance.machines[b]} does not go on where {instance.machines[a]} ends"
        if instance.link[a, b] <= 0:
            return f"no link from {instance.machines[a]} to {instance.machines[b]}"
    return None


class _Walk:
    """Adds up what one route uses and takes."""

    def __init__(
        self,
        instance: Instance,
        phases: Phases,
        late: Delays,
        placement: Mapping[int, tuple[int, int]],
    ):
        self.instance, self.phases, self.late, self.placement = instance, phases, late, placement
        self.reason = ""

    def go(
        self,
        prefill: Sequence[int],
        decode: Sequence[int],
        rate: Fraction,
        load: dict[tuple[Any, ...], Fraction],
    ) -> tuple[Fraction, Fraction, Fraction] | None:
        """(seconds to the first token, per token, to move caches); loads are added to `load`."""
        p, o = Fraction(self.phases.prompt), Fraction(self.phases.output)
        times = [Fraction(0), Fraction(0)]
        for phase, path, tokens in ((0, prefill, p), (1, decode, o)):
            for i in path:
                speed, step = self._speed(i, phase)
                if speed <= 0:
                    self.reason = f"{self.instance.machines[i]} has a rate of 0"
                    return None
                # Time of the machine per request; at 1 it is busy all the time.
                _add(load, ("machine", i), rate * tokens / speed)
                times[phase] += p / speed if phase == 0 else step
            hops: list[tuple[Any, ...]] = [("start", path[0])]
            hops += [("link", a, b) for a, b in pairwise(path)]
            for hop in [*hops, ("end", path[-1])]:
                _add(load, hop, rate * tokens)
                # A link waits for the whole prompt, or for what one step passes.
                amount = p
                if phase == 1:
                    speed, step = self._speed(hop[1], 1)
                    amount = speed * step
                times[phase] += self._wait(hop, amount)
        moved = Fraction(0)
        # Caches move once per request, in pieces that go the same way.
        for layer, pair in self._moves(prefill, decode):
            if self.phases.cache is None or self.instance.link[pair[0], pair[1]] <= 0:
                self.reason = f"the cache of layer {layer[0]} cannot move between its machines"
                return None
            weight = p * Fraction(self.phases.cache) * len(layer)
            _add(load, ("link", *pair), rate * weight)
            moved += self._wait(("link", *pair), weight)
        return times[0], times[1], moved

    def _speed(self, i: int, phase: int) -> tuple[Fraction, Fraction]:
        """(tokens/s, seconds of a decode step) of machine i with what it holds."""
        kind, k = int(self.instance.kind[i]), self.placement[i][1] - self.placement[i][0]
        tables = self.phases.prefill if phase == 0 else self.phases.decode
        speed = Fraction(tables[kind][k])
        # A machine that cannot decode has no step.
        return speed, Fraction(self.phases.step[kind][k]) if speed > 0 else Fraction(0)

    def _wait(self, hop: tuple[Any, ...], tokens: Fraction) -> Fraction:
        seconds = getattr(self.late, hop[0])[hop[1:]]
        return Fraction(float(seconds)) + tokens / _capacity(self.instance, hop)

    def _moves(
        self, prefill: Sequence[int], decode: Sequence[int]
    ) -> list[tuple[list[int], tuple[int, int]]]:
        """(layers, (from, to)) whose caches move, from the machine of each layer in each phase."""
        held = [self._holders(path) for path in (prefill, decode)]
        moves: list[tuple[list[int], tuple[int, int]]] = []
        for layer, pair in enumerate(zip(*held, strict=True)):
            if pair[0] == pair[1]:
                # Layers next to each other between the same two machines move as one piece.
                continue
            if moves and moves[-1][1] == pair and moves[-1][0][-1] == layer - 1:
                moves[-1][0].append(layer)
            else:
                moves.append(([layer], pair))
        return moves

    def _holders(self, path: Sequence[int]) -> list[int]:
        """The machine that computes each layer."""
        held: list[int] = []
        for i in path:
            # With partial inference the next machine begins where the last one stopped.
            held += [i] * (self.placement[i][1] + 1 - len(held))
        return held


def _add(load: dict[tuple[Any, ...], Fraction], key: tuple[Any, ...], amount: Fraction) -> None:
    load[key] = load.get(key, Fraction(0)) + amount


def _capacity(instance: Instance, resource: tuple[Any, ...]) -> Fraction:
    if resource[0] == "machine":
        return Fraction(1)
    return Fraction(float(getattr(instance, resource[0])[resource[1:]]))


def _overloads(instance: Instance, load: Mapping[tuple[Any, ...], Fraction]) -> list[Found]:
    faults = []
    for resource, total in load.items():
        capacity = _capacity(instance, resource)
        if total > capacity * (1 + NEAR):
            names = " ".join(instance.machines[i] for i in resource[1:])
            share = float(total / capacity) if capacity else math.inf
            faults.append(("load", f"{resource[0]} {names}", f"used {share:.9g} times over"))
    return faults


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and value == value
