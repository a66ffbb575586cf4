"""A part of a task order solved exactly by branch and bound, compiled with Numba.

Takes: what `windows.through` takes.  Leaves: the best order and devices of the part, and whether
that is proved.  On uncontended links "best" means of all plans that leave everything outside the
part as it is; on contended ones, of those whose transfers queue in the order of their first reader.

Every plan is made by appending tasks in the order of their starts (ties by number), so each is
met once. A branch is cut where a lower bound reaches the best value known: the longest path over
what is placed; each open task from now on, with the longest path behind it; the mean over devices
of what they have and still must do.

What runs at every node is inlined: called, it would count references to every array of its tuples,
which costs more than the node itself.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints
from csp_embed.partition.methods.windows.windows import advance

LESS = 1 - 1e-12  # relative: what must be gained, so that rounding alone opens no branch


class Part(NamedTuple):
    """The tasks of a part, by number i below w in topological order.

    tasks [w]; place [n]: number of a task, -1 outside. rest [w, m]: see `rests`. home [w]: number
    of the first task of the same group; group_dev [w]: device of the group at home there, -1: open.
    waiting [w]: producers in the part that are not placed. cheapest [w]: least cost; ahead [w]:
    least time from the start to the end of all. room [m] bytes."""

    tasks: Ints
    place: Ints
    rest: Floats
    home: Ints
    group_dev: Ints
    waiting: Ints
    cheapest: Floats
    ahead: Floats
    room: Floats


class Tree(NamedTuple):
    """The branch at hand, by depth: how many tasks are placed.

    options [w, w * m, 3]: (bound, number, device) of the choices, the most promising first; count,
    cursor [w]: how many, and the next. seq, where [w]: number and device chosen. opened [w]:
    whether the choice fixed its group's device. used [w], by number. begun [w + 1]: start of the
    last task. mark [w, inputs]: arrivals before the choice, to take it back. line: scratch."""

    options: Floats
    count: Ints  # pyright: ignore[reportIncompatibleMethodOverride] (a tuple counts nothing here)
    cursor: Ints
    seq: Ints
    where: Ints
    opened: NDArray[np.bool_]
    used: NDArray[np.bool_]
    begun: Floats
    mark: Floats
    line: Floats


@njit(cache=True)
def rests(a, tasks, place, tail, rest):
    """rest [w, m]: least time from a task's finish on a device to the end of all."""
    m = a.cost.shape[1]
    for i in range(len(tasks) - 1, -1, -1):
        t = tasks[i]
        for d in range(m):
            rest[i, d] = tail[t, d]
            for o in range(a.out_ptr[t], a.out_ptr[t + 1]):
                v = a.out[o]
                for u in range(a.use_ptr[v], a.use_ptr[v + 1]):
                    j = place[a.use[u]]
                    if j < 0:
                        continue
                    # Wherever the consumer will run: a bound may choose the best for each edge by
                    # itself.
                    least = np.inf
                    for e in range(m):
                        x = a.row[v] + d
                        wait = 0.0 if d == e else a.lat[x, e] + a.value_bytes[v] * a.inv[x, e]
                        least = min(least, wait + a.cost[tasks[j], e] + rest[j, e])
                    rest[i, d] = max(rest[i, d], least)


@njit(cache=True)
def open_part(a, s, lo, hi):
    """The `Part` at positions lo … hi of a `Stretch`, nothing of it placed."""
    m, w = a.cost.shape[1], hi - lo
    tasks = np.sort(s.order[lo:hi])  # tasks are numbered topologically
    place = np.full(a.cost.shape[0], -1)
    for i in range(w):
        place[tasks[i]] = i
    rest = np.zeros((w, m))
    rests(a, tasks, place, s.tail, rest)
    home, group_dev, waiting = np.empty(w, np.int64), np.full(w, -1), np.zeros(w, np.int64)
    cheapest, ahead, room = np.zeros(w), np.zeros(w), s.room.copy()
    for i in range(w):
        t = tasks[i]
        home[i] = i
        for j in range(i):
            if a.group[tasks[j]] == a.group[t]:
                home[i] = home[j]
                break
        # Its group has members elsewhere, so its device is given.
        if not s.loose[t]:
            group_dev[home[i]] = s.dev[t]
        elif home[i] == i:
            # Weights of a group that may move count as gone until it is placed; once for each
            # group.
            room[s.dev[t]] += a.group_weight[a.group[t]]
        for k in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
            # Producers outside the part have ended or are counted in `tail`.
            waiting[i] += place[a.value_src[a.inp[k]]] >= 0
        cheapest[i], ahead[i] = np.inf, np.inf
        for d in range(m):
            # Only devices on which the task may stand.
            if s.loose[t] or d == s.dev[t]:
                cheapest[i] = min(cheapest[i], a.cost[t, d])
                ahead[i] = min(ahead[i], a.cost[t, d] + rest[i, d])
    return Part(tasks, place, rest, home, group_dev, waiting, cheapest, ahead, room)


