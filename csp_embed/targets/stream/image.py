"""DRAM images: packed tensors in the order that the schedule's loads expect, and results back.

Takes: packed elements per operand ([*grid, *lanes], from `embed.layout.pack`), the Schedule and its
Lowered form.
Leaves: bytes per region.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.ir.embedding import Embedding, Layout
from csp_embed.ir.schedule import BiasLanes, BiasTrick, Identity, Region, Schedule
from csp_embed.machine.spec import Isa
from csp_embed.schedule.bias_in_lanes import parts
from csp_embed.targets.stream.factor import factor
from csp_embed.targets.stream.lower import Lowered

Array = NDArray[Any]


def region_bytes(region: Region, packed: Array) -> NDArray[np.uint8]:
    """packed [*grid, *lanes] as the region lies in DRAM: by boxes, or as one grid in its order."""
    lanes = packed.ndim - len(region.grid)
    axes = (*region.order, *range(len(region.grid), packed.ndim))
    ordered = packed.transpose(axes)
    # A plain grid in its order is a transposition and nothing more.
    if not region.by_box or not region.grid:
        return np.ascontiguousarray(ordered).reshape(-1).view(np.uint8)
    # Boxes one behind the other, each row-major; lanes stay whole.
    parts = [
        ordered[tuple(slice(a, b) for a, b in box)].reshape(
            -1, *ordered.shape[ordered.ndim - lanes :]
        )
        for box in region.boxes
    ]
    return np.concatenate(parts).reshape(-1).view(np.uint8)


def round_bytes(region: Region, packed: Mapping[int, Array]) -> NDArray[np.uint8]:
    """As `region_bytes`, of a region by boxes that has rounds: packed elements of each round."""
    axes = (*region.order, *range(len(region.grid), next(iter(packed.values())).ndim))
    turns = region.rounds or (0,) * len(region.boxes)
    parts = [
        np.ascontiguousarray(
            packed[turn].transpose(axes)[tuple(slice(a, b) for a, b in box)]
        ).reshape(-1)
        for turn, box in zip(turns, region.boxes, strict=True)
    ]
    return np.concatenate(parts).view(np.uint8)


def unpack_region(
    region: Region, data: NDArray[np.uint8], lanes: tuple[int, ...], dtype: str
) -> Array:
    """Inverse of `region_bytes` for a plain region: [*grid of the layout (rounded up), *lanes]."""
    shape = [region.grid[d] for d in region.order]
    ordered = np.ascontiguousarray(data).view(dtype).reshape((*shape, *lanes))
    # Order as a permutation and its inverse; a grid of nothing has neither.
    inverse = np.argsort(region.order) if region.order else np.zeros(0, dtype=np.int64)
    axes = (*(int(i) for i in inverse), *range(len(shape), ordered.ndim))
    packed = ordered.transpose(axes)
    # One grid dimension per counter becomes the layout's own dimensions again.
    if region.splits:
        merged = [math.prod(size for _, size in parts) for parts in region.splits]
        packed = packed.reshape((*merged, *lanes))
    return packed


def place_region(region: Region, packed: Array) -> NDArray[np.uint8]:
    """packed [*grid of the layout, *lanes] as a plain region holds it: inverse of `unpack_region`.

    Elements by which the region's grid is larger than the layout's are 0.
    """
    assert not region.by_box, "only constants lie by boxes"
    # Without splits each dimension is one part of itself.
    splits = region.splits or tuple(((1, size),) for size in region.grid)
    merged = [math.prod(size for _, size in parts) for parts in splits]
    lanes = packed.shape[len(merged) :]
    whole = np.zeros((*merged, *lanes), dtype=packed.dtype)
    whole[tuple(slice(0, size) for size in packed.shape[: len(merged)])] = packed
    split = whole.reshape((*(size for parts in splits for _, size in parts), *lanes))
    axes = (*region.order, *range(len(region.order), split.ndim))
    return np.ascontiguousarray(split.transpose(axes)).reshape(-1).view(np.uint8)


def constant_element(schedule: Schedule, region: Region, isa: Isa) -> NDArray[np.uint8]:
    """The one element of the bias trick's constant: its values along the reduction, repeated."""
    trick = schedule.bias_trick
    assert trick is not None
    memory = isa.memory(region.memory)
    shape = isa.lane_shape(region.memory)
    # The same in every lane that the accumulator has, for each of them adds it.
    out = np.zeros(shape, dtype=memory.dram_dtype)
    return (
        (out + _along_reduction(np.array(trick.values), memory.lanes, isa))
        .astype(memory.dram_dtype)
        .reshape(-1)
        .view(np.uint8)
    )


def identity_element(identity: Identity, region: Region, isa: Isa) -> NDArray[np.uint8]:
    """The one element of the identity: 1 where its two dimensions are equal."""
    memory = isa.memory(region.memory)
    first, second = np.indices(isa.lane_shape(region.memory))[
        [memory.lanes.index(d) for d in identity.dims]
    ]
    return (first == second).astype(memory.dram_dtype).reshape(-1).view(np.uint8)


def narrow_elements(packed: Array, identity: Identity, region: Region, isa: Isa, dst: str) -> Array:
    """Packed accumulator elements [*grid, *accumulator lanes] as elements of the factor by which
    they come in. dst: the accumulators' memory."""
    own, become = identity.dims
    have = isa.memory(dst).lanes
    grid = packed.ndim - len(have)
    memory = isa.memory(region.memory)
    axes = [have.index(become if d == own else d) for d in memory.lanes]
    out = packed.transpose((*range(grid), *(grid + n for n in axes)))
    # A factor with more lanes than the result leaves the last ones 0.
    more = isa.dims[own] - isa.dims[become]
    pads = [(0, 0)] * grid + [(0, more if d == own else 0) for d in memory.lanes]
    return np.ascontiguousarray(np.pad(out, pads) if more else out).astype(memory.dram_dtype)


