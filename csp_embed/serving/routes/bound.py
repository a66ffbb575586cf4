"""Bounds on plans with routes.

Two phases. Weigh a prompt's request by w and a generated one's by 1 - w. In every layer the
requests/s of either phase add up to R, and a machine that gives its time to both carries at most
max(w P / p, (1 - w) D / o) of the weighted sum. So R (p + o) is at most what prices prove for one
phase with the tables

    T(k) = (p + o) max(w P(k) / p, (1 - w) D(k) / o);

links carry p tokens of one and o of the other, so at most s = (p + o) max(w / p, (1 - w) / o) times
their capacity. The best w is searched for. Without split phases the tables of both phases together
hold. Entries whose own time exceeds a limit are 0.

Shortest requests. Machines of one group (of equal times) stand in a route at most n times; with a
price per use, the shortest path over layers less n times the prices is a lower bound.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any

import numpy as np

from csp_embed.serving.bounds.relaxation import Prices, Relaxation, lower
from csp_embed.serving.instance import Delays, Instance, MachineType, delays
from csp_embed.solver.lp import Row, duals

WEIGHTS = (0.1, 0.25, 0.4, 0.55, 0.7, 0.85)
REFINED = 6  # more weights, around the best
STEPS = 200  # paths from which the prices of uses are found


def weighted(instance: Instance, weight: float | None) -> Instance:
    """The instance of one phase that bounds both. weight: None = phases are not split."""
    phases = instance.phases
    assert phases is not None
    types = []
    for kind, own in enumerate(instance.types):
        table = []
        for k, both in enumerate(own.table):
            p, d = phases.prefill[kind][k], phases.decode[kind][k]
            # Entries that alone exceed a limit carry nothing in any plan.
            fast = p > 0 and phases.prompt / p <= phases.first_s
            steady = d > 0 and phases.step[kind][k] <= phases.token_s
            if weight is None:
                table.append(both if fast and steady else 0.0)
                continue
            # Exact: the table must not come out below what the judge computes.
            w = Fraction(weight)
            rate = max(
                w * Fraction(p) / Fraction(phases.prompt) if fast else Fraction(0),
                (1 - w) * Fraction(d) / Fraction(phases.output) if steady else Fraction(0),
            )
            table.append(up(rate * (Fraction(phases.prompt) + Fraction(phases.output))))
        types.append(MachineType(own.name, tuple(table), own.origin))
    # Unsplit phases keep the tables of both together.
    if weight is None:
        return replace(instance, types=tuple(types))
    s = (phases.prompt + phases.output) * max(weight / phases.prompt, (1 - weight) / phases.output)
    s *= 1 + 1e-9  # links may only become wider by rounding
    return replace(
        instance, types=tuple(types), link=instance.link * s, start=instance.start * s,
        end=instance.end * s,
    )  # fmt: skip


def up(value: Fraction) -> float:
    """The least float that is not below."""
    near = float(value)
    return near if Fraction(near) >= value else math.nextafter(near, math.inf)


@dataclass(frozen=True)
class PhaseBound:
    """weight of the prompts (None: not split), the instance that it makes, its best prices."""

    weight: float | None
    instance: Instance
    relaxation: Relaxation
    prices: Prices


def phase_bound(
    instance: Instance, floor: float, crude: Any, late: Callable[[], bool] = lambda: False
) -> PhaseBound:
    """crude: the first bound of a relaxation (search.work_bound). late: whether to be content with
    what there is."""
    assert instance.phases is not None

    def at(weight: float | None) -> PhaseBound:
        # A weight changes all tables, so the relaxation is made anew.
        made = weighted(instance, weight)
        relaxation = Relaxation(made)
        prices = lower(relaxation, floor, crude(relaxation), late)
        return PhaseBound(weight, made, relaxation, prices)

    if not instance.phases.split:
        return at(None)
    # Any weight gives a bound; the best one is looked for from coarse to fine.
    found = sorted((at(w) for w in WEIGHTS), key=lambda b: b.prices.bound)
    best, width = found[0], 0.08
    for _ in range(REFINED // 2):
        if late():
            break
        assert best.weight is not None
        # Outside 0 … 1 there is no weight.
        near = [at(w) for w in (best.weight - width, best.weight + width) if 0 < w < 1]
        best = min([best, *near], key=lambda b: b.prices.bound)
        width /= 2
    return best


@dataclass(frozen=True)
class PathGroup:
    """Machines alike for a path: seconds by layers held, of a hop to them, from and to the
    coordinator (inf: no link)."""

    members: tuple[int, ...]
    seconds: tuple[float, ...]
    hop: float
    start: float
    end: float


def path_groups(instance: Instance, phase: str) -> list[PathGroup]:
    """phase: prefill, decode, or both (one route for both)."""
    assert instance.phases is not None
    late = delays(instance)
    found: dict[tuple[Any, ...], list[int]] = {}
    # Tokens that a step passes differ by sender, and none passes fewer than this.
    passes = [_least_passed(instance, j) for j in range(instance.size)]
    for i in range(instance.size):
        hops = [
            _hop(instance, phase, float(instance.link[j, i]), float(late.link[j, i]), passes[j])
            for j in range(instance.size)
            if instance.link[j, i] > 0
        ]
        # The least of all hops to it: a path may come from anywhere.
        ends = _ends(instance, late, i, phase, passes[i])
        # Alike in all these: one group, whose members the price treats alike.
        key = (_seconds(instance, i, phase), min(hops, default=math.inf), *ends)
        found.setdefault(key, []).append(i)
    return [PathGroup(tuple(m), *key) for key, m in found.items()]


def shortest(
    groups: Sequence[PathGroup], layers: int, price: Sequence[float]
) -> tuple[float, list[int]]:
    """(least seconds of a path with a price per use, how often it uses each group)."""
    best = [math.inf] * (layers + 1)
    came: list[tuple[int, int]] = [(-1, -1)] * (layers + 1)
    for layer in range(layers):
        for g, group in enumerate(groups):
            # The first machine gets its tokens from the coordinator, the others over a link.
            enter = group.start if layer == 0 else best[layer] + group.hop
            if enter == math.inf:
                continue
            for k, seconds in enumerate(group.seconds[: layers - layer]):
                end = layer + k + 1
                # Each use pays its group's price: few machines again and again become dear.
                total = enter + seconds + price[g] + (group.end if end == layers else 0.0)
                if total < best[end]:
                    best[end], came[end] = total, (layer, g)
    # Back along the path, counting uses.
    uses, at = [0] * len(groups), layers
    while at > 0 and came[at][1] >= 0:
        at, g = came[at]
        uses[g] += 1
    return best[layers], uses


def path_bound(
    instance: Instance, phase: str, late: Callable[[], bool] = lambda: False
) -> tuple[float, list[PathGroup], list[float]]:
    """(seconds that no request of this phase undercuts, groups, price of a use of each). late:
    whether to be content with what there is."""
    groups = path_groups(instance, phase)
    room = np.array([len(g.members) for g in groups], float)
    price = np.zeros(len(groups))
    best, kept = -math.inf, price
    known: dict[tuple[int, ...], float] = {}  # uses of each group -> least seconds of such a path
    for _ in range(STEPS):
        # A path in this relaxation may use a machine more often than it can.
        total, uses = shortest(groups, instance.layers, price.tolist())
        if total == math.inf:
            # No path at all, at any price.
            return math.inf, groups, price.tolist()
        # Lagrange: less what all machines may be used for; any prices give a bound.
        if total - float(price @ room) > best:
            best, kept = total - float(price @ room), price
        # The same uses again: prices cannot improve any more.
        if tuple(uses) in known or late():
            break
        known[tuple(uses)] = total - float(price @ np.array(uses))
        found = _prices(known, room)
        if found is None:
            break
        price = found
    # Few digits: the judge adds them up as decimals.
    rounded = [round(float(p), 12) for p in kept]
    total, _ = shortest(groups, instance.layers, rounded)
    return total - float(np.array(rounded) @ room), groups, rounded


def _prices(known: dict[tuple[int, ...], float], room: np.ndarray) -> np.ndarray | None:
    """What a use of each group is worth: duals of the best mixture of paths that uses no group more
    often than it has machines."""
    paths = list(known)
    n = len(paths)
    rows: list[Row] = []
    for g, most in enumerate(room):
        using = [(at, float(path[g])) for at, path in enumerate(paths) if path[g]]
        at = np.array([a for a, _ in using], np.int64)
        rows.append((at, np.array([v for _, v in using]), float(most)))
    # A dear way out keeps the program solvable until enough paths are known.
    dear = 10 * max(known.values()) + 1e-9
    objective = np.array([*known.values(), dear])
    return duals(objective, rows, [(np.arange(n + 1), np.ones(n + 1), 1.0)])


def _seconds(instance: Instance, i: int, phase: str) -> tuple[float, ...]:
    phases, kind = instance.phases, int(instance.kind[i])
    assert phases is not None
    rest = max(0.0, phases.output - 1)
    found = []
    for p, d, step in zip(
        phases.prefill[kind], phases.decode[kind], phases.step[kind], strict=True
    ):
        first = phases.prompt / p if p > 0 else math.inf
        first = math.inf if first > phases.first_s else first
        token = rest * step if d > 0 and step <= phases.token_s else math.inf
        found.append({"prefill": first, "decode": token, "both": first + token}[phase])
    if instance.partial:  # a part of the layers takes the time of all of them
        for k in range(len(found) - 2, -1, -1):
            found[k] = min(found[k], found[k + 1])
    return tuple(found)


def _least_passed(instance: Instance, i: int) -> float:
    """Tokens that a decode step hands on, at least."""
    phases, kind = instance.phases, int(instance.kind[i])
    assert phases is not None
    return min(
        (d * s for d, s in zip(phases.decode[kind], phases.step[kind], strict=True) if d > 0),
        default=1.0,
    )


def _hop(instance: Instance, phase: str, capacity: float, late: float, passes: float) -> float:
    phases = instance.phases
    assert phases is not None
    first = late + phases.prompt / capacity
    token = max(0.0, phases.output - 1) * (late + passes / capacity)
    return {"prefill": first, "decode": token, "both": first + token}[phase]


def _ends(
    instance: Instance, late: Delays, i: int, phase: str, passes: float
) -> tuple[float, float]:
    pairs = ((instance.start[i], late.start[i]), (instance.end[i], late.end[i]))
    return tuple(
        _hop(instance, phase, float(c), float(s), passes) if c > 0 else math.inf for c, s in pairs
    )  # type: ignore[return-value]
