"""Loads of a placement for the period, kept up to date move by move; compiled with Numba.

Takes: a Problem.  Leaves: `Loads` arrays and the kernels that `balance` and `part_loads` share.

Everything is by colocation group: a group has one device. A line is a device, a contended link or a
bus. A value loads every contended hop of its route to each other device that reads it, once per
device; values read only where they are made never travel. dnn-partitioning: accelerators pay a
value's toll once on the way out (`once`), and once on the way in per accelerator that reads it.
The last line counts values that cannot reach a reader, BROKEN ms each.

Kernels take arrays, not `Loads`: Numba counts references to every array of a tuple at every call.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints, Problem

SPREAD = 0.1
BROKEN = 1e9  # ms; above every period


class Loads(NamedTuple):
    """g groups, v values, m devices. cost [g, m] ms; weight [g], memory [m] bytes; maker [v] group;
    row [v]: where the routes of values of its size begin.

    CSR: `use` (other groups that read a value), `inp` (values that a group reads from others),
    `out` (values that others read from a group), hops of the route a -> b at (row + a) * m + b:
    line, ms, ms per unit of size [v]; where values take time of the devices that send and receive
    them, hops whose lines are these. once [m]: devices loaded by size once per value that leaves.
    """

    group: Ints
    cost: Floats
    weight: Floats
    memory: Floats
    maker: Ints
    row: Ints
    size: Floats
    use_ptr: Ints
    use: Ints
    inp_ptr: Ints
    inp: Ints
    out_ptr: Ints
    out: Ints
    hop_ptr: Ints
    hop_line: Ints
    hop_lat: Floats
    hop_inv: Floats
    once: Ints
    lines: int


def load_arrays(
    p: Problem,
    accelerator: Ints | None = None,
    toll: Floats | None = None,
    *,
    handled: bool = True,
) -> Loads:
    """Arrays of a problem. accelerator [m], toll [v]: the dnn-partitioning model, without links.
    handled: with the time that values take of devices, which a makespan does not know."""
    groups, values = int(p.group.max(initial=-1)) + 1, len(p.value_src)
    cost = np.zeros((groups, p.m))
    np.add.at(cost, p.group, p.cost)
    maker = p.group[p.value_src]
    value = np.repeat(np.arange(values), np.diff(p.use_ptr))
    # Each (value, reading group) once: a device pays for a value once, however many of its tasks
    # read it.
    value, reader = np.divmod(np.unique(value * groups + p.group[p.use]), max(groups, 1))
    # What is read only where it is made never travels.
    away = reader != maker[value]
    value, reader = value[away], reader[away]
    live = np.unique(value)
    if accelerator is None or toll is None:
        pair = np.repeat(np.arange(len(p.hop_ptr) - 1), np.diff(p.hop_ptr))[p.hop_res >= 0]
        used = p.hop_res >= 0
        line, lat, inv = p.m + p.hop_res[used], p.hop_lat[used], p.hop_inv[used]
        if handled and p.handled():
            every = np.repeat(np.arange(len(p.hop_ptr) - 1), np.diff(p.hop_ptr))
            pair = np.concatenate([pair, every, every])
            line = np.concatenate([line, p.hop_from, p.hop_to])
            lat = np.concatenate([lat, p.hand[:, 0], p.hand[:, 2]])
            inv = np.concatenate([inv, p.hand[:, 1], p.hand[:, 3]])
        # Pairs without a route load a line of their own, far beyond any period: searches see them
        # as very bad instead of impossible.
        apart = np.flatnonzero(~np.isfinite(p.lat.ravel()))
        pair = np.concatenate([pair, apart])
        line = np.concatenate([line, np.full(len(apart), p.m + len(p.resources))])
        lat = np.concatenate([lat, np.full(len(apart), BROKEN)])
        inv = np.concatenate([inv, np.zeros(len(apart))])
        size, once = p.value_bytes, np.zeros(p.m, np.int64)
    else:
        a, line = np.nonzero(~np.eye(p.m, dtype=bool) & (accelerator > 0)[None, :])
        pair, lat, inv = a * p.m + line, np.zeros(len(a)), np.ones(len(a))
        size, once = np.asarray(toll, float), accelerator.astype(np.int64)
    # Hops of one route stay in their order.
    by = np.argsort(pair, kind="stable")
    weight = np.bincount(p.group, p.weight, minlength=groups).astype(np.float64)
    return Loads(
        p.group, cost, weight, p.memory, maker, p.row,
        size,
        _ptr(value, values), reader, _ptr(reader, groups), value[np.argsort(reader, kind="stable")],
        _ptr(maker[live], groups), live[np.argsort(maker[live], kind="stable")],
        _ptr(pair, len(p.hop_ptr) - 1), line[by].astype(np.int64), lat[by], inv[by], once,
        p.m + len(p.resources) + 1,
    )  # fmt: skip


def _ptr(keys: Ints, count: int) -> Ints:
    return np.concatenate([[0], np.cumsum(np.bincount(keys, minlength=count))]).astype(np.int64)


@njit(cache=True)
def begin(
    dev,
    readers,
    load,
    cost,
    maker,
    row,
    size,
    use_ptr,
    use,
    hop_ptr,
    hop_line,
    hop_lat,
    hop_inv,
    once,
):
    """Fills readers [v, m] and load [lines] of a placement dev [g]."""
    m = cost.shape[1]
    readers[:] = 0
    load[:] = 0.0
    for g in range(len(dev)):
        load[dev[g]] += cost[g, dev[g]]
    for v in range(len(maker)):
        a = dev[maker[v]]
        leaves = False
        for k in range(use_ptr[v], use_ptr[v + 1]):
            d = dev[use[k]]
            readers[v, d] += 1
            # The first reader on a device brings the value; others find it there.
            if readers[v, d] > 1 or d == a:
                continue
            leaves = True
            for h in range(hop_ptr[(row[v] + a) * m + d], hop_ptr[(row[v] + a) * m + d + 1]):
                load[hop_line[h]] += hop_lat[h] + size[v] * hop_inv[h]
        if leaves and once[a]:
            load[a] += size[v]


@njit(cache=True)
def shift(
    g, b, dev, readers, load, cost, maker, row, size, inp_ptr, inp, out_ptr, out,
    hop_ptr, hop_line, hop_lat, hop_inv, once,
):  # fmt: skip
    """Adds to load [lines] what changes where group g moves to device b; moves nothing."""
    m = cost.shape[1]
    a = dev[g]
    load[a] -= cost[g, a]
    load[b] += cost[g, b]
    for k in range(out_ptr[g], out_ptr[g + 1]):
        v = out[k]
        before, after = False, False
        for d in range(m):
            if readers[v, d] == 0:
                continue
            if d != a:
                before = True
                for h in range(hop_ptr[(row[v] + a) * m + d], hop_ptr[(row[v] + a) * m + d + 1]):
                    load[hop_line[h]] -= hop_lat[h] + size[v] * hop_inv[h]
            if d != b:
                after = True
                for h in range(hop_ptr[(row[v] + b) * m + d], hop_ptr[(row[v] + b) * m + d + 1]):
                    load[hop_line[h]] += hop_lat[h] + size[v] * hop_inv[h]
        if before and once[a]:
            load[a] -= size[v]
        if after and once[b]:
            load[b] += size[v]
    for k in range(inp_ptr[g], inp_ptr[g + 1]):
        v = inp[k]
        x = dev[maker[v]]
        gone, come = readers[v, a] == 1 and a != x, readers[v, b] == 0 and b != x
        if gone:
            for h in range(hop_ptr[(row[v] + x) * m + a], hop_ptr[(row[v] + x) * m + a + 1]):
                load[hop_line[h]] -= hop_lat[h] + size[v] * hop_inv[h]
        if come:
            for h in range(hop_ptr[(row[v] + x) * m + b], hop_ptr[(row[v] + x) * m + b + 1]):
                load[hop_line[h]] += hop_lat[h] + size[v] * hop_inv[h]
        if once[x] and gone != come:
            others = 0
            for d in range(m):
                others += d != x and d != a and d != b and readers[v, d] > 0
            others += (b != x and readers[v, b] > 0) + (a != x and readers[v, a] > 1)
            if others == 0:  # its last journey ends, or its first begins
                load[x] += size[v] if come else -size[v]


@njit(cache=True)
def settle(g, b, dev, readers, inp_ptr, inp):
    """Moves group g to device b."""
    for k in range(inp_ptr[g], inp_ptr[g + 1]):
        readers[inp[k], dev[g]] -= 1
        readers[inp[k], b] += 1
    dev[g] = b


@njit(cache=True)
def energy(load):
    """Largest load and a little of the root mean square, so that plateaus have a slope."""
    top, squares = 0.0, 0.0
    last = len(load) - 1
    for k in range(last):
        top = max(top, load[k])
        squares += load[k] * load[k]
    return top + SPREAD * np.sqrt(squares / last) + load[last]


@njit(cache=True)
def largest(load):
    """The period: the largest load."""
    top = 0.0
    for x in load:
        top = max(top, x)
    return top
