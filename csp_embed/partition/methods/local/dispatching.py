"""Annealing over devices and priorities, by dispatching, compiled.

Takes: arrays of a Problem, a start.  Leaves: the best devices and priorities seen.

Only what is on the critical path is touched: the chain of operations back from the last end, each
of which waited for the one before it, as its input or on its line. The energy is the makespan and
the priced work: with prices of lines from the relaxation (`period.relaxation`), work that is done
where it is cheap leaves room on the busy lines, which the makespan alone does not show while all of
them are busy.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.methods.local.annealer import (
    draw,
    gather,
    generator,
    neighbour,
    note,
    temperature,
)
from csp_embed.partition.times.dispatch import busy, dispatch_within

LARGEST = 8  # tasks that one proposal moves together
AHEAD = 1e-9  # by which a priority is raised over another's
EXACT = 1 + 1e-9  # relative: more than sums of floats differ in another order


@njit(cache=True)
def critical(s, final, path):
    """Fills `path` with the critical operations, the last one first; returns how many."""
    count, x = 0, final
    while x >= 0 and count < len(path):
        path[count] = x
        count += 1
        x = s.held[x] if s.held[x] >= 0 else s.cause[x]
    return count


@njit(cache=True)
def reader(a, s, dev, x):
    """The task itself; of a hop the first task that reads the value there."""
    n, m = a.cost.shape
    if x < n:
        return x
    v, d = (x - n) // s.longest // m, (x - n) // s.longest % m
    for k in range(a.use_ptr[v], a.use_ptr[v + 1]):
        if dev[a.use[k]] == d:
            return a.use[k]
    return -1


@njit(cache=True)
def priced_within(a, s, dev, priority, prices, weight, late, limit):
    """(energy, makespan, the operation that ends last); inf where the energy is above `limit`."""
    longest, priced, works = busy(a, s, dev), 0.0, 0.0
    m = a.cost.shape[1]
    for r in range(len(s.load)):
        priced += prices[r] * s.load[r]
        if r < m:
            works += prices[r] * s.load[r]
    # The makespan that is left to the order: devices end no earlier than they have worked.
    most = (limit - weight * priced - late * works) * EXACT
    if longest > most:
        return np.inf, np.inf, -1
    for r in range(len(s.load)):
        s.spare[r] = most - s.load[r]
    end, final, priced = dispatch_within(a, s, dev, priority, prices)
    ends = 0.0
    for r in range(m):
        ends += prices[r] * s.since[r]
    return end + weight * priced + late * ends, end, final


@njit(cache=True, nogil=True)
def anneal_dispatch(
    a, s, members, member_ptr, layer, twins, dev, priority, prices, weight, late, steps, hot, cold,
    seed, rises,
):  # fmt: skip
    """Improves dev [n] and priority [n] in place over `steps` proposals; the best makespan.

    layer [n], twins [layers, copies]: tasks that are copies of one layer. prices [lines]; weight:
    of the priced work beside the makespan; late: of the devices' last ends at their prices. rises:
    see `annealer.note`.

    Proposals, of a critical operation: before what held its line; a task with some neighbours to
    another device; one end of a transfer to the other's device; a task and a copy of it change
    places, which leaves all loads of devices as they are."""
    n, m = a.cost.shape
    state = generator(seed)
    copies = twins.shape[1]
    free = a.memory.copy()
    for g in range(len(a.group_weight)):
        free[dev[members[member_ptr[g]]]] -= a.group_weight[g]
    now, best, final = priced_within(a, s, dev, priority, prices, weight, late, np.inf)
    best_dev, best_priority = dev.copy(), priority.copy()
    path, held = np.empty(4 * n + 16, np.int64), np.empty(4 * n + 16, np.int64)
    cluster, inside = np.empty(2 * LARGEST, np.int64), np.zeros(n, np.bool_)
    to, pairs = np.empty(2 * LARGEST, np.int64), np.empty(2 * LARGEST, np.int64)
    moved, came = np.empty(n, np.int64), np.empty(n, np.int64)
    count = critical(s, final, path)
    for i in range(count):
        held[i] = s.held[path[i]]
    for step in range(steps):
        i = draw(state, count)
        x, before = path[i], held[i]
        kind = draw(state, 8)
        size, urgent, was = 0, -1, 0.0
        t = reader(a, s, dev, x)
        if t < 0:
            continue
        if kind < 3 and before >= 0:
            other = reader(a, s, dev, before)
            if other < 0:
                continue
            if kind == 0:
                urgent, was = other, priority[other]
                priority[other] = priority[t] - AHEAD
            else:
                urgent, was = t, priority[t]
                priority[t] = priority[other] + AHEAD
        elif kind == 3 and copies > 1:
            other = draw(state, copies)
            many = gather(a, state, dev, t, cluster, inside, 1 if draw(state, 2) == 0 else LARGEST)
            for c in range(many):
                u = twins[layer[cluster[c]], other]
                if dev[u] != dev[cluster[c]]:
                    pairs[size], pairs[size + 1] = cluster[c], u
                    to[size], to[size + 1] = dev[u], dev[cluster[c]]
                    size += 2
            if size == 0:
                continue
            cluster[:size] = pairs[:size]
        elif x >= n or kind == 4:
            other = neighbour(a, state, t)
            if x >= n:
                other = a.value_src[(x - n) // s.longest // m]
            if other < 0 or dev[other] == dev[t]:
                continue
            if draw(state, 2) == 0:
                t, other = other, t
            cluster[0], to[0], size = t, dev[other], 1
        else:
            new = draw(state, m)
            if new == dev[t]:
                continue
            size = gather(a, state, dev, t, cluster, inside, 1 if kind < 6 else LARGEST)
            for c in range(size):
                to[c] = new
        # Groups move as wholes; taken back below if there is no room, no cost, or no gain.
        fine, many = True, 0
        for c in range(size):
            g = a.group[cluster[c]]
            here = dev[cluster[c]]
            if here == to[c]:
                continue
            for k in range(member_ptr[g], member_ptr[g + 1]):
                moved[many], came[many] = members[k], here
                many += 1
                dev[members[k]] = to[c]
                fine &= a.cost[members[k], to[c]] < np.inf
            free[here] += a.group_weight[g]
            free[to[c]] -= a.group_weight[g]
        for c in range(size):
            fine &= free[to[c]] >= 0
        then, limit, end, final = np.inf, np.inf, np.inf, -1
        if fine and (many > 0 or urgent >= 0):
            # Metropolis' rule, its number drawn first.
            chance = (draw(state, 1 << 30) + 1.0) / (1 << 30)
            limit = now - temperature(hot, cold, step, steps) * np.log(chance)
            # Whoever asks what rises cost wants all of them.
            most = limit if len(rises) == 1 else np.inf
            then, end, final = priced_within(a, s, dev, priority, prices, weight, late, most)
            if then > now:
                note(rises, then - now)
        if then < np.inf and then <= limit:
            now = then
            count = critical(s, final, path)
            for k in range(count):
                held[k] = s.held[path[k]]
            if end < best:
                best = end
                best_dev[:], best_priority[:] = dev, priority
            continue
        for k in range(many - 1, -1, -1):
            u = moved[k]
            g = a.group[u]
            if u == members[member_ptr[g]]:
                free[dev[u]] += a.group_weight[g]
                free[came[k]] -= a.group_weight[g]
            dev[u] = came[k]
        if urgent >= 0:
            priority[urgent] = was
    dev[:], priority[:] = best_dev, best_priority
    return best
