"""Annealing by reinsertion, compiled: a task leaves its device and returns where it is best.

Takes: an `Ordered` view of a Problem without queues, activations or colocation, and a start.
Leaves: the best order and devices seen.

The state is the sequence of each device. With one task taken out, the longest paths up to the end
of every other task (`end`) and from its start on (`rest`) give the exact makespan of putting it
back anywhere: the larger of the makespan without it and the longest path through it,

    max(arrival, end of the task before) + cost + max(departure, rest of the next)

so that one pass over the graph weighs every device and place at once. Of the places on a device
only those count that no other makes needless (`offers`). The place is drawn with Boltzmann's
weights (a heat bath, so nothing is ever rejected), at a temperature that falls; its energy has the
work too, so that a device is not spent on what another does at less of its price. Half of the tasks
taken out are on a longest path.

Source of exact insertion, and of the places that count: Mastrolilli and Gambardella, Journal of
Scheduling 3(1), 2000 (for the flexible job shop); heat bath instead of tabu search, and transfer
times, are ours.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints, Problem, csr
from csp_embed.partition.bounds.latency_period import load_prices
from csp_embed.partition.methods.local.annealer import draw, generator, note, temperature

THROUGH = 0.1  # weight of the path through the task beside the makespan, which has wide plateaus


class Ordered(NamedTuple):
    """cost [n, m]; priced [n, m]: cost times the device's price in the load bound (ms); lat, inv
    [m, m]; CSR lists of producers and consumers with bytes, and where each edge stands in the other
    list; weight [n], memory [m] bytes."""

    cost: Floats
    priced: Floats
    lat: Floats
    inv: Floats
    pred_ptr: Ints
    pred: Ints
    pred_bytes: Floats
    pred_twin: Ints
    succ_ptr: Ints
    succ: Ints
    succ_bytes: Floats
    succ_twin: Ints
    weight: Floats
    memory: Floats


def ordered(p: Problem) -> Ordered:
    """The kernel's view of a problem."""
    edges = p.edges()
    by_out = np.array(sorted(range(len(edges)), key=lambda i: edges[i][0]), np.int64)
    by_in = np.array(sorted(range(len(edges)), key=lambda i: edges[i][1]), np.int64)
    ins: list[list[int]] = [[] for _ in range(p.n)]
    outs: list[list[int]] = [[] for _ in range(p.n)]
    for i in by_in:
        ins[edges[i][1]].append(edges[i][0])
    for i in by_out:
        outs[edges[i][0]].append(edges[i][1])
    size = np.array([p.value_bytes[v] for _, _, v in edges], float)
    pred_ptr, pred = csr(ins)
    succ_ptr, succ = csr(outs)
    # Where a task cannot run it is never put, so its price there may be 0.
    priced = np.where(np.isfinite(p.cost), p.cost, 0.0) * load_prices(p.cost)
    return Ordered(
        p.cost, priced, p.lat, p.inv, pred_ptr, pred, size[by_in], np.argsort(by_out)[by_in],
        succ_ptr, succ, size[by_out], np.argsort(by_in)[by_out], p.weight, p.memory,
    )  # fmt: skip


@njit(cache=True)
def board(a, dev, cc, win, wout, t, d):
    """Puts t on device d: its cost there and the ms of its transfers, win by consumer and wout by
    producer."""
    dev[t], cc[t] = d, a.cost[t, d]
    for i in range(a.pred_ptr[t], a.pred_ptr[t + 1]):
        u, wait = a.pred[i], 0.0
        if dev[u] != d:
            wait = a.lat[dev[u], d] + a.pred_bytes[i] * a.inv[dev[u], d]
        # Both views of an edge hold its transfer: passes forwards and backwards each read along
        # their own list.
        win[i] = wout[a.pred_twin[i]] = wait
    for i in range(a.succ_ptr[t], a.succ_ptr[t + 1]):
        u, wait = a.succ[i], 0.0
        if dev[u] != d:
            wait = a.lat[d, dev[u]] + a.succ_bytes[i] * a.inv[d, dev[u]]
        wout[i] = win[a.succ_twin[i]] = wait


@njit(cache=True)
def join(d, x, y, prv, nxt, first, last):
    """Makes x and y neighbours on device d; -1 stands for its ends."""
    if x >= 0:
        nxt[x] = y
    else:
        first[d] = y
    if y >= 0:
        prv[y] = x
    else:
        last[d] = x


