"""The time of a schedule in outline: tiles and chunks as wholes, in microseconds instead of the
milliseconds that building and simulating it take.

Takes: a Problem, decisions.  Leaves: cycles that rank decisions alike; the cycle engine says what
they are. Queues, slots, ramps and the first loads of micro-ops are followed; how instructions cover
a chunk, bursts of loads and tokens are not.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from csp_embed.machine.costs import Costs
from csp_embed.machine.reach import stored_memory
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Map, Problem
from csp_embed.schedule.outline_loops import STORE, follow

Ints = NDArray[np.int64]


class Outline:
    """Of one problem. each: cycles of an epilogue per result. taken: elements by memory that are
    not for operands and results."""

    def __init__(
        self, problem: Problem, costs: Costs, *, each: float, taken: dict[str, int]
    ) -> None:
        rhs = problem.rhs
        assert rhs is not None  # else there is nothing to decide
        self._extents = np.array(problem.extents, dtype=np.int64)
        self._reduced = np.array(problem.reduced)
        # What the epilogue's tensors and constants take is not there for operands.
        room = {k: v - taken.get(k, 0) for k, v in problem.depth.items()}
        room[problem.dst.memory] //= 2 if problem.copies else 1
        maps = (problem.lhs, rhs)
        # Operands with fewer dimensions are filled up with ones of size 1 that nothing moves.
        dims = max(len(m.grid) for m in maps)
        self._step = np.zeros((2, len(problem.extents), dims), dtype=np.int64)
        self._place = np.zeros((2, 2, dims), dtype=np.int64)
        self._place[:, 1] = 1
        for k, m in enumerate(maps):
            n = len(m.grid)
            self._step[k, :, :n] = m.step
            self._place[k, 0, :n], self._place[k, 1, :n] = m.origin, m.grid
        self._room = np.array(
            [room[m.memory] for m in maps]
            + [room[problem.dst.memory], int(problem.lhs.memory == rhs.memory)],
            dtype=np.int64,
        )
        self._maps = maps
        layouts, tensors = problem.embedding.layouts, problem.embedding.operator.tensors
        self._constant = [tensors[layouts[m.operand].tensor].constant for m in maps]
        self._out_dim = problem.out_dim
        self._dst = problem.dst
        # Cycles per element over the port: the outline knows elements, not bytes.
        size = [problem.isa.memory(m.memory).elem_bytes / costs.read_bytes for m in maps]
        out = problem.isa.memory(stored_memory(problem.isa, problem.dst.memory)).elem_bytes
        self._share = out / (costs.beat_bytes * costs.burst_beats)  # of a burst that a result takes
        self._setup = costs.burst_setup
        self._costs = np.array(
            [
                *size, costs.dma_gap, costs.fetch, costs.instruction,
                # Every round makes the products once more.
                costs.step * problem.passes, costs.reset_step, each,
                1 + len(problem.epilogue) + sum(map(len, problem.rounds)), costs.store_cycles(out),
                costs.burst_setup,
            ],
            dtype=np.float64,
        )  # fmt: skip

    def cycles(self, config: Config) -> float:
        """Without end where it does not fit, or is too long to be followed."""
        # The counters by which the epilogue cuts a tile into pieces, outermost first.
        cut = [c for d in config.dst_order for c, at in self._out_dim.items() if at == d]
        rows = [
            # A constant lies box by box, as it is loaded.
            1 if constant else _rectangles(m, config.tile, order)
            for m, constant, order in zip(
                self._maps, self._constant, (config.lhs_order, config.rhs_order), strict=True
            )
        ]
        costs = self._costs.copy()
        # Results that are stored in short or crooked runs take more bursts than whole ones do.
        costs[STORE] += self._setup * (self._bursts(config) - self._share)
        return float(
            follow(
                self._extents,
                self._reduced,
                np.array(config.tile, dtype=np.int64),
                np.array(config.order, dtype=np.int64),
                np.array(config.reduce_order, dtype=np.int64),
                np.array(cut, dtype=np.int64),
                np.array(
                    [
                        config.up,
                        config.down,
                        config.snake,
                        config.slots,
                        config.tail,
                        config.uops,
                        *rows,
                    ],
                    dtype=np.int64,
                ),
                self._step,
                self._place,
                self._room,
                costs,
            )
        )

    def _bursts(self, config: Config) -> float:
        """Bursts of a store for each result: a run of results that stand together in DRAM begins
        anywhere that tiles may begin, and a burst crosses no multiple of its length."""
        run = start = 1
        for d in reversed(config.dst_order):
            size = self._dst.grid[d]
            length = min(
                size, math.prod(config.tile[c] for c, at in self._out_dim.items() if at == d)
            )
            start = math.gcd(run * length, run * size)
            run *= length
            if length < size:
                break
        whole = round(1 / self._share)
        if whole <= 1:
            return self._share
        return ((run - math.gcd(start, whole)) / whole + 1) / run


def _rectangles(m: Map, tile: tuple[int, ...], order: tuple[int, ...]) -> int:
    """Of the first tile's box: inner dimensions that it covers whole join, one more is strided."""
    # Each box is one DMA rectangle if its inner dimensions are whole; every other one multiplies.
    count, joining, strided = 1, True, False
    for d in reversed(order):
        n = min(1 + sum(abs(s) * (tile[c] - 1) for c, s in m.movers[d]), m.grid[d])
        if joining:
            joining = n == m.grid[d]
        elif not strided:
            strided = n > 1
        else:
            count *= n
    return count
