"""Another formula for the same program: its steps, its indices, its promises. And whether two
formulas are one function after all, by NumPy and ranges found here.
"""

from __future__ import annotations

import math
import random
from dataclasses import replace

import numpy as np

from csp_embed.ir.affine import Affine
from csp_embed.ir.operator import Operator, Step
from csp_embed.ops.reference import evaluate

FORMULA_KINDS = ("formula", "steps", "index", "promise")


def other_formula(op: Operator, kind: str, rng: random.Random) -> tuple[str, Operator] | None:
    """(what was changed, the changed formula); None where there is nothing of this kind."""
    make = {"formula": _constant, "steps": _steps, "index": _index, "promise": _promise}[kind]
    found = make(op, rng)
    if found is None or found[1].verify() or not _stated(found[1]):
        return None
    return found


def _stated(op):
    """Whether the notation can say it: an operand has each axis of the result."""
    read = {a for f in (op.lhs, op.rhs) if f is not None for ix in f.index for a, _ in ix.terms}
    return set(op.axes) <= read


def _constant(op, rng):
    """A rounding constant, a bound or an amount."""
    steps = list(op.epilogue)
    at = [n for n, s in enumerate(steps) if s.imm is not None]
    if not at:
        return None
    n = rng.choice(at)
    new = steps[n].imm + rng.choice([1, -1])
    what = f"step {n}: {steps[n].imm} -> {new}"
    steps[n] = replace(steps[n], imm=new)
    return what, replace(op, epilogue=tuple(steps))


def _steps(op, rng):
    """A step is left out, stands twice, is new, is another one; or two change places."""
    steps = list(op.epilogue)
    ways = ["new", *(["out", "twice", "other"] if steps else []),
            *(["exchanged"] * 2 if len(steps) > 1 else [])]  # fmt: skip
    way = rng.choice(ways)
    n = rng.randrange(len(steps) + (way == "new") - (way == "exchanged"))
    if way == "new":
        # Wide bounds are idle or not by the ranges alone: what a judge gets wrong most easily.
        bits = rng.choice([0, 6, 7, 8, 12, 15, 16, 20, 24, 30])
        steps.insert(n, rng.choice([
            Step("max", -(1 << bits)), Step("min", (1 << bits) - 1), Step("max", 0),
            Step("shr", rng.choice([1, 8])), Step("shr", -1), Step("add", 1 << bits),
            Step("add", rng.choice([1, -1])),
        ]))  # fmt: skip
        what = f"new step {n}: {steps[n]}"
    elif way == "out":
        what = f"step {n} left out: {steps.pop(n)}"
    elif way == "twice":
        what = f"step {n} stands twice: {steps[n]}"
        steps.insert(n, steps[n])
    elif way == "exchanged":
        what = f"steps {n} and {n + 1} change places: {steps[n]}; {steps[n + 1]}"
        steps[n], steps[n + 1] = steps[n + 1], steps[n]
    else:
        old = steps[n]
        # A tensor's values are no shift amounts; a promise is of an added tensor.
        names = [f for f in ("add", "max", "min", "shr") if f != old.op]
        names = [f for f in names if f != "shr" or 0 <= (-1 if old.imm is None else old.imm) < 32]
        steps[n] = replace(old, op=rng.choice(names))
        what = f"step {n}: {old} -> {steps[n]}"
    return what, replace(op, epilogue=tuple(steps))


def _index(op, rng):
    """A pad, a stride, a dilation, an axis elsewhere, operands exchanged, max for min."""
    if op.kind in ("max", "min") and rng.random() < 0.2:
        other = "min" if op.kind == "max" else "max"
        return f"{op.kind} -> {other}", replace(op, kind=other)
    if op.rhs is not None and rng.random() < 0.05:
        return "operands change places", replace(op, lhs=op.rhs, rhs=op.lhs)
    factors = {"lhs": op.lhs, **({} if op.rhs is None else {"rhs": op.rhs})}
    places = [(who, d) for who, access in factors.items() for d in range(len(access.index))]
    who, d = rng.choice(places)
    access = factors[who]
    old = access.index[d]
    terms, const = dict(old.terms), old.const
    way = rng.choice(["pad", "factor", "axis"])
    if way == "pad" or not terms:
        const += rng.choice([1, -1])
    elif way == "factor":
        axis = rng.choice([*terms])
        terms[axis] += rng.choice([1, -1])
    else:
        axis = rng.choice([*terms])
        factor = terms.pop(axis)
        other = rng.choice([*op.axes])
        terms[other] = terms.get(other, 0) + factor
    new = Affine(tuple(sorted((a, k) for a, k in terms.items() if k)), const)
    if new == old:
        return None
    index = tuple(new if k == d else ix for k, ix in enumerate(access.index))
    what = f"{access.tensor}, index {d}: {old} -> {new}"
    return what, replace(op, **{who: replace(access, index=index)})


