"""Boxes of a region as DMA rectangles: rows of consecutive elements at one stride.

A DMA instruction reads y rows of x elements, `stride` apart in DRAM, and writes them one after the
other on chip.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from csp_embed.ir.schedule import Box, Region


@dataclass(frozen=True)
class Rectangle:
    """dram: first element, counted from the region's start; sram: elements after the box's
    start.
    """

    dram: int
    sram: int
    y: int
    x: int
    stride: int


@dataclass(frozen=True)
class DmaLimits:
    y: int
    x: int
    stride: int


def rectangles(region: Region, number: int, start: int, limits: DmaLimits) -> list[Rectangle]:
    """start: first DRAM element of the box where the region is kept by boxes."""
    box = region.boxes[number]
    if region.by_box:
        size = 1
        for a, b in box:
            size *= b - a
        return runs(start, 0, size, limits)
    grid = [region.grid[d] for d in region.order]
    return _plain(box, grid, limits)


def runs(dram: int, sram: int, size: int, limits: DmaLimits) -> list[Rectangle]:
    """`size` consecutive elements, as many at a time as an instruction can name."""
    out = []
    while size:
        n = min(size, limits.x)
        out.append(Rectangle(dram, sram, 1, n, _stride(n, limits)))
        dram, sram, size = dram + n, sram + n, size - n
    return out


def _stride(stride: int, limits: DmaLimits) -> int:
    """What the field of a single row holds: nobody reads it there, so 0 where it does not fit."""
    return stride if stride <= limits.stride else 0


def _plain(box: Box, grid: list[int], limits: DmaLimits) -> list[Rectangle]:
    """Joins inner dimensions that the box covers whole, then one strided dimension per
    rectangle.
    """
    pitch = [1] * len(grid)
    for d in range(len(grid) - 2, -1, -1):
        pitch[d] = pitch[d + 1] * grid[d + 1]
    run, d = 1, len(grid) - 1
    while d >= 0 and (box[d][1] - box[d][0]) == grid[d]:
        run *= grid[d]
        d -= 1
    base = 0
    if d >= 0:
        base += box[d][0] * pitch[d]
        run *= box[d][1] - box[d][0]
        d -= 1
    while d >= 0 and box[d][1] - box[d][0] == 1:
        base += box[d][0] * pitch[d]
        d -= 1
    rows, stride = 1, run
    if d >= 0:
        base += box[d][0] * pitch[d]
        rows, stride = box[d][1] - box[d][0], pitch[d]
        d -= 1
    outer = [range(box[k][0], box[k][1]) for k in range(d + 1)]
    out, sram = [], 0
    for pick in itertools.product(*outer):
        at = base + sum(v * pitch[k] for k, v in enumerate(pick))
        out += _rows(at, sram, rows, run, stride, limits)
        sram += rows * run
    return out


def _rows(
    dram: int, sram: int, rows: int, run: int, stride: int, limits: DmaLimits
) -> list[Rectangle]:
    if run > limits.x or (rows > 1 and stride > limits.stride):
        out = []
        for r in range(rows):
            out += runs(dram + r * stride, sram + r * run, run, limits)
        return out
    out = []
    for r in range(0, rows, limits.y):
        n = min(limits.y, rows - r)
        out.append(Rectangle(dram + r * stride, sram + r * run, n, run, _stride(stride, limits)))
    return out
