"""Which tiles to try: every plausible tile is priced by a closed formula, the best are built and
simulated.

Takes: a Problem.  Leaves: Configs, cheapest first, under an estimate in cycles:
    max(compute, reads, writes) + the first loads + the last store.
Any tile is allowed, not only divisors; the last one is then shorter.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import Infeasible
from csp_embed.machine.costs import Costs
from csp_embed.machine.reach import stored_memory
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Map, Problem

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

TILES = 300_000  # whose costs are estimated, all at once


@dataclass(frozen=True)
class Reserve:
    """Elements that constants and epilogue tensors take, per memory."""

    elems: dict[str, int]


def sizes(extent: int, most: int, coupled: bool) -> list[int]:
    """Tile extents worth trying for one counter."""
    if extent == 1:
        return [1]
    # Short coupled counters (filter rows) are whole or single: parts of a window load its input
    # again.
    if coupled and extent <= 16:
        return sorted({1, min(extent, most)})
    out = {min(extent, most), 1}
    # Part counts rather than extents: equal parts leave no short last tile.
    for parts in (2, 3, 4, 5, 6, 7, 8, 10, 12, 14, 16, 20, 24, 28, 32, 48, 64):
        out.add(-(-extent // parts))
    power = 2
    while power < extent:
        out.add(power)
        power *= 2
    small = [v for v in (3, 5, 6, 7, 10, 12) if v < extent]
    out.update(small)
    return sorted(v for v in out if v <= most)


def frame_elems(m: Map, tile: dict[int, Ints]) -> Ints:
    """Elements of a tile's box, clipped to the grid; vectorised over tiles."""
    total = np.ones_like(next(iter(tile.values())))
    for d, size in enumerate(m.grid):
        length = np.ones_like(total)
        for c, t in tile.items():
            # A window of several counters is as long as the sum of their reaches.
            s = abs(int(m.step[c, d]))
            if s:
                length = length + s * (t - 1)
        total = total * np.minimum(length, max(1, size))
    return total


class _Fitting(NamedTuple):
    """Tiles that fit, one array entry each. tile: extents by counter; acc, lhs, rhs: elements of
    results and operands; slots_l, slots_r: boxes of either operand that its memory holds."""

    tile: dict[int, Ints]
    acc: Ints
    lhs: Ints
    rhs: Ints
    slots_l: Ints
    slots_r: Ints
    acc_room: int


def propose(
    problem: Problem,
    reserve: Reserve,
    costs: Costs,
    *,
    count: int,
    trimmed_steps: int,
    epilogue_cycles: float,
) -> list[tuple[float, Config]]:
    """The `count` cheapest configurations with their estimates.

    Raises: Infeasible where not even one vector at a time fits.
    """
    fit = _fitting(problem, reserve)
    ranked: list[tuple[float, int, tuple[int, ...]]] = []
    # Either side may be the outer one; that decides which operand is walked again and again.
    for a_outer in (True, False):
        cost, order = _priced(problem, fit, costs, trimmed_steps, epilogue_cycles, a_outer)
        # The cheapest, earlier ones first where equal; sorting all takes longer than pricing them.
        # Four times as many as asked for: many differ only in the order of counters that are whole.
        most = min(4 * count, len(cost)) - 1
        near = np.flatnonzero(cost <= np.partition(cost, most)[most])
        best = near[np.argsort(cost[near], kind="stable")[: 4 * count]]
        ranked += [(float(cost[i]), int(i), tuple(order)) for i in best]
    ranked.sort(key=lambda x: (x[0], x[1], x[2]))
    out = []
    seen = set()
    for price, i, order in ranked:
        t = tuple(int(fit.tile[c][i]) for c in range(len(problem.extents)))
        # Counters that are whole have no place in the order: such configurations are one.
        effective = (t, tuple(c for c in order if t[c] < problem.extents[c]))
        if effective in seen:
            continue
        seen.add(effective)
        out.append((price, configure(problem, t, order)))
        if len(out) >= count:
            break
    return out


