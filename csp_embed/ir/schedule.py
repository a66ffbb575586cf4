"""A schedule: which box of which operand is loaded where and when, which compute instructions run
on it, what
is stored, and the tokens that order the modules. Emission only turns it into bytes.

Rows of `ops` are small integers so that schedules of a hundred thousand instructions stay cheap:
    (LOAD, region, box, sram)      bring box number `box` of `regions[region]` to element `sram`
    (COMPUTE, template, 0, 0)      run `templates[template]`
    (STORE, region, box, sram)     write element range at `sram` to that box
    (FINISH, 0, 0, 0)
`tokens[n]` holds the bits POP_PREV | POP_NEXT | PUSH_PREV | PUSH_NEXT of row n. A row of LOAD or
STORE may need
several instructions (rectangles): the pops go to the first and the pushes to the last.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

LOAD, COMPUTE, STORE, FINISH = 0, 1, 2, 3
POP_PREV, POP_NEXT, PUSH_PREV, PUSH_NEXT = 1, 2, 4, 8

Box = tuple[tuple[int, int], ...]
"""Half-open index ranges, one per grid dimension, in the region's `order`."""


@dataclass(frozen=True)
class Region:
    """One packed tensor in DRAM.

    operand: key of `Embedding.layouts`, or "const0" and the like for operands that the schedule
    adds.
    order: the grid's dimensions from outermost to innermost in DRAM. boxes: those that rows name,
    in that order of dimensions. by_box: DRAM holds the boxes one after the other, each whole and
    row-major (constants only), instead of the plain grid.
    """

    operand: str
    memory: str
    grid: tuple[int, ...]
    order: tuple[int, ...]
    boxes: tuple[Box, ...]
    by_box: bool
    splits: tuple[tuple[tuple[int, int], ...], ...] = ()


@dataclass(frozen=True)
class Template:
    """A compute instruction but for where its micro-ops lie.

    uops: [n, operands] element addresses, one column per operand of the instruction, dst first.
    factors: per operand (outer, inner). op: name of a map operation, "" for a contraction.
    """

    instruction: str
    uops: NDArray[np.int64]
    iter_out: int
    iter_in: int
    factors: tuple[tuple[int, int], ...]
    reset: bool = False
    op: str = ""
    imm: int | None = None

    @property
    def steps(self) -> int:
        return len(self.uops) * self.iter_out * self.iter_in


@dataclass(frozen=True)
class BiasTrick:
    """A tensor step of the epilogue done by multiply-accumulate against a constant.

    step: number of the epilogue step. values: the constant lane values along the reduction
    dimension; the
    tensor's factors are packed beside them. factor_side: "rhs" or "lhs", the operand that holds the
    factors.
    """

    step: int
    values: tuple[int, ...]
    factor_side: str


@dataclass(frozen=True)
class Schedule:
    """See the module's text. tile: counter -> tile extents; stats: figures for reports."""

    regions: tuple[Region, ...]
    templates: tuple[Template, ...]
    ops: NDArray[np.int64]
    tokens: NDArray[np.int64]
    bias_trick: BiasTrick | None = None
    tile: Mapping[str, int] = field(default_factory=dict)
    stats: Mapping[str, Any] = field(default_factory=dict)

    def show(self) -> str:
        tile = " ".join(f"{k}={v}" for k, v in self.tile.items())
        return f"tile {tile}; {len(self.ops)} rows, {len(self.templates)} compute templates"
