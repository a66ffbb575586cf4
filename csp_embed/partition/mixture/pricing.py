"""Placements that cost little under prices of lines; compiled with Numba.

The least of all is a labelling problem and hard; column generation needs any that is cheap enough,
so groups move one at a time to where the priced loads fall most, from many starts.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints
from csp_embed.partition.methods.period.period_loads import Loads, begin, settle, shift


def loads_of(q: Loads, dev: Ints) -> Floats:
    """Load of every line [lines] of a placement [g]; the last one counts what cannot be sent."""
    readers, load = np.zeros((len(q.maker), q.cost.shape[1]), np.int64), np.zeros(q.lines)
    begin(
        dev, readers, load, q.cost, q.maker, q.row, q.size, q.use_ptr, q.use, q.hop_ptr,
        q.hop_line, q.hop_lat, q.hop_inv, q.once,
    )  # fmt: skip
    return load


def descend(q: Loads, dev: Ints, prices: Floats, able: Floats, seed: int) -> tuple[Ints, float]:
    """(a placement at which no single move helps, its priced load), starting from `dev`.

    able [g, m]: 0 where a group may stand, inf elsewhere."""
    found = dev.copy()
    # By chance, so that starts end in different valleys.
    cost = _descend(
        found, prices, able, np.random.default_rng(seed).permutation(len(dev)), q.lines, q.cost,
        q.maker, q.row, q.size, q.use_ptr, q.use, q.inp_ptr, q.inp, q.out_ptr, q.out, q.hop_ptr,
        q.hop_line, q.hop_lat, q.hop_inv, q.once,
    )  # fmt: skip
    return found, float(cost)


@njit(cache=True, nogil=True)
def _priced(load, prices):
    total = 0.0  # Numba's dot product wants SciPy
    for line in range(len(load)):
        total += load[line] * prices[line]
    return total


@njit(cache=True, nogil=True)
def _descend(
    dev, prices, able, order, lines, cost, maker, row, size, use_ptr, use, inp_ptr, inp, out_ptr,
    out, hop_ptr, hop_line, hop_lat, hop_inv, once,
):  # fmt: skip
    m = cost.shape[1]
    readers, load = np.zeros((len(maker), m), np.int64), np.zeros(lines)
    begin(
        dev, readers, load, cost, maker, row, size, use_ptr, use, hop_ptr, hop_line, hop_lat,
        hop_inv, once,
    )  # fmt: skip
    total = _priced(load, prices)
    least = 1e-12 * total  # less is rounding, and could go round for ever
    change = np.zeros(lines)
    moved = True
    while moved:
        moved = False
        for g in order:
            # The best of all devices for this group, not the first that helps: fewer moves, fewer
            # passes.
            best, where = -least, -1
            for b in range(m):
                if b == dev[g] or able[g, b] > 0.0 or cost[g, b] == np.inf:
                    continue
                # Only the difference is counted: a move touches few values of a large graph.
                change[:] = 0.0
                shift(
                    g, b, dev, readers, change, cost, maker, row, size, inp_ptr, inp, out_ptr, out,
                    hop_ptr, hop_line, hop_lat, hop_inv, once,
                )  # fmt: skip
                gain = _priced(change, prices)
                if gain < best:
                    best, where = gain, b
            if where >= 0:
                # `settle` keeps counts of readers by device true, from which the next differences
                # follow.
                settle(g, where, dev, readers, inp_ptr, inp)
                total += best
                moved = True
    return total
