"""Random tensors for an operator, such that a wrong sum shows in the result.

x: uniform int8. w: uniform in [-a, a], with a chosen so that the standard deviation of the shifted
sum is about 60. b: uniform in [-64, 64], within its promised range. Where even a = 1 gives wider
sums, most of w is 0; otherwise the clip would hide almost everything.
"""

from __future__ import annotations

from math import prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator, Step

# Within int8, and wide enough that a lost term shows.
SPREAD = 60.0  # standard deviation wanted of the sum behind the shift
WIDE = 110.0  # the same where w must be thinned out: fewer zeros, still mostly within a clip
INT8_SPREAD = sqrt((256**2 - 1) / 12)
BIAS = 64


def random_tensors(op: Operator, seed: int = 0) -> dict[str, NDArray[Any]]:
    """Every operand by name, the operator's own constants included; the result is not.

    The same seed gives the same tensors, whatever else was drawn before.
    """
    rng = np.random.default_rng(seed)
    result: dict[str, NDArray[Any]] = {}
    # By tensor: one may be read by a step and be the first operand of a program.
    steps = {s.access.tensor: s for s in op.epilogue if s.access is not None}
    for name, tensor in op.tensors.items():
        if name == op.out.tensor:
            continue
        if name in op.values:
            result[name] = np.asarray(op.values[name])
        elif op.rhs is not None and name == op.rhs.tensor:
            result[name] = _weights(op, rng)
        elif name in steps and name != op.lhs.tensor:
            drawn = _step_tensor(op, steps[name], rng)
            ends = np.iinfo(tensor.dtype)
            result[name] = drawn.clip(ends.min, ends.max).astype(tensor.dtype)
        elif tensor.dtype == "int8":
            result[name] = rng.integers(-128, 128, tensor.shape, np.int8)
        else:
            # An int32 operand is spread like a sum before the shift.
            reach = min(int(2 * SPREAD) << max(_shift(op), 0), 2**30)
            result[name] = rng.integers(-reach, reach + 1, tensor.shape, np.int32)
    return result


def _shift(op: Operator) -> int:
    """Bits by which the immediate steps shift right in all."""
    return sum(s.imm for s in op.epilogue if s.op == "shr" and s.imm is not None)


def _clipped(op: Operator) -> bool:
    return any(s.op in ("max", "min") for s in op.epilogue)


def _weights(op: Operator, rng: np.random.Generator) -> NDArray[np.int8]:
    """w, from the number of terms of a sum and the shift behind it."""
    assert op.rhs is not None
    shape = op.tensors[op.rhs.tensor].shape
    terms = prod(op.axes[a] for a in op.reduced_axes)
    # A uniform w in [-a, a] has the variance a(a+1)/3.
    # Variances of independent terms add up; each is that of x times that of w.
    variance = (SPREAD * 2.0 ** _shift(op) / INT8_SPREAD) ** 2 / terms
    a = int((sqrt(1 + 12 * variance) - 1) / 2 + 0.5)
    if a >= 1:
        return rng.integers(-min(a, 127), min(a, 127) + 1, shape, np.int8)
    # Without a clip the low bits are kept, which no spread hides.
    if not _clipped(op):
        return rng.integers(-1, 2, shape, np.int8)
    # Most factors 0, the others 1 or -1: the sum stays within the clip.
    share = min(1.0, (WIDE * 2.0 ** _shift(op) / INT8_SPREAD) ** 2 / terms)
    signs = rng.integers(0, 2, shape, np.int8) * np.int8(2) - np.int8(1)
    return signs * (rng.random(shape, np.float32) < share).astype(np.int8)


def _step_tensor(op: Operator, step: Step, rng: np.random.Generator) -> NDArray[np.int32]:
    """The tensor of an epilogue step, as if it were int32: a bias, a bound, a factor or shift
    amounts."""
    assert step.access is not None
    shape = op.tensors[step.access.tensor].shape
    # Amounts up to 7 leave something of the sum.
    if step.op == "shr":
        return rng.integers(0, 8, shape, np.int32)
    if step.op == "mul":
        return rng.integers(-3, 4, shape, np.int32)
    # A promise is kept: streams may rely on it.
    reach = BIAS if step.bias_range is None else min(BIAS, step.bias_range)
    if op.kind == "map" and not op.tensors[step.access.tensor].constant:
        reach = min(int(2 * SPREAD) << max(_shift(op), 0), 2**30)
        reach = reach if step.bias_range is None else min(reach, step.bias_range)
    values = rng.integers(-reach, reach + 1, shape, np.int32)
    # A bound on the far side of 0, so that it cuts some values and not all.
    if step.op in ("max", "min"):
        return (np.abs(values) * (-1 if step.op == "max" else 1)).astype(np.int32)
    return values
