"""Improves schedules: what the outline says is near the best is measured, and changed where it is.

Takes: Attempts, decisions to start from.  Leaves: what it finds in those Attempts.
"""

from __future__ import annotations

import heapq
import itertools
import math
from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from csp_embed.schedule.attempts import Attempts
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Problem
from csp_embed.schedule.tile import configure

# NEAR: shares by which an outline may exceed that of the best schedule to be measured, at least and
# at most; between them SPREAD times what outlines were seen to err by. CHANGED: share by which
# cycles may exceed the fewest for the schedule to be changed. SKETCHED: outlines before anything
# is measured. GAIN: a share of the cycles that is worth going on for;
# PATIENCE: rows without one, for each schedule that may be built.
NEAR, SPREAD, CHANGED, SKETCHED = (0.006, 0.05), 1.5, 0.004, 600
# WALKED: steps over tiles and chunks that outlines follow before anything is measured, and SHORT:
# of a schedule in which ramps are more than a trifle.
# STARTS: cycles that outlines err by however short the schedule: starts of instructions, bursts.
GAIN, PATIENCE, STARTS = 0.0005, 60, 25.0
WALKED, SHORT = 400_000, 4_000
FEW = 32  # micro-ops of a nest
TAPERS = ((0, 0), (1, 0), (0, 1), (1, 1), (2, 1), (1, 2), (0, 2), (2, 2))

Heap = list[tuple[float, int, Config]]
"""Estimates; equal ones in the order in which they were offered."""


