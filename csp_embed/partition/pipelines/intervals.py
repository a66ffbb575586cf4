"""Stages as intervals of one order of groups: prices of all of them, and the best cut.

Takes: `Loads` of a folded problem, an order of its groups.  Leaves: devices of groups.

An interval's load on a device is the cost of its groups and, on accelerators, the tolls of values
that enter it (once each) and of values that leave it. Equal devices are a class: a stage belongs to
a class, and the states of the cut are how many of each class are used.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints
from csp_embed.partition.methods.period.period_loads import Loads

STATES = 256  # combinations of used devices; beyond, classes are taken one after the other


class Classes(NamedTuple):
    """Equal devices. first [c]: one of each; count [c]; of: device numbers of each class."""

    first: Ints
    count: Ints  # pyright: ignore[reportIncompatibleMethodOverride] (a tuple counts nothing here)
    of: list[list[int]]


def classes(q: Loads) -> Classes:
    """Devices with equal costs, memory and tolls."""
    known: dict[bytes, list[int]] = {}
    for d in range(q.cost.shape[1]):
        # Bytes of the columns: equal devices have equal numbers bit by bit.
        key = q.cost[:, d].tobytes() + q.memory[d].tobytes() + q.once[d].tobytes()
        known.setdefault(key, []).append(d)
    of = list(known.values())
    return Classes(
        np.array([ds[0] for ds in of], np.int64), np.array([len(ds) for ds in of], np.int64), of
    )


def prices(q: Loads, kinds: Classes, order: Ints) -> Floats:
    """[class, begin, end] ms of the groups order[begin:end]; inf where they do not fit."""
    count = len(order)
    found = np.full((len(kinds.first), count + 1, count + 1), np.inf)
    at = np.empty(count, np.int64)
    at[order] = np.arange(count)
    # One of a class is priced for all of it.
    for c, d in enumerate(kinds.first):
        _price(
            np.ascontiguousarray(q.cost[:, d]), q.weight, q.memory[d], q.once[d], order, at,
            q.maker, q.size, np.diff(q.use_ptr), q.inp_ptr, q.inp, q.out_ptr, q.out, found[c],
        )  # fmt: skip
    return found


@njit(cache=True, nogil=True)
def _price(
    cost, weight, room, tolled, order, at, maker, size, readers, inp_ptr, inp, out_ptr, out, found
):
    """`prices` of one class: each interval grows from its end to the front."""
    inside = np.zeros(len(maker), np.int64)  # readers of each value in the interval
    for end in range(len(order) + 1):
        found[end, end] = 0.0
        load, need = 0.0, 0.0
        # From the back to the front: only one group is added per step.
        begin = end - 1
        while begin >= 0:
            g = order[begin]
            load += cost[g]
            need += weight[g]
            # Longer ones do not fit either: their prices stay inf.
            if need > room or load == np.inf:
                break
            if tolled:
                for k in range(inp_ptr[g], inp_ptr[g + 1]):
                    v = inp[k]
                    inside[v] += 1
                    # The maker may stand behind its reader: backward edges are turned round in the
                    # order.
                    if begin < at[maker[v]] < end:
                        if inside[v] == readers[v]:
                            load -= size[v]  # its last reader outside came in
                    elif inside[v] == 1:
                        load += size[v]
                for k in range(out_ptr[g], out_ptr[g + 1]):
                    v = out[k]
                    if inside[v] > 0:
                        load -= size[v]  # entered, and is made here now
                    if inside[v] < readers[v]:
                        load += size[v]
            found[begin, end] = load
            begin -= 1
        # Only what was counted is reset; clearing all for every end would cost more.
        if tolled:
            for k in range(max(begin, 0), end):
                for i in range(inp_ptr[order[k]], inp_ptr[order[k] + 1]):
                    inside[inp[i]] = 0


def cut(price: Floats, counts: Ints, together: bool) -> list[tuple[int, int, int]] | None:
    """Stages (class, begin, end) of the best cut, in order; None where there is none.

    together: the largest load is made small (a period), else their sum (a latency, where stages
    wait for each other)."""
    # Mixed radix: a state counts how many devices of each class are used.
    radix = np.concatenate([[1], np.cumprod(counts + 1)]).astype(np.int64)
    best, came, kind = _cut(price, radix, together)
    state, at = len(best) - 1, price.shape[1] - 1
    if not np.isfinite(best[state, at]):
        return None
    stages = []
    while state:
        c, begin = int(kind[state, at]), int(came[state, at])
        # An empty stage leaves a device unused.
        if begin < at:
            stages.append((c, begin, at))
        state, at = state - int(radix[c]), begin
    return stages[::-1]


@njit(cache=True, nogil=True)
def _cut(price, radix, together):
    """best [state, end], and where and of which class its last stage begins."""
    kinds, ends = price.shape[0], price.shape[1]
    states = radix[kinds]
    best = np.full((states, ends), np.inf)
    came, kind = np.zeros((states, ends), np.int64), np.zeros((states, ends), np.int64)
    best[0, 0] = 0.0
    for s in range(1, states):
        for c in range(kinds):
            if s // radix[c] % (radix[c + 1] // radix[c]) == 0:
                continue
            old = s - radix[c]
            for end in range(ends):
                for begin in range(end, -1, -1):
                    x = price[c, begin, end]
                    if x == np.inf:
                        break  # memory or a missing device: longer ones do not fit either
                    # A period is the largest stage, a latency the sum of them.
                    value = max(best[old, begin], x) if together else best[old, begin] + x
                    if value < best[s, end]:
                        best[s, end] = value
                        came[s, end], kind[s, end] = begin, c
    return best, came, kind
