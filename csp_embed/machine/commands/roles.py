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
from dataclasses import dataclass, field, replace

from csp_embed.machine.commands.acts import Acts, Bytes, Lanes, Limit, Load, Param, Rows, Setting
from csp_embed.machine.commands.code import HOST_TYPES, Names
from csp_embed.machine.reading.meaning import MeaningError, parse


def acts_of(text: str, names: Names) -> Acts:
    """Raises: MeaningError where it is none of the above."""
    return _Reader(names).read(parse(text))


@dataclass(frozen=True)
# One innermost statement with what stands around it, outermost first.
class _Step:
    loops: tuple[tuple[str, ast.expr], ...]
    tests: tuple[tuple[ast.expr, bool], ...]
    core: ast.stmt


@dataclass(frozen=True)
class _Reader:
    """known: state that the command itself has set above, with what it was set to."""

    names: Names
    known: dict[str, ast.expr] = field(default_factory=dict[str, ast.expr])

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
                        self.known[name] = value
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
        loops = {v: self._param(n) for v, n in last.loops}
        limits = self._limits(last, loops)
        parts: dict[str, object] = {"loops": loops, "limits": limits, **common}
        match core:
            # Patterns go from narrow to wide: a contraction is also an addition, a reset also an
            # assignment.
            case ast.AugAssign(
                target=target, value=ast.BinOp(op=ast.Mult(), left=left, right=right)
            ):
                dst = self._sums(target, loops)
                lhs, rhs = self._factor(left, loops), self._factor(right, loops)
                keeps, keeps_if = self._begins(first, target)
                begins = {v: self._param(n) for s in first for v, n in s.loops}
                return Acts("contract", dst=dst, lhs=lhs, rhs=rhs, keeps=keeps, keeps_if=keeps_if,
                            begins=begins, **parts)  # type: ignore[arg-type] # fmt: skip
            case ast.Assign(targets=[target], value=ast.Constant(value=0)) if not first:
                return Acts("reset", dst=self._sums(target, loops), **parts)  # type: ignore[arg-type]
            case ast.Assign(targets=[ast.Subscript(value=ast.Attribute()) as target], value=value):
                inner, source = self._source(value)
                return Acts("copy_out", dst=self._sums(source, loops), value=inner,
                            host=self._bytes(target, loops), **parts)  # type: ignore[arg-type] # fmt: skip
            # Both copies in: plain, and adding to what is there (a bias on sums).
            case (
                ast.Assign(targets=[target], value=ast.Subscript(value=ast.Attribute()) as value)
                | ast.AugAssign(target=target, value=ast.Subscript(value=ast.Attribute()) as value)
            ) if not first:
                adds = isinstance(core, ast.AugAssign)
                return Acts("copy_in", dst=self._sums(target, loops), adds=adds,
                            host=self._bytes(value, loops), **parts)  # type: ignore[arg-type] # fmt: skip
            case ast.Assign(
                targets=[target], value=ast.Subscript(value=ast.Name(id=name)) as value
            ) if name in self.names.arrays and not first:
                source = self._factor(value, loops)
                assert isinstance(source, Lanes)
                return Acts("drain", dst=self._sums(value, loops), to=self._rows(target, loops),
                            at=source.at, **parts)  # type: ignore[arg-type] # fmt: skip
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
                return self._param(test), 0 if holds else 1
            case _:
                pass
        raise MeaningError(first[0].core.lineno, "above a contraction only its sums are set to 0,"
                           " under one condition")  # fmt: skip

    def _setting(self, value: ast.expr) -> Setting:
        match value:
            case ast.Call(func=ast.Name(id="as_float32"), args=[inner]):
                return Setting(self._param(inner), bits=True)
            case _:
                return Setting(self._scaled(value))

    def _load(self, step: _Step, target: ast.expr, value: ast.expr) -> Load:
        loops = {v: self._param(n) for v, n in step.loops}
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
        filled = self._factor(target, loops)
        assert isinstance(filled, Lanes)
        if set(filled.at) != set(loops):
            raise MeaningError(target.lineno, f"'{ast.unparse(target)}' is filled in other loops:"
                               f" {', '.join(loops) or 'none'}")  # fmt: skip
        return Load(self._factor(value, loops), filled.at, loops, limits, zeroed)

    def _factor(self, node: ast.expr, loops: Mapping[str, Param]) -> Rows | Lanes:
        match node:
            case ast.Subscript(value=ast.Name(id=name), slice=at) if name in self.names.arrays:
                lanes = at.elts if isinstance(at, ast.Tuple) else [at]
                names = tuple(x.id for x in lanes if isinstance(x, ast.Name) and x.id in loops)
                # All of it, lane by lane: a part of an array is no tile.
                if len(names) < len(lanes) or len(set(names)) < len(names):
                    raise MeaningError(node.lineno, f"'{ast.unparse(node)}': a lane of state is a"
                                       " loop's name, each once")  # fmt: skip
                return Lanes(name, names)
            case _:
                return self._rows(node, loops)

    def _sums(self, node: ast.expr, loops: Mapping[str, Param]) -> Rows:
        """Rows, or lanes of state as rows: all dimensions but the last walk rows."""
        found = self._factor(node, loops)
        if isinstance(found, Rows):
            return found
        *outer, inner = found.at
        rows: dict[str, Param] = {}
        step = 1
        for v, size in zip(reversed(outer), reversed(self.names.shapes[found.state][:-1]),
                           strict=True):  # fmt: skip
            rows[v] = Param("const", value=step)
            step *= size
        return Rows(found.state, Param("const"), dict(reversed(rows.items())), {inner: 1})

    def _rows(self, node: ast.expr, loops: Mapping[str, Param]) -> Rows:
        match node:
            case ast.Subscript(
                value=ast.Subscript(value=ast.Name(id=memory), slice=row), slice=lane
            ) if memory in self.names.memories:
                base, rows = self._affine(row, loops)
                zero, lanes = self._affine(lane, loops)
                # A field in a lane would shift values within a row; here rows begin at lane 0.
                if zero != Param("const") or any(p.kind != "const" for p in lanes.values()):
                    raise MeaningError(lane.lineno, "a lane is a sum of numbers times loop names")
                if any(p.times != 1 for p in rows.values()):
                    raise MeaningError(row.lineno, "rows of a tile are apart by a number or a name")
                return Rows(memory, base, rows, {v: p.value for v, p in lanes.items()})
            case _:
                raise MeaningError(
                    node.lineno, f"'{ast.unparse(node)}' reads not as MEM[row][lane]"
                )

    def _bytes(self, node: ast.expr, loops: Mapping[str, Param]) -> Bytes:
        match node:
            case ast.Subscript(
                value=ast.Attribute(value=ast.Name(id="HOST"), attr=dtype), slice=at
            ) if dtype in HOST_TYPES:
                base, steps = self._affine(at, loops)
                return Bytes(dtype, base, steps)
            case _:
                raise MeaningError(
                    node.lineno, f"'{ast.unparse(node)}' reads not as HOST.int8[byte]"
                )

    def _source(self, value: ast.expr) -> tuple[ast.expr, ast.expr]:
        """(the value over `acc`, the one reference that `acc` stands for)."""
        found: list[ast.expr] = []

        known = self.known

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
                        zero, steps = self._affine(left, loops)
                        if zero != Param("const") or any(p.kind != "const" for p in steps.values()):
                            raise MeaningError(
                                t.lineno, "a guard compares numbers times loop names"
                            )
                        limit = {v: p.value for v, p in steps.items()}
                        out.append(Limit(limit, self._param(right)))
                    case _:
                        raise MeaningError(
                            t.lineno, f"'{ast.unparse(t)}' is no guard `sum < bound`"
                        )
        return tuple(out)

    def _scaled(self, node: ast.expr) -> Param:
        """What state is set to."""
        # Without loops every name is a field or state.
        base, steps = self._affine(node, {})
        assert not steps
        return base

    def _param(self, node: ast.expr) -> Param:
        """A bound or a test: any number must be possible."""
        found = self._scaled(node)
        if found.times != 1:
            raise MeaningError(node.lineno, f"'{ast.unparse(node)}' is a multiple of {found.times}:"
                               " bounds and tests are a number or a name")  # fmt: skip
        return found

    def _affine(self, node: ast.expr, loops: Mapping[str, Param]) -> tuple[Param, dict[str, Param]]:
        """(what stands alone, loop variable -> what it is multiplied by)."""
        base: list[Param] = []
        steps: dict[str, Param] = {}
        # A polynomial rather than a pattern, so that the order in which a spec writes terms is
        # free.
        for names, factor in _terms(node).items():
            moving = [n for n in names if n in loops]
            rest = [n for n in names if n not in loops]
            # A factor counts units: 64 * address, 16 * stride * row.
            if len(moving) > 1 or len(rest) > 1 or (rest and factor < 1):
                raise MeaningError(node.lineno, f"'{ast.unparse(node)}' is more than a number or a"
                                   " name times a loop's name")  # fmt: skip
            param = Param("const", value=factor)
            if rest:
                param = self._named(rest[0], node)
                param = replace(param, times=param.times * factor)
            if not moving:
                base.append(param)
            elif moving[0] in steps:
                raise MeaningError(node.lineno, f"'{moving[0]}' stands twice in an address")
            else:
                steps[moving[0]] = param
        if len(base) > 1:
            raise MeaningError(node.lineno, f"'{ast.unparse(node)}' begins at more than one name")
        return (base[0] if base else Param("const")), steps

    def _named(self, name: str, node: ast.expr) -> Param:
        name, _, per = name.partition("//")
        if name in self.known:
            base, steps = self._affine(self.known[name], {})
            assert not steps
            if base.times > 1 and per:
                raise MeaningError(node.lineno, f"'{name}' counts units, and is divided")
            return replace(base, per=base.per * int(per or 1))
        if name in self.names.fields:
            return Param("field", name, per=int(per or 1))
        if name in self.names.numbers:
            return Param("state", name, per=int(per or 1))
        raise MeaningError(node.lineno, f"'{name}' is neither field, state nor loop")


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


