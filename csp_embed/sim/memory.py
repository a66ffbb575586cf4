"""Memories of a running program: the DRAM image and the on-chip memories, as arrays for kernels.

DRAM is the union of the program's `before` and `after` ranges and no more; everything else does not
exist. On chip there are three arenas: `words` (int32 lanes in the spec's order), `pairs` (int16: the
two factors of a contraction, laid out for its kernel) and `uops` (decoded fields).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import SimError
from csp_embed.ir.stream import Program
from csp_embed.isa.spec import Instruction, Isa, Memory

WORDS, PAIRS, UOPS = range(3)
MAX_ARENA_BYTES = 1 << 32

# dram: uint8 buffer. Range r holds addresses start[r] .. end[r]-1, at dram[offset[r]]. The columns
# from `storage` on have one entry per memory of the machine: arena, first item in it, items per
# element, lanes, depth, bytes of an element and of a lane in DRAM, first flag in `written`, bits of
# a lane on chip, first entry in `perm` (lane -> item in the element; -1: the same), memory that it
# shadows (or -1). uop_lo / uop_width / uop_signed: the micro-op's bit fields.
State = namedtuple(
    "State",
    "dram start end offset words pairs uops written perm storage base stride lanes depth elem_bytes"
    " lane_bytes flags bits perm_at shadow uop_lo uop_width uop_signed",
)
# What `written` says of an element: nothing was ever there, it was loaded or reset (its shadow is
# stale), a compute step wrote it (and its shadow).
NEVER, LOADED, COMPUTED = range(3)


@dataclass(frozen=True)
class Dims:
    """A contraction as rows x columns: out[b, o] += row[b, i] * column[i, o], from flattened lanes.

    swapped: the row operand is the instruction's rhs. fits: the fast kernel can run it.
    """

    b: int = 1
    o: int = 1
    i: int = 1
    swapped: bool = False
    fits: bool = False


def contraction_dims(isa: Isa) -> Dims:
    """How the machine's contraction looks to the fast kernel."""
    found = [i for i in isa.instructions if i.kind == "contract"]
    if not found:
        return Dims()
    dst, lhs, rhs = found[0].operands
    reduced = [d for d in lhs.dims if d not in dst.dims]
    rows = [d for d in dst.dims if d in lhs.dims and d not in rhs.dims]
    columns = [d for d in dst.dims if d in rhs.dims and d not in lhs.dims]
    both = sorted(reduced) == sorted(d for d in rhs.dims if d not in dst.dims)
    swapped = bool(rows) and list(dst.dims) == [*columns, *rows] and bool(columns)
    if swapped or not columns:
        rows, columns, swapped = columns, rows, True
    b, o, i = (int(np.prod([isa.dims[d] for d in ds])) for ds in (rows, columns, reduced))
    memories = {o.memory for o in found[0].operands}
    written = {x.operands[0].memory for x in isa.instructions if x.operands}
    mapped = {o.memory for x in isa.instructions if x.kind == "map" for o in x.operands}
    factors = {lhs.memory, rhs.memory}
    fits = (
        both
        and len(memories) == 3
        and list(dst.dims) == [*rows, *columns]
        and not factors & (written | mapped)
        and isa.memory(dst.memory).dtype == "int32"
        and all(isa.memory(m).dtype in ("int8", "int16") for m in factors)
        # Larger blocks would unroll into too much code.
        and b * o <= 512
        and b * o * i <= 32768
    )
    return Dims(b, o, i, swapped, fits)


