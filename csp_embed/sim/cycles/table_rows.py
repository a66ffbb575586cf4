"""The compiled loop that fills the cycle engine's table from the columns of a stream."""

from __future__ import annotations

from csp_embed.jit import njit
from csp_embed.sim.cycles.layout import (
    ADDRESS,
    BOTTOM,
    COLUMNS,
    DELAY,
    FINISH,
    KIND,
    LOAD,
    MIDDLE,
    POP_NEXT,
    POP_PREV,
    PORT,
    PUSH_NEXT,
    PUSH_PREV,
    QUEUE,
    RATE_UNIT,
    ROW,
    ROWS,
    SKIP,
    SPAN,
    STRIDE,
    TAIL,
    TOKENS,
    TOP,
)

__all__ = ["COLUMNS", "fill_rows"]

# Parts of instructions, in the words of the spec.
ROLE_NAMES = (
    "pop_prev",
    "pop_next",
    "push_prev",
    "push_next",
    "memory",
    "dram",
    "y_size",
    "x_size",
    "x_stride",
    "y_pad_0",
    "y_pad_1",
    "x_pad_0",
    "x_pad_1",
    "uop_begin",
    "uop_end",
    "iter_out",
    "iter_in",
    "reset",
    "use_imm",
    "op",
)
ROLES = len(ROLE_NAMES)
(
    _POP_PREV,
    _POP_NEXT,
    _PUSH_PREV,
    _PUSH_NEXT,
    _MEMORY,
    _DRAM,
    _Y_SIZE,
    _X_SIZE,
    _X_STRIDE,
    _Y_PAD_0,
    _Y_PAD_1,
    _X_PAD_0,
    _X_PAD_1,
    _UOP_BEGIN,
    _UOP_END,
    _ITER_OUT,
    _ITER_IN,
    _RESET,
    _USE_IMM,
    _OP,
) = range(ROLES)

LOADS, STORES, CONTRACTS, MAPS, FINISHES = range(5)

MEMORY_COLUMNS = 7
ELEMENT, LOAD_QUEUE, STORE_QUEUE, PRIORITY, EXTRA_TAIL, GAP, WORD_BEATS = range(MEMORY_COLUMNS)

SPANS = 17
(
    SYNC,
    FINISH_SPAN,
    LOAD_START,
    PAD_ROW,
    LOAD_LAST,
    STORE_START,
    STORE_SETUP,
    STORE_ACK,
    CONTRACT_FILL,
    CONTRACT_STEP,
    RESET_STEP,
    MAP_FILL,
    IMMEDIATE_STEP,
    TENSOR_STEP,
    BEAT,
    BURST,
    PORT_RATE,
) = range(SPANS)

# Why an instruction is refused.
UNKNOWN, UNREACHED, NO_ROWS, EMPTY_LOOP, NOT_BUILT, NO_OPERATION = range(6)


@njit(cache=True, error_model="numpy", no_cpython_wrapper=True)
def _part(columns, parts, code, role, i):  # pragma: no cover - compiled
    """A field of instruction i by its role, 0 where it has none."""
    place = parts[code, role]
    return columns[place, i] if place >= 0 else 0


