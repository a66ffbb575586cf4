"""Whether a copy out makes of every sum what the formula's steps make of it.

Takes: two functions of one number L in low..high.  Leaves: how equality was shown, or why it was
not. Both are evaluated on intervals: bounds of what they can be there. Where both have one value,
and it is the same, the interval is done; else it is halved. On single numbers intervals are exact.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Step
from csp_embed.judge.certify.commands.points import Undecided

Span = tuple[Any, Any]
# Intervals that are looked at together: more is no clip, and would not end.
MOST = 1 << 22
_FAR = np.int64(1 << 62)


def span_of(node: ast.expr, acc: Span, scope: Mapping[str, Any]) -> Span:
    """Least and greatest value of a meaning's expression where `acc` lies between both bounds.
    Raises: Undecided for what has no bounds here."""

    def go(n: ast.expr) -> Span:
        match n:
            case ast.Name(id="acc"):
                return acc
            case ast.Name(id=name):
                if name not in scope:
                    raise Undecided(f"{name} has no value in a store")
                return scope[name], scope[name]
            case ast.Constant(value=int(value)):
                return np.int64(value), np.int64(value)
            case ast.UnaryOp(op=ast.USub(), operand=x):
                low, high = go(x)
                return -high, -low
            case ast.BinOp(left=left, op=op, right=right):
                return _binary(op, go(left), go(right))
            case ast.IfExp(test=test, body=a, orelse=b):
                return _choice(_truth(test, go), go(a), go(b))
            case ast.Call(func=ast.Name(id=name), args=args):
                return _call(name, [go(a) for a in args])
            case _:
                raise Undecided(f"'{ast.unparse(n)}' in a store")

    return go(node)


def _one_kind(a: Any, b: Any) -> tuple[Any, Any]:
    """What is multiplied with, or added to, a float32 is one."""
    kinds = [np.asarray(x).dtype == np.float32 for x in (a, b)]
    if any(kinds):
        return np.asarray(a, np.float32), np.asarray(b, np.float32)
    return np.asarray(a, np.int64), np.asarray(b, np.int64)


def _ends(f: Callable[[Any, Any], Any], a: Span, b: Span) -> Span:
    """Of a function that rises or falls in either argument: its extremes are at corners."""
    found = [f(*_one_kind(x, y)) for x in a for y in b]
    return _least(found), _most(found)


def _least(values: Sequence[Any]) -> Any:
    out = values[0]
    for v in values[1:]:
        out = np.minimum(*_one_kind(out, v))
    return out


def _most(values: Sequence[Any]) -> Any:
    out = values[0]
    for v in values[1:]:
        out = np.maximum(*_one_kind(out, v))
    return out


def _binary(op: ast.operator, a: Span, b: Span) -> Span:
    fixed = bool(np.all(np.equal(*b)))
    match op:
        case ast.Add():
            return np.add(*_one_kind(a[0], b[0])), np.add(*_one_kind(a[1], b[1]))
        case ast.Sub():
            return np.subtract(*_one_kind(a[0], b[1])), np.subtract(*_one_kind(a[1], b[0]))
        case ast.Mult():
            return _ends(np.multiply, a, b)
        case ast.RShift() if fixed and np.all(np.asarray(b[0]) >= 0):
            by = np.minimum(np.asarray(b[0], np.int64), 62)
            return np.right_shift(a[0], by), np.right_shift(a[1], by)
        case ast.LShift() if fixed and np.all((np.asarray(b[0]) >= 0) & (np.asarray(b[0]) < 30)):
            return np.left_shift(a[0], b[0]), np.left_shift(a[1], b[0])
        case ast.FloorDiv() if fixed and np.all(np.asarray(b[0]) != 0):
            return _ends(np.floor_divide, a, b)
        case ast.Mod() | ast.BitAnd() | ast.BitOr():
            f = {ast.Mod: np.mod, ast.BitAnd: np.bitwise_and, ast.BitOr: np.bitwise_or}[type(op)]
            single = np.equal(*a) & np.equal(*b)
            value = np.asarray(f(a[0], b[0]))
            return np.where(single, value, -_FAR), np.where(single, value, _FAR)
        case _:
            raise Undecided(f"{type(op).__name__} in a store")


def _call(name: str, args: list[Span]) -> Span:
    match name, args:
        case "float32", [(low, high)]:
            return np.asarray(low).astype(np.float32), np.asarray(high).astype(np.float32)
        case "as_float32", [(low, high)] if np.size(low) == 1 and low == high:
            bits = np.uint32(int(low)).view(np.float32)
            return bits, bits
        case "rint", [(low, high)]:
            return np.rint(low), np.rint(high)
        case "clip", [x, a, b]:
            return tuple(np.minimum(*_one_kind(np.maximum(*_one_kind(x[k], a[k])), b[k]))
                         for k in (0, 1))  # type: ignore[return-value] # fmt: skip
        case "min", [*_]:
            return _least([a[0] for a in args]), _least([a[1] for a in args])
        case "max", [*_]:
            return _most([a[0] for a in args]), _most([a[1] for a in args])
        case "abs", [(low, high)]:
            across = (np.asarray(low) <= 0) & (np.asarray(high) >= 0)
            ends = np.abs(low), np.abs(high)
            return np.where(across, 0, np.minimum(*ends)), np.maximum(*ends)
        case _:
            raise Undecided(f"{name} in a store")


def _truth(test: ast.expr, go: Callable[[ast.expr], Span]) -> tuple[Any, Any]:
    """(surely true, surely false)."""
    match test:
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            a, b = go(left), go(right)
            less, more = np.asarray(a[1] < b[0]), np.asarray(a[0] > b[1])
            same = np.equal(*a) & np.equal(*b) & (a[0] == b[0])
            match op:
                case ast.Lt():
                    return less, np.asarray(a[0] >= b[1])
                case ast.LtE():
                    return np.asarray(a[1] <= b[0]), more
                case ast.Gt():
                    return more, np.asarray(a[1] <= b[0])
                case ast.GtE():
                    return np.asarray(a[0] >= b[1]), less
                case ast.Eq():
                    return same, less | more
                case ast.NotEq():
                    return less | more, same
                case _:
                    raise Undecided(f"'{ast.unparse(test)}' in a store")
        case ast.UnaryOp(op=ast.Not(), operand=x):
            yes, no = _truth(x, go)
            return no, yes
        case ast.BoolOp(op=op, values=values):
            parts = [_truth(v, go) for v in values]
            every = np.logical_and.reduce([p[0] for p in parts])
            none = np.logical_and.reduce([p[1] for p in parts])
            some = np.logical_or.reduce([p[0] for p in parts])
            one = np.logical_or.reduce([p[1] for p in parts])
            return (every, one) if isinstance(op, ast.And) else (some, none)
        case _:
            low, high = go(test)
            zero = (np.asarray(low) == 0) & (np.asarray(high) == 0)
            return (np.asarray(low) > 0) | (np.asarray(high) < 0), zero


# NumPy's stubs leave the type of a choice between numbers of any kind open.
_where: Callable[[Any, Any, Any], Any] = np.where


def _choice(truth: tuple[Any, Any], a: Span, b: Span) -> Span:
    yes, no = truth
    low, high = _least([a[0], b[0]]), _most([a[1], b[1]])
    return _where(yes, a[0], _where(no, b[0], low)), _where(yes, a[1], _where(no, b[1], high))


def span_of_steps(steps: Sequence[Step], shift: int, acc: Span) -> Span:
    """What the formula's steps by constants make of `acc >> shift`."""
    low, high = (np.right_shift(np.asarray(x, np.int64), shift) for x in acc)
    for s in steps:
        assert s.imm is not None
        imm = s.imm
        match s.op:
            case "shr" if imm >= 0:
                low, high = low >> min(imm, 31), high >> min(imm, 31)
            case "shr":
                low, high = low << -imm, high << -imm
            case "add":
                low, high = low + imm, high + imm
            case "min":
                low, high = np.minimum(low, imm), np.minimum(high, imm)
            case "max":
                low, high = np.maximum(low, imm), np.maximum(high, imm)
            case "mul":
                low, high = np.minimum(low * imm, high * imm), np.maximum(low * imm, high * imm)
            case _:
                raise Undecided(f"'{s}' behind the sums")
        # The formula's own values wrap around at 32 bits; here they must not.
        if low.min() < -(1 << 31) or high.max() >= 1 << 31:
            raise Undecided(f"'{s}' may wrap around")
    return low, high


