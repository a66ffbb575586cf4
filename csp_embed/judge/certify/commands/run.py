"""A stream of commands in program order, on values of the field instead of bytes.

Takes: the machine as its spec states it, words, HOST.  Leaves: what each store put where: the value
of a sum at the random point, and which function of it. State is followed as meanings change it;
nothing but numbers of the stream decides addresses, loops and guards, so one run stands for all
inputs. Reads the meanings' text by itself: it shares nothing with `machine/commands/code.py`.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from csp_embed.judge.certify.commands.memory import Cells, Data, Host, Ints, constant
from csp_embed.judge.certify.commands.points import (
    Broken,
    Leaf,
    Undecided,
    deciding,
    leaves,
    named,
    number,
)
from csp_embed.machine.commands.spec import CommandMachine
from csp_embed.machine.commands.words import Decoded, line
from csp_embed.machine.reading.meaning import parse


@dataclass(frozen=True)
class Function:
    """What a store makes of `acc`. named: the numbers of its other names. command: whose it is."""

    value: ast.expr
    named: Mapping[str, Any]
    command: str
    dtype: str


@dataclass
class Runner:
    """sums: products added up so far; loaded: values that copies brought. Both bound coefficients.
    functions: what stores made of sums."""

    machine: CommandMachine
    host: Host
    memories: dict[str, Cells]
    arrays: dict[str, Cells]
    numbers: dict[str, Any] = field(default_factory=dict[str, Any])
    functions: list[Function] = field(default_factory=list[Function])
    sums: int = 0
    loaded: int = 0

    @staticmethod
    def of(machine: CommandMachine, dims: Mapping[str, int], host: Host) -> Runner:
        rows = {m.name: Cells(m.name, (m.rows, m.lanes), m.dtype)
                for m in machine.memories.values()}  # fmt: skip
        arrays = {s.name: Cells(s.name, tuple(dims[d] for d in s.dims), s.dtype)
                  for s in machine.state.values() if s.dims}  # fmt: skip
        found = Runner(machine, host, rows, arrays)
        found._bodies = [parse(c.meaning) for c in machine.commands]
        found._deciding = [deciding(b) for b in found._bodies]
        return found

    def __post_init__(self) -> None:
        self._bodies: list[list[ast.stmt]] = []
        self._deciding: list[frozenset[str]] = []
        # Points by what decides them: a stream repeats a handful of shapes.
        self._leaves: dict[tuple[Any, ...], tuple[list[Leaf], list[Leaf]]] = {}
        self._known: dict[tuple[Any, ...], int] = {}

    def run(self, decoded: Decoded) -> None:
        """All commands. Raises: Broken, Undecided, with the command's number and text."""
        columns: list[dict[str, list[int]]] = []
        for c in self.machine.commands:
            columns.append({k: v.tolist() for k, v in decoded.fields[c.name].items()})
        for n in range(len(decoded.code)):
            code, place = int(decoded.code[n]), int(decoded.place[n])
            fields = {k: v[place] for k, v in columns[code].items()}
            try:
                self._command(code, fields)
            except (Broken, Undecided) as error:
                where = " ".join(line(self.machine, decoded, n).split())
                raise type(error)(f"command {where}: {error}") from error

    def _command(self, code: int, fields: Mapping[str, int]) -> None:
        body = self._bodies[code]
        # State that the command sets is read by what stands below it: statement by statement.
        for n, s in enumerate(body):
            scope = {**self.numbers, **fields}
            match s:
                case ast.Pass():
                    continue
                case ast.Delete(targets=targets):
                    for t in targets:
                        assert isinstance(t, ast.Name)
                        self._forget(t.id)
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    self.numbers[name] = number(value, scope)
                case _:
                    self._nest(code, n, s, scope)

    def _forget(self, name: str) -> None:
        if name in self.arrays:
            self.arrays[name].written[:] = False
        else:
            self.numbers.pop(name, None)

    def _nest(self, code: int, n: int, s: ast.stmt, scope: Mapping[str, Any]) -> None:
        asked = tuple((k, scope.get(k)) for k in sorted(self._deciding[code]) if k in scope)
        key = (code, n, asked)
        known = self._leaves.get(key)
        if known is None:
            found = leaves([s], scope)
            known = self._leaves[key] = found, _alone(found)
        # Addresses differ from command to command, the text does not.
        for leaf in known[1]:
            assert isinstance(leaf.statement, ast.Assign)
            kind, _, at = self._place(leaf.statement.targets[0], leaf, scope)
            if kind != "host" and len(np.unique(at)) < len(at):
                raise Undecided("two points of a loop begin one sum")
        for leaf in known[0]:
            self._leaf(code, leaf, scope)

    def _leaf(self, code: int, leaf: Leaf, scope: Mapping[str, Any]) -> None:
        s = leaf.statement
        match s:
            case ast.Pass():
                return
            case ast.Assign(targets=[target], value=value):
                kind, where, at = self._place(target, leaf, scope)
                if kind == "host":
                    function, data = self._stored(code, value, where, leaf, scope)
                    self.host.store(where, at, data, function, leaf.count)
                    return
                self._cells(where).write(at, self._counted(self._value(value, leaf, scope)))
            case ast.AugAssign(target=target, op=ast.Add(), value=value):
                kind, where, at = self._place(target, leaf, scope)
                if kind == "host":
                    raise Broken("HOST is added to")
                self._cells(where).accumulate(at, self._counted(self._value(value, leaf, scope)))
            case _:
                raise Undecided(f"'{ast.unparse(s)}' stands in a loop")

    def _counted(self, data: Data) -> Data:
        # Each product is at most 2^14, each value from HOST at most 2^31: see `certify`.
        if data.degree > 1 or data.high - data.low <= 1 << 16:
            self.sums += len(data.values)
        else:
            self.loaded += len(data.values)
        return data

    def _cells(self, name: str) -> Cells:
        return self.memories[name] if name in self.memories else self.arrays[name]

    def _place(self, node: ast.expr, leaf: Leaf, scope: Mapping[str, Any]) -> tuple[str, str, Ints]:
        """("host", type, addresses) or ("cells", memory or state, cells)."""
        inside = {**scope, **leaf.env}
        match node:
            case ast.Subscript(value=ast.Attribute(attr=dtype), slice=at):
                return "host", dtype, np.broadcast_to(
                    np.asarray(number(at, inside), np.int64), leaf.count)  # fmt: skip
            case ast.Subscript(value=ast.Subscript(value=ast.Name(id=name), slice=row), slice=lane):
                index: tuple[Any, ...] = number(row, inside), number(lane, inside)
            case ast.Subscript(value=ast.Name(id=name), slice=at):
                parts = at.elts if isinstance(at, ast.Tuple) else [at]
                index = tuple(number(x, inside) for x in parts)
            case _:
                raise Undecided(f"'{ast.unparse(node)}' is no place")
        return "cells", name, self._cells(name).at(index, leaf.count)

    def _value(self, node: ast.expr, leaf: Leaf, scope: Mapping[str, Any]) -> Data:
        match node:
            case ast.Subscript():
                kind, where, at = self._place(node, leaf, scope)
                if kind == "host":
                    return self.host.read(where, at, leaf.count)
                return self._cells(where).read(at)
            case ast.BinOp(left=left, op=ast.Mult(), right=right) if _reads(node):
                return self._value(left, leaf, scope).times(self._value(right, leaf, scope))
            case ast.BinOp(left=left, op=ast.Add(), right=right) if _reads(node):
                return self._value(left, leaf, scope).plus(self._value(right, leaf, scope))
            case _ if not _reads(node):
                return constant(number(node, {**scope, **leaf.env}), leaf.count)
            case _:
                raise Undecided(f"'{ast.unparse(node)}' is no sum of products")

    def _stored(self, code: int, value: ast.expr, dtype: str, leaf: Leaf,
                scope: Mapping[str, Any]) -> tuple[int, Data]:  # fmt: skip
        """(number of the function, what it is applied to)."""
        taken: list[ast.Subscript] = []

        class Apart(ast.NodeTransformer):
            def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
                taken.append(node)
                return ast.Name("acc", ast.Load())

        whole = Apart().visit(ast.parse(ast.unparse(value), mode="eval").body)
        if len({ast.unparse(t) for t in taken}) != 1:
            raise Undecided("a store of something else than one sum")
        others = named(whole) - {"acc"}
        if others & set(leaf.env):
            raise Undecided("a store differs from point to point")
        numbers = {n: scope[n] for n in sorted(others) if n in scope}
        key = (code, leaf.nest, dtype, ast.unparse(whole), tuple(numbers.items()))
        if key not in self._known:
            self._known[key] = len(self.functions)
            name = self.machine.commands[code].name
            self.functions.append(Function(whole, numbers, name, dtype))
        return self._known[key], self._value(taken[0], leaf, scope)


