"""The compiled loops of `outline`: tiles and chunks followed one by one, in whole numbers.

One file: Numba's disk cache looks at the time stamp of one file only.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.jit import njit

Ints = NDArray[np.int64]
BATCH = 96  # micro-ops that one load brings
STORE = 9  # place of a stored result among the costs
LONG = 1_000_000  # steps or boxes of a schedule that is not followed


@njit(cache=True, error_model="numpy")
def _parts(extent: int, tile: int, up: int, down: int) -> Ints:
    """Bounds as `config.ranges` has them: part n is [out[n], out[n + 1])."""
    first = np.empty(64, np.int64)
    nf = up
    total = 0
    for i in range(up):
        first[i] = max(1, tile >> (up - i))
        total += first[i]
    last = np.empty(64, np.int64)
    nl, skip = down, 0
    after = 0
    for i in range(down):
        last[i] = max(1, tile >> (i + 1))
        after += last[i]
    # Ramps that do not fit beside one whole part are dropped, the largest first, as `config.ranges`
    # does.
    while nf > 0 and total + after + tile > extent:
        nf -= 1
        total -= first[nf]
    while skip < nl and total + after + tile > extent:
        after -= last[skip]
        skip += 1
    middle = extent - total - after
    n = nf + middle // tile + (1 if middle % tile else 0) + nl - skip
    out = np.zeros(n + 1, np.int64)
    at = 0
    for i in range(nf):
        out[at + 1] = out[at] + first[i]
        at += 1
    for _ in range(middle // tile):
        out[at + 1] = out[at] + tile
        at += 1
    if middle % tile:
        out[at + 1] = out[at] + middle % tile
        at += 1
    for i in range(skip, nl):
        out[at + 1] = out[at] + last[i]
        at += 1
    return out


@njit(cache=True, error_model="numpy")
def _slots(keys: Ints, boxes: int, slots: int) -> Any:
    """(slot, whether it must be loaded) per step: as `slots.allocate`."""
    n = len(keys)
    later = np.empty(n, np.int64)
    seen = np.full(boxes, n, np.int64)
    for i in range(n - 1, -1, -1):
        later[i] = seen[keys[i]]
        seen[keys[i]] = i
    # As there, on arrays: the outline is asked thousands of times, and this is its inner loop.
    where = np.full(boxes, -1, np.int64)
    holds = np.full(slots, -1, np.int64)
    due = np.full(slots, n, np.int64)
    used = np.full(slots, -1, np.int64)
    out = np.empty((n, 2), np.int64)
    last = -1
    for i in range(n):
        # Farthest next use leaves; of equals the one that was read longest ago.
        k = keys[i]
        fresh = where[k] < 0
        if fresh:
            s = -1
            for c in range(slots):
                if c == last and slots > 1:
                    continue
                if s < 0 or due[c] > due[s] or (due[c] == due[s] and used[c] < used[s]):
                    s = c
            if holds[s] >= 0:
                where[holds[s]] = -1
            holds[s] = k
            where[k] = s
        s = where[k]
        due[s], used[s], last = later[i], i, s
        out[i, 0], out[i, 1] = s, fresh
    return out


@njit(cache=True, error_model="numpy")
def _ring(keys: Ints, boxes: int, fit: int, most: int) -> int:
    """Slots of an operand: as `ring.Ring`."""
    seen = np.zeros(boxes, np.int64)
    distinct, before, again = 0, -1, False
    for k in keys:
        if k != before and seen[k]:
            again = True
        distinct += 1 - seen[k]
        seen[k] = 1
        before = k
    useful = max(1, min(fit, int(distinct)))
    if distinct > fit and not again:
        useful = min(useful, 3 if fit >= 3 and fit % 2 else 2)
    return max(1, min(useful, most))


@njit(cache=True, error_model="numpy")
def _box(step: Ints, place: Ints, lo: Ints, hi: Ints) -> Any:
    """Elements of a box, clipped to the grid; the share of its points that lie inside; and
    instructions of a nest for its sake: where the grid cuts off what one counter reaches by
    another, its first and last values are nests apart."""
    total = nests = 1
    share = 1.0
    for d in range(step.shape[1]):
        a = b = place[0, d]
        one = two = -1  # The movers, the longest first.
        for c in range(step.shape[0]):
            s = step[c, d]
            a += s * lo[c] if s > 0 else s * (hi[c] - 1)
            b += s * (hi[c] - 1) if s > 0 else s * lo[c]
            # Extents of 1 do not move a box's end and need no nest of their own.
            if s != 0 and hi[c] - lo[c] > 1:
                if one < 0 or hi[c] - lo[c] > hi[one] - lo[one]:
                    one, two = c, one
                else:
                    two = c
        size = place[1, d]
        total *= max(0, min(b + 1, size) - max(a, 0))
        if total == 0:
            return 0, 0.0, 1
        # Wholly inside: no point is lost, and one nest does all.
        if (a >= 0 and b < size) or one < 0:
            continue
        u, v = step[one, d], 0 if two < 0 else step[two, d]
        first = a if u > 0 else a - u * (hi[one] - lo[one] - 1)
        first -= 0 if v >= 0 else v * (hi[two] - lo[two] - 1)
        rows = 1 if two < 0 else hi[two] - lo[two]
        # Two counters at most are looked at; a third that moves the same dimension is rare.
        inside = 0
        for m in range(rows):
            for n in range(hi[one] - lo[one]):
                inside += 0 <= first + v * m + u * n < size
        share *= inside / (rows * (hi[one] - lo[one]))
        if two >= 0:
            cut = -(-max(0, -a) // abs(u)) - (-max(0, b + 1 - size) // abs(u))
            nests *= min(hi[one] - lo[one], 1 + cut)
    return total, share, nests


@njit(cache=True, error_model="numpy")
def follow(
    extents: Ints, reduced: Any, tile: Ints, order: Ints, inner: Ints, cut: Ints, what: Ints,
    step: Ints, place: Ints, room: Ints, costs: Any,
) -> float:  # fmt: skip
    """what: up, down, snake, slots, tail, uops, rectangles of either operand."""
    counters = len(extents)
    up, down, snake, most, tail, longest = what[0], what[1], what[2], what[3], what[4], what[5]
    gap, fetch, start, product, reset, each, n_epilogue, store, setup = costs[2:]
    # The bounds of every counter's parts, one counter behind the other.
    begin = np.zeros(counters + 1, np.int64)
    bounds = np.empty(0, np.int64)
    # Only the outermost counter that is cut gets ramps: first and last loads wait for it alone.
    tapered = -1
    for c in list(order) + list(inner):
        if tapered < 0 and 1 < tile[c] < extents[c]:
            tapered = c
    for c in range(counters):
        mine = _parts(extents[c], tile[c], up, down) if c == tapered else _parts(
            extents[c], tile[c], 0, 0)  # fmt: skip
        bounds = np.concatenate((bounds, mine))
        begin[c + 1] = len(bounds)
    count = begin[1:] - begin[:-1] - 1
    tiles = chunks = 1
    for c in order:
        tiles *= count[c]
    for c in inner:
        chunks *= count[c]
    boxes = np.ones(2, np.int64)
    # Mixed-radix numbers of boxes, over the counters that move the operand.
    weight = np.zeros((2, counters), np.int64)
    for k in range(2):
        for c in range(counters):
            if step[k, c].any():
                weight[k, c] = boxes[k]
                boxes[k] *= count[c]
    steps = tiles * chunks
    # Following it would take long itself.
    if steps > LONG or boxes.max() > LONG:
        return np.inf
    # Which box of either operand each step reads.
    keys = np.empty((2, steps), np.int64)
    part = np.zeros((steps, counters), np.int64)
    lo, hi = np.empty(counters, np.int64), np.empty(counters, np.int64)
    size0, size1 = np.full(boxes[0], -1, np.int64), np.full(boxes[1], -1, np.int64)
    nests0, nests1 = np.ones(boxes[0], np.int64), np.ones(boxes[1], np.int64)
    share0, share1 = np.ones(boxes[0]), np.ones(boxes[1])
    n = 0
    for t in range(tiles):
        for k in range(chunks):
            at = t
            for j in range(len(order) - 1, -1, -1):
                part[n, order[j]] = at % count[order[j]]
                at //= count[order[j]]
            at = chunks - 1 - k if snake and t % 2 else k
            for j in range(len(inner) - 1, -1, -1):
                part[n, inner[j]] = at % count[inner[j]]
                at //= count[inner[j]]
            a, b = (part[n] * weight[0]).sum(), (part[n] * weight[1]).sum()
            # A box is measured where it is first met; most steps meet known ones.
            if size0[a] < 0 or size1[b] < 0:
                for c in range(counters):
                    lo[c] = bounds[begin[c] + part[n, c]]
                    hi[c] = bounds[begin[c] + part[n, c] + 1]
                size0[a], share0[a], nests0[a] = _box(step[0], place[0], lo, hi)
                size1[b], share1[b], nests1[b] = _box(step[1], place[1], lo, hi)
            keys[0, n], keys[1, n] = a, b
            n += 1
    # Shares of the memories, as `plan` gives them.
    l0, l1 = size0.max(), size1.max()
    room0, room1 = room[0], room[1]
    if room[3]:
        room0 = l0 + (room[0] - l0 - l1) * l0 // max(1, l0 + l1)
        room1 = room[0] - room0
    results = 1
    for c in order:
        results *= tile[c]
    # What does not fit, or has no element at all, is no schedule.
    if l0 > room0 or l1 > room1 or results > room[2] or l0 == 0 or l1 == 0:
        return np.inf
    plan0 = _slots(keys[0], boxes[0], _ring(keys[0], boxes[0], room0 // l0, most))
    plan1 = _slots(keys[1], boxes[1], _ring(keys[1], boxes[1], room1 // l1, most))
    held = 2 if tiles > 1 and 2 * results <= room[2] else 1
    stored = np.zeros(held)
    # 128 slots are more than any ring has: `slots` of a Config is smaller.
    read0, read1, got0, got1 = np.zeros(128), np.zeros(128), np.zeros(128), np.zeros(128)
    known = np.zeros(8192, np.int64)
    # About what passes between the launch and the first instruction.
    issue = load = compute = write = 40.0
    batch = 0
    n = 0
    for t in range(tiles):
        slot = t % held
        vectors = 1
        for c in order:
            vectors *= bounds[begin[c] + part[n, c] + 1] - bounds[begin[c] + part[n, c]]
        issue += fetch
        compute = max(compute, stored[slot], issue) + start + vectors * reset
        for _ in range(chunks):
            a, b = keys[0, n], keys[1, n]
            if size0[a] == 0 or size1[b] == 0:
                n += 1
                continue
            s0, s1 = plan0[n, 0], plan1[n, 0]
            if plan0[n, 1]:
                issue += fetch
                load = max(load, read0[s0], issue) + gap * what[6] + size0[a] * costs[0]
                got0[s0] = load
            if plan1[n, 1]:
                issue += fetch
                load = max(load, read1[s1], issue) + gap * what[7] + size1[b] * costs[1]
                got1[s1] = load
            # Micro-ops of a nest that was not met before: all but its two longest loops.
            points, one, two, name = 1, 1, 1, (s0 * 64 + s1) * 2 + slot
            for c in range(counters):
                m = bounds[begin[c] + part[n, c] + 1] - bounds[begin[c] + part[n, c]]
                points *= m
                name = (name * 1000003 + m) % 2305843009213693951
                if m > one:
                    one, two = m, one
                elif m > two:
                    two = m
            nests = nests0[a] * nests1[b]
            words = max(1, points // (one * two)) * nests
            name = name * 31 + size0[a] * 7 + size1[b] + 1
            h = name % 8192
            while known[h] != 0 and known[h] != name:
                h = (h + 1) % 8192
            issue += fetch
            if known[h] == 0:
                known[h] = name
                if batch == 0 or batch + words > BATCH:
                    batch = 0
                    compute = max(compute, issue) + gap
                batch += words
                # A micro-op costs half a cycle to load (a word of four bytes on a port of eight).
                compute += words * 0.5
            compute = max(compute, got0[s0], got1[s1], issue)
            compute += start * (nests + (words - 1) // longest)
            compute += points * product * share0[a] * share1[b]
            read0[s0] = read1[s1] = compute
            n += 1
        # The epilogue in pieces.
        length = 1
        for c in cut:
            m = bounds[begin[c] + part[n - 1, c] + 1] - bounds[begin[c] + part[n - 1, c]]
            if m > 1:
                length = m
                break
        # The last tile is cut finest, the one before it less: only their stores have nothing to
        # hide behind.
        want = tail if t == tiles - 1 else max(2 * tail, 256) if t == tiles - 2 else 1024
        rows = length if vectors <= want else max(1, round(float(want / (vectors / length))))
        done = 0
        while done < length:
            m = min(rows, length - done)
            some = vectors * m / length
            issue += fetch * n_epilogue
            compute = max(compute, issue) + start * (n_epilogue - 1) + some * each
            write = max(write, compute) + start + setup + some * store
            done += m
        stored[slot] = write
    return write
