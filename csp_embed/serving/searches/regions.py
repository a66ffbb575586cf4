"""Searches for plans over regions: fast links inside, slow ones between.

One chain of stages visits regions in some order. Where it crosses, a single slow link may carry
too little; then several machines stand side by side at the crossing, on one end or on both, and
the links between them add up. An integer program chooses the stages of every region and the widths
at every crossing; assign.py chooses the machines.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice, pairwise, permutations, product
from typing import Any

import numpy as np

from csp_embed.serving.instance import Instance, Ints
from csp_embed.serving.searches.aligned import choose
from csp_embed.serving.searches.chains import arrange
from csp_embed.serving.searches.patterns import Class, Stage, classes_of, stages
from csp_embed.serving.searches.search import Search, components

MANY = 5  # regions that are tried in every order; of more, the largest
ORDERS = 120
WIDEST = 4  # machines side by side at a crossing


def regions(search: Search) -> None:
    """One chain through several regions, widened where it crosses."""

    def attempt(rate: float) -> bool:
        label = components(search.instance, rate)
        # Regions depend on the rate: what is slower than it does not join. One region is the other
        # searches' work; with very many hardly two machines share one.
        if not 1 < label.max() + 1 <= search.instance.size // 2:
            return False
        guide = search.relaxation.guide(rate)
        if guide is None:
            return False
        price, waste = guide
        classes = classes_of(search.instance, label, price)
        chosen = [s for group in _inside(classes, rate, waste + 1e-6) for s in group]
        return any(
            _one_order(search, classes, label, chosen, order, rate)
            for order in islice(_orders(classes, search.instance.layers), ORDERS)
            if not search.late()
        )

    search.climb(attempt, steps=12)


def _inside(classes: Sequence[Class], rate: float, waste: float) -> Iterator[list[Stage]]:
    """Stages of machines of one region each, with positions in `classes`."""
    for region in sorted({c.label for c in classes}):
        own = [at for at, c in enumerate(classes) if c.label == region]
        for stage in stages([classes[at] for at in own], rate, waste, widest=WIDEST):
            # `stages` numbers classes within the region.
            counts = tuple((own[c], n) for c, n in stage.counts)
            yield [Stage(stage.layers, counts, stage.rate, stage.price)]


def _orders(classes: Sequence[Class], layers: int) -> Iterator[tuple[int, ...]]:
    """Sequences of regions that hold the model, shortest first."""
    room: dict[int, int] = {}
    for c in classes:
        room[c.label] = room.get(c.label, 0) + len(c.members) * len(c.table)
    # Orders grow with the factorial of regions.
    largest = sorted(room, key=lambda r: (-room[r], r))[:MANY]
    for length in range(1, len(largest) + 1):
        for order in permutations(sorted(largest), length):
            if sum(room[r] for r in order) >= layers:
                yield order


def _one_order(
    search: Search,
    classes: Sequence[Class],
    label: Ints,
    chosen: Sequence[Stage],
    order: Sequence[int],
    rate: float,
) -> bool:
    """Tries the ways to cross between these regions, narrow ones first."""
    # Every pair of neighbours needs some way to cross.
    ways = [
        _crossings(search.instance, np.flatnonzero(label == a), np.flatnonzero(label == b), rate)
        for a, b in pairwise(order)
    ]
    if not all(ways):
        return False
    usable = [s for s in chosen if _region(classes, s) in order]
    # Narrow ones first: wide crossings cost machines.
    combinations = sorted(product(*ways), key=lambda w: sum(a + b for a, b in w))
    # Many combinations differ little; the narrow ones are the likely ones.
    for widths in combinations[:24]:
        if search.late():
            return False
        for seed in range(2):
            chain = choose(
                classes, search.instance.layers, usable,
                extra=_widths(classes, order, widths), seed=seed, effort=0.2, seconds=search.left,
            )  # fmt: skip
            if chain is None:
                # Another seed would not find one either.
                break
            row = _in_regions(classes, chain.whole, order, widths)
            if arrange(search, classes, row, rate, seed, 30_000, "regions", fixed_order=True):
                return True
    return False


def _crossings(instance: Instance, a: Ints, b: Ints, rate: float) -> list[tuple[int, int]]:
    """(senders, receivers) whose links may add up to the rate; none that contains another."""
    links = instance.link[np.ix_(a, b)]
    fits: list[tuple[int, int]] = []
    for m, n in sorted(product(range(1, WIDEST + 1), repeat=2), key=lambda w: (sum(w), w)):
        # Contains one that fits already: wider, and no better.
        if any(x <= m and y <= n for x, y in fits):
            continue
        if m == 1:
            # One sender: the best n links of one row.
            best = float(np.sort(links, axis=1)[:, -n:].sum(axis=1).max())
        elif n == 1:
            best = float(np.sort(links, axis=0)[-m:, :].sum(axis=0).max())
        else:
            # Both wide: the best links anywhere, which is an upper estimate.
            best = float(np.sort(links, axis=None)[-m * n :].sum())
        if best >= rate:
            fits.append((m, n))
    return fits


def _region(classes: Sequence[Class], stage: Stage) -> int:
    return classes[stage.counts[0][0]].label


def _needs(order: Sequence[int], widths: Sequence[tuple[int, int]]) -> dict[int, list[int]]:
    """The widths of the first and last stage that each region must have."""
    needs: dict[int, list[int]] = {region: [] for region in order}
    for at, (senders, receivers) in enumerate(widths):
        needs[order[at]].append(senders)
        needs[order[at + 1]].append(receivers)
    return needs


def _widths(
    classes: Sequence[Class], order: Sequence[int], widths: Sequence[tuple[int, int]]
) -> Any:
    needs = _needs(order, widths)

    def post(model: Any, rows: Sequence[tuple[Stage, Any]]) -> None:
        # The chain must have wide stages where it crosses.
        for region, wanted in needs.items():
            inside = [(s, y) for s, y in rows if _region(classes, s) == region]
            # As many stages of at least that width as there are ends that ask for it.
            for width in {1, *wanted}:
                wide = [y for s, y in inside if s.width >= width]
                model.add(sum(wide) >= max(1, sum(w >= width for w in wanted)))

    return post


def _in_regions(
    classes: Sequence[Class],
    chosen: Sequence[Stage],
    order: Sequence[int],
    widths: Sequence[tuple[int, int]],
) -> list[Stage]:
    """Stages region by region, wide ones at the ends that cross."""
    row: list[Stage] = []
    for at, region in enumerate(order):
        # Narrow ones in front: those that are wide stay for the ends.
        inside = sorted((s for s in chosen if _region(classes, s) == region), key=lambda s: s.width)
        enter = widths[at - 1][1] if at else 1
        leave = widths[at][0] if at < len(widths) else 1
        # The end first: both ends may want the same stage.
        last = _take(inside, leave)
        first = _take(inside, enter) if inside else None
        row += [first] if first else []
        row += inside
        row += [last]
    return row


def _take(stages_: list[Stage], width: int) -> Stage:
    """The narrowest that is wide enough, else the widest."""
    # None is wide enough: the widest is the best that there is.
    at = next((i for i, s in enumerate(stages_) if s.width >= width), len(stages_) - 1)
    return stages_.pop(at)
