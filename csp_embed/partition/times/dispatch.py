"""Dispatching, compiled: no device or link ever waits while something is ready for it.

Takes: `Arrays` of a Problem, the device of each task, priorities.  Leaves: starts of tasks and hops
in the work space, and what each of them waited for.

The insertion decoder puts a task with all its transfers into the earliest gaps, one task after the
other. Where hundreds of tasks keep devices and links busy all the time, that leaves gaps which
nothing fits; here time passes for all lines at once, and whatever is free takes the most urgent of
what is there.

An operation is a number: a task t, or hop h of a value v to device d, n + (v m + d) longest + h.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints, Problem
from csp_embed.partition.times.timetable import Timetable, carried, retimed

MOST = 400_000  # operations that a work space is made for


class Space(NamedTuple):
    """Scratch. start, ready [operations] ms; cause: the operation that made it ready; held: the one
    before it on its line, -1 where the line was free. head [lines], after [operations]: queues.
    at, what, line [operations]: a heap of ends. idle, last [lines]; missing [n]; sent [m]. load,
    spare, since [lines] ms: how long a line works, how long it may wait for work at most, since
    when it has."""

    longest: int
    start: Floats
    ready: Floats
    cause: Ints
    held: Ints
    head: Ints
    after: Ints
    at: Floats
    what: Ints
    line: Ints
    idle: Ints
    last: Ints
    missing: Ints
    sent: Ints
    load: Floats
    spare: Floats
    since: Floats


def space(p: Problem) -> Space | None:
    """Fresh scratch for one problem; None where it would take too much memory."""
    lines, longest = p.m + len(p.resources), int(np.diff(p.hop_ptr).max(initial=1))
    most = p.n + len(p.value_src) * p.m * longest
    if most > MOST:
        return None
    return Space(
        longest, np.zeros(most), np.zeros(most), np.zeros(most, np.int64),
        np.zeros(most, np.int64), np.zeros(lines, np.int64), np.zeros(most, np.int64),
        np.zeros(most + 1), np.zeros(most + 1, np.int64), np.zeros(most + 1, np.int64),
        np.zeros(lines, np.int64), np.zeros(lines, np.int64), np.zeros(p.n, np.int64),
        np.zeros(p.m, np.int64), np.zeros(lines), np.zeros(lines), np.zeros(lines),
    )  # fmt: skip


def timed(p: Problem, s: Space, dev: Ints) -> Timetable:
    """What the last `dispatch` did, as a timetable; sums of floats are made anew."""
    v, d, k, hop = carried(p, dev)
    queued = p.hop_res[hop] >= 0
    v, d, k = v[queued], d[queued], k[queued]
    begin = s.start[p.n + (v * p.m + d) * s.longest + k]
    keys = zip(v.tolist(), d.tolist(), k.tolist(), strict=True)
    hops = dict(zip(keys, begin.tolist(), strict=True))
    return retimed(p, dev, s.start[: p.n].tolist(), hops)


@njit(cache=True)
def push(at, what, line, count, when, x, r):
    """Puts an end into a heap of so many."""
    i = count
    while i > 0:
        up = (i - 1) // 2
        if at[up] <= when:
            break
        at[i], what[i], line[i] = at[up], what[up], line[up]
        i = up
    at[i], what[i], line[i] = when, x, r


@njit(cache=True)
def pop(at, what, line, count):
    """Takes the first end out of a heap of so many."""
    k = count - 1
    when, x, r = at[k], what[k], line[k]
    i = 0
    while True:
        below = 2 * i + 1
        if below >= k:
            break
        if below + 1 < k and at[below + 1] < at[below]:
            below += 1
        if at[below] >= when:
            break
        at[i], what[i], line[i] = at[below], what[below], line[below]
        i = below
    at[i], what[i], line[i] = when, x, r


@njit(cache=True)
def urgent(n, m, longest, use_ptr, use, dev, priority, head, after, r):
    """(the most urgent operation of a line's queue, the one before it there); a hop is as urgent as
    the most urgent task that reads its value at its end."""
    best, before, most = -1, -1, -np.inf
    x, behind = head[r], -1
    while x >= 0:
        level = -np.inf
        if x < n:
            level = priority[x]
        else:
            v, d = (x - n) // longest // m, (x - n) // longest % m
            for k in range(use_ptr[v], use_ptr[v + 1]):
                if dev[use[k]] == d:
                    level = max(level, priority[use[k]])
        if best < 0 or level > most:
            best, before, most = x, behind, level
        behind = x
        x = after[x]
    return best, before


@njit(cache=True, nogil=True)
def busy(a, s, dev):
    """Fills s.load with the ms that every line works, in whatever order; the largest."""
    return _busy(
        a.cost, a.value_src, a.row, a.value_bytes, a.use_ptr, a.use, a.hop_ptr, a.hop_res,
        a.hop_lat, a.hop_inv, s.sent, s.load, dev,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _busy(
    cost, value_src, row, value_bytes, use_ptr, use, hop_ptr, hop_res, hop_lat, hop_inv, sent, load,
    dev,
):  # fmt: skip
    n, m = cost.shape
    load[:] = 0.0
    for t in range(n):
        load[dev[t]] += cost[t, dev[t]]
    for v in range(len(value_src)):
        here = dev[value_src[v]]
        sent[:] = 0
        for k in range(use_ptr[v], use_ptr[v + 1]):
            d = dev[use[k]]
            if d == here or sent[d] == 1:
                continue
            sent[d] = 1
            pair = (row[v] + here) * m + d
            for h in range(hop_ptr[pair], hop_ptr[pair + 1]):
                if hop_res[h] >= 0:
                    load[m + hop_res[h]] += hop_lat[h] + value_bytes[v] * hop_inv[h]
    return load.max()


@njit(cache=True, nogil=True)
def dispatch(a, s, dev, priority, prices):
    """(makespan, the operation that ends last, busy times of lines at their prices); the makespan
    is inf where devices cannot talk. dev must be allowed."""
    s.spare[:] = np.inf
    return dispatch_within(a, s, dev, priority, prices)


@njit(cache=True, nogil=True)
def dispatch_within(a, s, dev, priority, prices):
    """The same, given up (with a makespan of inf) once a line has waited for more than s.spare."""
    # Arrays by themselves: Numba counts references to all arrays of a tuple at every use of one.
    return _dispatch(
        a.cost, a.value_src, a.row, a.value_bytes, a.inp_ptr, a.out_ptr, a.out, a.use_ptr, a.use,
        a.hop_ptr, a.hop_res, a.hop_lat, a.hop_inv, s.longest, s.start, s.ready, s.cause, s.held,
        s.head, s.after, s.at, s.what, s.line, s.idle, s.last, s.missing, s.sent, s.spare, s.since,
        dev, priority, prices,
    )  # fmt: skip


@njit(cache=True, nogil=True)
def _dispatch(
    cost, value_src, row, value_bytes, inp_ptr, out_ptr, out, use_ptr, use, hop_ptr, hop_res,
    hop_lat, hop_inv, longest, start, ready, cause, held, head, after, at, what, line, idle, last,
    missing, sent, spare, since, dev, priority, prices,
):  # fmt: skip
    n, m = cost.shape
    head[:], last[:], idle[:] = -1, -1, 1
    since[:] = 0.0
    flying, done, final = 0, 0, -1
    end, now, priced = 0.0, 0.0, 0.0
    for t in range(n):
        missing[t] = inp_ptr[t + 1] - inp_ptr[t]
        if missing[t] == 0:
            cause[t], ready[t] = -1, 0.0
            after[t] = head[dev[t]]
            head[dev[t]] = t
    while True:
        for r in range(len(head)):
            if idle[r] == 0 or head[r] < 0:
                continue
            # What is left to do on the line takes its time whatever follows.
            spare[r] -= now - since[r]
            if spare[r] < 0.0:
                return np.inf, -1, np.inf
            # Queues are short: their most urgent is looked for when it is needed.
            x, before = urgent(n, m, longest, use_ptr, use, dev, priority, head, after, r)
            if before < 0:
                head[r] = after[x]
            else:
                after[before] = after[x]
            if x < n:
                length = cost[x, r]
            else:
                v, d = (x - n) // longest // m, (x - n) // longest % m
                h = hop_ptr[(row[v] + dev[value_src[v]]) * m + d] + (x - n) % longest
                length = hop_lat[h] + value_bytes[v] * hop_inv[h]
            priced += prices[r] * length
            start[x] = now
            held[x] = last[r] if ready[x] < now else -1
            last[r], idle[r] = x, 0
            push(at, what, line, flying, now + length, x, r)
            flying += 1
        if flying == 0:
            break
        now = at[0]
        # All that ends now ends before anything begins.
        while flying > 0 and at[0] <= now:
            x, r = what[0], line[0]
            pop(at, what, line, flying)
            flying -= 1
            if r >= 0:
                idle[r], since[r] = 1, now
            first, ended, hop = 0, 1, 0
            if x < n:
                done += 1
                end, final = now, x
                first, ended = out_ptr[x], out_ptr[x + 1]
            for o in range(first, ended):
                # A task hands all its values to all readers, a hop its own value to one device.
                if x < n:
                    v, here = out[o], dev[x]
                else:
                    v, here = (x - n) // longest // m, (x - n) // longest % m
                    hop = (x - n) % longest + 1
                    pair = (row[v] + dev[value_src[v]]) * m + here
                    if hop_ptr[pair] + hop < hop_ptr[pair + 1]:
                        here = -1
                sent[:] = 0
                for k in range(use_ptr[v], use_ptr[v + 1]):
                    t = use[k]
                    d = dev[t]
                    if d == here:
                        missing[t] -= 1
                        if missing[t] == 0:
                            cause[t], ready[t] = x, now
                            after[t] = head[d]
                            head[d] = t
                        continue
                    if x >= n and (here >= 0 or d != (x - n) // longest % m):
                        continue
                    if sent[d] == 1:
                        continue
                    sent[d] = 1
                    h = hop_ptr[(row[v] + dev[value_src[v]]) * m + d] + hop
                    if h == hop_ptr[(row[v] + dev[value_src[v]]) * m + d + 1]:
                        return np.inf, -1, np.inf
                    y = n + (v * m + d) * longest + hop
                    cause[y], ready[y] = x, now
                    if hop_res[h] < 0:
                        # No queue: it begins at once, whatever else is on its way.
                        start[y], held[y] = now, -1
                        push(
                            at, what, line, flying,
                            now + hop_lat[h] + value_bytes[v] * hop_inv[h], y, -1,
                        )  # fmt: skip
                        flying += 1
                    else:
                        after[y] = head[m + hop_res[h]]
                        head[m + hop_res[h]] = y
    return (end if done == n else np.inf), final, priced
