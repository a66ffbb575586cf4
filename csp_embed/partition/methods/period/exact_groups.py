"""Groups of a placement solved exactly for the smallest period; with Numba.

Takes: `Loads` arrays and a placement.  Leaves: better devices: a few groups at a time, all else
fixed, by depth-first enumeration; a branch is cut where the devices alone, without what is still
open, are as loaded as the best placement known, to which links only add.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.methods.period.period_loads import begin, energy, settle, shift


@njit(cache=True, nogil=True)
def solve_loads(q, dev, free, ptr, parts, limit):
    """Improves dev [groups] in place, part after part: how many were enumerated to the end.

    parts[ptr[i] : ptr[i + 1]]: groups of part i. free [m] bytes of memory left. limit: moves per
    part. Energy is that of annealing, so that equal maxima are told apart by the other loads."""
    cost, weight, maker, size = q.cost, q.weight, q.maker, q.size
    row = q.row
    use_ptr, use, inp_ptr, inp, out_ptr, out = q.use_ptr, q.use, q.inp_ptr, q.inp, q.out_ptr, q.out
    hop_ptr, hop_line, hop_lat, hop_inv = q.hop_ptr, q.hop_line, q.hop_lat, q.hop_inv
    once, lines = q.once, q.lines
    m = cost.shape[1]
    readers = np.zeros((len(maker), m), np.int64)
    load = np.zeros(lines)
    begin(
        dev, readers, load, cost, maker, row, size, use_ptr, use, hop_ptr, hop_line, hop_lat,
        hop_inv,
        once,
    )  # fmt: skip
    widest = 0
    for i in range(len(ptr) - 1):
        widest = max(widest, ptr[i + 1] - ptr[i])
    kept = np.zeros((widest + 1, lines))  # loads before each depth
    closed = 0
    for i in range(len(ptr) - 1):
        some = parts[ptr[i] : ptr[i + 1]]
        w = len(some)
        home, choice = np.empty(w, np.int64), np.full(w, -1)
        fixed = load[:m].copy()  # device loads without what is open
        for k in range(w):
            home[k] = dev[some[k]]
            free[home[k]] += weight[some[k]]
            # The part's groups are taken off; links keep what they have, so this stays a lower
            # bound.
            fixed[home[k]] -= cost[some[k], home[k]]
        kept[0] = load
        best, best_at, moves, depth = energy(load), home.copy(), 0, 0
        while depth >= 0:
            if depth == w:
                value = energy(load)
                if value < best * (1 - 1e-12):
                    best = value
                    best_at[:] = choice
                depth -= 1
                continue
            g = some[depth]
            if choice[depth] >= 0:  # take back
                free[choice[depth]] += weight[g]
                fixed[choice[depth]] -= cost[g, choice[depth]]
            if dev[g] != home[depth]:  # as `kept` has it
                settle(g, home[depth], dev, readers, inp_ptr, inp)
            d = choice[depth] + 1
            # Beyond the limit every device is passed over: the tree is left without more moves.
            while d < m and (cost[g, d] == np.inf or free[d] < weight[g] or moves > limit):
                d += 1
            if d == m:
                choice[depth] = -1
                depth -= 1
                continue
            choice[depth] = d
            free[d] -= weight[g]
            fixed[d] += cost[g, d]
            # A device that is as loaded as the best plan's energy cannot be part of a better one.
            if fixed[d] < best:
                # Restored from a copy, not taken back: sums of differences would drift.
                load[:] = kept[depth]
                if d != home[depth]:
                    shift(
                        g, d, dev, readers, load, cost, maker, row, size, inp_ptr, inp, out_ptr,
                        out,
                        hop_ptr, hop_line, hop_lat, hop_inv, once,
                    )  # fmt: skip
                    settle(g, d, dev, readers, inp_ptr, inp)
                    moves += 1
                depth += 1
                kept[depth] = load
        for k in range(w):
            free[best_at[k]] -= weight[some[k]]
            if dev[some[k]] != best_at[k]:
                settle(some[k], best_at[k], dev, readers, inp_ptr, inp)
        begin(
            dev, readers, load, cost, maker, row, size, use_ptr, use, hop_ptr, hop_line, hop_lat,
            hop_inv, once,
        )  # fmt: skip
        closed += moves <= limit
    return closed
