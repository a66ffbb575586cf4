"""Communities of a task graph by modularity, and their repair into parts that can be scheduled.

Takes: a Problem.  Leaves: labels of tasks at every level of Louvain's hierarchy; intervals of one
topological order that follow the communities.  Assumes: nothing.

Modularity of a labelling: sum over communities of inside / total - (degree / total)^2, where the
weight of an edge is its transfer time. Louvain: nodes move to the neighbouring community of largest
gain until none moves; communities become nodes; again. Deterministic: nodes in number order.
Source: Blondel, Guillaume, Lambiotte, Lefebvre, J. Stat. Mech. 2008 P10008.
"""

from __future__ import annotations

import heapq
from dataclasses import replace

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints, Problem


def levels(p: Problem) -> list[Ints]:
    """Labels [n] from the finest level to the coarsest; colocated tasks share a label throughout.

    A graph without edges has one level: the groups themselves."""
    a, b, weight = _edges(p)
    count = int(p.group.max(initial=-1)) + 1
    found, whole = [], p.group.copy()
    while True:
        label = _numbered(_local(*_neighbours(a, b, weight, count)))
        whole = label[whole]
        # A level that joins nothing is the last one again.
        if not found or len(np.unique(label)) < count:
            found.append(whole.copy())
        if len(np.unique(label)) == count:
            return found
        count = len(np.unique(label))
        a, b = label[a], label[b]


def communities(p: Problem) -> list[list[int]]:
    """The coarsest communities as task lists, by first task."""
    label = levels(p)[-1]
    lists: list[list[int]] = [[] for _ in range(int(label.max(initial=-1)) + 1)]
    for t, c in enumerate(label):
        lists[c].append(t)
    return sorted(lists)


def _edges(p: Problem) -> tuple[Ints, Ints, Floats]:
    """Ends by group and mean transfer time of every (producer, consumer) pair between groups."""
    away = np.isfinite(p.lat[: p.m]) & ~np.eye(p.m, dtype=bool)
    lat = float(p.lat[: p.m][away].mean()) if away.any() else 0.0
    inv = float(p.inv[: p.m][away].mean()) if away.any() else 0.0
    value = np.repeat(np.arange(len(p.value_src)), np.diff(p.use_ptr))
    a, b = p.group[p.value_src[value]], p.group[p.use]
    # Values without bytes on links without latency still tie their ends together a little.
    weight = lat + p.value_bytes[value] * inv + 1e-9
    return a[a != b], b[a != b], weight[a != b]


def _neighbours(a: Ints, b: Ints, weight: Floats, count: int) -> tuple[Ints, Ints, Floats]:
    """CSR of the undirected graph, both directions of each edge (a loop twice)."""
    # Modularity knows no direction.
    source, target = np.concatenate([a, b]), np.concatenate([b, a])
    by = np.argsort(source, kind="stable")
    ptr = np.concatenate([[0], np.cumsum(np.bincount(source, minlength=count))])
    return ptr.astype(np.int64), target[by], np.concatenate([weight, weight])[by]


