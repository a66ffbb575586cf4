"""The best pipeline of all: a dynamic program over ideals.

Takes: a `Fold`, its `Loads`, a period to beat.  Leaves: the stages of the best pipeline below it.

An ideal is a set of groups that has all that comes before its members; the stages of a pipeline
are the differences of a chain of ideals. best[used devices, ideal] is the least largest load of a
pipeline of the ideal's groups; each ideal is reached from every smaller one inside it, found by
taking groups away one at a time, with the loads of the difference kept up to date. What takes as
long as the period to beat is no stage, nor is anything larger: so few pairs of ideals remain.

Source: Tarnawski et al., Efficient Algorithms for Device Placement of DNN Graph Operators, 2020.
"""

from __future__ import annotations

import numpy as np

from csp_embed.jit import njit
from csp_embed.partition.arrays.view import Ints, csr
from csp_embed.partition.methods.period.period_loads import Loads
from csp_embed.partition.pipelines.fold import Fold
from csp_embed.partition.pipelines.intervals import Classes


class Ideals:
    """All ideals, the empty one first, smaller ones before larger ones. less, taken: the ideals
    with one group fewer, and which; CSR."""

    def __init__(self, sets: list[int], less: list[list[int]], taken: list[list[int]]) -> None:
        # Python's integers as bit masks: any number of groups.
        self.sets = sets
        self.less_ptr, self.less = csr(less)
        _, self.taken = csr(taken)

    def groups(self, large: int, small: int, order: Ints) -> list[int]:
        """Members of one ideal that are not in another."""
        left = self.sets[large] & ~self.sets[small]
        return [int(g) for g in order if left >> int(g) & 1]


def ideals(fold: Fold, most: int) -> Ideals | None:
    """None where there are more than `most`."""
    # What a group needs is its arcs' ends: an ideal with it has all of these.
    need = [0] * fold.count
    for g in range(fold.count):
        for b in fold.before[fold.before_ptr[g] : fold.before_ptr[g + 1]].tolist():
            need[g] |= 1 << b
    # The empty ideal is number 0: where every pipeline begins.
    sets, less, taken = [0], [[]], [[]]
    layer: dict[int, int] = {0: 0}
    free: dict[int, list[int]] = {0: [g for g in range(fold.count) if not need[g]]}
    while layer:
        following: dict[int, int] = {}
        wider: dict[int, list[int]] = {}
        for small, number in layer.items():
            for g in free[small]:
                large = small | 1 << g
                if large not in following:
                    # Exponentially many in wide graphs: then the caller goes without.
                    if len(sets) >= most:
                        return None
                    following[large] = len(sets)
                    sets.append(large)
                    less.append([])
                    taken.append([])
                    near = fold.after[fold.after_ptr[g] : fold.after_ptr[g + 1]].tolist()
                    # Free groups are carried along: only what g makes free is looked at.
                    wider[large] = [
                        *(x for x in free[small] if x != g),
                        *(c for c in near if not need[c] & ~large),
                    ]
                less[following[large]].append(number)
                taken[following[large]].append(g)
        layer, free = following, wider
    return Ideals(sets, less, taken)


def best_chain(
    q: Loads, kinds: Classes, all_: Ideals, beat: float, work: int
) -> tuple[list[tuple[int, int, int]] | None, bool]:
    """Stages (class, smaller ideal, larger ideal) of the best pipeline below `beat` ms, and whether
    all pairs of ideals were seen within `work` steps."""
    # Mixed radix: a state counts how many devices of each class are used.
    radix = np.concatenate([[1], np.cumprod(kinds.count + 1)]).astype(np.int64)
    cost = np.ascontiguousarray(q.cost[:, kinds.first].T)
    able = np.isfinite(cost)  # inf would not go out of a sum again
    cost[~able] = 0.0
    best, came, kind, done = _chain(
        all_.less_ptr, all_.less, all_.taken, cost, able, q.weight, q.memory[kinds.first],
        q.once[kinds.first], radix, q.maker, q.size, np.diff(q.use_ptr), q.inp_ptr, q.inp,
        q.out_ptr, q.out, beat, work,
    )  # fmt: skip
    # The last state uses every device; unused ones are stages of nothing.
    state, at = best.shape[0] - 1, best.shape[1] - 1
    if not best[state, at] < beat:
        return None, done
    stages = []
    while state:
        c, small = int(kind[state, at]), int(came[state, at])
        # A stage of nothing: that device stays unused.
        if small != at:
            stages.append((c, small, at))
        state, at = state - int(radix[c]), small
    return stages[::-1], done


