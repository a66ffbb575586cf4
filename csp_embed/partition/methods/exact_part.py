"""A part of a task order solved exactly by branch and bound, compiled with Numba.

Takes: what `windows.through` takes.  Leaves: the best order and devices of the part, and whether
that is proved.  On uncontended links "best" means of all plans that leave everything outside the
part as it is; on contended ones, of those whose transfers queue in the order of their first reader.

Every plan is made by appending tasks in the order of their starts (ties by number), so each is
met once. A branch is cut where a lower bound reaches the best value known: the longest path over
what is placed; each open task from now on, with the longest path behind it; the mean over devices
of what they have and still must do.
"""

from __future__ import annotations

import numpy as np
from numba import njit

from csp_embed.partition.methods.windows import advance


@njit(cache=True)
def rests(a, lat, inv, tasks, place, tail, rest):
    """rest [w, m]: least time from a task's finish on a device to the end of all."""
    m = a.cost.shape[1]
    for i in range(len(tasks) - 1, -1, -1):
        t = tasks[i]
        for d in range(m):
            rest[i, d] = tail[t, d]
            for o in range(a.out_ptr[t], a.out_ptr[t + 1]):
                v = a.out[o]
                for u in range(a.use_ptr[v], a.use_ptr[v + 1]):
                    j = place[a.use[u]]
                    if j < 0:
                        continue
                    least = np.inf
                    for e in range(m):
                        x = a.row[v] + d
                        wait = 0.0 if d == e else lat[x, e] + a.value_bytes[v] * inv[x, e]
                        least = min(least, wait + a.cost[tasks[j], e] + rest[j, e])
                    rest[i, d] = max(rest[i, d], least)