def _alone(found: list[Leaf]) -> list[Leaf]:
    """Statements whose points must have places of their own, so that statement by statement gives
    what point by point gives. Raises: Undecided where a point reads what another one writes."""
    written: dict[str, str] = {}
    moving = [x for x in found if isinstance(x.statement, ast.Assign | ast.AugAssign)]
    for leaf in moving:
        target = _target(leaf.statement)
        if written.setdefault(_base(target), ast.unparse(target)) != ast.unparse(target):
            raise Undecided("a loop writes two places of one memory")
    for leaf in moving:
        assert isinstance(leaf.statement, ast.Assign | ast.AugAssign)
        read = {_base(x) for x in ast.walk(leaf.statement.value) if isinstance(x, ast.Subscript)}
        if read & set(written):
            raise Undecided("a loop reads what it writes")
    # What is set and then added to has to be each point's own.
    return [x for x in moving if len(found) > 1 and isinstance(x.statement, ast.Assign)]


def _target(s: ast.stmt) -> ast.expr:
    assert isinstance(s, ast.Assign | ast.AugAssign)
    return s.targets[0] if isinstance(s, ast.Assign) else s.target


def _base(node: ast.AST) -> str:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _reads(node: ast.expr) -> bool:
    return any(isinstance(n, ast.Subscript) for n in ast.walk(node))
