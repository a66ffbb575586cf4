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
        config = next(front[0][2], None)
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
            heapq.heappush(front, (cycles, len(seen), neighbours(attempts.problem, config)))


def neighbours(problem: Problem, config: Config) -> Iterator[Config]:
    """Configurations that differ in one decision, likely gains first."""
    for up, down in ((1, 0), (0, 1), (2, 0), (0, 2), (-1, 0), (0, -1)):
        if config.up + up >= 0 and config.down + down >= 0:
            yield replace(config, up=config.up + up, down=config.down + down)
    for slots in (2, 3, 64):
        if slots != config.slots:
            yield replace(config, slots=slots)
    for uops in (config.uops // 4, config.uops * 4):
        if 16 <= uops <= 2048:
            yield replace(config, uops=uops)
    for tail in (config.tail // 2, config.tail * 2):
        if 16 <= tail <= 1024:
            yield replace(config, tail=tail)
    for c, extent in enumerate(problem.extents):
        t = config.tile[c]
        for other in dict.fromkeys((min(extent, 2 * t), -(-t // 2), t + 1, t - 1)):
            if 1 <= other <= extent and other != t:
                tile = (*config.tile[:c], other, *config.tile[c + 1 :])
                yield configure(problem, tile, config.order, like=config)
    several = [c for c in config.order if config.tile[c] < problem.extents[c]]
    if len(several) > 1:
        swapped = tuple(reversed([c for c in config.order if c in several]))
        rest = tuple(c for c in config.order if c not in several)
        yield configure(problem, config.tile, (*rest, *swapped), like=config)
    yield replace(config, snake=not config.snake)
