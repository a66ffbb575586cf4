"""Prepares `walk`: a program's arrays in the field, and its end in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.judge.certify import walk as kernels
from csp_embed.judge.certify.claims import Claim
from csp_embed.judge.certify.dram import Result, images
from csp_embed.judge.certify.field import Values, mul, total
from csp_embed.judge.certify.formula import Symbols
from csp_embed.judge.certify.lanes import Machine
from csp_embed.judge.stream.audit import uop_intervals
from csp_embed.judge.stream.table import CONTRACT, MAP, STORE, Table
from csp_embed.judge.stream.tokens import Order
from csp_embed.machine.words.arrays import FIELD, image, operand_table
from csp_embed.machine.words.bits import decode
from csp_embed.machine.words.listing import line

PORTION = 1 << 24  # Steps between two looks at Ctrl-C.
_WHY = {
    kernels.UNWRITTEN: "element {e} is used, and nothing has written it",
    kernels.UNDECLARED: "it loads {e:#x}, of which the file says nothing",
    kernels.OWN_RESULT: "it loads {e:#x}, where the program itself stores",
    kernels.NOT_SUMS: "it stores what is no accumulator",
    kernels.SHIFT: "it shifts left by a tensor's values, which implementations disagree on",
    kernels.GROWTH: "element {e} grows beyond what the field can tell apart",
}


@dataclass(frozen=True)
class Ran:
    """nodes, stored: see `walk`; ones: the sum of the weights. problem: why it ended, or ""."""

    nodes: NDArray[Any]
    stored: NDArray[Any]
    ones: np.uint64
    problem: str = ""


@dataclass(frozen=True)
class Stream:
    """A program, its operator and claims, in a legal order, with random values and weights."""

    machine: Machine
    program: Program
    op: Operator
    claims: Sequence[Claim]
    table: Table
    order: Order
    symbols: Symbols
    weights: dict[str, Values]


def run_stream(
    s: Stream, result: Result, tell: Callable[[str, int, int], None] | None = None
) -> Ran:
    """What every stored element is, in the random values of `s`."""
    isa, table = s.machine.isa, s.table
    depth = {m.name: m.depth for m in isa.memories}
    contract = next(i for i in isa.instructions if i.kind == "contract")
    sizes = [depth[o.memory] for o in contract.operands]
    slots = s.machine.slots()
    dram = images(s.machine, s.program, s.op, s.claims, table, s.symbols, s.weights)
    code, code_at = image(s.program, uop_intervals(isa, table))
    # The sum of a product of weights is the product of their sums.
    ones = np.uint64(1)
    for d in s.machine.dims:
        ones = mul(ones, total(s.weights[d], 0))
    machine = (
        s.machine.roles, s.machine.shadow,
        np.array([m.elem_bytes for m in isa.memories], np.int64), (slots, slots),
        operand_table(isa, "contract", 3)[:, 1].copy(), operand_table(isa, "map", 2)[:, 1].copy(),
    )  # fmt: skip
    fields = np.array([(f.lo, f.width, f.signed) for f in isa.uop_fields], dtype=FIELD)
    # One column more than fields: whether the micro-op was written.
    uops = np.zeros((depth[isa.uop_memory], len(fields) + 1), np.int64)
    left, right = (
        (np.zeros(n * slots, np.uint64), np.zeros(n, np.int64), np.zeros(n, np.bool_))
        for n in sizes[1:]
    )
    sums = (np.zeros(sizes[0], np.uint64), np.zeros(sizes[0], np.int64), np.ones(sizes[0]),
            np.zeros(sizes[0], np.bool_), np.zeros(sizes[0], np.int64))  # fmt: skip
    # Additions of constants make no nodes.
    # Every map step makes at most one node; node 0 is "none".
    many = int(table.steps[table.c.kind == MAP].sum()) + 1
    nodes, stored = np.zeros(many, kernels.NODE), np.zeros(_stores(table), kernels.STORED)
    state = np.zeros(8, np.int64)
    sequence = s.order.order
    done = np.cumsum((table.steps + table.elements + 20)[sequence])
    own = np.array([result.first, result.end], np.int64)
    at, problem = 0, _unfit(s, code_at)
    while at < len(sequence) and not state[2] and not problem:
        stop = int(np.searchsorted(done, (done[at - 1] if at else 0) + PORTION)) + 1
        stop = min(stop, len(sequence))
        kernels.walk(
            sequence, at, stop, table.rows, machine, dram, (code, code_at, fields), own, uops,
            left, right, sums, nodes, stored, ones, state,
        )  # fmt: skip
        at = stop
        if tell is not None:
            tell("sums", int(done[at - 1]), int(done[-1]))
    problem = problem or _problem(s, state)
    return Ran(nodes[: int(state[0]) + 1], stored[: int(state[1])], ones, problem)


def _stores(table: Table) -> int:
    return int(table.dram_elements[table.c.kind == STORE].sum())


def _unfit(s: Stream, code_at: NDArray[Any]) -> str:
    """Why the walk would prove nothing: coefficients as large as the field, or claimed code."""
    table = s.table
    contracts = int(table.steps[table.c.kind == CONTRACT].sum())
    summed = {*s.machine.left, *s.machine.right} - {*s.machine.dims}
    lanes = math.prod(s.machine.isa.dims[d] for d in summed)
    maps = int(table.steps[table.c.kind == MAP].sum())
    # Products of constants are below 2^14, sums that are loaded 2^31, immediates 2^15.
    # Counted as if all steps went to one element: coarse, and safe.
    if contracts * lanes * 2.0**14 + maps * 2.0**15 + 2.0**31 > 2.0**58 / kernels.MOST_GROWTH:
        return "it is too long: coefficients could be as large as the field"
    for c in s.claims:
        for r in code_at:
            if c.addr < r["end"] and r["start"] < c.end:
                return f"micro-ops are loaded where {c.tensor} lies, at {int(r['start']):#x}"
    return ""


def _problem(s: Stream, state: NDArray[np.int64]) -> str:
    isa = s.machine.isa
    if state[2]:
        text = " ".join(line(isa, decode(isa, s.program.insn), int(state[3])).split())
        return f"{_WHY[int(state[2])].format(e=int(state[4]))}: {text}"
    # Looked at after the walk: which operands meet is only known then.
    both = int(state[5]) & int(state[6])
    if both:
        names = [t for n, t in enumerate(s.op.tensors) if both >> n & 1]
        return f"{', '.join(names)} is multiplied from both sides: that is no bilinear form"
    return ""
