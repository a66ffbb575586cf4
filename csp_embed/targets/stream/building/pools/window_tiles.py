"""Which tile of a pool, or of an elementwise program, that comes in by an identity.

Takes: a Problem, its loops.  Leaves: the extents of the tile that takes the fewest cycles by
estimate: loads, steps and stores run beside each other where two tiles fit.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from csp_embed.errors import Infeasible
from csp_embed.machine.costs import Costs
from csp_embed.machine.reach import stored_memory
from csp_embed.schedule.inputs import Problem
from csp_embed.schedule.tile import sizes, thinned
from csp_embed.targets.stream.building.pools.windows import Loop, reductions

TILES = 1_500  # that are priced, each some hundred microseconds


def tile_of(problem: Problem, loops: Sequence[Loop], costs: Costs, shared: bool) -> tuple[int, ...]:
    """Windows are whole. shared: the identity stands beside the source.

    Raises: Infeasible where no window fits.
    """
    room = problem.depth[problem.dst.memory]
    depth = problem.depth[problem.lhs.memory] - shared
    isa = problem.isa
    narrow = isa.memory(problem.lhs.memory)
    load = narrow.elem_bytes / costs.read_bytes
    store = costs.store_cycles(isa.memory(stored_memory(isa, problem.dst.memory)).elem_bytes)
    each = sum(
        costs.step if s.access is not None and problem.adds[i].memory == problem.lhs.memory
        else costs.immediate_step if s.access is None else costs.tensor_step
        for i, s in enumerate(problem.epilogue)
    )  # fmt: skip
    lists = [
        [e] if r else sizes(e, room, False)
        for e, r in zip(problem.extents, problem.reduced, strict=True)
    ]
    lists = thinned(lists, TILES)
    best: tuple[tuple[float, float], tuple[int, ...]] | None = None
    zero = (0,) * len(problem.extents)
    for tile in itertools.product(*lists):
        outputs = [tile[loop.counter] if loop.counter >= 0 else 1 for loop in loops]
        vectors = math.prod(outputs)
        if vectors > room:
            continue
        spans = zip(problem.lhs.box(zero, tile), problem.lhs.grid, strict=True)
        source = math.prod(min(b - a, g) for (a, b), g in spans)
        here = [math.prod(b - a for a, b in m.box(zero, tile)) for m in problem.adds.values()]
        wide = sum(
            n for n, m in zip(here, problem.adds.values(), strict=True)
            if m.memory == problem.dst.memory
        )  # fmt: skip
        beside = 2 * (sum(here) - wide)
        if source + beside > depth:
            continue
        way = reductions(loops, outputs, costs)
        cells = way.cells() + wide
        if cells > room:
            continue
        tiles = math.prod(
            -(-e // t)
            for e, t, r in zip(problem.extents, tile, problem.reduced, strict=True)
            if not r
        )
        loads = load * (source + sum(here) - wide) + costs.dma_gap
        work = way.work(costs) + vectors * each
        work += costs.instruction * len(problem.epilogue)
        work += wide * isa.memory(problem.dst.memory).elem_bytes / costs.read_bytes
        stores = costs.instruction + costs.burst_setup + vectors * store
        two_in = 2 * source + beside <= depth
        two_out = cells + vectors <= room
        inner = max(work, loads) if two_in else work + loads
        inner = max(inner, stores) if two_out else inner + stores
        score = (tiles * inner + (two_in * loads + two_out * stores), -float(vectors))
        if best is None or score < best[0]:
            best = (score, tile)
    if best is None:
        raise Infeasible(
            f"{problem.embedding.operator.name}: no whole window fits",
            why=f"{problem.dst.memory} has {room} elements, {problem.lhs.memory} {depth}",
            hint="a larger memory in --vta-config, or smaller windows",
        )
    return best[1]
