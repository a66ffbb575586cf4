"""Groups of a placement moved for the smallest period, exactly or by annealing; with Numba.

Takes: `Loads` arrays and a placement.  Leaves: better devices.  Exactly: a few groups at a time,
all else fixed, by depth-first enumeration; a branch is cut where the devices alone, without what is
still open, are as loaded as the best placement known, to which links only add. Annealing: single
groups and short walks of neighbours; `balance` moves long ones, which large graphs cannot afford.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from csp_embed.partition.anneal import draw, generator, neighbour
from csp_embed.partition.balance import begin, energy, reachable, shift

WALK = 6  # groups that one proposal moves together, at most


@njit(cache=True)
def solve_loads(q, dev, free, ptr, parts, limit):
    """Improves `dev` in place, part after part: how many parts were enumerated to the end.

    parts[ptr[i] : ptr[i + 1]]: groups of part i. free [m] bytes of memory left. limit: moves per
    part. Energy is that of annealing, so that equal maxima are told apart by the other loads."""
    m = q.cost.shape[1]
    readers = np.zeros((len(q.value_src), m), np.int64)
    load = np.zeros(q.lines)
    begin(q, dev, readers, load)
    closed = 0
    for i in range(len(ptr) - 1):
        some = parts[ptr[i] : ptr[i + 1]]
        w = len(some)
        home, choice = np.empty(w, np.int64), np.full(w, -1)
        for k in range(w):
            home[k] = dev[q.members[q.member_ptr[some[k]]]]
            free[home[k]] += q.group_weight[some[k]]
        best, best_at, moves, depth = energy(load), home.copy(), 0, 0
        fixed = load[:m].copy()  # device loads without what is open
        for k in range(w):
            for j in range(q.member_ptr[some[k]], q.member_ptr[some[k] + 1]):
                fixed[home[k]] -= q.cost[q.members[j], home[k]]
        while depth >= 0:
            if depth == w:
                if energy(load) < best * (1 - 1e-12) and reachable(q, dev, readers):
                    best = energy(load)
                    best_at[:] = choice
                depth -= 1
                continue
            g = some[depth]
            first, last = q.member_ptr[g], q.member_ptr[g + 1]
            if choice[depth] >= 0:  # take back
                free[choice[depth]] += q.group_weight[g]
                for j in range(first, last):
                    fixed[choice[depth]] -= q.cost[q.members[j], choice[depth]]
            d = choice[depth] + 1
            while d < m and (
                q.cost[q.members[first], d] == np.inf
                or free[d] < q.group_weight[g]
                or moves > limit
            ):
                d += 1
            if d == m:
                choice[depth] = -1
                depth -= 1
                continue
            choice[depth] = d
            free[d] -= q.group_weight[g]
            for j in range(first, last):
                fixed[d] += q.cost[q.members[j], d]
            if fixed[d] < best:
                for j in range(first, last):
                    if dev[q.members[j]] != d:
                        shift(q, dev, readers, load, q.members[j], d)
                        moves += 1
                depth += 1
        for k in range(w):
            free[best_at[k]] -= q.group_weight[some[k]]
            for j in range(q.member_ptr[some[k]], q.member_ptr[some[k] + 1]):
                if dev[q.members[j]] != best_at[k]:
                    shift(q, dev, readers, load, q.members[j], best_at[k])
        begin(q, dev, readers, load)  # rounding errors of the running sums
        closed += moves <= limit
    return closed


@njit(cache=True, nogil=True)
def anneal_loads(q, dev, group, free, steps, hot, cold, seed):
    """Improves `dev` in place over `steps` proposals; the smallest period seen.

    group [n]; free [m] bytes of memory left; hot, cold: temperatures in ms."""
    m = q.cost.shape[1]
    groups = len(q.group_weight)
    state = generator(seed)
    readers = np.zeros((len(q.value_src), m), np.int64)
    load = np.zeros(q.lines)
    begin(q, dev, readers, load)
    apart = not q.reach.all()
    now = energy(load)
    best, best_dev, best_free = load.max(), dev.copy(), free.copy()
    walk, old = np.empty(WALK, np.int64), np.empty(WALK, np.int64)
    for step in range(steps):
        if step % 5000 == 4999:  # rounding errors of the running sums
            begin(q, dev, readers, load)
            now = energy(load)
        g = draw(state, groups)
        kind = draw(state, 4)
        t = q.members[q.member_ptr[g]]
        here = dev[t]
        new = draw(state, m - 1)
        new += new >= here
        aim = 2 + draw(state, WALK - 1) if kind == 3 else 1
        size = 1
        walk[0] = g
        for _ in range(4 * WALK if kind > 1 else 0):  # neighbours: to follow, or to take along
            c = walk[draw(state, size)]
            t = q.members[q.member_ptr[c] + draw(state, q.member_ptr[c + 1] - q.member_ptr[c])]
            u = neighbour(q, state, t)
            if u < 0:
                continue
            if dev[u] != here:
                new = dev[u]
                if size >= aim:
                    break
                continue
            known = False
            for i in range(size):
                known |= walk[i] == group[u]
            if not known and size < aim:
                walk[size] = group[u]
                size += 1
        need, fine = 0.0, True
        for i in range(size):
            need += q.group_weight[walk[i]]
            old[i] = dev[q.members[q.member_ptr[walk[i]]]]
            fine &= q.cost[q.members[q.member_ptr[walk[i]]], new] < np.inf and old[i] == here
        back = -1  # a group that comes in exchange
        if kind == 1:
            h = draw(state, groups)
            t = q.members[q.member_ptr[h]]
            if dev[t] != here and q.cost[t, here] < np.inf:
                back, new = h, dev[t]
                fine = q.cost[q.members[q.member_ptr[g]], new] < np.inf
        if back >= 0:
            fine &= free[here] + need >= q.group_weight[back]
            need -= q.group_weight[back]
        if not fine or free[new] < need:
            continue
        if back >= 0:
            for j in range(q.member_ptr[back], q.member_ptr[back + 1]):
                shift(q, dev, readers, load, q.members[j], here)
        for i in range(size):
            for j in range(q.member_ptr[walk[i]], q.member_ptr[walk[i] + 1]):
                shift(q, dev, readers, load, q.members[j], new)
        then = energy(load)
        if apart and not reachable(q, dev, readers):
            then = np.inf
        heat = hot * (cold / hot) ** (step / steps)
        if then <= now or draw(state, 1 << 30) < np.exp((now - then) / heat) * (1 << 30):
            now = then
            free[here] += need
            free[new] -= need
            if load.max() < best * (1 - 1e-12):
                best = load.max()
                best_dev[:], best_free[:] = dev, free
            continue
        for i in range(size):
            for j in range(q.member_ptr[walk[i]], q.member_ptr[walk[i] + 1]):
                shift(q, dev, readers, load, q.members[j], here)
        if back >= 0:
            for j in range(q.member_ptr[back], q.member_ptr[back + 1]):
                shift(q, dev, readers, load, q.members[j], new)
    dev[:], free[:] = best_dev, best_free
    return best
