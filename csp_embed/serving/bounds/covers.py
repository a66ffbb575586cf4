"""The cheapest set of machines that can carry a layer: a small covering search.

Given prices, a machine of class c that holds k layers costs price_c/k in each of them. The search
finds the cheapest multiset of (class, k) whose rates add up to more than U, by depth-first
enumeration in the order of cost per rate. Two refinements come from rows of the relaxation
(bound.py): a class may also pay `slope` per fraction of the flow that it carries, and sets of two
or more machines get a discount.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit
from csp_embed.serving.instance import Floats, Ints


@njit(cache=True)
def cheapest(  # type: ignore[no-untyped-def]
    rate, cls, fixed, slope, room, above, discount, cutoff, limit
):
    """(cost, depth, items, nodes, finished) of the cheapest set with more than `above` tokens/s.

    rate, cls, fixed, slope: by item, sorted by `density`; room: machines of each class; cutoff:
    sets that cost as much are of no interest; limit: nodes after which the search gives up
    (finished = False: then the cost proves nothing).
    """
    n = rate.shape[0]
    # Arrays of a fixed depth: larger sets are not looked at, and then the search is not finished.
    deepest = 512
    chosen, best_set = np.zeros(deepest, np.int64), np.zeros(deepest, np.int64)
    at = np.zeros(deepest + 1, np.int64)
    used = np.zeros(room.shape[0], np.int64)
    cost, got, paid = np.zeros(deepest + 1), np.zeros(deepest + 1), np.zeros(deepest + 1)
    # What a whole flow would cost by this item alone; a lower bound for all behind it.
    density = fixed * above / rate + slope
    least_density, least_fixed = density.min(), fixed.min()
    best, best_depth, depth, nodes = cutoff, 0, 0, 0
    finished = True
    while depth >= 0:
        nodes += 1
        if nodes > limit:
            return best, best_depth, best_set, nodes, False
        i = at[depth]
        # What the set costs at least: its machines, its flow, and the rest at the next density.
        stop = i >= n
        if not stop:
            # Rates count as parts of the flow, so what is missing is 1 - got.
            rest = 1.0 - got[depth]
            stop = cost[depth] + paid[depth] + rest * density[i] - discount >= best
        if stop or depth + 1 >= deepest:
            # A set that was cut off for its size might have been cheaper: nothing is proved then.
            finished = finished and stop
            # Back to the choice before, whose machine is free again.
            depth -= 1
            if depth >= 0:
                used[cls[chosen[depth]]] -= 1
                at[depth] += 1
            continue
        c = cls[i]
        if used[c] >= room[c]:
            at[depth] += 1
            continue
        chosen[depth] = i
        total = cost[depth] + fixed[i]
        whole = got[depth] + rate[i] / above
        if whole > 1.0:
            # A set may carry more than one flow: the least that one flow pays.
            price = total + _flow_cost(chosen, depth + 1, rate, slope, above)
            if depth > 0:
                price -= discount
            else:  # one machine is enough; a second one beside it would earn the discount
                price = min(price, price + least_fixed - discount)
            if price < best:
                best, best_depth = price, depth + 1
                best_set[: depth + 1] = chosen[: depth + 1]
            at[depth] += 1
            continue
        used[c] += 1
        cost[depth + 1], got[depth + 1] = total, whole
        # Flow through what is chosen may yet go another way: counted at no more than the cheapest.
        paid[depth + 1] = paid[depth] + rate[i] / above * min(slope[i], least_density)
        # Not i + 1: the same item may be chosen again, as long as its class has machines.
        at[depth + 1] = i
        depth += 1
    return best, best_depth, best_set, nodes, finished


@njit(cache=True)
def _flow_cost(chosen, depth, rate, slope, above):  # type: ignore[no-untyped-def]
    """The least that one whole flow pays through these machines: cheapest slopes first."""
    # Without a row on flow all slopes are 0, and sorting would be wasted.
    flat = True
    for d in range(depth):
        if slope[chosen[d]] != 0.0:
            flat = False
    if flat:
        return 0.0
    values = np.empty(depth)
    for d in range(depth):
        values[d] = slope[chosen[d]]
    left, total = 1.0, 0.0
    for d in np.argsort(values):
        share = min(left, rate[chosen[d]] / above)
        total += share * values[d]
        left -= share
    return total


def items_of(
    tables: list[tuple[float, ...]], room: Ints, every: bool = False
) -> tuple[Floats, Ints, Ints]:
    """(rate, class, layers) of the ways to use a machine of each class.

    Holding more layers at no less rate is never worse, since the cost per layer falls; such worse
    ways are left out. every: keep them, because what the flow pays may fall with fewer layers.
    """
    rate, cls, layers = [], [], []
    for c, table in enumerate(tables):
        best = 0.0
        # From many layers to few: a way is kept only if it carries more than all longer ones.
        for k in range(len(table), 0, -1):
            value = table[k - 1]
            if room[c] and value > 0 and (every or value > best):
                best = max(best, value)
                rate.append(value)
                cls.append(c)
                layers.append(k)
    return np.array(rate), np.array(cls, np.int64), np.array(layers, np.int64)
