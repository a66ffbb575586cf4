"""The best that any mixture of placements can do, from below: fractions of groups on devices.

Takes: `Loads` of a Problem.  Leaves: prices of lines, fractions to round, and a proved bound.

A mixture gives each group g a fraction x[g, a] of the samples on each device, and each reader t of
a value v a fraction p[v, t, a, b] of samples with maker on a and reader on b, so that

    sum_a x[g, a] = 1        sum_b p[v, t, a, b] = x[maker, a]        sum_a p[v, t, a, b] = x[t, b]
    z[v, a, b] >= p[v, t, a, b]  (a value is sent once to a device, however many read it there)
    load[line] = costs of x + hop times of z <= period        weights of x <= memory

where the period is least. Every mixture is such a point, so the value is a bound. Weights: what is
held is at least the fraction used.

What is proved is not what the simplex code says but what its multipliers prove: for any prices
w >= 0 of lines with sum 1, n >= 0 of memory, l >= 0 with sum over readers t of l[v, t, a, b] at
most the price C of sending v from a to b, and any messages m,

    sum_g min_a ( w_a cost[g, a] + n_a weight[g] - messages of g at a )
      + sum_(v, t) min_ab ( l[v, t, a, b] + m_maker[v, t, a] + m_reader[v, t, b] )  - n memory

is a bound: it is the Lagrangian of the program above (each z is paid for by its l). `proved`
computes it from the arrays and takes off more than the rounding of its sums.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from csp_embed.partition.arrays.view import Floats, Ints
from csp_embed.partition.methods.period.period_loads import Loads
from csp_embed.solver.lp import Row, optimum

MOST = 60_000  # variables of the program; above, the bound by load stands


@dataclass(frozen=True)
class Relaxed:
    """bound in the Problem's units. prices [lines] with sum 1. x [g, m]: fractions."""

    bound: float
    prices: Floats
    x: Floats


@dataclass(frozen=True)
class _Columns:
    """Numbers of the program's variables: the period, x [g, m], p [pairs, m, m], z [v, m, m];
    -1 where there is none. pairs [k, 2]: (value, reading group)."""

    x: Ints
    p: Ints
    z: Ints
    pairs: Ints
    count: int


def relax(q: Loads) -> Relaxed | None:
    """None where the program is too large or GLOP finds no optimum."""
    hops = hop_times(q)
    columns = _columns(q, hops)
    if columns.count > MOST:
        return None
    objective = np.zeros(columns.count)
    # Variable 0 is the period, which alone is made small.
    objective[0] = 1.0
    equal, meant = _equal(q, columns)
    memory = _memory(q, columns)
    # Rows in this order: the multipliers come back in it and are cut apart below.
    at_most = [*_loads(q, columns, hops), *memory, *_sent(columns)]
    found = optimum(objective, at_most, equal)
    if found is None:
        return None
    values, multipliers, messages = found
    lines = q.lines - 1
    x = np.where(columns.x >= 0, values[columns.x], 0.0)
    # Multipliers of the load rows are the prices; scaled, they sum to 1.
    prices = multipliers[:lines]
    total = prices.sum()
    # A period that no line bounds (all costs 0) has no prices.
    if not total > 0:
        return None
    scale = 1.0 / total
    held = np.zeros(len(q.memory))
    # A multiplier of memory is a rent per byte; devices without a limit have none.
    held[np.isfinite(q.memory)] = multipliers[lines : lines + len(memory)] * scale
    bound = proved(
        q, hops, columns, prices * scale, held,
        multipliers[lines + len(memory) :] * scale, messages * scale, meant,
    )  # fmt: skip
    return Relaxed(bound, prices * scale, x)


def rounded(x: Floats, rng: np.random.Generator) -> Ints:
    """A placement from fractions, alike groups alike (Kleinberg and Tardos, "Approximation
    algorithms for classification problems with pairwise relationships", J. ACM 2002): a device and
    a threshold at random; groups with more than that on it go there; until all have gone."""
    groups, m = x.shape
    dev = np.full(groups, -1, np.int64)
    # By chance this may go on for ever: what is left goes to its largest fraction.
    for _ in range(64 * m):
        d, least = int(rng.integers(m)), rng.random()
        dev[(dev < 0) & (x[:, d] > least)] = d
        if (dev >= 0).all():
            return dev
    return np.where(dev < 0, x.argmax(axis=1), dev)


