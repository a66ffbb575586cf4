"""DRAM by its claims: which lane of the result is which element, and operands in the field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.judge.certify.claims import FORM, Claim, owners
from csp_embed.judge.certify.field import Ints, Values
from csp_embed.judge.certify.formula import Symbols
from csp_embed.judge.certify.images import Held
from csp_embed.judge.certify.lanes import Box, Machine, boxes
from csp_embed.judge.stream.table import STORE, make_table
from csp_embed.machine.spec import Isa, Memory
from csp_embed.machine.words.bits import decode


def lane_bytes(isa: Isa, memory: Memory) -> int:
    """Bytes of a lane in DRAM."""
    return memory.elem_bytes // int(np.prod(isa.lane_shape(memory.name), dtype=int))


@dataclass(frozen=True)
class Result:
    """Elements of `memory` that hold elements of `tensor`. address: of each, in bytes, ascending;
    who[element, lane]: flat index into the tensor, -1 of pad lanes. stated: what the file's `after`
    holds in pad lanes, -1 where nothing."""

    tensor: str
    shape: tuple[int, ...]
    memory: Memory
    address: Ints
    who: Ints
    stated: NDArray[np.int16]

    @property
    def first(self) -> int:
        return int(self.address[0])

    @property
    def end(self) -> int:
        return int(self.address[-1]) + self.memory.elem_bytes

    @property
    def said(self) -> str:
        """What is stored where all of it is."""
        stated, pads = int((self.stated >= 0).sum()), int((self.who < 0).sum())
        return (
            f"{int((self.who >= 0).sum()):,} elements of {self.tensor} are stored, nothing outside"
            f" their {self.end - self.first:,} bytes; all that is read was declared or written"
            f" before; {stated:,} of {pads:,} pad lanes are stated by the file, and hold that"
            " always"
        )

    def last(self, byte: Ints) -> tuple[Ints, Ints]:
        """(number of the last store of each element, -1 for none; stores beside them), by the
        address of each store. All stores run in one queue, in program order."""
        at = np.searchsorted(self.address, byte).clip(max=len(self.address) - 1)
        hit = self.address[at] == byte
        last = np.full(len(self.address), -1, np.int64)
        # NumPy assigns in order, so the last store of an element stays.
        last[at[hit]] = np.flatnonzero(hit)
        return last, np.flatnonzero(~hit)

    def name(self, place: int) -> str:
        """Element `place`, by its first lane."""
        index = np.unravel_index(int(self.who[place].max()), self.shape) if self.shape else ()
        return f"{self.tensor}[{','.join(str(int(i)) for i in index)}]"

    def boxes(self, machine: Machine) -> Iterator[tuple[Box, bool, Ints]]:
        """Every box of lanes, whether these are pad lanes, and the elements that use it."""
        for pad, mask in ((False, self.who >= 0), (True, self.stated >= 0)):
            # Elements with the same lanes in use are one kind; most results have one, ragged ones a
            # few.
            packed = np.packbits(mask, axis=1)
            kinds, which = np.unique(packed, axis=0, return_inverse=True)
            users: dict[Box, list[NDArray[np.int64]]] = {}
            shape = machine.isa.lane_shape(self.memory.name)
            axes = [self.memory.lanes.index(d) for d in machine.dims]
            for k in range(len(kinds)):
                spots = np.flatnonzero(which.reshape(-1) == k)
                for box in boxes(mask[spots[0]].reshape(shape).transpose(axes)):
                    users.setdefault(box, []).append(spots)
            for box, found in users.items():
                yield box, pad, np.sort(np.concatenate(found))


def result_of(isa: Isa, program: Program, op: Operator, claims: Sequence[Claim]) -> Result:
    """Where the result lies. Raises: InputError where the file does not say it."""
    table = make_table(isa, decode(isa, program.insn))
    named = np.unique(table.c.named[(table.c.kind == STORE) & (table.elements > 0)])
    mine = [c for c in claims if c.tensor == op.out.tensor]
    if len(named) != 1 or not mine:
        raise InputError(
            f"where {op.out.tensor} is stored cannot be told",
            why="the stream stores nothing" if not len(named) else
            f"no claim names {op.out.tensor}" if not mine else "it stores two memories",
            hint=f"give --layout {op.out.tensor}=…",
        )  # fmt: skip
    memory = isa.memories[int(named[0])]
    elem, unit = memory.elem_bytes, lane_bytes(isa, memory)
    # Whole elements: stores write elements, and lanes beside the result are pads, not nobody's.
    first = min(c.addr for c in mine) // elem * elem
    end = -(-max(c.end for c in mine) // elem) * elem
    who = owners(mine, op, {op.out.tensor: 0}, (first, end), unit, memory)
    # More than one home is allowed: all of them are compared.
    missing = np.bincount(who[who >= 0], minlength=int(np.prod(op.tensors[op.out.tensor].shape)))
    if (missing == 0).any():
        raise InputError(
            f"the claims leave out elements of {op.out.tensor}",
            why=f"{int((missing == 0).sum())} elements lie nowhere", where="meta.claims", hint=FORM,
        )  # fmt: skip
    stated = np.full(len(who), -1, np.int16)
    # Pad lanes are stated byte by byte, so only lanes of one byte are compared.
    for address, data in program.after if unit == 1 else ():
        low, high = max(address, first), min(address + len(data), end)
        if low < high:
            stated[low - first : high - first] = data[low - address : high - address]
    # What the file says of real elements is an example, not a promise.
    stated[who >= 0] = -1
    name, shape = op.out.tensor, (-1, elem // unit)
    return Result(
        name, op.tensors[name].shape, memory, np.arange(first, end, elem), who.reshape(shape),
        stated.reshape(shape),
    )  # fmt: skip


def operands(
    isa: Isa, program: Program, claims: Sequence[Claim], symbols: Symbols
) -> tuple[Held, Values]:
    """Who lies in DRAM before the program, by its claims, and everybody's value."""
    op = symbols.op
    inputs = [c for c in claims if c.tensor != op.out.tensor]
    values = {t: symbols.elements(t, split=True) for t in {c.tensor: 0 for c in inputs}}
    starts = np.cumsum([0, *map(len, values.values())])
    first = dict(zip(values, starts.tolist(), strict=False))

    def held(memory: Memory, n: int, elements: tuple[int, int]) -> tuple[Ints, Ints]:
        address, data = program.before[n]
        elem, unit = memory.elem_bytes, lane_bytes(isa, memory)
        # Whole elements of the range, not only those that are loaded: claims may not leave it.
        span = -(-address // elem) * elem, (address + len(data)) // elem * elem
        mine = [c for c in inputs if c.addr < span[1] and c.end > span[0]]
        who = owners(mine, op, first, span, unit, memory)
        marks = np.zeros((span[1] - span[0]) // elem, np.int64)
        for c in mine:
            # For all of the claim, holes included: a mark too many can only refuse.
            low, high = c.addr - span[0], c.end - span[0]
            marks[low // elem : -(-high // elem)] |= 1 << list(op.tensors).index(c.tensor)
        low, high = (e - span[0] // elem for e in elements)
        return who[low * (elem // unit) : high * (elem // unit)], marks[low:high]

    return held, np.concatenate([np.zeros(0, np.uint64), *values.values()])
