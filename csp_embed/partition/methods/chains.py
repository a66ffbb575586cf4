"""Splits of a linear order into consecutive segments, one per device: pipelines to start from.

Takes: a Problem.  Leaves: placements whose device quotient is acyclic (hence convex).  Assumes:
colocation groups may break it; the caller tests feasibility.
"""

from __future__ import annotations

import numpy as np

from csp_embed.partition.arrays.view import Floats, Ints, Problem
from csp_embed.partition.portfolio import NUMBERS

OWN = NUMBERS.lists


def orders(p: Problem) -> list[Ints]:
    """Topological orders that keep related tasks together in different ways."""
    after: list[list[int]] = [[] for _ in range(p.n)]
    before = [0] * p.n
    for u, t, _ in p.edges():
        after[u].append(t)
        before[t] += 1
    depth_first: list[int] = []
    # `before` is kept: both orders count down from it.
    waiting = list(before)
    stack = [t for t in range(p.n - 1, -1, -1) if not waiting[t]]
    while stack:
        t = stack.pop()
        depth_first.append(t)
        for c in reversed(after[t]):
            waiting[c] -= 1
            if not waiting[c]:
                stack.append(c)
    late = np.zeros(p.n, np.int64)  # sources as late as possible: weights next to their use
    for t in range(p.n - 1, -1, -1):
        late[t] = min((late[c] - 1 for c in after[t]), default=0)
    return [
        np.arange(p.n),
        np.array(depth_first, np.int64),
        np.argsort(late, kind="stable").astype(np.int64),
    ]


def split(p: Problem, order: Ints, crossing: Floats | None = None) -> Ints | None:
    """Devices of the split of `order` with the smallest largest load; None where none exists.

    crossing [n+1]: ms that a cut before each position costs the devices on both sides."""
    n, m = p.n, p.m
    # A grid of cuts: all positions would make the table below quadratic in the tasks.
    cuts = np.unique(np.linspace(0, n, min(n, OWN.cuts) + 1).astype(np.int64))
    k = len(cuts)
    toll = np.zeros(n + 1) if crossing is None else crossing
    work = np.vstack([np.zeros(m), np.cumsum(np.where(np.isfinite(p.cost), p.cost, 0)[order], 0)])
    # How many tasks up to here a device cannot run: none between two cuts means that it can run
    # them all.
    bad = np.vstack([np.zeros(m), np.cumsum(~np.isfinite(p.cost)[order], 0)])
    room = np.concatenate([[0.0], np.cumsum(p.weight[order])])
    # price[d][i, j]: load of device d for the segment between cuts i and j
    lo, hi = np.meshgrid(np.arange(k), np.arange(k), indexing="ij")
    price = []
    for d in range(m):
        c = (
            work[cuts[hi], d]
            - work[cuts[lo], d]
            + np.where(hi > lo, toll[cuts[lo]] + toll[cuts[hi]], 0)
        )
        c[bad[cuts[hi], d] > bad[cuts[lo], d]] = np.inf
        c[room[cuts[hi]] - room[cuts[lo]] > p.memory[d]] = np.inf
        c[hi < lo] = np.inf
        price.append(c)
    if m <= OWN.sets:
        masks = list(range(1 << m))
    else:
        # Too many devices for all sets: their own order is as good as any.
        masks = [(1 << j) - 1 for j in range(m + 1)]
    best = {0: np.where(np.arange(k) == 0, 0.0, np.inf)}
    came: dict[int, list[tuple[int, Ints]]] = {}
    for mask in masks[1:]:
        value, options = np.full(k, np.inf), []
        for d in range(m):
            smaller = mask & ~(1 << d)
            if mask >> d & 1 and smaller in best:
                # The slowest device counts, so segments join by maximum.
                both = np.maximum(best[smaller][:, None], price[d])
                where = both.argmin(axis=0)
                options.append((d, where, both[where, np.arange(k)]))
        choice = np.zeros(k, np.int64)
        for i, (_, _, v) in enumerate(options):
            choice = np.where(v < value, i, choice)
            value = np.minimum(value, v)
        best[mask] = value
        came[mask] = [(d, w) for d, w, _ in options]
        # Which device came last, to walk back.
        came[mask].append((-1, choice))
    full = masks[-1]
    if not np.isfinite(best[full][-1]):
        return None
    dev, mask, at = np.zeros(n, np.int64), full, k - 1
    while mask:
        *options, (_, choice) = came[mask]
        d, where = options[choice[at]]
        start = int(where[at])
        dev[order[cuts[start] : cuts[at]]] = d
        mask, at = mask & ~(1 << d), start
    return dev


def candidates(p: Problem, crossing: Floats | None = None) -> list[Ints]:
    """One split per order."""
    found = [split(p, order, crossing) for order in orders(p)]
    return [dev for dev in found if dev is not None]