def _promise(op, rng):
    """What a tensor step's values are promised to be within."""
    steps = list(op.epilogue)
    at = [n for n, s in enumerate(steps) if s.access is not None and s.op == "add"]
    if not at:
        return None
    n = rng.choice(at)
    old = steps[n].bias_range
    new = rng.choice([v for v in (None, 0, 1, 100, 2 * (old or 1), (old or 2) // 2, 1 << 30)
                      if v != old])  # fmt: skip
    steps[n] = replace(steps[n], bias_range=new)
    return f"step {n}: within {old} -> {new}", replace(op, epilogue=tuple(steps))


# -- is it another function? -----------------------------------------------------------------------
def difference_of(one: Operator, other: Operator) -> str:
    """Where two formulas over the same tensors differ for inputs that both allow, or "".

    Sums: at four random points of int8, as int32. Steps: on every number that a sum can be where
    these are few, else on some hundred thousand, and on tensors at the ends of what they can be.
    """
    if (one.kind, one.lhs, one.rhs) != (other.kind, other.lhs, other.rhs):
        rng = np.random.default_rng(1)
        for _ in range(4):
            tensors = drawn(other, rng)
            a, b = (evaluate(op, tensors)["acc"] for op in (one, other))
            if not np.array_equal(a, b):
                return "the sums differ"
    rng = np.random.default_rng(2)
    low, high = _reach(other)
    values = _numbers(low, high, rng)
    # A formula's own promise may be wider than the program was made for: inputs are the other's.
    ranges = {str(s.access): _step_reach(other, s) for s in other.epilogue if s.access}
    for at_ends in (True, False) * 2 if ranges else (True,):
        tensors = {}
        for name, (least, most) in ranges.items():
            tensors[name] = _some(least, most, len(values), rng, at_ends).astype(np.int32)
        results = []
        for op in (one, other):
            lane = values.astype(np.int32)
            for step in op.epilogue:
                b = np.int32(step.imm) if step.access is None else tensors.get(str(step.access))
                if b is None:
                    return f"only one reads {step.access}"
                lane = _apply(step.op, lane, b)
            results.append(lane.astype(np.int8))
        if not np.array_equal(*results):
            k = int(np.argmax(results[0] != results[1]))
            return f"the steps differ at {values[k]}: {results[0][k]}, {results[1][k]}"
    return ""


def drawn(op: Operator, rng: np.random.Generator, ends: bool = False) -> dict[str, np.ndarray]:
    """Tensors of all that the formula allows; at the ends of it where `ends`."""
    found = {}
    steps = {s.access.tensor: s for s in op.epilogue if s.access is not None}
    for name, t in op.tensors.items():
        if name == op.out.tensor:
            continue
        if name in op.values:
            found[name] = np.asarray(op.values[name])
            continue
        bounds = np.iinfo(t.dtype)
        low, high = int(bounds.min), int(bounds.max)
        if name in steps:
            low, high = _step_reach(op, steps[name])
        found[name] = _some(low, high, t.shape, rng, ends).astype(t.dtype)
    return found


def _some(low, high, shape, rng, ends):
    """Numbers of a range; at the ends of it, and beside 0, where `ends`."""
    if ends:
        return rng.choice([low, high, max(low, -1), min(high, 1)], shape)
    return rng.integers(low, high + 1, shape)


def _apply(name, a, b):
    if name == "shr":
        if np.ndim(b) == 0 and b < 0:
            return np.left_shift(a, -b)
        return np.right_shift(a, b & 31)
    f = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[name]
    return f(a, b, dtype=np.int32)


def _reach(op):
    """Least and greatest sum, by the operands' types; pads are read as 0 in sums."""

    def of(tensor):
        if tensor in op.values:
            v = np.asarray(op.values[tensor])
            return int(v.min()), int(v.max())
        bounds = np.iinfo(op.tensors[tensor].dtype)
        return int(bounds.min), int(bounds.max)

    low, high = of(op.lhs.tensor)
    if op.rhs is None:
        return low, high
    products = [a * b for a in (low, high) for b in of(op.rhs.tensor)]
    count = math.prod(n for a, n in op.axes.items() if a not in op.out_axes)
    return min(0, *products) * count, max(0, *products) * count


def _step_reach(op, step):
    if step.op == "shr":
        return 0, 31
    bounds = np.iinfo(op.tensors[step.access.tensor].dtype)
    most = 1 << 31 if step.bias_range is None else step.bias_range
    return max(int(bounds.min), -most), min(int(bounds.max), most)


def _numbers(low, high, rng):
    """All of low to high, or some hundred thousand: near 0, ends, powers of two, and random."""
    if high - low < 1 << 19:
        return np.arange(low, high + 1)
    marks = [0, low, high, *(s << k for k in range(7, 31) for s in (1, -1))]
    near = np.arange(-(1 << 9), 1 << 9)
    parts = [np.arange(-(1 << 16), 1 << 16), *(m + near for m in marks),
             rng.integers(low, high + 1, 1 << 17)]  # fmt: skip
    found = np.unique(np.concatenate(parts))
    return found[(found >= low) & (found <= high)]