@njit(cache=True)
def ahead(ptr, pred, order, begin, cc, prv, win, end):
    """Longest paths to the ends of the tasks at positions `begin` and later."""
    for k in range(begin, len(order)):
        t = order[k]
        x, h = prv[t], 0.0
        if x >= 0:
            h = end[x]
        for i in range(ptr[t], ptr[t + 1]):
            f = end[pred[i]] + win[i]
            if f > h:
                h = f
        end[t] = h + cc[t]


@njit(cache=True)
def behind(ptr, succ, order, begin, cc, nxt, wout, rest):
    """Longest paths from the starts of the tasks at positions `begin` and earlier."""
    for k in range(begin, -1, -1):
        t = order[k]
        y, h = nxt[t], 0.0
        if y >= 0:
            h = rest[y]
        for i in range(ptr[t], ptr[t + 1]):
            f = rest[succ[i]] + wout[i]
            if f > h:
                h = f
        rest[t] = h + cc[t]


@njit(cache=True)
def reach(ptr, near, size, lat, inv, dev, t, path, when):
    """when [m]: the longest path over the neighbours `near` of t and their transfers to t, were it
    on each device."""
    when[:] = 0.0
    for i in range(ptr[t], ptr[t + 1]):
        u = near[i]
        d, f = dev[u], path[u]
        for e in range(len(when)):
            g = f if e == d else f + lat[d, e] + size[i] * inv[d, e]
            if g > when[e]:
                when[e] = g


@njit(cache=True)
def offers(t, cost, arrive, depart, x, y, at, prv, nxt, end, rest, after, length, count):
    """Appends the places for t on a device behind `count` others: the task before (-1: none) and
    the longest path through t. Returns how many there are then.

    x, y: the tasks of the device before and after t in topological order; t itself is in no
    sequence. Let L be the device's tasks that end after t's data are there, R those with more left
    than t's departure: L is the last part of the sequence, R the first. A task out of L is best
    before t (t need not wait for it, and it would wait for t), one out of R behind t. Where L and R
    overlap, t's ancestors are not in L and its descendants not in R, so every place within keeps
    precedences. Else all places between R and L are equally good, and the one at t's own place in
    topological order keeps them."""
    while x >= 0 and end[x] > arrive:
        x, y = prv[x], x
    while y >= 0 and end[y] <= arrive:
        x, y = y, nxt[y]
    if y < 0 or rest[y] <= depart:
        while x >= 0 and at[x] > at[t] and rest[x] <= depart:
            x, y = prv[x], x
    while True:
        before = arrive if x < 0 else max(arrive, end[x])
        later = depart if y < 0 else max(depart, rest[y])
        after[count], length[count] = x, before + cost + later
        count += 1
        if y < 0 or rest[y] <= depart:
            return count
        x, y = y, nxt[y]


@njit(cache=True)
def shift(a, order, at, t, x, y, prv, mark, spare):
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


@njit(cache=True)
def bath(state, energy, count, heat, rises):
    """Draws one of the places with Boltzmann's weights; `energy` is spent. rises: see
    `annealer.note`."""
    least, total = np.inf, 0.0
    for i in range(count):
        least = min(least, energy[i])
    for i in range(count):
        rise = energy[i] - least
        if rise > 0.0:
            note(rises, rise)
        over = rise / heat
        energy[i] = np.exp(-over) if over < 12.0 else 0.0
        total += energy[i]
    # Integers of the generator as a share: the same draw on every computer.
    goal = total * draw(state, 1 << 30) / (1 << 30)
    i = 0
    while i < count - 1 and (goal >= energy[i] or energy[i] == 0.0):
        goal -= energy[i]
        i += 1
    return i