@njit(cache=True)
def _turn(
    g, sign, block, inside, load, cost, once, maker, size, readers, inp_ptr, inp, out_ptr, out
):
    """Adds group g to the block (sign 1) or takes it out again (-1): loads by class follow."""
    tolls = 0.0
    if sign < 0:
        block[g] = False
    for k in range(inp_ptr[g], inp_ptr[g + 1]):
        v = inp[k]
        # Counts of readers in the block: a value that comes in is paid once for all of them.
        if sign > 0:
            inside[v] += 1
        if block[maker[v]]:
            # The last reader outside came in: the value need not leave any more.
            if inside[v] == readers[v]:
                tolls -= size[v]
        elif inside[v] == 1:
            tolls += size[v]
        if sign < 0:
            inside[v] -= 1
    for k in range(out_ptr[g], out_ptr[g + 1]):
        v = out[k]
        # Its readers were here already: what came in is now made here.
        if inside[v] > 0:
            tolls -= size[v]
        if inside[v] < readers[v]:
            tolls += size[v]
    if sign > 0:
        block[g] = True
    for c in range(len(load)):
        load[c] += sign * (cost[c, g] + (tolls if once[c] else 0.0))


@njit(cache=True, nogil=True)
def _chain(
    less_ptr, less, taken, cost, able, weight, memory, once, radix, maker, size, readers, inp_ptr,
    inp, out_ptr, out, beat, work,
):  # fmt: skip
    """best, came, kind [state, ideal]; whether all was done."""
    kinds, count = len(radix) - 1, len(less_ptr) - 1
    states = radix[kinds]
    best = np.full((states, count), np.inf)
    # Nothing placed costs nothing, whatever devices are used up.
    best[:, 0] = 0.0
    came = np.zeros((states, count), np.int64)
    kind = np.zeros((states, count), np.int64)
    for s in range(1, states):  # a pipeline of nothing uses no device: any class may be undone
        for c in range(kinds):
            if s // radix[c] % (radix[c + 1] // radix[c]) > 0:
                kind[s, 0] = c
    block, inside = np.zeros(len(weight), np.bool_), np.zeros(len(maker), np.int64)
    load, busy = np.zeros(kinds), np.zeros(kinds)  # with tolls and without
    bad = np.zeros(kinds, np.int64)  # groups of the block that cannot run there
    seen = np.full(count, -1)
    path, where = np.empty(len(weight) + 1, np.int64), np.empty(len(weight) + 1, np.int64)
    for top in range(1, count):
        depth, need = 0, 0.0
        path[0], where[0] = top, less_ptr[top]
        load[:] = 0.0
        busy[:] = 0.0
        bad[:] = 0
        for s in range(1, states):  # a device may stay unused
            for c in range(kinds):
                left = s // radix[c] % (radix[c + 1] // radix[c])
                if left > 0 and best[s - radix[c], top] < best[s, top]:
                    best[s, top] = best[s - radix[c], top]
                    came[s, top], kind[s, top] = top, c
        while depth >= 0:
            at = path[depth]
            if where[depth] == less_ptr[at + 1]:
                depth -= 1
                if depth >= 0:
                    g = taken[where[depth]]
                    where[depth] += 1
                    _turn(
                        g, -1, block, inside, load, cost, once, maker, size, readers, inp_ptr,
                        inp, out_ptr, out,
                    )  # fmt: skip
                    need -= weight[g]
                    for c in range(kinds):
                        busy[c] -= cost[c, g]
                        bad[c] -= not able[c, g]
                continue
            small, g = less[where[depth]], taken[where[depth]]
            # Seen from here already: other ways to the same ideal give the same difference.
            if seen[small] == top:
                where[depth] += 1
                continue
            # Compute only grows with the block while tolls may fall: so compute alone cuts a branch
            # off.
            fits = False
            for c in range(kinds):
                fine = bad[c] == 0 and able[c, g] and need + weight[g] <= memory[c]
                fits |= fine and busy[c] + cost[c, g] < beat
            if not fits:
                where[depth] += 1
                continue
            # Counted so that a wide graph ends within its share of time.
            work -= 1
            if work < 0:
                return best, came, kind, False
            seen[small] = top
            _turn(
                g, 1, block, inside, load, cost, once, maker, size, readers, inp_ptr, inp,
                out_ptr, out,
            )  # fmt: skip
            need += weight[g]
            for c in range(kinds):
                busy[c] += cost[c, g]
                bad[c] += not able[c, g]
                if load[c] >= beat or need > memory[c] or bad[c]:
                    continue
                for s in range(radix[c], states):
                    if s // radix[c] % (radix[c + 1] // radix[c]) == 0:
                        continue
                    value = max(best[s - radix[c], small], load[c])
                    if value < best[s, top]:
                        best[s, top] = value
                        came[s, top], kind[s, top] = small, c
            depth += 1
            # Depth first over smaller ideals: a path takes groups away one after the other.
            path[depth], where[depth] = small, less_ptr[small]
    return best, came, kind, True