class Front:
    """Decisions of one embedding that are not measured yet, in two orders: by their outline, and by
    their outline times what it erred by on the schedule that they change. Where outlines are good
    both are the same; where they are not, the first finds other tiles, the second better ones
    near a good one."""

    def __init__(self, attempts: Attempts) -> None:
        self.attempts = attempts
        self._outlines: dict[Config, float] = {}
        self._changed: set[Config] = set()
        # Decisions that differ from measured ones in a detail: the fewest cycles of those.
        self._than: dict[Config, float] = {}
        self._heaps: tuple[Heap, Heap] = ([], [])
        self._ticket = itertools.count()
        self._errors: list[tuple[float, float]] = []  # Cycles, their logarithm over the outline's.
        self._best = (math.inf, math.inf)  # Fewest cycles, and their outline.
        self._walked = 0

    @property
    def least(self) -> float:
        """The smallest outline."""
        return self._heaps[0][0][0] if self._heaps[0] else math.inf

    def start(self, config: Config, ramped: bool) -> None:
        """Offers a proposal, with ramps too where asked to."""
        for up, down in TAPERS[: _ramps(self.attempts.problem, config) if ramped else 1]:
            self._offer(replace(config, up=up, down=down))

    def _outline(self, config: Config) -> float:
        known = self._outlines.get(config)
        if known is None:
            known = self._outlines[config] = self.attempts.outline(config)
            self._walked += steps(self.attempts.problem, config)
        return known

    def _offer(self, config: Config, error: float | None = None) -> None:
        """error: of the schedule that it changes, where that was measured."""
        if config not in self._outlines:
            entry = (self._outline(config), next(self._ticket), config)
            heapq.heappush(self._heaps[0], entry)
        if error is not None:
            entry = (error * self._outline(config), next(self._ticket), config)
            heapq.heappush(self._heaps[1], entry)

    def _change(self, config: Config, cycles: float, error: float) -> None:
        # A detail that gained nothing is not carried over to other tiles: it would double them all.
        if config in self._changed or cycles >= self._than.get(config, math.inf):
            return
        self._changed.add(config)
        for changed in tiles(self.attempts.problem, config):
            self._offer(changed, error)
        for changed in details(config):
            if self.attempts.known(changed):
                continue
            self._than[changed] = min(cycles, self._than.get(changed, math.inf))
            self._offer(changed, error)

    def sketch(self) -> None:
        """Changes the tiles of least outline, now and then two extents at once."""
        tried = set[tuple[tuple[int, ...], ...]]()
        while len(self._outlines) < SKETCHED and self._walked < WALKED:
            nearest = (c for _, _, c in heapq.nsmallest(64, self._heaps[0]))
            least = next((c for c in nearest if (c.tile, c.order) not in tried), None)
            if least is None:
                break
            tried.add((least.tile, least.order))
            for changed in (tiles if len(tried) % 4 else pairs)(self.attempts.problem, least):
                self._offer(changed)

    def step(self, order: int = 0) -> int:
        """Measures the nearest one; rows as of `Attempts.measure`."""
        return self.measure(heapq.heappop(self._heaps[order])[2])

    def measure(self, config: Config) -> int:
        """Measures it, and changes it where it comes close to the best."""
        before = self._best[0]
        cycles, rows = self.attempts.measure(config)
        if rows and cycles < math.inf:
            outline = self._outline(config)
            if not 0 < outline < math.inf:  # what the outline takes for too large fits after all
                return rows
            self._errors.append((cycles, math.log(cycles / outline)))
            self._best = min(self._best, (cycles, outline))
            if cycles <= (1 + CHANGED) * before:
                self._change(config, cycles, cycles / outline)
        return rows

    def _limits(self) -> tuple[float, float]:
        """Estimates, of either order, that may come to less than the best."""
        errors = [e for cycles, e in self._errors if cycles < 1.1 * self._best[0]]
        spread = SPREAD * float(np.std(errors)) if errors else 0.0
        above = 1 + min(max(spread, NEAR[0]), NEAR[1])
        return above * self._best[1] + STARTS, above * self._best[0] + STARTS

    def improve(self, enough: float, most: int, row_budget: int) -> None:
        """Steps until nothing near the best is left, it has `enough` cycles, `most` schedules or
        `row_budget` rows were built, or many of them one after the other gained nothing."""
        tried = since = rows_since = 0
        rows = self.attempts.size  # The next is about as long as the best.
        record, limits = self.attempts.cycles, self._limits()
        while tried < most and rows < row_budget and self.attempts.cycles > enough:
            near = [n for n in (0, 1) if self._heaps[n] and self._heaps[n][0][0] <= limits[n]]
            if not near or (since >= max(5, most // 12) and rows_since >= most * PATIENCE):
                break
            spent = self.step(near[tried % len(near)])
            if spent == 0:
                continue  # An equal one was measured before.
            limits = self._limits()
            tried, rows = tried + 1, rows + spent
            since, rows_since = since + 1, rows_since + spent
            if self.attempts.cycles < (1 - GAIN) * record:
                record, since, rows_since = self.attempts.cycles, 0, 0


def steps(problem: Problem, config: Config) -> int:
    """Chunks of all tiles, about: what following or building such a schedule takes."""
    return math.prod(-(-e // t) for e, t in zip(problem.extents, config.tile, strict=True))


def _ramps(problem: Problem, config: Config) -> int:
    """How many of TAPERS are tried."""
    return 4 if steps(problem, config) <= SHORT else 1


def tiles(problem: Problem, config: Config) -> Iterator[Config]:
    """Configurations that differ in one extent of the tile, in its ramps, in both, or in the order
    of loops."""
    ramps = _ramps(problem, config)
    for up, down in TAPERS[: 2 * ramps] if ramps > 1 else ():
        yield replace(config, up=up, down=down)
    for c in range(len(problem.extents)):
        for size in _sizes(problem.extents[c], config.tile[c]):
            tile = (*config.tile[:c], size, *config.tile[c + 1 :])
            changed = configure(problem, tile, config.order, like=config)
            for up, down in dict.fromkeys(((config.up, config.down), *TAPERS[:ramps])):
                yield replace(changed, up=up, down=down)
    several = [c for c in config.order if config.tile[c] < problem.extents[c]]
    if len(several) > 1:
        swapped = tuple(reversed([c for c in config.order if c in several]))
        rest = tuple(c for c in config.order if c not in several)
        yield configure(problem, config.tile, (*rest, *swapped), like=config)


def details(config: Config) -> Iterator[Config]:
    """Configurations of the same tile that differ in one other decision.

    How long lists of micro-ops are is weighed for every nest by its cost (`cover`); that does not
    know what else the memory's port does meanwhile, so that a shorter limit is tried too.
    """
    for slots in (2, 3, 16, 64):
        yield replace(config, slots=slots)
    yield replace(config, snake=not config.snake)
    for tail in (config.tail // 2, config.tail * 2):
        if 16 <= tail <= 1024:
            yield replace(config, tail=tail)
    if config.uops > FEW:
        yield replace(config, uops=FEW)


def pairs(problem: Problem, config: Config) -> Iterator[Config]:
    """Configurations whose tile differs in two extents: where one alone only costs."""
    counters = [c for c, extent in enumerate(problem.extents) if extent > 1]
    for a, b in itertools.combinations(counters, 2):
        for pair in itertools.product(
            _sizes(problem.extents[a], config.tile[a]), _sizes(problem.extents[b], config.tile[b])
        ):
            tile = list(config.tile)
            tile[a], tile[b] = pair
            yield configure(problem, tuple(tile), config.order, like=config)


def _sizes(extent: int, tile: int) -> list[int]:
    """Other extents of a tile: near ones, and those of a few parts more or less."""
    parts = -(-extent // tile)
    near = [tile - 1, tile + 1, tile - tile // 4, tile + tile // 4, 2 * tile, -(-tile // 2)]
    near += [-(-extent // n) for n in range(max(1, parts - 2), parts + 3)]
    return sorted({n for n in near if 1 <= n <= extent and n != tile})
