"""Annealing over the intervals themselves: any placement, no stages.

Clusters of a few unlike machines, or with links in odd places, have best plans that no pattern
describes. The energy is the flow, plus a little for what each layer's machines could carry: without
it, most moves from a plan of no flow look alike.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit
from csp_embed.serving.searches.search import Search

LARGEST = 64  # machines: the flow runs on a dense matrix
EVALUATIONS = 60_000  # of the flow, divided by the number of machines squared over 16
STARTS = 4


def polish(search: Search) -> None:
    """Changes one machine's interval at a time, from the best plan and from nothing."""
    n = search.instance.size
    if n > LARGEST:
        return
    instance = search.instance
    longest = max(len(t.table) for t in instance.types)
    # Rates by layers held, from 1; 0 layers carry nothing.
    table = np.zeros((n, longest + 1))
    for i in range(n):
        table[i, 1 : 1 + len(instance.table(i))] = instance.table(i)
    # A move costs about n^2: fewer for larger clusters.
    moves = max(2_000, EVALUATIONS * 16 // max(16, n * n))
    for start in range(STARTS):
        if search.late() or search.proved:
            return
        first, held = np.zeros(n, np.int64), np.zeros(n, np.int64)
        # Every other start from the best plan, the others from nothing.
        if start % 2 == 0:
            for i, (a, b) in search.placement.items():
                first[i], held[i] = a, b - a
        goal = max(search.most, 1e-9)
        climb(
            table, instance.link, instance.start, instance.end, instance.layers, instance.partial,
            first, held, goal, search.seed + start, moves,
        )  # fmt: skip
        placement = {i: (int(first[i]), int(first[i] + held[i])) for i in range(n) if held[i]}
        search.offer(placement, "annealing")


@njit(cache=True)
def climb(  # type: ignore[no-untyped-def]
    table, link, start, end, layers, partial, first, held, goal, seed, moves
):
    """Anneals first and held (0 = not used) in place; leaves the best ones seen."""
    np.random.seed(seed)
    n, longest = table.shape[0], table.shape[1] - 1
    # In, out for each machine, then source and sink.
    room = np.zeros((2 * n + 2, 2 * n + 2))
    now = _worth(table, link, start, end, layers, partial, first, held, goal, room)
    best, best_first, best_held = now, first.copy(), held.copy()
    for step in range(moves):
        # Quadratic cooling: longer at low temperatures.
        heat = 0.2 * goal * (1.0 - step / moves) ** 2 + 1e-9
        i, j = np.random.randint(n), np.random.randint(n)
        a, k = first[i], held[i]
        size = np.random.randint(1, longest + 1)
        kind = np.random.randint(6)
        # Kinds of moves that make ends meet: only then something flows.
        if kind == 0:  # anywhere
            at = np.random.randint(layers)
        elif kind == 1:  # beside another
            at, size = first[j], held[j]
        elif kind == 2:  # where another ends
            at = first[j] + held[j]
        elif kind == 3:  # up to where another begins
            at = first[j] - size
        elif kind == 4:  # shifted
            at, size = a + np.random.randint(-1, 2), k
        else:  # longer or shorter at its end
            at, size = a, k + np.random.randint(-1, 2)
        # A machine may also be left out.
        if np.random.random() < 0.05:
            size = 0
        if size and (at < 0 or size < 0 or at + size > layers):
            continue
        # Lengths that the table does not have carry nothing.
        if size > longest or (size and table[i, size] <= 0.0):
            continue
        first[i], held[i] = at, size
        new = _worth(table, link, start, end, layers, partial, first, held, goal, room)
        if new >= now or np.random.random() < np.exp((new - now) / heat):
            now = new
            if now > best:
                best = now
                best_first[:], best_held[:] = first, held
        else:
            first[i], held[i] = a, k
    first[:], held[:] = best_first, best_held


@njit(cache=True)
def _worth(table, link, start, end, layers, partial, first, held, goal, room):  # type: ignore[no-untyped-def]
    """Flow, and a hundredth of what the layers could carry on average."""
    n = table.shape[0]
    # Layers' own rates first: the flow is dear and often 0.
    cover = np.zeros(layers)
    for i in range(n):
        for x in range(first[i], first[i] + held[i]):
            cover[x] += table[i, held[i]]
    some, whole = 0.0, True
    for x in range(layers):
        some += min(cover[x], goal)
        if cover[x] <= 0.0:
            whole = False
    some *= 0.01 / layers
    # A layer that nobody holds: no flow at all.
    if not whole:
        return some
    room[:, :] = 0.0
    s, t = 2 * n, 2 * n + 1
    for i in range(n):
        if held[i] == 0:
            continue
        stop = first[i] + held[i]
        room[2 * i, 2 * i + 1] = table[i, held[i]]
        if first[i] == 0:
            room[s, 2 * i] = start[i]
        if stop == layers:
            room[2 * i + 1, t] = end[i]
        for j in range(n):
            if i == j or held[j] == 0:
                continue
            # Ends meet, or with partial inference lie inside.
            if stop == first[j] or (partial and first[j] <= stop < first[j] + held[j]):
                room[2 * i + 1, 2 * j] = link[i, j]
    return _flow(room, s, t) + some


@njit(cache=True)
def _flow(room, s, t):  # type: ignore[no-untyped-def]
    """Maximum flow by shortest augmenting paths on a dense matrix of residual capacities."""
    n = room.shape[0]
    parent, queue = np.empty(n, np.int64), np.empty(n, np.int64)
    total = 0.0
    while True:
        parent[:] = -1
        parent[s] = s
        queue[0] = s
        head, tail = 0, 1
        while head < tail and parent[t] < 0:
            u = queue[head]
            head += 1
            for v in range(n):
                # Above rounding: capacities that floats have nearly used up count as none.
                if parent[v] < 0 and room[u, v] > 1e-9:
                    parent[v] = u
                    queue[tail] = v
                    tail += 1
        if parent[t] < 0:
            return total
        pushed, v = np.inf, t
        while v != s:
            pushed = min(pushed, room[parent[v], v])
            v = parent[v]
        v = t
        while v != s:
            room[parent[v], v] -= pushed
            # What was sent may be taken back.
            room[v, parent[v]] += pushed
            v = parent[v]
        total += pushed
