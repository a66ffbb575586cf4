"""Traces against the Trace Event Format, and the timeline picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ElementTree
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from cycle_programs import FINISH, gemm, load, measured, program, store

from csp_embed.errors import InputError
from csp_embed.machine.load import load_isa
from csp_embed.report.timeline import draw_timeline
from csp_embed.sim.cycles.engine import CycleReport, simulate_cycles
from csp_embed.sim.trace import trace_document, write_trace

VTA = load_isa("vta")
STREAM = program(
    VTA,
    load("UOP", 4),
    *[
        load("WGT", 8, push_next=1),
        gemm(64, pop_prev=1, push_next=1),
        store(16, pop_prev=1, push_prev=1),
        {"name": "LOAD", "memory": "UOP", "pop_next": 1},
    ]
    * 5,
    FINISH,
)


def _report(**more: Any) -> CycleReport:
    return simulate_cycles(VTA, STREAM, trace=True, **more)


def check_event(event: dict[str, Any]) -> None:
    """What the Trace Event Format asks of the phases we use (Perfetto's importer asks no less)."""
    assert event["ph"] in ("X", "C", "M", "s", "f")
    assert isinstance(event["name"], str)
    assert event["name"]
    assert isinstance(event["pid"], int)
    assert isinstance(event.get("args", {}), dict)
    match event["ph"]:
        case "X":
            assert isinstance(event["tid"], int)
            assert event["ts"] >= 0
            assert event["dur"] >= 0
        case "C":
            assert event["ts"] >= 0
            assert event["args"]
            assert all(isinstance(v, int | float) for v in event["args"].values())
        case "s" | "f":
            assert isinstance(event["tid"], int)
            assert isinstance(event["id"], int)
            assert event["ts"] >= 0
            assert event["cat"]
            # Without it an end would bind to the slice that comes next.
            assert event.get("bp") == ("e" if event["ph"] == "f" else None)
        case "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")


def test_a_trace_keeps_to_the_format(tmp_path: Path) -> None:
    report = _report()
    write_trace(tmp_path / "t.json", VTA, STREAM, report)
    document = json.loads((tmp_path / "t.json").read_text())
    assert document == trace_document(VTA, STREAM, report)
    assert document["displayTimeUnit"] in ("ms", "ns")
    for event in document["traceEvents"]:
        check_event(event)


def test_tracks_hold_every_instruction_and_do_not_overlap() -> None:
    report = _report()
    events = trace_document(VTA, STREAM, report)["traceEvents"]
    names = {
        e["tid"]: e["args"]["name"] for e in events if e["ph"] == "M" and e["name"] == "thread_name"
    }
    assert list(names.values()) == ["load", "compute", "store", "read port", "write port"]
    numbers = [e["args"]["number"] for e in events if e["ph"] == "X" and "number" in e["args"]]
    assert sorted(numbers) == list(range(len(STREAM)))
    for tid in names:
        mine = [e for e in events if e["ph"] == "X" and e["tid"] == tid]
        spans = sorted((e["ts"], e["ts"] + e["dur"]) for e in mine)
        assert all(a[1] <= b[0] for a, b in pairwise(spans))
        assert spans[-1][1] <= report.total + 1
    assert any("GEMM" in e.get("args", {}).get("instruction", "") for e in events)
    assert {e["name"] for e in events if e["ph"] == "C"} >= {"compute queue", "read port load"}
    assert any(e["name"] == "wait for compute" for e in events)


def token_pairs(events: list[dict[str, Any]]) -> dict[str, list[tuple[int, int]]]:
    """Arrows by name, as numbers of the instructions whose slices enclose their ends."""
    slices = [e for e in events if e["ph"] == "X" and "number" in e["args"]]

    def around(flow: dict[str, Any]) -> int:
        (number,) = [
            e["args"]["number"]
            for e in slices
            if e["tid"] == flow["tid"] and e["ts"] <= flow["ts"] < e["ts"] + e["dur"]
        ]
        return int(number)

    starts = {e["id"]: e for e in events if e["ph"] == "s"}
    ends = {e["id"]: e for e in events if e["ph"] == "f"}
    assert starts.keys() == ends.keys()
    assert len(starts) + len(ends) == sum(e["ph"] in ("s", "f") for e in events)
    found: dict[str, list[tuple[int, int]]] = {}
    for number, start in starts.items():
        end = ends[number]
        assert (start["name"], start["cat"]) == (end["name"], end["cat"])
        assert start["ts"] <= end["ts"]
        found.setdefault(start["name"], []).append((around(start), around(end)))
    return found


