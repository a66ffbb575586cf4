"""Compiled parts of the destructive bound: what a makespan of at most `limit` forbids.

Takes: arrays of one problem, see `destructive`.  Leaves: heads raised, devices forbidden (cost
inf), pairs of choices that exclude each other, in place.  Assumes: `gap[v, e, t, d]` ms pass at
least between the end of v on e and the start of t on d, -inf where t needs nothing of v.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit


@njit(cache=True, nogil=True)
def busiest(r, c, q, k, rank):
    """Least end of k tasks of one device: the most of h + sum of c + q over their windows, where
    every task has r >= h before it and some task of the window q after it (Jackson's preemptive
    schedule has this length). rank: room for k numbers."""
    for i in range(k):
        x, j = i, i - 1
        while j >= 0 and q[rank[j]] < q[x]:
            rank[j + 1] = rank[j]
            j -= 1
        rank[j + 1] = x
    best = -np.inf
    for i in range(k):
        total = 0.0
        # By falling q: whoever comes last has the least of all so far.
        for x in rank[:k]:
            if r[x] >= r[i]:
                total += c[x]
                best = max(best, r[i] + total + q[x])
    return best


@njit(cache=True, nogil=True)
def gather(order, gap, cost, group, heads, tails, limit):
    """Raises heads of all tasks in `order`; False: some task has no device left. With order, gap
    and (heads, tails) turned round it raises tails."""
    n, m = cost.shape
    r, c, q = np.empty(n), np.empty(n), np.empty(n)
    ids, rank = np.empty(n, np.int64), np.empty(n, np.int64)
    away = np.empty(group.max() + 1)
    for t in order:
        left = 0
        for d in range(m):
            if cost[t, d] == np.inf:
                continue
            start, after = heads[t, d], cost[t, d] + tails[t, d]
            known = 0
            away[:] = -np.inf
            for v in range(n):
                if gap[v, 0, t, 0] == -np.inf:
                    continue
                here, other = np.inf, np.inf
                for e in range(m):
                    at = heads[v, e] + cost[v, e] + gap[v, e, t, d]
                    # Together they would be late.
                    if cost[v, e] == np.inf or at + after > limit:
                        continue
                    if e == d:
                        here = at
                    elif group[v] != group[t]:
                        other = min(other, at)
                start = max(start, min(here, other))
                # Who is late elsewhere takes its group with it.
                away[group[v]] = max(away[group[v]], other)
                ids[known] = v
                known += 1
            # By falling time at which they would come from elsewhere.
            w = 0
            for v in ids[:known]:
                if away[group[v]] <= start:
                    continue
                if cost[v, d] == np.inf:
                    start = away[group[v]]
                    continue
                j = w - 1
                while j >= 0 and away[group[ids[j]]] < away[group[v]]:
                    ids[j + 1] = ids[j]
                    j -= 1
                ids[j + 1] = v
                w += 1
            # Either the k-th comes from elsewhere, or the first k all run here, one at a time. The
            # former falls with k, the latter rises: the least of the greater is where they cross.
            low, high, least = 0, w, np.inf
            while low <= high:
                k = (low + high) // 2
                for i in range(k):
                    v = ids[i]
                    r[i], c[i], q[i] = heads[v, d], cost[v, d], gap[v, d, t, d]
                work = busiest(r, c, q, k, rank)
                late = away[group[ids[k]]] if k < w else start
                least = min(least, max(work, late))
                if work >= late:
                    high = k - 1
                else:
                    low = k + 1
            start = max(start, least)
            if start == np.inf or start + after > limit:
                cost[t, d] = heads[t, d] = np.inf
            else:
                heads[t, d] = start
                left += 1
        if not left:
            return False
    return True


@njit(cache=True, nogil=True)
def exclude(gap, cost, group, heads, tails, limit, bad):
    """Marks bad[i, j] where choices i and j (task times m plus device) exclude each other."""
    n, m = cost.shape
    for i in range(n * m):
        t, d = i // m, i % m
        for j in range(i + 1, n * m):
            v, e = j // m, j % m
            both = cost[t, d] + cost[v, e]
            if both == np.inf or ((t == v or group[t] == group[v]) and d != e):
                late = True
            elif gap[t, d, v, e] > -np.inf:
                late = heads[t, d] + both + gap[t, d, v, e] + tails[v, e] > limit
            elif gap[v, e, t, d] > -np.inf:
                late = heads[v, e] + both + gap[v, e, t, d] + tails[t, d] > limit
            else:
                # One after the other, whichever is first.
                late = (
                    d == e
                    and min(heads[t, d] + tails[v, d], heads[v, d] + tails[t, d]) + (both) > limit
                )
            if late:
                bad[i, j] = bad[j, i] = True


@njit(cache=True, nogil=True)
def follow(bad, alive, settled, n, m):
    """Unit propagation: a task with one choice left takes it, and its rivals go. False: a task has
    none left."""
    changed = True
    while changed:
        changed = False
        for v in range(n):
            if settled[v]:
                continue
            count, last = 0, 0
            for j in range(v * m, v * m + m):
                if alive[j]:
                    count, last = count + 1, j
            if not count:
                return False
            if count == 1:
                settled[v] = changed = True
                for j in range(n * m):
                    if bad[last, j]:
                        alive[j] = False
    return True


@njit(cache=True, nogil=True)
def suppose(cost, heads, tails, weight, memory, limit, bad):
    """Supposes each choice in turn: what follows is excluded with it, and it is forbidden where
    what follows cannot be. The number of new facts; -1: some task has no device left."""
    n, m = cost.shape
    alive, settled = np.empty(n * m, np.bool_), np.empty(n, np.bool_)
    r, c, q, rank = np.empty(n), np.empty(n), np.empty(n), np.empty(n, np.int64)
    facts = 0
    for i in range(n * m):
        t, d = i // m, i % m
        if cost[t, d] == np.inf:
            continue
        for j in range(n * m):
            alive[j] = not bad[i, j]
        settled[:] = False
        good = follow(bad, alive, settled, n, m)
        for e in range(m):
            if not good:
                break
            k, held = 0, 0.0
            for v in range(n):
                if settled[v] and alive[v * m + e]:
                    r[k], c[k], q[k] = heads[v, e], cost[v, e], tails[v, e]
                    held += weight[v]
                    k += 1
            good = busiest(r, c, q, k, rank) <= limit and held <= memory[e]
        if good:
            for j in range(n * m):
                if not alive[j] and not bad[i, j]:
                    bad[i, j] = bad[j, i] = True
                    facts += 1
            continue
        cost[t, d] = np.inf
        bad[i, :] = True
        bad[:, i] = True
        facts += 1
        if np.isinf(cost[t]).all():
            return -1
    return facts
