"""A plan at once, before bounds and solvers: what ends a run early finds something to keep.

Takes: an Instance.  Leaves: placements: equal stages that machines are dealt to, and where links
are missing one pipeline along them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from csp_embed.serving.instance import Instance
from csp_embed.serving.searches.search import Search, links_never_bind

STEPS = 20_000  # of the search for one pipeline; a failed one costs that much


def first(search: Search) -> None:
    """Any plan, in time that grows about as the number of links."""
    for placement in first_placements(search.instance):
        search.offer(placement, "first plan")


def first_placements(instance: Instance) -> Iterator[dict[int, tuple[int, int]]]:
    """Placements that hold all layers; of the pipeline it is also sure that something flows."""
    dealt = _dealt(instance)
    if dealt is not None:
        yield dealt
    # Equal stages may not fit at all, or may have no links between them.
    if dealt is None or not links_never_bind(instance):
        path = _pipeline(instance)
        if path is not None:
            yield _spread(instance, path)


def _dealt(instance: Instance) -> dict[int, tuple[int, int]] | None:
    """Stages of equal length, of the length at which the weakest stage is strongest."""
    longest = max(len(instance.table(i)) for i in range(instance.size))
    best, choice = 0.0, None
    for k in range(1, min(longest, instance.layers) + 1):
        whole, rest = divmod(instance.layers, k)
        lengths = [k] * whole + [rest] * bool(rest)
        # A stage without a machine carries nothing.
        if len(lengths) > instance.size:
            continue
        placement, weakest = _deal(instance, lengths)
        if weakest > best:
            best, choice = weakest, placement
    return choice


def _deal(instance: Instance, lengths: Sequence[int]) -> tuple[dict[int, tuple[int, int]], float]:
    """The strongest machines first, each to the weakest stage: (placement, the weakest's rate)."""
    start = [sum(lengths[:s]) for s in range(len(lengths))]
    rates = np.zeros(len(lengths))
    placement: dict[int, tuple[int, int]] = {}

    def rate(i: int, layers: int) -> float:
        table = instance.table(i)
        return table[layers - 1] if layers <= len(table) else 0.0

    for i in sorted(range(instance.size), key=lambda i: (-rate(i, lengths[0]), i)):
        # Machines that are too small for all stages but the last go there.
        able = [s for s, layers in enumerate(lengths) if rate(i, layers) > 0]
        if able:
            s = min(able, key=lambda s: (rates[s], s))
            placement[i] = (start[s], start[s] + lengths[s])
            rates[s] += rate(i, lengths[s])
    return placement, float(rates.min())


def _pipeline(instance: Instance) -> list[int] | None:
    """Machines from the coordinator along links back to it that can hold all layers, by depth
    first search; None where the search came to its end or its limit."""
    room = [max((k + 1 for k, r in enumerate(instance.table(i)) if r > 0), default=0)
            for i in range(instance.size)]  # fmt: skip

    def onwards(ends: np.ndarray) -> list[int]:
        # Reversed, since the last of the list is tried first: large machines behind wide links.
        found = [int(j) for j in np.flatnonzero(ends > 0) if room[j]]
        return sorted(found, key=lambda j: (room[j], float(ends[j]), -j))

    path: list[int] = []
    held, inside = 0, np.zeros(instance.size, bool)
    todo = [onwards(instance.start)]
    for _ in range(STEPS):
        if not todo:
            return None
        # More machines than layers: each must hold one at least.
        if not todo[-1] or len(path) == instance.layers:
            todo.pop()
            if path:
                held -= room[path[-1]]
                inside[path.pop()] = False
            continue
        i = todo[-1].pop()
        if inside[i]:
            continue
        path.append(i)
        inside[i] = True
        held += room[i]
        if held >= instance.layers and instance.end[i] > 0:
            return path
        todo.append(onwards(instance.link[i]))
    return None


def _spread(instance: Instance, path: Sequence[int]) -> dict[int, tuple[int, int]]:
    """All layers over a pipeline: one each, then always to whoever stays fastest with one more."""
    held = dict.fromkeys(path, 1)
    for _ in range(instance.layers - len(path)):
        able = [i for i in path if held[i] < len(instance.table(i))]
        held[max(able, key=lambda i: (instance.table(i)[held[i]], -held[i]))] += 1
    placement: dict[int, tuple[int, int]] = {}
    at = 0
    for i in path:
        placement[i] = (at, at + held[i])
        at += held[i]
    return placement
