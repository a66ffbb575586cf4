"""The points of a meaning's innermost statements, in the judge's own reading.

Takes: the text's statements, numbers for its fields and state.  Leaves: `Leaf`s, each with the
values of the loops' variables at all its points, in program order.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Env = dict[str, NDArray[np.int64]]
Scope = Mapping[str, Any]


class Undecided(Exception):
    """This judge has no proof for what a command does; the command may be right all the same."""


class Broken(Exception):
    """What a command does is wrong: it names what does not exist, or reads what nobody wrote."""


@dataclass(frozen=True)
class Leaf:
    """An innermost statement. env: loop variable -> its value at every point; count: points.
    nest: the outermost statement that it stands in."""

    statement: ast.stmt
    env: Env
    count: int
    nest: int


def named(node: ast.AST) -> frozenset[str]:
    """Every name in it."""
    return frozenset(n.id for n in ast.walk(node) if isinstance(n, ast.Name))


def deciding(body: list[ast.stmt]) -> frozenset[str]:
    """Names in bounds of loops and in tests: what decides which points there are."""
    found: set[str] = set()
    for s in body:
        for n in ast.walk(s):
            if isinstance(n, ast.For):
                found |= named(n.iter)
            elif isinstance(n, ast.If):
                found |= named(n.test)
            elif isinstance(n, ast.Assign) and isinstance(n.value, ast.IfExp):
                found |= named(n.value.test)
    return frozenset(found)


def leaves(body: list[ast.stmt], scope: Scope) -> list[Leaf]:
    """All innermost statements. scope: name -> number."""
    return [x for n, s in enumerate(body) for x in _leaves(s, {}, 1, scope, n)]


def _leaves(s: ast.stmt, env: Env, count: int, scope: Scope, nest: int) -> Iterator[Leaf]:
    match s:
        case ast.For(target=ast.Name(id=v), iter=ast.Call(args=[bound]), body=body):
            times = np.broadcast_to(np.asarray(number(bound, {**scope, **env}), np.int64), count)
            inner = {k: np.repeat(x, times) for k, x in env.items()}
            # The innermost loop is the fastest: 0 .. times - 1 behind each point around it.
            first = np.repeat(np.cumsum(times) - times, times)
            inner[v] = np.arange(len(first)) - first
            for x in body:
                yield from _leaves(x, inner, len(first), scope, nest)
        case ast.If(test=test, body=body, orelse=orelse):
            yield from _split(test, (body, orelse), env, count, scope, nest)
        # A choice between a reference and 0 is two statements: the reference is read only where it
        # is taken. What is stored to HOST may choose by the sum, which is no matter of points.
        case ast.Assign(
            targets=[ast.Subscript(value=v) as target], value=ast.IfExp() as choice
        ) if not _host(v):
            taken, other = ([_assign(target, x)] for x in (choice.body, choice.orelse))
            yield from _split(choice.test, (taken, other), env, count, scope, nest)
        case _:
            yield Leaf(s, env, count, nest)


def _split(
    test: ast.expr, bodies: tuple[list[ast.stmt], list[ast.stmt]], env: Env, count: int,
    scope: Scope, nest: int,
) -> Iterator[Leaf]:  # fmt: skip
    taken = np.broadcast_to(np.asarray(number(test, {**scope, **env})) != 0, count)
    for mask, body in ((taken, bodies[0]), (~taken, bodies[1])):
        if mask.any():
            kept = {k: x[mask] for k, x in env.items()}
            for s in body:
                yield from _leaves(s, kept, int(mask.sum()), scope, nest)


def _host(node: ast.expr) -> bool:
    return isinstance(node, ast.Attribute)


def _assign(target: ast.expr, value: ast.expr) -> ast.stmt:
    return ast.Assign([target], value, lineno=value.lineno)


_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: lambda a, b: a + b, ast.Sub: lambda a, b: a - b, ast.Mult: lambda a, b: a * b,
    ast.FloorDiv: lambda a, b: a // b, ast.Mod: lambda a, b: a % b,
    ast.LShift: lambda a, b: a << b, ast.RShift: lambda a, b: a >> b,
    ast.BitAnd: lambda a, b: a & b, ast.BitOr: lambda a, b: a | b,
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], Any]] = {
    ast.Lt: lambda a, b: a < b, ast.LtE: lambda a, b: a <= b, ast.Gt: lambda a, b: a > b,
    ast.GtE: lambda a, b: a >= b, ast.Eq: lambda a, b: a == b, ast.NotEq: lambda a, b: a != b,
}  # fmt: skip


def number(node: ast.expr, scope: Scope) -> Any:
    """An integer expression, for one point or for arrays of them. Raises: Undecided."""
    match node:
        case ast.Constant(value=int(value)):
            return int(value)
        case ast.Name(id=name):
            if name not in scope:
                raise Broken(f"{name} is read before a command has set it")
            return scope[name]
        case ast.BinOp(left=left, op=op, right=right):
            return _BINARY[type(op)](number(left, scope), number(right, scope))
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return -number(operand, scope)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return np.asarray(number(operand, scope)) == 0
        case ast.Compare(left=left, ops=[op], comparators=[right]):
            return _COMPARE[type(op)](number(left, scope), number(right, scope))
        case ast.BoolOp(op=op, values=values):
            found = [np.asarray(number(v, scope)) != 0 for v in values]
            return _joined(np.logical_and if isinstance(op, ast.And) else np.logical_or, found)
        case ast.IfExp(test=test, body=a, orelse=b):
            chosen = np.asarray(number(test, scope)) != 0
            either: Callable[..., Any] = np.where
            return either(chosen, number(a, scope), number(b, scope))
        case ast.Call(func=ast.Name(id="as_float32"), args=[inner]):
            return np.uint32(int(number(inner, scope))).view(np.float32)
        case ast.Call(func=ast.Name(id="min" | "max" as which), args=args):
            found = [number(a, scope) for a in args]
            return _joined(np.minimum if which == "min" else np.maximum, found)
        case _:
            raise Undecided(f"'{ast.unparse(node)}' is no number")


def _joined(join: Callable[[Any, Any], Any], values: list[Any]) -> Any:
    out: Any = values[0]
    for x in values[1:]:
        out = join(out, x)
    return out
