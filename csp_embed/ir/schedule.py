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

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Small integers: rows are columns of one array.
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
    row-major (constants only), instead of the plain grid. pitch: elements of DRAM from one index
    to the next of each dimension, in that order; None: those of the grid, row-major. Tensors that
    several operators share lie in the grid of one of them. rounds: of each box, the round of the
    contraction whose constants it holds; empty: all are the first's.
    """

    operand: str
    memory: str
    grid: tuple[int, ...]
    order: tuple[int, ...]
    boxes: tuple[Box, ...]
    by_box: bool
    splits: tuple[tuple[tuple[int, int], ...], ...] = ()
    pitch: tuple[int, ...] | None = None
    rounds: tuple[int, ...] = ()

    def size(self, box: int) -> int:
        """Elements of a box."""
        return math.prod(b - a for a, b in self.boxes[box])

    @property
    def pitches(self) -> tuple[int, ...]:
        """Elements of DRAM from one index to the next, by dimension in `order`."""
        if self.pitch is not None:
            return self.pitch
        # Of the plain grid: the last dimension in `order` is the nearest in DRAM.
        out = [1] * len(self.order)
        for d in range(len(self.order) - 2, -1, -1):
            out[d] = out[d + 1] * self.grid[self.order[d + 1]]
        return tuple(out)


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

    @cached_property
    def touched(self) -> tuple[NDArray[np.int64] | slice, ...]:
        """Elements of each operand that it reads or writes, the result first; resets and immediates
        have the result alone, whatever the micro-op field of a second operand says."""
        alone = self.reset or self.imm is not None
        return tuple(self._elements(k) for k in range(1 if alone else len(self.factors)))

    def _elements(self, operand: int) -> NDArray[np.int64] | slice:
        outer, inner = self.factors[operand]
        steps = (
            self.uops[:, operand, None, None]
            + outer * np.arange(self.iter_out)[None, :, None]
            + inner * np.arange(self.iter_in)[None, None, :]
        )
        return distinct(steps)


def distinct(numbers: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """Which numbers there are, as an index: a slice where no number between them is missing."""
    low, high = int(numbers.min()), int(numbers.max())
    seen = np.zeros(high - low + 1, bool)
    seen[numbers - low] = True
    return slice(low, high + 1) if seen.all() else low + np.flatnonzero(seen)


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
class BiasLanes:
    """A tensor step of the epilogue done by lanes of the reduction that the embedding leaves idle:
    constants in one factor meet parts of the tensor in the other, within the steps of the sum.

    step: number of the epilogue step; shift: of the sum behind which it adds: the parts make the
    tensor times 2^shift. role: the factor whose idle lanes hold `value`; held: the other one. dim,
    lanes: the dimension that the contraction sums over, and its idle lanes. turns: values of the
    reduced counters of the steps that carry parts, by name.
    """

    step: int
    shift: int
    role: str
    held: str
    dim: str
    lanes: tuple[int, ...]
    value: int
    turns: tuple[tuple[tuple[str, int], ...], ...]

    @property
    def scaled(self) -> tuple[int, int]:
        """(weight, scale): weight times all parts is scale times the tensor, in least terms."""
        common = math.gcd(self.value, 1 << self.shift)
        return self.value // common, (1 << self.shift) // common


@dataclass(frozen=True)
class Identity:
    """Operands of the accumulators that come in by a contraction with an identity matrix: as narrow
    as a factor, through its memory and queue, where a load would need them as wide as sums.

    role: the factor that they play; held: the other one, which is 1 where its two dimensions are
    equal. dims: the dimension that the contraction sums over, and the accumulators' dimension that
    it becomes. operands: keys of `Embedding.layouts`, whose lanes keep the accumulators' names.
    """

    role: str
    held: str
    dims: tuple[str, str]
    operands: tuple[str, ...]


@dataclass(frozen=True)
class Schedule:
    """See the module's text. tile: counter -> tile extents; stats: figures for reports."""

    regions: tuple[Region, ...]
    templates: tuple[Template, ...]
    ops: NDArray[np.int64]
    tokens: NDArray[np.int64]
    bias_trick: BiasTrick | None = None
    bias_lanes: BiasLanes | None = None
    identity: Identity | None = None
    tile: Mapping[str, int] = field(default_factory=dict[str, int])
    stats: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def verify(self) -> list[str]:
        """What is wrong with its form, as text; [] where it is well formed. Whether the order of
        rows and tokens is right is for `judge.tokens` to say."""
        if self.ops.ndim != 2 or self.ops.shape[1] != 4 or len(self.tokens) != len(self.ops):
            # What follows reads columns, so their shape comes first.
            return [f"{self.ops.shape} numbers in rows, {len(self.tokens)} tokens"]
        wrong = [text for n, r in enumerate(self.regions) for text in _region_breaches(n, r)]
        for n, t in enumerate(self.templates):
            if (
                t.uops.ndim != 2
                or t.uops.shape[1] != len(t.factors)
                or min(t.iter_out, t.iter_in) < 1
            ):
                # Counts of 0 do nothing in simulators and run for ages on hardware (docs/vta.md).
                wrong.append(f"template {n}: {t.uops.shape} micro-ops, {len(t.factors)} operands")
        # Columns at once: a schedule may have a hundred thousand rows.
        kind, first, second, sram = self.ops.T
        if not np.isin(kind, (LOAD, COMPUTE, STORE, FINISH)).all():
            wrong.append("a row is of no known kind")
        # A bit of no meaning would be lost in the instruction, or become another field's.
        if (self.tokens & ~(POP_PREV | POP_NEXT | PUSH_PREV | PUSH_NEXT)).any():
            # Transfers name a region, computations a template.
            wrong.append("a row has token bits of no meaning")
        compute, moves = kind == COMPUTE, (kind == LOAD) | (kind == STORE)
        if not _within(first[compute], len(self.templates)):
            wrong.append("a row runs an unknown template")
        boxes = np.array([len(r.boxes) for r in self.regions], np.int64)
        if not _within(first[moves], len(boxes)):
            wrong.append("a row moves boxes of an unknown region")
        elif ((second[moves] < 0) | (second[moves] >= boxes[first[moves]])).any():
            # Only where all regions are known: else this would index beyond them.
            wrong.append("a row moves an unknown box")
        if (sram[moves] < 0).any():
            wrong.append("a row names an element below 0")
        return wrong

    def show(self) -> str:
        """The tile, then what is moved and computed: one line for each region and instruction."""
        tile = " ".join(f"{k}={v}" for k, v in self.tile.items())
        kind, first = self.ops[:, 0], self.ops[:, 1]
        lines = [f"tile {tile}; {len(self.ops)} rows, {len(self.templates)} compute templates"]
        for n, region in enumerate(self.regions):
            mine = first == n
            loads, stores = ((kind == k) & mine for k in (LOAD, STORE))
            grid = "x".join(map(str, region.grid)) or "1"
            lines.append(
                f"  {region.operand} in {region.memory}: {grid} elements, "
                f"{len(region.boxes)} boxes, {int(loads.sum())} loads, {int(stores.sum())} stores"
            )
        # Templates are shared: how often each runs is in the rows.
        runs = np.bincount(first[kind == COMPUTE], minlength=len(self.templates))
        for name in dict.fromkeys((t.instruction, t.op) for t in self.templates):
            mine = [n for n, t in enumerate(self.templates) if (t.instruction, t.op) == name]
            steps = sum(int(runs[n]) * self.templates[n].steps for n in mine)
            text = " ".join(filter(None, name))
            lines.append(f"  {text}: {int(runs[mine].sum())} instructions, {steps} steps")
        return "\n".join(lines)


def _within(numbers: NDArray[np.int64], count: int) -> bool:
    return bool(((numbers >= 0) & (numbers < count)).all())


def _region_breaches(number: int, region: Region) -> list[str]:
    """Grid dimensions and boxes that do not fit together."""
    what = f"region {number} ({region.operand})"
    if sorted(region.order) != list(range(len(region.grid))):
        return [f"{what}: order {region.order} is no order of {len(region.grid)} dimensions"]
    sizes = [region.grid[d] for d in region.order]
    # The first one is enough to find the mistake.
    bad = [
        box for box in region.boxes
        if len(box) != len(sizes)
        or any(not 0 <= a < b <= n for (a, b), n in zip(box, sizes, strict=True))
    ]  # fmt: skip
    return [f"{what}: box {bad[0]} does not lie in {sizes}"] if bad else []