def _factor_perm(isa: Isa, instruction: Instruction, memory: str, dims: Dims) -> NDArray[np.int64]:
    """Lane of a factor -> item of its element in `pairs`: rows [b, i], columns [i/2, o, 2]."""
    dst, lhs, rhs = instruction.operands
    operand = lhs if lhs.memory == memory else rhs
    reduced = [d for d in lhs.dims if d not in dst.dims]
    row_factor = (operand is lhs) != dims.swapped
    kept = [d for d in dst.dims if d in operand.dims]
    shape = [isa.dims[d] for d in operand.dims]
    index = dict(zip(operand.dims, np.indices(shape).reshape(len(shape), -1), strict=True))
    k = _flatten(isa, reduced, index)
    outer = _flatten(isa, kept, index)
    even = dims.i + dims.i % 2
    if row_factor:
        return outer * even + k
    return (k // 2) * dims.o * 2 + outer * 2 + k % 2


def _flatten(
    isa: Isa, dims: Sequence[str], index: dict[str, NDArray[np.int64]]
) -> NDArray[np.int64]:
    total = np.zeros(1, dtype=np.int64)
    for d in dims:
        total = total * isa.dims[d] + index[d]
    return total


def make_state(isa: Isa, program: Program) -> State:
    """Memories before the first instruction: DRAM as `before` says, everything else 0."""
    dims = contraction_dims(isa)
    contract = next((i for i in isa.instructions if i.kind == "contract"), None)
    factors = {o.memory for o in contract.operands[1:]} if contract and dims.fits else set()
    columns: dict[str, list[int]] = {name: [] for name in State._fields[9:20]}
    sizes = [0, 0, 0]
    perms: list[NDArray[np.int64]] = []
    flags = perm_length = 0
    for memory in isa.memories:
        lanes = int(np.prod(isa.lane_shape(memory.name))) if memory.lanes else 1
        storage = UOPS if not memory.lanes else PAIRS if memory.name in factors else WORDS
        perm_at, stride = -1, lanes
        if storage == PAIRS:
            perm = _factor_perm(isa, contract, memory.name, dims) + np.zeros(lanes, np.int64)
            even = dims.i + dims.i % 2
            row_factor = (memory.name == contract.operands[1].memory) != dims.swapped
            stride = even * (dims.b if row_factor else dims.o)
            if not np.array_equal(perm, np.arange(lanes)):
                perm_at, perm_length = perm_length, perm_length + lanes
                perms.append(perm)
        own = not (memory.alias_of or memory.shadow_of)
        lane_bytes = memory.elem_bytes // lanes
        shadow = -1
        if memory.shadow_of:
            shadow = next(k for k, m in enumerate(isa.memories) if m.name == memory.shadow_of)
        bits = np.dtype(memory.dtype).itemsize * 8
        values = (
            storage, sizes[storage], stride, lanes, memory.depth, memory.elem_bytes, lane_bytes,
            flags, bits, perm_at, shadow,
        )  # fmt: skip
        for name, value in zip(columns, values, strict=True):
            columns[name].append(value)
        if own:
            sizes[storage] += memory.depth * stride
            flags += memory.depth
    if sizes[WORDS] * 4 + sizes[PAIRS] * 2 > MAX_ARENA_BYTES:
        raise SimError(
            f"the memories of {isa.name} are too large to simulate",
            why=f"{sizes[WORDS] * 4 + sizes[PAIRS] * 2} bytes, at most {MAX_ARENA_BYTES}",
        )
    dram, start, end, offset = _image(program)
    fields = isa.uop_fields
    return State(
        dram,
        start,
        end,
        offset,
        np.zeros(max(sizes[WORDS], 1), np.int32),
        np.zeros(max(sizes[PAIRS], 1), np.int16),
        np.zeros((max(sizes[UOPS], 1), max(len(fields), 1)), np.int64),
        np.zeros(flags, np.uint8),
        np.concatenate([*perms, np.zeros(1, np.int64)]),
        *(np.array(columns[name], dtype=np.int64) for name in columns),
        np.array([f.lo for f in fields], dtype=np.int64),
        np.array([f.width for f in fields], dtype=np.int64),
        np.array([f.signed for f in fields], dtype=np.int64),
    )


def _image(
    program: Program,
) -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """DRAM bytes and the merged ranges: (buffer, start, end, offset), sorted by address."""
    spans = sorted((a, a + len(d)) for a, d in (*program.before, *program.after) if len(d))
    merged: list[list[int]] = []
    for low, high in spans:
        if merged and low <= merged[-1][1]:
            merged[-1][1] = max(merged[-1][1], high)
        else:
            merged.append([low, high])
    offsets: list[int] = []
    total = 0
    for low, high in merged:
        offsets.append(total)
        total += high - low
    buffer = np.zeros(total, dtype=np.uint8)
    start = np.array([low for low, _ in merged], dtype=np.int64)
    end = np.array([high for _, high in merged], dtype=np.int64)
    offset = np.array(offsets, dtype=np.int64)
    for address, data in program.before:
        if len(data):
            r = int(np.searchsorted(start, address, side="right")) - 1
            at = int(offset[r]) + address - int(start[r])
            buffer[at : at + len(data)] = data
    return buffer, start, end, offset


def read_dram(state: State, address: int, length: int) -> NDArray[np.uint8]:
    """Bytes of DRAM, a view.

    Raises: SimError where they are not all in the image.
    """
    r = int(np.searchsorted(state.start, address, side="right")) - 1
    if r < 0 or address + length > int(state.end[r]):
        raise SimError(f"DRAM {address:#x} .. {address + length:#x} is outside the program's image")
    at = int(state.offset[r]) + address - int(state.start[r])
    return state.dram[at : at + length]


def contents(isa: Isa, state: State, memory: Memory, first: int, last: int) -> NDArray[np.int64]:
    """Elements first .. last-1 of an on-chip memory, int64[n, *lane shape] (micro-ops: [n, fields]).

    A shadow shows the low bits of what it mirrors.
    """
    k = isa.memories.index(memory)
    if state.shadow[k] >= 0:
        values = contents(isa, state, isa.memories[int(state.shadow[k])], first, last)
        return values.astype(memory.dtype).astype(np.int64)
    if memory.alias_of:
        return contents(isa, state, isa.memory(memory.alias_of), first, last)
    base, stride, lanes = (int(c[k]) for c in (state.base, state.stride, state.lanes))
    if state.storage[k] == UOPS:
        return state.uops[base + first : base + last].astype(np.int64)
    arena = state.words if state.storage[k] == WORDS else state.pairs
    items = arena[base + first * stride : base + last * stride].reshape(last - first, stride)
    at = int(state.perm_at[k])
    order = state.perm[at : at + lanes] if at >= 0 else np.arange(lanes)
    return items[:, order].astype(np.int64).reshape(last - first, *isa.lane_shape(memory.name))
