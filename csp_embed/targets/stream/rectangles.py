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
    # Each box lies whole, so that one run holds it.
    if region.by_box:
        size = 1
        for a, b in box:
            size *= b - a
        return runs(start, 0, size, limits)
    return _plain(box, region.pitches, limits)


def runs(dram: int, sram: int, size: int, limits: DmaLimits) -> list[Rectangle]:
    """`size` consecutive elements, as many at a time as an instruction can name."""
    out = []
    while size:
        # Sizes of fields limit how much one instruction moves.
        n = min(size, limits.x)
        out.append(Rectangle(dram, sram, 1, n, _stride(n, limits)))
        dram, sram, size = dram + n, sram + n, size - n
    return out


def _stride(stride: int, limits: DmaLimits) -> int:
    """What the field of a single row holds: nobody reads it there, so 0 where it does not fit."""
    return stride if stride <= limits.stride else 0


def _plain(box: Box, pitches: tuple[int, ...], limits: DmaLimits) -> list[Rectangle]:
    """Joins dimensions that lie one after the other in DRAM, then one strided dimension per
    rectangle.
    """
    base = sum(a * pitch for (a, _), pitch in zip(box, pitches, strict=True))
    # (length, pitch), innermost first: what is left of the dimensions that hold more than one.
    left = [(b - a, p) for (a, b), p in zip(box, pitches, strict=True) if b - a > 1][::-1]
    run = 1
    # Dimensions that continue the run are part of it.
    while left and left[0][1] == run:
        run *= left.pop(0)[0]
    rows, stride = 1, run
    # One strided dimension is the instruction's own; the rest is one rectangle each.
    if left and left[0][1] > 0:
        rows, stride = left.pop(0)
    out, sram = [], 0
    for pick in itertools.product(*(range(length) for length, _ in left[::-1])):
        at = base + sum(v * p for v, (_, p) in zip(pick, left[::-1], strict=True))
        out += _rows(at, sram, rows, run, stride, limits)
        sram += rows * run
    return out


def _rows(
    dram: int, sram: int, rows: int, run: int, stride: int, limits: DmaLimits
) -> list[Rectangle]:
    # Too wide for one row, or rows too far apart: row by row.
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