def test_an_arrow_for_every_token() -> None:
    # Instruction 0 loads micro-ops; then five rounds of load, multiply, store, and a load of no
    # data that takes the store's token: written down by hand, round by round.
    rounds = [range(k, k + 4) for k in range(1, 21, 4)]
    assert token_pairs(trace_document(VTA, STREAM, _report())["traceEvents"]) == {
        "token load to compute": [(r[0], r[1]) for r in rounds],
        "token compute to store": [(r[1], r[2]) for r in rounds],
        "token store to compute": [(r[2], r[3]) for r in rounds],
    }


def test_a_token_that_nobody_takes_has_no_arrow() -> None:
    stream = program(VTA, load("WGT", 8, push_next=1), load("WGT", 8, push_next=1),
                     gemm(64, pop_prev=1), FINISH)  # fmt: skip
    report = simulate_cycles(VTA, stream, trace=True)
    pairs = token_pairs(trace_document(VTA, stream, report)["traceEvents"])
    assert pairs == {"token load to compute": [(0, 2)]}


def test_slices_say_what_is_loaded() -> None:
    events = trace_document(VTA, STREAM, _report())["traceEvents"]
    named = {e["args"]["number"]: e["name"] for e in events if "number" in e.get("args", {})}
    assert [named[n] for n in range(5)] == ["LOAD UOP", "LOAD WGT", "GEMM", "STORE", "LOAD tokens"]
    port = {e["name"] for e in events if e["ph"] == "X" and e["tid"] == 3}
    assert port == {"LOAD UOP", "LOAD WGT", "instructions"}


def test_counters_end_at_zero_and_shares_are_shares() -> None:
    events = trace_document(VTA, STREAM, _report())["traceEvents"]
    queue = [e for e in events if e["name"] == "load queue"]
    assert queue[-1]["args"] == {"instructions": 0}
    assert all(e["args"]["instructions"] >= 0 for e in queue)
    loads = [e["args"]["loads"] for e in events if e["name"] == "read port load"]
    assert all(0 <= share <= 1 for share in loads)
    assert sum(loads) > 0


def test_a_report_without_trace_is_refused(tmp_path: Path) -> None:
    bare = simulate_cycles(VTA, STREAM)
    with pytest.raises(InputError, match="no trace"):
        trace_document(VTA, STREAM, bare)
    with pytest.raises(InputError, match="no trace"):
        draw_timeline(VTA, STREAM, bare, tmp_path / "t.svg")


def test_the_timeline_is_an_svg_that_names_its_parts(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    report = _report()
    draw_timeline(VTA, STREAM, report, tmp_path / "a.svg")
    draw_timeline(VTA, STREAM, report, tmp_path / "b.svg")
    text = (tmp_path / "a.svg").read_text()
    assert text == (tmp_path / "b.svg").read_text()
    ElementTree.fromstring(text)
    for word in ("load", "compute", "store", "read port", "GEMM", "LOAD WGT", "wait for load"):
        assert word in text
    draw_timeline(VTA, STREAM, report, tmp_path / "c.png", window=(0, 500))
    assert (tmp_path / "c.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(InputError, match=r"\.doc"):
        draw_timeline(VTA, STREAM, report, tmp_path / "d.doc")


def test_a_long_run_is_drawn_in_spans(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    item = next(p for p in measured(VTA) if p.name == "conv060")
    report = simulate_cycles(VTA, item.stream, trace=True)
    draw_timeline(VTA, item.stream, report, tmp_path / "long.svg")
    assert (tmp_path / "long.svg").stat().st_size < 2_000_000
    assert f"{report.total:,} cycles" in (tmp_path / "long.svg").read_text()
