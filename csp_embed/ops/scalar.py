"""An operator by the definition: one point at a time, in Python integers. For tests of tiny
cases.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Access, Operator


def evaluate_slowly(op: Operator, tensors: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """The same answer as `reference.evaluate`, found point by point."""
    arrays = {**op.values, **tensors}
    shape = op.tensors[op.out.tensor].shape
    dtype = np.iinfo(op.tensors[op.lhs.tensor].dtype)
    start = {"max": int(dtype.min), "min": int(dtype.max)}.get(op.kind, 0)
    acc: dict[tuple[int, ...], int] = {}
    where: dict[tuple[int, ...], dict[str, int]] = {}
    # All points, in any order: integer sums do not depend on it.
    for values in product(*(range(n) for n in op.axes.values())):
        point = dict(zip(op.axes, values, strict=True))
        out = _index(op.out, point)
        # At a ragged end a point may have no element.
        if not _inside(out, shape):
            continue
        acc.setdefault(out, start)
        where[out] = point
        factors = [_read(arrays[a.tensor], a, point) for a in (op.lhs, op.rhs) if a is not None]
        # A read outside contributes nothing.
        if None in factors:
            continue
        if op.kind == "contract":
            acc[out] = _wrap(acc[out] + factors[0] * factors[1])
        elif op.kind == "map":
            acc[out] = factors[0]
        else:
            acc[out] = max(acc[out], factors[0]) if op.kind == "max" else min(acc[out], factors[0])
    before, after = np.zeros(shape, np.int64), np.zeros(shape, np.int64)
    for out, value in acc.items():
        before[out] = value
        for step in op.epilogue:
            other = step.imm
            if step.access is not None:
                other = _read(arrays[step.access.tensor], step.access, where[out])
            value = _wrap(_step(step.op, value, int(other or 0)))
        # Low eight bits, as a store keeps them.
        after[out] = (value + 128) % 256 - 128 if op.out_dtype == "int8" else value
    return {"acc": before.astype(np.int32), op.out.tensor: after.astype(op.out_dtype)}


def _index(access: Access, point: Mapping[str, int]) -> tuple[int, ...]:
    return tuple(ix.const + sum(c * point[a] for a, c in ix.terms) for ix in access.index)


def _inside(index: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    return all(0 <= i < n for i, n in zip(index, shape, strict=True))


def _read(array: Any, access: Access, point: Mapping[str, int]) -> Any:
    index = _index(access, point)
    return int(array[index]) if _inside(index, array.shape) else None


def _wrap(value: int) -> int:
    # Into -2^31 .. 2^31 - 1 by modulo, which Python rounds down.
    return (value + 2**31) % 2**32 - 2**31


def _step(op: str, a: int, b: int) -> int:
    if op == "shr":
        return a >> b if b >= 0 else a << -b
    return {"add": a + b, "mul": a * b, "max": max(a, b), "min": min(a, b)}[op]
