"""References and addresses in a command's meaning, as rows, lanes, bytes and parameters.

Takes: expressions, the loops around them.  Leaves: `Rows`, `Lanes`, `Bytes`, `Param`: what a
program can choose, what numbers it is multiplied by, and what walks along loops.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from csp_embed.machine.commands.acts import Bytes, Lanes, Param, Rows
from csp_embed.machine.commands.code_lines import HOST_TYPES, Names
from csp_embed.machine.reading.meaning import MeaningError


@dataclass(frozen=True)
class Places:
    """known: state that the command itself has set above, with what it was set to."""

    names: Names
    known: dict[str, ast.expr] = field(default_factory=dict[str, ast.expr])

    def factor(self, node: ast.expr, loops: Mapping[str, Param]) -> Rows | Lanes:
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
                return self.rows(node, loops)

    def sums(self, node: ast.expr, loops: Mapping[str, Param]) -> Rows:
        """Rows, or lanes of state as rows: all dimensions but the last walk rows."""
        found = self.factor(node, loops)
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

    def rows(self, node: ast.expr, loops: Mapping[str, Param]) -> Rows:
        match node:
            case ast.Subscript(
                value=ast.Subscript(value=ast.Name(id=memory), slice=row), slice=lane
            ) if memory in self.names.memories:
                base, rows = self.affine(row, loops)
                zero, lanes = self.affine(lane, loops)
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

    def bytes(self, node: ast.expr, loops: Mapping[str, Param]) -> Bytes:
        match node:
            case ast.Subscript(
                value=ast.Attribute(value=ast.Name(id="HOST"), attr=dtype), slice=at
            ) if dtype in HOST_TYPES:
                base, steps = self.affine(at, loops)
                return Bytes(dtype, base, steps)
            case _:
                raise MeaningError(
                    node.lineno, f"'{ast.unparse(node)}' reads not as HOST.int8[byte]"
                )

    def scaled(self, node: ast.expr) -> Param:
        """What state is set to."""
        # Without loops every name is a field or state.
        base, steps = self.affine(node, {})
        assert not steps
        return base

    def param(self, node: ast.expr) -> Param:
        """A bound or a test: any number must be possible."""
        found = self.scaled(node)
        if found.times != 1:
            raise MeaningError(node.lineno, f"'{ast.unparse(node)}' is a multiple of {found.times}:"
                               " bounds and tests are a number or a name")  # fmt: skip
        return found

    def affine(self, node: ast.expr, loops: Mapping[str, Param]) -> tuple[Param, dict[str, Param]]:
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
            base, steps = self.affine(self.known[name], {})
            assert not steps
            if base.times > 1 and per:
                raise MeaningError(node.lineno, f"'{name}' counts units, and is divided")
            return replace(base, per=base.per * int(per or 1))
        if name in self.names.fields:
            return Param("field", name, per=int(per or 1))
        if name in self.names.numbers:
            return Param("state", name, per=int(per or 1))
        raise MeaningError(node.lineno, f"'{name}' is neither field, state nor loop")


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
