"""The lines of the functions that a command's meaning becomes (`code`).

Takes: checked statements, names.  Leaves: text in Python's syntax: for one point after the other,
for all points at once, or the question whether points fall on one place.
"""

from __future__ import annotations

import ast
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field

from csp_embed.machine.commands.functions import FUNCTIONS
from csp_embed.machine.reading.meaning import MeaningError

HOST_TYPES = ("int8", "uint8", "int16", "int32")


@dataclass(frozen=True)
class Names:
    """memories: of rows. arrays, numbers: state. fields: of the command. shapes: of arrays, where
    roles are read."""

    memories: Collection[str]
    arrays: Collection[str]
    numbers: Collection[str]
    fields: Collection[str]
    shapes: Mapping[str, tuple[int, ...]] = field(default_factory=dict[str, tuple[int, ...]])


class NotWhole(Exception):
    """A statement that only points can do."""


def _leaves(s: ast.stmt) -> list[ast.stmt]:
    """Its innermost statements."""
    if isinstance(s, ast.For | ast.If):
        return [x for inner in (*s.body, *s.orelse) for x in _leaves(inner)]
    return [s]


def independent(s: ast.stmt) -> None:
    """Raises: NotWhole where a point of a loop may read what another one writes, or where two
    statements write different places of one memory."""
    leaves = [x for x in _leaves(s) if isinstance(x, ast.Assign | ast.AugAssign)]
    # A statement outside of loops is one point, and cannot meet itself.
    if not isinstance(s, ast.For):
        return
    targets = [x.targets[0] if isinstance(x, ast.Assign) else x.target for x in leaves]
    places: dict[str, str] = {}
    for t in targets:
        # Two places of one memory in one loop: point 2's first write could fall on point 1's
        # second.
        if places.setdefault(_base(t), ast.unparse(t)) != ast.unparse(t):
            raise NotWhole
    for x in leaves:
        read = {_base(n) for n in ast.walk(x.value) if isinstance(n, ast.Subscript)}
        # Sums read what they add to, but by the machine's own `+=`, which `add_row` sorts out.
        if read & set(places):
            raise NotWhole


def _base(node: ast.expr) -> str:
    """The memory or state that a reference is of."""
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else ""


def _own(variable: str) -> str:
    """How a loop's variable is written, so that a spec's names meet none of the function's own."""
    return f"v_{variable}"


