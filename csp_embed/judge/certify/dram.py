"""DRAM by its claims: which lane of the result is which element, and operands in the field."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.ir.operator import Operator
from csp_embed.ir.stream import Program
from csp_embed.jit import njit
from csp_embed.judge.certify.claims import NO_VALUES, Claim, visit
from csp_embed.judge.certify.field import Ints, P, Values, plus, times
from csp_embed.judge.certify.formula import Symbols
from csp_embed.judge.certify.lanes import Box, Machine, boxes
from csp_embed.judge.certify.walk import IMAGE, LEFT, RIGHT, SUM, Dram
from csp_embed.judge.stream.table import LOAD, STORE, Table, make_table
from csp_embed.machine.spec import Isa, Memory
from csp_embed.machine.words.bits import decode


def _refuse(claim: Claim, code: int, memory: Memory) -> None:
    if code:
        raise InputError(
            f"the claim of {claim.tensor} at {claim.addr:#x} does not fit",
            where="meta.claims",
            why="it names a lane that another claim names"
            if code == 1
            else f"its values do not lie in lanes of {memory.name}, or leave the file's `before`",
            hint="docs/program-file.md has the form",
        )


def lane_bytes(isa: Isa, memory: Memory) -> int:
    """Bytes of a lane in DRAM."""
    return memory.elem_bytes // int(np.prod(isa.lane_shape(memory.name), dtype=int))


@dataclass(frozen=True)
class Result:
    """Elements first .. end-1 (bytes) of `memory`. who[element, lane]: flat index into the result,
    -1 of pad lanes. stated: what the file's `after` holds in pad lanes, -1 where nothing."""

    memory: Memory
    first: int
    end: int
    who: NDArray[np.int64]
    stated: NDArray[np.int16]

    @property
    def size(self) -> int:
        return self.end - self.first

    @property
    def stored(self) -> int:
        return int((self.who >= 0).sum())

    @property
    def pads(self) -> str:
        """What is said of pad lanes."""
        stated, lanes = int((self.stated >= 0).sum()), int((self.who < 0).sum())
        return f"{stated:,} of {lanes:,} pad lanes are stated by the file, and hold that always"

    def boxes(self, machine: Machine) -> Iterator[tuple[Box, tuple[bool, NDArray[np.int64]]]]:
        """Every box of lanes, with (whether these are pad lanes, the elements that use it)."""
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
                yield box, (pad, np.sort(np.concatenate(found)))


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
    who = np.full((end - first) // unit, -1, np.int64)
    for c in mine:
        arguments = c.arguments(op.tensors[c.tensor].shape)
        code = visit(*arguments, c.addr - first, c.item_bytes, who, unit, *NO_VALUES)
        _refuse(c, code, memory)
    # More than one home is allowed: all of them are compared.
    missing = np.bincount(who[who >= 0], minlength=int(np.prod(op.tensors[op.out.tensor].shape)))
    if (missing == 0).any():
        raise InputError(
            f"the claims leave out elements of {op.out.tensor}",
            why=f"{int((missing == 0).sum())} elements lie nowhere", where="meta.claims",
            hint="docs/program-file.md has the form",
        )  # fmt: skip
    stated = np.full(len(who), -1, np.int16)
    # Pad lanes are stated byte by byte, so only lanes of one byte are compared.
    for address, data in program.after if unit == 1 else ():
        low, high = max(address, first), min(address + len(data), end)
        if low < high:
            stated[low - first : high - first] = data[low - address : high - address]
    # What the file says of real elements is an example, not a promise.
    stated[who >= 0] = -1
    shape = (-1, elem // unit)
    return Result(memory, first, end, who.reshape(shape), stated.reshape(shape))


@njit(cache=True, nogil=True)
def _constants(
    data: NDArray[np.integer[Any]], who: Ints, lane_slot: Ints, lane_weight: Values, slots: int,
    image: Values,
) -> None:  # fmt: skip
    """Adds the lanes that nobody claims, as the file has them."""
    lanes = len(lane_slot)
    for k in range(len(who)):
        if who[k] < 0 and data[k] != 0:
            c = np.int64(data[k])
            value = np.uint64(c) if c > 0 else np.uint64(P) - np.uint64(-c)
            spot = k // lanes * slots + lane_slot[k % lanes]
            image[spot] = plus(image[spot], times(value, lane_weight[k % lanes]))


def images(
    machine: Machine, program: Program, op: Operator, claims: Sequence[Claim], table: Table,
    symbols: Symbols, weights: dict[str, Values],
) -> Dram:  # fmt: skip
    """(IMAGE records, numbers, tags) of all of `before` that the stream loads as operands."""
    isa, c = machine.isa, table.c
    records: list[tuple[int, ...]] = []
    parts, marks, at, tag = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)], 0, 0
    for k, memory in enumerate(isa.memories):
        loads = (c.kind == LOAD) & (c.named == k) & (table.dram_elements > 0)
        # An alias is loaded into what it stands for, and is there what that memory is.
        real = int(machine.shadow[k]) if memory.alias_of else k
        for role in (LEFT, RIGHT, SUM):
            if not loads.any() or not machine.roles[real] & role:
                continue
            low, elem = c.dram[loads], memory.elem_bytes
            high = low + (c.y_size[loads] - 1) * c.x_stride[loads] + c.x_size[loads]
            for address, data in program.before:
                # Only whole elements of the range can be loaded from it.
                first, end = -(-address // elem), (address + len(data)) // elem
                # Ranges that no load of this memory touches would cost an image for nothing.
                if end <= first or not ((low < end) & (high > first)).any():
                    continue
                lanes = machine.lanes(memory, role, weights)
                slots = 1 if role == SUM else machine.slots()
                numbers, tags = _image(
                    isa, memory, op, claims, (first * elem, data[first * elem - address :]),
                    end - first, symbols, lanes, slots,
                )  # fmt: skip
                records.append((k, role, first, end, at, tag))
                parts.append(numbers)
                marks.append(tags)
                at, tag = at + len(numbers), tag + len(tags)
    return np.array(records, IMAGE), np.concatenate(parts), np.concatenate(marks)


def _image(
    isa: Isa, memory: Memory, op: Operator, claims: Sequence[Claim],
    source: tuple[int, NDArray[np.uint8]], elements: int, symbols: Symbols,
    lanes: tuple[NDArray[np.int64], Values], slots: int,
) -> tuple[Values, NDArray[np.int64]]:  # fmt: skip
    """One range of DRAM in one role: numbers per slot, and the tensors in each element."""
    begin, data = source
    unit = lane_bytes(isa, memory)
    size = elements * memory.elem_bytes
    numbers = np.zeros(elements * slots, np.uint64)
    tags = np.zeros(elements, np.int64)
    who = np.full(size // unit, -1, np.int64)
    for c in claims:
        if c.addr >= begin + size or c.end <= begin or c.tensor == op.out.tensor:
            continue
        # The last table is that of the parts; a tensor that is not split has an empty one.
        tables = symbols.tables[c.tensor]
        starts = np.cumsum([0, *(len(t) for t in tables)]).astype(np.int64)
        code = visit(
            *c.arguments(op.tensors[c.tensor].shape), c.addr - begin, c.item_bytes, who, unit,
            np.concatenate(tables), starts, symbols.scale[c.tensor], *lanes, slots, numbers,
        )  # fmt: skip
        _refuse(c, code, memory)
        # For the whole span of the claim, holes included: a tag too many can only refuse.
        bit = np.int64(1) << list(op.tensors).index(c.tensor)
        low = (c.addr - begin) // memory.elem_bytes
        tags[low : -(-(c.end - begin) // memory.elem_bytes)] |= bit
    values = np.ascontiguousarray(data[:size]).view(memory.dram_dtype)
    if values.any():
        _constants(values, who, *lanes, slots, numbers)
    return numbers, tags
