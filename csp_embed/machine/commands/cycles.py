"""How long a command keeps the machine's arithmetic busy, where the file says so.

Takes: `cycles: max(rows, 4)`, an expression over the command's own fields, and whether the command
works beside the one before it.  Leaves: cycles of a stream: of commands that work beside each other
the longest counts.
"""

from __future__ import annotations

import ast
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from csp_embed.machine.commands.spec import CommandMachine

_BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: np.add, ast.Sub: np.subtract, ast.Mult: np.multiply, ast.FloorDiv: np.floor_divide,
}  # fmt: skip
_CALLS: dict[str, Callable[[Any, Any], Any]] = {"max": np.maximum, "min": np.minimum}


@dataclass(frozen=True)
class Cycles:
    """text: the expression; beside: it works at the same time as the command before it."""

    text: str
    beside: bool = False

    def of(self, fields: Mapping[str, Any]) -> Any:
        """Cycles for numbers, or arrays of them, in the fields."""
        return _value(_parsed(self.text), fields)

    def refusal(self, fields: Collection[str]) -> str:
        """Why this is no expression over these fields, or ""."""
        try:
            _value(_parsed(self.text), dict.fromkeys(fields, 1))
        except (SyntaxError, _Unknown) as error:
            return str(error)
        return ""


class _Unknown(Exception):
    """What an expression of cycles has not."""


def _parsed(text: str) -> ast.expr:
    return ast.parse(text, mode="eval").body


def _value(node: ast.expr, fields: Mapping[str, Any]) -> Any:
    match node:
        case ast.Constant(value=int() | float() as value):
            return value
        case ast.Name(id=name) if name in fields:
            return fields[name]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
            return _BINARY[type(op)](_value(left, fields), _value(right, fields))
        case ast.Call(func=ast.Name(id=name), args=[first, *rest], keywords=[]) if name in _CALLS:
            out = _value(first, fields)
            for x in rest:
                out = _CALLS[name](out, _value(x, fields))
            return out
        case _:
            known = ", ".join(fields) or "none"
            raise _Unknown(f"'{ast.unparse(node)}' (fields: {known}; + - * // min max)")


def overlapped(*parts: float) -> float:
    """Cycles of what goes on at the same time: the slowest part counts, and of the others a 32nd,
    which breaks ties."""
    slowest, *others = sorted(parts, reverse=True)
    return slowest + sum(others) / 32


def stream_cycles(machine: CommandMachine, stream: Sequence[tuple[int, tuple[int, ...]]]) -> float:
    """Cycles of arithmetic of (command index, field values). Where no command says how long it
    takes, each contraction takes the `step` of `costs`."""
    kinds = np.array([c for c, _ in stream], np.int64)
    spent = np.zeros(len(stream))
    beside = np.zeros(len(stream), bool)
    # By kind: a stream has millions of commands and a dozen kinds.
    for n, c in enumerate(machine.commands):
        at = np.flatnonzero(kinds == n)
        if not len(at):
            continue
        if c.cycles is None:
            spent[at] = machine.costs["step"] if c.acts.kind == "contract" else 0
            continue
        values = np.array([stream[k][1] for k in at.tolist()], np.int64).reshape(len(at), -1)
        spent[at] = c.cycles.of({f: values[:, k] for k, f in enumerate(c.fields)})
        beside[at] = c.cycles.beside
    # Commands that neither compute nor wait do not part what works side by side.
    busy = (spent > 0) | beside
    spent, beside = spent[busy], beside[busy]
    if not len(spent):
        return 0.0
    # A command that begins a group, or the very first.
    starts = np.flatnonzero(~beside | (np.arange(len(beside)) == 0))
    return float(np.maximum.reduceat(spent, starts).sum())
