"""What all annealers share, compiled: random numbers, cooling, acceptance, moves on an order.

Takes: states of other modules' loops.  Leaves: decisions.

Temperatures come from `cooling`, from what worsening moves cost on the instance. The loops stay in
`anneal` (orders and devices), `window_anneal` (a stretch of an order), `balance` (loads), `blocks`
and `reinsert` (a heat bath, which rejects nothing): they differ in what a proposal changes and in
what has to be taken back, and that is nearly all that they are. One loop with the moves as
parameters would be compiled anew in every process, because Numba does not keep code that is
specialised for a function. One loop over a tuple type, with moves found by that type and inlined,
gives the same plans but counts references to the tuple's arrays at every proposal: `balance` was
2.3 times slower so.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit


@njit(cache=True)
def draw(state, bound):
    """The next number below `bound` of a xorshift generator; state is one uint64."""
    x = state[0]
    x ^= x << np.uint64(13)
    x ^= x >> np.uint64(7)
    x ^= x << np.uint64(17)
    state[0] = x
    return np.int64((x >> np.uint64(11)) % np.uint64(bound))


@njit(cache=True)
def generator(seed):
    """State of `draw` for a seed, past its first numbers, in which small seeds look alike."""
    state = np.array([np.uint64(seed * 2654435761 + 88172645463325252)], np.uint64)
    for _ in range(8):
        draw(state, 2)
    return state


@njit(cache=True)
def temperature(hot, cold, step, steps):
    """Falls from hot to cold by an equal factor at each step."""
    return hot * (cold / hot) ** (step / steps)


@njit(cache=True)
def accepts(state, now, then, heat, rises):
    """Metropolis' rule: never refuses what is no worse. rises: see `note`."""
    if then <= now:
        return True
    note(rises, then - now)
    return draw(state, 1 << 30) < np.exp((now - then) / heat) * (1 << 30)


@njit(cache=True)
def note(rises, rise):
    """Keeps by how much a proposal is worse while there is room: rises[0] counts those behind it
    (`cooling.Rises`). An array of length 1 keeps none."""
    k = np.int64(rises[0]) + 1
    if k < len(rises) and rise < np.inf:
        rises[k] = rise
        rises[0] = k


@njit(cache=True)
def neighbour(a, state, t):
    """A random producer or consumer of task t; -1 where it has none."""
    ins, outs = a.inp_ptr[t + 1] - a.inp_ptr[t], a.out_ptr[t + 1] - a.out_ptr[t]
    if ins + outs == 0:
        return -1
    k = draw(state, ins + outs)
    if k < ins:
        return a.value_src[a.inp[a.inp_ptr[t] + k]]
    v = a.out[a.out_ptr[t] + k - ins]
    return a.use[a.use_ptr[v] + draw(state, a.use_ptr[v + 1] - a.use_ptr[v])]


@njit(cache=True)
def gather(a, state, dev, t, cluster, inside, limit):
    """Fills `cluster` with t and neighbours of neighbours on its device; returns how many."""
    cluster[0] = t
    size, aim = 1, 1
    if limit > 1:
        aim = 2 + draw(state, limit - 1)
    inside[t] = True
    for _ in range(3 * aim):
        if size >= aim:
            break
        u = cluster[draw(state, size)]
        other = neighbour(a, state, u)
        if other < 0:
            break
        if not inside[other] and dev[other] == dev[t]:
            inside[other] = True
            cluster[size] = other
            size += 1
    for i in range(size):
        inside[cluster[i]] = False
    return size


@njit(cache=True)
def move(order, at, p, q):
    """Moves the task at position p to position q; `at` follows."""
    t = order[p]
    step = 1 if q > p else -1
    k = p
    while k != q:
        order[k] = order[k + step]
        at[order[k]] = k
        k += step
    order[q] = t
    at[t] = q
