"""The searches' own tests of a placement (the verifier has its own, in `check*.py`).

Takes: a Problem and the device of each task by number.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit, plain
from csp_embed.partition.arrays.view import Floats, Ints, Problem
from csp_embed.partition.times import kernels
from csp_embed.partition.times.timetable import Timetable


def runs(p: Problem, dev: Ints) -> bool:
    """Allowed devices, one for each group, weights within memory, devices that can talk."""
    if not np.isfinite(p.cost[np.arange(p.n), dev]).all():
        return False
    # Weights are whole bytes in a `Problem` (see `normalised`), so that float sums are exact.
    if (np.bincount(dev, p.weight, minlength=p.m) > p.memory).any():
        return False
    _, first = np.unique(p.group, return_index=True)
    return bool((dev == dev[first][p.group]).all()) and talks(p, dev)


def talks(p: Problem, dev: Ints) -> bool:
    """Whether every value can go from its producer's device to its readers'."""
    readers = np.repeat(np.arange(len(p.value_src)), np.diff(p.use_ptr))
    return bool(np.isfinite(p.lat[dev[p.value_src[readers]], dev[p.use]]).all())


def convex(p: Problem, dev: Ints) -> bool:
    """No path leaves a device and comes back.

    left[t] = set (bit mask) of devices that some path to t has been on and left again."""
    # Bit masks: the sets of hundreds of paths merge in one operation.
    on: list[int] = [0] * p.n
    left: list[int] = [0] * p.n
    for t in range(p.n):
        here, gone, been = 1 << int(dev[t]), 0, 0
        for v in p.inputs(t):
            u = int(p.value_src[v])
            gone |= left[u]
            been |= on[u]
        # Going to another device leaves all those that the paths have been on.
        gone |= been & ~here
        if gone & here:
            return False
        on[t], left[t] = been | here, gone
    return True


def ordered(p: Problem, dev: Ints) -> bool:
    """No ring of devices that feed each other."""
    feeds = np.zeros((p.m, p.m), bool)
    for u, t, _ in p.edges():
        feeds[dev[u], dev[t]] = True
    np.fill_diagonal(feeds, False)
    # Takes away devices that nothing open feeds (Kahn); what stays is a ring.
    open_devices = list(range(p.m))
    while open_devices:
        first = [d for d in open_devices if not feeds[open_devices, d].any()]
        if not first:
            return False
        open_devices = [d for d in open_devices if d not in first]
    return True


def peak(p: Problem, table: Timetable) -> bool:
    """Weights and live activations fit at all times."""
    # Without activations weights alone count, which `runs` has seen.
    if not p.activation.any():
        return True
    a, w = kernels.arrays(p), kernels.work(p)
    w.start[:], w.finish[:], w.dev[:] = table.start, table.finish, table.dev
    w.group_dev[p.group] = table.dev
    run = peak_fits if p.n > 60 else plain(peak_fits)  # small: not worth compiling
    return bool(run(a, w, p.activation))


def pipelined_memory(p: Problem, dev: Ints) -> bool:
    """Weights and activations of all inputs in flight fit."""
    if not p.activation.any():
        return True
    weights = np.bincount(dev, p.weight, minlength=p.m)
    return bool((weights + in_flight(p, dev) <= p.memory).all())


def in_flight(p: Problem, dev: Ints) -> Floats:
    """Bytes [m] of activations of all inputs in flight.

    Stages count device changes along paths; a value read k stages later is kept k times more."""
    # Producers come first in the order of tasks, so one pass is enough.
    stage = [0] * p.n
    for t in range(p.n):
        for v in p.inputs(t):
            u = int(p.value_src[v])
            stage[t] = max(stage[t], stage[u] + int(dev[u] != dev[t]))
    fixed, level, top = np.zeros(p.m), np.zeros(p.m), np.zeros(p.m)
    # A value that stays in its stage dies with its last reader; those alone can share room.
    ends: list[list[int]] = [[] for _ in range(p.n)]  # what dies after a task's turn
    for t in range(p.n):
        readers = [int(c) for v in p.outputs(t) for c in p.consumers(int(v))]
        # Stages behind, at the same time, other samples are at work: one copy for each.
        kept = max((stage[c] for c in readers), default=stage[t]) - stage[t]
        fixed[dev[t]] += kept * p.activation[t]
        if not kept:
            # The reader with the greatest number comes last in the order that the stage runs in.
            ends[max(readers, default=t)].append(t)
    for t in range(p.n):
        level[dev[t]] += p.activation[t]
        top[dev[t]] = max(top[dev[t]], level[dev[t]])
        for s in ends[t]:
            level[dev[s]] -= p.activation[s]
    return fixed + top


@njit(cache=True, nogil=True)
def peak_fits(a, w, activation):
    """Whether weights and live activations of the decoded schedule fit every device."""
    n, m = a.cost.shape
    # Two events per task: its activation comes at the start and goes with its last reader.
    when = np.empty(2 * n)
    what = np.empty(2 * n)
    for d in range(m):
        if a.memory[d] == np.inf:
            continue
        k, room = 0, a.memory[d]
        # Weights stay for the whole run, so only what is left of memory is for activations.
        for g in range(len(a.group_weight)):
            if w.group_dev[g] == d:
                room -= a.group_weight[g]
        for t in range(n):
            if w.dev[t] != d or activation[t] == 0:
                continue
            end = w.finish[t]
            for o in range(a.out_ptr[t], a.out_ptr[t + 1]):
                for u in range(a.use_ptr[a.out[o]], a.use_ptr[a.out[o] + 1]):
                    end = max(end, w.finish[a.use[u]])
            if end > w.start[t]:
                when[k], what[k] = w.start[t], activation[t]
                when[k + 1], what[k + 1] = end, -activation[t]
                k += 2
        by_time = np.argsort(when[:k], kind="mergesort")
        level, i = 0.0, 0
        while i < k:
            now = when[by_time[i]]
            rise = 0.0
            # Events at one time are taken together: what ends makes room for what begins.
            while i < k and when[by_time[i]] <= now * (1.0 + 1e-12):
                rise += what[by_time[i]]
                i += 1
            level += rise
            if level > room:
                return False
    return True
