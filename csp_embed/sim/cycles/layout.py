"""Shared by the cycle engine's parts: columns of its tables, entries of its cost vector, codes."""

from __future__ import annotations

# Columns of the instruction table. Addresses and lengths in bytes, zeros in elements, else cycles.
(
    QUEUE,  # index of the queue
    KIND,  # FIXED, LOAD or FINISH
    TOKENS,  # POP_ and PUSH_ flags
    SPAN,  # start to end, where no read port is needed
    PORT,  # loads: priority at the read port, smallest first
    TAIL,  # loads: last beat at the unit to the end
    DELAY,  # loads: start to the first command
    ADDRESS,  # loads: first byte in DRAM
    ROW,  # loads: bytes of a row
    ROWS,  # loads: rows
    STRIDE,  # loads: from row to row
    TOP,  # loads: zeros above
    MIDDLE,  # loads: zeros beside, or with SKIP rows to pass
    SKIP,  # loads: 1 where MIDDLE passes while data arrives, too
    BOTTOM,  # loads: zeros below
) = range(15)
COLUMNS = 15

# KIND: SPAN cycles from start to end; a load through the read port; the end of the program.
FIXED, LOAD, FINISH = 0, 1, 2

POP_PREV, POP_NEXT, PUSH_PREV, PUSH_NEXT = 1, 2, 4, 8

# Entries of the cost vector; the spec explains each.
(
    QUEUE_DEPTH,
    TOKEN,
    DISPATCH,
    TURN,
    FETCH_START,
    FETCH_DRAIN,
    FETCH_TURN,
    FETCH_PORT,
    INSTRUCTION_BYTES,
    COMMAND,
    REARM,
    TAGS,
    WAKE,
    RETURN,
    LATENCY,
    BEAT_BYTES,
    BURST_BEATS,
    RATE,
    TOKEN_LIMIT,
) = range(19)
COSTS = 19

# RATE counts bytes per 1024 cycles, so that fractions of a byte per cycle stay integers.
RATE_UNIT = 1024

# Why an instruction did not start as soon as its queue was idle.
WAIT_NONE, WAIT_FETCH, WAIT_PREV, WAIT_NEXT = 0, 1, 2, 3

# Result status.
DONE, STUCK, TOKENS_LOST = 0, 1, 2
