"""Decoded instructions to the cycle engine's table: what each costs, not what it computes.

Takes: a Stream of known instructions.  Leaves: int64[n, COLUMNS] of `cycles_layout`, and the steps
of compute instructions.  Assumes: nothing; what would never end on the hardware raises SimError.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numba import njit
from numpy.typing import NDArray

from csp_embed.errors import SimError, SpecError
from csp_embed.ir.stream import Stream
from csp_embed.isa.listing import line
from csp_embed.isa.spec import Instruction, Isa, Memory
from csp_embed.sim import cycles_layout as layout
from csp_embed.sim.cycles_costs import Costs

Column = NDArray[np.int64]


@dataclass(frozen=True)
class Table:
    """rows: int64[n, COLUMNS]. steps: micro-op steps of each instruction, 0 for transfers;
    written_bytes: bytes that each stores."""

    rows: NDArray[np.int64]
    steps: Column
    written_bytes: Column


def table(isa: Isa, stream: Stream, costs: Costs) -> Table:
    """The table of `stream`.

    Raises: SimError for an unknown instruction, a transfer of a memory that the instruction cannot
    reach, and counts of 0; the message has the instruction's number and text.
    """
    n = len(stream)
    rows = np.zeros((n, layout.COLUMNS), np.int64)
    steps = np.zeros(n, np.int64)
    written = np.zeros(n, np.int64)
    unknown = np.flatnonzero((stream.code < 0) | (stream.code >= len(isa.instructions)))
    if len(unknown):
        raise _refuse(isa, stream, int(unknown[0]), "unknown instruction", "it hangs the device")
    last = len(isa.queues) - 1
    for code in np.unique(stream.code):
        instruction = isa.instructions[code]
        at = np.flatnonzero(stream.code == code)
        part = np.zeros((len(at), layout.COLUMNS), np.int64)
        if instruction.queue is not None:
            part[:, layout.QUEUE] = isa.queues.index(instruction.queue)
        match instruction.kind:
            case "load":
                _loads(isa, stream, costs, instruction, at, part)
            case "store":
                written[at] = _stores(isa, stream, costs, instruction, at, part)
            case "contract" | "map":
                steps[at] = _compute(isa, stream, costs, instruction, at, part)
            case "finish":
                part[:, layout.KIND] = layout.FINISH
                part[:, layout.SPAN] = costs.sections["instruction"]["finish"]
        queue = part[:, layout.QUEUE]
        for role, flag, missing in (
            ("pop_prev", layout.POP_PREV, 0),
            ("pop_next", layout.POP_NEXT, last),
            ("push_prev", layout.PUSH_PREV, 0),
            ("push_next", layout.PUSH_NEXT, last),
        ):
            # The first queue has no neighbour before it and the last none after: no such wire.
            wanted = (_role(stream, instruction, role, at) != 0) & (queue != missing)
            part[:, layout.TOKENS] |= np.where(wanted, flag, 0)
        rows[at] = part
    return Table(rows, steps, written)


def _role(stream: Stream, instruction: Instruction, role: str, at: Column) -> Column:
    name = instruction.roles.get(role)
    if name is None or name not in stream.fields:
        return np.zeros(len(at), np.int64)
    return stream.fields[name][at]


def _transfers(
    isa: Isa, stream: Stream, costs: Costs, instruction: Instruction, at: Column, part: Column
) -> list[tuple[Memory, Column]]:
    """Fills queue, address and rows; positions within `at` by memory, token-only ones left out."""
    loads = instruction.kind == "load"
    ids = _role(stream, instruction, "memory", at)
    empty = _role(stream, instruction, "x_size", at) == 0
    part[empty, layout.SPAN] = costs.sections["instruction"]["sync"]
    queues = {m.load_queue if loads else m.store_queue for m in isa.memories} - {None}
    groups: list[tuple[Memory, Column]] = []
    for number in np.unique(ids):
        here = np.flatnonzero(ids == number)
        memory = isa.memory_by_id(int(number))
        queue = memory and (memory.load_queue if loads else memory.store_queue)
        if queue is None and len(queues) == 1 and empty[here].all():
            queue = next(iter(queues))  # token-only: the only queue it can mean
        if queue is None:
            bad = here[0] if len(queues) > 1 else here[~empty[here]][0]
            name = memory.name if memory else f"memory {number}"
            why = f"{instruction.name} does not reach {name}; it hangs the device"
            raise _refuse(isa, stream, int(at[bad]), "unknown transfer", why)
        part[here, layout.QUEUE] = isa.queues.index(queue)
        full = here[~empty[here]]
        if memory is None or not len(full):
            continue
        height = _role(stream, instruction, "y_size", at[full])
        if (height == 0).any():
            bad = full[np.flatnonzero(height == 0)[0]]
            raise _refuse(isa, stream, int(at[bad]), "no rows", "a transfer of 0 rows never ends")
        part[full, layout.ROWS] = height
        for column, role in (
            (layout.ADDRESS, "dram"), (layout.ROW, "x_size"), (layout.STRIDE, "x_stride")
        ):  # fmt: skip
            part[full, column] = _role(stream, instruction, role, at[full]) * memory.elem_bytes
        groups.append((memory, full))
    return groups


def _loads(
    isa: Isa, stream: Stream, costs: Costs, instruction: Instruction, at: Column, part: Column
) -> None:
    load = costs.sections["load"]
    for memory, full in _transfers(isa, stream, costs, instruction, at, part):
        if memory.name not in costs.priority:
            first = int(at[full[0]])
            if memory.portable:
                raise SpecError(
                    f"{isa.name} has no cost for loads of {memory.name}",
                    where=f"costs.read_priority.{memory.name}",
                    hint="give its place in the read port's priority",
                )
            why = f"the hardware cannot load {memory.name}: it hangs"
            raise _refuse(isa, stream, first, "not built", why)
        pads = {
            role: _role(stream, instruction, role, at[full])
            for role in ("y_pad_0", "y_pad_1", "x_pad_0", "x_pad_1")
        }
        beside = pads["x_pad_0"] + pads["x_pad_1"]
        width = _role(stream, instruction, "x_size", at[full]) + beside
        height = part[full, layout.ROWS]
        narrow = load["narrow_port"] if memory.elem_bytes > costs.beat_bytes else 0
        part[full, layout.KIND] = layout.LOAD
        part[full, layout.PORT] = costs.priority[memory.name]
        part[full, layout.TAIL] = load["last"] + narrow
        part[full, layout.DELAY] = load["start"] + load["pad_row"] * pads["y_pad_0"]
        part[full, layout.TOP] = pads["y_pad_0"] * width
        part[full, layout.BOTTOM] = pads["y_pad_1"] * width
        # Rows without zeros beside them still pass the zero writer, a cycle each, if zeros follow.
        skip = (beside == 0) & (pads["y_pad_1"] > 0)
        part[full, layout.MIDDLE] = np.where(skip, height, beside * height)
        part[full, layout.SKIP] = skip


def _stores(
    isa: Isa, stream: Stream, costs: Costs, instruction: Instruction, at: Column, part: Column
) -> Column:
    written = np.zeros(len(at), np.int64)
    store = costs.sections["store"]
    for memory, full in _transfers(isa, stream, costs, instruction, at, part):
        lanes = isa.lane_shape(memory.name)
        # A word of the memory is one row of lanes, at least a beat.
        word = memory.elem_bytes // max(1, int(np.prod(lanes[:-1], dtype=np.int64)))
        word_beats = max(1, word // costs.beat_bytes)
        gap = store["word_gap"] if memory.elem_bytes > costs.beat_bytes else 0
        part[full, layout.SPAN] = store_spans(
            part[full], store["start"], store["setup"], gap, store["ack"] + costs.latency,
            word_beats, costs.beat_bytes, costs.burst_beats, costs.rate,
        )  # fmt: skip
        written[full] = part[full, layout.ROW] * part[full, layout.ROWS]
    return written


@njit(cache=True)
def store_spans(
    rows, start, setup, gap, ack, word_beats, beat_bytes, burst, rate
):  # pragma: no cover
    """Cycles from start to end of each store: bursts one after the other, each acknowledged."""
    spans = np.zeros(len(rows), np.int64)
    for i in range(len(rows)):
        total = start - 1
        for y in range(rows[i, layout.ROWS]):
            byte = rows[i, layout.ADDRESS] + y * rows[i, layout.STRIDE]
            beat = byte // beat_bytes
            left = -((-byte - rows[i, layout.ROW]) // beat_bytes) - beat
            while left > 0:
                # All but the first and the last burst of a row are alike.
                length = min(left, burst - beat % burst)
                times = left // burst if length == burst else 1
                data = length + gap * ((length - 1) // word_beats)
                slow = -((-length * beat_bytes * layout.RATE_UNIT) // rate)
                total += times * (setup + max(data, slow) + ack)
                beat += times * length
                left -= times * length
        spans[i] = total
    return spans


def _compute(
    isa: Isa, stream: Stream, costs: Costs, instruction: Instruction, at: Column, part: Column
) -> Column:
    def role(name: str) -> Column:
        return _role(stream, instruction, name, at)

    counts = (role("uop_end") - role("uop_begin"), role("iter_out"), role("iter_in"))
    empty = np.flatnonzero(np.minimum.reduce(counts) <= 0)
    if len(empty):
        why = "a loop or micro-op count of 0 runs for ages on the hardware"
        raise _refuse(isa, stream, int(at[empty[0]]), "empty loop", why)
    steps = counts[0] * counts[1] * counts[2]
    cost = costs.sections[instruction.kind]
    if instruction.kind == "contract":
        each = np.where(role("reset") != 0, cost["reset_step"], cost["step"])
    else:
        each = np.where(role("use_imm") != 0, cost["immediate_step"], cost["tensor_step"])
    part[:, layout.SPAN] = cost["fill"] + steps * each
    return steps


def _refuse(isa: Isa, stream: Stream, n: int, what: str, why: str) -> SimError:
    return SimError(f"instruction {n}: {what}", where=line(isa, stream, n).strip(), why=why)
