"""Annealing for the latency of dnn-partitioning workloads, compiled.

Takes: a `Dnn`, a placement.  Leaves: the best placement seen.

An accelerator runs one subgraph as a block: it begins when all that it reads has arrived and
releases all at its end; CPUs run tasks as soon as they can. The makespan is counted anew for each
proposal, in one pass over the graph. Proposals: a group or a walk of neighbours to another device;
a group with all that comes before it in its block to the device of something before, or the same
behind, which moves the border of two blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints
from csp_embed.partition.methods.local.annealer import accepts, draw, generator, temperature
from csp_embed.partition.methods.local.cooling import UNNOTED
from csp_embed.partition.methods.period.balance import behind, grow
from csp_embed.partition.methods.period.period_loads import load_arrays
from csp_embed.partition.models.dnn import Dnn

WORK = 0.02  # weight of all loads beside the makespan, so that its plateaus have a slope


class Blocks(NamedTuple):
    """group [n]; cost [n, m] ms; blocky [m]: accelerators; made [n]: the task's value or -1; toll
    [v] ms, source [v], readers as CSR. Then space to work in: load [m], node [n] (its device, or
    m + task on a CPU), by node: waiting, ready; head [m] and following [n]: tasks of a block;
    stack; stamp [m]."""

    group: Ints
    cost: Floats
    blocky: Ints
    made: Ints
    toll: Floats
    source: Ints
    use_ptr: Ints
    use: Ints
    load: Floats
    node: Ints
    waiting: Ints
    ready: Floats
    head: Ints
    following: Ints
    stack: Ints
    stamp: Ints


# Arrays are made once and worked on in place: a proposal must allocate nothing.
def blocks(dnn: Dnn) -> Blocks:
    """The kernel's view of a workload."""
    p = dnn.p
    made = np.full(p.n, -1)
    made[p.value_src] = np.arange(len(p.value_src))
    nodes = p.n + p.m
    return Blocks(
        p.group, p.cost, dnn.accelerator, made, dnn.toll, p.value_src, p.use_ptr, p.use,
        np.zeros(p.m), np.zeros(p.n, np.int64), np.zeros(nodes, np.int64), np.zeros(nodes),
        np.zeros(p.m, np.int64), np.zeros(p.n, np.int64), np.zeros(nodes, np.int64),
        np.zeros(p.m, np.int64),
    )  # fmt: skip


def anneal_blocks(
    dnn: Dnn, dev: Ints, steps: int, hot: float, cold: float, seed: int, rises: Floats = UNNOTED
) -> float:
    """Improves dev [n] in place over `steps` proposals; the least makespan seen. hot, cold:
    temperatures in ms; rises: see `annealer.note`. The placement to start from must be feasible."""
    q = load_arrays(dnn.p, dnn.accelerator, dnn.toll)
    place = np.zeros(len(q.weight), np.int64)
    place[q.group] = dev
    found = _anneal(blocks(dnn), q, place, steps, hot, cold, seed, rises)
    dev[:] = place[q.group]
    return float(found)


