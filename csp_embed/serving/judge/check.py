"""The judge: verifies a plan's value and its bound in exact rational arithmetic, without a solver.

Takes: an Instance and a plan document.  Leaves: faults; [] = accepted.

It shares no code with the searches. The flow is networkx's on integers; the bound's certificate is
verified by check_prices.py from the statement in docs/serving.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, TypeGuard

import networkx as nx

from csp_embed.serving.instance import Instance
from csp_embed.serving.judge.check_cost import cost_faults
from csp_embed.serving.judge.check_memory import memory_faults
from csp_embed.serving.judge.check_phases import refute_path, refute_phases
from csp_embed.serving.judge.check_prices import refute
from csp_embed.serving.judge.check_routes import limited, route_faults

AGREE = Fraction(1, 10**9)  # a stated value may be rounded by so much, relative


@dataclass(frozen=True)
class Fault:
    """One reason to refuse. kind: format, machine, device, interval, memory, route, load,
    limit, value, bound, certificate, cost."""

    kind: str
    where: str
    text: str


def check(instance: Instance, plan: Mapping[str, Any]) -> list[Fault]:
    """All faults of a plan document (csp-embed-serving/1)."""
    placement, faults = _placement(instance, plan)
    if faults:
        return faults
    value: Any = plan.get("value")
    if not _number(value):
        return [Fault("format", "value", f"{value!r} is not a finite number")]
    faults = [Fault(*fault) for fault in memory_faults(instance, placement)]
    # With routes the value is what they carry, not the flow that would be possible.
    if "routes" in plan:
        return faults + _routed(limited(instance, plan), plan, placement)
    phases = limited(instance, plan).phases
    # The flow knows no seconds: limits can be judged on routes only.
    if phases is not None and phases.limits:
        return [*faults, Fault("format", "routes", "limits on latency need routes")]
    flow = flow_of(instance, placement)
    if abs(Fraction(value) - flow) > AGREE * max(flow, 1):
        faults.append(
            Fault("value", "value", f"stated {value!r}, the placement carries {float(flow)!r}")
        )
    if plan.get("objective") == "cost":
        return faults + [Fault(*fault) for fault in cost_faults(instance, plan, flow)]
    return faults + _bound(instance, plan, flow)


def _routed(
    instance: Instance, plan: Mapping[str, Any], placement: Mapping[int, tuple[int, int]]
) -> list[Fault]:
    """Faults of a plan that says which request goes where."""
    found, carried = route_faults(instance, plan, placement)
    faults = [Fault(*fault) for fault in found]
    value, bound = plan["value"], plan.get("bound")
    if abs(Fraction(value) - carried) > AGREE * max(carried, 1):
        faults.append(
            Fault("value", "value", f"stated {value!r}, the routes carry {float(carried)!r}")
        )
    certificate = plan.get("certificate")
    if plan.get("objective") == "latency":
        wanted = plan.get("min_tokens") or 0
        # The shortest requests must still carry what was asked for.
        if not _number(wanted) or carried < Fraction(wanted) * (1 - AGREE):
            faults.append(Fault("value", "min_tokens", f"carried are {float(carried)!r} only"))
        bound = plan.get("request_s_bound")
        if not _number(plan.get("request_s")):
            faults.append(Fault("format", "request_s", "the time of a request is not stated"))
        elif _number(bound) and bound > plan["request_s"] * (1 + float(AGREE)):
            faults.append(Fault("bound", "request_s_bound", "lies above the time of a request"))
    elif _number(bound) and Fraction(bound) < carried * (1 - AGREE):
        faults.append(Fault("bound", "bound", f"{bound!r} lies below {float(carried)!r}"))
    if bound is not None:
        reason: str | None = "a bound needs a number and a certificate"
        if _number(bound) and isinstance(certificate, Mapping):
            # A certificate is judged by itself: whoever found it may have erred.
            reason = _refuted(instance, plan, certificate, bound)
        if reason is not None:
            faults.append(Fault("certificate", "certificate", reason))
    return faults


def check_choices(choices: Sequence[tuple[int, Instance]], plan: Mapping[str, Any]) -> list[Fault]:
    """The same where one of several batches is chosen: the plan is of one of them, and no choice
    may exceed the bound."""
    # The plan is of exactly one choice.
    own = [instance for batch, instance in choices if batch == plan.get("batch")]
    if len(own) != 1:
        return [Fault("format", "batch", f"no such choice: {plan.get('batch')!r}")]
    latency = plan.get("objective") == "latency"
    key = "request_s_bound" if latency else "bound"
    # Without its bound: that is of all choices together and judged below.
    faults = check(own[0], {**plan, key: None})
    bound, certificate = plan.get(key), plan.get("certificate")
    if faults or bound is None:
        return faults
    if not _number(bound) or not isinstance(certificate, Mapping):
        return [Fault("certificate", "certificate", "a bound needs a number and a certificate")]
    if certificate.get("rule") != "choices" or not isinstance(certificate.get("parts"), list):
        return [Fault("certificate", "certificate", "expected one part for each choice")]
    reached = plan["request_s"] if latency else plan["value"]
    # Latency turns every comparison round: less is better.
    side = -1 if latency else 1
    if side * Fraction(bound) < side * Fraction(reached) * (1 - side * AGREE):
        return [Fault("bound", key, f"{bound!r} lies beyond what the plan reaches")]
    # Each choice needs its own proof, also those that the plan does not use.
    parts = {part.get("batch"): part for part in certificate["parts"]}
    for batch, instance in choices:
        part = parts.get(batch)
        where = f"certificate of batch {batch}"
        if part is None:
            faults.append(Fault("certificate", where, "this choice is not dealt with"))
        elif not _number(part.get("bound")) or side * part["bound"] > side * bound:
            faults.append(Fault("bound", where, "its bound exceeds the plan's"))
        else:
            reason = _refuted(
                limited(instance, plan), plan, part.get("certificate") or {}, part["bound"]
            )
            if reason is not None:
                faults.append(Fault("certificate", where, reason))
    return faults


def _refuted(
    instance: Instance, plan: Mapping[str, Any], certificate: Mapping[str, Any], bound: float
) -> str | None:
    """Why a certificate does not prove a bound of this kind of plan."""
    # Nothing to carry: this rule proves 0 of an instance, whatever the objective.
    if certificate.get("rule") == "fits nowhere":
        return refute(instance, certificate, Fraction(0))
    if plan.get("objective") == "latency":
        return refute_path(instance, certificate, Fraction(bound))
    rule = refute_phases if "routes" in plan else refute
    return rule(instance, certificate, Fraction(bound))


def flow_of(instance: Instance, placement: Mapping[int, tuple[int, int]]) -> Fraction:
    """The maximum flow of a placement (first and last layer, both included), exactly."""
    # Written anew, and not taken from the planner: the two must agree on their own.
    capacities: dict[tuple[Any, Any], Fraction] = {}
    for i, (first, last) in placement.items():
        capacities[("in", i), ("out", i)] = Fraction(instance.table(i)[last - first])
        if first == 0:
            capacities["source", ("in", i)] = Fraction(float(instance.start[i]))
        if last == instance.layers - 1:
            capacities[("out", i), "sink"] = Fraction(float(instance.end[i]))
    capacities |= _partial(instance, placement) if instance.partial else _whole(instance, placement)
    # Floats have powers of two as denominators, so the largest is their common one.
    scale = max((c.denominator for c in capacities.values()), default=1)
    graph = nx.DiGraph()
    graph.add_nodes_from(("source", "sink"))
    for (a, b), capacity in capacities.items():
        # networkx takes an arc without capacity as unlimited; 0 means there is none.
        if capacity:
            # Denominators are powers of two, so this is a whole number.
            graph.add_edge(a, b, capacity=int(capacity * scale))
    return Fraction(nx.maximum_flow_value(graph, "source", "sink"), scale)


def _whole(
    instance: Instance, placement: Mapping[int, tuple[int, int]]
) -> dict[tuple[Any, Any], Fraction]:
    """Links on which machines hand over: one ends where the other begins.

    Where none of the links at a boundary can bind, they meet in one point, which carries the same.
    """
    starts: dict[int, list[int]] = {}
    for j, (first, _) in placement.items():
        starts.setdefault(first, []).append(j)
    stops: dict[int, list[int]] = {}
    for i, (_, last) in placement.items():
        stops.setdefault(last + 1, []).append(i)
    arcs: dict[tuple[Any, Any], Fraction] = {}

    def rate(i: int) -> float:
        first, last = placement[i]
        return instance.table(i)[last - first]

    for layer, senders in stops.items():
        receivers = starts.get(layer, [])
        # One point only where no link of the boundary can bind; else every pair keeps its link.
        free = all(instance.link[i, j] >= min(rate(i), rate(j)) for i in senders for j in receivers)
        for i in senders:
            for j in receivers:
                if free:
                    arcs[("out", i), ("point", layer)] = Fraction(rate(i))
                    arcs[("point", layer), ("in", j)] = Fraction(rate(j))
                else:
                    arcs[("out", i), ("in", j)] = Fraction(float(instance.link[i, j]))
    return arcs


def _partial(
    instance: Instance, placement: Mapping[int, tuple[int, int]]
) -> dict[tuple[Any, Any], Fraction]:
    """With partial inference, j continues wherever i stopped inside j's interval."""
    return {
        (("out", i), ("in", j)): Fraction(float(instance.link[i, j]))
        for i, (_, last_i) in placement.items()
        for j, (first, last) in placement.items()
        if i != j and first <= last_i + 1 <= last
    }


