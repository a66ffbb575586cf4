"""Stages: machines side by side with the same interval, as building blocks of plans.

Takes: classes of interchangeable machines (by table and by a label, e.g. a region).  Leaves: the
sets of machines that, holding k layers each, carry a rate R together. Only minimal sets: dropping
a machine goes below R.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from csp_embed.serving.instance import Floats, Instance, Ints


@dataclass(frozen=True)
class Class:
    """Machines that may take each other's place: positions, the table they share, and the price
    of one of them (from the bound; 0 = unknown)."""

    members: tuple[int, ...]
    table: tuple[float, ...]
    label: int = 0
    price: float = 0.0


@dataclass(frozen=True)
class Stage:
    """`layers` held by counts[(class, machines)]; rate = what they carry together."""

    layers: int
    counts: tuple[tuple[int, int], ...]
    rate: float
    price: float

    @property
    def width(self) -> int:
        """Machines side by side."""
        return sum(n for _, n in self.counts)


def classes_of(
    instance: Instance, labels: Sequence[int] | Ints | None = None, price: Floats | None = None
) -> list[Class]:
    """Machines of equal table and label; with `price` of each machine, also of equal price."""
    # Also by price: the bound may tell equal machines of different links apart.
    groups: dict[tuple[int, int, float], list[int]] = {}
    for i in range(instance.size):
        label = 0 if labels is None else int(labels[i])
        cost = 0.0 if price is None else float(price[i])
        groups.setdefault((int(instance.kind[i]), label, cost), []).append(i)
    return [
        Class(tuple(members), instance.types[kind].table, label, cost)
        for (kind, label, cost), members in groups.items()
    ]


def stages(
    classes: Sequence[Class],
    rate: float,
    waste: float,
    share: float = 1.0,
    most: int = 3000,
    widest: int = 8,
) -> list[Stage]:
    """Minimal stages that carry `rate`, and cost at most share * layers + waste in prices.

    A plan's waste (prices paid less layers got) adds up over its stages and cannot exceed what all
    machines cost less L, so the filter drops no stage that a plan of this rate could use. Of more
    than `most`, those with the least waste stay.
    """
    found: list[Stage] = []
    longest = max((len(c.table) for c in classes), default=0)
    for k in range(1, longest + 1):
        usable = [
            (c, cl.table[k - 1], cl.price, len(cl.members))
            for c, cl in enumerate(classes)
            if len(cl.table) >= k and cl.table[k - 1] > 0
        ]
        # By price per rate, then the stronger ones: the limit then cuts early.
        usable.sort(key=lambda u: (u[2] / u[1], -u[1], u[0]))
        # A stage may waste no more than the whole plan.
        limit = share * k + waste
        # A hair less: rates that make it up exactly may add up to a little below.
        _grow(usable, rate * (1 - 1e-12), limit, k, widest, found, most * 4)
    # By waste: what is cut off at `most` is what a plan could least use.
    found.sort(key=lambda s: (s.price - share * s.layers, s.width, -s.rate))
    return found[:most]


def priced_stages(
    classes: Sequence[Class], slope: Sequence[float], rate: float, waste: float, most: int
) -> list[Stage]:
    """As `stages`, where a class also pays `slope` times the share of the flow that it carries;
    equally many for each number of layers held."""
    longest = max((len(c.table) for c in classes), default=0)
    found: list[Stage] = []
    for k in range(1, longest + 1):
        usable = []
        for c, cl in enumerate(classes):
            if len(cl.table) >= k and (value := cl.table[k - 1]) > 0:
                # As if it carried all it can; what it really carries is known with the others.
                price = max(1e-9, cl.price + slope[c] * min(1.0, value / rate))
                usable.append((c, value, price, len(cl.members)))
        usable.sort(key=lambda u: (u[2] / u[1], -u[1], u[0]))
        own: list[Stage] = []
        # More than asked for: the exact price below throws some away.
        _grow(usable, rate * (1 - 1e-12), k + waste, k, 8, own, 2 * most)
        for stage in own:
            cost = _with_flow(classes, slope, stage, rate)
            if cost <= k + waste:
                found.append(Stage(k, stage.counts, stage.rate, cost))
    found.sort(key=lambda s: (s.price - s.layers, s.width, -s.rate))
    return found[:most]


def _with_flow(
    classes: Sequence[Class], slope: Sequence[float], stage: Stage, rate: float
) -> float:
    """Prices of a stage's machines, and the least that its flow pays."""
    cost, left = 0.0, 1.0
    # Flow goes through the cheapest first: the least that the stage pays.
    for c, n in sorted(stage.counts, key=lambda item: slope[item[0]]):
        share = min(left, n * classes[c].table[stage.layers - 1] / rate)
        cost += n * classes[c].price + share * slope[c]
        left -= share
    return cost


def _grow(
    usable: list[tuple[int, float, float, int]],
    rate: float,
    limit: float,
    k: int,
    widest: int,
    found: list[Stage],
    most: int,
) -> None:
    """Depth first over classes in the order of price per rate; `least` bounds what is missing."""
    density = [price / value for _, value, price, _ in usable]
    stack: list[tuple[int, tuple[tuple[int, int], ...], float, float, int, float]] = [
        (0, (), 0.0, 0.0, 0, np.inf)
    ]
    steps = 0
    while stack and len(found) < most and steps < 200_000:
        steps += 1
        at, counts, got, paid, width, smallest = stack.pop()
        if at == len(usable):
            continue
        # Even at the best price per rate what is missing costs too much.
        if paid + (rate - got) * density[at] > limit + 1e-9:
            continue
        c, value, price, room = usable[at]
        for n in range(min(room, widest - width) + 1):
            total, cost = got + n * value, paid + n * price
            if cost > limit + 1e-9:
                break
            taken = (*counts, (c, n)) if n else counts
            least = min(smallest, value) if n else smallest
            if total >= rate:
                if total - least < rate:  # minimal: every machine is needed
                    found.append(Stage(k, taken, total, cost))
                # More machines of this class would not be needed.
                break
            stack.append((at + 1, taken, total, cost, width + n, least))
