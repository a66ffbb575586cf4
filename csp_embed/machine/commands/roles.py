"""What a command does, read from its meaning: which field or state plays which part.

Takes: the text, the names that it may use.  Leaves: `Acts`. A command is one of

    contract    ACC[d + s*b][o] += X[..][i] * W[..][o]     factors: rows of memories, or state
    copy_in     M[l + r][c] = HOST.int8[a + s*r + c]       `+=` adds to what is there
    copy_out    HOST.int8[a + s*r + c] = f(M[l + r][c])
    reset       M[l + r][c] = 0
    drain       M[l + r][c] = SUMS[r, c]                   sums that stay in state, to rows
    set         only state; it may load lanes of state from rows
    finish      pass

Sums may be lanes of state: then they are read as rows of a memory of that name, of which there is
one tile. Loops may end at a field, guards (`if 16*n + c < cols`) may leave points out.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass

from csp_embed.machine.commands.acts import Acts, Lanes, Limit, Load, Param, Setting
from csp_embed.machine.commands.code_lines import Names
from csp_embed.machine.commands.places import Places
from csp_embed.machine.reading.meaning import MeaningError, parse


def acts_of(text: str, names: Names) -> Acts:
    """Raises: MeaningError where it is none of the above."""
    return _Reader(names, Places(names)).read(parse(text))


@dataclass(frozen=True)
class _Step:
    """One innermost statement with what stands around it, outermost first."""

    loops: tuple[tuple[str, ast.expr], ...]
    tests: tuple[tuple[ast.expr, bool], ...]
    core: ast.stmt


@dataclass(frozen=True)
class _Reader:
    names: Names
    places: Places

    def read(self, body: list[ast.stmt]) -> Acts:
        steps = [s for stmt in body for s in _flat(stmt, (), ())]
        settings: dict[str, Setting] = {}
        loads: dict[str, Load] = {}
        unsets: list[str] = []
        moves: list[_Step] = []
        for step in steps:
            match step.core:
                case ast.Pass():
                    continue
                case ast.Delete(targets=targets):
                    unsets += [t.id for t in targets if isinstance(t, ast.Name)]
                # A number is set outside of loops only: in one, which point is last would matter.
                case ast.Assign(targets=[ast.Name(id=name)], value=value) if not step.loops:
                    settings[name] = self._setting(value)
                    # What stands below reads the new number: it is a field's, not state's.
                    if not moves and not step.tests:
                        self.places.known[name] = value
                case ast.Assign(
                    targets=[ast.Subscript(value=ast.Name(id=name)) as target], value=value
                ) if name in self.names.arrays and not _from_outside(value):
                    loads[name] = self._load(step, target, value)
                case _:
                    # What moves data between rows or HOST decides the command's kind.
                    moves.append(step)
        common = {"settings": settings, "loads": loads, "unsets": tuple(unsets)}
        if not moves:
            kind = "set" if settings or loads or unsets else "finish"
            # A command that leaves memories and state alone: it ends programs.
            return Acts(kind, **common)  # type: ignore[arg-type]
        return self._moved(moves, common)

    def _moved(self, moves: list[_Step], common: Mapping[str, object]) -> Acts:
        # The last statement is the work; before it only a reset of the same sums may stand.
        *first, last = moves
        core = last.core
        loops = {v: self.places.param(n) for v, n in last.loops}
        limits = self._limits(last, loops)
        parts: dict[str, object] = {"loops": loops, "limits": limits, **common}
        match core:
            # Patterns go from narrow to wide: a contraction is also an addition, a reset also an
            # assignment.
            case ast.AugAssign(
                target=target, value=ast.BinOp(op=ast.Mult(), left=left, right=right)
            ):
                dst = self.places.sums(target, loops)
                lhs, rhs = self.places.factor(left, loops), self.places.factor(right, loops)
                keeps, keeps_if = self._begins(first, target)
                begins = {v: self.places.param(n) for s in first for v, n in s.loops}
                return Acts("contract", dst=dst, lhs=lhs, rhs=rhs, keeps=keeps, keeps_if=keeps_if,
                            begins=begins, **parts)  # type: ignore[arg-type] # fmt: skip
            case ast.Assign(targets=[target], value=ast.Constant(value=0)) if not first:
                return Acts("reset", dst=self.places.sums(target, loops), **parts)  # type: ignore[arg-type]
            case ast.Assign(targets=[ast.Subscript(value=ast.Attribute()) as target], value=value):
                inner, source = self._source(value)
                return Acts("copy_out", dst=self.places.sums(source, loops), value=inner,
                            host=self.places.bytes(target, loops), **parts)  # type: ignore[arg-type] # fmt: skip
            # Both copies in: plain, and adding to what is there (a bias on sums).
            case (
                ast.Assign(targets=[target], value=ast.Subscript(value=ast.Attribute()) as value)
                | ast.AugAssign(target=target, value=ast.Subscript(value=ast.Attribute()) as value)
            ) if not first:
                adds = isinstance(core, ast.AugAssign)
                return Acts("copy_in", dst=self.places.sums(target, loops), adds=adds,
                            host=self.places.bytes(value, loops), **parts)  # type: ignore[arg-type] # fmt: skip
            case ast.Assign(
                targets=[target], value=ast.Subscript(value=ast.Name(id=name)) as value
            ) if name in self.names.arrays and not first:
                source = self.places.factor(value, loops)
                assert isinstance(source, Lanes)
                dst, to = self.places.sums(value, loops), self.places.rows(target, loops)
                return Acts("drain", dst=dst, to=to, at=source.at, **parts)  # type: ignore[arg-type]
            case _:
                pass
        raise MeaningError(core.lineno, f"'{ast.unparse(core)}' is none of what commands do here")

    def _begins(self, first: list[_Step], target: ast.expr) -> tuple[Param | None, int]:
        """(parameter by which sums begin anew, its value that keeps them)."""
        if not first:
            return None, 1
        match first:
            # The same text is the same place: both stand in the same loops.
            case [
                _Step(
                    core=ast.Assign(targets=[zeroed], value=ast.Constant(value=0)),
                    tests=[(test, holds)],
                )
            ] if ast.unparse(zeroed) == ast.unparse(target):
                # `if not x` keeps where `if x` begins anew.
                if isinstance(test, ast.UnaryOp) and isinstance(test.op, ast.Not):
                    test, holds = test.operand, not holds
                return self.places.param(test), 0 if holds else 1
            case _:
                pass
        raise MeaningError(first[0].core.lineno, "above a contraction only its sums are set to 0,"
                           " under one condition")  # fmt: skip

    def _setting(self, value: ast.expr) -> Setting:
        match value:
            case ast.Call(func=ast.Name(id="as_float32"), args=[inner]):
                return Setting(self.places.param(inner), bits=True)
            case _:
                return Setting(self.places.scaled(value))

    def _load(self, step: _Step, target: ast.expr, value: ast.expr) -> Load:
        loops = {v: self.places.param(n) for v, n in step.loops}
        tests = step.tests
        zeroed = isinstance(value, ast.IfExp) and not tests
        if isinstance(value, ast.IfExp):
            # `value if inside else 0`: lanes beyond the matrix are filled with zeros, as a guard
            # would.
            match value.orelse:
                case ast.Constant(value=0):
                    tests, value = (*tests, (value.test, True)), value.body
                case _:
                    raise MeaningError(value.lineno, "lanes that are left out are 0")
        limits = self._limits(_Step(step.loops, tests, step.core), loops)
        # Lanes of state can be filled from state; what a factor can be, a source can be.
        filled = self.places.factor(target, loops)
        assert isinstance(filled, Lanes)
        if set(filled.at) != set(loops):
            raise MeaningError(target.lineno, f"'{ast.unparse(target)}' is filled in other loops:"
                               f" {', '.join(loops) or 'none'}")  # fmt: skip
        return Load(self.places.factor(value, loops), filled.at, loops, limits, zeroed)

    def _source(self, value: ast.expr) -> tuple[ast.expr, ast.expr]:
        """(the value over `acc`, the one reference that `acc` stands for)."""
        found: list[ast.expr] = []

        known = self.places.known

        class Replace(ast.NodeTransformer):
            def visit_Name(self, node: ast.Name) -> ast.expr:
                return known.get(node.id, node)

            def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
                found.append(node)
                return ast.Name("acc", ast.Load())

        # A copy is changed: the caller's tree is read again for messages.
        inner = Replace().visit(ast.parse(ast.unparse(value), mode="eval").body)
        # The same reference may stand twice (a ReLU names it in test and value); two different may
        # not.
        if len({ast.unparse(f) for f in found}) != 1:
            raise MeaningError(value.lineno, "a copy out reads one reference")
        return inner, found[0]

    def _limits(self, step: _Step, loops: Mapping[str, Param]) -> tuple[Limit, ...]:
        out: list[Limit] = []
        for test, holds in step.tests:
            tests = test.values if isinstance(test, ast.BoolOp) else [test]
            # `a < m and b < n` are two guards; `or` leaves a shape that no loops have.
            for t in tests:
                match t:
                    # In an `else` the guard would be >=, which no transfer has.
                    case ast.Compare(left=left, ops=[ast.Lt()], comparators=[right]) if holds and (
                        not isinstance(test, ast.BoolOp) or isinstance(test.op, ast.And)
                    ):
                        zero, steps = self.places.affine(left, loops)
                        if zero != Param("const") or any(p.kind != "const" for p in steps.values()):
                            raise MeaningError(
                                t.lineno, "a guard compares numbers times loop names"
                            )
                        limit = {v: p.value for v, p in steps.items()}
                        out.append(Limit(limit, self.places.param(right)))
                    case _:
                        raise MeaningError(
                            t.lineno, f"'{ast.unparse(t)}' is no guard `sum < bound`"
                        )
        return tuple(out)


def _from_outside(value: ast.expr) -> bool:
    """0 or numbers from HOST: what sums in state begin with, and no load of a factor."""
    match value:
        case ast.Constant(value=0) | ast.Subscript(value=ast.Attribute()):
            return True
        case _:
            return False


def _flat(
    s: ast.stmt,
    loops: tuple[tuple[str, ast.expr], ...],
    tests: tuple[tuple[ast.expr, bool], ...],
) -> list[_Step]:
    """Its innermost statements, each with the loops and tests around it."""
    match s:
        case ast.For(target=ast.Name(id=v), iter=ast.Call(args=[n]), body=body):
            return [x for inner in body for x in _flat(inner, (*loops, (v, n)), tests)]
        case ast.If(test=test, body=body, orelse=orelse):
            taken = [x for inner in body for x in _flat(inner, loops, (*tests, (test, True)))]
            other = [x for inner in orelse for x in _flat(inner, loops, (*tests, (test, False)))]
            return [*taken, *other]
        case _:
            # Both branches are kept with what their test must be: `_begins` and `_limits` use them.
            return [_Step(loops, tests, s)]