@njit(cache=True)
def empty_tree(a, q, lines):
    """A `Tree` of a `Part` at its root."""
    w, m, inputs = len(q.tasks), a.cost.shape[1], 0
    for t in q.tasks:
        inputs = max(inputs, a.inp_ptr[t + 1] - a.inp_ptr[t])
    return Tree(
        np.zeros((w, w * m, 3)), np.zeros(w, np.int64), np.zeros(w, np.int64),
        np.empty(w, np.int64), np.empty(w, np.int64), np.zeros(w, np.bool_),
        np.zeros(w, np.bool_), np.zeros(w + 1), np.full((w + 1, max(inputs, 1)), -1.0),
        np.zeros(lines),
    )  # fmt: skip


@njit(inline="always")
def remember(a, s, tree, depth, t, d):
    """Keeps the arrivals on device d of what task t reads."""
    for k in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
        tree.mark[depth, k - a.inp_ptr[t]] = s.arrive[a.inp[k], d]


@njit(inline="always")
def forget(a, s, tree, depth, t, d):
    """Takes back what was sent to device d for task t since `remember`."""
    for k in range(a.inp_ptr[t], a.inp_ptr[t + 1]):
        s.arrive[a.inp[k], d] = tree.mark[depth, k - a.inp_ptr[t]]


@njit(inline="always")
def release(a, q, t, step):
    """Readers of task t in the part wait for so many producers more."""
    for o in range(a.out_ptr[t], a.out_ptr[t + 1]):
        for u in range(a.use_ptr[a.out[o]], a.use_ptr[a.out[o] + 1]):
            if q.place[a.use[u]] >= 0:
                q.waiting[q.place[a.use[u]]] += step


@njit(inline="always")
def list_choices(a, s, q, tree, depth, then, remaining, best):
    """Fills the options at a depth with all that may be better than `best`; how many nodes that
    took. Left out is what no device may take, and what is met in another order too."""
    # Fields are read once: each read of a tuple's array counts a reference.
    cost, group, group_weight, inp_ptr, inp = a.cost, a.group, a.group_weight, a.inp_ptr, a.inp
    tasks, rest, home, group_dev = q.tasks, q.rest, q.home, q.group_dev
    waiting, cheapest, ahead, room = q.waiting, q.cheapest, q.ahead, q.room
    free, arrive, finish, dev = s.ends[depth], s.arrive, s.finish, s.dev
    options, line, used, mark = tree.options[depth], tree.line, tree.used, tree.mark[depth]
    w, m, begun, peak = len(tasks), cost.shape[1], tree.begun[depth], s.peak[depth]
    # The last task placed: equal starts are taken in rising numbers only, or a plan would be met
    # twice.
    before = tree.seq[depth - 1] if depth > 0 else -1
    count, nodes, base = 0, 0, 0.0
    for d in range(m):
        # What every device has and still must do, whatever is chosen here.
        base += free[d] + then[d]
    for i in range(w):
        # Placed already, or a producer is not.
        if used[i] or waiting[i] > 0:
            continue
        t, g = tasks[i], group_dev[home[i]]
        for d in range(m):
            if cost[t, d] == np.inf or (g >= 0 and g != d):
                continue
            # An open group must fit as a whole; one that is placed was paid for.
            if g < 0 and room[d] < group_weight[group[t]]:
                continue
            nodes += 1
            for e in range(len(line)):
                line[e] = free[e]
            for k in range(inp_ptr[t], inp_ptr[t + 1]):
                mark[k - inp_ptr[t]] = arrive[inp[k], d]
            # Tried on a copy of the timelines; arrivals are taken back below.
            start = advance(a, line, finish, arrive, dev, t, d)
            for k in range(inp_ptr[t], inp_ptr[t + 1]):
                arrive[inp[k], d] = mark[k - inp_ptr[t]]
            # Orders by falling starts are the same plans in another order.
            if start == np.inf or start < begun or (start == begun and i < before):
                continue
            bound = max(peak, start + cost[t, d] + rest[i, d])
            # The device waits, or takes longer than the task's best: time that nobody gets back.
            idle = start + cost[t, d] - free[d] - cheapest[i]
            bound = max(bound, (base + remaining + idle) / m)
            for j in range(w):
                if not used[j] and j != i:
                    # Every open task starts no earlier than this one.
                    bound = max(bound, start + ahead[j])
            if bound >= best * LESS:
                continue
            k = count
            # Insertion into few options, the most promising first: a good plan early cuts most of
            # the rest.
            while k > 0 and options[k - 1, 0] > bound:
                options[k] = options[k - 1]
                k -= 1
            options[k, 0], options[k, 1], options[k, 2] = bound, i, d
            count += 1
    tree.count[depth], tree.cursor[depth] = count, 0
    return nodes


