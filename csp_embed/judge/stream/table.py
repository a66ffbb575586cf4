"""A stream as integer columns by role, which Numba kernels read.

Takes: a decoded Stream.  Leaves: a Table in which every part of an instruction stands under its
role, whatever its field is called.  Assumes: nothing; unknown opcodes and memories become -1.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from types import SimpleNamespace
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.stream import Stream
from csp_embed.machine.spec import Instruction, Isa, Memory

Rows = NDArray[np.int64]

LOAD, STORE, CONTRACT, MAP, FINISH = range(5)
KINDS = {"load": LOAD, "store": STORE, "contract": CONTRACT, "map": MAP, "finish": FINISH}
FUNCTIONS = {"min": 0, "max": 1, "add": 2, "shr": 3, "mul": 4}

TOKENS = ("pop_prev", "pop_next", "push_prev", "push_next")
_TRANSFER = (
    "sram", "dram", "y_size", "x_size", "x_stride", "y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1",
)  # fmt: skip
_COMPUTE = ("uop_begin", "uop_end", "iter_out", "iter_in", "reset", "use_imm", "imm")


class Row(Protocol):
    """One instruction. Kernels get records, and fields keep names: a wrong column is an error.

    queue: an index into isa.queues; memory: into isa.memories after aliases are resolved, named:
    before (-1 unknown). op: a map's index into its instruction's ops; function: one of FUNCTIONS
    (-1 unknown).
    """

    kind: int
    queue: int
    named: int
    memory: int
    sram: int
    dram: int
    y_size: int
    x_size: int
    x_stride: int
    y_pad_0: int
    y_pad_1: int
    x_pad_0: int
    x_pad_1: int
    uop_begin: int
    uop_end: int
    iter_out: int
    iter_in: int
    reset: int
    use_imm: int
    imm: int
    op: int
    function: int
    dst_out: int
    dst_in: int
    lhs_out: int
    lhs_in: int
    rhs_out: int
    rhs_in: int


# The records have what their type says, in its order, as int64.
PARTS = tuple(Row.__annotations__)
ROW = np.dtype([(part, np.int64) for part in PARTS])


@dataclass(frozen=True)
class Table:
    """rows: records of ROW; c: its columns by name (`c.x_size`); tokens: uint8[n, 4], order of
    TOKENS."""

    rows: NDArray[Any]
    tokens: NDArray[np.uint8]

    @cached_property
    def c(self) -> SimpleNamespace:
        return _columns(self.rows)

    def __len__(self) -> int:
        return len(self.tokens)

    @cached_property
    def steps(self) -> NDArray[np.int64]:
        """Micro-op steps of each instruction; 0 where it does not compute. Saturates."""
        uops = np.maximum(self.c.uop_end - self.c.uop_begin, 0).astype(np.float64)
        return np.minimum(uops * self.c.iter_out * self.c.iter_in, 2.0**62).astype(np.int64)

    @cached_property
    def elements(self) -> NDArray[np.int64]:
        """On-chip elements that a load writes or a store reads; 0 for a token-only one."""
        c = self.c
        data = (c.x_size > 0) & ((c.kind == LOAD) | (c.kind == STORE))
        height = c.y_pad_0 + c.y_size + c.y_pad_1
        return np.where(data, height * (c.x_pad_0 + c.x_size + c.x_pad_1), 0)

    @cached_property
    def dram_elements(self) -> NDArray[np.int64]:
        """Elements that a load reads from DRAM or a store writes there."""
        return np.where(self.elements > 0, self.c.y_size * self.c.x_size, 0)


def _columns(rows: NDArray[Any]) -> SimpleNamespace:
    return SimpleNamespace(**{part: rows[part] for part in PARTS})


def make_table(isa: Isa, stream: Stream) -> Table:
    """The columns of `stream`; never raises, whatever the stream holds."""
    n = len(stream)
    rows = np.zeros(n, dtype=ROW)
    c = _columns(rows)
    for column in (c.kind, c.named, c.memory, c.op, c.function):
        column[:] = -1
    tokens = np.zeros((n, len(TOKENS)), dtype=np.uint8)
    for index, instruction in enumerate(isa.instructions):
        at = np.flatnonzero(stream.code == index)
        if not len(at):
            continue
        c.kind[at] = KINDS[instruction.kind]
        for position, name in enumerate(TOKENS):
            tokens[at, position] = np.asarray(_part(stream, instruction, name, at)) != 0
        if instruction.kind in ("load", "store"):
            _transfers(isa, stream, instruction, at, c)
            continue
        assert instruction.queue is not None, f"{instruction.name} has no queue"
        c.queue[at] = isa.queues.index(instruction.queue)
        if instruction.kind != "finish":
            _computes(stream, instruction, at, c)
    return Table(rows, tokens)


def _part(stream: Stream, instruction: Instruction, part: str, at: Rows) -> Any:
    return _field(stream, instruction.roles.get(part, ""), at)


def _field(stream: Stream, name: str, at: Rows) -> Any:
    return stream.fields[name][at] if name in stream.fields else np.zeros(len(at), np.int64)


def _transfers(
    isa: Isa, stream: Stream, instruction: Instruction, at: Rows, c: SimpleNamespace
) -> None:
    named = np.asarray(_part(stream, instruction, "memory", at))
    found = np.full(len(at), -1, dtype=np.int64)
    for k, memory in enumerate(isa.memories):
        found[named == memory.id] = k
    c.named[at] = found
    real = np.array([_resolve(isa, m) for m in isa.memories], dtype=np.int64)
    c.memory[at] = np.where(found >= 0, real[found], -1)
    default = fallback_queue(isa, instruction.kind)
    queues = [memory_queue(m, instruction.kind) for m in isa.memories]
    by_memory = np.array([isa.queues.index(q or default) for q in queues])
    c.queue[at] = np.where(found >= 0, by_memory[found], isa.queues.index(default))
    for part in _TRANSFER:
        getattr(c, part)[at] = _part(stream, instruction, part, at)


def memory_queue(memory: Memory, kind: str) -> str | None:
    """The queue in which a "load" or "store" of `memory` runs, or None."""
    return memory.load_queue if kind == "load" else memory.store_queue


def fallback_queue(isa: Isa, kind: str) -> str:
    """Where a transfer runs that names no memory of its kind (token-only stores may): the first
    queue that does such transfers."""
    queues = [q for q in (memory_queue(m, kind) for m in isa.memories) if q]
    return min(queues, key=isa.queues.index) if queues else isa.queues[0]


def _resolve(isa: Isa, memory: Memory) -> int:
    target = memory.alias_of or memory.name
    return next(k for k, m in enumerate(isa.memories) if m.name == target)


def _computes(stream: Stream, instruction: Instruction, at: Rows, c: SimpleNamespace) -> None:
    for part in _COMPUTE:
        getattr(c, part)[at] = _part(stream, instruction, part, at)
    for operand, role in zip(instruction.operands, ("dst", "lhs", "rhs"), strict=False):
        getattr(c, f"{role}_out")[at] = _field(stream, operand.factor_out, at)
        getattr(c, f"{role}_in")[at] = _field(stream, operand.factor_in, at)
    if instruction.kind == "map":
        opcode = np.asarray(_part(stream, instruction, "op", at))
        for index, op in enumerate(instruction.ops):
            here = at[opcode == op.code]
            c.op[here] = index
            c.function[here] = FUNCTIONS[op.function]
