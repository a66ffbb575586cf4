"""The cheapest machines that serve so many tokens/s, with a bound on the least price.

The bound is the relaxation of relaxation.py with prices to pay: sets S of machines carry the layers
at rate F, machines may be bought in part,

    min sum_c p_c z_c,   sum_S y_S sum_{(c,k) in S} 1/k <= z_c <= n_c,   sum_S y_S = L.

Duals m say what a machine is worth. If every set that carries F is worth t or more (a machine with
k layers m/k), the machines used are worth L t or more in all, and cost at least
L t - sum_i max(0, m_i - p_i).
"""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from itertools import combinations
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.serving.bounds.covers import cheapest, items_of
from csp_embed.serving.instance import Instance, part_of
from csp_embed.solver.lp import Row, duals

NODES = 400_000
FEW = 6  # machines of which all sets are tried
DECIMALS = 10**6  # of the worths in a certificate


def least_cost(instance: Instance, tokens: float) -> tuple[float, dict[str, Any]]:
    """(a price that no plan of so many tokens/s undercuts, its certificate)."""
    assert instance.price is not None
    # Equal machines at equal prices are worth the same: one variable for all of them.
    members: dict[tuple[tuple[float, ...], float], list[int]] = {}
    for i, table in enumerate(instance.reachable_tables()):
        members.setdefault((table, float(instance.price[i])), []).append(i)
    groups = list(members.values())
    price = np.array([p for _, p in members])
    room = np.array([len(g) for g in groups])
    rate, cls, held = items_of([t for t, _ in members], room)
    # "At least so many" as "more than a little less", which is what the covering search knows.
    below = tokens * (1 - 1e-12)
    worth = np.zeros(len(groups))
    columns: list[np.ndarray] = []
    # Column generation: each round adds the set that is cheapest under the worths so far.
    for _ in range(400):
        fixed = worth[cls] / held
        # By cost per rate, as the covering search wants it; of equal ones those with more rate
        # first.
        order = np.lexsort((-rate, fixed / rate))
        _, depth, chosen, _, finished = cheapest(
            rate[order], cls[order], fixed[order], np.zeros(len(order)), room, below, 0.0, 1e300,
            NODES,
        )  # fmt: skip
        if not finished or not depth:
            break
        share = np.zeros(len(groups))
        for i in order[chosen[:depth]]:
            share[cls[i]] += 1 / held[i]
        # The same set again: these worths are the best that there are.
        if any(np.array_equal(share, c) for c in columns):
            break
        columns.append(share)
        found = _worth(columns, price, room, instance.layers)
        if found is None:
            break
        worth = found
    # Whatever the worths, they prove something: a search cut short still gives a bound.
    return _certified(instance, groups, price, room, worth, (rate, cls, held), below)


def _worth(columns: list[Any], price: Any, room: Any, layers: int) -> Any:
    """Duals of the program over these sets; None where they cannot carry all layers."""
    n, c = len(columns), len(price)
    rows: list[Row] = []
    for g in range(c):
        using = [(at, float(col[g])) for at, col in enumerate(columns) if col[g]]
        at = np.array([a for a, _ in using] + [n + g], np.int64)
        # Column n + g is what is bought of a group: its price is in the objective.
        rows.append((at, np.array([v for _, v in using] + [-1.0]), 0.0))
    # A dear way out keeps the program solvable until enough sets are known.
    dear = 1e3 * (1 + float(price.max())) * layers
    rows += [(np.array([n + g]), np.ones(1), float(room[g])) for g in range(c)]
    whole: Row = (np.append(np.arange(n), n + c), np.ones(n + 1), float(layers))
    found = duals(np.concatenate([np.zeros(n), price, [dear]]), rows, [whole])
    return None if found is None else found[:c]


