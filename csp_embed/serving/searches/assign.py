"""Which machines stand in which stage, and in which order the stages follow, when links matter.

Takes: stages with the classes of their machines.  Leaves: a placement.  Layers are all alike, so
any order of the stages is a plan; what it carries depends on the links at each hand-over. Annealing
over the order and over machines of equal type; its energy is what the hand-overs let through,
added up over all boundaries (the flow alone is 0 almost everywhere on sparse links).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from csp_embed.jit import njit
from csp_embed.serving.instance import Instance
from csp_embed.serving.searches.patterns import Class, Stage


def assign(
    instance: Instance,
    classes: Sequence[Class],
    stages: Sequence[Stage],
    rate: float,
    seed: int,
    moves: int,
    fixed_order: bool = False,
) -> tuple[dict[int, tuple[int, int]], float]:
    """(placement, share of the hand-overs that let `rate` through: 1.0 = all)."""
    width = max(s.width for s in stages)
    # -1: no machine; stages have different widths.
    slots = np.full((len(stages), width), -1, np.int64)
    caps = np.zeros((len(stages), width))
    count = np.zeros(len(stages), np.int64)
    free = [list(cl.members) for cl in classes]
    for s, stage in enumerate(stages):
        for c, n in stage.counts:
            for _ in range(n):
                # Any machine of the class to begin with: annealing swaps them.
                slots[s, count[s]] = free[c].pop(0)
                caps[s, count[s]] = classes[c].table[stage.layers - 1]
                count[s] += 1
    # Machines that no stage uses can be swapped in.
    spare = np.array([i for members in free for i in members], np.int64)
    order = np.arange(len(stages))
    links = (instance.link, instance.start, instance.end)
    share = anneal(
        *links, instance.kind, slots, caps, count, order, spare, rate, seed, moves, fixed_order
    )
    placement: dict[int, tuple[int, int]] = {}
    first = 0
    for s in order:
        end = first + stages[int(s)].layers
        for w in range(count[s]):
            placement[int(slots[s, w])] = (first, end)
        first = end
    return placement, float(share)


@njit(cache=True)
def _passes(link, slots, caps, count, a, b, rate):  # type: ignore[no-untyped-def]
    """What can go from stage a to stage b: the smaller of what senders and receivers see."""
    # Both sides are asked: senders may be fewer than what receivers want, and the other way round.
    sent = 0.0
    for x in range(count[a]):
        room = 0.0
        for y in range(count[b]):
            room += min(link[slots[a, x], slots[b, y]], caps[b, y])
        sent += min(room, caps[a, x])
    got = 0.0
    for y in range(count[b]):
        room = 0.0
        for x in range(count[a]):
            room += min(link[slots[a, x], slots[b, y]], caps[a, x])
        got += min(room, caps[b, y])
    return min(rate, sent, got)


@njit(cache=True)
def _energy(link, start, end, slots, caps, count, order, rate):  # type: ignore[no-untyped-def]
    n = order.shape[0]
    first = 0.0
    for x in range(count[order[0]]):
        first += min(start[slots[order[0], x]], caps[order[0], x])
    last = 0.0
    for x in range(count[order[n - 1]]):
        last += min(end[slots[order[n - 1], x]], caps[order[n - 1], x])
    total = min(first, rate) + min(last, rate)
    for s in range(n - 1):
        total += _passes(link, slots, caps, count, order[s], order[s + 1], rate)
    return total


@njit(cache=True)
def anneal(  # type: ignore[no-untyped-def]
    link, start, end, group, slots, caps, count, order, spare, rate, seed, moves, fixed_order
):
    """Improves slots and order in place; returns the share of hand-overs that let `rate` pass."""
    np.random.seed(seed)
    n = order.shape[0]
    # One more than stages: the coordinator's two ends count.
    goal = rate * (n + 1)
    now = _energy(link, start, end, slots, caps, count, order, rate)
    best, best_slots, best_order = now, slots.copy(), order.copy()
    # Temperatures as parts of the rate: energies are sums of rates.
    hot, cold = 0.3 * rate, 0.003 * rate
    for step in range(moves):
        if best >= goal * (1 - 1e-12):
            break
        heat = hot * (cold / hot) ** (step / moves)
        kind = np.random.randint(4)
        a, b = np.random.randint(n), np.random.randint(n)
        lo = hi = x = y = z = 0
        if kind == 0 and not fixed_order:
            order[a], order[b] = order[b], order[a]
        elif kind == 1 and not fixed_order:
            lo, hi = min(a, b), max(a, b)
            # A copy: the slice would be read while it is written.
            order[lo : hi + 1] = order[lo : hi + 1][::-1].copy()
        else:
            x = np.random.randint(count[a])
            i = slots[a, x]
            y = -1
            pool = spare.shape[0]
            # Spare machines in proportion to their number.
            if pool and np.random.random() < pool / (pool + n):
                z = np.random.randint(pool)
                # Only equal types: another table would carry another rate.
                if group[spare[z]] != group[i]:
                    continue
                slots[a, x], spare[z] = spare[z], i
            else:
                y = np.random.randint(count[b])
                j = slots[b, y]
                if a == b or group[j] != group[i]:
                    continue
                slots[a, x], slots[b, y] = j, i
        new = _energy(link, start, end, slots, caps, count, order, rate)
        if new >= now or np.random.random() < np.exp((new - now) / heat):
            now = new
            if now > best:
                best = now
                best_slots[:], best_order[:] = slots, order
        elif kind == 0 and not fixed_order:
            # Each move is its own way back: no copy of the state is kept.
            order[a], order[b] = order[b], order[a]
        elif kind == 1 and not fixed_order:
            order[lo : hi + 1] = order[lo : hi + 1][::-1].copy()
        elif y >= 0:
            slots[a, x], slots[b, y] = slots[b, y], slots[a, x]
        else:
            slots[a, x], spare[z] = spare[z], slots[a, x]
    slots[:], order[:] = best_slots, best_order
    return best / goal
