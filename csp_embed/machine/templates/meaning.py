"""Reads what a template does from its meaning, and runs that meaning.

Takes: a meaning in Python's syntax, the operands it may name.  Leaves: its kind and which operand
plays which part. `execute` runs the text itself over all lanes, so that it can judge the template.
"""

from __future__ import annotations

import ast
import functools
import itertools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.machine.reading import expr
from csp_embed.machine.reading.meaning import MeaningError, parse
from csp_embed.machine.templates.spec import FUNCTIONS, Slot
from csp_embed.narrow import is_object

Array = NDArray[Any]
Lanes = Mapping[str, tuple[str, ...]]


def read(
    text: str, slots: Mapping[str, Slot], lanes: Lanes, dims: Mapping[str, int]
) -> tuple[str, dict[str, str], str]:
    """(kind, role -> operand, function) of a meaning. lanes: register memory -> its dimensions.

    Raises: MeaningError where it is none of the statements that docs/machines.md lists.
    """
    body = parse(text)
    first: ast.expr | None = None
    # Template text may be several C statements; what it means is one.
    if len(body) != 1:
        raise MeaningError(1, "a template's meaning is one statement")
    core = body[0]
    roles: dict[str, str] = {}
    match core:
        # A guard is taken off first: below it stands a copy out, which is read like the others.
        case ast.If(
            test=ast.Compare(left=first, ops=[ast.Lt()], comparators=[ast.Name(id=count)]),
            body=[ast.Assign() as inner],
            orelse=[],
        ):
            roles["count"], core = count, inner
        case _:
            pass
    match core:
        # Patterns from special to general: the later ones would match earlier forms too.
        case ast.AugAssign(
            target=target, op=ast.Add(), value=ast.BinOp(left=left, op=ast.Mult(), right=right)
        ):
            kind, function = "contract", ""
            roles |= {"dst": _register(target, slots, lanes), "lhs": _register(left, slots, lanes),
                      "rhs": _register(right, slots, lanes)}  # fmt: skip
        # The likeliest mistake gets a message of its own: pmaddubsw and kin saturate in between.
        case ast.AugAssign() | ast.Assign(value=ast.Call(func=ast.Name(id="saturate"))):
            raise MeaningError(
                core.lineno,
                "only D[d][..] += L[l][..] * R[r][..] equals an operator's sum; a step that"
                " saturates on the way does not, and cannot be used",
            )
        # A fill with 0 is a reset: it needs no operand.
        case ast.Assign(targets=[target], value=ast.Constant(value=0)):
            kind, function = "reset", ""
            roles["dst"] = _register(target, slots, lanes)
        # `here in lanes`: a register's memory; HOST on either side is a copy.
        case ast.Assign(
            targets=[target], value=ast.Subscript(value=ast.Name(id=here) | ast.Subscript(
                value=ast.Name(id=here))) as source,
        ) if here in lanes and "HOST" not in ast.unparse(target):  # fmt: skip
            kind, function = "convert", ""
            roles |= {
                "dst": _register(target, slots, lanes), "source": _register(source, slots, lanes)
            }  # fmt: skip
            if _dims_of(target) != _dims_of(source):
                raise MeaningError(core.lineno, "a conversion keeps every lane where it is")
        case ast.Assign(targets=[target], value=ast.Name(id=value)):
            kind, function = "fill", ""
            roles |= {"dst": _register(target, slots, lanes), "value": value}
        case ast.Assign(
            targets=[target], value=ast.Call(func=ast.Name(id=function), args=[first, other])
        ) if ast.unparse(first) == ast.unparse(target):
            if function not in FUNCTIONS:
                known = ", ".join(FUNCTIONS)
                raise MeaningError(core.lineno, f"function '{function}' is none of {known}")
            kind = "map"
            roles |= {
                "dst": _register(target, slots, lanes), "other": _register(other, slots, lanes)
            }  # fmt: skip
        case ast.Assign(targets=[target], value=ast.Subscript(value=ast.Name(id="HOST")) as source):
            kind, function = "copy_in", ""
            roles |= {"dst": _register(target, slots, lanes)}
            roles["address"] = _address(source, _dims_of(target), slots, dims)
        case ast.Assign(targets=[ast.Subscript(value=ast.Name(id="HOST")) as target], value=source):
            kind, function = "copy_out", ""
            roles |= {"dst": _register(source, slots, lanes)}
            roles["address"] = _address(target, _dims_of(source), slots, dims)
            if first is None:
                raise MeaningError(core.lineno, "a copy out reads `if o < n:` above HOST[…] = …")
            # The first n lanes, in the order in which they lie.
            _row_major(first, (), _dims_of(source), dims)
        case _:
            raise MeaningError(core.lineno, f"'{ast.unparse(core)}' is no meaning that we know")
    if "count" in roles and kind != "copy_out":
        raise MeaningError(core.lineno, "only a copy out may leave lanes alone")
    # Both are C expressions of type int, never registers or addresses.
    for role in ("count", "value"):
        if role in roles and (roles[role] not in slots or slots[roles[role]].kind != "number"):
            raise MeaningError(core.lineno, f"'{roles[role]}' is no number among the operands")
    # An operand that does nothing would be a wrong template or a wrong meaning.
    idle = set(slots) - set(roles.values())
    if idle:
        raise MeaningError(core.lineno, f"operand '{min(idle)}' is not used")
    return kind, roles, function


