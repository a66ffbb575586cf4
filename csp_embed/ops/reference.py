"""What an operator computes, by NumPy. Shares nothing with the compiler but the `Operator` type.

Sums of int8 products are exact in float32 while they stay within 2**24, and so go through BLAS;
blocks of them are added in wrap-around int32.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import DTypeLike, NDArray

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Access, Operator, Tensor

Array = NDArray[Any]
Ranges = Mapping[str, slice]
# Converted by blocks: a float32 copy of everything would be four times as large.
BLOCK = 1 << 22  # elements of one operand converted at a time
# Sums up to 2^24 are exact in float32; a product of two int8 is 2^14 at most.
FLOAT32_TERMS = 2**24 // 2**14  # so many products of int8 have a sum that float32 holds


def evaluate(op: Operator, tensors: Mapping[str, Any]) -> dict[str, Array]:
    """The operator's values.

    Shapes: tensors by their names in the formula, of the operator's shapes, int8 or int32 as the
        operator says (wider integers are taken if their values fit). The operator's own constants
        may be left out.
    Returns: {"acc": int32 accumulators before the epilogue, <result's name>: int8}, both in the
        shape of the result. All arithmetic wraps around at 32 bits, shifts right are arithmetic.
    Raises: OperatorError for a tensor that is missing or of another shape or type.
    """
    arrays = {
        t.name: checked(t, tensors, op.values)
        for t in op.tensors.values()
        if t.name != op.out.tensor
    }
    # One dimension for each output axis; indices that join axes are applied at the end.
    outs = list(op.out_axes)
    extents = [op.axes[a] for a in outs]
    if op.kind == "contract":
        acc = _contract(op, arrays, outs)
    elif op.kind == "map":
        view = _view(arrays[op.lhs.tensor], op.lhs, outs, op.axes, 0)
        acc = np.array(view, np.int32).reshape(extents)
    else:
        acc = _extreme(op, arrays, outs)
    # `acc` is handed out as well.
    result = acc.copy()
    for step in op.epilogue:
        other: Array | np.int32
        if step.access is None:
            assert step.imm is not None
            other = np.int32(step.imm)
        else:
            other = _view(arrays[step.access.tensor], step.access, outs, op.axes, 0)
            other = other.astype(np.int32)
        result = _apply(step.op, result, other)
    shape = op.tensors[op.out.tensor].shape
    # astype keeps the low bits, as a store does.
    return {
        "acc": _as_tensor(op, acc, shape),
        op.out.tensor: _as_tensor(op, result, shape).astype(op.out_dtype),
    }


def checked(t: Tensor, tensors: Mapping[str, Any], values: Mapping[str, Any]) -> Array:
    """The tensor's array in the operator's shape and type."""
    given = tensors.get(t.name)
    if given is None:
        given = values.get(t.name)
    if given is None:
        raise OperatorError(
            f"tensor {t.name} is missing",
            hint=f"give {t.name} as {t.dtype} {'x'.join(map(str, t.shape))}",
        )
    array = np.asarray(given)
    if array.shape != t.shape:
        raise OperatorError(
            f"tensor {t.name} has shape {array.shape}, needed is {t.shape}",
            hint=f"reshape it, or declare --shape {t.name}={','.join(map(str, array.shape))}",
        )
    if array.dtype == t.dtype:
        return array
    bounds = np.iinfo(t.dtype)
    if array.dtype.kind not in "iu" or (
        array.size and (array.min() < bounds.min or array.max() > bounds.max)
    ):
        raise OperatorError(
            f"tensor {t.name} is {array.dtype}, needed is {t.dtype}",
            why=f"its values do not fit {t.dtype}" if array.dtype.kind in "iu" else "",
            hint=f"{t.name}.astype('{t.dtype}')"
            if array.dtype.kind == "f"
            else f"values within {t.dtype}",
        )
    return array.astype(t.dtype)


def _apply(op: str, a: Array, b: Array | np.int32) -> Array:
    """One epilogue step on int32, wrapping around."""
    if op == "shr":
        if not isinstance(b, np.ndarray):
            # NumPy shifts by negative amounts without meaning; the notation means left.
            return np.right_shift(a, b) if b >= 0 else np.left_shift(a, -b)
        if (b < 0).any() or (b > 31).any():
            raise OperatorError(
                "a tensor of shift amounts has values outside 0..31", hint="clip them to 0..31"
            )
        return np.right_shift(a, b)
    function = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[op]
    # dtype: int32 arithmetic wraps, as the machine's does.
    return function(a, b, dtype=np.int32)


def _as_tensor(op: Operator, values: Array, shape: tuple[int, ...]) -> Array:
    """From one dimension per axis to the result's shape: mixed-radix indices are joined, ends
    cut.
    """
    at = 0
    order: list[int] = []
    joined: list[int] = []
    for ix in op.out.index:
        terms = list(enumerate(ix.terms, start=at))
        # Large strides first: row-major order of the joined index.
        order += [n for n, _ in sorted(terms, key=lambda t: -t[1][1])]
        joined.append(prod(op.axes[a] for a, _ in ix.terms))
        at += len(ix.terms)
    return values.transpose(order).reshape(joined)[tuple(slice(n) for n in shape)].copy()


def _view(
    array: Array, access: Access, axes: Sequence[str], extents: Mapping[str, int], neutral: int
) -> Array:
    """The elements that an access reads, one dimension per axis, without copying if it can.

    Reads outside the array give `neutral`: the array is padded as far as they reach, or, where they
    reach far, gathered element by element.
    """
    sizes = [extents[a] for a in axes]
    pads: list[tuple[int, int]] = []
    for ix, n in zip(access.index, array.shape, strict=True):
        steps = [c * (extents[a] - 1) for a, c in ix.terms]
        lo, hi = ix.const + sum(min(s, 0) for s in steps), ix.const + sum(max(s, 0) for s in steps)
        pads.append((max(0, -lo), max(0, hi - n + 1)))
    padded = prod(n + sum(p) for n, p in zip(array.shape, pads, strict=True))
    # A far reach would make a padded copy of many times the size.
    if padded > 2 * array.size + BLOCK:
        return _gather(array, access, axes, extents, neutral)
    if any(p != (0, 0) for p in pads):
        array = np.pad(array, pads, constant_values=neutral)
    array = np.ascontiguousarray(array)
    start = tuple(ix.const + p[0] for ix, p in zip(access.index, pads, strict=True))
    strides = [
        sum(ix.coef(a) * s for ix, s in zip(access.index, array.strides, strict=True)) for a in axes
    ]
    offset = sum(i * s for i, s in zip(start, array.strides, strict=True))
    # Negative strides are legal for NumPy, and describe indices such as 2-r.
    # Begins at the element of the axes' zeros; negative coefficients walk back from there.
    first = np.ndarray((1,), array.dtype, array, offset)
    return as_strided(first, sizes, strides, writeable=False)


def _gather(
    array: Array, access: Access, axes: Sequence[str], extents: Mapping[str, int], neutral: int
) -> Array:
    """The same as `_view`, by index arrays."""
    shape = [extents[a] for a in axes]
    grids = dict(zip(axes, np.ogrid[tuple(slice(n) for n in shape)], strict=True))
    inside: Array = np.ones([1] * len(shape), np.bool_)
    where: Array = np.zeros([1] * len(shape), np.int64)
    for ix, n in zip(access.index, array.shape, strict=True):
        value = ix.const + sum(c * grids[a] for a, c in ix.terms)
        inside = inside & (value >= 0) & (value < n)
        where = where * n + value
    # Outside: any element will do, it is masked.
    picked = array.reshape(-1)[np.where(inside, where, 0)]
    return np.broadcast_to(np.where(inside, picked, array.dtype.type(neutral)), shape)


def _blocks(axes: Sequence[str], extents: Mapping[str, int], budget: int) -> Iterator[Ranges]:
    """The box of the axes cut into boxes of at most `budget` points, inner axes kept whole."""
    choices: list[list[slice]] = []
    for axis in reversed(axes):
        n = extents[axis]
        step = min(n, max(1, budget))
        # Inner axes whole first, as long as the budget lasts.
        choices.append([slice(i, min(i + step, n)) for i in range(0, n, step)])
        budget //= step
    for picked in product(*reversed(choices)):
        yield dict(zip(axes, picked, strict=True))


def _contract(op: Operator, arrays: Mapping[str, Array], outs: list[str]) -> Array:
    """The sums of products, one dimension per output axis, wrap-around int32."""
    assert op.rhs is not None
    left, right = _axes(op.lhs), _axes(op.rhs)
    batch = [a for a in outs if a in left and a in right]
    rows = [a for a in outs if a in left and a not in right]
    columns = [a for a in outs if a in right and a not in left]
    sums = [a for a in op.axes if a not in outs and a in left and a in right]
    # Axes that one operand alone has: summed before the product.
    alone = [[a for a in op.axes if a not in outs and a in s and a not in t]
             for s, t in ((left, right), (right, left))]  # fmt: skip
    x = _view(arrays[op.lhs.tensor], op.lhs, batch + rows + sums + alone[0], op.axes, 0)
    w = _view(arrays[op.rhs.tensor], op.rhs, batch + columns + sums + alone[1], op.axes, 0)
    x, w = _summed(x, len(alone[0])), _summed(w, len(alone[1]))
    acc = np.zeros([op.axes[a] for a in batch + rows + columns], np.int32)
    # int8 factors, few at a time, are exact in float32; sums over lone axes are not, and are rare.
    short = x.dtype == w.dtype == np.int8
    dtype = np.float32 if short else np.int64
    terms = min(prod(op.axes[a] for a in sums), FLOAT32_TERMS if short else BLOCK)
    # Blocks bound the float copies, whatever the size of the operands.
    for outer in _blocks(batch + rows, op.axes, BLOCK // terms):
        batches = prod(outer[a].stop - outer[a].start for a in batch)
        for inner in _blocks(columns, op.axes, BLOCK // (terms * batches)):
            box = {**outer, **inner}
            for k in _blocks(sums, op.axes, terms):
                a = _matrix(x, batch, rows, sums, {**box, **k}, dtype)
                b = _matrix(w, batch, columns, sums, {**box, **k}, dtype)
                # Through int64: a float beyond int32 has no defined cast.
                block = (a @ b.swapaxes(1, 2)).astype(np.int64).astype(np.int32)
                part = acc[(..., *(box[n] for n in batch + rows + columns))]
                part += block.reshape(part.shape)
    order = [(batch + rows + columns).index(a) for a in outs]
    return acc.transpose(order)


def _axes(access: Access) -> set[str]:
    return {a for ix in access.index for a, _ in ix.terms}


def _summed(view: Array, count: int) -> Array:
    """Sums over the last `count` axes: those that only this operand has."""
    return view.sum(axis=tuple(range(-count, 0)), dtype=np.int64) if count else view


def _matrix(
    view: Array, batch: list[str], free: list[str], sums: list[str], box: Ranges, dtype: DTypeLike
) -> Array:
    """A box of a view as [batch, free, sums] of type dtype."""
    part = view[tuple(box[a] for a in batch + free + sums)]
    cuts = (len(batch), len(batch) + len(free))
    groups = (part.shape[: cuts[0]], part.shape[cuts[0] : cuts[1]], part.shape[cuts[1] :])
    made: Array = part.astype(dtype, order="C")
    return made.reshape([prod(g) for g in groups])


def _extreme(op: Operator, arrays: Mapping[str, Array], outs: list[str]) -> Array:
    """Maxima or minima over the reduced axes, int32."""
    array = arrays[op.lhs.tensor]
    limits = np.iinfo(array.dtype)
    # The neutral element never wins, wherever it stands.
    neutral = limits.min if op.kind == "max" else limits.max
    reduced = [a for a in op.axes if a not in outs]
    view = _view(array, op.lhs, outs + reduced, op.axes, int(neutral))
    result = np.full([op.axes[a] for a in outs], neutral, np.int32)
    function = np.maximum if op.kind == "max" else np.minimum
    for taps in product(*(range(op.axes[a]) for a in reduced)):
        function(result, view[(..., *taps)], out=result)
    return result
