"""Which points stand in which output tile, reduction chunk and epilogue piece."""

from __future__ import annotations

import itertools
import math

from csp_embed.schedule.config import Config, ranges
from csp_embed.schedule.inputs import Problem

Range = tuple[int, ...]
"""A bound per counter."""


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