def _terms(node: ast.expr) -> dict[tuple[str, ...], int]:
    """A polynomial: product of names -> factor."""
    match node:
        case ast.Constant(value=int(value)):
            # 0 is left out, so that `+ 0` changes nothing.
            return {(): value} if value else {}
        case ast.Name(id=name):
            return {(name,): 1}
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            return {k: -v for k, v in _terms(operand).items()}
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            out = dict(_terms(left))
            for k, v in _terms(right).items():
                out[k] = out.get(k, 0) + (v if isinstance(op, ast.Add) else -v)
            return {k: v for k, v in out.items() if v}
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            found: dict[tuple[str, ...], int] = {}
            for a, x in _terms(left).items():
                for b, y in _terms(right).items():
                    # Sorted: a*b and b*a are one product.
                    key = tuple(sorted((*a, *b)))
                    found[key] = found.get(key, 0) + x * y
            return found
        # Addresses that count bytes: rows are some bytes each.
        case ast.BinOp(
            left=ast.Name(id=name), op=ast.FloorDiv(), right=ast.Constant(value=int(value))
        ) if value > 0:
            return {(f"{name}//{value}",): 1}
        case ast.BinOp(
            left=ast.Name(id=name), op=ast.RShift(), right=ast.Constant(value=int(value))
        ) if 0 <= value < 32:
            return {(f"{name}//{1 << value}",): 1}
        case _:
            raise MeaningError(node.lineno, f"'{ast.unparse(node)}' is no sum of products of"
                               " fields, state, loop names and numbers (a byte address of rows"
                               " of 12 bytes is ROWS[address // 12 + r])")  # fmt: skip
