"""Reports of plans: rows and reasons, differences, lanes of transfers, layout, pictures."""

from __future__ import annotations

import json
import math
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
from svg_look import look

from csp_embed.errors import InputError
from csp_embed.ir.network import (
    Assignment,
    Device,
    Edge,
    Link,
    Plan,
    Platform,
    Replica,
    Task,
    TaskGraph,
    Transfer,
)
from csp_embed.report.plans.diff import plan_diff, plan_diff_text
from csp_embed.report.plans.gantt import draw_plan, transfer_lanes
from csp_embed.report.plans.graph_picture import draw_graph, layout
from csp_embed.report.plans.page import plan_page
from csp_embed.report.plans.table import explain_text, plan_rows, summary_text, table_text
from csp_embed.report.plans.trace import write_trace

PLATFORM = Platform((Device("a", "cpu"), Device("b", "gpu")), (Link(("a", "b"), 10.0, 1.0),))
GRAPH = TaskGraph(
    (
        Task("x", {"a": 1.0}, op="Conv", origin={"a": "measured (p.json)"}),
        Task("y", {"a": 9.0, "gpu": 2.0}),
        Task("z", {"a": 3.0, "b": 1.0}, pin="a"),
        Task("w", {"a": 4.0, "b": 3.0}),
    ),
    (
        Edge("x", "y", 20, "t"),
        Edge("x", "z", 20, "t"),
        Edge("y", "w", 10, "u"),
        Edge("z", "w", 10, "v"),
    ),
)


def plan_with(w: str = "a") -> Plan:
    return Plan(
        "latency",
        13.0,
        10.0,
        3 / 13,
        "FEASIBLE",
        "by hand",
        assignments=(
            Assignment("x", "a", 0.0, 1.0),
            Assignment("y", "b", 4.0, 6.0),
            Assignment("z", "a", 1.0, 4.0),
            Assignment("w", w, 8.0, 12.0),
        ),
        transfers=(
            Transfer("x", "t", "a", "b", "a-b", 20, 1.0, 4.0),
            Transfer("y", "u", "b", "a", "a-b", 10, 6.0, 8.0),
        ),
        loads={"a": 8.0},
    )


def test_rows_say_why() -> None:
    rows = {r.task: r for r in plan_rows(plan_with(), GRAPH, PLATFORM)}
    assert rows["x"].reason == "no other device can run it"
    assert rows["x"].origin == "measured (p.json)"
    assert rows["y"].reason == "fastest device"
    assert rows["y"].origin == "given"
    assert rows["z"].reason == "pinned"
    assert rows["w"].reason == "beside z, saves transfers, +1 ms"
    assert [rows[t].bytes_in for t in "xyzw"] == [0, 20, 0, 10]
    text = table_text(list(rows.values()))
    assert len(text.splitlines()) == 5
    short = table_text(list(rows.values()), 2)
    assert "2 more layers" in short
    assert "gap 23.08 %" in summary_text(plan_with(), PLATFORM)


def test_explanation_names_costs_transfers_and_moves() -> None:
    text = explain_text("w", plan_with(), GRAPH, PLATFORM, lambda t, d: 12.5 if d == "b" else 13)
    assert "b: 3 ms (given); moved there alone: 12.5 ms (-0.5)" in text
    assert "waits for u: b -> a over a-b, 10 bytes, 6 to 8 ms" in text
    refused = explain_text("w", plan_with(), GRAPH, PLATFORM, lambda task, device: None)
    assert "no valid plan" in refused
    with pytest.raises(InputError):
        explain_text("q", plan_with(), GRAPH, PLATFORM)


def test_replicas_are_told_apart() -> None:
    tasks = (Task("x", {"a": 1.0, "b": 2.0}), Task("y", {"a": 1.0, "b": 2.0}))
    copies = tuple(
        Replica(n, tuple(Assignment(t, d, 0.0, 1.0) for t in "xy")) for d, n in (("a", 3), ("b", 1))
    )
    plan = Plan("latency", 4.0, 1.0, 0.75, "FEASIBLE", "by hand", replicas=copies, batch=4)
    rows = plan_rows(plan, TaskGraph(tasks, ()), PLATFORM)
    assert [(r.replica, r.device) for r in rows] == [("0", "a")] * 2 + [("1", "b")] * 2
    # b is slower than a, but a belongs to the other copy.
    assert {r.reason for r in rows} == {"no other device can run it"}
    assert "replica" in table_text(rows).splitlines()[0]
    assert "replica 0: 3 samples of the batch on a" in summary_text(plan, PLATFORM)
    assert "first of 2 replicas" in explain_text("x", plan, TaskGraph(tasks, ()), PLATFORM)


def test_differences() -> None:
    diff = plan_diff(plan_with(), plan_with("b"))
    assert diff["moved"] == [("w", "a", "b")]
    assert "  w: a -> b" in plan_diff_text(diff)
    assert plan_diff(plan_with(), plan_with())["moved"] == []
    other = Plan("throughput", 1.0, 1.0, 0.0, "OPTIMAL", "x")
    with pytest.raises(InputError, match="different goals"):
        plan_diff(plan_with(), other)


