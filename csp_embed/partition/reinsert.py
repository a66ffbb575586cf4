"""Annealing by reinsertion, compiled: a task leaves its device and returns where it is best.

Takes: an `Ordered` view of a Problem without queues, activations or colocation, and a start.
Leaves: the best order and devices seen.

The state is the sequence of each device. With one task taken out, heads (longest path to a start)
and tails (longest path behind an end) of all others give the exact makespan of putting it back
anywhere: the larger of the makespan without it and the longest path through it,

    max(arrival, head + cost of the task before) + cost + max(departure, cost + tail of the next)

so that one pass over the graph weighs every device and every place in its sequence at once. The
place is drawn with Boltzmann's weights (a heat bath, so nothing is ever rejected), at a temperature
that falls. Half of the tasks taken out are on a longest path.

Source of exact insertion: Mastrolilli and Gambardella, Journal of Scheduling 3(1), 2000 (for the
flexible job shop); heat bath instead of tabu search, and transfer times, are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from csp_embed.partition.anneal import draw, generator
from csp_embed.partition.problem import Floats, Ints, Problem, _csr

THROUGH = 0.1  # weight of the path through the task beside the makespan, which has wide plateaus


class Ordered(NamedTuple):
    """cost [n, m]; lat, inv [m, m]; CSR lists of producers and consumers with bytes; weight [n],
    memory [m] bytes."""

    cost: Floats
    lat: Floats
    inv: Floats
    pred_ptr: Ints
    pred: Ints
    pred_bytes: Floats
    succ_ptr: Ints
    succ: Ints
    succ_bytes: Floats
    weight: Floats
    memory: Floats


def ordered(p: Problem) -> Ordered:
    """The kernel's view of a problem."""
    ins: list[list[int]] = [[] for _ in range(p.n)]
    outs: list[list[int]] = [[] for _ in range(p.n)]
    in_bytes: list[float] = []
    out_bytes: list[float] = []
    edges = p.edges()
    for u, t, v in sorted(edges, key=lambda e: e[1]):
        ins[t].append(u)
        in_bytes.append(float(p.value_bytes[v]))
    for u, t, v in sorted(edges, key=lambda e: e[0]):
        outs[u].append(t)
        out_bytes.append(float(p.value_bytes[v]))
    pred_ptr, pred = _csr(ins)
    succ_ptr, succ = _csr(outs)
    return Ordered(
        p.cost, p.lat, p.inv, pred_ptr, pred, np.array(in_bytes), succ_ptr, succ,
        np.array(out_bytes), p.weight, p.memory,
    )  # fmt: skip


@njit(cache=True)
def ahead(a, order, begin, dev, cc, prv, head, skip):
    """Heads of the tasks at positions `begin` and later; task `skip` counts for nothing."""
    for k in range(begin, len(order)):
        t = order[k]
        if t == skip:
            continue
        d = dev[t]
        x = prv[t]
        h = 0.0
        if x >= 0:
            h = head[x] + cc[x]
        for e in range(a.pred_ptr[t], a.pred_ptr[t + 1]):
            u = a.pred[e]
            if u == skip:
                continue
            f = head[u] + cc[u]
            if dev[u] != d:
                f += a.lat[dev[u], d] + a.pred_bytes[e] * a.inv[dev[u], d]
            if f > h:
                h = f
        head[t] = h


@njit(cache=True)
def behind(a, order, begin, dev, cc, nxt, tail, skip):
    """Tails of the tasks at positions `begin` and earlier; task `skip` counts for nothing."""
    for k in range(begin, -1, -1):
        t = order[k]
        if t == skip:
            continue
        d = dev[t]
        y = nxt[t]
        h = 0.0
        if y >= 0:
            h = tail[y] + cc[y]
        for e in range(a.succ_ptr[t], a.succ_ptr[t + 1]):
            u = a.succ[e]
            if u == skip:
                continue
            f = tail[u] + cc[u]
            if dev[u] != d:
                f += a.lat[d, dev[u]] + a.succ_bytes[e] * a.inv[d, dev[u]]
            if f > h:
                h = f
        tail[t] = h