def hop_times(q: Loads) -> dict[tuple[int, int, int], list[tuple[int, float]]]:
    """(value, a, b) -> [(line, time)] of the contended hops; the last line: it cannot be sent."""
    m = q.cost.shape[1]
    out: dict[tuple[int, int, int], list[tuple[int, float]]] = {}
    for v in np.unique(np.repeat(np.arange(len(q.maker)), np.diff(q.use_ptr))):
        for a in range(m):
            for b in range(m):
                at = (q.row[v] + a) * m + b
                hops = range(q.hop_ptr[at], q.hop_ptr[at + 1])
                # On the same device nothing is sent; devices without a route have no hops either.
                if a != b and len(hops):
                    out[int(v), a, b] = [
                        (int(q.hop_line[h]), float(q.hop_lat[h] + q.size[v] * q.hop_inv[h]))
                        for h in hops
                    ]
    return out


def _columns(q: Loads, hops: dict[tuple[int, int, int], list[tuple[int, float]]]) -> _Columns:
    groups, m = q.cost.shape
    able = np.isfinite(q.cost)
    x = np.full((groups, m), -1, np.int64)
    x[able] = 1 + np.arange(able.sum())
    count = 1 + int(able.sum())
    reader = np.repeat(np.arange(len(q.maker)), np.diff(q.use_ptr))
    # A value whose routes carry no load constrains nothing.
    loaded = {v for v, _, _ in hops}
    pairs = np.array(
        [(v, t) for v, t in zip(reader, q.use, strict=True) if v in loaded], np.int64
    ).reshape(-1, 2)
    p = np.full((len(pairs), m, m), -1, np.int64)
    z = np.full((len(q.maker), m, m), -1, np.int64)
    broken = q.lines - 1
    for k, (v, t) in enumerate(pairs):
        # Forbidden devices have no variable: fewer columns, and no inf in the program.
        for a in np.flatnonzero(able[q.maker[v]]):
            for b in np.flatnonzero(able[t]):
                rows = hops.get((int(v), int(a), int(b)), [])
                # Pairs that cannot talk: p = 0, by leaving it out.
                if any(line == broken for line, _ in rows):
                    continue
                p[k, a, b] = count
                count += 1
                # A way without contended hops is free: no z is needed to pay for it.
                if rows and z[v, a, b] < 0:
                    z[v, a, b] = count
                    count += 1
    return _Columns(x, p, z, pairs, count)


def _equal(q: Loads, c: _Columns) -> tuple[list[Row], list[tuple[int, int, int]]]:
    """Rows, and of each what its multiplier means: (-1, g, 0) or (pair, 0 maker / 1 reader, a)."""
    rows: list[Row] = []
    meant: list[tuple[int, int, int]] = []
    for g in range(len(q.cost)):
        own = c.x[g][c.x[g] >= 0]
        rows.append((own, np.ones(len(own)), 1.0))
        meant.append((-1, g, 0))
    for k, (v, t) in enumerate(c.pairs):
        for side, group in ((0, q.maker[v]), (1, t)):
            table = c.p[k] if side == 0 else c.p[k].T
            for a in range(len(table)):
                if c.x[group, a] >= 0:
                    own = table[a][table[a] >= 0]
                    columns = np.append(own, c.x[group, a])
                    rows.append((columns, np.append(np.ones(len(own)), -1.0), 0.0))
                    meant.append((k, side, a))
    return rows, meant


