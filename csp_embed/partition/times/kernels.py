"""Loops over schedules, compiled with Numba: the insertion-based decoder and list scheduling.

Takes: `Arrays` (from a Problem) and a `Work` space.  Leaves: start and finish times in the work
space.  Assumes: task orders are topological.

A timeline is a row of sorted busy intervals, one for each device and one for each contended link or
bus. A task or transfer goes into the earliest gap that is long enough. `interpreted()` gives the
same functions without compilation, which is quicker for small graphs in a fresh process.
"""

from __future__ import annotations

import types
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints, Problem

HEFT, OCT, LOOKAHEAD, FORCED = 0, 1, 2, 3


class Arrays(NamedTuple):
    """What the kernels read of a Problem, plus the weight of each colocation group."""

    cost: Floats
    group: Ints
    group_weight: Floats
    memory: Floats
    value_src: Ints
    row: Ints
    value_bytes: Floats
    inp_ptr: Ints
    inp: Ints
    out_ptr: Ints
    out: Ints
    use_ptr: Ints
    use: Ints
    hop_ptr: Ints
    hop_to: Ints
    hop_res: Ints
    hop_lat: Floats
    hop_inv: Floats
    lat: Floats
    inv: Floats


class Work(NamedTuple):
    """Scratch. bs, be [timelines, cap], count: busy intervals. arrive [v, m] ms (-1: not sent);
    hop_start [v, m, hops]; log [*, 3]: (timeline, value, device) of what can be undone."""

    bs: Floats
    be: Floats
    count: Ints  # pyright: ignore[reportIncompatibleMethodOverride] (a tuple counts nothing here)
    start: Floats
    finish: Floats
    dev: Ints
    arrive: Floats
    hop_start: Floats
    log: Ints
    free: Floats
    group_dev: Ints


def arrays(p: Problem) -> Arrays:
    """The kernels' view of a problem."""
    weight = np.zeros(int(p.group.max(initial=-1)) + 1)
    np.add.at(weight, p.group, p.weight)
    return Arrays(
        p.cost,
        p.group,
        weight,
        p.memory,
        p.value_src,
        p.row,
        p.value_bytes,
        p.inp_ptr,
        p.inp,
        p.out_ptr,
        p.out,
        p.use_ptr,
        p.use,
        p.hop_ptr,
        p.hop_to,
        p.hop_res,
        p.hop_lat,
        p.hop_inv,
        p.lat,
        p.inv,
    )


def work(p: Problem) -> Work:
    """Fresh scratch for one problem."""
    n, m, v = p.n, p.m, len(p.value_src)
    lines = m + len(p.resources)
    longest = int(np.diff(p.hop_ptr).max(initial=1))
    # Each value goes at most once to each device that reads it.
    fan = np.minimum(np.diff(p.use_ptr), m).sum() if p.resources else 0
    # A bus may carry every hop of a route: that many intervals of one value on its line.
    # One more: an interval is put in before it is known whether it stays.
    cap = int(max(n, fan * longest)) + 1
    # A trial places a task and one of its readers (lookahead): twice the log of one.
    logged = 2 * int(np.diff(p.inp_ptr).max(initial=0) + 1) * (longest + 1) + 8
    return Work(
        np.zeros((lines, cap)),
        np.zeros((lines, cap)),
        np.zeros(lines, np.int64),
        np.zeros(n),
        np.zeros(n),
        np.zeros(n, np.int64),
        np.zeros((v, m)),
        np.zeros((v, m, max(longest, 1))),
        np.zeros((logged, 3), np.int64),
        np.zeros(m),
        np.zeros(int(p.group.max(initial=-1)) + 1, np.int64),
    )


@njit(cache=True)
def reset(a, w):
    """Empties the timelines."""
    w.count[:] = 0
    # -1 is "not sent" and "nowhere"; times are never below 0.
    w.arrive[:] = -1.0
    w.dev[:] = -1
    w.group_dev[:] = -1
    w.free[:] = a.memory


