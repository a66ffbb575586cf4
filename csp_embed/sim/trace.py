"""A run of the cycle engine as a trace that Perfetto (ui.perfetto.dev) and chrome://tracing open.

Takes: a stream and its CycleReport with `trace`.  Leaves: a Chrome trace document: one track per
queue (instructions, and waits by reason), one for the read port, one for the write port, and
counters: instructions that wait in each queue, and the read port's load. A cycle is shown as 1 us.
Arrows lead from the instruction that pushes a token to the one that pops it.

Source: Trace Event Format, JSON object form: phases X (complete), C (counter), M (metadata),
s and f (start and end of a flow).
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.files import atomic
from csp_embed.ir.stream import Stream
from csp_embed.machine.spec import Isa
from csp_embed.machine.words.listing import line
from csp_embed.sim.cycles import layout
from csp_embed.sim.cycles.engine import CycleReport, Trace

Event = dict[str, Any]

# The read port's load is averaged over at most this many equal spans of the run.
PORT_SPANS = 1000


def trace_document(isa: Isa, stream: Stream, report: CycleReport) -> dict[str, Any]:
    """The trace as a JSON document.

    Raises: InputError where `report` was made without trace=True.
    """
    trace = report.trace
    if trace is None:
        raise InputError("this cycle report has no trace", hint="simulate_cycles(..., trace=True)")
    queues = instruction_queues(isa, stream, report)
    read = len(isa.queues)
    tracks = [*isa.queues, "read port", "write port"]
    events: list[Event] = [
        {"ph": "M", "pid": 1, "tid": 0, "name": "process_name", "args": {"name": isa.name}}
    ]
    for tid, name in enumerate(tracks):
        args = {"name": name}
        events.append({"ph": "M", "pid": 1, "tid": tid, "name": "thread_name", "args": args})
        args = {"sort_index": tid}
        events.append({"ph": "M", "pid": 1, "tid": tid, "name": "thread_sort_index", "args": args})
    text = [line(isa, stream, n).strip() for n in range(len(stream))]
    names = [slice_name(isa, stream, n) for n in range(len(stream))]
    for q, members in enumerate(queues):
        events += _queue_events(isa, q, members, trace, names, text)
    stores = [i.kind == "store" for i in isa.instructions]
    for n, first, stop in trace.port.tolist():
        args = {"instruction": text[n]} if n >= 0 else {}
        name = names[n] if n >= 0 else "instructions"
        events.append(_span(read, name, first, stop, args))
    for n in np.flatnonzero(np.array(stores)[stream.code] & (trace.end - trace.start > 1)):
        args = {"instruction": text[n]}
        events.append(_span(read + 1, names[n], int(trace.start[n]), int(trace.end[n]) + 1, args))
    events += _tokens(isa, stream, queues, trace)
    events += _waiting(isa, queues, trace)
    events += _port_load(report, trace)
    return {
        "traceEvents": events,
        "displayTimeUnit": "ns",
        "otherData": {
            "machine": isa.name,
            "memory": report.memory.name,
            "cycles": report.total,
            "unit": "1 us is 1 cycle",
        },
    }


def write_trace(path: str | Path, isa: Isa, stream: Stream, report: CycleReport) -> None:
    """`trace_document` to a file, whole or not at all."""
    document = trace_document(isa, stream, report)
    with atomic(path) as file:
        json.dump(document, file, separators=(",", ":"))


def instruction_queues(isa: Isa, stream: Stream, report: CycleReport) -> list[list[int]]:
    """Numbers of the started instructions of each queue, in order."""
    trace = report.trace
    assert trace is not None
    members: list[list[int]] = [[] for _ in isa.queues]
    for n in np.flatnonzero(trace.start >= 0).tolist():
        members[int(trace.queue[n])].append(n)
    return members


def slice_name(isa: Isa, stream: Stream, n: int) -> str:
    """What instruction n does, short: loads with their memory, "tokens" where only those move."""
    instruction = isa.instructions[stream.code[n]]
    if instruction.kind in ("load", "store"):
        size = instruction.roles["x_size"]
        if size not in stream.fields or stream.fields[size][n] == 0:
            return f"{instruction.name} tokens"
    if instruction.kind == "load":
        memory = isa.memory_by_id(int(stream.fields[instruction.roles["memory"]][n]))
        return f"{instruction.name} {memory.name if memory else '?'}"
    return instruction.name


def wait_name(isa: Isa, queue: int, reason: int) -> str:
    """Why an instruction of `queue` did not start at once, in words."""
    match reason:
        case layout.WAIT_PREV:
            return f"wait for {isa.queues[queue - 1]}"
        case layout.WAIT_NEXT:
            return f"wait for {isa.queues[queue + 1]}"
        case _:
            return "wait for fetch"


def _queue_events(
    isa: Isa, q: int, members: list[int], trace: Trace, names: list[str], text: list[str]
) -> Iterator[Event]:
    free = 0
    for n in members:
        start, stop = int(trace.start[n]), int(trace.end[n]) + 1
        if start > free and trace.waited[n]:
            yield _span(q, wait_name(isa, q, int(trace.waited[n])), free, start, {})
        args = {"instruction": text[n], "number": n, "dispatched": int(trace.dispatch[n])}
        yield _span(q, names[n], start, stop, args)
        free = stop


def _tokens(isa: Isa, stream: Stream, queues: list[list[int]], trace: Trace) -> Iterator[Event]:
    """An arrow for every token that was pushed and popped: the k-th pop of a FIFO between two
    queues takes its k-th push, whatever the timing."""
    number = 0
    for q in range(len(queues) - 1):
        for giver, taker, push, pop in ((q, q + 1, "push_next", "pop_prev"),
                                        (q + 1, q, "push_prev", "pop_next")):  # fmt: skip
            pushes = [n for n in queues[giver] if _moves(isa, stream, n, push)]
            pops = [n for n in queues[taker] if _moves(isa, stream, n, pop)]
            name = f"token {isa.queues[giver]} to {isa.queues[taker]}"
            # What is left over was pushed and never popped.
            for given, taken in zip(pushes, pops, strict=False):
                common = {"cat": "token", "name": name, "id": number, "pid": 1}
                # Ends bind to the slices around them: the last cycle that is still inside.
                last = int(trace.end[given])
                yield {"ph": "s", "tid": giver, "ts": last, **common}
                yield {"ph": "f", "bp": "e", "tid": taker, "ts": int(trace.start[taken]), **common}
                number += 1


def _moves(isa: Isa, stream: Stream, n: int, token: str) -> bool:
    """Whether instruction n pushes or pops that token."""
    field = isa.instructions[stream.code[n]].roles.get(token)
    return field is not None and field in stream.fields and stream.fields[field][n] != 0


def _span(tid: int, name: str, first: int, stop: int, args: dict[str, Any]) -> Event:
    return {
        "ph": "X",
        "pid": 1,
        "tid": tid,
        "ts": first,
        "dur": max(0, stop - first),
        "name": name,
        "args": args,
    }


def _waiting(isa: Isa, queues: list[list[int]], trace: Trace) -> Iterator[Event]:
    """Instructions dispatched and not yet started, of each queue, whenever it changes."""
    for q, members in enumerate(queues):
        changes: dict[int, int] = {}
        for n in members:
            for at, step in ((int(trace.dispatch[n]), 1), (int(trace.start[n]), -1)):
                changes[at] = changes.get(at, 0) + step
        level = 0
        for at in sorted(changes):
            level += changes[at]
            args = {"instructions": level}
            yield {"ph": "C", "pid": 1, "ts": at, "name": f"{isa.queues[q]} queue", "args": args}


def _port_load(report: CycleReport, trace: Trace) -> Iterator[Event]:
    """Share of cycles in which the read port moves loads and instructions, per span of the run."""
    shares = port_shares(report, trace, PORT_SPANS)
    span = max(1, -(-report.total // PORT_SPANS))
    for k, (load, fetch) in enumerate(shares.tolist()):
        args = {"loads": round(load, 4), "instructions": round(fetch, 4)}
        yield {"ph": "C", "pid": 1, "ts": k * span, "name": "read port load", "args": args}


def port_shares(report: CycleReport, trace: Trace, spans: int) -> np.ndarray[Any, Any]:
    """float64[at most `spans`, 2]: use of the read port by loads and by instruction fetch, of 1."""
    span = max(1, -(-report.total // spans))
    count = -(-max(1, report.total) // span)
    shares = np.zeros((count, 2))
    for column, chosen in enumerate((trace.port[:, 0] >= 0, trace.port[:, 0] < 0)):
        for first, stop in trace.port[chosen, 1:].tolist():
            k = first // span
            while first < stop and k < count:
                upto = min(stop, (k + 1) * span)
                shares[k, column] += upto - first
                first, k = upto, k + 1
    return shares / span