def fill_idle(packed: Array, lanes: BiasLanes, memory: str, isa: Isa) -> None:
    """Writes the constant into the idle lanes of packed elements [*grid, *lanes]."""
    names = isa.memory(memory).lanes
    by_lane = np.moveaxis(packed, packed.ndim - len(names) + names.index(lanes.dim), -1)
    by_lane[..., list(lanes.lanes)] = lanes.value


def add_parts(
    packed: Array, tensor: Array, lanes: BiasLanes, operand: str, embedding: Embedding, isa: Isa
) -> None:
    """Writes the parts of an epilogue's tensor, packed as accumulators [*grid, *lanes], into the
    idle lanes of the factor's elements `packed`. operand: the tensor's, of the embedding.

    Raises: InputError where a value is out of the promised range.
    """
    held, add = embedding.layouts[lanes.held], embedding.layouts[operand]
    names, have = isa.memory(held.memory).lanes, isa.memory(add.memory).lanes
    # A dimension that the factor lacks does not move the tensor: its first lane stands for all.
    keep = [d for d in names if d != lanes.dim]
    values = tensor[(..., *(slice(None) if d in keep else 0 for d in have))]
    grid = len(add.grid)
    left = [d for d in have if d in keep]
    values = values.transpose((*range(grid), *(grid + left.index(d) for d in keep)))
    try:
        split = parts(values, lanes)
    except ValueError as error:
        raise InputError(
            "an element of the bias is larger than promised",
            why="idle lanes of the contraction add it, which carry a limited range",
            hint="compile with the data, or with a larger --bias-range",
        ) from error
    counters = [c for c in embedding.counters if not c.reduced and any(held.step.get(c.name, ()))]
    sizes = [c.extent for c in counters]
    every = np.indices(sizes).reshape(len(sizes), math.prod(sizes))

    def at(layout: Layout, turn: Mapping[str, int]) -> tuple[Any, ...]:
        """Grid indices for all values of the counters."""
        index = np.zeros((len(layout.grid), every.shape[1]), np.int64)
        index += np.array(layout.origin, np.int64).reshape(-1, 1)
        for name, value in turn.items():
            step = np.array(layout.step.get(name, (0,) * len(index)), np.int64)
            index += step.reshape(-1, 1) * value
        for counter, value in zip(counters, every, strict=True):
            # A grid of no dimensions has an empty step, which NumPy would take for floats.
            step = np.array(layout.step.get(counter.name, (0,) * len(index)), np.int64)
            index += step.reshape(-1, 1) * value
        return tuple(index)

    by_lane = np.moveaxis(packed, len(held.grid) + names.index(lanes.dim), len(held.grid))
    for t, turn in enumerate(lanes.turns):
        here, there = at(held, dict(turn)), at(add, {})
        for n, lane in enumerate(lanes.lanes):
            by_lane[(*here, lane)] = split[t, n][there]


def factor_elements(
    packed: Array, trick: BiasTrick, region: Region, embedding: Embedding, isa: Isa
) -> Array:
    """Packed epilogue values [*grid, *accumulator lanes] as factor elements [*grid, *operand
    lanes].

    Raises: InputError where a value is out of the promised range.
    """
    instruction = isa.instruction(embedding.instruction)
    dst = next(o for o in instruction.operands if o.role == "dst")
    side = next(o for o in instruction.operands if o.role == trick.factor_side)
    grid = packed.ndim - len(dst.dims)
    # The dimension that this operand lacks is constant: its first lane stands for all.
    keep = [d for d in dst.dims if d in side.dims]
    index = tuple(slice(None) if d in side.dims else 0 for d in dst.dims)
    values = packed[(..., *index)]
    try:
        factors = factor(values, trick.values)
    except ValueError as error:
        raise InputError(
            "an element of the bias is larger than promised",
            why="the stream adds it by multiply-accumulate, which carries a limited range",
            hint="compile with the data, or with a larger --bias-range",
        ) from error
    # What the constant is multiplied with along the reduction, one factor a lane.
    reduction = [d for d in side.dims if d not in dst.dims]
    shape = [isa.dims[d] for d in reduction]
    factors = factors.reshape(*factors.shape[:-1], *shape)
    have = [*keep, *reduction]
    memory = isa.memory(region.memory)
    # In the memory's own order of lanes.
    axes = (*range(grid), *(grid + have.index(d) for d in memory.lanes))
    return np.ascontiguousarray(factors.transpose(axes)).astype(memory.dram_dtype)


def _along_reduction(values: Array, lanes: tuple[str, ...], isa: Isa) -> Array:
    """values laid along the lanes that the accumulator lacks, broadcast over the others."""
    contract = isa.of_kind("contract")
    dst = next(o for o in contract.operands if o.role == "dst")
    shape = [isa.dims[d] if d not in dst.dims else 1 for d in lanes]
    return values.reshape(shape)


def before_ranges(
    schedule: Schedule, lowered: Lowered, data: Mapping[int, NDArray[np.uint8]]
) -> tuple[tuple[int, NDArray[np.uint8]], ...]:
    """Micro-ops and every region with bytes in `data`, by address."""
    out = [(lowered.uop_address, lowered.uop_words.view(np.uint8))]
    # Regions without data belong to the host, and are packed when the program runs.
    for n in range(len(schedule.regions)):
        if n in data and len(data[n]):
            out.append((lowered.address[n], data[n]))
    return tuple(sorted(((a, d) for a, d in out if len(d)), key=lambda r: r[0]))
