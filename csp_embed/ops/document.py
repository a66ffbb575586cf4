"""An operator as JSON and back: what a program file, a report or a cache holds of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.narrow import is_list
from csp_embed.ops.formula import parse_formula


def to_document(op: Operator) -> dict[str, Any]:
    """Formula with epilogue, extents, shapes, types, constants, notes: all JSON values.

    Arrays that belong to the operator (`values`) are only named; they travel with the tensors.
    """
    return {
        # The notation is the document's core: who reads it needs no class of ours.
        "name": op.name,
        "formula": op.formula(),
        "epilogue": [str(step) for step in op.epilogue],
        "extents": dict(op.axes),
        "shapes": {t.name: list(t.shape) for t in op.tensors.values()},
        "dtypes": {t.name: t.dtype for t in op.tensors.values()},
        "constants": [t.name for t in op.tensors.values() if t.constant],
        "values": sorted(op.values),
        "notes": {key: _plain(value) for key, value in op.notes.items()},
    }


def from_document(
    document: Mapping[str, Any], tensors: Mapping[str, Any] | None = None
) -> Operator:
    """The operator that `to_document` wrote; `tensors` has the arrays that belong to it.

    Raises: OperatorError where a part is missing or does not fit the others.
    """
    try:
        text = "; ".join([document["formula"], *document["epilogue"]])
        # Values are arrays, which stand beside the document.
        values = {name: (tensors or {})[name] for name in document["values"]}
        return parse_formula(
            text,
            document["shapes"],
            extents=document["extents"],
            constants=document["constants"],
            dtypes=document["dtypes"],
            values=values,
            notes=document["notes"],
            name=document["name"],
        )
    except (KeyError, TypeError) as error:
        raise OperatorError(
            "the description of the operator is incomplete",
            why=f"{type(error).__name__}: {error}",
            hint="compile it again: the file's `meta` was changed",
        ) from error


def _plain(value: Any) -> Any:
    """Lists for tuples and arrays, ints for NumPy's."""
    # NumPy's numbers are no JSON.
    if hasattr(value, "tolist"):
        return value.tolist()
    return [_plain(v) for v in value] if is_list(value) else value