@njit(cache=True)
def related(a, order, p, prv, nxt, mark):
    """mark: 1 for descendants of the task at position p, -1 for its ancestors, else 0 (the task is
    no longer in a sequence)."""
    n = len(order)
    mark[:] = 0
    t = order[p]
    for e in range(a.succ_ptr[t], a.succ_ptr[t + 1]):
        mark[a.succ[e]] = 1
    for e in range(a.pred_ptr[t], a.pred_ptr[t + 1]):
        mark[a.pred[e]] = -1
    for k in range(p + 1, n):
        u = order[k]
        if mark[u] == 1:
            if nxt[u] >= 0:
                mark[nxt[u]] = 1
            for e in range(a.succ_ptr[u], a.succ_ptr[u + 1]):
                mark[a.succ[e]] = 1
    for k in range(p - 1, -1, -1):
        u = order[k]
        if mark[u] == -1:
            if prv[u] >= 0:
                mark[prv[u]] = -1
            for e in range(a.pred_ptr[u], a.pred_ptr[u + 1]):
                mark[a.pred[e]] = -1


@njit(cache=True)
def settle(a, order, at, t, x, y, prv, mark, spare):
    """Moves t in `order` between what must precede it (its producers, x) and what must follow (its
    consumers, y), and others with it where these overlap."""
    n, p = len(order), at[t]
    low, high = n, -1
    if x >= 0:
        high = at[x]
    if y >= 0:
        low = at[y]
    for e in range(a.pred_ptr[t], a.pred_ptr[t + 1]):
        high = max(high, at[a.pred[e]])
    for e in range(a.succ_ptr[t], a.succ_ptr[t + 1]):
        low = min(low, at[a.succ[e]])
    if high < p < low:
        return
    low, high = min(low, p), max(high, p)
    for k in range(low, high + 1):
        mark[order[k]] = 0
    if y >= 0:
        mark[y] = 1
    for e in range(a.succ_ptr[t], a.succ_ptr[t + 1]):
        mark[a.succ[e]] = 1
    k, later = low, 0
    for i in range(low, high + 1):
        u = order[i]
        if u == t:
            continue
        after = mark[u] == 1
        z = prv[u]
        if not after and z >= 0 and low <= at[z] and mark[z] == 1:
            after = True
        if not after:
            for e in range(a.pred_ptr[u], a.pred_ptr[u + 1]):
                if at[a.pred[e]] >= low and mark[a.pred[e]] == 1:
                    after = True
        if after:
            mark[u] = 1
            spare[later] = u
            later += 1
        else:
            order[k] = u
            k += 1
    order[k] = t
    for i in range(later):
        order[k + 1 + i] = spare[i]
    for i in range(low, high + 1):
        at[order[i]] = i


