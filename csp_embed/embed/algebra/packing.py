"""Packs logical tensors into the memory elements that a layout asks for, and back.

Takes: a Layout, its Embedding, the Isa and a NumPy array.  Leaves: ndarray of shape
[*grid, *lane sizes] (or the logical tensor). A layout is affine, so its whole content is one
strided view of the tensor inside a neutral border: one copy packs it. Fused coordinates are walked
value by value, each a strided view of its own.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.ir.affine import reach
from csp_embed.ir.embedding import Digit, Embedding, Fused, Layout
from csp_embed.ir.operator import Role
from csp_embed.machine.spec import Isa

Array = NDArray[Any]


def lane_shape(layout: Layout, isa: Isa) -> tuple[int, ...]:
    """Lanes of one element by dimension of its memory."""
    return isa.lane_shape(layout.memory)


def neutral(layout: Layout, embedding: Embedding) -> int:
    """What an element that is no tensor element holds: 0, or the extreme int8 for max and min."""
    # Pools compare: a 0 in the border could win, the extreme never does.
    if layout.operand != Role.LHS:
        return 0
    return {"max": -128, "min": 127}.get(embedding.operator.kind, 0)


def pack(
    layout: Layout, embedding: Embedding, isa: Isa, array: Array, dtype: str | None = None
) -> Array:
    """The memory elements of one operand.

    Shapes: array as the operator's tensor; returns [*layout.grid, *lane sizes] in the memory's DRAM
    type (int8 tensors that go to an int32 memory are widened), or in `dtype`: numbers of elements.
    Raises: InputError, where the array is not of the tensor's shape.
    """
    shape = embedding.operator.tensors[layout.tensor].shape
    if array.shape != shape:
        what = f"{layout.tensor} has shape {array.shape}"
        raise InputError(
            what,
            why=f"the operator declares {shape}",
            hint="pass the tensor as the operator declares it",
        )
    held = np.dtype(dtype or isa.memory(layout.memory).dram_dtype)
    fill = neutral(layout, embedding)
    # Filled first: what no view touches is pad and has to be neutral.
    out = np.full((*layout.grid, *lane_shape(layout, isa)), fill, dtype=held)
    window = _Window.of(layout, embedding)
    # Widening before the copy, so that one strided copy does the whole tensor.
    padded = window.pad(array.astype(held, copy=False), fill)
    for lanes, source in _views(layout, embedding, isa, window, out, padded):
        np.copyto(lanes, source)
    return out


def unpack(layout: Layout, embedding: Embedding, isa: Isa, packed: Array) -> Array:
    """The logical tensor of packed elements (any type): inverse of `pack` without duplicates.

    Shapes: packed [*layout.grid, *lane sizes]; returns the tensor's shape.
    """
    expected = (*layout.grid, *lane_shape(layout, isa))
    if packed.shape != expected:
        raise InputError(
            f"packed {layout.tensor} has shape {packed.shape}",
            why=f"not {expected}",
            hint="pack the tensor with this layout first",
        )
    window = _Window.of(layout, embedding)
    # Views are made from strides, so the memory has to be contiguous.
    packed = np.ascontiguousarray(packed).reshape(expected)  # a 0-d array would become 1-d
    padded = np.zeros(window.shape, dtype=packed.dtype)
    for lanes, target in _views(layout, embedding, isa, window, packed, padded):
        np.copyto(target, lanes)
    return np.ascontiguousarray(padded[window.inside])


@dataclass(frozen=True)
class _Window:
    """The tensor's box, widened to all indices that some lane names."""

    low: tuple[int, ...]
    shape: tuple[int, ...]
    tensor: tuple[int, ...]

    @staticmethod
    def of(layout: Layout, embedding: Embedding) -> _Window:
        extent = {d.name: d.extent for d in embedding.digits}
        tensor = embedding.operator.tensors[layout.tensor].shape
        lows: list[int] = []
        shape: list[int] = []
        for t, size in enumerate(tensor):
            parts = list(zip(layout.grid_coef[t], layout.grid, strict=True))
            parts += [(c, extent[d]) for d, c in layout.digit_coef[t].items()]
            for f in layout.fused:
                # Fused axes move indices as digits do, by each value once.
                pairs = zip(f.axes, f.extents, strict=True)
                parts += [(f.axis_coef[a][t], n) for a, n in pairs]
            low, high = reach(parts, layout.const[t])
            # At least the tensor itself, or unpacking could not give all of it back.
            low, high = min(0, low), max(size - 1, high)
            lows.append(low)
            shape.append(high - low + 1)
        return _Window(tuple(lows), tuple(shape), tensor)

    @property
    def inside(self) -> tuple[slice, ...]:
        pairs = zip(self.low, self.tensor, strict=True)
        return tuple(slice(-low, size - low) for low, size in pairs)

    def pad(self, array: Array, fill: int) -> Array:
        if self.shape == self.tensor:
            return np.ascontiguousarray(array)
        out = np.full(self.shape, fill, dtype=array.dtype)
        out[self.inside] = array
        return out