@njit(inline="always")
def enter(a, s, q, tree, depth):
    """Makes the next choice at a depth; the task's number."""
    c = tree.cursor[depth]
    tree.cursor[depth] += 1
    i, d = np.int64(tree.options[depth, c, 1]), np.int64(tree.options[depth, c, 2])
    t = q.tasks[i]
    tree.seq[depth], tree.where[depth], tree.used[i] = i, d, True
    # Whoever opens a group takes it back; later members only join.
    tree.opened[depth] = q.group_dev[q.home[i]] < 0
    if tree.opened[depth]:
        q.group_dev[q.home[i]] = d
        q.room[d] -= a.group_weight[a.group[t]]
    remember(a, s, tree, depth, t, d)
    for e in range(s.ends.shape[1]):
        s.ends[depth + 1, e] = s.ends[depth, e]
    s.dev[t] = d
    tree.begun[depth + 1] = advance(a, s.ends[depth + 1], s.finish, s.arrive, s.dev, t, d)
    s.peak[depth + 1] = max(s.peak[depth], s.finish[t] + s.tail[t, d])
    release(a, q, t, -1)
    return i


@njit(inline="always")
def leave(a, s, q, tree, depth):
    """Takes back the choice made at a depth; the task's number."""
    i, d = tree.seq[depth], tree.where[depth]
    t = q.tasks[i]
    tree.used[i] = False
    forget(a, s, tree, depth, t, d)
    release(a, q, t, 1)
    if tree.opened[depth]:
        q.group_dev[q.home[i]] = -1
        q.room[d] += a.group_weight[a.group[t]]
    return i


@njit(cache=True)
def write_back(a, s, q, lo, old, found, best_seq, best_at):
    """Puts the best plan, or the old one, into the `Stretch`."""
    w = len(q.tasks)
    for i in range(w):
        s.dev[q.tasks[i]] = old[i]
    if not found:
        return
    for k in range(w):
        s.order[lo + k] = best_seq[k]
        s.at[best_seq[k]] = lo + k
        s.dev[best_seq[k]] = best_at[k]
    for i in range(w):  # of each group in the part, all tasks are
        t = q.tasks[i]
        if s.loose[t] and q.home[i] == i:
            s.room[old[i]] += a.group_weight[a.group[t]]
    for i in range(w):
        t = q.tasks[i]
        if s.loose[t] and q.home[i] == i:
            s.room[s.dev[t]] -= a.group_weight[a.group[t]]


@njit(cache=True, nogil=True)
def solve_part(a, s, lo, hi, then, value, limit):
    """Improves order[lo:hi] of a `Stretch` in place where something is better than `value`: (value,
    proved).

    then: see `windows`. limit: nodes. The part's own tasks count as placed in the room."""
    m, w, lines = a.cost.shape[1], hi - lo, s.ends.shape[1]
    q = open_part(a, s, lo, hi)
    tree = empty_tree(a, q, lines)
    old = s.dev[q.tasks]
    remaining = q.cheapest.sum()
    best, nodes, found = value, 0, False
    best_seq, best_at = np.empty(w, np.int64), np.empty(w, np.int64)
    depth, fresh = 0, True
    while depth >= 0:
        if fresh and depth == w:
            # All placed: what is behind the window decides, device by device.
            top = s.peak[w]
            for e in range(lines):
                if then[e] > 0.0 or e < m:
                    top = max(top, s.ends[w, e] + then[e])
            if top < best * LESS:
                best, found = top, True
                best_seq[:] = q.tasks[tree.seq]
                best_at[:] = tree.where
            depth -= 1
            fresh = False
            continue
        if fresh:
            nodes += list_choices(a, s, q, tree, depth, then, remaining, best)
            fresh = False
        else:
            remaining += q.cheapest[leave(a, s, q, tree, depth)]
        c = tree.cursor[depth]
        # Options are sorted, so the first that cannot win ends them all.
        if c >= tree.count[depth] or tree.options[depth, c, 0] >= best * LESS or nodes > limit:
            depth -= 1
            continue
        remaining -= q.cheapest[enter(a, s, q, tree, depth)]
        depth += 1
        fresh = True
    write_back(a, s, q, lo, old, found, best_seq, best_at)
    return best, nodes <= limit
