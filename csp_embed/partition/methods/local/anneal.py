"""Simulated annealing over (task order, device of each task), compiled.

Takes: arrays of a Problem and a start.  Leaves: the best order and devices seen.

Two decoders serve it. Where no link is contended, tasks are appended to their devices in list order
and only the part of the list behind the first change is recomputed; every semi-active schedule is
the image of some list, so an optimum is reachable. Otherwise the insertion decoder of `kernels`
places transfers too.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.methods.local.annealer import (
    accepts,
    draw,
    gather,
    generator,
    move,
    temperature,
)
from csp_embed.partition.times.feasible import peak_fits
from csp_embed.partition.times.kernels import decode

LARGEST = 8  # tasks that one proposal moves together


@njit(cache=True)
def append(a, order, dev, begin, avail, finish):
    """Makespan where tasks are appended in list order from position `begin` on.

    avail [n+1, m]: when each device is free before each position; rows up to `begin` hold."""
    n, m = a.cost.shape
    for k in range(begin, n):
        t = order[k]
        d = dev[t]
        ready = avail[k, d]
        for i in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
            v = a.inp[i]
            s = a.value_src[v]
            f = finish[s]
            if dev[s] != d:
                x = a.row[v] + dev[s]
                f += a.lat[x, d] + a.value_bytes[v] * a.inv[x, d]
            if f > ready:
                ready = f
        finish[t] = ready + a.cost[t, d]
        for e in range(m):
            avail[k + 1, e] = avail[k, e]
        avail[k + 1, d] = finish[t]
    end = 0.0
    for d in range(m):
        if avail[n, d] > end:
            end = avail[n, d]
    return end


@njit(cache=True, nogil=True)
def anneal(a, w, activation, members, member_ptr, order, dev, steps, hot, cold, seed, rises):
    """Improves `order` and `dev` in place over `steps` proposals; returns the best makespan.

    hot, cold: temperatures in ms at the beginning and the end; rises: see `annealer.note`. members,
    member_ptr: tasks by colocation group. The first state must be feasible."""
    n, m = a.cost.shape
    state = generator(seed)
    plain = True
    for h in range(len(a.hop_res)):
        if a.hop_res[h] >= 0:
            plain = False
    # Live activations depend on the whole timetable, so such plans are decoded, not appended to.
    heavy = activation.max() > 0 if n > 0 else False
    plain = plain and not heavy
    at = np.empty(n, np.int64)
    for k in range(n):
        at[order[k]] = k
    free = a.memory.copy()
    for g in range(len(a.group_weight)):
        free[dev[members[member_ptr[g]]]] -= a.group_weight[g]
    avail, finish = np.zeros((n + 1, m)), np.zeros(n)
    avail2, finish2 = np.zeros((n + 1, m)), np.zeros(n)
    if plain:
        now = append(a, order, dev, 0, avail, finish)
    else:
        now = decode(a, w, order, dev)
    best, best_order, best_dev = now, order.copy(), dev.copy()
    avail2[:] = avail
    finish2[:] = finish
    cluster, inside = np.empty(LARGEST, np.int64), np.zeros(n, np.bool_)
    for step in range(steps):
        t = draw(state, n)
        kind = draw(state, 4)
        old, new = dev[t], dev[t]
        low, high, p, q = 0, n - 1, at[t], at[t]
        first, size = n, 0
        if kind != 1 and m > 1:
            new = draw(state, m)
            if new != old:
                size = gather(a, state, dev, t, cluster, inside, 1 if kind < 3 else LARGEST)
                need = 0.0
                for i in range(size):
                    g = a.group[cluster[i]]
                    if member_ptr[g + 1] - member_ptr[g] > 1 and size > 1:
                        need = np.inf  # clusters are grown of free tasks only
                    need += a.group_weight[g]
                    if a.cost[cluster[i], new] == np.inf:
                        need = np.inf
                if free[new] < need:
                    new = old
            if new == old:
                # Kind 2 may still move the task in the order.
                if kind != 2:
                    continue
                size = 0
        if kind == 1 or kind == 2:
            for i in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
                low = max(low, at[a.value_src[a.inp[i]]] + 1)
            for o in range(a.out_ptr[t], a.out_ptr[t + 1]):
                for u in range(a.use_ptr[a.out[o]], a.use_ptr[a.out[o] + 1]):
                    high = min(high, at[a.use[u]] - 1)
            # Anywhere between its last producer and its first consumer.
            q = low + draw(state, high - low + 1)
            if q == p and new == old:
                continue
        for c in range(size):
            g = a.group[cluster[c]]
            for i in range(member_ptr[g], member_ptr[g + 1]):
                dev[members[i]] = new
                first = min(first, at[members[i]])
        if q != p:
            # Appending is exact from the first changed position on; what is before stays.
            first = min(first, min(p, q))
            move(order, at, p, q)
        if plain:
            then = append(a, order, dev, first, avail2, finish2)
        else:
            then = decode(a, w, order, dev)
            if heavy and then < np.inf:
                for h in range(len(a.group_weight)):
                    w.group_dev[h] = dev[members[member_ptr[h]]]
                if not peak_fits(a, w, activation):
                    then = np.inf
        heat = temperature(hot, cold, step, steps)
        if accepts(state, now, then, heat, rises):
            now = then
            if plain:
                for k in range(first, n):
                    finish[order[k]] = finish2[order[k]]
                    avail[k + 1] = avail2[k + 1]
            for c in range(size):
                # Only accepted moves touch the room.
                free[old] += a.group_weight[a.group[cluster[c]]]
                free[new] -= a.group_weight[a.group[cluster[c]]]
            if now < best:
                best = now
                best_order[:] = order
                best_dev[:] = dev
            continue
        if q != p:
            move(order, at, q, p)
        for c in range(size):
            g = a.group[cluster[c]]
            for i in range(member_ptr[g], member_ptr[g + 1]):
                dev[members[i]] = old
        if plain:
            for k in range(first, n):
                finish2[order[k]] = finish[order[k]]
                avail2[k + 1] = avail[k + 1]
    order[:] = best_order
    dev[:] = best_dev
    return best
