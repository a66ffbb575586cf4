"""A stretch of a task order solved while all else stands still, compiled with Numba.

Takes: `Arrays` of a Problem, an order and devices, positions lo … hi of the stretch.  Leaves: a
better order and better devices of these tasks.  Assumes: the order is topological.

Times are those of appending: tasks to their devices and transfers to their links in list order.
Everything before the window is `Before`; what is behind it is longest paths (`backward`, `tails`):
start [n] from the start of each later task to the end of all; then [lines] from the first later
operation of each timeline; tail [n, m] from a window task's finish on a device over later tasks.
The value of a window is the longest path through it: exact on uncontended links, else an estimate
that the caller compares with a whole schedule. (Insertion into gaps, as `kernels.decode` does,
never ends later: by induction every operation finds the end of its timeline free.)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints, Problem


class Before(NamedTuple):
    """What precedes a window. free [m + resources] ms; finish [n] of earlier tasks; arrive [v, m]
    ms of values already sent (-1: not sent)."""

    free: Floats
    finish: Floats
    arrive: Floats


class Stretch(NamedTuple):
    """What a pass carries from window to window, beside the problem's arrays.

    plain: no link has a queue. order [n], dev [n]; at [n]: position of each task. room [m] bytes of
    memory left. ends [width + 1, lines], peak [width + 1]: when timelines are free, and the longest
    path so far, before each position of the window; the first row holds. finish [n], sent [v, m]:
    ends and arrivals before the window; arrive: scratch. tail [n, m]: see above. loose [n]: tasks
    whose whole group is in the window. members, member_ptr: tasks by colocation group."""

    plain: bool
    order: Ints
    dev: Ints
    at: Ints
    room: Floats
    ends: Floats
    peak: Floats
    finish: Floats
    sent: Floats
    arrive: Floats
    tail: Floats
    loose: NDArray[np.bool_]
    members: Ints
    member_ptr: Ints


def before(p: Problem) -> Before:
    """The empty prefix."""
    v = len(p.value_src)
    return Before(np.zeros(p.m + len(p.resources)), np.zeros(p.n), np.full((v, p.m), -1.0))


@njit(cache=True)
def advance(a, free, finish, arrive, dev, t, d):
    """Appends task t to device d and the transfers that it needs to their links; its start."""
    m = a.cost.shape[1]
    ready = free[d]
    for i in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
        v = a.inp[i]
        s = a.value_src[v]
        x = dev[s]
        when = finish[s]
        if x != d:
            pair = (a.row[v] + x) * m + d
            # No route: the caller drops the whole order, so nothing needs to be taken back.
            if a.lat[x, d] == np.inf:
                return np.inf
            # Sent to this device once already, for an earlier reader.
            if arrive[v, d] >= 0.0:
                when = arrive[v, d]
            else:
                for h in range(a.hop_ptr[pair], a.hop_ptr[pair + 1]):
                    if a.hop_res[h] >= 0:
                        # Timelines are devices first, then links.
                        r = m + a.hop_res[h]
                        when = max(when, free[r])
                        when += a.hop_lat[h] + a.value_bytes[v] * a.hop_inv[h]
                        free[r] = when
                    else:
                        when += a.hop_lat[h] + a.value_bytes[v] * a.hop_inv[h]
                # Kept for the next reader there; the transfer is made once.
                arrive[v, d] = when
        ready = max(ready, when)
    finish[t] = free[d] = ready + a.cost[t, d]
    return ready


@njit(cache=True, nogil=True)
def makespan(a, order, dev, lines):
    """Of a whole order by appending; inf where devices cannot talk."""
    free, finish = np.zeros(lines), np.zeros(len(order))
    arrive = np.full((len(a.value_src), a.cost.shape[1]), -1.0)
    end = 0.0
    for t in order:
        if advance(a, free, finish, arrive, dev, t, dev[t]) == np.inf:
            return np.inf
        end = max(end, finish[t])
    return end


@njit(cache=True, nogil=True)
def backward(a, order, dev, lines, marks):
    """(start [n], then [marks, lines]) of `Behind` for a whole order; marks: rising positions."""
    n, m = a.cost.shape
    start, line = np.zeros(n), np.zeros(lines)
    then = np.zeros((len(marks), lines))
    need = np.zeros((len(a.value_src), m))  # longest path from a value's arrival
    first = np.full((len(a.value_src), m), -1)  # the task that a transfer is made for
    for k in range(n - 1, -1, -1):
        t = order[k]
        for i in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
            # Backwards, so the last to write is the first in order: the reader that the transfer is
            # made for.
            first[a.inp[i], dev[t]] = t
    out = np.zeros(n)  # longest path from a task's finish over transfers already seen
    mark = len(marks) - 1
    for k in range(n - 1, -1, -1):
        while mark >= 0 and marks[mark] == k + 1:
            then[mark] = line
            mark -= 1
        t = order[k]
        d = dev[t]
        start[t] = line[d] = a.cost[t, d] + max(out[t], line[d])
        for i in range(a.inp_ptr[t + 1] - 1, a.inp_ptr[t] - 1, -1):
            v = a.inp[i]
            s = a.value_src[v]
            # No transfer: the producer's path goes straight on.
            if dev[s] == d:
                out[s] = max(out[s], start[t])
                continue
            need[v, d] = max(need[v, d], start[t])
            # A later reader only makes the value needed sooner; the transfer itself belongs to the
            # first.
            if first[v, d] != t:
                continue
            rest = need[v, d]
            pair = (a.row[v] + dev[s]) * m + d
            for h in range(a.hop_ptr[pair + 1] - 1, a.hop_ptr[pair] - 1, -1):
                if a.hop_res[h] >= 0:
                    # The link must be free for what it carries next.
                    rest = max(rest, line[m + a.hop_res[h]])
                rest += a.hop_lat[h] + a.value_bytes[v] * a.hop_inv[h]
                if a.hop_res[h] >= 0:
                    line[m + a.hop_res[h]] = rest
            out[s] = max(out[s], rest)
    while mark >= 0:
        then[mark] = line
        mark -= 1
    return start, then


@njit(cache=True)
def tails(a, order, dev, at, lo, hi, start, tail):
    """Fills tail [t, d] of the tasks at lo … hi from the later tasks' `start`."""
    m = a.cost.shape[1]
    for k in range(lo, hi):
        t = order[k]
        for d in range(m):
            tail[t, d] = 0.0
        for o in range(a.out_ptr[t], a.out_ptr[t + 1]):
            v = a.out[o]
            for u in range(a.use_ptr[v], a.use_ptr[v + 1]):
                c = a.use[u]
                # Consumers inside the window are part of its own value.
                if at[c] < hi:
                    continue
                e = dev[c]
                for d in range(m):
                    x = a.row[v] + d
                    wait = 0.0 if d == e else a.lat[x, e] + a.value_bytes[v] * a.inv[x, e]
                    tail[t, d] = max(tail[t, d], wait + start[c])


