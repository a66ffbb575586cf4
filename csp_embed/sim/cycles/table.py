"""Decoded instructions to the cycle engine's table: what each costs, not what it computes.

Takes: a Stream.  Leaves: int64[n, COLUMNS] of `layout`, and the steps of compute
instructions.  Assumes: nothing; what would never end on the hardware raises SimError.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import CspEmbedError, SimError, SpecError
from csp_embed.ir.stream import Stream
from csp_embed.machine.spec import Isa, Memory
from csp_embed.machine.words.listing import line
from csp_embed.sim.cycles import table_rows
from csp_embed.sim.cycles.costs import Costs

_KINDS = {
    "load": table_rows.LOADS,
    "store": table_rows.STORES,
    "contract": table_rows.CONTRACTS,
    "map": table_rows.MAPS,
    "finish": table_rows.FINISHES,
}


@dataclass(frozen=True)
class Table:
    """rows: int64[n, COLUMNS]. steps: micro-op steps of each instruction, 0 for transfers;
    written_bytes: bytes that each stores."""

    rows: NDArray[np.int64]
    steps: NDArray[np.int64]
    written_bytes: NDArray[np.int64]


class TableMaker:
    """Makes tables of streams of one machine with one set of costs."""

    def __init__(self, isa: Isa, costs: Costs) -> None:
        self.isa = isa
        self.names: list[str] = []
        parts = np.full((len(isa.instructions), table_rows.ROLES), -1, np.int64)
        kinds = np.empty(len(isa.instructions), np.int64)
        queues = np.full(len(isa.instructions), -1, np.int64)
        for code, instruction in enumerate(isa.instructions):
            kinds[code] = _KINDS[instruction.kind]
            if instruction.queue is not None:
                queues[code] = isa.queues.index(instruction.queue)
            for place, role in enumerate(table_rows.ROLE_NAMES):
                name = instruction.roles.get(role)
                if name is not None:
                    if name not in self.names:
                        self.names.append(name)
                    parts[code, place] = self.names.index(name)
        operations = [(c, o) for c, i in enumerate(isa.instructions) for o in i.ops]
        most = max((o.code for _, o in operations), default=0)
        built = np.zeros((len(isa.instructions), most + 1), np.bool_)
        for code, operation in operations:
            built[code, operation.code] = operation.portable
        self._machine = (parts, kinds, queues, built, _memories(isa, costs), _spans(costs))
        self._last_queue = len(isa.queues) - 1

    def table(self, stream: Stream) -> Table:
        """The table of `stream`.

        Raises: SimError for an unknown instruction, a transfer of a memory that the instruction
            cannot reach, and counts of 0; the message has the instruction's number and text.
        """
        n = len(stream)
        columns = np.zeros((len(self.names), n), np.int64)
        for place, name in enumerate(self.names):
            if name in stream.fields:
                columns[place] = stream.fields[name]
        rows = np.zeros((n, table_rows.COLUMNS), np.int64)
        steps = np.zeros(n, np.int64)
        written = np.zeros(n, np.int64)
        code = np.ascontiguousarray(stream.code, np.int64)
        bad, why = table_rows.fill_rows(
            code, columns, *self._machine, self._last_queue, rows, steps, written
        )
        if bad >= 0:
            raise self._refuse(stream, bad, why)
        return Table(rows, steps, written)

    def _refuse(self, stream: Stream, n: int, why: int) -> CspEmbedError:
        text = line(self.isa, stream, n).strip()
        if why == table_rows.UNKNOWN:
            return SimError(f"instruction {n} is unknown", where=text, why="it hangs the device")
        instruction = self.isa.instructions[stream.code[n]]
        name = instruction.name
        match why:
            case table_rows.EMPTY_LOOP:
                reason = "a loop or micro-op count of 0 runs for ages on the hardware"
                return SimError(f"instruction {n}: empty loop", where=text, why=reason)
            case table_rows.NO_ROWS:
                reason = "a transfer of 0 rows never ends"
                return SimError(f"instruction {n}: no rows", where=text, why=reason)
            case table_rows.UNREACHED:
                reason = f"{name} does not reach that memory; it hangs the device"
                return SimError(f"instruction {n}: unknown transfer", where=text, why=reason)
            case table_rows.NO_OPERATION:
                reason = "the hardware has no such operation: it hangs"
                return SimError(f"instruction {n}: not built", where=text, why=reason)
        number = int(stream.fields[instruction.roles["memory"]][n])
        memory = self.isa.memory_by_id(number)
        assert memory is not None
        if not memory.portable:
            reason = f"the hardware cannot load {memory.name}: it hangs"
            return SimError(f"instruction {n}: not built", where=text, why=reason)
        return SpecError(
            f"{self.isa.name} has no cost for loads of {memory.name}",
            where=f"costs.read_priority.{memory.name}",
            hint="give its place in the read port's priority",
        )


def _memories(isa: Isa, costs: Costs) -> NDArray[np.int64]:
    """int64[ids, MEMORY_COLUMNS]: what transfers need to know of each memory, by its id."""
    table = np.full((max(m.id for m in isa.memories) + 1, table_rows.MEMORY_COLUMNS), -1, np.int64)
    for memory in isa.memories:
        row = table[memory.id]
        row[table_rows.ELEMENT] = memory.elem_bytes
        if memory.load_queue is not None:
            row[table_rows.LOAD_QUEUE] = isa.queues.index(memory.load_queue)
        if memory.store_queue is not None:
            row[table_rows.STORE_QUEUE] = isa.queues.index(memory.store_queue)
        row[table_rows.PRIORITY] = costs.priority.get(memory.name, -1)
        wide = memory.elem_bytes > costs.beat_bytes
        row[table_rows.EXTRA_TAIL] = costs.sections["load"]["narrow_port"] if wide else 0
        row[table_rows.GAP] = costs.sections["store"]["word_gap"] if wide else 0
        row[table_rows.WORD_BEATS] = max(1, _word_bytes(isa, memory) // costs.beat_bytes)
    return table


def _word_bytes(isa: Isa, memory: Memory) -> int:
    """Bytes that a memory gives at once: one row of lanes of an element."""
    outer = isa.lane_shape(memory.name)[:-1]
    return memory.elem_bytes // max(1, int(np.prod(outer, dtype=np.int64)))


def _spans(costs: Costs) -> NDArray[np.int64]:
    """The per-kind costs in the order that `fill_rows` takes."""
    section = costs.sections
    spans = np.empty(table_rows.SPANS, np.int64)
    for place, value in {
        table_rows.SYNC: section["instruction"]["sync"],
        table_rows.FINISH_SPAN: section["instruction"]["finish"],
        table_rows.LOAD_START: section["load"]["start"],
        table_rows.PAD_ROW: section["load"]["pad_row"],
        table_rows.LOAD_LAST: section["load"]["last"],
        table_rows.STORE_START: section["store"]["start"],
        table_rows.STORE_SETUP: section["store"]["setup"],
        table_rows.STORE_ACK: section["store"]["ack"] + costs.latency,
        table_rows.CONTRACT_FILL: section["contract"]["fill"],
        table_rows.CONTRACT_STEP: section["contract"]["step"],
        table_rows.RESET_STEP: section["contract"]["reset_step"],
        table_rows.MAP_FILL: section["map"]["fill"],
        table_rows.IMMEDIATE_STEP: section["map"]["immediate_step"],
        table_rows.TENSOR_STEP: section["map"]["tensor_step"],
        table_rows.BEAT: costs.beat_bytes,
        table_rows.BURST: costs.burst_beats,
        table_rows.PORT_RATE: costs.rate,
    }.items():
        spans[place] = value
    return spans
