"""An embedding expanded point by point, for the checker alone: shares no code with the search.

Takes: Embedding, Isa, an array of counter values.  Leaves: arrays over (step, instruction point):
which operator point, which tensor elements the operator asks for, which the layouts hold. Tensor
elements are flat indices, -1 outside the tensor (neutral).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.embedding import Coordinate, Embedding, Layout
from csp_embed.ir.operator import Access
from csp_embed.machine.spec import Isa

Ints = NDArray[np.int64]
Bools = NDArray[np.bool_]


@dataclass(frozen=True)
class Lanes:
    """All lane combinations of an instruction, one column each.

    digit: digit -> value per column (0 where pad). pad: dimension -> columns whose lane no digits
    name. lane: dimension -> lane per column. clash: dimensions where two digit combinations name
    one lane, or leave the machine's lanes.
    """

    count: int
    digit: Mapping[str, Ints]
    pad: Mapping[str, Bools]
    lane: Mapping[str, Ints]
    clash: tuple[str, ...]


def lanes_of(embedding: Embedding, sizes: Mapping[str, int]) -> Lanes:
    """The instruction's points, decoded into digits."""
    per_dim: dict[str, tuple[dict[str, Ints], Bools]] = {}
    clash: list[str] = []
    for dim, size in sizes.items():
        digits = [d for d in embedding.digits if d.dim == dim]
        table = {d.name: np.zeros(size, np.int64) for d in digits}
        hits = np.zeros(size, np.int64)
        for values in itertools.product(*(range(d.extent) for d in digits)):
            lane = sum(v * d.radix for v, d in zip(values, digits, strict=True))
            if not 0 <= lane < size:
                clash.append(dim)
                continue
            hits[lane] += 1
            for v, d in zip(values, digits, strict=True):
                table[d.name][lane] = v
        if (hits > 1).any():
            clash.append(dim)
        per_dim[dim] = (table, hits == 0)
    shape = tuple(sizes.values())
    count = math.prod(shape)
    where = np.indices(shape).reshape(len(shape), count) if shape else np.zeros((0, 1), np.int64)
    lane = {dim: where[n] for n, dim in enumerate(sizes)}
    digit: dict[str, Ints] = {}
    pad: dict[str, Bools] = {}
    for dim, (table, empty) in per_dim.items():
        pad[dim] = empty[lane[dim]]
        for name, values in table.items():
            digit[name] = values[lane[dim]]
    return Lanes(count, digit, pad, lane, tuple(dict.fromkeys(clash)))


@dataclass(frozen=True)
class Points:
    """axes: operator axis -> value [step, point]; inside: an operator point, not pad."""

    axes: Mapping[str, Ints]
    inside: Bools


def points(embedding: Embedding, lanes: Lanes, values: Mapping[str, Ints], steps: int) -> Points:
    """Operator points of `steps` steps with the given counter values."""
    inside = np.ones((steps, lanes.count), bool)
    for empty in lanes.pad.values():
        inside &= ~empty[None]
    for first, second in embedding.equal:
        inside &= (lanes.digit[first] == lanes.digit[second])[None]
    axes: dict[str, Ints] = {}
    for c in embedding.coordinates:
        value = _coordinate(c, lanes, values, steps)
        inside &= (value >= 0) & (value < c.extent)
        for axis in reversed(c.axes[1:]):
            value, axes[axis] = np.divmod(value, embedding.operator.axes[axis])
        axes[c.axes[0]] = value
    # A point whose result lies outside the tensor does not exist (phases of a transposed filter).
    out = embedding.operator.out
    inside &= asked(out, embedding.operator.tensors[out.tensor].shape, Points(axes, inside)) >= 0
    return Points(axes, inside)


def _coordinate(c: Coordinate, lanes: Lanes, values: Mapping[str, Ints], steps: int) -> Ints:
    out = np.full((steps, lanes.count), c.const, np.int64)
    for name, coef in c.digits.items():
        out += coef * lanes.digit[name][None]
    for name, coef in c.counters.items():
        out += coef * values[name][:, None]
    return out


def asked(access: Access, shape: Sequence[int], at: Points) -> Ints:
    """Tensor element that the operator names at each point, -1 out of range."""
    indices: list[Ints] = []
    for ix in access.index:
        value = np.full(at.inside.shape, ix.const, np.int64)
        for axis, coef in ix.terms:
            value += coef * at.axes[axis]
        indices.append(value)
    return flat(indices, shape, at.inside.shape)


def flat(indices: Sequence[Ints], shape: Sequence[int], like: tuple[int, ...]) -> Ints:
    """Row-major flat index; -1 where some index is out of range."""
    out, good = np.zeros(like, np.int64), np.ones(like, bool)
    for value, size in zip(indices, shape, strict=True):
        good &= (value >= 0) & (value < size)
        out = out * size + value
    return np.where(good, out, -1)


def met(layout: Layout, values: Mapping[str, Ints], steps: int) -> tuple[Ints, Bools]:
    """Grid index [step, dimension] of the element that each step meets; is it in the grid."""
    index = np.tile(np.array(layout.origin, np.int64), (steps, 1)).reshape(steps, len(layout.grid))
    for name, step in layout.step.items():
        index += values[name][:, None] * np.array(step, np.int64)[None]
    inside = (index >= 0) & (index < np.array(layout.grid, np.int64))
    return index, np.logical_and.reduce(inside, axis=1)


def held(
    layout: Layout, embedding: Embedding, dims: Sequence[str], lanes: Lanes, grid: Ints
) -> Ints:
    """Tensor element in each lane of the elements at `grid` [step, dimension]; -1 neutral."""
    like = (len(grid), lanes.count)
    shape = embedding.operator.tensors[layout.tensor].shape
    indices: list[Ints] = []
    for t in range(len(shape)):
        value = layout.const[t] + grid @ np.array(layout.grid_coef[t], np.int64)
        total = np.tile(value[:, None], (1, lanes.count))
        for name, coef in layout.digit_coef[t].items():
            total += coef * lanes.digit[name][None]
        indices.append(total)
    good = np.ones(like, bool)
    for f in layout.fused:
        value = np.tile(
            (f.const + grid @ np.array(f.grid_coef, np.int64))[:, None], (1, lanes.count)
        )
        for name, coef in f.digit_coef.items():
            value += coef * lanes.digit[name][None]
        good &= (value >= 0) & (value < math.prod(f.extents))
        for axis, extent in zip(reversed(f.axes), reversed(f.extents), strict=True):
            value, digit = np.divmod(value, extent)
            for t, coef in enumerate(f.axis_coef[axis]):
                indices[t] = indices[t] + coef * digit
    for first, second in layout.equal:
        good &= (lanes.digit[first] == lanes.digit[second])[None]
    for dim in dims:
        good &= ~lanes.pad[dim][None]
    return np.where(good, flat(indices, shape, like), -1)


def operand_dims(embedding: Embedding, isa: Isa) -> dict[str, tuple[str, ...]]:
    """Operand -> its lane dimensions (an epilogue's tensors lie where the result does)."""
    dims = {o.role: tuple(o.dims) for o in isa.instruction(embedding.instruction).operands}
    return {r: dims["dst"] if r.startswith("add") else dims[r] for r in embedding.layouts}