def _fitting(problem: Problem, reserve: Reserve) -> _Fitting:
    """All tiles of the extents that are worth trying which fit the memories.

    Raises: Infeasible where there is none.
    """
    rhs = problem.rhs
    assert rhs is not None
    room = {k: v - reserve.elems.get(k, 0) for k, v in problem.depth.items()}
    # Beside the sums of a tile stands their copy.
    acc_room = room[problem.dst.memory] // (2 if problem.copies else 1)
    coupled = _coupled(problem)
    lists = []
    for c, extent in enumerate(problem.extents):
        # An output tile cannot exceed the accumulators, a chunk not the operand's memory.
        most = acc_room if not problem.reduced[c] else max(room[problem.lhs.memory], 1)
        lists.append(sizes(extent, most, coupled[c] and problem.reduced[c]))
    lists = thinned(lists, TILES)
    mesh = np.meshgrid(*[np.array(v, dtype=np.int64) for v in lists], indexing="ij")
    tile = {c: m.ravel() for c, m in enumerate(mesh)}
    if not tile:
        tile = {0: np.array([1], dtype=np.int64)}
    # A tile's results; reduced counters make no more of them.
    acc = np.ones_like(next(iter(tile.values())))
    for c in problem.outputs:
        acc = acc * tile[c]
    fl, fr = frame_elems(problem.lhs, tile), frame_elems(rhs, tile)
    same = problem.lhs.memory == rhs.memory
    keep = (acc <= acc_room) & (fl <= room[problem.lhs.memory]) & (fr <= room[rhs.memory])
    if same:
        keep &= fl + fr <= room[problem.lhs.memory]
    if not keep.any():
        raise Infeasible(
            f"{problem.embedding.operator.name}: no tile fits the memories of {problem.isa.name}",
            why="; ".join(f"{k} {v}" for k, v in room.items()),
            hint="use a configuration with larger buffers or another embedding",
        )
    tile = {c: t[keep] for c, t in tile.items()}
    acc, fl, fr = acc[keep], fl[keep], fr[keep]
    room_l, room_r = np.full_like(fl, room[problem.lhs.memory]), np.full_like(fr, room[rhs.memory])
    if same:
        # As `build` divides a memory that both operands share.
        room_l = fl + (room_r - fl - fr) * fl // (fl + fr)
        room_r = room_r - room_l
    slots_l, slots_r = np.maximum(1, room_l // fl), np.maximum(1, room_r // fr)
    return _Fitting(tile, acc, fl, fr, slots_l, slots_r, acc_room)


def _priced(
    problem: Problem, fit: _Fitting, costs: Costs, trimmed_steps: int, epilogue_cycles: float,
    a_outer: bool,
) -> tuple[Floats, list[int]]:  # fmt: skip
    """(estimate of every tile, order of the output counters). a_outer: counters that move lhs
    alone are walked outside of those that move rhs alone."""
    rhs, isa = problem.rhs, problem.isa
    assert rhs is not None
    fl, fr, ls, rs = fit.lhs, fit.rhs, fit.slots_l, fit.slots_r
    parts = {c: -(-problem.extents[c] // t) for c, t in fit.tile.items()}

    def prod(cs: Iterable[int]) -> Floats:
        out = np.ones_like(fit.acc, dtype=np.float64)
        for c in cs:
            out = out * parts[c]
        return out

    # Who walks with whom: an operand that an outer counter does not move is loaded again for each
    # of its values, unless it stayed.
    moves = {
        c: (bool(problem.lhs.step[c].any()), bool(rhs.step[c].any()))
        for c in range(len(problem.extents))
    }
    a_side = [c for c in problem.outputs if moves[c][0] and not moves[c][1]]
    b_side = [c for c in problem.outputs if moves[c][1] and not moves[c][0]]
    both = [c for c in problem.outputs if c not in a_side and c not in b_side]
    # Every round reads constants of its own, and the activations again.
    rounds = problem.contractions
    own_l, own_r = problem.sides
    again_l, again_r = (1 if own else rounds for own in (own_l, own_r))
    chunks_l = prod(c for c in problem.reductions if moves[c][0]) * (rounds // again_l)
    chunks_r = prod(c for c in problem.reductions if moves[c][1]) * (rounds // again_r)
    chunks = prod(problem.reductions) * rounds
    n_a, n_b, n_c = prod(a_side), prod(b_side), prod(both)
    tiles = n_a * n_b * n_c
    if a_outer:
        once_l = _repeat(chunks_l, ls, n_b * again_l) * n_a * n_c
        once_r = _repeat(n_b * chunks_r, rs, n_a * again_r) * n_c
        order = [*both, *a_side, *b_side]
    else:
        once_l = _repeat(n_a * chunks_l, ls, n_b * again_l) * n_c
        once_r = _repeat(chunks_r, rs, n_a * again_r) * n_b * n_c
        order = [*both, *b_side, *a_side]
    bytes_l = isa.memory(problem.lhs.memory).elem_bytes
    bytes_r = isa.memory(rhs.memory).elem_bytes
    beats = (once_l * fl * bytes_l + once_r * fr * bytes_r) / costs.read_bytes
    loads = once_l + once_r
    n_epilogue = 1 + len(problem.epilogue) + sum(map(len, problem.rounds))
    # About 1.5 compute instructions a chunk: some nests take several pieces.
    instructions = tiles * (chunks * 1.5 + n_epilogue) + loads + tiles
    reads = beats + loads * costs.dma_gap + instructions * costs.fetch
    compute = (
        costs.step * (trimmed_steps * problem.passes)
        + epilogue_cycles
        + costs.instruction * tiles * (chunks * 1.5 + n_epilogue)
    )
    vectors = math.prod(problem.extents[c] for c in problem.outputs)
    out_bytes = isa.memory(stored_memory(isa, problem.dst.memory)).elem_bytes
    writes = np.full_like(compute, vectors * costs.store_cycles(out_bytes))
    # With one slot the next load waits for the step that reads it.
    single = ((ls < 2) & (chunks_l * n_a * n_c > 1)) | ((rs < 2) & (chunks_r * n_b * n_c > 1))
    ramp = (fl * bytes_l + fr * bytes_r) / costs.read_bytes
    # Without a second place for results, the next tile waits for the store of this one.
    no_double = np.where((fit.acc * 2 > fit.acc_room) & (tiles > 1), 4.0 * vectors, 0.0)
    # The lesser of compute and reads never hides completely; two hundredths of it stand for what
    # it disturbs.
    cost = (
        np.maximum(np.maximum(compute, reads), writes)
        + 0.02 * np.minimum(compute, reads)
        + ramp
        + no_double
        + np.where(single, beats, 0.0)
    )
    return cost, order


def _repeat(distinct: Floats, slots: Ints, times: Floats) -> Floats:
    """Loads of `distinct` boxes walked `times` times through that many slots."""
    # A further pass finds what all slots but one still hold.
    return distinct + (times - 1) * np.where(
        distinct <= slots, 0.0, np.maximum(0.0, distinct - (slots - 1))
    )


def _coupled(problem: Problem) -> list[bool]:
    out = [False] * len(problem.extents)
    for m in (problem.lhs, problem.rhs):
        if m is None:
            continue
        for d in range(len(m.grid)):
            moving = [c for c in range(len(out)) if m.step[c, d]]
            if len(moving) > 1:
                for c in moving:
                    # Two counters in one index: their tiles overlap, which is what makes small
                    # tiles dear.
                    out[c] = True
    return out


def thinned(lists: list[list[int]], most: int) -> list[list[int]]:
    """The lists of extents, the longest halved until at most so many tiles are made of them."""
    lists = list(lists)
    while math.prod(len(v) for v in lists) > most:
        longest = max(range(len(lists)), key=lambda c: len(lists[c]))
        v = lists[longest]
        # Every other extent, never the largest: the whole is nearly always worth a try.
        lists[longest] = [*v[:-1:2], v[-1]] if len(v) > 2 else [1]
    return lists


def configure(
    problem: Problem,
    tile: tuple[int, ...],
    order: tuple[int, ...],
    like: Config | None = None,
) -> Config:
    """Completes a tile: dimension orders with the fewest rectangles; the rest as in `like`."""
    rhs = problem.rhs
    assert rhs is not None
    reduce_order = tuple(
        # Cut counters outermost: they change between chunks, whole ones do not.
        sorted(problem.reductions, key=lambda c: (tile[c] < problem.extents[c], c))
    )[::-1]
    fresh = Config(
        tile=tile,
        order=order,
        reduce_order=reduce_order,
        lhs_order=dimension_order(problem.lhs, tile),
        rhs_order=dimension_order(rhs, tile),
        dst_order=dimension_order(problem.dst, tile),
    )
    if like is None:
        return fresh
    kept = {n: getattr(like, n) for n in ("snake", "slots", "uops", "tail", "up", "down")}
    return replace(fresh, **kept)


def dimension_order(m: Map, tile: tuple[int, ...]) -> tuple[int, ...]:
    """Grid dimensions, outermost first: whole ones innermost, so that a tile is one rectangle."""
    if m.order is not None:
        return m.order
    length = []
    for d, movers in enumerate(m.movers):
        reach = 1 + sum(abs(s) * (tile[c] - 1) for c, s in movers)
        length.append(min(reach, m.grid[d]))
    # Clipped at an end where it is not whole and several counters move it.
    clips = tuple(
        len(movers) > 1 and n < g for movers, n, g in zip(m.movers, length, m.grid, strict=True)
    )
    return _fewest_rectangles(m.grid, tuple(length), clips)


@lru_cache(maxsize=1024)
def _fewest_rectangles(
    grid: tuple[int, ...], length: tuple[int, ...], clips: tuple[bool, ...]
) -> tuple[int, ...]:
    """The order of dimensions for boxes of `length`; clips: those whose boxes are cut by padding,
    of which the outermost one costs nothing."""
    n = len(grid)
    best: tuple[tuple[float, ...], tuple[int, ...]] | None = None
    # Beyond six dimensions the permutations would take longer than they save.
    for order in itertools.permutations(range(n)) if n <= 6 else [tuple(range(n))]:
        k = n - 1
        run = 1
        while k >= 0 and length[order[k]] == grid[order[k]]:
            run *= grid[order[k]]
            k -= 1
        # One more dimension may be strided: DMA rectangles have two.
        if k >= 0:
            run *= length[order[k]]
            k -= 1
        while k >= 0 and length[order[k]] == 1:
            k -= 1
        if k >= 0:
            k -= 1
        count = math.prod(length[order[j]] for j in range(k + 1))
        # Longer runs than 16 elements are taken for equally good.
        score = (float(count), -float(n > 0 and clips[order[0]]), -float(min(run, 16)),
                 *map(float, order))  # fmt: skip
        if best is None or score < best[0]:
            best = (score, order)
    assert best is not None  # there is one order at least
    return best[1]