def test_transfers_that_overlap_have_lanes_of_their_own() -> None:
    def transfer(a: str, b: str, start: float, finish: float) -> Transfer:
        return Transfer("x", "t", a, b, "a-b", 1.0, start, finish)

    rows = [
        transfer("a", "b", 0, 4),
        transfer("a", "b", 1, 2),
        transfer("b", "a", 0, 3),
        transfer("a", "b", 2, 5),
        transfer("a", "b", 4, 6),
    ]
    assert transfer_lanes(rows) == {
        0: "a > b", 1: "a > b #2", 2: "b > a", 3: "a > b #2", 4: "a > b",
    }  # fmt: skip


def test_the_trace_holds_every_task_and_transfer(tmp_path: Path) -> None:
    write_trace(plan_with(), PLATFORM, tmp_path / "t.json")
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    bars = {e["name"]: e for e in events if e["ph"] == "X"}
    assert set(bars) == {"x", "y", "z", "w", "t", "u"}
    assert (bars["y"]["ts"], bars["y"]["dur"]) == (4000.0, 2000.0)
    names = {e["args"]["name"] for e in events if e["ph"] == "M"}
    assert {"a", "b", "a > b", "b > a"} <= names
    with pytest.raises(InputError, match="needs times"):
        write_trace(Plan("throughput", 1.0, 1.0, 0.0, "OPTIMAL", "x"), PLATFORM, tmp_path / "u")


def test_layout_puts_consumers_right_of_producers() -> None:
    spots = layout(GRAPH)
    for edge in GRAPH.edges:
        assert spots[edge.src][0] < spots[edge.dst][0]
    assert len(set(spots.values())) == len(spots)


def test_a_trace_has_arrows_from_layer_over_link_to_layer(tmp_path: Path) -> None:
    write_trace(plan_with(), PLATFORM, tmp_path / "t.json", GRAPH)
    events = json.loads((tmp_path / "t.json").read_text())["traceEvents"]
    bars = [e for e in events if e["ph"] == "X"]

    def around(flow: dict[str, Any]) -> str:
        (name,) = [
            b["name"]
            for b in bars
            if (b["pid"], b["tid"]) == (flow["pid"], flow["tid"])
            and b["ts"] <= flow["ts"] < b["ts"] + b["dur"]
        ]
        return str(name)

    starts = {e["id"]: around(e) for e in events if e["ph"] == "s"}
    ends = {e["id"]: around(e) for e in events if e["ph"] == "f"}
    assert len(starts) == sum(e["ph"] == "s" for e in events)
    assert starts.keys() == ends.keys()
    assert sorted((starts[n], ends[n]) for n in starts) == [
        ("t", "y"), ("u", "w"), ("x", "t"), ("y", "u"),
    ]  # fmt: skip
    assert next(b for b in bars if b["name"] == "x")["args"] == {"kind": "Conv"}


def test_pictures_name_devices_and_layers(tmp_path: Path) -> None:
    draw_plan(plan_with(), PLATFORM, tmp_path / "g.svg", GRAPH)
    draw_graph(GRAPH, plan_with(), PLATFORM, tmp_path / "n.svg")
    throughput = Plan(
        "throughput", 8.0, 8.0, 0.0, "OPTIMAL", "x",
        assignments=(Assignment("x", "a"),), loads={"a": 8.0, "a-b": 2.0},
    )  # fmt: skip
    draw_plan(throughput, PLATFORM, tmp_path / "l.svg")
    words = {n: look(tmp_path / f"{n}.svg").words for n in ("g", "n", "l")}
    assert {"a", "b", "a > b", "b > a", "x", "y", "z", "w", "t", "u"} <= set(words["g"])
    assert {"a", "b", "x", "y", "z", "w", "Conv", "changes device"} <= set(words["n"])
    assert {"a", "a-b", "8", "2"} <= set(words["l"])
    for name in ("g", "n", "l"):
        look(tmp_path / f"{name}.svg").judge()
    for ending in ("png", "pdf"):
        draw_plan(plan_with(), PLATFORM, tmp_path / f"g.{ending}")
        draw_plan(plan_with(), PLATFORM, tmp_path / f"h.{ending}")
        same = [(tmp_path / f"{n}.{ending}").read_bytes() for n in "gh"]
        assert same[0] == same[1]
        assert same[0][:4] in (b"\x89PNG", b"%PDF")
    with pytest.raises(InputError, match="cannot draw"):
        draw_plan(plan_with(), PLATFORM, tmp_path / "g.doc")
    with pytest.raises(InputError) as caught:
        draw_plan(plan_with(), PLATFORM, tmp_path / "g.html")
    assert "--report" in caught.value.hint
    with pytest.raises(InputError, match="no plan to draw"):
        draw_plan(Plan("latency", None, 0.0, None, "UNKNOWN", "x"), PLATFORM, tmp_path / "g.svg")


