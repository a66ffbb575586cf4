"""Memories of a running program: the DRAM image and the on-chip memories, as arrays for kernels.

DRAM is the union of the program's `before` and `after` ranges and no more; everything else does
not exist. On chip there are three arenas: `words` (int32 lanes in the spec's order), `pairs`
(int16: the two factors of a contraction, laid out for its kernel) and `uops` (decoded fields).
"""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import SimError
from csp_embed.ir.stream import Program
from csp_embed.machine.spec import Instruction, Isa, Memory
from csp_embed.machine.words.arrays import FIELD, MEMORY, PAIRS, UOPS, WORDS, image

MAX_ARENA_BYTES = 1 << 32

State = namedtuple("State", "dram ranges words pairs uops written perm mem fields")
# What `written` says of an element: nothing was ever there, it was loaded or reset (its shadow is
# stale), a compute step wrote it (and its shadow).
NEVER, LOADED, COMPUTED = range(3)


@dataclass(frozen=True)
class Dims:
    """A contraction as rows x columns: out[b, o] += row[b, i] * column[i, o], from flattened lanes.

    swapped: the row operand is the instruction's rhs. fits: the fast kernel can run it. flips: the
    column operand lies as [o, i] in DRAM and can be transposed by shuffles.
    """

    b: int = 1
    o: int = 1
    i: int = 1
    swapped: bool = False
    fits: bool = False
    flips: bool = False


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
    b, o, i = (
        int(np.prod([isa.dims[d] for d in ds], dtype=np.int64)) for ds in (rows, columns, reduced)
    )
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
        and i <= 1024
    )
    column = lhs if swapped else rhs
    reduced_order = [d for d in column.dims if d in reduced]
    flips = (
        fits
        and list(column.dims) == [*columns, *reduced]
        and reduced_order == reduced
        and isa.memory(column.memory).dtype == "int8"
        and i % 2 == 0
        and o & (o - 1) == 0
        and 2 <= o * i <= 1024
    )
    return Dims(b, o, i, swapped, fits, flips)


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
    if not dims.fits:
        contract = None
    factors = {o.memory for o in contract.operands[1:]} if contract is not None else set()
    mem = np.zeros(len(isa.memories), dtype=MEMORY)
    sizes = [0, 0, 0]
    perms: list[NDArray[np.int64]] = []
    flags = perm_length = 0
    for k_memory, memory in enumerate(isa.memories):
        lanes = int(np.prod(isa.lane_shape(memory.name), dtype=np.int64))
        storage = (
            UOPS if memory.name == isa.uop_memory else PAIRS if memory.name in factors else WORDS
        )
        perm_at, stride = -1, lanes
        if contract is not None and storage == PAIRS:
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
        mem[k_memory] = (
            storage, sizes[storage], stride, lanes, memory.depth, memory.elem_bytes, lane_bytes,
            flags, bits, perm_at, shadow,
        )  # fmt: skip
        if own:
            sizes[storage] += memory.depth * stride
            flags += memory.depth
    if sizes[WORDS] * 4 + sizes[PAIRS] * 2 > MAX_ARENA_BYTES:
        raise SimError(
            f"the memories of {isa.name} are too large to simulate",
            why=f"{sizes[WORDS] * 4 + sizes[PAIRS] * 2} bytes, at most {MAX_ARENA_BYTES}",
            hint="simulate it with smaller memories: --vta-config",
        )
    dram, ranges = image(program)
    fields = [(f.lo, f.width, f.signed) for f in isa.uop_fields]
    return State(
        dram,
        ranges,
        np.zeros(max(sizes[WORDS], 1), np.int32),
        np.zeros(max(sizes[PAIRS], 1), np.int16),
        np.zeros((max(sizes[UOPS], 1), max(len(fields), 1)), np.int64),
        np.zeros(flags, np.uint8),
        np.concatenate([*perms, np.zeros(1, np.int64)]),
        mem,
        np.array(fields, dtype=FIELD),
    )


def _offset(ranges: NDArray[Any], address: int, length: int) -> int:
    """Where an address lies in the buffer; -1 where not all of the range exists."""
    r = int(np.searchsorted(ranges["start"], address, side="right")) - 1
    if r < 0 or address + length > int(ranges["end"][r]):
        return -1
    return int(ranges["offset"][r]) + address - int(ranges["start"][r])


def read_dram(state: State, address: int, length: int) -> NDArray[np.uint8]:
    """Bytes of DRAM, a view.

    Raises: SimError where they are not all in the image.
    """
    at = _offset(state.ranges, address, length)
    if at < 0:
        raise SimError(
            f"DRAM {address:#x} .. {address + length:#x} is outside the program's image",
            hint="csp-embed disasm FILE shows which ranges the program has",
        )
    return state.dram[at : at + length]


def contents(isa: Isa, state: State, memory: Memory, first: int, last: int) -> NDArray[np.int64]:
    """Elements first .. last-1 of an on-chip memory, int64[n, *lanes] (micro-ops: [n, fields]).

    A shadow shows the low bits of what it mirrors.
    """
    m = state.mem[isa.memories.index(memory)]
    if memory.alias_of or memory.shadow_of:
        target = isa.memory(memory.alias_of or memory.shadow_of or "")
        values = contents(isa, state, target, first, last)
        return values.astype(memory.dtype).astype(np.int64)
    base, stride, lanes = int(m["base"]), int(m["stride"]), int(m["lanes"])
    if m["storage"] == UOPS:
        return state.uops[base + first : base + last].astype(np.int64)
    arena = state.words if m["storage"] == WORDS else state.pairs
    items = arena[base + first * stride : base + last * stride].reshape(last - first, stride)
    at = int(m["perm_at"])
    order = state.perm[at : at + lanes] if at >= 0 else np.arange(lanes)
    return items[:, order].astype(np.int64).reshape(last - first, *isa.lane_shape(memory.name))