@njit(cache=True, nogil=True)
def reinsert(a, order, dev, steps, hot, cold, seed):
    """Improves `order` and `dev` in place over `steps` reinsertions; returns the best makespan.

    hot, cold: temperatures in ms at the beginning and the end."""
    n, m = a.cost.shape
    state = generator(seed)
    at, cc = np.empty(n, np.int64), np.empty(n)
    prv, nxt = np.full(n, -1), np.full(n, -1)
    first, last = np.full(m, -1), np.full(m, -1)
    free = a.memory.copy()
    for k in range(n):
        t = order[k]
        d = dev[t]
        at[t], cc[t] = k, a.cost[t, d]
        free[d] -= a.weight[t]
        prv[t] = last[d]
        if last[d] >= 0:
            nxt[last[d]] = t
        else:
            first[d] = t
        last[d] = t
    head, tail = np.zeros(n), np.zeros(n)
    ahead(a, order, 0, dev, cc, prv, head, -1)
    behind(a, order, n - 1, dev, cc, nxt, tail, -1)
    now = 0.0
    for t in range(n):
        now = max(now, head[t] + cc[t])
    best, best_order, best_dev = now, order.copy(), dev.copy()
    mark, spare = np.zeros(n, np.int64), np.empty(n, np.int64)
    where, after = np.empty(n + m, np.int64), np.empty(n + m, np.int64)
    energy, length = np.empty(n + m), np.empty(n + m)
    for step in range(steps):
        heat = hot * (cold / hot) ** (step / steps)
        k = draw(state, n)
        t = order[k]
        if draw(state, 2) == 0:
            for i in range(n):
                u = order[(k + i) % n]
                if head[u] + cc[u] + tail[u] >= now * (1 - 1e-9):
                    t = u
                    break
        p, d = at[t], dev[t]
        x, y = prv[t], nxt[t]
        if x >= 0:
            nxt[x] = y
        else:
            first[d] = y
        if y >= 0:
            prv[y] = x
        else:
            last[d] = x
        free[d] += a.weight[t]
        ahead(a, order, p + 1, dev, cc, prv, head, t)
        behind(a, order, p - 1, dev, cc, nxt, tail, t)
        related(a, order, p, prv, nxt, mark)
        without = 0.0
        for u in range(n):
            if u != t and head[u] + cc[u] > without:
                without = head[u] + cc[u]
        count, least = 0, np.inf
        for e in range(m):
            if (e != d and free[e] < a.weight[t]) or a.cost[t, e] == np.inf:
                continue
            arrive, depart = 0.0, 0.0
            for i in range(a.pred_ptr[t], a.pred_ptr[t + 1]):
                u = a.pred[i]
                f = head[u] + cc[u]
                if dev[u] != e:
                    f += a.lat[dev[u], e] + a.pred_bytes[i] * a.inv[dev[u], e]
                arrive = max(arrive, f)
            for i in range(a.succ_ptr[t], a.succ_ptr[t + 1]):
                u = a.succ[i]
                f = tail[u] + cc[u]
                if dev[u] != e:
                    f += a.lat[e, dev[u]] + a.succ_bytes[i] * a.inv[e, dev[u]]
                depart = max(depart, f)
            if arrive == np.inf or depart == np.inf:
                continue
            x, y = -1, last[e]
            while y >= 0 and mark[y] != -1:
                y = prv[y]
            x = y
            y = first[e] if x < 0 else nxt[x]
            while True:
                before = arrive if x < 0 else max(arrive, head[x] + cc[x])
                later = depart if y < 0 else max(depart, tail[y] + cc[y])
                length[count] = before + a.cost[t, e] + later
                energy[count] = max(length[count], without) + THROUGH * length[count]
                where[count], after[count] = e, x
                least = min(least, energy[count])
                count += 1
                if y < 0 or mark[y] == 1:
                    break
                x, y = y, nxt[y]
        total = 0.0
        for i in range(count):
            over = (energy[i] - least) / heat
            energy[i] = np.exp(-over) if over < 12.0 else 0.0
            total += energy[i]
        goal = total * draw(state, 1 << 30) / (1 << 30)
        i = 0
        while i < count - 1 and (goal >= energy[i] or energy[i] == 0.0):
            goal -= energy[i]
            i += 1
        d, x = where[i], after[i]
        y = first[d] if x < 0 else nxt[x]
        now = max(length[i], without)
        dev[t], cc[t] = d, a.cost[t, d]
        free[d] -= a.weight[t]
        settle(a, order, at, t, x, y, prv, mark, spare)
        prv[t], nxt[t] = x, y
        if x >= 0:
            nxt[x] = t
        else:
            first[d] = t
        if y >= 0:
            prv[y] = t
        else:
            last[d] = t
        ahead(a, order, at[t], dev, cc, prv, head, -1)
        behind(a, order, at[t], dev, cc, nxt, tail, -1)
        if now < best * (1 - 1e-12):
            best = now
            best_order[:] = order
            best_dev[:] = dev
    order[:] = best_order
    dev[:] = best_dev
    return best