def chain(count: int) -> tuple[TaskGraph, Plan]:
    """A network with skips over three layers, on two devices in turn."""
    tasks = tuple(Task(f"layer_{i:03}", {"a": 1.0, "b": 1.0}, op="Conv") for i in range(count))
    pairs = [(i, i + 1) for i in range(count - 1)] + [(i, i + 3) for i in range(0, count - 3, 4)]
    edges = tuple(Edge(tasks[i].id, tasks[j].id, 8) for i, j in pairs)
    device = ["a" if i // 10 % 2 == 0 else "b" for i in range(count)]
    rows = tuple(
        Assignment(t.id, d, float(i), i + 1.0)
        for i, (t, d) in enumerate(zip(tasks, device, strict=True))
    )
    plan = Plan("latency", float(count), 1.0, None, "FEASIBLE", "x", assignments=rows)
    return TaskGraph(tasks, edges, "chain"), plan


@pytest.mark.parametrize("count", [1, 2, 250, 500])
def test_every_layer_of_a_large_graph_is_labelled(count: int, tmp_path: Path) -> None:
    graph, plan = chain(count)
    draw_graph(graph, plan, PLATFORM, tmp_path / "m.svg")
    seen = look(tmp_path / "m.svg")
    seen.judge()
    boxes = [shape for shape in seen.shapes if shape.title]
    assert len(boxes) == count
    assert not any(a.meets(b) for a, b in combinations(boxes, 2))
    assert {t.id for t in graph.tasks} <= set(seen.words)
    assert seen.words.count("Conv") == count
    assert seen.width < 2.2 * seen.height or count < 10  # of a screen's shape, not a ribbon
    draw_plan(plan, PLATFORM, tmp_path / "g.svg", graph)
    look(tmp_path / "g.svg").judge()


def test_odd_names_and_times_are_drawn(tmp_path: Path) -> None:
    names = ["<b>&\"'", "名前" * 20, "a\x00\x1bb", "", "n" * 300, "e\u0301"]
    tasks = tuple(Task(n, {"a": 0.0}) for n in names)
    rows = tuple(Assignment(n, "a", 0.0, 0.0) for n in names)
    plan = Plan("latency", 0.0, 0.0, 0.0, "OPTIMAL", "x", assignments=rows)
    graph = TaskGraph(tasks, (Edge(names[0], names[1], 0),), "<i>")
    draw_plan(plan, PLATFORM, tmp_path / "g.svg", graph)
    draw_graph(graph, plan, PLATFORM, tmp_path / "n.svg")
    look(tmp_path / "g.svg").judge()
    look(tmp_path / "n.svg").judge()
    text = plan_page(plan, graph, PLATFORM)
    assert "<b>" not in text
    assert "<i>" not in text
    assert "\x00" not in text


def test_times_without_end_leave_the_rest_drawn(tmp_path: Path) -> None:
    rows = (Assignment("x", "a", 0.0, 1.0), Assignment("y", "b", 1.0, math.inf))
    plan = Plan("latency", math.inf, 1.0, None, "FEASIBLE", "x", assignments=rows)
    draw_plan(plan, PLATFORM, tmp_path / "g.svg", GRAPH)
    seen = look(tmp_path / "g.svg")
    seen.judge()
    assert "x" in seen.words
    loads = Plan("throughput", math.inf, 0.0, None, "FEASIBLE", "x", assignments=rows,
                 loads={"a": math.inf, "b": 2.0})  # fmt: skip
    draw_plan(loads, PLATFORM, tmp_path / "l.svg")
    seen = look(tmp_path / "l.svg")
    seen.judge()
    assert {"inf", "2"} <= set(seen.words)


def test_the_page_holds_every_layer_and_needs_nothing_else() -> None:
    graph, plan = chain(250)
    text = plan_page(plan, graph, PLATFORM)
    assert text == plan_page(plan, graph, PLATFORM)
    assert len(text) < 600_000
    # Only the name of the SVG language is an address.
    assert set(re.findall(r"https?://[^\"'<> ]*", text)) == {"http://www.w3.org/2000/svg"}
    for task in graph.tasks:
        # A row, a block in the Gantt chart, a box in the graph.
        assert text.count(f'<tr data-key="{task.id}">') == 1
        rects = re.findall(rf'<rect [^>]*data-key="{task.id}"[^>]*><title>([^<]*)', text)
        assert len(rects) == 2
        assert all("(Conv)" in title for title in rects)
    for edge in graph.edges:
        assert text.count(f'data-key="{edge.src}" data-to="{edge.dst}"') == 1
    for name in ("find", "count", "info", "time", "graph"):
        assert text.count(f'id="{name}"') == 1


def test_replicas_share_the_page() -> None:
    copies = tuple(
        Replica(1, tuple(Assignment(t, d, 0.0, 1.0) for t in "xy"), {}) for d in ("a", "b")
    )
    tasks = (Task("x", {"a": 1.0, "b": 2.0}), Task("y", {"a": 1.0, "b": 2.0}))
    plan = Plan("latency", 4.0, 1.0, 0.75, "FEASIBLE", "by hand", replicas=copies, batch=2)
    text = plan_page(plan, TaskGraph(tasks, ()), PLATFORM)
    assert text.count('<tr data-key="x">') == 2
    assert ">replica</th>" in text
