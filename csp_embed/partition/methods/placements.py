"""Every placement that might still beat the best plan, where these are few.

Takes: a Problem and the makespan to beat.  Leaves: rows of devices, one row for each placement that
passes conditions which every better plan meets (none: the best plan is optimal), or None where the
list would be too long.  Assumes: nothing; queues and memory only make plans worse.

Where devices are kept busy nearly all the time, the makespan is a matter of how well the costs add
up, on which propagation and linear bounds say nothing until all tasks are placed. But few of all
placements come that close to the load bound, and these are found by halves: all placements of the
groups with small costs are tabulated by their loads, and those of the other groups look up which
of them complete it. Conditions, in order of price, for a makespan T of a placement:

    load     around_k + work_k <= T for each window k of `bounds.window_load`, whole devices too
    path     head_t + cost_t + tail_t <= T: longest paths, transfers on idle links
    window   head_i + sum of cost_z + tail_j <= T, over the tasks z of one device with
             head_z >= head_i and tail_z >= tail_j (their device works on nothing else meanwhile,
             does not start before the least head and has the least tail ahead of it)
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from numpy.typing import NDArray

from csp_embed.partition.arrays.view import Floats, Ints, Problem
from csp_embed.partition.bounds.latency_period import (
    Window,
    load_prices,
    path_bounds,
    priced_windows,
)
from csp_embed.partition.portfolio import NUMBERS

OWN = NUMBERS.listing


Devices = NDArray[np.int8]


def placements(
    p: Problem,
    makespan: float,
    *,
    rows: int = 2000,
    hits: int = 3_000_000,
    stop: Callable[[], bool] = lambda: False,
) -> Ints | None:
    """[k, n] devices of all placements that may have a plan of less than `makespan` ms.

    None where more than `rows` remain, more than `hits` pass the first condition, or `stop` says
    so."""
    # Strictly better plans are wanted, and equal ones up to rounding are not.
    limit = makespan * (1 - 1e-9)
    work, able, room, prices = _demands(p, limit)
    priced = np.where(able, work @ prices, np.inf).min(axis=1)
    # Heavy groups above: they leave few choices, and the light ones fill up what is left.
    order = np.argsort(-priced, kind="stable")
    cut, size = len(order), 1
    # As many light groups as a table has room for.
    while cut and size * (many := int(able[order[cut - 1]].sum())) <= OWN.table:
        size *= many
        cut -= 1
    least = np.concatenate([priced[order], [0.0]])
    rest = np.cumsum(least[::-1])[::-1]  # priced work of the groups from each one on
    above, load = _spread(work, able, order[:cut], room, prices, rest, OWN.open, stop)
    below, table = _spread(work, able, order[cut:], room, prices, rest[cut:], OWN.table, stop)
    if above is None or below is None:
        return None
    found: list[Devices] = []
    judged = kept = 0
    for left, right in _pairs(room - load, table, prices):
        # Counted before they are judged: that is what takes the time.
        judged += len(left)
        if judged > hits or stop():
            return None
        groups = np.empty((len(order), len(left)), np.int8)
        groups[order[:cut]] = above[left].T
        groups[order[cut:]] = below[right].T
        good = _judge(p, groups[p.group], limit)
        kept += good.shape[1]
        if kept > rows:
            return None
        found.append(good)
    return np.column_stack([np.empty((p.n, 0), np.int8), *found]).T.astype(np.int64)


def _demands(p: Problem, limit: float) -> tuple[Floats, NDArray[np.bool_], Floats, Floats]:
    """work [groups, m, k]: ms of a group on a device that count for window k; able [groups, m];
    room [k]: ms that a window has; prices [k]: its multiplier in the bound. Windows: whole devices,
    and those that make up `bounds.window_load`."""
    heads, tails = path_bounds(p)
    # A task whose own path is too long on a device can stand nowhere there.
    fine = heads + p.cost + tails <= limit
    able = np.ones((int(p.group.max(initial=-1)) + 1, p.m), bool)
    np.logical_and.at(able, p.group, fine)
    windows = [w for w in priced_windows(p) if w.share > 1e-3]
    # Whole devices have a price only where no window has one.
    shares = load_prices(p.cost) if not windows else np.zeros(p.m)
    windows += [Window(d, np.arange(p.n), 0.0, float(shares[d])) for d in range(p.m)]
    work = np.zeros((*able.shape, len(windows)))
    for k, w in enumerate(windows):
        cost = np.where(fine[w.tasks, w.device], p.cost[w.tasks, w.device], 0.0)
        np.add.at(work[:, w.device, k], p.group[w.tasks], cost)
    room = np.array([limit - w.around for w in windows])
    return work, able, room, np.array([w.share for w in windows])


def _spread(
    work: Floats,
    able: NDArray[np.bool_],
    groups: Ints,
    room: Floats,
    prices: Floats,
    rest: Floats,
    most: int,
    stop: Callable[[], bool],
) -> tuple[Devices | None, Floats]:
    """All placements of some groups, and the work in each window, that neither overfill a window
    nor leave the other groups too little. rest[k]: least priced work of group k and all after."""
    total = float(room @ prices)
    dev, load = np.empty((1, 0), np.int8), np.zeros((1, len(room)))
    for k, g in enumerate(groups):
        here = np.flatnonzero(able[g])
        # Before the arrays are made: four times too many rows would still be cut to fit, more would
        # fill memory.
        if len(dev) * len(here) > 4 * most or stop():
            return None, load
        new = np.repeat(load, len(here), axis=0) + np.tile(work[g, here], (len(load), 1))
        # Neither too full by now, nor too full once all others took their cheapest place.
        fine = (new <= room).all(axis=1) & (new @ prices + rest[k + 1] <= total)
        dev = np.column_stack([np.repeat(dev, len(here), axis=0), np.tile(here, len(load))])
        dev, load = dev[fine].astype(np.int8), new[fine]
        if len(dev) > most:
            return None, load
    return dev, load


def _pairs(room: Floats, table: Floats, prices: Floats) -> Iterator[tuple[Ints, Ints]]:
    """Chunks of (rows of room, rows of table) such that the work fits into every window.

    The priced sum bounds the work in each window from below once the others are bounded from
    above. The table is sorted by the dearest window within bins of the next."""
    if not len(room) or not len(table):
        return
    least = float((table @ prices).min())
    first, second = (np.argsort(-prices, kind="stable")[:2]).tolist() if len(prices) > 1 else (0, 0)
    low = {}
    for k in (first, second):
        # All that the other windows could still take, at their prices: what is left must be in this
        # one.
        others = room @ prices - room[:, k] * prices[k]
        low[k] = np.maximum((least - others) / max(prices[k], 1e-12), 0.0) * (1 - 1e-9) - 1e-9
    width = max(float(table[:, second].max()) / OWN.bins, 1e-12)
    # Wide enough that keys of neighbouring bins never mix.
    step = 2 * max(float(table[:, first].max()), float(room.max())) + 1.0
    cell = (table[:, second] / width).astype(np.int64)
    key = cell * step + table[:, first]
    by_key = np.argsort(key, kind="stable")
    key = key[by_key]
    start = (np.maximum(low[second], 0.0) / width).astype(np.int64)
    stop = np.minimum(room[:, second] / width, OWN.bins).astype(np.int64)
    lefts, begins, counts = [], [], []
    for offset in range(int((stop - start).max(initial=-1)) + 1):
        rows = np.flatnonzero(start + offset <= stop)
        base = (start[rows] + offset) * step
        begin = np.searchsorted(key, base + low[first][rows])
        end = np.searchsorted(key, base + room[rows, first], side="right")
        some = end > begin
        lefts.append(rows[some])
        begins.append(begin[some])
        counts.append((end - begin)[some])
    if not lefts:
        return
    left, begin, count = (np.concatenate(x) for x in (lefts, begins, counts))
    done = np.cumsum(count)
    # More than the caller allows to judge: one chunk of that length makes it give up.
    if len(done) and done[-1] > OWN.lookups:
        yield np.zeros(OWN.lookups, np.int64), np.zeros(OWN.lookups, np.int64)
        return
    at = 0
    while at < len(left):
        until = int(
            np.searchsorted(done, (done[at - 1] if at else 0) + 10 * OWN.chunk, side="right")
        )
        until = max(until, at + 1)
        n = count[at:until]
        one = np.repeat(left[at:until], n)
        inside = np.arange(len(one)) - np.repeat(np.cumsum(n) - n, n)
        two = by_key[np.repeat(begin[at:until], n) + inside]
        # The dearest window refuses most.
        for k in np.argsort(-prices, kind="stable"):
            fine = table[two, k] <= room[one, k]
            one, two = one[fine], two[fine]
        for k in range(0, len(one), OWN.chunk):
            yield one[k : k + OWN.chunk], two[k : k + OWN.chunk]
        at = until


def _judge(p: Problem, dev: Devices, limit: float) -> Devices:
    """The columns of dev [n, k] that pass the conditions on paths and windows."""
    m = p.m
    away = np.array([p.waits(v) for v in range(len(p.value_src))]).reshape(-1, m * m)
    # Single precision is faster; the allowance is far above what n sums in it can lose.
    away, costs = away.astype(np.float32), p.cost.astype(np.float32)
    limit *= 1 + 1e-5
    # One row a task, one column a placement: each step below does all placements at once.
    cost = np.stack([costs[t].take(dev[t]) for t in range(p.n)])
    edges = p.edges()
    send = {e: away[e[2]].take(dev[e[0]] * np.int16(m) + dev[e[1]]) for e in edges}
    end, tail = cost.copy(), np.zeros_like(cost)
    for t in range(p.n):
        head = None
        for v in p.inputs(t):
            u = int(p.value_src[v])
            at = end[u] + send[u, t, int(v)]
            head = at if head is None else np.maximum(head, at, out=head)
        if head is not None:
            end[t] += head
    for u in range(p.n - 1, -1, -1):
        for v in p.outputs(u):
            for t in p.consumers(int(v)):
                t = int(t)
                np.maximum(tail[u], tail[t] + cost[t] + send[u, t, int(v)], out=tail[u])
    # The longest path of each column; only the survivors go through the dearer conditions.
    fine = (end + tail).max(axis=0) <= limit
    dev, cost, end, tail = dev[:, fine], cost[:, fine], end[:, fine], tail[:, fine]
    state: State = (dev, cost, end - cost, tail)
    for d in range(m):
        state = _narrow(state, state[0] == d, limit)
    # All that starts late on a task's device, then that part of it which has long tails.
    for i in range(p.n):
        state = _narrow(state, _late(state, i), limit)
    # All pairs of tasks would take longer than what comes after the list.
    if state[0].shape[1] > OWN.many:
        return state[0]
    for i in range(p.n):
        for j in range(p.n):
            state = _narrow(state, _late(state, i) & (state[3] >= state[3][j]), limit)
    return state[0]


Times = NDArray[np.float32]
State = tuple[Devices, Times, Times, Times]  # [n, k] each: devices, costs, heads, tails


def _late(state: State, i: int) -> NDArray[np.bool_]:
    """Tasks on the device of task i whose heads are no less than its own."""
    dev, _, head, _ = state
    return (dev == dev[i]) & (head >= head[i])


def _narrow(state: State, inside: NDArray[np.bool_], limit: float) -> State:
    """The columns in which the tasks `inside`, all on one device, leave room for one another."""
    dev, cost, head, tail = state
    never = np.float32(np.inf)
    first = np.where(inside, head, never).min(axis=0)
    last = np.where(inside, tail, never).min(axis=0)
    busy = np.where(inside, cost, np.float32(0)).sum(axis=0)
    fine = (first + busy + last <= limit) | ~inside.any(axis=0)
    return state if fine.all() else (dev[:, fine], cost[:, fine], head[:, fine], tail[:, fine])
