"""The cycle engine: how long a stream takes, where each queue waits and for what.

    report = simulate_cycles(isa, stream, memory="pynq,latency=40")
    engine = Engine(isa, "de10"); engine.total(stream)      # hundreds of times: numbers only

Takes: a decoded Stream.  Leaves: a CycleReport.  Assumes: nothing; a stream that would hang or
never end raises SimError. Values are not computed: micro-ops are counted, not read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import SimError
from csp_embed.figures import utilisation
from csp_embed.ir.stream import Stream
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.listing import line
from csp_embed.sim.cycles import layout
from csp_embed.sim.cycles.core import run
from csp_embed.sim.cycles.costs import (
    MemoryInterface,
    checked,
    costs,
    interfaces,
    parse_memory,
)
from csp_embed.sim.cycles.table import Table, TableMaker

__all__ = ["CycleReport", "Engine", "QueueReport", "Trace", "parse_memory", "simulate_cycles"]

Column = NDArray[np.int64]


@dataclass(frozen=True)
class QueueReport:
    """One queue, in cycles; the parts add up to the total.

    busy: instructions at work, turn-around included; port: of loads, waiting while the read port
    served others; fetch: nothing to do because the next instruction had not arrived; tokens:
    waiting for a token, by the queue that pushes it; done: after its last instruction.
    """

    instructions: int
    busy: int
    port: int
    fetch: int
    tokens: Mapping[str, int]
    done: int


@dataclass(frozen=True)
class Trace:
    """Of each instruction: index of its queue; cycles when dispatched to it, started, ended.

    waited: why it did not start when its queue was idle: 0 it did, 1 fetch, 2 token of the queue
    before, 3 token of the queue after. port: int64[m, 3] uses of the read port as (instruction, or
    -1 for instruction fetch; first cycle; end cycle).
    """

    queue: Column
    dispatch: Column
    start: Column
    end: Column
    waited: Column
    port: NDArray[np.int64]


@dataclass(frozen=True)
class CycleReport:
    """What one run took.

    total: cycles from launch to FINISH (or, without FINISH, to the last end). read_bytes: of loads;
    fetch_bytes: of instructions; written_bytes: of stores, as transferred. steps: micro-op steps by
    "contract", "reset", "map". utilisation: executed products over peak (`csp_embed.figures`).
    """

    memory: MemoryInterface
    instructions: int
    total: int
    queues: Mapping[str, QueueReport]
    read_bytes: int
    fetch_bytes: int
    written_bytes: int
    read_bursts: int
    fetch_bursts: int
    steps: Mapping[str, int]
    utilisation: float
    trace: Trace | None = None

    def show(self) -> str:
        """A table for people."""
        port = self.read_bytes + self.fetch_bytes
        lines = [
            f"{self.total} cycles on {self.memory.name}, {self.instructions} instructions, "
            f"utilisation {self.utilisation:.1%}",
            f"read {self.read_bytes} bytes + {self.fetch_bytes} of instructions "
            f"({port / max(1, self.total):.2f} a cycle), wrote {self.written_bytes}",
            f"{'queue':>10} {'insns':>6} {'busy':>7} {'port':>6} {'fetch':>6} {'done':>6}  tokens",
        ]
        for name, q in self.queues.items():
            share = [f"{x / max(1, self.total):.1%}" for x in (q.busy, q.port, q.fetch, q.done)]
            tokens = ", ".join(
                f"{other} {cycles / max(1, self.total):.1%}" for other, cycles in q.tokens.items()
            )
            lines.append(
                f"{name:>10} {q.instructions:>6} {share[0]:>7} {share[1]:>6} {share[2]:>6} "
                f"{share[3]:>6}  {tokens}"
            )
        return "\n".join(lines)


def simulate_cycles(
    isa: Isa,
    stream: Stream,
    *,
    memory: str | MemoryInterface | None = None,
    latency: int | None = None,
    bytes_per_cycle: float | None = None,
    trace: bool = False,
) -> CycleReport:
    """Simulates `stream` in cycles.

    memory: what `--memory` takes, None the first interface of the spec (VTA: de10); latency and
        bytes_per_cycle override it.
    trace: keep when each instruction was dispatched, started and ended, and who used the read port.

    Raises: SpecError where the spec has no costs for the interface; InputError for a bad `memory`;
        SimError for a deadlock (naming the head of each queue), more tokens than a FIFO holds,
        unknown instructions, and counts of 0.
    """
    memory = _interface(isa, memory)
    if latency is not None:
        memory = replace(memory, latency=latency)
    if bytes_per_cycle is not None:
        memory = replace(memory, bytes_per_cycle=bytes_per_cycle)
    return Engine(isa, memory).report(stream, trace=trace)


def _interface(isa: Isa, memory: str | MemoryInterface | None) -> MemoryInterface:
    if memory is None:
        return MemoryInterface(next(iter(interfaces(isa)), "any"))
    return parse_memory(memory) if isinstance(memory, str) else memory


class Engine:
    """A machine behind a memory interface, ready to time many streams.

    `total` is the fast path: about 0.1 ms of NumPy to make the table of a stream of a few hundred
    instructions, then well over a million instructions a second. Where a caller varies few
    instructions of a stream, it keeps `table(stream)`, changes `rows` and calls `total_of`.
    """

    def __init__(self, isa: Isa, memory: str | MemoryInterface | None = None) -> None:
        self.isa = isa
        self.memory = checked(_interface(isa, memory))
        self.costs = costs(isa, self.memory)
        self._maker = TableMaker(isa, self.costs)

    def table(self, stream: Stream) -> Table:
        """The stream as the compiled loop takes it."""
        return self._maker.table(stream)

    def total(self, stream: Stream) -> int:
        """Cycles of `stream`. Raises: as `simulate_cycles`."""
        made = self.table(stream)
        result = self.total_of(made.rows)
        if result < 0:
            self.report(stream)  # raises
        return result

    def total_of(self, rows: NDArray[np.int64]) -> int:
        """Cycles of a table's rows; -1 where the program hangs or loses tokens."""
        result, _, _ = self._run(rows, 0)
        return int(result[1]) if result[0] == layout.DONE else -1

    def report(self, stream: Stream, *, trace: bool = False) -> CycleReport:
        """All that is known of a run of `stream`. Raises: as `simulate_cycles`."""
        made = self.table(stream)
        # Room for a usual program; one that needs more says so and is run again.
        result, columns, segments = self._run(made.rows, 4096 if trace else 0)
        if trace and result[2] > len(segments):
            result, columns, segments = self._run(made.rows, int(result[2]))
        if result[0] == layout.STUCK:
            raise self._deadlock(stream, made, columns)
        if result[0] == layout.TOKENS_LOST:
            raise self._lost(int(result[7]))
        return self._report(stream, made, result, columns, segments if trace else None)

    def _run(
        self, rows: NDArray[np.int64], segments: int
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
        columns = np.empty((5, len(rows)), np.int64)
        port = np.empty((segments, 3), np.int64)
        start, end, dispatch, waited, held = columns
        result = run(
            rows, len(self.isa.queues), self.costs.vector, start, end, dispatch, waited, held, port
        )
        return result, columns, port

    def _report(
        self,
        stream: Stream,
        made: Table,
        result: NDArray[np.int64],
        columns: NDArray[np.int64],
        segments: NDArray[np.int64] | None,
    ) -> CycleReport:
        total = int(result[1])
        # FINISH ends the counting: what started and did not end by then is at work until then.
        # Columns are the engine's own arrays, so they may be cut in place.
        columns[0, columns[0] > total] = -1
        columns[1] = np.where(columns[0] >= 0, np.where(columns[1] < 0, total, columns[1]), -1)
        np.minimum(columns[1], total, out=columns[1])
        start, end, dispatch, waited, _ = columns
        kinds = np.array([i.kind for i in self.isa.instructions])[stream.code]
        # Resets are contractions by opcode and cost less; reports keep them apart.
        reset = np.zeros(len(stream), bool)
        for instruction in self.isa.instructions:
            name = instruction.roles.get("reset")
            if instruction.kind == "contract" and name is not None and name in stream.fields:
                here = stream.code == self.isa.instructions.index(instruction)
                reset |= here & (stream.fields[name] != 0)
        contract = kinds == "contract"
        steps = {
            "contract": int(made.steps[contract & ~reset].sum()),
            "reset": int(made.steps[contract & reset].sum()),
            "map": int(made.steps[kinds == "map"].sum()),
        }
        queues = {
            name: self._queue(q, made, columns, total) for q, name in enumerate(self.isa.queues)
        }
        trace = None
        if segments is not None:
            port = segments[: int(result[2])]
            port = port[port[:, 1] < total]
            port[:, 2] = np.minimum(port[:, 2], total)
            trace = Trace(made.rows[:, layout.QUEUE].copy(), dispatch, start, end, waited, port)
        # Beats, not bytes asked for: a ragged row pays for whole ones.
        beat = self.costs.beat_bytes
        return CycleReport(
            memory=self.memory,
            instructions=len(stream),
            total=total,
            queues=queues,
            read_bytes=int(result[5]) * beat,
            fetch_bytes=int(result[6]) * beat,
            written_bytes=int(made.written_bytes.sum()),
            read_bursts=int(result[3]),
            fetch_bursts=int(result[4]),
            steps=steps,
            utilisation=utilisation(steps["contract"], total, self._step_cycles()),
            trace=trace,
        )

    def _step_cycles(self) -> float:
        """Cycles of one contraction step."""
        return float(self.isa.costs.get("contract", {}).get("step", 1.0))

    def _queue(self, q: int, made: Table, columns: NDArray[np.int64], total: int) -> QueueReport:
        start, end, dispatch, waited, port_wait = columns
        vector = self.costs.vector
        at = np.flatnonzero((made.rows[:, layout.QUEUE] == q) & (start >= 0))
        turn = int(vector[layout.TURN])
        # Cycle 0 launches; from cycle 1 on each cycle of a queue has one reason.
        idle = np.concatenate([[1], end[at] + turn])[: len(at)]
        arrived = np.maximum(idle, dispatch[at] + vector[layout.DISPATCH])
        by_token = start[at] - arrived
        last = int(end[at[-1]]) + turn if len(at) else 1
        tokens = {}
        for reason, other in ((layout.WAIT_PREV, q - 1), (layout.WAIT_NEXT, q + 1)):
            if 0 <= other < len(self.isa.queues):
                here = waited[at] == reason
                tokens[self.isa.queues[other]] = int(by_token[here].sum())
        port = int(port_wait[at].sum())
        return QueueReport(
            instructions=len(at),
            # A load's wait for the port lies inside its span and is shown by itself.
            busy=int((end[at] - start[at] + turn).sum()) - port,
            port=port,
            fetch=int((arrived - idle).sum()),
            tokens=tokens,
            done=max(0, total + 1 - last),
        )

    def _deadlock(self, stream: Stream, made: Table, columns: NDArray[np.int64]) -> SimError:
        start, end, dispatch = columns[:3]
        heads = []
        for q, name in enumerate(self.isa.queues):
            waiting = np.flatnonzero((made.rows[:, layout.QUEUE] == q) & (start < 0))
            if not len(waiting):
                heads.append(f"{name}: has run all it was given")
                continue
            n = int(waiting[0])
            arrived = "" if dispatch[n] >= 0 else " (not fetched: a full queue is in the way)"
            heads.append(f"{name}: waits at {line(self.isa, stream, n).strip()}{arrived}")
        ran = int((end >= 0).sum())
        return SimError(
            f"deadlock after {ran} of {len(stream)} instructions",
            where="; ".join(heads),
            why="each queue head waits for a token that is never pushed",
            hint="every pop needs a push that can run before it; see `csp-embed check`",
        )

    def _lost(self, direction: int) -> SimError:
        here, there = direction // 2, direction // 2 + 1
        if direction % 2:
            here, there = there, here
        limit = self.isa.limits.max_tokens
        return SimError(
            f"more than {limit} tokens wait from {self.isa.queues[here]} to "
            f"{self.isa.queues[there]}",
            why=f"the counter stops at {limit}: a further token is lost and a later pop hangs",
            hint="let the queue that pops keep up, or push fewer tokens",
        )