def _placement(
    instance: Instance, plan: Mapping[str, Any]
) -> tuple[dict[int, tuple[int, int]], list[Fault]]:
    rows = plan.get("placement")
    if not isinstance(rows, Mapping):
        return {}, [Fault("format", "placement", "there is no placement")]
    position = {name: i for i, name in enumerate(instance.machines)}
    placement: dict[int, tuple[int, int]] = {}
    faults: list[Fault] = []
    for name, interval in rows.items():
        where = f"placement.{name}"
        if name not in position:
            faults.append(Fault("machine", where, "the instance has no such machine"))
            continue
        # True and False are integers to Python; layers are not.
        if (
            not isinstance(interval, (list, tuple))
            or len(interval) != 2
            or not all(isinstance(x, int) and not isinstance(x, bool) for x in interval)
        ):
            faults.append(Fault("format", where, "expected [first layer, last layer]"))
            continue
        first, last = interval
        i = position[name]
        if not 0 <= first <= last < instance.layers:
            faults.append(
                Fault(
                    "interval", where,
                    f"[{first}, {last}] does not lie in layers 0..{instance.layers - 1}",
                )
            )  # fmt: skip
        elif last - first + 1 > len(instance.table(i)):
            faults.append(
                Fault(
                    "interval", where,
                    f"{last - first + 1} layers do not fit: type "
                    f"{instance.types[int(instance.kind[i])].name} holds up to "
                    f"{len(instance.table(i))}",
                )
            )  # fmt: skip
        else:
            placement[i] = (first, last)
    return placement, faults + _shared(instance, placement)


