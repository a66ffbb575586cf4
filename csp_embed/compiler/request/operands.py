"""Tensors as a user gives them -> tensors as the operator declares them, or a refusal.

Takes: arrays by name or in the formula's order.  Leaves: NumPy arrays of the declared shape and
type, whose values are the given ones: nothing is rounded, wrapped or broadcast on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.ir.operator import Operator

Array = NDArray[Any]


def operand(op: Operator, tensors: Mapping[str, Array], name: str) -> Array:
    """The tensor `name` as the operator declares it; integers of other types where values fit.

    Raises: InputError where it is missing or has the wrong shape, type or values.
    """
    declared = op.tensors[name]
    # A value that the operator states stands for a tensor that is not given.
    value = tensors.get(name, op.values.get(name))
    if value is None:
        raise InputError(
            f"tensor {name} is missing",
            where=op.name,
            hint=f"give an array of shape {declared.shape}, {declared.dtype}",
        )
    hint = f"give an array of shape {declared.shape}, {declared.dtype}"
    try:
        array = np.asarray(value)
    except ValueError as error:  # NumPy's word for ragged lists
        raise InputError(f"tensor {name} is no array", why=str(error), hint=hint) from error
    if array.shape != declared.shape:
        raise InputError(
            f"tensor {name} has shape {array.shape}",
            why=f"the operator declares {declared.shape}",
            hint=hint,
        )
    if array.dtype != np.dtype(declared.dtype):
        # Fractions are refused: how to round them is the user's decision.
        if array.dtype.kind not in "iub" or not np.can_cast(array.dtype, np.int64):
            raise InputError(
                f"tensor {name} is {array.dtype}",
                why=f"the operator declares {declared.dtype}",
                hint="quantise it first",
            )
        info = np.iinfo(declared.dtype)
        # Wrapping would compute something else than was asked.
        if array.size and (array.min() < info.min or array.max() > info.max):
            raise InputError(
                f"tensor {name} has values outside {declared.dtype}",
                why=f"they run from {array.min()} to {array.max()}",
                hint=f"clip or scale them to {info.min} … {info.max}",
            )
        array = array.astype(declared.dtype)
    return array


def operands(
    op: Operator, constants: Mapping[str, Any], tensors: Mapping[str, Any]
) -> dict[str, Array]:
    """Every operand as the operator declares it: these, then the constants of `compile`.

    Raises: InputError for a name that is no operand, a tensor that is missing or of the wrong
    shape, type or values.
    """
    names = [n for n in op.tensors if n != op.out.tensor]
    unknown = [n for n in tensors if n not in names]
    if unknown:
        is_result = unknown[0] == op.out.tensor
        # The commonest slip: the result among the operands.
        raise InputError(
            f"{unknown[0]} is {'the result' if is_result else 'no operand'} of {op.name}",
            where=op.formula(),
            why="it would be ignored",
            hint=f"give {', '.join(n for n in names if n not in op.values)}",
        )
    # Tensors win over constants, whose equality is the judge's matter.
    given = {**constants, **tensors}
    found = {name: operand(op, given, name) for name in names}
    for name, value in op.values.items():
        if name in tensors and not np.array_equal(found[name], value):
            raise InputError(
                f"{name} is given, but the operator states its values",
                where=op.formula(),
                hint=f"leave out {name}",
            )
    return found


def by_name(op: Operator, operands: Sequence[Any], named: Mapping[str, Any]) -> dict[str, Any]:
    """Operands by their names in the formula. Raises: InputError for one given twice or too
    many."""
    accesses = [op.lhs, op.rhs, *(s.access for s in op.epilogue)]
    # In the order of the formula; stated tensors are not asked for.
    names = [a.tensor for a in accesses if a is not None and a.tensor not in op.values]
    # A tensor that stands twice is given once.
    names = list(dict.fromkeys(names))
    twice = [n for n in names[: len(operands)] if n in named]
    if twice or len(operands) > len(names):
        what = f"{twice[0]} comes twice" if twice else f"{len(operands)} operands are given"
        raise InputError(
            what,
            where=op.formula(),
            why=f"{op.name} takes {', '.join(names)}",
            hint="give each operand once, in this order or by its name",
        )
    return {**dict(zip(names, operands, strict=False)), **named}