def equal_everywhere(
    one: Callable[[Span], Span], other: Callable[[Span], Span], low: int, high: int, bits: int
) -> tuple[str, str]:
    """(how equality of the low `bits` was shown, "") or ("", why it was not)."""
    lows, highs = np.array([low], np.int64), np.array([high], np.int64)
    looked = 0
    while len(lows):
        looked += len(lows)
        if len(lows) > MOST:
            return "", "too many intervals: nothing clips the values"
        a, b = (_whole(f((lows, highs)), len(lows)) for f in (one, other))
        single = (a[0] == a[1]) & (b[0] == b[1])
        unequal = single & (((a[0] - b[0]) & ((1 << bits) - 1)) != 0)
        # A single number with bounds that are apart has a value that cannot be told.
        stuck = (lows == highs) & ~single
        bad: NDArray[np.int64] = np.flatnonzero(unequal | stuck)
        if len(bad):
            k = int(bad[0])
            return (
                "",
                f"at {int(lows[k])} the store gives {int(a[0][k])}, the formula {int(b[0][k])}",
            )
        left = ~single
        lows, highs = lows[left], highs[left]
        middle = (lows + highs) >> 1
        lows, highs = np.concatenate([lows, middle + 1]), np.concatenate([middle, highs])
    return f"equal on all of {low}..{high}, by {looked:,} intervals", ""


def _whole(span: Span, count: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    low, high = (np.broadcast_to(np.asarray(x), count) for x in span)
    if low.dtype != np.int64 or high.dtype != np.int64:
        # A store cuts a fraction off towards zero, as the interpreter's cast does.
        low, high = np.trunc(low).astype(np.int64), np.trunc(high).astype(np.int64)
    return low, high
