"""Times, loads and shape of a placement under the dnn-partitioning cost model.

Takes: a `Dnn`, the device of each task by number.  Leaves: figures of it, exact where asked.
"""

from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np

from csp_embed.partition.arrays.view import Ints
from csp_embed.partition.models.dnn import Dnn


def convex(dnn: Dnn, dev: Ints, pipeline: bool) -> bool:
    """Convex sets of forward and of backward tasks; with pipeline no ring either."""
    p = dnn.p
    for label in (0, 1):
        left, seen = [0] * p.n, [0] * p.n
        # Which devices feed which, to find rings among them.
        feeds = np.zeros((p.m, p.m), bool)
        for t in range(p.n):
            if dnn.backward[t] != label:
                continue
            # Bit masks of devices, as in `feasible.convex`, but for one part at a time.
            here, gone, been = 1 << int(dev[t]), 0, 0
            for v in p.inputs(t):
                u = int(p.value_src[v])
                if dnn.backward[u] == label:
                    gone |= left[u]
                    been |= seen[u]
                    feeds[dev[u], dev[t]] = True
            gone |= been & ~here
            if gone & here:
                return False
            seen[t], left[t] = been | here, gone
        np.fill_diagonal(feeds, False)
        rest = list(range(p.m))
        # Takes away devices that nothing feeds; what stays is a ring.
        while pipeline and rest:
            first = [d for d in rest if not feeds[rest, d].any()]
            if not first:
                return False
            rest = [d for d in rest if d not in first]
    return True


def timetable(dnn: Dnn, dev: Ints, exact: list[Fraction] | None = None) -> Any:
    """(start, finish) of each task; None where subgraphs wait for each other (not convex). exact:
    loads in ms, for times in ms that are Fractions; else floats in units.

    Accelerators are single nodes of the contracted graph, timed when all before them are."""
    p = dnn.p
    load = dnn.loads(dev) if exact is None else exact
    # Accelerators are nodes 0 … m-1; each task on a CPU is a node of its own behind them.
    node = np.where(dnn.accelerator[dev] == 1, dev, p.m + np.arange(p.n))
    before: dict[int, set[int]] = {int(x): set() for x in node}
    after: dict[int, set[int]] = {int(x): set() for x in node}
    for u, t, _ in p.edges():
        # Inside a block edges do not wait.
        if node[u] != node[t]:
            before[int(node[t])].add(int(node[u]))
            after[int(node[u])].add(int(node[t]))
    waiting = {x: len(b) for x, b in before.items()}
    ready = sorted(x for x, k in waiting.items() if not k)
    begin: dict[int, Any] = {}
    end: dict[int, Any] = {}
    while ready:
        # Any ready node may come next: times follow from arrivals alone.
        x = ready.pop()
        begin[x] = max((end[y] for y in before[x]), default=0)
        t = x - p.m
        if t < 0:
            end[x] = begin[x] + load[x]
        else:
            cost = float(p.cost[t, dev[t]]) if exact is None else dnn.exact_cost(t, int(dev[t]))
            end[x] = begin[x] + cost
        for y in sorted(after[x]):
            waiting[y] -= 1
            if not waiting[y]:
                ready.append(y)
    # Some nodes never became ready: blocks wait for each other.
    if len(end) < len(before):
        return None
    return np.array([begin[int(x)] for x in node]), np.array([end[int(x)] for x in node])


def exact_loads(dnn: Dnn, dev: Ints) -> list[Fraction]:
    """`Dnn.loads` in ms, exactly."""
    p, found = dnn.p, [Fraction(0)] * dnn.p.m
    for t, d in enumerate(dev.tolist()):
        found[d] += dnn.exact_cost(t, d)
    for v, u in enumerate(p.value_src):
        away = set(dev[p.consumers(v)].tolist()) - {int(dev[u])}
        # Once to each device that reads it, and once out of the maker's.
        for d in (*away, *([int(dev[u])] if away else [])):
            if dnn.accelerator[d]:
                found[d] += dnn.exact_toll(v)
    return found


def canonical(dnn: Dnn, dev: Ints) -> Ints:
    """Equal accelerators renamed in the order of their first group."""
    p, image, taken = dnn.p, {}, set()
    for g in p.groups():
        d = int(dev[g[0]])
        if d in image:
            continue
        for e in range(p.m):
            if (
                # Alike in kind, memory and costs: the classes of `_symmetry`.
                e not in taken
                and dnn.accelerator[e] == dnn.accelerator[d]
                and p.memory[e] == p.memory[d]
                and np.array_equal(p.cost[:, e], p.cost[:, d])
            ):
                image[d] = e
                taken.add(e)
                break
    return np.array([image[int(d)] for d in dev], np.int64)
