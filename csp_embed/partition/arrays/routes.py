"""The cheapest routes between devices, by the size of what they carry.

Takes: a Platform.  Leaves: hops over links for each pair of devices, and the links and buses that
have a queue.
"""

from __future__ import annotations

import heapq
from collections.abc import Callable, Sequence
from typing import Any

from csp_embed.ir.network import Platform
from csp_embed.partition.arrays.decimals import number

EXACT_ROUTES = 40  # devices
Arc = tuple[int, int, int, float, float]  # link, end, resource or -1, latency, ms per byte
Routes = list[list[Arc] | None]  # by pair a * m + b


def arcs_of(platform: Platform) -> tuple[list[list[Arc]], list[str]]:
    """Both directions of every link, by the device where they begin, and the resources' names."""
    at = {d.name: i for i, d in enumerate(platform.devices)}
    resources: dict[str, int] = {}
    arcs: list[list[Arc]] = [[] for _ in at]
    for k, link in enumerate(platform.links):
        # By decimals, so that a rate of 0.1 is a tenth.
        per_byte = float(1 / number(platform.rate(link)))
        for a, b in (link.between, link.between[::-1]):
            # A shared bus takes both directions; a half-duplex link is its own queue.
            label = link.shared
            if label is None and link.duplex == "half":
                label = link.name
            elif label is None and link.duplex == "full":
                # Full duplex: a queue for each direction.
                label = f"{link.name}:{a}>{b}"
            res = -1 if label is None else resources.setdefault(label, len(resources))
            arcs[at[a]].append((k, at[b], res, link.latency_ms, per_byte))
    return arcs, list(resources)


def routes_by_size(
    arcs: list[list[Arc]], sizes: list[float], platform: Platform
) -> tuple[list[Routes], list[int]]:
    """The cheapest routes of each class of sizes, and the class of each size.

    A route's time is linear in the bytes, so what is cheapest for two sizes is so for all between
    them: sizes are halved until both ends agree, which is at once on most platforms."""
    # Decimals add up exactly as Fractions; on large platforms ties may fall as floats round.
    real: Callable[[float], Any] = number if len(arcs) <= EXACT_ROUTES else float
    links = [(real(k.latency_ms), real(platform.rate(k))) for k in platform.links]
    # Without values there is one class all the same, so that arrays have rows.
    order = sorted(set(sizes)) or [0.0]
    found: dict[float, Routes] = {}

    def fill(lo: int, hi: int) -> None:
        for k in (lo, hi):
            if order[k] not in found:
                bytes_ = real(order[k])
                found[order[k]] = _routes(arcs, [lat + bytes_ / rate for lat, rate in links])
        if found[order[lo]] == found[order[hi]]:
            for k in range(lo + 1, hi):
                found[order[k]] = found[order[lo]]
        elif hi - lo > 1:
            fill(lo, (lo + hi) // 2)
            fill((lo + hi) // 2, hi)

    fill(0, len(order) - 1)
    classes: list[Routes] = []
    kind: dict[float, int] = {}
    for size in order:
        # Values of like size share their hops: most platforms have one class.
        if not classes or found[size] != classes[-1]:
            classes.append(found[size])
        kind[size] = len(classes) - 1
    return classes, [kind[s] for s in sizes]


def _routes(arcs: list[list[Arc]], price: Sequence[Any]) -> Routes:
    """Per pair (a, b): hops, or None. The least time over idle links (price: by link), then the
    fewest links, then the least time per byte and latency, then file order."""
    m = len(arcs)
    routes: Routes = []
    # No detour can be better: the direct link of each pair is looked up.
    if _direct(arcs, price):
        best: dict[tuple[int, int], Arc] = {}
        for a, some in enumerate(arcs):
            for arc in some:
                old = best.get((a, arc[1]))
                new = (price[arc[0]], arc[4], arc[3])
                if old is None or new < (price[old[0]], old[4], old[3]):
                    best[a, arc[1]] = arc
        return [[] if a == b else [best[a, b]] for a in range(m) for b in range(m)]
    for a in range(m):
        # Keys order the routes wholly, so that ties never fall by chance.
        near: dict[int, tuple[Any, ...]] = {a: (0, 0, 0.0, 0.0)}
        via: dict[int, tuple[int, Arc]] = {}
        # The link's number breaks ties by file order.
        heap: list[tuple[tuple[Any, ...], int, int]] = [(near[a], -1, a)]
        done: set[int] = set()
        while heap:
            key, _, x = heapq.heappop(heap)
            if x in done:
                continue
            done.add(x)
            for arc in arcs[x]:
                link, y, _, latency, per_byte = arc
                new = (key[0] + price[link], key[1] + 1, key[2] + per_byte, key[3] + latency)
                # Times are never below 0, as this order of settling needs.
                if y not in near or new < near[y]:
                    near[y], via[y] = new, (x, arc)
                    heapq.heappush(heap, (new, link, y))
        for b in range(m):
            hops: list[Arc] | None = []
            # Backward from b along the links by which it was reached.
            while b != a and hops is not None:
                if b not in via:
                    hops = None
                    break
                b, arc = via[b]
                hops.append(arc)
            routes.append(None if hops is None else hops[::-1])
    return routes


def _direct(arcs: list[list[Arc]], price: Sequence[Any]) -> bool:
    """Whether every pair has a link and no two links together are cheaper than any one."""
    m = len(arcs)
    if m < 2 or any(len({arc[1] for arc in some}) < m - 1 for some in arcs):
        return False
    # A detour has two links at least: it takes no less than twice the least.
    return 2 * min(price) >= max(price)
