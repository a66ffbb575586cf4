"""Improves schedules by changing one decision at a time, from the best that are known.

Takes: Attempts, decisions to start from.  Leaves: what it finds in those Attempts.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from dataclasses import replace

from csp_embed.schedule.attempts import Attempts
from csp_embed.schedule.config import Config
from csp_embed.schedule.inputs import Problem
from csp_embed.schedule.tile import configure

Move = tuple[object, ...]


def improve(
    attempts: Attempts, starts: Sequence[Config], enough: float, most: int, row_budget: int
) -> None:
    """Always the next change of the schedule with the fewest cycles: one that saves is changed
    next itself, and where no change saves any more, the second best gets its turn, so that pairs of
    changes are met, too. Ends after `most` schedules or `row_budget` rows, or with `enough` cycles.
    """
    tried = rows = 0
    seen = set()
    front = []
    for n, config in enumerate(starts):
        front.append((attempts.measure(config)[0], n, neighbours(attempts.problem, config)))
        seen.add(attempts.key(config))
    heapq.heapify(front)
    best = front[0][0]
    while front and best > enough and tried < most and rows < row_budget:
        parent, _, changes = front[0]
        move, config = next(changes, ((), None))
        if config is None:
            heapq.heappop(front)
            continue
        if attempts.key(config) in seen:
            continue
        cycles, spent = attempts.measure(config)
        tried, rows = tried + (spent > 0), rows + spent
        key = attempts.key(config)
        if key not in seen:
            seen.add(key)
            best = min(best, cycles)
            # What saved is done again at once: a tile grows by more than one step.
            again = move if cycles < parent else ()
            heapq.heappush(front, (cycles, len(seen), neighbours(attempts.problem, config, again)))


def neighbours(problem: Problem, config: Config, again: Move = ()) -> Iterator[tuple[Move, Config]]:
    """Configurations that differ in one decision, with what was done: as `again` first, then likely
    gains first."""
    moves = list(_moves(problem, config))
    yield from (m for m in moves if m[0] == again)
    yield from (m for m in moves if m[0] != again)


def _moves(problem: Problem, config: Config) -> Iterator[tuple[Move, Config]]:
    for up, down in ((1, 0), (0, 1), (2, 0), (0, 2), (-1, 0), (0, -1)):
        if config.up + up >= 0 and config.down + down >= 0:
            yield ("taper", up, down), replace(config, up=config.up + up, down=config.down + down)
    for slots in (2, 3, 64):
        if slots != config.slots:
            yield ("slots",), replace(config, slots=slots)
    for c, extent in enumerate(problem.extents):
        t = config.tile[c]
        part = max(1, t // 4)
        for way, other in ((1, 2 * t), (-1, -(-t // 2)), (1, t + part), (-1, t - part), (1, t + 1),
                           (-1, t - 1)):  # fmt: skip
            size = min(other, extent)
            if 1 <= size != t:
                tile = (*config.tile[:c], size, *config.tile[c + 1 :])
                yield ("tile", c, way), configure(problem, tile, config.order, like=config)
    several = [c for c in config.order if config.tile[c] < problem.extents[c]]
    if len(several) > 1:
        swapped = tuple(reversed([c for c in config.order if c in several]))
        rest = tuple(c for c in config.order if c not in several)
        yield ("order",), configure(problem, config.tile, (*rest, *swapped), like=config)
    yield ("snake",), replace(config, snake=not config.snake)
    for tail in (config.tail // 2, config.tail * 2):
        if 16 <= tail <= 1024:
            yield ("tail",), replace(config, tail=tail)
    for uops in (config.uops // 4, config.uops * 4):
        if 16 <= uops <= 2048:
            yield ("uops",), replace(config, uops=uops)
