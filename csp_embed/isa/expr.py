"""Safe integer arithmetic: Python-like text evaluated by our own walker, never by `eval`.

Integers only. Operators + - * // % ** with unary minus; comparisons (chains too), and, or, not,
`a if c else b`; functions log2 (exact powers of two only), min, max. Whoever needs more (memory
reads of an instruction's meaning) passes `hook`, which gets the nodes that arithmetic lacks.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping

Hook = Callable[[ast.expr], int]

_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
}
_COMPARE: dict[type[ast.cmpop], Callable[[int, int], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
}
# Far above any sane machine; keeps `2 ** LOG_X` from eating memory when LOG_X is a typo.
_MAX_BITS = 4096


class ExprError(Exception):
    """Reason in one line; callers add the place. name: the undefined one, if that is it."""

    def __init__(self, reason: str, name: str = "") -> None:
        super().__init__(reason)
        self.name = name


def parse(text: str) -> ast.expr:
    """The expression tree of `text`; ExprError where it is not an expression."""
    try:
        return ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExprError(f"'{text}' is not an expression") from error


def evaluate(node: ast.expr, names: Mapping[str, int], hook: Hook | None = None) -> int:
    """The value of `node` under `names`. Truth values are 1 and 0.

    Raises: ExprError for an undefined name, a forbidden construct, division by zero.
    """
    match node:
        case ast.Constant(value=bool(value)):
            return int(value)
        case ast.Constant(value=int(value)):
            return value
        case ast.Name(id=name):
            if name not in names:
                raise ExprError(f"'{name}' is not defined here", name)
            return names[name]
        case ast.UnaryOp(op=ast.USub(), operand=x):
            return -evaluate(x, names, hook)
        case ast.UnaryOp(op=ast.Not(), operand=x):
            return int(not evaluate(x, names, hook))
        case ast.BinOp(left=left, op=op, right=right):
            return _binary(op, evaluate(left, names, hook), evaluate(right, names, hook))
        case ast.BoolOp(op=ast.And(), values=values):
            return int(all(evaluate(v, names, hook) for v in values))
        case ast.BoolOp(op=ast.Or(), values=values):
            return int(any(evaluate(v, names, hook) for v in values))
        case ast.Compare(left=left, ops=ops, comparators=rights):
            values = [evaluate(v, names, hook) for v in (left, *rights)]
            tests = [_comparison(op) for op in ops]
            return int(all(t(values[n], values[n + 1]) for n, t in enumerate(tests)))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            return evaluate(body if evaluate(test, names, hook) else orelse, names, hook)
        case ast.Call(func=ast.Name(id="log2" | "min" | "max" as function), args=args, keywords=[]):
            return _call(function, [evaluate(a, names, hook) for a in args])
    if hook is not None:
        return hook(node)
    raise ExprError(f"'{ast.unparse(node)}' is not allowed here (integer arithmetic only)")


def value(text: str, names: Mapping[str, int]) -> int:
    """Parse and evaluate in one step."""
    try:
        return evaluate(parse(text), names)
    except RecursionError as error:
        raise ExprError(f"'{text[:40]}…' is nested too deeply") from error


def names_in(node: ast.AST) -> list[str]:
    """Names that occur, functions excluded, in order of first occurrence."""
    functions = {id(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
    found = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and id(n) not in functions]
    return list(dict.fromkeys(found))


def _binary(op: ast.operator, left: int, right: int) -> int:
    if isinstance(op, ast.Pow):
        if right < 0 or left.bit_length() * right > _MAX_BITS:
            raise ExprError(f"the exponent {right} is negative or far too large")
        return left**right
    if type(op) not in _BINARY:
        raise ExprError(f"operator {type(op).__name__} is not allowed (use + - * // % **)")
    if right == 0 and isinstance(op, ast.FloorDiv | ast.Mod):
        raise ExprError("division by zero")
    return _BINARY[type(op)](left, right)


def _comparison(op: ast.cmpop) -> Callable[[int, int], bool]:
    if type(op) not in _COMPARE:
        raise ExprError(f"comparison {type(op).__name__} is not allowed (use < <= > >= == !=)")
    return _COMPARE[type(op)]


def _call(function: str, values: list[int]) -> int:
    if function == "log2":
        if len(values) != 1 or values[0] <= 0 or values[0] & (values[0] - 1):
            shown = ", ".join(map(str, values))
            raise ExprError(f"log2({shown}): the argument must be a power of two")
        return values[0].bit_length() - 1
    if not values:
        raise ExprError(f"{function}() needs an argument")
    return min(values) if function == "min" else max(values)
