"""Does a program file expect what its formula says? Judged by NumPy, without running the program.

Takes: a program file's content.  Leaves: problems, and remarks on what could not be judged.

A simulator that agrees with the file's `after` proves nothing where `after` is wrong: here the
result is computed anew from the operator in `meta` and the logical tensors, and looked up in
`after` by the element addresses that `meta.tensors` states. No code of the builders is used.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.narrow import is_object
from csp_embed.ops.bound import natural
from csp_embed.ops.document import from_document
from csp_embed.ops.reference import evaluate

# NumPy does about 4 * 10^9 a second: a minute at most.
REFERENCE_MACS = 200_000_000_000

Array = NDArray[Any]


def formula_problems(program: Program) -> tuple[list[str], list[str]]:
    """(problems, remarks) of the expected values; nothing for a file that claims no formula."""
    # The operator stands in the certificate, which names what was compiled; the file's own text may
    # be shortened.
    certificate = program.meta.get("certificate")
    document = certificate.get("operator") if is_object(certificate) else None
    if document is None:
        return [], []  # Recorded by another tool: nothing claims a formula.
    try:
        op = from_document(document, program.tensors)
        name = op.out.tensor
        if any(t not in program.tensors for t in op.tensors if t != name):
            return [], ["expected values were not compared with the formula: operands are missing"]
        # A remark, not a problem: what was not compared is not wrong.
        if natural(op)["macs"] > REFERENCE_MACS:
            return [], ["expected values were not compared with the formula: it would take minutes"]
        want = evaluate(op, program.tensors)[name]
    except OperatorError as error:
        return [f"the operator and the tensors do not fit: {error.what}"], []
    return _compare(op, program, want)


def _compare(op: Operator, program: Program, want: Array) -> tuple[list[str], list[str]]:
    name = op.out.tensor
    problems: list[str] = []
    remarks: list[str] = []
    if name not in program.tensors:
        remarks.append(f"the file carries no {name}")
    elif not np.array_equal(program.tensors[name], want):
        problems.append(_first(f"the tensor {name}", name, program.tensors[name], want))
    if not program.after:
        return problems, [*remarks, "the file expects no bytes"]
    expected = _looked_up(program, name, want.shape)
    if isinstance(expected, str):
        return problems, [
            *remarks,
            f"expected bytes were not compared with the formula: {expected}",
        ]
    if not np.array_equal(expected, want):
        problems.append(_first("the expected bytes", name, expected, want))
    return problems, remarks


def _looked_up(program: Program, name: str, shape: tuple[int, ...]) -> Array | str:
    """The tensor as `after` holds it; a text where that cannot be told."""
    tensors = program.meta.get("tensors")
    place = tensors.get(name) if is_object(tensors) else None
    if place is None:
        return f"the file does not say where {name} lies"
    try:
        # Address = base + a digit of each axis times its stride: blocked layouts are digits of one
        # axis with different strides.
        dtype, base, digits = np.dtype(place["dtype"]), int(place["addr"]), place["digits"]
        at: Array = np.full([1] * len(shape), base, np.int64)
        for d in digits:
            axis: int = d["axis"]
            index: Array = np.arange(shape[axis]) // d["div"] % d["mod"] * d["stride_bytes"]
            at = at + index.reshape([-1 if a == axis else 1 for a in range(len(shape))])
    except (KeyError, TypeError, ValueError, IndexError):
        return f"where {name} lies cannot be read"
    # Broadcast last: the sum of rank-1 tables is the whole address map without a loop over
    # elements.
    at = np.broadcast_to(at, shape)
    starts = np.array([a for a, _ in program.after], np.int64)
    # `after` may be in any order and in many ranges; a search over sorted starts finds each
    # element's.
    order = np.argsort(starts, kind="stable")
    lengths = np.array([len(d) for _, d in program.after], np.int64)
    joined = np.concatenate([program.after[int(n)][1] for n in order])
    begins = np.concatenate([[0], np.cumsum(lengths[order])])
    number = np.searchsorted(starts[order], at.reshape(-1), side="right") - 1
    offset = at.reshape(-1) - starts[order][number]
    # An element across the end of a range counts as missing, even where the next range would go on.
    if (number < 0).any() or (offset + dtype.itemsize > lengths[order][number]).any():
        return f"not all of {name} is among them"
    first = begins[number] + offset
    raw = joined[first[:, None] + np.arange(dtype.itemsize)]
    return np.ascontiguousarray(raw).view(dtype).reshape(shape)


def _first(what: str, name: str, got: Array, want: Array) -> str:
    # Shapes first: NumPy's comparison of different shapes is a scalar or an error, not a place.
    if got.shape != want.shape:
        return f"{what} has the shape {got.shape}, not {want.shape}"
    wrong = np.argwhere(got != want)
    index = tuple(int(i) for i in wrong[0])
    place = f"{name}[{','.join(map(str, index))}]"
    return (
        f"{what} contradicts the formula: {place} is {got[index]}, NumPy computes {want[index]};"
        f" {len(wrong)} elements differ"
    )