def _register(node: ast.expr, slots: Mapping[str, Slot], lanes: Lanes) -> str:
    """`ACC[d][b, o]` -> d, where d is an operand in ACC and ACC has these lanes; `ACC[d]` where it
    has none."""
    match node:
        # A single number has no second brackets.
        case ast.Subscript(value=ast.Name(id=memory), slice=ast.Name(id=name)) if (
            lanes.get(memory) == () and name in slots and slots[name].memory == memory
        ):
            return name
        case ast.Subscript(
            value=ast.Subscript(value=ast.Name(id=memory), slice=ast.Name(id=name)), slice=_
        ):
            if name not in slots or slots[name].memory != memory:
                raise MeaningError(node.lineno, f"'{name}' is no operand in {memory}")
            # Order matters: the order of lanes in the text is their order in the register.
            if _dims_of(node) != lanes[memory]:
                raise MeaningError(node.lineno, f"lanes of {memory} are {list(lanes[memory])}")
            return name
        case _:
            pass
    raise MeaningError(node.lineno, f"'{ast.unparse(node)}' reads not as MEMORY[operand][lanes]")


def _dims_of(node: ast.expr) -> tuple[str, ...]:
    assert isinstance(node, ast.Subscript)
    if isinstance(node.value, ast.Name):
        return ()  # a register of one value
    inner = node.slice
    names = inner.elts if isinstance(inner, ast.Tuple) else [inner]
    return tuple(n.id for n in names if isinstance(n, ast.Name))


def _address(
    node: ast.Subscript,
    lanes: tuple[str, ...],
    slots: Mapping[str, Slot],
    dims: Mapping[str, int],
) -> str:
    """`HOST[a + 4 * o + i]` -> a, where the lanes lie row-major (as everything packed does)."""
    # Lanes are names too; only an operand of that kind is the base.
    found = [n.id for n in ast.walk(node.slice) if isinstance(n, ast.Name)]
    bases = [n for n in found if n in slots and slots[n].kind == "address"]
    if len(bases) != 1:
        raise MeaningError(node.lineno, "one address among the operands is expected in HOST[…]")
    _row_major(node.slice, (bases[0],), lanes, dims)
    return bases[0]


