"""What the host promises about DRAM: which lane holds which element of which tensor.

Takes: a Compiled.  Leaves: the `claims` of a program file's `meta` (docs/program-file.md), affine
maps from lanes to tensor indices. `judge.certify` composes them with the formula; it does not
trust them to be useful, only the host to pack as they say.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from csp_embed.compiler.compiled import Compiled, step_operand
from csp_embed.ir.embedding import Layout
from csp_embed.ir.schedule import BiasLanes, BiasTrick, Region
from csp_embed.machine.spec import Isa

Claim = dict[str, Any]


@dataclass(frozen=True)
class _Loop:
    """One loop over lanes. grid: what it adds to each dimension of the layout's grid; digits: the
    lane digits whose value it is; part: it counts the parts of a value."""

    extent: int
    stride: int
    grid: Mapping[int, int]
    digits: tuple[str, ...] = ()
    part: int = 0


def claims(kernel: Compiled) -> list[Claim]:
    """One claim for each box of bytes that holds elements of a tensor, the result's included.

    Bytes that no claim names are constants of the program, as the file has them.
    """
    out: list[Claim] = []
    trick = kernel.schedule.bias_trick
    for n, region in enumerate(kernel.schedule.regions):
        layout = kernel.embedding.layouts.get(region.operand)
        if layout is None or layout.tensor in kernel.operator.values:
            continue  # Constants that the schedule or the formula states.
        factors = (
            trick
            if trick is not None and region.operand == step_operand(kernel.operator, trick.step)
            else None
        )
        lanes = (
            _lanes(kernel, layout, region) if factors is None else _factors(kernel, factors, region)
        )
        stored = kernel.isa.memory(region.memory).dram_dtype
        item = np.dtype(stored).itemsize
        if region.operand == "dst":
            # Where accumulators themselves are stored, the result is their low bytes.
            # Only the bytes that the formula fixes are claimed.
            item = np.dtype(kernel.operator.tensors[layout.tensor].dtype).itemsize
        elem = kernel.isa.memory(region.memory).elem_bytes
        for address, start, loops in _boxes(region, kernel.lowered.address[n], elem):
            out.append(_claim(layout, address, item, [*loops, *lanes], start, factors))
    if kernel.schedule.bias_lanes is not None:
        out += _parts_in_lanes(kernel, kernel.schedule.bias_lanes)
    return out


def _parts_in_lanes(kernel: Compiled, idle: BiasLanes) -> Iterator[Claim]:
    """Claims for the parts of a tensor in idle lanes of a factor (`add_parts` in
    targets/stream/image.py): one for each box and each step of the sum that carries some."""
    n = kernel.region(idle.held)
    region, isa = kernel.schedule.regions[n], kernel.isa
    held = kernel.embedding.layouts[idle.held]
    add = kernel.embedding.layouts[step_operand(kernel.operator, idle.step)]
    strides = _strides(isa, region.memory)
    item = np.dtype(isa.memory(region.memory).dram_dtype).itemsize
    lanes = [
        _Loop(d.extent, strides[d.dim] * d.radix, {}, (d.name,))
        for d in kernel.embedding.digits
        if d.dim in strides and d.dim != idle.dim
    ]
    lanes.append(_Loop(len(idle.lanes), strides[idle.dim], {}, (), 1))
    moving = [
        c for c in kernel.embedding.counters if not c.reduced and any(held.step.get(c.name, ()))
    ]
    weight, scale = idle.scaled
    elem = isa.memory(region.memory).elem_bytes
    zero = (0,) * len(held.grid)
    for address, start, loops in _boxes(region, kernel.lowered.address[n], elem):
        pitch = [0] * len(held.grid)
        size = [1] * len(held.grid)
        for loop in loops:
            ((g, _),) = loop.grid.items()
            pitch[g], size[g] = loop.stride, loop.extent
        for t, turn in enumerate(idle.turns):
            first = list(held.origin)
            for name, value in turn:
                first = [
                    a + s * value for a, s in zip(first, held.step.get(name, zero), strict=True)
                ]
            bounds = [(0, c.extent) for c in moving]
            for g in range(len(held.grid)):
                mine = [k for k, c in enumerate(moving) if held.step[c.name][g]]
                low, high = start[g] - first[g], start[g] + size[g] - first[g]
                # Values of the counter whose element lies in the box, step by step.
                if len(mine) == 1:
                    (k,) = mine
                    step = held.step[moving[k].name][g]
                    # low <= step * v < high; a counter may walk its dimension backwards.
                    a, b = (low, high) if step > 0 else (1 - high, 1 - low)
                    bounds[k] = (max(bounds[k][0], -(-a // abs(step))),
                                 min(bounds[k][1], -(-b // abs(step))))  # fmt: skip
                elif not low <= 0 < high:
                    bounds = [(0, 0)]
            if any(a >= b for a, b in bounds):
                continue
            at = address + idle.lanes[0] * strides[idle.dim]
            at += sum((f - s) * p for f, s, p in zip(first, start, pitch, strict=True))
            grid = list(add.origin)
            walked: list[_Loop] = []
            for c, (a, b) in zip(moving, bounds, strict=True):
                step = held.step[c.name]
                stride = sum(s * p for s, p in zip(step, pitch, strict=True))
                # From the lowest address on, so that strides are positive.
                begin, way = (b - 1, -1) if stride < 0 else (a, 1)
                at += begin * stride
                more = add.step.get(c.name, (0,) * len(grid))
                grid = [g + s * begin for g, s in zip(grid, more, strict=True)]
                steps = {g: way * s for g, s in enumerate(more)}
                walked.append(_Loop(b - a, way * stride, steps))
            claim = _claim(add, at, item, [*walked, *lanes], grid, None)
            used = [loop for loop in (*walked, *lanes) if loop.extent > 1]
            claim["parts"] = {
                "weights": [weight] * (len(idle.turns) * len(idle.lanes)),
                "scale": scale,
                "index": [t * len(idle.lanes), [loop.part for loop in used]],
            }
            yield claim


def _boxes(region: Region, address: int, elem: int) -> Iterator[tuple[int, list[int], list[_Loop]]]:
    """(address, grid index where it starts, loops over its elements) of every box of a region."""
    splits = region.splits or tuple(((1, size),) for size in region.grid)
    owner = [(g, unit) for g, parts in enumerate(splits) for unit, _ in parts]
    whole = tuple((0, region.grid[d]) for d in region.order)
    # Boxes are laid out one behind the other, each row-major in itself.
    for box in region.boxes if region.by_box and region.grid else (whole,):
        loops: list[_Loop] = []
        start = [0] * len(splits)
        pitch = elem
        # From the innermost dimension outwards, as the pitch grows.
        for d, (a, b) in reversed(list(zip(region.order, box, strict=True))):
            g, unit = owner[d]
            loops.insert(0, _Loop(b - a, pitch, {g: unit}))
            start[g] += a * unit
            pitch *= b - a
        yield address, start, loops
        address += pitch


def _strides(isa: Isa, memory: str) -> dict[str, int]:
    """Bytes from one lane to the next in each dimension of an element in DRAM."""
    found = isa.memory(memory)
    unit = np.dtype(found.dram_dtype).itemsize
    strides: dict[str, int] = {}
    for dim, size in zip(reversed(found.lanes), reversed(isa.lane_shape(memory)), strict=True):
        strides[dim] = unit
        unit *= size
    return strides


def _lanes(kernel: Compiled, layout: Layout, region: Region) -> list[_Loop]:
    """Loops over the lanes of an element that hold anything."""
    strides = _strides(kernel.isa, region.memory)
    identity = kernel.schedule.identity
    if identity is not None and region.operand in identity.operands:
        # The embedding names the lanes that these become.
        own, become = identity.dims
        strides[become] = strides.pop(own)
    digits = {d.name: d for d in kernel.embedding.digits if d.dim in strides}
    partner = dict(layout.equal)
    second = set(partner.values())
    loops: list[_Loop] = []
    for name, digit in digits.items():
        if name in second:
            continue  # On a diagonal two digits move together.
        both = [digits[x] for x in (name, partner.get(name)) if x is not None]
        stride = sum(strides[d.dim] * d.radix for d in both)
        loops.append(_Loop(digit.extent, stride, {}, tuple(d.name for d in both)))
    return loops


def _factors(kernel: Compiled, trick: BiasTrick, region: Region) -> list[_Loop]:
    """Loops over the lanes of an operand that holds an epilogue's tensor as parts that are added
    up by multiply-accumulate (`targets.stream.image.factor_elements`)."""
    instruction = kernel.isa.instruction(kernel.embedding.instruction)
    dst = next(o for o in instruction.operands if o.role == "dst")
    side = next(o for o in instruction.operands if o.role == trick.factor_side)
    strides = _strides(kernel.isa, region.memory)
    # Dimensions that sums and factor share hold the element itself.
    loops = [
        _Loop(d.extent, strides[d.dim] * d.radix, {}, (d.name,))
        for d in kernel.embedding.digits
        if d.dim in dst.dims and d.dim in side.dims
    ]
    unit = 1
    # The others hold the parts of a value, which the machine adds up.
    for dim in reversed([d for d in side.dims if d not in dst.dims]):
        size = kernel.isa.dims[dim]
        loops.append(_Loop(size, strides[dim], {}, (), unit))
        unit *= size
    return loops


def _claim(
    layout: Layout,
    address: int,
    item: int,
    loops: Sequence[_Loop],
    start: Sequence[int],
    trick: BiasTrick | None,
) -> Claim:
    def row(const: int, grid: Sequence[int], digit: Mapping[str, int]) -> list[Any]:
        # A box begins inside the grid: its start goes into the constant.
        const += sum(k * s for k, s in zip(grid, start, strict=True))
        return [
            const,
            [
                sum(grid[g] * unit for g, unit in loop.grid.items())
                + sum(digit.get(d, 0) for d in loop.digits)
                for loop in loops
            ],
        ]

    index = [
        row(c, grid, digits)
        for c, grid, digits in zip(layout.const, layout.grid_coef, layout.digit_coef, strict=True)
    ]
    # Conditions: an element exists only where all of them hold.
    within: list[dict[str, Any]] = []
    for f in layout.fused:
        moved = [list(f.axis_coef[a]) for a in f.axes]
        value = row(f.const, f.grid_coef, f.digit_coef)
        within.append({"extents": list(f.extents), "value": value, "index": moved})
    for g, size in enumerate(layout.grid):
        one = [int(h == g) for h in range(len(layout.grid))]
        const, coef = row(0, one, {})
        reach = const + sum(k * (loop.extent - 1) for k, loop in zip(coef, loops, strict=True))
        if reach >= size:  # The region's grid is larger than the layout's: the rest is neutral.
            nothing = [[0] * len(index)]
            within.append({"extents": [size], "value": [const, coef], "index": nothing})
    # A loop of one value says nothing.
    kept = [n for n, loop in enumerate(loops) if loop.extent > 1]
    for line in [*index, *(w["value"] for w in within)]:
        line[1] = [line[1][n] for n in kept]
    claim: Claim = {
        "tensor": layout.tensor, "addr": address, "item_bytes": item,
        "loops": [[loops[n].extent, loops[n].stride] for n in kept],
        "index": index, "within": within,
    }  # fmt: skip
    if trick is not None:
        claim["parts"] = {
            "weights": list(trick.values), "index": [0, [loops[n].part for n in kept]]
        }  # fmt: skip
    return claim