def _numbered(label: Ints) -> Ints:
    """Labels renamed 0, 1, … by first appearance."""
    _, first, inverse = np.unique(label, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[inverse].astype(np.int64)


@njit(cache=True, nogil=True)
def _local(ptr, target, weight):
    """One level: the community of each node after moving as long as modularity rises."""
    n = len(ptr) - 1
    label = np.arange(n)
    degree, total = np.zeros(n), 0.0
    for i in range(n):
        for k in range(ptr[i], ptr[i + 1]):
            degree[i] += weight[k]
        total += degree[i]
    mass = degree.copy()
    link = np.zeros(n)  # weight from the node at hand to each community
    touched = np.empty(n, np.int64)
    for _ in range(100):
        moved = False
        for i in range(n):
            count = 0
            for k in range(ptr[i], ptr[i + 1]):
                j = target[k]
                if j == i:
                    continue
                c = label[j]
                if link[c] == 0.0:
                    touched[count] = c
                    count += 1
                link[c] += weight[k]
            own = label[i]
            # The node is taken out before communities are compared, its own among them.
            mass[own] -= degree[i]
            best, gain = own, link[own] - degree[i] * mass[own] / total if total > 0 else 0.0
            for x in range(count):
                c = touched[x]
                value = link[c] - degree[i] * mass[c] / total
                # A gain above rounding, or nodes would go to and fro for ever.
                if value > gain + 1e-12 * total:
                    best, gain = c, value
            mass[best] += degree[i]
            label[i] = best
            moved |= best != own
            for x in range(count):
                # Only what was touched: clearing all would make a pass quadratic.
                link[touched[x]] = 0.0
        if not moved:
            break
    return label


def cyclic(p: Problem, label: Ints) -> bool:
    """Whether the quotient of a labelling has a cycle."""
    count = int(label.max(initial=-1)) + 1
    after: list[set[int]] = [set() for _ in range(count)]
    for u, t, _ in p.edges():
        if label[u] != label[t]:
            after[int(label[u])].add(int(label[t]))
    waiting = [0] * count
    for targets in after:
        for c in targets:
            waiting[c] += 1
    ready = [c for c in range(count) if not waiting[c]]
    done = 0
    while ready:
        done += 1
        for c in after[ready.pop()]:
            waiting[c] -= 1
            if not waiting[c]:
                ready.append(c)
    return done < count


def runs(p: Problem, parts: list[list[int]], size: int) -> list[list[int]]:
    """Parts repaired: intervals of one topological order, at most `size` tasks each.

    The order stays within a community as long as one of its tasks is ready, then goes to the ready
    community with the earliest task; so the quotient of its intervals is acyclic."""
    label = np.zeros(p.n, np.int64)
    for i, part in enumerate(parts):
        label[part] = i
    waiting = np.diff(p.inp_ptr).tolist()
    ready: list[list[int]] = [[] for _ in parts]
    open_: list[tuple[int, int]] = []  # (a ready task, its community), the earliest first
    for t in range(p.n):
        if not waiting[t]:
            ready[label[t]].append(t)
            heapq.heappush(open_, (t, int(label[t])))
    pieces: list[list[int]] = []
    here, done = -1, np.zeros(p.n, bool)
    while True:
        if here < 0 or not ready[here]:
            # Entries of tasks that were done meanwhile.
            while open_ and done[open_[0][0]]:
                heapq.heappop(open_)
            if not open_:
                break
            here = open_[0][1]
            pieces.append([])
        t = heapq.heappop(ready[here])
        done[t] = True
        pieces[-1].append(t)
        for v in p.outputs(t):
            for c in p.consumers(int(v)):
                waiting[c] -= 1
                if not waiting[c]:
                    heapq.heappush(ready[label[c]], int(c))
                    heapq.heappush(open_, (int(c), int(label[c])))
    merged: list[list[int]] = []
    for piece in pieces:
        for i in range(0, len(piece), size):
            chunk = piece[i : i + size]
            # Neighbours in the order may be joined: intervals stay acyclic.
            if merged and len(merged[-1]) + len(chunk) <= size:
                merged[-1] += chunk
            else:
                merged.append(chunk)
    return merged


def settled(p: Problem, dev: Ints) -> Ints:
    """Every task where the first of its group is."""
    _, first = np.unique(p.group, return_index=True)
    return dev[first][p.group]


def merge(p: Problem, label: Ints) -> Problem:
    """The same problem where tasks of one label (and group) share a device, where some can.

    label [n]: equal within colocation groups, as `levels` makes it."""
    group = np.full(p.n, -1, np.int64)
    cost = p.cost.copy()
    number = 0
    for part in np.split(np.argsort(label, kind="stable"), np.cumsum(np.bincount(label))[:-1]):
        if not len(part):
            continue
        # Where every member can run, and all weights fit.
        together = np.isfinite(p.cost[part]).all(axis=0)
        together &= p.memory >= p.weight[part].sum()
        if together.any():
            group[part] = number
            # Elsewhere none of them may go: the community is one piece now.
            cost[np.ix_(part, np.flatnonzero(~together))] = np.inf
            number += 1
            continue
        own, inverse = np.unique(p.group[part], return_inverse=True)
        group[part] = number + inverse
        number += len(own)
    return replace(p, group=group, cost=cost)
