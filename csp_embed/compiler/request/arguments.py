"""What `compile` is given, read and refused: no argument is taken and then without effect.

Takes: the arguments as a person writes them.  Leaves: an Operator, options and constants that hold
together. Every refusal names the argument and what to write instead.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from csp_embed.compiler.request.operands import operand
from csp_embed.errors import InputError, OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.machine.digits import shifts_left
from csp_embed.machine.load import load_isa
from csp_embed.machine.spec import Isa
from csp_embed.ops import parse_formula
from csp_embed.ops.wide import in_passes, width

Array = NDArray[Any]
Config = Mapping[str, Any] | str | Path | None


def operator_of(op: Operator | str, shapes: Mapping[str, Sequence[int]] | None) -> Operator:
    """The operator, or the one of a formula's text. Raises: OperatorError."""
    # A list here would fail inside the parser with a word about items.
    if shapes is not None and not isinstance(shapes, Mapping):  # pyright: ignore[reportUnnecessaryIsInstance] (users' Python)
        raise OperatorError(
            f"shapes is a {type(shapes).__name__}", where="shapes", hint="shapes={'x': (4, 8)}"
        )
    if isinstance(op, str):
        return parse_formula(op, shapes)
    hint = "compile('y[n,m] += x[n,k] * w[m,k]', shapes={'x': (4, 8), 'w': (3, 8)})"
    if not isinstance(op, Operator):  # pyright: ignore[reportUnnecessaryIsInstance] (users' Python)
        raise OperatorError(
            f"{type(op).__name__} is no operator",
            where="op",
            why="an operator (csp_embed.conv2d(…)) or the text of a formula is compiled",
            hint=hint,
        )
    # Refused: shapes of an operator are part of it, and given ones might differ.
    if shapes is not None:
        raise OperatorError(
            "shapes has no effect on an operator",
            where="shapes",
            why="the operator has its shapes already; they go with a formula's text",
            hint=hint,
        )
    return op


def fitted(op: Operator, isa: Isa) -> Operator:
    """The operator in a form that the machine can do: a factor wider than int8 as several, where
    its sums cannot be shifted between digits. Raises: OperatorError where these are too many."""
    return op if width(op) == 1 or shifts_left(isa) else in_passes(op)


def constants_of(op: Operator, w: Array | None, b: Array | None) -> dict[str, Array]:
    """The given constants by tensor name. Raises: InputError for one that the operator lacks,
    OperatorError for one of the wrong shape, type or values."""
    # Several epilogue tensors: b is the first.
    adds = [s.access.tensor for s in op.epilogue if s.access is not None]
    rhs = [op.rhs.tensor] if op.rhs is not None and op.rhs.tensor not in op.values else []
    out: dict[str, Array] = {}
    for letter, value, names in (("w", w, rhs), ("b", b, adds)):
        if value is None:
            continue
        if not names:
            what = "second operand" if letter == "w" else "epilogue tensor"
            raise InputError(
                f"{letter} is given, but {op.name} has no {what}",
                where=op.text(),
                why="it would be ignored",
                hint=f"leave out {letter}" + ("" if letter == "w" else ", or add bias=True"),
            )
        # Checked like an operand at run time; only the error speaks of `compile`.
        try:
            out[names[0]] = operand(op, {names[0]: value}, names[0])
        except InputError as error:
            raise OperatorError(
                error.what, where=f"{letter}, the constant", why=error.why,
                hint=error.hint or "give it as the operator declares it, or leave it to run()",
            ) from error  # fmt: skip
    return out


def machine_of(isa: Isa | str | Path | Mapping[str, Any], config: Config) -> Isa:
    """The machine that `compile` is given, loaded where it is not. Raises: SpecError, InputError
    for a configuration that comes too late."""
    if not isinstance(isa, Isa):
        return load_isa(isa, config)
    # The sizes are in the machine: a configuration would change nothing.
    if config is not None:
        raise InputError(
            "config has no effect on a machine that is loaded",
            where="config",
            hint=f"load_isa({isa.name!r}, config)",
        )
    return isa