@njit(cache=True)
def through(a, s, lo, hi, begin, then):
    """Value of the window lo … hi of a `Stretch` from position `begin` on; then: see above.

    Contended links (not plain): begin = lo only."""
    order, dev, ends, peak, finish, tail = s.order, s.dev, s.ends, s.peak, s.finish, s.tail
    sent, arrive = s.sent, s.arrive
    if s.plain:
        return appended(
            a.cost, a.inp_ptr, a.inp, a.value_src, a.row, a.value_bytes, a.lat, a.inv, order, dev,
            lo, hi, begin, ends, peak, finish, tail, then,
        )  # fmt: skip
    m = a.cost.shape[1]
    lines = ends.shape[1]
    for k in range(lo, hi):
        for j in range(a.inp_ptr[order[k]], a.inp_ptr[order[k] + 1]):
            for e in range(m):
                # What the window sent when it was last walked is forgotten; what was sent before it
                # stays.
                arrive[a.inp[j], e] = sent[a.inp[j], e]
    for k in range(lo, hi):
        t = order[k]
        i = k - lo
        for e in range(lines):
            ends[i + 1, e] = ends[i, e]
        if advance(a, ends[i + 1], finish, arrive, dev, t, dev[t]) == np.inf:
            return np.inf
        peak[i + 1] = max(peak[i], finish[t] + tail[t, dev[t]])
    value = peak[hi - lo]
    for e in range(lines):
        # A link that nothing uses later binds nothing; a device's end always does.
        if then[e] > 0.0 or e < m:
            value = max(value, ends[hi - lo, e] + then[e])
    return value


@njit(cache=True)
def appended(
    cost, inp_ptr, inp, value_src, row, value_bytes, lat, inv, order, dev, lo, hi, begin, ends,
    peak, finish, tail, then,
):  # fmt: skip
    """`through` on uncontended links. Takes arrays, not their tuple: Numba counts references to
    every array of a tuple at every call."""
    m = cost.shape[1]
    # Positions before `begin` are as the last walk left them.
    top = peak[begin - lo]
    for k in range(begin, hi):
        t = order[k]
        d = dev[t]
        i = k - lo
        for e in range(m):
            ends[i + 1, e] = ends[i, e]
        ready = ends[i, d]
        for j in range(inp_ptr[t], inp_ptr[t + 1]):
            v = inp[j]
            s = value_src[v]
            when = finish[s]
            if dev[s] != d:
                x = row[v] + dev[s]
                when += lat[x, d] + value_bytes[v] * inv[x, d]
            if when > ready:
                ready = when
        ready += cost[t, d]
        finish[t] = ends[i + 1, d] = ready
        if ready + tail[t, d] > top:
            top = ready + tail[t, d]
        peak[i + 1] = top
    for e in range(m):
        top = max(top, ends[hi - lo, e] + then[e])
    return top


@njit(cache=True)
def movable(a, order, dev, at, lo, hi, members, member_ptr, loose):
    """Marks in loose [n] the window's tasks whose whole colocation group is in the window."""
    for k in range(lo, hi):
        g = a.group[order[k]]
        fine = True
        for i in range(member_ptr[g], member_ptr[g + 1]):
            # A colocated task outside stands still, and so do all of its group.
            if at[members[i]] < lo or at[members[i]] >= hi:
                fine = False
        loose[order[k]] = fine