@njit(cache=True)
def gap(bs, be, count, r, ready, length):
    """(start, position) of the earliest gap of timeline r at or after `ready`."""
    k = count[r]
    lo, hi = 0, k
    # Binary search: intervals of one line are sorted and do not overlap, so their ends rise too.
    while lo < hi:  # first interval that ends after `ready`
        mid = (lo + hi) // 2
        if be[r, mid] > ready:
            hi = mid
        else:
            lo = mid + 1
    t = ready
    for i in range(lo, k):
        # Touching is allowed: an interval may begin when another ends.
        if t + length <= bs[r, i]:
            return t, i
        if be[r, i] > t:
            t = be[r, i]
    return t, k


@njit(cache=True)
def put(bs, be, count, r, at, start, end):
    """Inserts an interval before position `at`."""
    for i in range(count[r], at, -1):
        bs[r, i] = bs[r, i - 1]
        be[r, i] = be[r, i - 1]
    bs[r, at] = start
    be[r, at] = end
    count[r] += 1


@njit(cache=True)
def undo(w, mark, top):
    """Takes back log entries top-1 … mark."""
    # From the last entry back, or positions of later ones would be wrong.
    for k in range(top - 1, mark - 1, -1):
        r = w.log[k, 0]
        if r < 0:  # an arrival
            w.arrive[w.log[k, 1], w.log[k, 2]] = -1.0
            continue
        i = w.log[k, 1]
        for j in range(i, w.count[r] - 1):
            w.bs[r, j] = w.bs[r, j + 1]
            w.be[r, j] = w.be[r, j + 1]
        w.count[r] -= 1


@njit(cache=True)
def place(a, w, t, d, top):
    """Sends what task t still needs to device d and puts t there. (finish or inf, new log top)"""
    m = a.cost.shape[1]
    ready = 0.0
    for k in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
        v = a.inp[k]
        s = a.value_src[v]
        x = w.dev[s]
        if x < 0:  # not placed yet (lookahead): as if it cost nothing
            continue
        # On the same device a value is there when its maker ends.
        if x == d:
            if w.finish[s] > ready:
                ready = w.finish[s]
            continue
        # Sent once to a device, whoever else reads it there.
        if w.arrive[v, d] < 0:
            at = w.finish[s]
            pair = (a.row[v] + x) * m + d
            # Without hops between different devices there is no route.
            if a.hop_ptr[pair] == a.hop_ptr[pair + 1]:
                return np.inf, top
            for h in range(a.hop_ptr[pair], a.hop_ptr[pair + 1]):
                length = a.hop_lat[h] + a.value_bytes[v] * a.hop_inv[h]
                # An uncontended hop has no timeline: any number of values at once.
                if a.hop_res[h] >= 0:
                    r = m + a.hop_res[h]
                    at, pos = gap(w.bs, w.be, w.count, r, at, length)
                    put(w.bs, w.be, w.count, r, pos, at, at + length)
                    w.log[top, 0], w.log[top, 1] = r, pos
                    top += 1
                w.hop_start[v, d, h - a.hop_ptr[pair]] = at
                at += length
            w.arrive[v, d] = at
            # Logged with -1 as the line, so that `undo` clears the arrival instead of an interval.
            w.log[top, 0], w.log[top, 1], w.log[top, 2] = -1, v, d
            top += 1
        if w.arrive[v, d] > ready:
            ready = w.arrive[v, d]
    start, pos = gap(w.bs, w.be, w.count, d, ready, a.cost[t, d])
    w.start[t] = start
    w.finish[t] = start + a.cost[t, d]
    put(w.bs, w.be, w.count, d, pos, start, w.finish[t])
    w.log[top, 0], w.log[top, 1] = d, pos
    top += 1
    return w.finish[t], top


@njit(cache=True, nogil=True)
def decode(a, w, order, dev):
    """Makespan of the tasks in `order`, each on its given device; inf where devices cannot talk."""
    reset(a, w)
    end = 0.0
    for t in order:
        f, _ = place(a, w, t, dev[t], 0)
        if f == np.inf:
            # Devices that cannot talk: how late it would be does not matter.
            return np.inf
        w.dev[t] = dev[t]
        if f > end:
            end = f
    return end


@njit(cache=True)
def fits(a, w, t, d):
    """Whether device d is allowed for t with the memory and colocations so far."""
    if a.cost[t, d] == np.inf:
        return False
    g = a.group[t]
    # A group's memory is paid for by its first task; the others follow it.
    if w.group_dev[g] >= 0:
        return w.group_dev[g] == d
    return w.free[d] >= a.group_weight[g]


