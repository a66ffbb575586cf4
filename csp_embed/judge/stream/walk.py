"""Walks a program once in a legal order and looks at every element that it touches.

Shares no code with the engines: its only inputs are the instruction rows, the DRAM image (for the
micro-ops) and the clocks of `tokens`. In one file, and only `audit` cached, for the reasons given
in kernels.py.

Races: per element and queue, the last write and the last read are kept (as places in the queue,
from 1). An access by instruction n races with an earlier one by queue r unless its place <=
clock[n, r].
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.jit import njit
from csp_embed.judge.stream.table import CONTRACT, LOAD, MAP, STORE, Row

Ints = NDArray[np.int64]
Shorts = NDArray[np.int32]
Bytes = NDArray[np.uint8]
Bools = NDArray[np.bool_]
# Arrays of records, and one element of an array: indexing a NumPy array by numbers that were read
# from another has no type that a checker could tell.
Records = Any
Number = Any
# place, clock, by_queue, starts, racers, and the memory that shadows the result's (-1: none).
Walk = tuple[Any, Shorts, Ints, Ints, Ints, Any]
# epochs, granule, first granule, then as in Walk but for the shadow.
DramWalk = tuple[Shorts, int, int, Any, Shorts, Ints, Ints, Ints]
# Kinds of findings; each is a row (kind, instruction, other instruction, memory, element, detail).
RACE, DRAM_RACE, DRAM_OUTSIDE, OPERAND, STALE, HAZARD, IMM_SRC, UNWRITTEN, UOP_STORED = range(9)
NEVER, LOADED, COMPUTED = range(3)
# Never called from Python: without wrappers they compile in half the time.
inner = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True)


@inner
def _note(
    found: Ints, kind: int, n: int, other: Number, memory: int, element: int, detail: Number
) -> None:
    """Appends a finding, at most one of a kind per instruction; found[0, 0] counts rows from 1."""
    k = found[0, 0]
    # Rows of one instruction lie together at the end, so this ends after as many as it has.
    for earlier in range(k, 0, -1):
        if found[earlier, 1] != n:
            break
        if found[earlier, 0] == kind:
            return
    found[0, 1] += 1
    if k + 1 < len(found):
        found[0, 0] = k + 1
        row = found[k + 1]
        row[0], row[1], row[2], row[3], row[4], row[5] = kind, n, other, memory, element, detail


@inner
def _touch(
    epochs: Shorts, e: int, write: bool, n: int, q: int, place: int, clock: Shorts, racers: Ints
) -> bool:
    """One access to element e. Returns False and fills racers (queue, place) where it races.

    epochs: int32[elements, queues, 2]: last write, last read.
    """
    # The same instruction has read it already: all other queues were looked at then.
    if not write and epochs[e, q, 1] == place:
        return True
    fine = True
    for r in range(epochs.shape[1]):
        # One queue runs in program order, so it cannot race with itself.
        if r == q:
            continue
        done = clock[n, r]
        last = epochs[e, r, 0]
        # A write conflicts with reads as well; a read only with writes.
        if write:
            last = max(last, epochs[e, r, 1])
        if last > done:
            racers[0], racers[1] = r, last
            fine = False
    epochs[e, q, 0 if write else 1] = place
    return fine


@inner
def locate(ranges: Records, address: int, length: int) -> int:
    """Where these bytes lie behind each other in the ranges (RANGE), or -1."""
    low, high = 0, len(ranges)
    while low < high:
        middle = (low + high) // 2
        if ranges[middle].start <= address:
            low = middle + 1
        else:
            high = middle
    if low == 0 or address + length > ranges[low - 1].end:
        return -1
    return ranges[low - 1].offset + address - ranges[low - 1].start


@inner
def _transfer(
    r: Row, n: int, code: Ints, places: Records, ranges: Records, uops: Ints, mem: Records,
    tracked: bool, walk: DramWalk, found: Ints,
) -> None:  # fmt: skip
    """DRAM side of a load or store, and the micro-ops that a load brings."""
    epochs, granule, first_granule, place, clock, by_queue, starts, racers = walk
    write = r.kind == STORE
    eb = mem[r.named].elem_bytes
    width = r.x_pad_0 + r.x_size + r.x_pad_1
    is_uop = mem[r.memory].storage == 2 and not write
    if is_uop:
        # Padding of a micro-op load is zeros, which are a valid micro-op: element 0 of each
        # operand.
        uops[r.sram : r.sram + width * (r.y_pad_0 + r.y_size + r.y_pad_1)] = 0
    for y in range(r.y_size):
        address = (r.dram + y * r.x_stride) * eb
        at = locate(ranges, address, r.x_size * eb)
        if at < 0:
            _note(found, DRAM_OUTSIDE, n, -1, r.named, address, r.x_size * eb)
            return
        if is_uop:
            # `ranges` says what exists, `code` has micro-ops: they alone are copied out of DRAM.
            at = locate(places, address, r.x_size * eb) // eb
            e = r.sram + (r.y_pad_0 + y) * width + r.x_pad_0
            uops[e : e + r.x_size] = code[at : at + r.x_size]
        if tracked:
            last = (address + r.x_size * eb - 1) // granule
            for g in range(address // granule, last + 1):
                k = g - first_granule
                if k < 0 or k >= len(epochs):
                    continue
                for q in range(epochs.shape[1]):
                    # Code that the program writes itself would have to be walked with values, which
                    # no judge here does.
                    if is_uop and epochs[k, q, 0] > 0:
                        _note(found, UOP_STORED, n, -1, r.named, g * granule, 0)
                if not _touch(epochs, k, write, n, r.queue, place, clock, racers):
                    other = by_queue[starts[racers[0]] + racers[1] - 1]
                    _note(found, DRAM_RACE, n, other, r.named, g * granule, 0)


@inner
def _operand(
    r: Row, n: int, k: int, memory: int, field: int, role: int, uops: Ints, mem: Records,
    written: Bytes, epochs: Shorts, shared: Bools, walk: Walk, found: Ints,
) -> bool:  # fmt: skip
    """One operand of a compute instruction: range, race, and what the element holds.

    role: 0 read, 1 written, 2 read and written, 3 cleared. Returns False where it leaves its
    memory.
    """
    place, clock, by_queue, starts, racers, shadow = walk
    if k == 0:
        out, inner = r.dst_out, r.dst_in
    elif k == 1:
        out, inner = r.lhs_out, r.lhs_in
    else:
        out, inner = r.rhs_out, r.rhs_in
    m = mem[memory]
    # The range first, from ends alone: the loop over all steps below may then index without a
    # check.
    low, high = uops[r.uop_begin, field], uops[r.uop_begin, field]
    for u in range(r.uop_begin, r.uop_end):
        low, high = min(low, uops[u, field]), max(high, uops[u, field])
    for step in (out * (r.iter_out - 1), inner * (r.iter_in - 1)):
        low, high = low + min(step, 0), high + max(step, 0)
    if low < 0 or high >= m.depth:
        _note(found, OPERAND, n, -1, memory, low if low < 0 else high, 0)
        return False
    # A factor of 0 visits the same elements again and again: once is enough.
    for i in range(r.iter_out if out != 0 else 1):
        for j in range(r.iter_in if inner != 0 else 1):
            for u in range(r.uop_begin, r.uop_end):
                e = m.flags + uops[u, field] + i * out + j * inner
                if (role == 0 or role == 2) and written[e] == NEVER:
                    _note(found, UNWRITTEN, n, -1, memory, e - m.flags, 0)
                if role > 0:
                    written[e] = LOADED if role == 3 else COMPUTED
                if shared[memory] and not _touch(
                    epochs, e, role > 0, n, r.queue, place, clock, racers
                ):
                    other = by_queue[starts[racers[0]] + racers[1] - 1]
                    _note(found, RACE, n, other, memory, e - m.flags, 0)
                # A reset (3) leaves the mirror as it is; everything else that writes an accumulator
                # writes it too.
                if role in (1, 2) and shadow >= 0 and shared[shadow]:
                    s = e - m.flags + mem[shadow].flags
                    if not _touch(epochs, s, True, n, r.queue, place, clock, racers):
                        other = by_queue[starts[racers[0]] + racers[1] - 1]
                        _note(found, RACE, n, other, shadow, e - m.flags, 0)
    return True


@inner
def _hazards(
    r: Row, n: int, d_field: int, x_field: int, same_memory: bool, uops: Ints, limit: int,
    imm_rule: bool, found: Ints,
) -> None:  # fmt: skip
    """Read-after-write distances of an elementwise instruction, and immediates' sources."""
    # A ring of the last `limit` destinations: older ones have left the pipeline.
    recent = np.full(max(limit, 1), -1, np.int64)
    step = 0
    for i in range(r.iter_out):
        for j in range(r.iter_in):
            for u in range(r.uop_begin, r.uop_end):
                d = uops[u, d_field] + i * r.dst_out + j * r.dst_in
                x = uops[u, x_field] + i * r.lhs_out + j * r.lhs_in
                if r.use_imm:
                    # Said here and not per instruction, because the micro-ops decide it.
                    if imm_rule and x != d:
                        _note(found, IMM_SRC, n, -1, -1, d, x)
                    x = d
                for back in range(1, min(limit, step) + 1):
                    if (same_memory or r.use_imm) and recent[(step - back) % limit] == x:
                        _note(found, HAZARD, n, -1, -1, x, back)
                        return
                if limit > 0:
                    recent[step % limit] = d
                step += 1


