"""The file's own data: packed as its claims say, and expecting what its formula computes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import OperatorError
from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.judge.certify.claims import NO_VALUES, Claim, visit
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
    by_item: dict[tuple[int, tuple[int, ...], int], list[Claim]] = {}
    for c in claims:
        by_item.setdefault((c.item_bytes, c.weights, c.scale), []).append(c)
    for (item, weights, scale), mine in by_item.items():
        # Claims count items from an aligned address; a range that begins between two is filled up
        # in front.
        shift = address % item
        begin = address - shift
        padded = np.concatenate([np.zeros(shift, np.uint8), data])
        padded = padded[: len(padded) // item * item]
        who = np.full(len(padded) // item, -1, np.int64)
        for c in mine:
            if c.addr < begin + len(padded) and c.end > begin:
                visit(*c.arguments(op.tensors[c.tensor].shape), c.addr - begin, item, who, item,
                      *NO_VALUES)  # fmt: skip
        held = padded.view(f"<i{item}").astype(np.int64)
        at = np.flatnonzero(who >= 0)
        if not weights:
            bad += int((held[at] != flat[who[at]]).sum())
            continue
        whole = np.zeros(len(flat), np.int64)
        number, part = np.divmod(who[at], len(weights))
        # An element may stand several times, each time in all of its parts.
        copies = np.bincount(number, minlength=len(flat)) // len(weights)
        np.add.at(whole, number, held[at] * np.array(weights)[part])
        bad += int(((copies > 0) & (whole != flat * copies * scale)).sum())
    return bad