@njit(cache=True)
def settle(a, w, t, d):
    """Records that t is on d."""
    w.dev[t] = d
    g = a.group[t]
    if w.group_dev[g] < 0:
        w.group_dev[g] = d
        w.free[d] -= a.group_weight[g]


@njit(cache=True)
def score(a, w, t, d, mode, table):
    """What a list scheduler minimises when it puts t on d; undone before returning."""
    finish, top = place(a, w, t, d, 0)
    value = finish
    if finish < np.inf and mode == OCT:
        value = finish + table[t, d]
    if finish < np.inf and mode == LOOKAHEAD:
        # Lookahead: t counts as placed on d while its readers are tried.
        w.dev[t] = d
        start_t, finish_t = w.start[t], w.finish[t]
        for o in range(a.out_ptr[t], a.out_ptr[t + 1]):
            v = a.out[o]
            for u in range(a.use_ptr[v], a.use_ptr[v + 1]):
                c = a.use[u]
                best = np.inf
                for e in range(a.cost.shape[1]):
                    if fits(a, w, c, e):
                        f, top2 = place(a, w, c, e, top)
                        undo(w, top, top2)
                        if f < best:
                            best = f
                # The latest of the readers counts.
                if best > value:
                    value = best
        w.dev[t] = -1
        w.start[t], w.finish[t] = start_t, finish_t
    undo(w, 0, top)
    return value


@njit(cache=True, nogil=True)
def list_schedule(a, w, order, mode, table, forced):
    """Tasks in `order`, each on the device with the best score (`forced` >= 0: there).

    Returns the makespan, or inf where some task found no device."""
    reset(a, w)
    end = 0.0
    for t in order:
        best, where = np.inf, -1
        # A forced device without room is not taken; the rule then chooses as for any task.
        if forced[t] >= 0 and fits(a, w, t, forced[t]):
            where = forced[t]
        else:
            for d in range(a.cost.shape[1]):
                if fits(a, w, t, d):
                    s = score(a, w, t, d, mode, table)
                    # The first device wins ties, which keeps schedules the same from run to run.
                    if s < best:
                        best, where = s, d
        if where < 0:
            return np.inf
        f, _ = place(a, w, t, where, 0)
        if f == np.inf:
            return np.inf
        settle(a, w, t, where)
        if f > end:
            end = f
    return end


@njit(cache=True, nogil=True)
def min_min(a, w, waiting, largest, order):
    """Min-min: of all ready tasks the one that finishes first goes next (largest: max-min, last).

    waiting [n]: unplaced producers of each task, consumed. Fills `order`. Makespan or inf."""
    reset(a, w)
    n, m = a.cost.shape
    ready = [np.int64(t) for t in range(n) if waiting[t] == 0]
    table = np.zeros((1, 1))
    end, done = 0.0, 0
    while len(ready) > 0:
        pick, where, value = -1, -1, np.inf
        for i in range(len(ready)):
            best, at = np.inf, -1
            for d in range(m):
                if fits(a, w, ready[i], d):
                    s = score(a, w, ready[i], d, 0, table)
                    if s < best:
                        best, at = s, d
            if at < 0:
                return np.inf
            # `!=` turns the comparison for max-min.
            if pick < 0 or (best < value) != largest:
                pick, where, value = i, at, best
        t = ready.pop(pick)
        f, _ = place(a, w, t, where, 0)
        settle(a, w, t, where)
        order[done] = t
        done += 1
        if f > end:
            end = f
        for o in range(a.out_ptr[t], a.out_ptr[t + 1]):
            v = a.out[o]
            for u in range(a.use_ptr[v], a.use_ptr[v + 1]):
                waiting[a.use[u]] -= 1
                if waiting[a.use[u]] == 0:
                    ready.append(a.use[u])
    return end


def interpreted() -> dict[str, Any]:
    """The kernels as plain Python functions, by name."""
    space = dict(globals())
    # Functions whose globals are this space, so that they call each other uncompiled too.
    for name, f in globals().items():
        if hasattr(f, "py_func"):
            space[name] = types.FunctionType(f.py_func.__code__, space, name)
    return space


def pick(p: Problem, compiled: bool) -> Any:
    """A namespace of kernels."""
    return types.SimpleNamespace(**(globals() if compiled else interpreted()))


Order = NDArray[np.int64]
