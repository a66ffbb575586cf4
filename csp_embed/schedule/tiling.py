"""Which points stand in which output tile, reduction chunk and epilogue piece."""

from __future__ import annotations

import itertools
import math

from csp_embed.schedule.buffers import Range
from csp_embed.schedule.config import Config, ranges
from csp_embed.schedule.inputs import Problem


def tiles(problem: Problem, config: Config) -> list[tuple[Range, Range]]:
    """Counter ranges of every output tile in program order; reductions are whole."""
    tapered = _tapered(problem, config)
    axes = [
        ranges(
            problem.extents[c], config.tile[c], *((config.up, config.down) if c == tapered else ())
        )
        for c in config.order
    ]
    out = []
    for pick in itertools.product(*axes):
        lo, hi = [0] * len(problem.extents), list(problem.extents)
        for c, (a, b) in zip(config.order, pick, strict=True):
            lo[c], hi[c] = a, b
        out.append((tuple(lo), tuple(hi)))
    return out


def _tapered(problem: Problem, config: Config) -> int:
    """The outermost loop with several parts of more than one."""
    for c in (*config.order, *config.reduce_order):
        if 1 < config.tile[c] < problem.extents[c]:
            return c
    return -1


def chunks(problem: Problem, config: Config) -> list[tuple[Range, Range]]:
    tapered = _tapered(problem, config)
    axes = [
        ranges(
            problem.extents[c], config.tile[c], *((config.up, config.down) if c == tapered else ())
        )
        for c in config.reduce_order
    ]
    out = []
    for pick in itertools.product(*axes):
        lo, hi = [0] * len(problem.extents), list(problem.extents)
        for c, (a, b) in zip(config.reduce_order, pick, strict=True):
            lo[c], hi[c] = a, b
        out.append((tuple(lo), tuple(hi)))
    return out


def key(problem: Problem, config: Config) -> tuple[object, ...]:
    """What `config` decides, but for `slots` and `uops`: equal keys and limits mean equal
    schedules."""
    tapered = _tapered(problem, config)

    def loops(counters: tuple[int, ...]) -> tuple[tuple[int, tuple[Range, ...]], ...]:
        taper = (config.up, config.down)
        parts = [
            (c, tuple(ranges(problem.extents[c], config.tile[c], *(taper if c == tapered else ()))))
            for c in counters
        ]
        return tuple((c, r) for c, r in parts if len(r) > 1)

    outer, inner = loops(config.order), loops(config.reduce_order)
    # `tail` shows in the last tile and the one before it: the same walk as `tiles`, from its end.
    ends: list[tuple[Range, Range]] = []
    at = [len(r) - 1 for _, r in outer]
    for last in (True, False):
        lo, hi = [0] * len(problem.extents), list(problem.extents)
        for c in problem.reductions:
            hi[c] = 1
        for (c, r), n in zip(outer, at, strict=True):
            lo[c], hi[c] = r[n]
        ends += pieces(problem, config, tuple(lo), tuple(hi), last, True)
        if not outer:
            break
        place = len(at) - 1
        while at[place] == 0:
            at[place] = len(outer[place][1]) - 1
            place -= 1
        at[place] -= 1
    return (
        outer, inner, tuple(ends), config.lhs_order, config.rhs_order, config.dst_order,
        config.snake and bool(outer) and bool(inner),
    )  # fmt: skip


def pieces(
    problem: Problem, config: Config, lo: Range, hi: Range, last: bool, late: bool
) -> list[tuple[Range, Range]]:
    """Parts of a tile that are finished and stored one after the other."""
    vectors = math.prod(b - a for a, b in zip(lo, hi, strict=True))
    want = config.tail if last else max(2 * config.tail, 256) if late else 1024
    dims = [c for d in config.dst_order for c, at in problem.out_dim.items() if at == d]
    cut = next((c for c in dims if hi[c] - lo[c] > 1), None)
    if cut is None or vectors <= want:
        return [(lo, hi)]
    n = hi[cut] - lo[cut]
    rows_each = max(1, round(want / (vectors / n)))
    out = []
    for a, b in ranges(n, rows_each):
        plo, phi = list(lo), list(hi)
        plo[cut], phi[cut] = lo[cut] + a, lo[cut] + b
        out.append((tuple(plo), tuple(phi)))
    return out