@njit(cache=True, error_model="numpy", no_cpython_wrapper=True)
def _store_span(address, row, rows, stride, memory, span):  # pragma: no cover - compiled
    """Start to end of a store: bursts one after the other, each acknowledged."""
    # The start counts its first cycle as one of the transfer.
    beat_bytes, burst = span[BEAT], span[BURST]
    total = span[STORE_START] - 1
    for y in range(rows):
        byte = address + y * stride
        beat = byte // beat_bytes
        left = (byte + row + beat_bytes - 1) // beat_bytes - beat
        while left > 0:
            # All but the first and the last burst of a row are alike.
            length = min(left, burst - beat % burst)
            times = left // burst if length == burst else 1
            data = length + memory[GAP] * ((length - 1) // memory[WORD_BEATS])
            # The memory may be slower than the beats that the store offers.
            slow = -((-length * beat_bytes * RATE_UNIT) // span[PORT_RATE])
            total += times * (span[STORE_SETUP] + max(data, slow) + span[STORE_ACK])
            beat += times * length
            left -= times * length
    return total


@njit(cache=True, error_model="numpy", no_cpython_wrapper=True)
def _tokens(columns, parts, code, i, queue, last_queue):  # pragma: no cover - compiled
    """Flags of the tokens that instruction i takes and leaves."""
    # The first queue has no neighbour before it and the last none after: no such wires.
    flags = 0
    if queue > 0:
        if _part(columns, parts, code, _POP_PREV, i):
            flags |= POP_PREV
        if _part(columns, parts, code, _PUSH_PREV, i):
            flags |= PUSH_PREV
    if queue < last_queue:
        if _part(columns, parts, code, _POP_NEXT, i):
            flags |= POP_NEXT
        if _part(columns, parts, code, _PUSH_NEXT, i):
            flags |= PUSH_NEXT
    return flags


@njit(cache=True, error_model="numpy")
def fill_rows(
    codes, columns, parts, kinds, queues, built, memories, span, last_queue, rows, steps, written
):  # pragma: no cover - compiled
    """Fills rows (int64[n, COLUMNS] of zeros), steps and written bytes.

    columns: int64[fields, n]; parts: column of each role by instruction, or -1; kinds, queues: by
    instruction; built: whether the hardware has an operation, by instruction and opcode; memories:
    int64[ids, MEMORY_COLUMNS], -1 for what is not there.

    Returns (number of the first instruction that is refused, reason), or (-1, 0).
    """
    # The only queue that a token-only transfer can mean where its memory is not one of its own.
    # -1: no memory of that direction; -2: several, so that nobody can say which is meant.
    only = [-1, -1]
    for direction in range(2):
        for m in range(memories.shape[0]):
            queue = memories[m, LOAD_QUEUE + direction]
            if queue >= 0:
                only[direction] = queue if only[direction] in (-1, queue) else -2
    for i in range(len(codes)):
        code = codes[i]
        # An opcode that the spec lacks; all that follows would read another instruction's fields.
        if code < 0 or code >= len(kinds):
            return i, UNKNOWN
        kind = kinds[code]
        row = rows[i]
        queue = queues[code]
        if kind in (LOADS, STORES):
            number = _part(columns, parts, code, _MEMORY, i)
            width = _part(columns, parts, code, _X_SIZE, i)
            known = number < memories.shape[0] and memories[number, ELEMENT] >= 0
            direction = 0 if kind == LOADS else 1
            # The memory decides the queue: one load instruction serves them all.
            queue = memories[number, LOAD_QUEUE + direction] if known else -1
            if queue < 0 and width == 0:
                queue = only[direction]
            if queue < 0:
                return i, UNREACHED
            if width == 0:
                row[SPAN] = span[SYNC]
            else:
                memory = memories[number]
                height = _part(columns, parts, code, _Y_SIZE, i)
                if height == 0:
                    return i, NO_ROWS
                address = _part(columns, parts, code, _DRAM, i) * memory[ELEMENT]
                stride = _part(columns, parts, code, _X_STRIDE, i) * memory[ELEMENT]
                if kind == STORES:
                    written[i] = width * height * memory[ELEMENT]
                    row[SPAN] = _store_span(
                        address, width * memory[ELEMENT], height, stride, memory, span
                    )
                else:
                    if memory[PRIORITY] < 0:
                        return i, NOT_BUILT
                    above = _part(columns, parts, code, _Y_PAD_0, i)
                    below = _part(columns, parts, code, _Y_PAD_1, i)
                    beside = _part(columns, parts, code, _X_PAD_0, i)
                    beside += _part(columns, parts, code, _X_PAD_1, i)
                    row[KIND] = LOAD
                    row[PORT] = memory[PRIORITY]
                    row[TAIL] = span[LOAD_LAST] + memory[EXTRA_TAIL]
                    # Zeros above are written before the first row is asked for, a row each.
                    row[DELAY] = span[LOAD_START] + span[PAD_ROW] * above
                    row[ADDRESS] = address
                    row[ROW] = width * memory[ELEMENT]
                    row[ROWS] = height
                    row[STRIDE] = stride
                    row[TOP] = above * (width + beside)
                    row[BOTTOM] = below * (width + beside)
                    row[MIDDLE] = beside * height
                    if beside == 0 and below > 0:
                        # Rows without zeros still pass the zero writer, a cycle each.
                        row[MIDDLE] = height
                        row[SKIP] = 1
        elif kind == FINISHES:
            row[KIND] = FINISH
            row[SPAN] = span[FINISH_SPAN]
        else:
            uops = _part(columns, parts, code, _UOP_END, i)
            uops -= _part(columns, parts, code, _UOP_BEGIN, i)
            outer = _part(columns, parts, code, _ITER_OUT, i)
            inner = _part(columns, parts, code, _ITER_IN, i)
            # The hardware counts down from these numbers, and with 0 does not stop.
            if uops <= 0 or outer <= 0 or inner <= 0:
                return i, EMPTY_LOOP
            steps[i] = uops * outer * inner
            if kind == CONTRACTS:
                reset = _part(columns, parts, code, _RESET, i) != 0
                each = span[RESET_STEP] if reset else span[CONTRACT_STEP]
                row[SPAN] = span[CONTRACT_FILL] + steps[i] * each
            else:
                operation = _part(columns, parts, code, _OP, i)
                if operation >= built.shape[1] or not built[code, operation]:
                    return i, NO_OPERATION
                immediate = _part(columns, parts, code, _USE_IMM, i) != 0
                each = span[IMMEDIATE_STEP] if immediate else span[TENSOR_STEP]
                row[SPAN] = span[MAP_FILL] + steps[i] * each
        row[QUEUE] = queue
        row[TOKENS] = _tokens(columns, parts, code, i, queue, last_queue)
    return -1, 0
