"""A latency plan as a Chrome/Perfetto trace.

One track per device and direction of a link, times in microseconds; arrows lead from a layer over
each hop of its value to the layers that read it. Source: Trace Event Format, phases X, M, s and f.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from csp_embed.errors import InputError
from csp_embed.files import atomic
from csp_embed.ir.network import Plan, Platform, TaskGraph, Transfer
from csp_embed.report.plans.gantt import assignments, transfer_lanes, transfers

Event = dict[str, Any]
# Perfetto groups tracks by process: devices and links are two.
_DEVICES, _LINKS = 1, 2  # process numbers


def write_trace(
    plan: Plan, platform: Platform, path: str | Path, graph: TaskGraph | None = None
) -> None:
    """The trace as a JSON file. graph: adds kinds of layers, and arrows to the layers that read.

    Raises: InputError for a plan without times.
    """
    # A throughput plan has no times to draw.
    if not any(a.start is not None for a in assignments(plan)):
        raise InputError(
            "a trace needs times", why=f"the plan's goal is {plan.goal}", hint="--objective latency"
        )
    lanes = transfer_lanes(transfers(plan))
    events: list[Event] = []
    for process, label in ((_DEVICES, "devices"), (_LINKS, "links")):
        events.append(_meta("process_name", process, 0, label))
    # Track numbers in the platform's order: viewers sort by them.
    device_track = {d.name: at for at, d in enumerate(platform.devices)}
    link_track = {name: at for at, name in enumerate(sorted(set(lanes.values())))}
    for process, tracks in ((_DEVICES, device_track), (_LINKS, link_track)):
        events += [_meta("thread_name", process, at, name) for name, at in tracks.items()]
    ops = {} if graph is None else {t.id: t.op for t in graph.tasks}
    bars: list[Event] = []
    for a in assignments(plan):
        if a.start is not None and a.finish is not None:
            args = {"kind": ops[a.task]} if ops.get(a.task) else {}
            track = device_track[a.device]
            bars.append(_event(_DEVICES, track, a.task, a.start, a.finish, args))
    # Lanes number transfers over all copies.
    for at, lane in lanes.items():
        t = transfers(plan)[at]
        args = {"link": t.link, "bytes": t.bytes, "of": t.src_task}
        bars.append(_event(_LINKS, link_track[lane], t.tensor, t.start, t.finish, args))
    copies = plan.replicas or (plan,)
    tracks = {"device": device_track, "link": link_track}
    # Transfers of all copies are numbered one after the other.
    offset, flows = 0, 0
    for copy in copies:
        for first, second in _hand_overs(copy, graph, offset, lanes, tracks):
            events += _flow(flows, first, second)
            flows += 1
        offset += len(copy.transfers)
    with atomic(path) as file:
        json.dump({"traceEvents": events + bars, "displayTimeUnit": "ms"}, file)


# Where a slice is, and the times between which it runs: process, track, start, finish.
_Slice = tuple[int, int, float, float]


def _hand_overs(
    copy: Any,
    graph: TaskGraph | None,
    offset: int,
    lanes: dict[int, str],
    tracks: dict[str, dict[str, int]],
) -> list[tuple[_Slice, _Slice]]:
    """Pairs of slices: layer to its transfer, hop to hop, transfer to layer that reads it."""
    layers = {
        a.task: (a.device, (_DEVICES, tracks["device"][a.device], a.start, a.finish))
        for a in copy.assignments
        if a.start is not None and a.finish is not None
    }
    # By value: its hops follow one another.
    hops: dict[tuple[str, str], list[tuple[Transfer, _Slice]]] = {}
    for at, t in enumerate(copy.transfers):
        if at + offset in lanes:
            track = tracks["link"][lanes[at + offset]]
            where = (_LINKS, track, t.start, t.finish)
            hops.setdefault((t.src_task, t.tensor), []).append((t, where))
    readers = {} if graph is None else {(s, t): c for s, t, _, c in graph.values()}
    pairs: list[tuple[_Slice, _Slice]] = []
    for (source, tensor), value in hops.items():
        for t, where in value:
            # Only the first hop begins at the layer.
            if source in layers and layers[source][0] == t.from_device:
                pairs.append((layers[source][1], where))
            # A hop to where the value goes on from.
            pairs += [(where, w) for n, w in value if n is not t and n.from_device == t.to_device]
            for reader in readers.get((source, tensor), ()):
                # Only the hop that arrives at the reader's device.
                if reader in layers and layers[reader][0] == t.to_device:
                    pairs.append((where, layers[reader][1]))
    return pairs


def _flow(number: int, first: _Slice, second: _Slice) -> list[Event]:
    """An arrow. Its ends bind to the slices that enclose their times, so they stand inside."""
    rows: list[Event] = []
    for phase, (process, track, start, finish) in (("s", first), ("f", second)):
        # Perfetto takes a slice as closed at its start and open at its end.
        at = start + (finish - start) * (0.999 if phase == "s" else 0)
        # The same number at both ends ties the arrow.
        rows.append({"ph": phase, "id": number, "cat": "value", "name": "value", "pid": process,
                     "tid": track, "ts": at * 1e3})  # fmt: skip
    # "e": the arrow ends at the slice that encloses its time.
    rows[1]["bp"] = "e"
    return rows


def _meta(what: str, process: int, track: int, name: str) -> Event:
    return {"ph": "M", "pid": process, "tid": track, "name": what, "args": {"name": name}}


def _event(
    process: int, track: int, name: str, start: float, finish: float, args: dict[str, Any]
) -> Event:
    return {
        "ph": "X",
        "pid": process,
        "tid": track,
        "name": name,
        # The format counts in microseconds.
        "ts": start * 1e3,
        "dur": (finish - start) * 1e3,
        "args": args,
    }
