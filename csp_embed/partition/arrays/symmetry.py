"""Interchangeable devices.

Takes: a platform or a Problem.  Leaves: classes of devices such that swapping two of one class
leaves costs, memory, links and buses as they are; and the platform without those that no plan
needs.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import numpy as np

from csp_embed.ir.network import Platform, TaskGraph
from csp_embed.partition.arrays.view import Ints, Problem


def trimmed(
    graph: TaskGraph, platform: Platform, named: Collection[str], copies: int = 1
) -> Platform:
    """The platform with as many of each set of equal devices as there are groups of tasks.

    Nothing is lost: a plan of `copies` copies of the graph (replicas, shares of a batch) uses at
    most one device per group and copy, and renaming equal devices makes them
    the first ones. Equal: same costs and memory, the same links to all others, and among each other
    either none or one of the same kind for every pair. named: devices that a caller names."""
    groups = (
        len({("label", t.colocate) if t.colocate else ("task", t.id) for t in graph.tasks}) * copies
    )
    # Fewer devices than groups: each may be needed.
    if len(platform.devices) <= groups:
        return platform
    # Names that somebody uses must stay.
    kept_by_name = {*named, platform.host.device, *(t.pin for t in graph.tasks)}
    near: dict[str, list[tuple[str, Any]]] = {d.name: [] for d in platform.devices}
    for k in platform.links:
        # Everything that makes two links equal for a plan.
        kind = (platform.rate(k), k.bytes_per_ms, k.latency_ms, k.duplex, k.shared)
        for a, b in (k.between, k.between[::-1]):
            near[a].append((b, (*kind, k.handled_by(a), k.handled_by(b))))
    like: dict[Any, list[str]] = {}
    for d in platform.devices:
        if d.name not in kept_by_name:
            costs = tuple(t.cost_on(d) for t in graph.tasks)
            # Number of links too: a quick way to keep unlike devices apart.
            like.setdefault((d.memory_bytes, costs, len(near[d.name])), []).append(d.name)
    gone: set[str] = set()
    for names in like.values():
        # Of equal ones as many as groups: a plan uses no more.
        if len(names) > groups and _alike(names, near, gone):
            gone |= set(names[groups:])
    if not gone:
        return platform
    return replace(
        platform,
        devices=tuple(d for d in platform.devices if d.name not in gone),
        links=tuple(k for k in platform.links if not gone & set(k.between)),
    )


def _alike(names: list[str], near: dict[str, list[tuple[str, Any]]], gone: set[str]) -> bool:
    """Whether these devices, of equal costs, have equal links."""
    inside = set(names)
    outside, within = set(), set()
    for name in names:
        outside.add(
            frozenset(
                # Links to devices that are gone already do not count.
                Counter(x for x in near[name] if x[0] not in inside and x[0] not in gone).items()
            )
        )
        mine = Counter(x for x in near[name] if x[0] in inside)
        others = {other for other, _ in mine}
        # Each to every other one once, or to none: else renaming would change routes.
        if mine and (len(others) < len(names) - 1 or len(mine) > len(others)):
            return False
        within |= {(kind, count) for (_, kind), count in mine.items()} or {None}
        if len(outside) > 1 or len(within) > 1:
            return False
    return True


def device_classes(p: Problem) -> list[list[int]]:
    """Classes with at least two devices, in device order.

    Swapping a and b must map the platform onto itself: same cost column and memory, same times and
    queues towards every third device, and resources that correspond one to one. That relation is an
    equivalence (swaps compose), so comparing with the first of each class is enough."""
    classes: list[list[int]] = []
    for d in range(p.m):
        for known in classes:
            if _swappable(p, known[0], d):
                known.append(d)
                break
        else:
            classes.append([d])
    return [c for c in classes if len(c) > 1]


def _swappable(p: Problem, a: int, b: int) -> bool:
    if p.memory[a] != p.memory[b] or not np.array_equal(p.cost[:, a], p.cost[:, b]):
        return False
    # Quick refusals before the walk over all pairs.
    for table in (p.lat, p.inv):
        if not np.array_equal(np.sort(table[: p.m, a]), np.sort(table[: p.m, b])):
            return False
    image = list(range(p.m))
    image[a], image[b] = b, a
    # Queues must correspond one to one, in both directions.
    same: dict[int, int] = {}
    back: dict[int, int] = {}
    # Without values no row is used: then the first class.
    rows = np.unique(p.row).tolist() or [0]

    def every(x: int, y: int) -> list[int]:
        """The hops of all routes from x to y, those of each size of values one after the other."""
        return [h for row in rows for h in p.route(row, x, y)]

    for x in range(p.m):
        for y in range(p.m):
            if x == y:
                continue
            one, two = every(x, y), every(image[x], image[y])
            if len(one) != len(two) or np.isfinite(p.lat[x, y]) != np.isfinite(
                p.lat[image[x], image[y]]
            ):
                return False
            for h, k in zip(one, two, strict=True):
                if (p.hop_lat[h], p.hop_inv[h]) != (p.hop_lat[k], p.hop_inv[k]):
                    return False
                if not np.array_equal(p.hand[h], p.hand[k]):
                    return False
                if image[int(p.hop_to[h])] != p.hop_to[k]:
                    return False
                r, s = int(p.hop_res[h]), int(p.hop_res[k])
                if (r < 0) != (s < 0):
                    return False
                # Each resource has one image, and is one's image only.
                if r >= 0 and (same.setdefault(r, s) != s or back.setdefault(s, r) != r):
                    return False
    return True


def canonical(p: Problem, dev: Ints, classes: list[list[int]]) -> Ints:
    """The same placement with each class's devices renamed in the order of their first group."""
    image = list(range(p.m))
    firsts: dict[int, int] = {}
    # Groups in their order: the search's symmetry breaking counts the same way.
    for t in np.argsort(p.group, kind="stable"):
        firsts.setdefault(int(dev[t]), len(firsts))
    for devices in classes:
        used = sorted(devices, key=lambda d: (firsts.get(d, p.n), d))
        for old, new in zip(used, devices, strict=True):
            image[old] = new
    return np.array([image[int(d)] for d in dev], np.int64)
