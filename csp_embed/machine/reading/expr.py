"""Safe integer arithmetic: Python-like text evaluated by our own walker, never by `eval`.

Integers only. Operators + - * // % ** with unary minus; comparisons (chains too), and, or, not,
`a if c else b`; functions log2 (exact powers of two only), min, max. Whoever needs more (memory
reads of an instruction's meaning) passes `hook`, which gets the nodes that arithmetic lacks.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

Hook = Callable[[ast.expr], int]
Names = Mapping[str, int]

# Spelled out: what is not here is refused, above all calls and attributes.
_BINARY: dict[type[ast.operator], Callable[[int, int], int]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.FloorDiv: lambda left, right: left // right,
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
    # Python's parser raises all of these on hostile text (null bytes, thousands of brackets).
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ExprError(f"'{text}' is not an expression") from error


def evaluate(node: ast.expr, names: Mapping[str, int], hook: Hook | None = None) -> int:
    """The value of `node` under `names`. Truth values are 1 and 0.

    Raises: ExprError for an undefined name, a forbidden construct, division by zero.
    """
    handler = _HANDLERS.get(type(node))
    # A hook sees only what arithmetic leaves: it cannot change what a number means.
    if handler is not None:
        result = handler(node, names, hook)
        if result is not None:
            return result
    if hook is not None:
        return hook(node)
    raise ExprError(f"'{ast.unparse(node)}' is not allowed here (integer arithmetic only)")


def _constant(node: Any, names: Names, hook: Hook | None) -> int | None:
    # True counts as 1; texts and fractions go to the hook or are refused.
    return int(node.value) if isinstance(node.value, int) else None


def _name(node: Any, names: Names, hook: Hook | None) -> int:
    try:
        return names[node.id]
    except KeyError:
        raise ExprError(f"'{node.id}' is not defined here", node.id) from None


def _unary(node: Any, names: Names, hook: Hook | None) -> int | None:
    if isinstance(node.op, ast.USub):
        return -evaluate(node.operand, names, hook)
    if isinstance(node.op, ast.Not):
        return int(not evaluate(node.operand, names, hook))
    return None


def _binary(node: ast.BinOp, names: Names, hook: Hook | None) -> int:
    left, right = evaluate(node.left, names, hook), evaluate(node.right, names, hook)
    operation = _BINARY.get(type(node.op))
    if isinstance(node.op, ast.Pow):
        # Checked on the bits of the result, before Python would build it.
        if right < 0 or left.bit_length() * right > _MAX_BITS:
            raise ExprError(f"the exponent {right} is negative or far too large")
        return left**right
    if operation is None:
        raise ExprError(f"operator {type(node.op).__name__} is not allowed (use + - * // % **)")
    if right == 0 and isinstance(node.op, ast.FloorDiv | ast.Mod):
        raise ExprError("division by zero")
    return operation(left, right)


def _boolean(node: Any, names: Names, hook: Hook | None) -> int:
    both = all if isinstance(node.op, ast.And) else any
    # Stops at the first that decides, as Python does: the rest may be undefined.
    return int(both(evaluate(v, names, hook) for v in node.values))


def _compare(node: Any, names: Names, hook: Hook | None) -> int:
    # Chains (0 <= x < n) compare neighbours.
    values = [evaluate(v, names, hook) for v in (node.left, *node.comparators)]
    for n, op in enumerate(node.ops):
        if type(op) not in _COMPARE:
            raise ExprError(f"comparison {type(op).__name__} is not allowed (use < <= > >= == !=)")
        if not _COMPARE[type(op)](values[n], values[n + 1]):
            return 0
    return 1


def _choice(node: Any, names: Names, hook: Hook | None) -> int:
    # Only the branch that is taken: the other may divide by zero.
    taken = node.body if evaluate(node.test, names, hook) else node.orelse
    return evaluate(taken, names, hook)


def _call(node: Any, names: Names, hook: Hook | None) -> int | None:
    function = getattr(node.func, "id", None)
    # None, not an error: a meaning's own function is for the hook to know.
    if function not in ("log2", "min", "max") or node.keywords:
        return None
    values = [evaluate(a, names, hook) for a in node.args]
    if function == "log2":
        # An exact logarithm or none: rounding would size a field one bit too small.
        if len(values) != 1 or values[0] <= 0 or values[0] & (values[0] - 1):
            shown = ", ".join(map(str, values))
            raise ExprError(f"log2({shown}): the argument must be a power of two")
        return values[0].bit_length() - 1
    if not values:
        raise ExprError(f"{function}() needs an argument")
    return min(values) if function == "min" else max(values)


# A handler returns None for a form of its node that is not arithmetic.
_HANDLERS: dict[type[ast.expr], Callable[[Any, Names, Hook | None], int | None]] = {
    ast.Constant: _constant,
    ast.Name: _name,
    ast.UnaryOp: _unary,
    ast.BinOp: _binary,
    ast.BoolOp: _boolean,
    ast.Compare: _compare,
    ast.IfExp: _choice,
    ast.Call: _call,
}


def value(text: str, names: Mapping[str, int]) -> int:
    """Parse and evaluate in one step."""
    try:
        return evaluate(parse(text), names)
    except RecursionError as error:
        raise ExprError(f"'{text[:40]}…' is nested too deeply") from error


def names_in(node: ast.AST) -> list[str]:
    """Names that occur, functions excluded, in order of first occurrence."""
    # A function's name is no size, and would be called undefined.
    functions = {id(n.func) for n in ast.walk(node) if isinstance(n, ast.Call)}
    found = [n.id for n in ast.walk(node) if isinstance(n, ast.Name) and id(n) not in functions]
    return list(dict.fromkeys(found))
