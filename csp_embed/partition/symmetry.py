"""Interchangeable devices.

Takes: a Problem.  Leaves: classes of devices such that swapping two of one class leaves costs,
memory, links and buses as they are.
"""

from __future__ import annotations

import numpy as np

from csp_embed.partition.problem import Ints, Problem


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
    image = list(range(p.m))
    image[a], image[b] = b, a
    same: dict[int, int] = {}
    back: dict[int, int] = {}
    for x in range(p.m):
        for y in range(p.m):
            one, two = p.hops(x, y), p.hops(image[x], image[y])
            if x == y:
                continue
            if len(one) != len(two) or np.isfinite(p.lat[x, y]) != np.isfinite(
                p.lat[image[x], image[y]]
            ):
                return False
            for h, k in zip(one, two, strict=True):
                if (p.hop_lat[h], p.hop_inv[h]) != (p.hop_lat[k], p.hop_inv[k]):
                    return False
                if image[int(p.hop_to[h])] != p.hop_to[k]:
                    return False
                r, s = int(p.hop_res[h]), int(p.hop_res[k])
                if (r < 0) != (s < 0):
                    return False
                if r >= 0 and (same.setdefault(r, s) != s or back.setdefault(s, r) != r):
                    return False
    return True


def canonical(p: Problem, dev: Ints, classes: list[list[int]]) -> Ints:
    """The same placement with each class's devices renamed in the order of their first group."""
    image = list(range(p.m))
    firsts: dict[int, int] = {}
    for t in np.argsort(p.group, kind="stable"):
        firsts.setdefault(int(dev[t]), len(firsts))
    for devices in classes:
        used = sorted(devices, key=lambda d: (firsts.get(d, p.n), d))
        for old, new in zip(used, devices, strict=True):
            image[old] = new
    return np.array([image[int(d)] for d in dev], np.int64)
