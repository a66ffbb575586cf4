"""Prices of devices under which their loads balance: a bound and a start for the period.

Takes: costs by group.  Leaves: prices w >= 0 with sum 1, the bound of `bounds.load` under them, and
each group where it is cheapest. Any prices give a bound; these are found by subgradient steps
towards a period that a placement reaches (Polyak's step length), without a linear program.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit

ROUNDS = 1000  # steps; each costs as much as looking at every cost once


# Numba leaves the interpreter's lock (nogil), so that a watching thread can end the search.
@njit(cache=True, nogil=True)
def balanced_prices(cost):
    """(prices [m], bound in ms) for cost [g, m], inf where forbidden."""
    groups, m = cost.shape
    # Equal prices to begin with: the bound is then the least work shared out evenly.
    w, best_w = np.full(m, 1.0 / m), np.full(m, 1.0 / m)
    load, slope = np.zeros(m), np.zeros(m)
    low, high, patience, share = 0.0, np.inf, 0, 1.0
    for _ in range(ROUNDS):
        load[:] = 0.0
        value = 0.0
        for g in range(groups):
            where, least = 0, np.inf
            for d in range(m):
                if cost[g, d] < np.inf and cost[g, d] * w[d] < least:
                    where, least = d, cost[g, d] * w[d]
            load[where] += cost[g, where]
            value += least
        # The largest load is what a placement reaches: Polyak's step aims at this value.
        high = min(high, load.max())
        patience += 1
        # A dual value may fall from step to step; only a higher one is kept, with its prices.
        if value > low:
            # Gains below a millionth do not count as progress, or the steps would never be halved.
            if value > low * (1 + 1e-6):
                patience = 0
            low = value
            best_w[:] = w
        # Too long without progress: steps overshoot; half as long, from the best prices.
        if patience > 5:
            patience, share = 0, share / 2
            w[:] = best_w
            if share < 1e-6:
                break
        mean = load.mean()
        length = 0.0
        for d in range(m):
            slope[d] = load[d] - mean
            length += slope[d] * slope[d]
        if length == 0.0 or high <= value:
            break
        for d in range(m):
            # Prices below 0 would prove nothing.
            w[d] = max(0.0, w[d] + share * (high - value) / length * slope[d])
        w /= w.sum()
    return best_w, low