def _loads(
    q: Loads, c: _Columns, hops: dict[tuple[int, int, int], list[tuple[int, float]]]
) -> list[Row]:
    m = q.cost.shape[1]
    columns: list[list[int]] = [[0] for _ in range(q.lines - 1)]
    factors: list[list[float]] = [[-1.0] for _ in range(q.lines - 1)]
    for g, a in np.argwhere(c.x >= 0):
        columns[a].append(int(c.x[g, a]))
        factors[a].append(float(q.cost[g, a]))
    for v, a, b in np.argwhere(c.z >= 0):
        for line, ms in hops[int(v), int(a), int(b)]:
            columns[line].append(int(c.z[v, a, b]))
            factors[line].append(ms)
    assert m <= q.lines - 1
    return [
        (np.array(i, np.int64), np.array(f), 0.0) for i, f in zip(columns, factors, strict=True)
    ]


def _memory(q: Loads, c: _Columns) -> list[Row]:
    rows: list[Row] = []
    for d in np.flatnonzero(np.isfinite(q.memory)):
        own = np.flatnonzero(c.x[:, d] >= 0)
        # Weights times fractions: less than what is held, so the relaxation stays one.
        rows.append((c.x[own, d], q.weight[own].astype(float), float(q.memory[d])))
    return rows


def _sent(c: _Columns) -> list[Row]:
    """p - z <= 0, in the order of `np.argwhere` over pairs with a z."""
    return [
        (np.array([c.p[k, a, b], c.z[v, a, b]], np.int64), np.array([1.0, -1.0]), 0.0)
        for k, a, b, v in _paid(c)
    ]


def _paid(c: _Columns) -> list[tuple[int, int, int, int]]:
    """(pair, a, b, value) of every p whose sending is paid for."""
    return [
        (int(k), int(a), int(b), int(c.pairs[k, 0]))
        for k, a, b in np.argwhere(c.p >= 0)
        if c.z[c.pairs[k, 0], a, b] >= 0
    ]


def proved(
    q: Loads, hops: dict[tuple[int, int, int], list[tuple[int, float]]], c: _Columns,
    w: Floats, held: Floats, paid: Floats, messages: Floats, meant: list[tuple[int, int, int]],
) -> float:  # fmt: skip
    """The bound that these multipliers prove, whoever found them; see the module's text."""
    m = q.cost.shape[1]
    # The cost of a way under these prices, by value and pair of devices.
    price = np.zeros(c.z.shape)
    for v, a, b in np.argwhere(c.z >= 0):
        price[v, a, b] = sum(w[line] * ms for line, ms in hops[int(v), int(a), int(b)])
    lent = np.zeros(c.p.shape)
    for (k, a, b, _), x in zip(_paid(c), paid, strict=True):
        # A multiplier a little below 0 is the simplex code's rounding; as 0 it is still a proof.
        lent[k, a, b] = max(0.0, x)
    spent = np.zeros(c.z.shape)
    np.add.at(spent, c.pairs[:, 0], lent)
    # Where readers together pay more than the way costs, all pay less: then the proof holds.
    share = np.divide(price, spent, out=np.ones_like(price), where=spent > price)
    lent *= share[c.pairs[:, 0]]
    # inf * 0 is nan: 0 where it is forbidden first, inf after.
    node = np.where(c.x >= 0, w[:m] * np.where(c.x >= 0, q.cost, 0.0), np.inf)
    memory = np.where(np.isfinite(q.memory), q.memory, 0.0)
    node += held * q.weight[:, None]
    pair = np.where(c.p >= 0, lent, np.inf)
    # The sum of sizes of all terms bounds what rounding can lose.
    size = np.abs(np.where(np.isfinite(node), node, 0.0)).sum() + lent.sum() + held @ memory
    for x, (k, side, a) in zip(messages, meant, strict=True):
        if k < 0:
            continue
        v, t = c.pairs[k]
        node[q.maker[v] if side == 0 else t, a] -= x
        # A message moves price between a pair and its ends; the total over both stays the same.
        size += 4 * abs(x)
        if side == 0:
            pair[k, a, :] += x
        else:
            pair[k, :, a] += x
    # Each group, and each pair, takes its least: this is the Lagrangian's value.
    total = node.min(axis=1).sum() + pair.min(axis=(1, 2), initial=np.inf).sum()
    terms = node.size + pair.size + m
    # Each of so many roundings loses at most a half unit in the last place of what was added.
    return float(total - held @ memory - size * terms * 2.3e-16)