@njit(cache=True, nogil=True)
def solve_part(
    a, lat, inv, plain, order, dev, at, lo, hi, free, ends, peak, finish, sent, arrive, tail, then,
    loose, value, limit,
):  # fmt: skip
    """Improves order[lo:hi] in place where something is better than `value`: (value, proved).

    limit: nodes. ends[0], peak[0]: before the part. free [m] bytes of memory left, with the part's
    own tasks counted as placed."""
    n, m = a.cost.shape
    w, lines = hi - lo, ends.shape[1]
    tasks = np.sort(order[lo:hi])  # tasks are numbered topologically
    place = np.full(n, -1)
    for i in range(w):
        place[tasks[i]] = i
    rest = np.zeros((w, m))
    rests(a, lat, inv, tasks, place, tail, rest)
    old = np.empty(w, np.int64)
    home = np.empty(w, np.int64)  # number of the group among the part's, for its device
    group_dev = np.full(w, -1)
    waiting = np.zeros(w, np.int64)
    cheapest, ahead = np.zeros(w), np.zeros(w)
    room = free.copy()
    for i in range(w):
        t = tasks[i]
        old[i] = dev[t]
        home[i] = i
        for j in range(i):
            if a.group[tasks[j]] == a.group[t]:
                home[i] = home[j]
                break
        if not loose[t]:
            group_dev[home[i]] = dev[t]
        elif home[i] == i:
            room[dev[t]] += a.group_weight[a.group[t]]
        for k in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
            waiting[i] += place[a.value_src[a.inp[k]]] >= 0
        cheapest[i], ahead[i] = np.inf, np.inf
        for d in range(m):
            if loose[t] or d == dev[t]:
                cheapest[i] = min(cheapest[i], a.cost[t, d])
                ahead[i] = min(ahead[i], a.cost[t, d] + rest[i, d])
    remaining = cheapest.sum()
    best, nodes, found = value, 0, False
    best_seq, best_at = np.empty(w, np.int64), np.empty(w, np.int64)
    seq, where = np.empty(w, np.int64), np.empty(w, np.int64)
    opened = np.zeros(w, np.bool_)  # whether the choice at a depth fixed its group's device
    used = np.zeros(w, np.bool_)
    begun = np.zeros(w + 1)
    options = np.zeros((w, w * m, 3))
    count, cursor = np.zeros(w, np.int64), np.zeros(w, np.int64)
    lead = w + 1  # arrivals by depth
    inputs = 0
    for i in range(w):
        inputs = max(inputs, a.inp_ptr[tasks[i] + 1] - a.inp_ptr[tasks[i]])
    mark = np.full((lead, max(inputs, 1)), -1.0)
    line = np.zeros(lines)
    depth, fresh = 0, True
    while depth >= 0:
        if fresh and depth == w:
            top = peak[w]
            for e in range(lines):
                if then[e] > 0.0 or e < m:
                    top = max(top, ends[w, e] + then[e])
            if top < best * (1 - 1e-12):
                best, found = top, True
                best_seq[:] = tasks[seq]
                best_at[:] = where
            depth -= 1
            fresh = False
            continue
        if fresh:  # list the choices, the most promising first
            count[depth] = cursor[depth] = 0
            base = 0.0
            for d in range(m):
                base += ends[depth, d] + then[d]
            for i in range(w):
                if used[i] or waiting[i] > 0:
                    continue
                t = tasks[i]
                for d in range(m):
                    if a.cost[t, d] == np.inf:
                        continue
                    g = group_dev[home[i]]
                    if g >= 0 and g != d:
                        continue
                    if g < 0 and room[d] < a.group_weight[a.group[t]]:
                        continue
                    nodes += 1
                    for e in range(lines):
                        line[e] = ends[depth, e]
                    for k in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
                        mark[depth, k - a.inp_ptr[t]] = arrive[a.inp[k], d]
                    start = advance(a, lat, inv, line, finish, arrive, dev, t, d)
                    for k in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
                        arrive[a.inp[k], d] = mark[depth, k - a.inp_ptr[t]]
                    if start == np.inf or start < begun[depth]:
                        continue
                    if depth > 0 and start == begun[depth] and i < seq[depth - 1]:
                        continue
                    bound = max(peak[depth], start + a.cost[t, d] + rest[i, d])
                    idle = start + a.cost[t, d] - ends[depth, d] - cheapest[i]
                    bound = max(bound, (base + remaining + idle) / m)
                    for j in range(w):
                        if not used[j] and j != i:
                            bound = max(bound, start + ahead[j])
                    if bound >= best * (1 - 1e-12):
                        continue
                    k = count[depth]
                    while k > 0 and options[depth, k - 1, 0] > bound:
                        options[depth, k] = options[depth, k - 1]
                        k -= 1
                    options[depth, k, 0], options[depth, k, 1] = bound, i
                    options[depth, k, 2] = d
                    count[depth] += 1
            fresh = False
        else:  # take back the choice made here
            i, d = seq[depth], where[depth]
            t = tasks[i]
            used[i] = False
            remaining += cheapest[i]
            for k in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
                arrive[a.inp[k], d] = mark[depth, k - a.inp_ptr[t]]
            for o in range(a.out_ptr[t], a.out_ptr[t + 1]):
                for u in range(a.use_ptr[a.out[o]], a.use_ptr[a.out[o] + 1]):
                    if place[a.use[u]] >= 0:
                        waiting[place[a.use[u]]] += 1
            if opened[depth]:
                group_dev[home[i]] = -1
                room[d] += a.group_weight[a.group[t]]
        c = cursor[depth]
        if c >= count[depth] or options[depth, c, 0] >= best * (1 - 1e-12) or nodes > limit:
            depth -= 1
            continue
        cursor[depth] += 1
        i, d = np.int64(options[depth, c, 1]), np.int64(options[depth, c, 2])
        t = tasks[i]
        seq[depth], where[depth] = i, d
        used[i] = True
        remaining -= cheapest[i]
        opened[depth] = group_dev[home[i]] < 0
        if opened[depth]:
            group_dev[home[i]] = d
            room[d] -= a.group_weight[a.group[t]]
        for k in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
            mark[depth, k - a.inp_ptr[t]] = arrive[a.inp[k], d]
        for e in range(lines):
            ends[depth + 1, e] = ends[depth, e]
        dev[t] = d
        begun[depth + 1] = advance(a, lat, inv, ends[depth + 1], finish, arrive, dev, t, d)
        peak[depth + 1] = max(peak[depth], finish[t] + tail[t, d])
        for o in range(a.out_ptr[t], a.out_ptr[t + 1]):
            for u in range(a.use_ptr[a.out[o]], a.use_ptr[a.out[o] + 1]):
                if place[a.use[u]] >= 0:
                    waiting[place[a.use[u]]] -= 1
        depth += 1
        fresh = True
    for i in range(w):
        dev[tasks[i]] = old[i]
    if found:
        for i in range(w):
            t = tasks[i]
            if loose[t] and home[i] == i:
                free[old[i]] += a.group_weight[a.group[t]]
        for k in range(w):
            order[lo + k] = best_seq[k]
            at[best_seq[k]] = lo + k
            dev[best_seq[k]] = best_at[k]
        for i in range(w):
            t = tasks[i]
            if loose[t] and home[i] == i:
                free[dev[t]] -= a.group_weight[a.group[t]]
    return best, nodes <= limit