def _row_major(
    index: ast.expr, bases: tuple[str, ...], lanes: tuple[str, ...], dims: Mapping[str, int]
) -> None:
    """Raises: MeaningError where `index` is not the sum of the bases and of where a lane lies."""
    stride = 1
    wanted = dict.fromkeys(bases, 1)
    # Innermost last: its neighbours lie one element apart.
    for d in reversed(lanes):
        wanted[d] = stride
        stride *= dims[d]
    found = _coefficients(index)
    # "" is the constant, which no lane is.
    strange = [n for n in found if n and n not in wanted]
    if strange:
        raise MeaningError(index.lineno, f"'{strange[0]}' is no lane of this register")
    if found.get("", 0):
        raise MeaningError(index.lineno, f"the first lane lies {found['']} elements on; 0 is meant")
    for d, step in wanted.items():
        # A dimension of one lane is always 0.
        if found.get(d, 0) != step and dims.get(d, 2) > 1:
            raise MeaningError(
                index.lineno,
                f"lane {d} lies {found.get(d, 0)} elements on; row-major would be {step}",
            )


def _coefficients(node: ast.expr) -> dict[str, int]:
    """Name -> its factor in a sum of names and numbers, "" -> the constant."""
    # A part without names may use the whole of `expr` (powers, log2).
    if not any(isinstance(n, ast.Name) for n in ast.walk(node)):
        try:
            return {"": expr.evaluate(node, {})}
        except expr.ExprError as error:
            raise MeaningError(node.lineno, str(error)) from error
    match node:
        case ast.Name(id=name):
            return {name: 1}
        case ast.BinOp(left=left, op=ast.Add() | ast.Sub() as op, right=right):
            sign, out = 1 if isinstance(op, ast.Add) else -1, dict(_coefficients(left))
            for name, factor in _coefficients(right).items():
                out[name] = out.get(name, 0) + sign * factor
            return out
        case ast.BinOp(left=left, op=ast.Mult(), right=right):
            one, two = _coefficients(left), _coefficients(right)
            # Either side may be the number.
            for number, rest in ((one, two), (two, one)):
                if set(number) <= {""}:
                    return {n: number.get("", 0) * f for n, f in rest.items()}
        case _:
            pass
    raise MeaningError(
        node.lineno, f"'{ast.unparse(node)}' is no sum of an address and lanes times numbers"
    )


# Text is compiled once: it runs for every lane of every trial.
@functools.lru_cache(maxsize=256)
def _program(text: str) -> Any:
    return compile(text, "<meaning>", "exec")


_CALLS: dict[str, Callable[[int, int], int]] = {
    "add": lambda a, b: a + b, "mul": lambda a, b: a * b, "min": min, "max": max,
    "shr": lambda a, b: a >> b, "shl": lambda a, b: a << b,
}  # fmt: skip


def execute(
    meaning: str,
    state: Mapping[str, Any],
    operands: Mapping[str, Any],
    lanes: tuple[str, ...],
    dims: Mapping[str, int],
) -> None:
    """Runs the text once for each lane. state: memory -> registers by name, each an array; HOST ->
    an array. Values are Python integers on the way, and wrap when they are written."""
    code = _program(meaning)
    names = dict(operands) | {k: _Memory(v) for k, v in state.items()}
    # No builtins: the text can reach nothing but its operands and functions.
    names |= {"__builtins__": {}} | _CALLS
    # Every lane of every dimension: a guard decides by itself which take part.
    for point in itertools.product(*(range(dims[d]) for d in lanes)):
        exec(code, names, dict(zip(lanes, point, strict=True)))


class _Memory:
    """Registers or host memory whose reads are exact integers and whose writes keep low bits."""

    def __init__(self, content: Any) -> None:
        self.content = content

    def __getitem__(self, at: Any) -> Any:
        found = self.content[at]
        # Python integers from here on: exact, so a meaning that overflows does so only where it
        # writes.
        return _Memory(found) if np.ndim(found) else int(found)

    def __setitem__(self, at: Any, value: Any) -> None:
        # A register without lanes is no array that could be indexed once more.
        if is_object(self.content):  # a register of one value
            _Memory(self.content[at])[()] = value
            return
        # Wraps to the type's range; low bits are kept, as registers do.
        info = np.iinfo(self.content.dtype)
        self.content[at] = (int(value) - info.min) % (info.max - info.min + 1) + info.min