@njit(cache=True, nogil=True)
def reinsert(a, order, dev, steps, hot, cold, work, seed, rises):
    """Improves `order` and `dev` in place over `steps` reinsertions; returns the best makespan.

    hot, cold: temperatures in ms at the beginning and the end. work: weight of the priced work
    beside the makespan. rises: see `annealer.note`."""
    n, m = a.cost.shape
    state = generator(seed)
    # Fields are read once: each read of a tuple's array counts a reference.
    costs, priced, weight, lat, inv = a.cost, a.priced, a.weight, a.lat, a.inv
    lat_t, inv_t = lat.T, inv.T
    pred_ptr, pred, pred_bytes = a.pred_ptr, a.pred, a.pred_bytes
    succ_ptr, succ, succ_bytes = a.succ_ptr, a.succ, a.succ_bytes
    at, cc = np.empty(n, np.int64), np.empty(n)
    prv, nxt = np.full(n, -1), np.full(n, -1)
    first, last = np.full(m, -1), np.full(m, -1)
    win, wout, free = np.zeros(len(pred)), np.zeros(len(succ)), a.memory.copy()
    for k in range(n):
        t = order[k]
        d = dev[t]
        board(a, dev, cc, win, wout, t, d)
        at[t] = k
        join(d, last[d], t, prv, nxt, first, last)
        last[d] = t
        free[d] -= weight[t]
    end, rest = np.zeros(n), np.zeros(n)
    ahead(pred_ptr, pred, order, 0, cc, prv, win, end)
    behind(succ_ptr, succ, order, n - 1, cc, nxt, wout, rest)
    # A second pair, because the first is the truth again if the task returns to its place.
    end2, rest2 = end.copy(), rest.copy()  # without the task that is taken out
    now = end.max()
    best, best_order, best_dev = now, order.copy(), dev.copy()
    mark, spare = np.zeros(n, np.int64), np.empty(n, np.int64)
    where, after = np.empty(n + m, np.int64), np.empty(n + m, np.int64)
    energy, length = np.empty(n + m), np.empty(n + m)
    arrive, depart = np.empty(m), np.empty(m)
    for step in range(steps):
        heat = temperature(hot, cold, step, steps)
        k = draw(state, n)
        t = order[k]
        if draw(state, 2) == 0:
            for _ in range(n):
                u = order[k]
                # Half of the draws look on from a random place for a task on a longest path: only
                # these can shorten the plan.
                if end[u] + rest[u] - cc[u] >= now * (1 - 1e-9):
                    t = u
                    break
                k = k + 1 if k + 1 < n else 0
        p, d, x, y = at[t], dev[t], prv[t], nxt[t]
        join(d, x, y, prv, nxt, first, last)
        free[d] += weight[t]
        for u in range(n):
            end2[u], rest2[u] = end[u], rest[u]
        # Nobody waits for a task that is nowhere.
        end2[t] = rest2[t] = -np.inf
        ahead(pred_ptr, pred, order, p + 1, cc, prv, win, end2)
        behind(succ_ptr, succ, order, p - 1, cc, nxt, wout, rest2)
        without = 0.0
        for e in range(m):
            if last[e] >= 0:
                without = max(without, end2[last[e]])
        reach(pred_ptr, pred, pred_bytes, lat, inv, dev, t, end2, arrive)
        reach(succ_ptr, succ, succ_bytes, lat_t, inv_t, dev, t, rest2, depart)
        count = 0
        for e in range(m):
            # It cannot run there, or its data cannot come or go.
            if costs[t, e] == np.inf or arrive[e] == np.inf or depart[e] == np.inf:
                continue
            # Its own device had room for it before.
            if free[e] < weight[t] and e != d:
                continue
            u, v, k = x, y, p - 1
            if e != d:
                while k >= 0 and dev[order[k]] != e:
                    k -= 1
                u = order[k] if k >= 0 else -1
                v = nxt[u] if u >= 0 else first[e]
            begin = count
            count = offers(
                t, costs[t, e], arrive[e], depart[e], u, v, at, prv, nxt, end2, rest2, after,
                length, count,
            )  # fmt: skip
            for i in range(begin, count):
                where[i] = e
                # The makespan decides; among equal ones the shorter path, and the cheaper device.
                energy[i] = max(length[i], without) + THROUGH * length[i] + work * priced[t, e]
        i = bath(state, energy, count, heat, rises)
        e, v = where[i], after[i]
        free[e] -= weight[t]
        if e == d and v == x:
            join(d, x, t, prv, nxt, first, last)
            join(d, t, y, prv, nxt, first, last)
            continue
        now = max(length[i], without)
        x = v
        y = first[e] if x < 0 else nxt[x]
        if e != d:
            board(a, dev, cc, win, wout, t, e)
        shift(a, order, at, t, x, y, prv, mark, spare)
        join(e, x, t, prv, nxt, first, last)
        join(e, t, y, prv, nxt, first, last)
        end, end2 = end2, end
        rest, rest2 = rest2, rest
        ahead(pred_ptr, pred, order, at[t], cc, prv, win, end)
        behind(succ_ptr, succ, order, at[t], cc, nxt, wout, rest)
        if now < best * (1 - 1e-12):
            best = now
            best_order[:] = order
            best_dev[:] = dev
    order[:] = best_order
    dev[:] = best_dev
    return best
