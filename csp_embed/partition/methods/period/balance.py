"""Annealing on placements for the smallest period, compiled. Serves both cost models.

Takes: `Loads` arrays and a start.  Leaves: the best device of each task seen.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Floats, Ints
from csp_embed.partition.methods.local.annealer import accepts, draw, generator, temperature
from csp_embed.partition.methods.local.cooling import UNNOTED
from csp_embed.partition.methods.period.period_loads import (
    Loads,
    begin,
    energy,
    largest,
    settle,
    shift,
)

CLUSTER = 60  # groups that one proposal moves together, at most
PARTNERS = 6  # looks for a cheap move the other way
REFRESH = 20_000  # proposals between two sums from scratch: rounding errors


class Prices(NamedTuple):
    """Prices that guide annealing. pull [m]: added to the energy per ms of a device's load. moves
    [k, 2]: (group, device), the ones that lose least at these prices first."""

    pull: Floats
    moves: Ints


def unpriced(q: Loads) -> Prices:
    """No guidance."""
    return Prices(np.zeros(len(q.memory)), np.zeros((0, 2), np.int64))


def balance(
    q: Loads, dev: Ints, steps: int, hot: float, cold: float, seed: int, *,
    longest: int = CLUSTER, target: float = 0.0, prices: Prices | None = None,
    borders: bool = False, rises: Floats | None = None,
) -> float:  # fmt: skip
    """Improves dev [n] in place over `steps` proposals, or until the period is at most `target`;
    the smallest period seen. hot, cold: temperatures in ms. longest: groups of one proposal.
    borders: also moves all of a device that comes before a group, or behind it. rises: see
    `annealer.note`."""
    place = np.zeros(len(q.weight), np.int64)
    # Annealing moves groups; devices of tasks are read back at the end.
    place[q.group] = dev
    guide = unpriced(q) if prices is None else prices
    found = _anneal(
        q,
        place,
        steps,
        hot,
        cold,
        seed,
        longest,
        target,
        guide.pull,
        guide.moves,
        borders,
        UNNOTED if rises is None else rises,
    )
    dev[:] = place[q.group]
    return float(found)


@njit(cache=True)
def priced_energy(load, pull):
    """`energy`, and the loads of devices at their prices."""
    value = energy(load)
    for d in range(len(pull)):
        value += pull[d] * load[d]
    return value


@njit(cache=True, nogil=True)
def _anneal(q, dev, steps, hot, cold, seed, longest, target, pull, moves, borders, rises):
    """`balance` on dev [groups]. Proposals: a group to another device, or to a neighbour's; a swap
    of two groups; a connected cluster of groups to a neighbour's device; with `borders` a group
    with all that comes before it (or behind) on its device. With prices, single groups and swaps
    are drawn from the cheap end of `moves`."""
    cost, weight, maker, size = q.cost, q.weight, q.maker, q.size
    row = q.row
    use_ptr, use, inp_ptr, inp, out_ptr, out = q.use_ptr, q.use, q.inp_ptr, q.inp, q.out_ptr, q.out
    hop_ptr, hop_line, hop_lat, hop_inv = q.hop_ptr, q.hop_line, q.hop_lat, q.hop_inv
    once, lines = q.once, q.lines
    groups, m = cost.shape
    state, priced = generator(seed), len(moves)
    readers = np.zeros((len(maker), m), np.int64)
    load, kept = np.zeros(lines), np.zeros(lines)
    free = q.memory.copy()
    for g in range(groups):
        free[dev[g]] -= weight[g]
    begin(
        dev, readers, load, cost, maker, row, size, use_ptr, use, hop_ptr, hop_line, hop_lat,
        hop_inv,
        once,
    )  # fmt: skip
    now = priced_energy(load, pull)
    best, best_dev = (largest(load) if free.min() >= 0 else np.inf), dev.copy()
    cluster = np.empty(max(longest, groups), np.int64)
    inside = np.zeros(groups, np.bool_)
    kinds = 6 if borders else 4
    for step in range(steps):
        if best <= target:
            break
        # Loads are sums of differences, which drift.
        if step % REFRESH == REFRESH - 1:
            begin(
                dev, readers, load, cost, maker, row, size, use_ptr, use, hop_ptr, hop_line,
                hop_lat,
                hop_inv, once,
            )  # fmt: skip
            now = priced_energy(load, pull)
        g, kind = draw(state, groups), draw(state, kinds)
        here, new, back = dev[g], -1, -1
        count = 1
        # With prices, moves that lose little are drawn more often than by chance.
        if kind < 2 and priced > 0:
            k = cheap(state, priced)
            g, new = moves[k, 0], moves[k, 1]
            here = dev[g]
            for _ in range(PARTNERS if kind == 1 else 0):
                k = cheap(state, priced)
                if dev[moves[k, 0]] == new and moves[k, 1] == here:
                    back = moves[k, 0]
                    break
            # No partner was found: a swap without one would be a move.
            if kind == 1 and back < 0:
                continue
        elif kind == 0:
            new = draw(state, m)
        elif kind == 1:
            back = draw(state, groups)
            new = dev[back]
        cluster[0] = g
        if kind > 3:
            count, new = behind(
                state, dev, cluster, inside, kind == 4, maker, use_ptr, use, inp_ptr, inp, out_ptr,
                out,
            )  # fmt: skip
        elif kind > 1:
            aim = 1 if kind == 2 else 2 + draw(state, longest - 1)
            count, new = grow(
                state, dev, cluster, inside, aim, maker, use_ptr, use, inp_ptr, inp, out_ptr, out
            )
        if new < 0 or new == here:
            continue
        need, fine = 0.0, back < 0 or cost[back, here] < np.inf
        for i in range(count):
            need += weight[cluster[i]]
            fine &= cost[cluster[i], new] < np.inf
        if back >= 0:
            # The partner takes the room that the first leaves.
            fine &= free[here] + need >= weight[back]
            need -= weight[back]
        if not fine or free[new] < need:
            continue
        for k in range(lines):
            kept[k] = load[k]
        for i in range(count):
            shift(
                cluster[i], new, dev, readers, load, cost, maker, row, size, inp_ptr, inp,
                out_ptr, out,
                hop_ptr, hop_line, hop_lat, hop_inv, once,
            )  # fmt: skip
            if count > 1 or back >= 0:
                settle(cluster[i], new, dev, readers, inp_ptr, inp)
        if back >= 0:
            shift(
                back, here, dev, readers, load, cost, maker, row, size, inp_ptr, inp, out_ptr, out,
                hop_ptr, hop_line, hop_lat, hop_inv, once,
            )  # fmt: skip
            settle(back, here, dev, readers, inp_ptr, inp)
        then = priced_energy(load, pull)
        heat = temperature(hot, cold, step, steps)
        if accepts(state, now, then, heat, rises):
            if count == 1 and back < 0:
                settle(g, new, dev, readers, inp_ptr, inp)
            now = then
            free[here] += need
            free[new] -= need
            # The energy guides; the period is what is wanted, and only where memory allows.
            if largest(load) < best * (1 - 1e-12) and free.min() >= 0:
                best = largest(load)
                best_dev[:] = dev
            continue
        if back >= 0:
            settle(back, new, dev, readers, inp_ptr, inp)
        if count > 1 or back >= 0:
            for i in range(count):
                settle(cluster[i], here, dev, readers, inp_ptr, inp)
        for k in range(lines):
            load[k] = kept[k]
    dev[:] = best_dev
    return best


@njit(cache=True)
def cheap(state, count):
    """A number below `count`, small ones more often."""
    # The product of two uniform draws leans to 0.
    return draw(state, count) * (draw(state, count) + 1) // count


@njit(cache=True)
def grow(state, dev, cluster, inside, aim, maker, use_ptr, use, inp_ptr, inp, out_ptr, out):
    """Adds to cluster[0] groups around it on its device by a random walk, up to `aim`; returns how
    many, and the device of the last neighbour met elsewhere (-1: none)."""
    here = dev[cluster[0]]
    inside[cluster[0]] = True
    count, other = 1, -1
    for _ in range(4 * aim):
        c = cluster[draw(state, count)]
        ins, outs = inp_ptr[c + 1] - inp_ptr[c], out_ptr[c + 1] - out_ptr[c]
        if ins + outs == 0:
            continue
        k = draw(state, ins + outs)
        if k < ins:
            u = maker[inp[inp_ptr[c] + k]]
        else:
            v = out[out_ptr[c] + k - ins]
            u = use[use_ptr[v] + draw(state, use_ptr[v + 1] - use_ptr[v])]
        if dev[u] != here:
            other = dev[u]
            if count >= aim:
                break
        elif count < aim and not inside[u]:
            inside[u] = True
            cluster[count] = u
            count += 1
    for k in range(count):
        inside[cluster[k]] = False
    return count, other


@njit(cache=True)
def behind(
    state, dev, cluster, inside, forward, maker, use_ptr, use, inp_ptr, inp, out_ptr, out
):  # fmt: skip
    """Adds to cluster[0] all that comes behind it (else before it) on its device; returns how many,
    and the device of something behind (before) them, -1 where there is none."""
    here = dev[cluster[0]]
    inside[cluster[0]] = True
    count, done, other, met = 1, 0, -1, 0
    while done < count:
        g = cluster[done]
        done += 1
        ptr, near = (out_ptr, out) if forward else (inp_ptr, inp)
        for k in range(ptr[g], ptr[g + 1]):
            v = near[k]
            first, last = (use_ptr[v], use_ptr[v + 1]) if forward else (0, 1)
            for i in range(first, last):
                u = use[i] if forward else maker[v]
                if dev[u] != here:
                    met += 1
                    # Reservoir sampling: each neighbour met is kept with the same chance, without a
                    # list of them.
                    if draw(state, met) == 0:
                        other = dev[u]
                elif not inside[u]:
                    inside[u] = True
                    cluster[count] = u
                    count += 1
    for i in range(count):
        inside[cluster[i]] = False
    return count, other
