"""Whether a copy out's value never falls where the sum rises, and that value as a function.

Takes: an expression over `acc`, numbers for its other names.  Leaves: a proof, by the expression's
own form: sums and shifts of what never falls never fall, and a choice by the sum's size (rounding
half away from zero makes one) is looked at where it changes sides. What has another form is not
used.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.machine.commands.functions import FUNCTIONS

Array = NDArray[Any]
_RISING = {"float32", "rint"}  # functions of one value
_LIMITS = {"clip", "min", "max"}


def never_falls(value: ast.expr, named: Mapping[str, Any]) -> bool:
    """named: a number for each name but `acc`."""
    return _Reader(named).way(value) in (0, 1)


def function_of(value: ast.expr, named: Mapping[str, Any]) -> Any:
    """The value as a function of an array of sums."""
    whole = ast.Expression(ast.fix_missing_locations(_Choices().visit(_copy(value))))
    code = compile(whole, "<meaning>", "eval")

    def run(x: Array) -> Array:
        scope = {"__builtins__": {}, **FUNCTIONS, "where": np.where, **named, "acc": x}
        found = np.asarray(eval(code, scope)).astype(np.int64)
        return np.broadcast_to(found, x.shape)

    return run


def reads(node: ast.expr) -> bool:
    """Whether it depends on the sum."""
    return any(isinstance(n, ast.Name) and n.id == "acc" for n in ast.walk(node))


def _copy(value: ast.expr) -> ast.expr:
    return ast.parse(ast.unparse(value), mode="eval").body


class _Choices(ast.NodeTransformer):
    """Choices by the sum, for arrays."""

    def visit_IfExp(self, node: ast.IfExp) -> ast.expr:
        self.generic_visit(node)
        if not reads(node.test):
            return node
        return ast.Call(ast.Name("where", ast.Load()), [node.test, node.body, node.orelse], [])


@dataclass(frozen=True)
class _Reader:
    named: Mapping[str, Any]

    def way(self, node: ast.expr) -> int | None:
        """1: never falls where the sum rises; -1: never rises; 0: does not depend on it; None: not
        known."""
        if not reads(node):
            return 0
        match node:
            case ast.Name():
                return 1
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return _times(self.way(operand), -1)
            case ast.Call(func=ast.Name(id=name), args=[first]) if name in _RISING:
                return self.way(first)
            case ast.Call(func=ast.Name(id=name), args=args) if name in _LIMITS:
                return _both([self.way(a) for a in args])
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                return _both([self.way(left), self.way(right)])
            case ast.BinOp(left=left, op=ast.Sub(), right=right):
                return _both([self.way(left), _times(self.way(right), -1)])
            case ast.BinOp(left=left, op=ast.RShift() | ast.LShift(), right=by) if not reads(by):
                return self.way(left)
            case ast.BinOp(left=left, op=ast.Mult(), right=right):
                if reads(left) and reads(right):
                    return None
                moving, by = (left, right) if reads(left) else (right, left)
                return _times(self.way(moving), int(np.sign(self._number(by))))
            case ast.BinOp(left=left, op=ast.FloorDiv(), right=by) if not reads(by):
                return _times(self.way(left), int(np.sign(self._number(by))))
            case ast.IfExp():
                return self._choice(node)
            case _:
                return None

    def _choice(self, node: ast.IfExp) -> int | None:
        if not reads(node.test):
            return self.way(node.body if self._number(node.test) else node.orelse)
        match node.test:
            case ast.Compare(left=ast.Name(id="acc"), ops=[op], comparators=[bound]) if not reads(
                bound
            ):
                at = self._number(bound)
            case _:
                return None
        match op:  # the least sum of the upper side
            case ast.Lt() | ast.GtE():
                first = int(np.ceil(at))
            case ast.LtE() | ast.Gt():
                first = int(np.floor(at)) + 1
            case _:
                return None
        below, above = node.body, node.orelse
        if isinstance(op, ast.GtE | ast.Gt):
            below, above = above, below
        step = self._number(above, first) - self._number(below, first - 1)
        return _both([self.way(below), self.way(above), int(np.sign(step))])

    def _number(self, node: ast.expr, acc: int = 0) -> Any:
        return function_or_number(node, self.named, acc)


def function_or_number(node: ast.expr, named: Mapping[str, Any], acc: int) -> Any:
    """The value of an expression at one sum."""
    scope = {"__builtins__": {}, **FUNCTIONS, **named, "acc": acc}
    return eval(compile(ast.Expression(_copy(node)), "<meaning>", "eval"), scope)


def _times(way: int | None, sign: int) -> int | None:
    return None if way is None else way * sign


def _both(ways: list[int | None]) -> int | None:
    """Of a sum, or of the lesser or the greater of several."""
    found = {w for w in ways if w != 0}
    return 0 if not found else found.pop() if len(found) == 1 else None