def _views(
    layout: Layout, embedding: Embedding, isa: Isa, window: _Window, packed: Array, padded: Array
) -> Iterator[tuple[Array, Array]]:
    """Pairs of equally shaped views (packed lanes, window of the tensor), the whole content."""
    digits = _digits(layout, embedding, isa)
    partner = {second: first for first, second in layout.equal}
    lane_dims = isa.memory(layout.memory).lanes
    strides = dict(zip(lane_dims, packed.strides[len(layout.grid) :], strict=True))
    fixed_of = _fixed(layout, digits)
    # Digits with a value in some fused combination are no loops of the view; partners move with
    # their digit.
    held = {d for values in fixed_of for d in values[0]}
    free = [d for d in digits if d.name not in held and d.name not in partner]
    for fixed, slices, offset in fixed_of:
        shape: list[int] = []
        here: list[int] = []
        there: list[int] = []
        start_here, start_there = 0, 0
        for d, g in enumerate(layout.grid):
            coef = [row[d] for row in layout.grid_coef]
            step = _dot(coef, padded.strides)
            low, count = slices.get(d, (0, g))
            start_here += packed.strides[d] * low
            start_there += step * low
            shape.append(count)
            here.append(packed.strides[d])
            there.append(step)
        for digit in free:
            coef = [row.get(digit.name, 0) for row in layout.digit_coef]
            shape.append(digit.extent)
            lane = strides[digit.dim] * digit.radix
            # On a diagonal both dimensions advance together: one loop with the sum of their
            # strides.
            for second, first in partner.items():
                if first == digit.name:
                    other = next(d for d in digits if d.name == second)
                    lane += strides[other.dim] * other.radix
            here.append(lane)
            there.append(_dot(coef, padded.strides))
        # Fixed digits only shift where the view begins.
        for digit in digits:
            if digit.name in fixed:
                value = fixed[digit.name]
                lane = strides[digit.dim] * digit.radix
                coef = [row.get(digit.name, 0) for row in layout.digit_coef]
                start_here += lane * value
                start_there += _dot(coef, padded.strides) * value
                for second, first in partner.items():
                    if first == digit.name:
                        other = next(d for d in digits if d.name == second)
                        start_here += strides[other.dim] * other.radix * value
        origin = [c - low + o for c, low, o in zip(layout.const, window.low, offset, strict=True)]
        start_there += _dot(origin, padded.strides)
        yield _at(packed, start_here, shape, here), _at(padded, start_there, shape, there)


def _at(array: Array, offset: int, shape: list[int], strides: list[int]) -> Array:
    # A flat view first: as_strided on a slice keeps the buffer's end, and numbers stay elements.
    flat = as_strided(array, (array.nbytes // array.itemsize,), (array.itemsize,))
    return as_strided(flat[offset // array.itemsize :], shape, strides)


def _dot(a: Any, b: Any) -> int:
    return sum(int(x) * int(y) for x, y in zip(a, b, strict=True))


def _digits(layout: Layout, embedding: Embedding, isa: Isa) -> list[Digit]:
    """The digits of the operand's lanes that are not alone in repeating it: all that it has."""
    dims = isa.memory(layout.memory).lanes
    return [d for d in embedding.digits if d.dim in dims]


_Fixed = tuple[dict[str, int], dict[int, tuple[int, int]], list[int]]


def _fixed(layout: Layout, digits: list[Digit]) -> list[_Fixed]:
    """One entry per combination of values of the fused coordinates: digit values, grid ranges
    (dimension -> first, count) and what they add to each tensor index. One entry if none."""
    extent = {d.name: d.extent for d in digits}
    rank = len(layout.const)
    out: list[_Fixed] = [({}, {}, [0] * rank)]
    for f in layout.fused:
        values = list(_fused_values(layout, f, extent))
        out = [
            ({**a[0], **b[0]}, {**a[1], **b[1]}, [x + y for x, y in zip(a[2], b[2], strict=True)])
            for a, b in itertools.product(out, values)
            # Two fused coordinates may share a digit or grid dimension, and must agree there.
            if _agree(a[0], b[0]) and _agree(a[1], b[1])
        ]
    return out


def _agree(a: Mapping[Any, Any], b: Mapping[Any, Any]) -> bool:
    return all(b[k] == v for k, v in a.items() if k in b)


def _fused_values(layout: Layout, f: Fused, extent: dict[str, int]) -> Iterator[_Fixed]:
    """Every (grid, digits) combination of one fused coordinate that is in range."""
    dims = [d for d, c in enumerate(f.grid_coef) if c]
    ranges = [range(layout.grid[d]) for d in dims] + [range(extent[n]) for n in f.digit_coef]
    coefs = [f.grid_coef[d] for d in dims] + list(f.digit_coef.values())
    total = math.prod(f.extents)
    for values in itertools.product(*ranges):
        z = f.const + _dot(coefs, values)
        # Values beyond the fused extent are lanes of the ragged last round.
        if not 0 <= z < total:
            continue
        moved = [0] * len(layout.const)
        rest = z
        # Row-major: the last axis runs fastest, as the coordinate's definition says.
        for axis, n in zip(reversed(f.axes), reversed(f.extents), strict=True):
            rest, value = divmod(rest, n)
            moved = [m + c * value for m, c in zip(moved, f.axis_coef[axis], strict=True)]
        slices = {d: (v, 1) for d, v in zip(dims, values, strict=False)}
        yield dict(zip(f.digit_coef, values[len(dims) :], strict=True)), slices, moved