def _shared(instance: Instance, placement: Mapping[int, tuple[int, int]]) -> list[Fault]:
    """Machines in use that occupy the same device."""
    users: dict[str, str] = {}
    faults = []
    # Two machines on one device cannot both be in use.
    for i in placement if instance.devices is not None else ():
        for device in instance.devices[i]:  # type: ignore[index]
            name = instance.machines[i]
            if users.setdefault(device, name) != name:
                text = f"{users[device]} and {name} both occupy {device}"
                faults.append(Fault("device", f"placement.{name}", text))
    return faults


def _bound(instance: Instance, plan: Mapping[str, Any], flow: Fraction) -> list[Fault]:
    bound = plan.get("bound")
    if bound is None:
        return []
    if not _number(bound):
        return [Fault("format", "bound", f"{bound!r} is not a finite number")]
    # Of the exact flow, not of the stated value.
    if Fraction(bound) < flow * (1 - AGREE):
        return [Fault("bound", "bound", f"{bound!r} lies below the value {float(flow)!r}")]
    certificate = plan.get("certificate")
    if not isinstance(certificate, Mapping):
        return [Fault("certificate", "certificate", "a bound without a certificate proves nothing")]
    reason = refute(instance, certificate, Fraction(bound))
    return [] if reason is None else [Fault("certificate", "certificate", reason)]


def _number(value: Any) -> TypeGuard[float]:
    return (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        # nan is not equal to itself.
        and value == value
        and abs(value) != float("inf")
    )