@inner
def _range(
    n: int, q: int, memory: int, first: int, count: int, write: bool, epochs: Shorts, flags: int,
    walk: Walk, found: Ints,
) -> None:  # fmt: skip
    """A contiguous range of elements that a transfer writes or reads."""
    place, clock, by_queue, starts, racers, _ = walk
    for e in range(first, first + count):
        if not _touch(epochs, flags + e, write, n, q, place, clock, racers):
            other = by_queue[starts[racers[0]] + racers[1] - 1]
            _note(found, RACE, n, other, memory, e, 0)


@njit(cache=True, nogil=True)
def audit(
    order: Ints, begin: int, end: int, rows: Records, code: Ints, places: Records, ranges: Records,
    uops: Ints, mem: Records, contract_ops: Ints, map_ops: Ints, shadows: Ints,
    shared: Bools, written: Bytes, epochs: Shorts, dram_epochs: Shorts, granule: int,
    first_granule: int, position: Shorts, clock: Shorts, by_queue: Ints, starts: Ints,
    hazard_limit: int, imm_rule: bool, stale_rule: bool, found: Ints,
) -> None:  # fmt: skip
    """Walks order[begin:end] and appends to `found`.

    code, places: micro-ops as `micro_ops` has them. ranges: the whole image. shadows: per memory,
    the memory that shadows it, or -1. shared: memories that several queues touch. written: uint8
    per element. epochs / dram_epochs: see `_touch`.
    """
    racers = np.zeros(2, np.int64)
    tracked = len(dram_epochs) > 0
    for t in range(begin, end):
        n = order[t]
        r: Row = rows[n]
        place = np.int32(position[n] + 1)
        if r.kind in (LOAD, STORE):
            if r.x_size == 0 or r.y_pad_0 + r.y_size + r.y_pad_1 == 0:
                continue
            walk = (
                dram_epochs, granule, first_granule, place, clock, by_queue, starts, racers
            )  # fmt: skip
            _transfer(r, n, code, places, ranges, uops, mem, tracked, walk, found)
            height, width = r.y_pad_0 + r.y_size + r.y_pad_1, r.x_pad_0 + r.x_size + r.x_pad_1
            memory = r.memory if r.kind == LOAD else r.named
            flags, count = mem[memory].flags, height * width
            walk2 = (place, clock, by_queue, starts, racers, np.int64(-1))
            if shared[memory]:
                _range(
                    n, r.queue, memory, r.sram, count, r.kind == LOAD, epochs, flags, walk2, found
                )
            if r.kind == LOAD:
                # Padding included: it is written with zeros.
                written[flags + r.sram : flags + r.sram + count] = LOADED
            else:
                source = mem[memory].shadow
                # A mirror has no state of its own; what it holds follows from its accumulator.
                real = source if source >= 0 else r.memory
                for e in range(r.sram, r.sram + count):
                    state = np.int64(written[mem[real].flags + e])
                    if source >= 0 and state != COMPUTED and stale_rule:
                        _note(found, STALE, n, -1, memory, e, state)
                    elif state == NEVER:
                        _note(found, UNWRITTEN, n, -1, memory, e, 0)
        elif r.kind in (CONTRACT, MAP):
            # No steps: such an instruction only moves tokens, and its operands need not be right.
            if r.uop_begin >= r.uop_end or r.iter_out == 0 or r.iter_in == 0:
                continue
            ops = contract_ops if r.kind == CONTRACT else map_ops
            uop_memory = ops[3, 0]
            walk3 = (place, clock, by_queue, starts, racers, shadows[ops[0, 0]])
            if shared[uop_memory]:
                _range(
                    n, r.queue, uop_memory, r.uop_begin, r.uop_end - r.uop_begin, False, epochs,
                    mem[uop_memory].flags, walk3, found,
                )  # fmt: skip
            for u in range(r.uop_begin, r.uop_end):
                if written[mem[uop_memory].flags + u] == NEVER:
                    _note(found, UNWRITTEN, n, -1, uop_memory, u, 0)
                    break
            fine = True
            used = 1
            if r.kind == CONTRACT and not r.reset:
                used = 3
            elif r.kind == MAP and not r.use_imm:
                used = 2
            # Sources before the destination: an element that an instruction reads and writes counts
            # as read first.
            for k in range(used - 1, -1, -1):
                role = 0 if k > 0 else 3 if r.kind == CONTRACT and r.reset else 2
                fine = fine and _operand(
                    r, n, k, ops[k, 0], ops[k, 1], role, uops, mem, written, epochs, shared,
                    walk3, found,
                )  # fmt: skip
            if r.kind == MAP and fine:
                _hazards(
                    r, n, ops[0, 1], ops[1, 1], ops[0, 0] == ops[1, 0], uops, hazard_limit,
                    imm_rule, found,
                )  # fmt: skip
