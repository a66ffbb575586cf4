"""Annealing on placements for the smallest period, compiled. Serves both cost models.

Takes: `Loads` arrays and a start.  Leaves: the best device of each task seen.

Energy: largest load + SPREAD * root mean square of all loads, so that plateaus of the maximum have
a slope. Links: a value loads every contended hop of its route to each other device that reads it,
once per device. dnn-partitioning: accelerators pay a value's `toll` once on the way out
and once on the way in per accelerator that reads it.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numba import njit

from csp_embed.partition.anneal import draw, generator, neighbour
from csp_embed.partition.problem import Floats, Ints

SPREAD = 0.1
CLUSTER = 60  # groups that one proposal moves together


class Loads(NamedTuple):
    """Problem arrays. members, member_ptr: tasks by group. accelerator [m], toll [v]: dnn only."""

    cost: Floats
    group_weight: Floats
    memory: Floats
    value_src: Ints
    value_bytes: Floats
    inp_ptr: Ints
    inp: Ints
    out_ptr: Ints
    out: Ints
    use_ptr: Ints
    use: Ints
    hop_ptr: Ints
    hop_res: Ints
    hop_lat: Floats
    hop_inv: Floats
    reach: Ints
    members: Ints
    member_ptr: Ints
    dnn: bool
    accelerator: Ints
    toll: Floats
    lines: int


@njit(cache=True)
def count_value(q, dev, readers, load, v, sign):
    """Adds (sign 1) or removes (-1) the loads of value v; False where devices cannot talk."""
    m = q.cost.shape[1]
    a = dev[q.value_src[v]]
    leaves, fine = False, True
    for d in range(m):
        if d == a or readers[v, d] == 0:
            continue
        leaves = True
        if q.dnn:
            if q.accelerator[d]:
                load[d] += sign * q.toll[v]
        else:
            if not q.reach[a, d]:
                fine = False
            for h in range(q.hop_ptr[a * m + d], q.hop_ptr[a * m + d + 1]):
                if q.hop_res[h] >= 0:
                    load[m + q.hop_res[h]] += sign * (
                        q.hop_lat[h] + q.value_bytes[v] * q.hop_inv[h]
                    )
    if q.dnn and leaves and q.accelerator[a]:
        load[a] += sign * q.toll[v]
    return fine


@njit(cache=True)
def shift(q, dev, readers, load, t, b):
    """Moves task t to device b; False where some value can then not reach a reader."""
    a, fine = dev[t], True
    for k in range(q.out_ptr[t], q.out_ptr[t + 1]):
        count_value(q, dev, readers, load, q.out[k], -1.0)
    for k in range(q.inp_ptr[t], q.inp_ptr[t + 1]):
        v = q.inp[k]
        count_value(q, dev, readers, load, v, -1.0)
        readers[v, a] -= 1
        readers[v, b] += 1
        if not count_value(q, dev, readers, load, v, 1.0):
            fine = False
    load[a] -= q.cost[t, a]
    load[b] += q.cost[t, b]
    dev[t] = b
    for k in range(q.out_ptr[t], q.out_ptr[t + 1]):
        if not count_value(q, dev, readers, load, q.out[k], 1.0):
            fine = False
    return fine


@njit(cache=True)
def begin(q, dev, readers, load):
    """Loads and readers of a placement from scratch."""
    readers[:] = 0
    load[:] = 0.0
    for t in range(len(dev)):
        load[dev[t]] += q.cost[t, dev[t]]
        for k in range(q.inp_ptr[t], q.inp_ptr[t + 1]):
            readers[q.inp[k], dev[t]] += 1
    fine = True
    for v in range(len(q.value_src)):
        if not count_value(q, dev, readers, load, v, 1.0):
            fine = False
    return fine


@njit(cache=True)
def energy(load):
    """Largest load and a little of the spread."""
    return load.max() + SPREAD * np.sqrt((load * load).mean())


@njit(cache=True)
def balance(q, dev, steps, hot, cold, seed):
    """Improves `dev` in place over `steps` proposals; returns the smallest period seen.

    Proposals: a group to another device or to that of a neighbour; a swap of two groups;
    a connected cluster of groups.
    """
    n, m = q.cost.shape
    groups = len(q.group_weight)
    state = generator(seed)
    readers = np.zeros((len(q.value_src), m), np.int64)
    load = np.zeros(q.lines)
    begin(q, dev, readers, load)
    free = q.memory.copy()
    for g in range(groups):
        free[dev[q.members[q.member_ptr[g]]]] -= q.group_weight[g]
    group = np.empty(n, np.int64)
    for g in range(groups):
        for i in range(q.member_ptr[g], q.member_ptr[g + 1]):
            group[q.members[i]] = g
    now = energy(load)
    best, best_dev = load.max(), dev.copy()
    cluster, inside = np.empty(CLUSTER, np.int64), np.zeros(groups, np.bool_)
    for step in range(steps):
        if step % 5000 == 4999:  # rounding errors of the running sums
            begin(q, dev, readers, load)
            now = energy(load)
        g = draw(state, groups)
        first = q.members[q.member_ptr[g]]
        old, new, h = dev[first], -1, -1
        kind = draw(state, 5)
        heat = hot * (cold / hot) ** (step / steps)
        if kind == 4:
            size, new = grow(q, state, dev, group, g, cluster, inside)
            need, fine = 0.0, new >= 0 and new != old
            for k in range(size):
                need += q.group_weight[cluster[k]]
                if new >= 0 and q.cost[q.members[q.member_ptr[cluster[k]]], new] == np.inf:
                    fine = False
            if not fine or free[new] < need:
                continue
            for k in range(size):
                for i in range(q.member_ptr[cluster[k]], q.member_ptr[cluster[k] + 1]):
                    shift(q, dev, readers, load, q.members[i], new)
            then = energy(load) if q.dnn or reachable(q, dev, readers) else np.inf
            if then <= now or draw(state, 1 << 30) < np.exp((now - then) / heat) * (1 << 30):
                now = then
                free[old] += need
                free[new] -= need
                if load.max() < best - 1e-12:
                    best = load.max()
                    best_dev[:] = dev
                continue
            for k in range(size):
                for i in range(q.member_ptr[cluster[k]], q.member_ptr[cluster[k] + 1]):
                    shift(q, dev, readers, load, q.members[i], old)
            continue
        if kind == 0:
            new = draw(state, m)
        elif kind == 1:
            h = draw(state, groups)
            new = dev[q.members[q.member_ptr[h]]]
        else:
            t = q.members[q.member_ptr[g] + draw(state, q.member_ptr[g + 1] - q.member_ptr[g])]
            u = neighbour(q, state, t)
            if u < 0:
                continue
            new = dev[u]
        if new == old or q.cost[first, new] == np.inf:
            continue
        if h >= 0 and q.cost[q.members[q.member_ptr[h]], old] == np.inf:
            continue
        back = q.group_weight[h] if h >= 0 else 0.0
        if free[new] + back < q.group_weight[g] or free[old] + q.group_weight[g] < back:
            continue
        fine = True
        for i in range(q.member_ptr[g], q.member_ptr[g + 1]):
            fine = shift(q, dev, readers, load, q.members[i], new)
        if h >= 0:
            for i in range(q.member_ptr[h], q.member_ptr[h + 1]):
                fine = shift(q, dev, readers, load, q.members[i], old)
        if not q.dnn:
            fine = reachable(q, dev, readers)
        then = energy(load) if fine else np.inf
        if then <= now or draw(state, 1 << 30) < np.exp((now - then) / heat) * (1 << 30):
            now = then
            free[old] += q.group_weight[g] - back
            free[new] -= q.group_weight[g] - back
            if load.max() < best - 1e-12:
                best = load.max()
                best_dev[:] = dev
            continue
        if h >= 0:
            for i in range(q.member_ptr[h], q.member_ptr[h + 1]):
                shift(q, dev, readers, load, q.members[i], new)
        for i in range(q.member_ptr[g], q.member_ptr[g + 1]):
            shift(q, dev, readers, load, q.members[i], old)
    dev[:] = best_dev
    begin(q, dev, readers, load)
    return load.max()


@njit(cache=True)
def grow(q, state, dev, group, g, cluster, inside):
    """Fills `cluster` with g and groups around it on its device, by a random walk; returns how many
    and the device of the last neighbour met elsewhere (-1: none)."""
    old = dev[q.members[q.member_ptr[g]]]
    cluster[0] = g
    inside[g] = True
    size, other = 1, -1
    aim = 2 + draw(state, CLUSTER - 1)
    for _ in range(4 * aim):
        if size >= aim:
            break
        c = cluster[draw(state, size)]
        t = q.members[q.member_ptr[c] + draw(state, q.member_ptr[c + 1] - q.member_ptr[c])]
        u = neighbour(q, state, t)
        if u < 0:
            continue
        if dev[u] != old:
            other = dev[u]
        elif not inside[group[u]]:
            inside[group[u]] = True
            cluster[size] = group[u]
            size += 1
    for k in range(size):
        inside[cluster[k]] = False
    if other < 0:
        other = draw(state, q.cost.shape[1])
    return size, other


@njit(cache=True)
def reachable(q, dev, readers):
    """Whether every value can reach its readers (at once where all devices can talk)."""
    if q.reach.all():
        return True
    for v in range(len(q.value_src)):
        for d in range(q.cost.shape[1]):
            if readers[v, d] > 0 and not q.reach[dev[q.value_src[v]], d]:
                return False
    return True
