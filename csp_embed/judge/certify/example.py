"""The file's own data: packed as its claims say, and expecting what its formula computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.judge.certify.claims import Claim
from csp_embed.judge.formula import REFERENCE_MACS
from csp_embed.ops.bound import natural
from csp_embed.ops.reference import evaluate


def example_problems(
    program: Program, op: Operator, claims: Sequence[Claim]
) -> tuple[tuple[str, ...], str]:
    """(problems, what was compared) of the tensors that the file carries."""
    name = op.out.tensor
    have = [t for t in op.tensors if t in program.tensors]
    tensors = dict(program.tensors)
    said = f"tensors {', '.join(have) or 'none'} against DRAM"
    problems: list[str] = []
    try:
        # NumPy is asked only where it answers within a minute.
        if natural(op)["macs"] <= REFERENCE_MACS and all(
            t in tensors or t in op.values for t in op.tensors if t != name
        ):
            tensors[name] = evaluate(op, program.tensors)[name]
            said += f", {name} against NumPy"
            if name in have and not np.array_equal(tensors[name], program.tensors[name]):
                problems.append(f"the file's {name} is not what NumPy computes from its operands")
    except OperatorError as error:
        return (f"the tensors do not fit the formula: {error.what}",), said
    for tensor in op.tensors:
        mine = [c for c in claims if c.tensor == tensor]
        ranges = program.after if tensor == name else program.before
        # A tensor that the file does not carry is no example; the proof does not need one.
        if tensor not in tensors or not mine or (tensor == name and not program.after):
            continue
        array = np.asarray(tensors[tensor])
        if array.shape != op.tensors[tensor].shape:
            problems.append(f"{tensor} has the shape {array.shape} in the file")
            continue
        for address, data in ranges:
            bad = _differing(op, mine, address, data, array.reshape(-1))
            if bad:
                problems.append(f"{bad} values of {tensor} in the range at {address:#x} differ")
    return tuple(problems), said


def _differing(
    op: Operator, claims: Sequence[Claim], address: int, data: NDArray[np.uint8], flat: Any
) -> int:
    """How many lanes of a range are not the element (or, in parts, do not make the element)."""
    bad = 0
    weights, scale = np.array(claims[0].weights or (1,)), claims[0].scale
    # An element may stand several times, each time in all of its parts.
    whole, pieces = np.zeros(len(flat), np.int64), np.zeros(len(flat), np.int64)
    for c in claims:
        for byte, number in c.lanes(op.tensors[c.tensor].shape):
            at = byte - address
            mine = (at >= 0) & (at + c.item_bytes <= len(data))
            items = data[at[mine, None] + np.arange(c.item_bytes)]
            held = items.view(f"<i{c.item_bytes}")[:, 0].astype(np.int64)
            element, part = np.divmod(number[mine], len(weights))
            if not c.weights:
                bad += int((held != flat[element]).sum())
            np.add.at(whole, element, held * weights[part])
            np.add.at(pieces, element, 1)
    if claims[0].weights:
        copies = pieces // len(weights)
        bad += int(((copies > 0) & (whole != flat * copies * scale)).sum())
    return bad
