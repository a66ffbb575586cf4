"""Annealing inside a window of a task order, compiled with Numba.

Takes: what `windows.through` takes.  Leaves: the best order and devices seen.  Proposals: a task
(or a few neighbours on one device) to another device, a task elsewhere in the order, or both.

Energy: the longest path through the window + SPREAD times the mean over devices of (when it is free
+ what still waits for it): so that plateaus of the maximum have a slope.
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
from csp_embed.partition.methods.windows.windows import Stretch, appended, through

SPREAD = 0.5
LARGEST = 8  # tasks that one proposal moves together


@njit(cache=True)
def mean_line(ends, then, m):
    """Mean over devices of when they are free plus what waits for them."""
    total = 0.0
    for d in range(m):
        total += ends[d] + then[d]
    return total / m


@njit(cache=True, nogil=True)
def anneal_window(a, s, lo, hi, then, steps, hot, cold, seed, rises):
    """Improves the window lo … hi of a `Stretch` in place over `steps` proposals; the best value.

    then: see `windows`. hot, cold: temperatures in ms. rises: see `annealer.note`."""
    plain, order, dev, at, free = s.plain, s.order, s.dev, s.at, s.room
    ends, peak, finish, tail, loose = s.ends, s.peak, s.finish, s.tail, s.loose
    members, member_ptr = s.members, s.member_ptr
    cost, group, group_weight, value_src = a.cost, a.group, a.group_weight, a.value_src
    inp_ptr, inp, out_ptr, out, use_ptr, use = a.inp_ptr, a.inp, a.out_ptr, a.out, a.use_ptr, a.use
    value_bytes = a.value_bytes
    n, m = cost.shape
    w = hi - lo
    state = generator(seed)
    value = through(a, s, lo, hi, lo, then)
    now = value + SPREAD * mean_line(ends[w], then, m)
    best, score = value, now
    best_order, best_dev = order[lo:hi].copy(), dev[order[lo:hi]]
    # The trial writes here; an accepted one is copied back from its first change on.
    ends2, peak2, finish2 = ends.copy(), peak.copy(), finish.copy()
    trial_of = Stretch(
        plain, order, dev, at, free, ends2, peak2, finish2, s.sent, s.arrive, tail, loose,
        members, member_ptr,
    )  # fmt: skip
    cluster, inside = np.empty(LARGEST, np.int64), np.zeros(n, np.bool_)
    for step in range(steps):
        t = order[lo + draw(state, w)]
        kind = draw(state, 4)
        old, new = dev[t], dev[t]
        p, q = at[t], at[t]
        first, size = hi, 0
        if kind != 1 and m > 1 and loose[t]:
            # One of the other devices: all draws are moves.
            new = draw(state, m - 1)
            if new >= old:
                new += 1
            size = 1
            cluster[0] = t
            if kind == 3:
                size = gather(a, state, dev, t, cluster, inside, LARGEST)
            need, fine = 0.0, True
            for i in range(size):
                g = group[cluster[i]]
                need += group_weight[g]
                fine &= loose[cluster[i]] and cost[cluster[i], new] < np.inf
                # Clusters are of free tasks: a group with more members would drag others along.
                fine &= size == 1 or member_ptr[g + 1] - member_ptr[g] == 1
            if not fine or free[new] < need:
                new, size = old, 0
        if kind == 1 or kind == 2:
            low, high = lo, hi - 1
            for i in range(inp_ptr[t], inp_ptr[t + 1]):
                low = max(low, at[value_src[inp[i]]] + 1)
            for o in range(out_ptr[t], out_ptr[t + 1]):
                for u in range(use_ptr[out[o]], use_ptr[out[o] + 1]):
                    high = min(high, at[use[u]] - 1)
            q = low + draw(state, high - low + 1)
        # Nothing would change.
        if q == p and size == 0:
            continue
        for c in range(size):
            g = group[cluster[c]]
            for i in range(member_ptr[g], member_ptr[g + 1]):
                dev[members[i]] = new
                first = min(first, at[members[i]])
        if q != p:
            first = min(first, min(p, q))
            move(order, at, p, q)
        if plain:
            value = appended(
                cost, inp_ptr, inp, value_src, a.row, value_bytes, a.lat, a.inv, order, dev, lo,
                hi, first, ends2, peak2, finish2, tail, then,
            )  # fmt: skip
        else:
            first = lo
            value = through(a, trial_of, lo, hi, lo, then)
        trial = value + SPREAD * mean_line(ends2[w], then, m)
        heat = temperature(hot, cold, step, steps)
        if accepts(state, now, trial, heat, rises):
            now = trial
            for k in range(first, hi):
                finish[order[k]] = finish2[order[k]]
                ends[k - lo + 1] = ends2[k - lo + 1]
                peak[k - lo + 1] = peak2[k - lo + 1]
            for c in range(size):
                free[old] += group_weight[group[cluster[c]]]
                free[new] -= group_weight[group[cluster[c]]]
            if value < best - 1e-12 or (value <= best and trial < score):
                best, score = value, trial
                for k in range(lo, hi):
                    best_order[k - lo] = order[k]
                    best_dev[k - lo] = dev[order[k]]
            continue
        if q != p:
            move(order, at, q, p)
        for c in range(size):
            g = group[cluster[c]]
            for i in range(member_ptr[g], member_ptr[g + 1]):
                dev[members[i]] = old
        if plain:
            for k in range(first, hi):
                finish2[order[k]] = finish[order[k]]
                ends2[k - lo + 1] = ends[k - lo + 1]
                peak2[k - lo + 1] = peak[k - lo + 1]
    for k in range(lo, hi):
        t = order[k]
        if loose[t] and t == members[member_ptr[group[t]]]:
            free[dev[t]] += group_weight[group[t]]
    for k in range(lo, hi):
        order[k] = best_order[k - lo]
        at[order[k]] = k
        dev[order[k]] = best_dev[k - lo]
    for k in range(lo, hi):
        t = order[k]
        if loose[t] and t == members[member_ptr[group[t]]]:
            free[dev[t]] -= group_weight[group[t]]
    return best