def _certified(
    instance: Instance, groups: Any, price: Any, room: Any, worth: Any, items: Any, below: float
) -> tuple[float, dict[str, Any]]:
    """The bound of rounded worths, with the least that a set is worth at them."""
    rate, cls, held = items
    # Few decimals keep the judge's fractions short; rounded worths prove their own bound.
    rounded = np.round(worth * DECIMALS) / DECIMALS
    fixed = rounded[cls] / held
    order = np.lexsort((-rate, fixed / rate))
    _, depth, chosen, _, finished = cheapest(
        rate[order], cls[order], fixed[order], np.zeros(len(order)), room, below, 0.0, 1e300, NODES
    )
    # The same rounding as above, now exact.
    exact = [Fraction(round(float(w) * DECIMALS), DECIMALS) for w in worth]
    # Exactly what the least set is worth; 0 proves nothing where the search was cut short.
    t = Fraction(0)
    if finished:
        t = sum((exact[cls[i]] / int(held[i]) for i in order[chosen[:depth]]), Fraction(0))
    # What a group's machines are worth above their price is no cost that anybody pays.
    over = sum(
        max(Fraction(0), m - Fraction(float(p))) * int(n)
        for m, p, n in zip(exact, price, room, strict=True)
    )
    bound = max(Fraction(0), instance.layers * t - over)
    certificate = {
        "rule": "worth",
        "least": str(t),
        "groups": [
            {"machines": [instance.machines[i] for i in g], "price": str(m)}
            for g, m in zip(groups, exact, strict=True)
        ],
    }
    near = float(bound)
    # A float that is rounded up would claim more than is proved.
    return near if Fraction(near) <= bound else float(np.nextafter(near, 0)), certificate


def cost_of(instance: Instance, machines: Any) -> Fraction:
    """What these machines (positions) cost in an hour, exactly."""
    assert instance.price is not None
    # Prices as the floats that they are: sums are then exact.
    return sum((Fraction(float(instance.price[i])) for i in machines), Fraction(0))


def thin_out(
    instance: Instance,
    tokens: float,
    carried: Callable[[Instance], dict[int, tuple[int, int]] | None],
    placement: dict[int, tuple[int, int]],
    proved: Callable[[Fraction], bool],
) -> dict[int, tuple[int, int]]:
    """Drops machines as long as the rest still carries enough, the dearest sets first.

    carried: a placement of so many tokens/s on an instance, or None. One machine of each kind (and
    every pair of kinds) is tried; a plan that a bound proves ends it.
    """
    assert instance.price is not None
    # 2^6 sets: cheaper to try all than to search.
    if instance.size <= FEW:
        return _every(instance, carried, placement)
    best = placement
    tried: set[tuple[int, ...]] = set()
    improved = True
    # Ends at a price that the bound proves: nothing cheaper exists.
    while improved and not proved(cost_of(instance, best)):
        improved = False
        for kept in _smaller(instance, sorted(best)):
            if tuple(kept) in tried:
                # Sets come up again from other plans; what failed once fails again.
                continue
            tried.add(tuple(kept))
            found = carried(part_of(instance, kept))
            if found is not None:
                back = {kept[i]: interval for i, interval in found.items()}
                # The part may have left machines unused, so its own price counts, not that of the
                # set.
                if cost_of(instance, back) < cost_of(instance, best):
                    best, improved = back, True
                    break
    return best


def _every(
    instance: Instance,
    carried: Callable[[Instance], dict[int, tuple[int, int]] | None],
    placement: dict[int, tuple[int, int]],
) -> dict[int, tuple[int, int]]:
    """Few machines: all sets of them, cheapest first."""
    everyone = range(instance.size)
    sets = [list(c) for n in range(1, instance.size + 1) for c in combinations(everyone, n)]
    limit = cost_of(instance, placement)
    for kept in sorted(sets, key=lambda s: (cost_of(instance, s), s)):
        # Sorted by price: no later one is cheaper either.
        if cost_of(instance, kept) >= limit:
            break
        found = carried(part_of(instance, kept))
        if found is not None:
            return {kept[i]: interval for i, interval in found.items()}
    return placement


def _smaller(instance: Instance, used: list[int]) -> list[list[int]]:
    """Cheaper sets: without one machine, or with one swapped for a cheaper one; cheapest first."""
    assert instance.price is not None
    price = instance.price
    others = [i for i in range(instance.size) if i not in set(used)]
    sets: dict[tuple[int, ...], float] = {}
    for out in used:
        rest = [i for i in used if i != out]
        sets[tuple(rest)] = float(price[rest].sum())
        for new in others:
            if price[new] < price[out]:
                swapped = sorted([*rest, new])
                sets[tuple(swapped)] = float(price[swapped].sum())
    ordered = sorted(sets, key=lambda s: (sets[s], s))
    # Each one is a whole search: only the cheapest few are worth it.
    return [list(s) for s in ordered[:60]]


def must_have_prices(instance: Instance, tokens: float | None) -> float:
    """The tokens/s asked for. Raises: InputError where they or the prices are missing."""
    if instance.price is None:
        raise InputError(
            "the machines have no prices",
            where=instance.name,
            hint="price_per_hour of every machine in nodes (or of every server)",
        )
    if tokens is None or not 0 < tokens < float("inf"):
        raise InputError(
            "the least cost of how many tokens/s?", hint="--min-tokens, a number above 0"
        )
    return tokens