@njit(cache=True)
def makespan(b, place):
    """Makespan of a placement [group], inf where blocks wait for each other; and all loads."""
    # One pass, anew each time: a block's change shifts all that comes after it.
    n, m = b.cost.shape
    load, node, head, following = b.load, b.node, b.head, b.following
    waiting, ready, stack, stamp = b.waiting, b.ready, b.stack, b.stamp
    source, use_ptr, use, made = b.source, b.use_ptr, b.use, b.made
    load[:] = 0.0
    # -1: no block begins there yet.
    head[:] = -1
    stamp[:] = -1
    count = 0
    for t in range(n):
        d = place[b.group[t]]
        if b.blocky[d]:
            count += head[d] < 0
            # Tasks of a block as a linked list: no sorting, no counting first.
            node[t], following[t], head[d] = d, head[d], t
            load[d] += b.cost[t, d]
        else:
            count += 1
            node[t], following[t] = m + t, -1
    waiting[:] = 0
    ready[:] = 0.0
    for v in range(len(source)):
        here, leaves = node[source[v]], False
        for k in range(use_ptr[v], use_ptr[v + 1]):
            there = node[use[k]]
            if there == here:
                continue
            leaves = True
            waiting[there] += 1
            # A value enters a block once; the stamp is the last value that did.
            if there < m and stamp[there] != v:
                stamp[there] = v
                load[there] += b.toll[v]
        if leaves and here < m:
            load[here] += b.toll[v]
    size = 0
    # Blocks with tasks only: empty accelerators are no nodes.
    for d in range(m):
        if head[d] >= 0 and waiting[d] == 0:
            stack[size] = d
            size += 1
    for t in range(n):
        if node[t] >= m and waiting[node[t]] == 0:
            stack[size] = node[t]
            size += 1
    end, work = 0.0, 0.0
    while size:
        size -= 1
        # count goes to 0 only if every node ran: else blocks wait for each other.
        count -= 1
        x = stack[size]
        t = x - m if x >= m else head[x]
        took = b.cost[t, place[b.group[t]]] if x >= m else load[x]
        when = ready[x] + took
        # Loads of accelerators only: CPUs never make anything wait.
        work += took if x < m else 0.0
        end = max(end, when)
        while t >= 0:
            # A task that nobody reads has no value: v is -1, the range empty.
            v = made[t]
            for k in range(use_ptr[v], use_ptr[v + 1] if v >= 0 else use_ptr[v]):
                y = node[use[k]]
                if y != x:
                    ready[y] = max(ready[y], when)
                    waiting[y] -= 1
                    if waiting[y] == 0:
                        stack[size] = y
                        size += 1
            t = following[t]
    return (np.inf if count else end), work


@njit(cache=True, nogil=True)
def _anneal(b, q, place, steps, hot, cold, seed, rises):
    """`anneal_blocks` on place [group]."""
    groups, m = q.cost.shape
    state = generator(seed)
    # Memory that is left, kept up to date from move to move.
    free = q.memory.copy()
    for g in range(groups):
        free[place[g]] -= q.weight[g]
    now, work = makespan(b, place)
    best, best_place = now, place.copy()
    # The tie-breaker is not part of the makespan that is told.
    now += WORK * work
    cluster, inside = np.empty(groups, np.int64), np.zeros(groups, np.bool_)
    for step in range(steps):
        g, kind = draw(state, groups), draw(state, 6)
        cluster[0] = g
        # Half of the moves grow a cluster of neighbours, half move borders of blocks.
        if kind < 3:
            aim = 1 if kind < 2 else 2 + draw(state, min(groups, 20))
            aim = min(aim, groups)
            count, new = grow(
                state, place, cluster, inside, aim, q.maker, q.use_ptr, q.use, q.inp_ptr, q.inp,
                q.out_ptr, q.out,
            )  # fmt: skip
        else:
            count, new = behind(
                state, place, cluster, inside, kind == 3, q.maker, q.use_ptr, q.use, q.inp_ptr,
                q.inp, q.out_ptr, q.out,
            )  # fmt: skip
        # Kinds 0 and 5 go anywhere; the others follow an edge.
        if kind == 0 or kind == 5:
            new = draw(state, m)
        old = place[g]
        if new < 0 or new == old:
            continue
        # All of it must fit: memory and costs are checked before the pass over the graph.
        need, fine = 0.0, True
        for i in range(count):
            need += q.weight[cluster[i]]
            fine &= q.cost[cluster[i], new] < np.inf
        if not fine or need > free[new]:
            continue
        for i in range(count):
            place[cluster[i]] = new
        value, work = makespan(b, place)
        then = value + WORK * work
        heat = temperature(hot, cold, step, steps)
        # inf: the move would make blocks wait for each other.
        if value < np.inf and accepts(state, now, then, heat, rises):
            now = then
            free[old] += need
            free[new] -= need
            # More than rounding, or the best would be copied for nothing.
            if value < best * (1 - 1e-12):
                best = value
                best_place[:] = place
            continue
        for i in range(count):
            # All of a cluster stood on one device.
            place[cluster[i]] = old
    place[:] = best_place
    return best
