"""Prepares `walk`: a program's arrays in the field, and its end in words."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.stream import Program
from csp_embed.judge.certify import walk as kernels
from csp_embed.judge.certify.claims import Claim
from csp_embed.judge.certify.dram import Result, operands
from csp_embed.judge.certify.field import Values, mul, total
from csp_embed.judge.certify.formula import Symbols
from csp_embed.judge.certify.images import images
from csp_embed.judge.certify.lanes import Machine
from csp_embed.judge.stream.audit import micro_ops
from csp_embed.judge.stream.table import CONTRACT, MAP, STORE, Table
from csp_embed.judge.stream.tokens import Order
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.arrays import operand_table
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
    """A program and its claims, in a legal order, with random values."""

    machine: Machine
    program: Program
    claims: Sequence[Claim]
    table: Table
    order: Order
    symbols: Symbols


def run_stream(
    s: Stream, result: Result, weights: dict[str, Values],
    tell: Callable[[str, int, int], None] | None = None,
) -> Ran:  # fmt: skip
    """What every stored element is, in the random values of `s`. weights: of lanes."""
    table = s.table
    code = micro_ops(s.machine.isa, s.program, table)
    problem = _unfit(s, code[1])
    if problem:
        return Ran(np.zeros(1, kernels.NODE), np.zeros(0, kernels.STORED), np.uint64(1), problem)
    held, x = operands(s.machine.isa, s.program, s.claims, s.symbols)
    dram = images(s.machine, s.program.before, table, s.order.order, held, x, (), weights)
    own = np.array([result.first, result.end], np.int64)
    walked = Walk(s.machine, table, code, own, weights)
    ran = walked.run(s.order.order, dram, tell)
    return replace(ran, problem=_problem(s, walked.state))


class Walk:
    """A walk over instructions of a table. code: as `micro_ops` has it. own: first
    and last byte that it may not load. weights: of lanes. uops: micro-ops on chip, of an earlier
    walk. state: see `walk`."""

    def __init__(
        self, machine: Machine, table: Table, code: tuple[Any, Any], own: NDArray[np.int64],
        weights: dict[str, Values], uops: NDArray[np.int64] | None = None,
    ) -> None:  # fmt: skip
        isa = machine.isa
        self.machine, self.table, self.code, self.own = machine, table, code, own
        self.state = np.zeros(8, np.int64)
        # The sum of a product of weights is the product of their sums.
        self.ones = np.uint64(1)
        for d in machine.dims:
            self.ones = mul(self.ones, total(weights[d], 0))
        depth = {m.name: m.depth for m in isa.memories}
        # One column more than fields: whether the micro-op was written.
        empty = np.zeros((depth[isa.uop_memory], len(isa.uop_fields) + 1), np.int64)
        self.uops = empty if uops is None else uops

    def run(
        self, sequence: NDArray[np.int64], dram: kernels.Dram,
        tell: Callable[[str, int, int], None] | None = None,
    ) -> Ran:  # fmt: skip
        """Walks these instructions, in this order; `problem` is left empty."""
        isa, table, state = self.machine.isa, self.table, self.state
        state[7] = room(self.machine, table, sequence)
        depth = {m.name: m.depth for m in isa.memories}
        contract = next(i for i in isa.instructions if i.kind == "contract")
        sizes = [depth[o.memory] for o in contract.operands]
        slots = self.machine.slots()
        machine = (
            self.machine.roles, self.machine.shadow,
            np.array([m.elem_bytes for m in isa.memories], np.int64), (slots, slots, 1),
            operand_table(isa, "contract", 3)[:, 1].copy(),
            operand_table(isa, "map", 2)[:, 1].copy(),
        )  # fmt: skip
        sides = _side(sizes[1], slots), _side(sizes[2], slots), _side(sizes[0], 1)
        nodes_of = np.zeros(sizes[0], np.int64), np.ones(sizes[0])
        # Additions of constants make no nodes.
        # Every map step makes at most one node; node 0 is "none".
        kind = table.c.kind[sequence]
        many = int(table.steps[sequence][kind == MAP].sum()) + 1
        stores = int(table.dram_elements[sequence][kind == STORE].sum())
        nodes, stored = np.zeros(many, kernels.NODE), np.zeros(stores, kernels.STORED)
        done = np.cumsum((table.steps + table.elements + 20)[sequence])
        at = 0
        while at < len(sequence) and not state[2]:
            stop = int(np.searchsorted(done, (done[at - 1] if at else 0) + PORTION)) + 1
            stop = min(stop, len(sequence))
            kernels.walk(
                sequence, at, stop, table.rows, machine, dram, self.code, self.own, self.uops,
                sides, nodes_of, nodes, stored, self.ones, state,
            )  # fmt: skip
            at = stop
            if tell is not None:
                tell("sums", int(done[at - 1]), int(done[-1]))
        return Ran(nodes[: int(state[0]) + 1], stored[: int(state[1])], self.ones)


def _side(elements: int, numbers: int) -> kernels.Side:
    """Elements of one role, of which nothing is written."""
    return (np.zeros(elements * numbers, np.uint64), np.zeros(elements, np.int64),
            np.zeros(elements, np.bool_))  # fmt: skip


def _unfit(s: Stream, code_at: NDArray[Any]) -> str:
    """Why the walk would prove nothing: coefficients as large as the field, or claimed code."""
    if not room(s.machine, s.table, np.arange(len(s.table))):
        return "it is too long: coefficients could be as large as the field"
    for c in s.claims:
        for r in code_at:
            if c.addr < r["end"] and r["start"] < c.end:
                return f"micro-ops are loaded where {c.tensor} lies, at {int(r['start']):#x}"
    return ""


def room(machine: Machine, table: Table, sequence: NDArray[np.int64]) -> int:
    """By how much shifts and sums of accumulators may make coefficients larger, of what these
    instructions sum, so that they stay below the field's size; 0: they may not do without."""
    kind, steps = table.c.kind[sequence], table.steps[sequence]
    contracts, maps = int(steps[kind == CONTRACT].sum()), int(steps[kind == MAP].sum())
    summed = {*machine.left, *machine.right} - {*machine.dims}
    lanes = math.prod(machine.isa.dims[d] for d in summed)
    # Products of constants are below 2^14, sums that are loaded 2^31, immediates 2^15.
    # Counted as if all steps went to one element: coarse, and safe.
    return 2**58 // (contracts * lanes * 2**14 + maps * 2**15 + 2**31)


def _problem(s: Stream, state: NDArray[np.int64]) -> str:
    why = stopped(s.machine.isa, s.program, state)
    # Looked at after the walk: which operands meet is only known then.
    both = int(state[5]) & int(state[6])
    if both and not why:
        names = [t for n, t in enumerate(s.symbols.op.tensors) if both >> n & 1]
        return f"{', '.join(names)} is multiplied from both sides: that is no bilinear form"
    return why


def stopped(isa: Isa, program: Program, state: NDArray[np.int64]) -> str:
    """Why a walk ended early, or ""."""
    if not state[2]:
        return ""
    text = " ".join(line(isa, decode(isa, program.insn), int(state[3])).split())
    return f"{_WHY[int(state[2])].format(e=int(state[4]))}: {text}"
