"""Searches for plans on networks in which links do not matter: stages, and two tracks."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csp_embed.serving.bounds.covers import cheapest
from csp_embed.serving.searches.aligned import Chain, choose
from csp_embed.serving.searches.assign import assign
from csp_embed.serving.searches.patterns import Class, Stage, classes_of, stages
from csp_embed.serving.searches.search import Search, in_order

DIVISIONS = 40  # ways to divide the rate that one program may combine


def aligned(search: Search) -> None:
    """Stages of machines side by side, as many as make up all layers."""
    # These plans ask nothing of links.
    if not search.open:
        return

    def attempt(rate: float) -> bool:
        found = _composition(search, rate)
        if found is None:
            return False
        classes, whole, _, _ = found
        chain = choose(classes, search.instance.layers, whole, seconds=search.left)
        # The order of stages does not matter here: any one is as good.
        return chain is not None and _offer(search, classes, chain, rate, "stages")

    search.climb(attempt)


def tracks(search: Search) -> None:
    """A long interval with a small rate beside a chain that carries the rest."""
    if not search.open:
        return

    def attempt(rate: float) -> bool:
        found = _composition(search, rate)
        if found is None:
            return False
        classes, whole, price, waste = found
        pairs = []
        # Not every rate: those at which some machine is used wholly.
        for thin in _rates(classes, rate):
            pair = _pair(classes, price, waste, rate, thin)
            if pair is not None:
                pairs.append(pair)
        # Divisions that lose nothing by the prices come first; one program may use several.
        pairs.sort(key=lambda p: p[0])
        tracks = [stages_ for _, stages_ in pairs[:DIVISIONS]]
        # More effort than for one track: the program has many more stages.
        chain = choose(
            classes, search.instance.layers, whole, tracks, effort=4.0, seconds=search.left
        )
        return chain is not None and _offer(search, classes, chain, rate, "two tracks")

    search.climb(attempt, steps=10)


def arrange(
    search: Search,
    classes: Sequence[Class],
    chosen: Sequence[Stage],
    rate: float,
    seed: int,
    moves: int,
    method: str,
    fixed_order: bool = False,
) -> bool:
    """Machines and order for a chain of stages; whether the plan carries `rate`."""
    placement, _ = assign(
        search.instance, classes, chosen, rate, search.seed + seed, moves, fixed_order
    )
    # Valued exactly: the annealing only guessed.
    return search.offer(placement, method) >= rate * (1 - 1e-12)


def _offer(
    search: Search, classes: Sequence[Class], chain: Chain, rate: float, method: str
) -> bool:
    return search.offer(in_order(classes, chain), method) >= rate * (1 - 1e-12)


def _composition(
    search: Search, rate: float
) -> tuple[list[Class], list[Stage], np.ndarray, float] | None:
    """Classes with prices, and the stages that a plan of this rate can use."""
    guide = search.relaxation.guide(rate)
    # No price, no filter: stages could not be listed.
    if guide is None:
        return None
    price, waste = guide
    classes = classes_of(search.instance, price=price)
    # A little more waste than proved, for rounding.
    return classes, stages(classes, rate, waste + 1e-6), price, waste


def _rates(classes: Sequence[Class], rate: float) -> list[float]:
    """Rates that a thin track may have: of one machine, or what one leaves to be carried."""
    found = set()
    for cl in classes:
        for value in cl.table:
            if 0 < value < rate / 2:
                found.add(value)
            elif rate / 2 < value < rate:
                # What such a machine leaves over is a thin track.
                found.add(rate - value)
    return sorted(found)


def _pair(
    classes: Sequence[Class], price: np.ndarray, waste: float, rate: float, thin: float
) -> tuple[float, tuple[list[Stage], list[Stage]]] | None:
    """(waste per layer, stages of the thin and the thick track); None where too dear."""
    least = [_least(classes, r) for r in (thin, rate - thin)]
    # By the prices both together cost 1 per layer or more: less is rounding.
    lost = max(0.0, sum(least) - 1.0)
    if lost > waste + 1e-6:
        return None
    # The thin track needs few machines, so few stages are enough.
    slim = stages(classes, thin, waste + 1e-6, least[0], 200, 3)
    fat = stages(classes, rate - thin, waste + 1e-6, least[1], 1000)
    return (lost, (slim, fat)) if slim and fat else None


def _least(classes: Sequence[Class], rate: float) -> float:
    """The least price per layer of anything that carries `rate`."""
    values, cls, fixed = [], [], []
    for c, cl in enumerate(classes):
        for k, value in enumerate(cl.table):
            if value > 0:
                values.append(value)
                cls.append(c)
                fixed.append(cl.price / (k + 1))
    order = np.argsort(np.array(fixed) / np.array(values), kind="stable")
    cost, _, _, _, finished = cheapest(
        np.array(values)[order], np.array(cls)[order], np.array(fixed)[order],
        np.zeros(len(values)), np.array([len(c.members) for c in classes]),
        rate * (1 - 1e-9), 0.0, 1e9, 100_000,
    )  # fmt: skip
    # A search cut short gives no least price: 0 excludes nothing.
    return float(cost) if finished else 0.0