@dataclass
class Writer:
    """Writes a function's lines. moving: names whose values differ from point to point."""

    # guard: writes only the questions whether two points fall on one place, no statements.
    names: Names
    whole: bool
    guard: bool = False
    moving: tuple[str, ...] = ()
    count: int = 0
    # several: the outermost loop holds more than one statement, so their order may matter.
    several: bool = False
    # asked: state that the command has set above the question, which is asked before it runs.
    asked: tuple[str, ...] = ()
    branches: int = 0

    def block(self, body: Iterable[ast.stmt]) -> list[str]:
        return [line for s in body for line in self._statement(s)]

    def _statement(self, s: ast.stmt) -> list[str]:
        match s:
            case ast.Pass():
                return ["pass"]
            case ast.Delete(targets=targets):
                # Forgetting reads and writes no place; the guard has nothing to ask about it.
                if self.guard:
                    return ["pass"]
                return [f"m.unset({self._state(t)!r})" for t in targets]
            case ast.For(
                target=ast.Name(id=v),
                iter=ast.Call(func=ast.Name(id="range"), args=[n]),
                body=body,
                orelse=[],
            ):
                return self._loop(v, n, body)
            case ast.If(test=test, body=body, orelse=orelse):
                return self._branch(test, body, orelse)
            # A choice that differs by point becomes a branch, whose halves see only their own
            # points.
            case ast.Assign(targets=[target], value=ast.IfExp() as choice) if (
                self.whole and self._moves(choice.test)
            ):
                taken: list[ast.stmt] = [ast.Assign([target], choice.body, lineno=s.lineno)]
                other: list[ast.stmt] = [ast.Assign([target], choice.orelse, lineno=s.lineno)]
                return self._branch(choice.test, taken, other)
            case ast.Assign(targets=[target], value=value):
                return self._assign(target, self._value(value), "write", value)
            case ast.AugAssign(target=ast.Subscript() as target, op=ast.Add(), value=value):
                return self._assign(target, self._value(value), "add", value)
            case _:
                pass
        raise MeaningError(s.lineno, f"'{ast.unparse(s)}' is no statement of a meaning")

    def _loop(self, v: str, n: ast.expr, body: list[ast.stmt]) -> list[str]:
        if v in self.names.fields or v in self.names.numbers:
            raise MeaningError(n.lineno, f"'{v}' is a field or state, not a loop's own name")
        bound = self._value(n)
        if not self.whole:
            self.moving = (*self.moving, v)
            inner = self.block(body)
            self.moving = self.moving[:-1]
            return [f"for {_own(v)} in range(int({bound})):", *(f"    {x}" for x in inner)]
        # A triangular loop has no rectangle of points to spread.
        if self._moves(n):
            raise NotWhole
        outer = self.moving
        # Asked of the outermost loop: statements further in take turns at each of its points.
        if not outer:
            self.several = sum(len(_leaves(s)) for s in body) > 1
        inside = ", ".join(map(_own, (v, *outer)))
        args = "".join(f", {_own(o)}" for o in outer)
        # Loop variables are narrowed inside (spread, keep) and must be whole again behind the loop.
        saved = f"_s{self.count}"
        self.count += 1
        lines = [f"{saved} = ({''.join(f'{_own(o)}, ' for o in outer)})"]
        lines.append(f"{inside}, = spread({bound}{args})")
        self.moving = (*outer, v)
        lines += self.block(body)
        self.moving = outer
        return [*lines, *([f"{', '.join(map(_own, outer))}, = {saved}"] if outer else [])]

    def _branch(self, test: ast.expr, body: list[ast.stmt], orelse: list[ast.stmt]) -> list[str]:
        condition = self._value(test)
        self.branches += 1
        lines = self._branches(test, condition, body, orelse)
        self.branches -= 1
        return lines

    def _branches(
        self, test: ast.expr, condition: str, body: list[ast.stmt], orelse: list[ast.stmt]
    ) -> list[str]:
        # A condition that is one for all points needs no split: a plain `if` decides for all.
        if not self.whole or not self._moves(test):
            lines = [f"if {condition}:", *(f"    {x}" for x in self.block(body))]
            if orelse:
                lines += ["else:", *(f"    {x}" for x in self.block(orelse))]
            return lines
        names = ", ".join(map(_own, self.moving))
        saved = f"_s{self.count}"
        self.count += 1
        lines = [f"{saved}, {saved}t = ({names},), truth({condition})"]
        for some, points, inner in (
            (f"{saved}t.any()", f"{saved}t", body), (f"not {saved}t.all()", f"~{saved}t", orelse)
        ):  # fmt: skip
            if inner:
                lines += [f"if {some}:", f"    {names}, = keep({points}, *{saved})"]
                lines += [f"    {x}" for x in self.block(inner)]
        return [*lines, f"{names}, = {saved}"]

    def _assign(self, target: ast.expr, value: str, verb: str, node: ast.expr) -> list[str]:
        if self.guard:
            if isinstance(target, ast.Name):
                # Whether it was set would hang on a test that is no question.
                if self.branches:
                    raise NotWhole
                self.asked = (*self.asked, target.id)
                return [f"g_{target.id} = {value}"]
            # Sums meet in one place by intent; what is written first may not.
            # A single statement is in no order with another one.
            if verb == "add" or not self.several:
                return ["pass"]
            what, args = self._place(target)
            # The first argument is the memory's name, which has no part in the place.
            parts = args.split(", ", 1)[1]
            return [f"if not m.apart({'*' if what == 'lanes' else ''}{parts}): return False"]
        if isinstance(target, ast.Name) and verb == "write":
            name = self._state(target)
            if name in self.names.arrays:
                raise MeaningError(target.lineno, f"'{name}' has lanes: write {name}[…]")
            if self._moves(node):
                # A number keeps one value, and which point comes last would decide it.
                raise MeaningError(target.lineno, f"'{name}' is one number, set in a loop")
            return [f"m.set({name!r}, {value})"]
        what, args = self._place(target)
        used = {n.id for x in (target, node) for n in ast.walk(x) if isinstance(n, ast.Name)}
        if self.whole and verb == "add" and set(self.moving) - used:
            raise NotWhole  # a loop that only says how often the same is added
        return [f"m.{verb}_{what}({args}, {value})"]

    def _state(self, node: ast.expr) -> str:
        if isinstance(node, ast.Name) and node.id in (*self.names.numbers, *self.names.arrays):
            return node.id
        raise MeaningError(node.lineno, f"'{ast.unparse(node)}' is no declared state")

    def _place(self, node: ast.expr) -> tuple[str, str]:
        """(row, lanes or host; arguments) of a reference."""
        match node:
            case ast.Subscript(
                value=ast.Subscript(value=ast.Name(id=memory), slice=row), slice=lane
            ) if memory in self.names.memories:
                return "row", f"{memory!r}, {self._value(row)}, {self._value(lane)}"
            case ast.Subscript(value=ast.Name(id=array), slice=at) if array in self.names.arrays:
                lanes = at.elts if isinstance(at, ast.Tuple) else [at]
                return "lanes", f"{array!r}, ({''.join(self._value(x) + ', ' for x in lanes)})"
            case ast.Subscript(
                value=ast.Attribute(value=ast.Name(id="HOST"), attr=dtype), slice=at
            ) if dtype in HOST_TYPES:
                return "host", f"{dtype!r}, {self._value(at)}"
            case _:
                pass
        known = f"{', '.join(self.names.memories)} [row][lane]; HOST.int8[byte]"
        raise MeaningError(node.lineno, f"'{ast.unparse(node)}' is no reference (known: {known})")

    def _moves(self, node: ast.expr) -> bool:
        return any(isinstance(n, ast.Name) and n.id in self.moving for n in ast.walk(node))

    def _value(self, node: ast.expr) -> str:
        match node:
            case ast.Constant(value=int(value)):
                return str(int(value))
            case ast.Name(id=name):
                if name in self.moving:
                    return _own(name)
                if name in self.names.fields:
                    return f"f[{name!r}]"
                if name in self.asked:
                    return f"g_{name}"
                if name in self.names.numbers:
                    return f"m.get({name!r})"
                raise MeaningError(node.lineno, f"'{name}' is not known")
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return f"({self._value(left)} {_BINARY[type(op)]} {self._value(right)})"
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return f"(-{self._value(operand)})"
            # `not x` would ask an array for one truth value; == 0 works for both.
            case ast.UnaryOp(op=ast.Not(), operand=operand):
                return f"({self._value(operand)} == 0)"
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                return f"({self._value(left)} {_COMPARE[type(op)]} {self._value(right)})"
            case ast.BoolOp(op=op, values=values):
                # Truth values of single points or arrays alike.
                sign = " & " if isinstance(op, ast.And) else " | "
                return "(" + sign.join(f"({self._value(v)} != 0)" for v in values) + ")"
            case ast.IfExp(test=test, body=body, orelse=orelse):
                if self.whole and self._moves(test):
                    raise NotWhole
                parts = [self._value(x) for x in (body, test, orelse)]
                return f"({parts[0]} if {parts[1]} else {parts[2]})"
            case ast.Call(func=ast.Name(id=name), args=args, keywords=[]) if name in FUNCTIONS:
                return f"{name}({', '.join(self._value(a) for a in args)})"
            case ast.Subscript():
                what, args = self._place(node)
                return f"m.read_{what}({args})"
            case _:
                pass
        raise MeaningError(node.lineno, f"'{ast.unparse(node)}' has no value in a meaning")


_BINARY: dict[type[ast.operator], str] = {
    ast.Add: "+", ast.Sub: "-", ast.Mult: "*", ast.FloorDiv: "//", ast.Mod: "%",
    ast.LShift: "<<", ast.RShift: ">>", ast.BitAnd: "&", ast.BitOr: "|",
}  # fmt: skip
_COMPARE: dict[type[ast.cmpop], str] = {
    ast.Lt: "<", ast.LtE: "<=", ast.Gt: ">", ast.GtE: ">=", ast.Eq: "==", ast.NotEq: "!=",
}  # fmt: skip
