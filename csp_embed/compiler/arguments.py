"""What `compile` is given, read and refused: no argument is taken and then without effect.

Takes: the arguments as a person writes them.  Leaves: an Operator, options and constants that hold
together. Every refusal names the argument and what to write instead.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import fields, replace
from pathlib import Path
from typing import Any, TypeVar

from numpy.typing import NDArray

from csp_embed.compiler.kernel import operand
from csp_embed.errors import InputError, OperatorError
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.ops import parse_formula

Array = NDArray[Any]
OptionsT = TypeVar("OptionsT")  # the driver's Options; it stands above this module


def check_options(options: Any) -> None:
    """Raises: InputError for values that mean nothing and for those that have no effect."""
    if options.layout not in ("relaxed", "strict"):
        raise InputError(
            f"layout {options.layout!r} is unknown",
            where="Options.layout",
            hint="relaxed or strict; how a tensor lies is a pin: pins=('layout x=NHWC',)",
        )
    for name, least in (("top", 0), ("schedules", 1), ("refine", 0)):
        value = getattr(options, name)
        if not isinstance(value, int) or isinstance(value, bool) or value < least:
            raise InputError(
                f"{name} is {value!r}", where=f"Options.{name}", hint=f"{name}={least} or more"
            )
    for name in ("host_weight", "within"):
        value = getattr(options, name)
        if not isinstance(value, int | float) or not 0 <= value < math.inf:
            raise InputError(
                f"{name} is {value!r}", where=f"Options.{name}", hint=f"{name}=0.02, 0 or more"
            )
    if isinstance(options.pins, str):
        raise InputError(
            f"pins is one text, {options.pins!r}",
            where="Options.pins",
            hint=f"pins=({options.pins!r},)",
        )
    if options.cache is not None and not isinstance(options.cache, str | Path):
        raise InputError(
            f"cache is {options.cache!r}", where="Options.cache", hint="cache=Path('searches')"
        )
    if options.memory is not None and not isinstance(options.memory, str):
        raise InputError(
            f"memory is {options.memory!r}", where="Options.memory", hint="memory='de10'"
        )
    if options.reuse is not None and not isinstance(options.reuse, Embedding):
        raise InputError(
            f"reuse is a {type(options.reuse).__name__}",
            where="Options.reuse",
            why="an embedding is applied again",
            hint="reuse=kernel.embedding",
        )
    _effective(options)


def _effective(options: Any) -> None:
    """Raises: InputError where one field makes another one idle."""
    plain = {f.name: f.default for f in fields(options)}
    changed = [n for n, default in plain.items() if getattr(options, n) != default]
    idle: list[str] = []
    if options.reuse is not None:
        idle = [n for n in ("layout", "top", "host_weight", "pins") if n in changed]
    elif options.within:
        idle = ["within"]
    if idle:
        with_ = "without reuse" if options.reuse is None else "beside reuse"
        raise InputError(
            f"{idle[0]}={getattr(options, idle[0])!r} has no effect {with_}",
            where=f"Options.{idle[0]}",
            why="a reused embedding brings its layout and is the only one",
            hint=f"leave out {idle[0]}, or "
            + ("reuse" if options.reuse is not None else "give reuse="),
        )
    if options.host_weight and options.top == 1:
        raise InputError(
            f"host_weight={options.host_weight} has no effect with top=1",
            where="Options.host_weight",
            why="it ranks the embeddings that are scheduled, and there is one",
            hint="top=4",
        )


def operator_of(op: Operator | str, shapes: Mapping[str, Sequence[int]] | None) -> Operator:
    """The operator, or the one of a formula's text. Raises: OperatorError."""
    if shapes is not None and not isinstance(shapes, Mapping):
        raise OperatorError(
            f"shapes is a {type(shapes).__name__}", where="shapes", hint="shapes={'x': (4, 8)}"
        )
    if isinstance(op, str):
        return parse_formula(op, shapes)
    hint = "compile('y[n,m] += x[n,k] * w[m,k]', shapes={'x': (4, 8), 'w': (3, 8)})"
    if not isinstance(op, Operator):
        raise OperatorError(
            f"{type(op).__name__} is no operator",
            where="op",
            why="an operator (csp_embed.conv2d(…)) or the text of a formula is compiled",
            hint=hint,
        )
    if shapes is not None:
        raise OperatorError(
            "shapes has no effect on an operator",
            where="shapes",
            why="the operator has its shapes already; they go with a formula's text",
            hint=hint,
        )
    return op


def with_short(options: OptionsT, **short: str | None) -> OptionsT:
    """Options with the keywords of `compile` that stand for a field. Raises: InputError where the
    two say different things."""
    for name, value in short.items():
        if value is None:
            continue
        there, default = getattr(options, name), getattr(type(options), name)
        if there not in (default, value):
            raise InputError(
                f"{name}={value!r} contradicts Options({name}={there!r})",
                where=name,
                hint=f"say {name} once",
            )
        options = replace(options, **{name: value})
    return options


def constants_of(op: Operator, w: Array | None, b: Array | None) -> dict[str, Array]:
    """The given constants by tensor name. Raises: InputError for one that the operator lacks,
    OperatorError for one of the wrong shape, type or values."""
    adds = [s.access.tensor for s in op.epilogue if s.access is not None]
    rhs = [op.rhs.tensor] if op.rhs is not None and op.rhs.tensor not in op.values else []
    out = {}
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
        try:
            out[names[0]] = operand(op, {names[0]: value}, names[0])
        except InputError as error:
            raise OperatorError(
                error.what, where=f"{letter}, the constant", why=error.why,
                hint=error.hint or "give it as the operator declares it, or leave it to run()",
            ) from error  # fmt: skip
    return out
