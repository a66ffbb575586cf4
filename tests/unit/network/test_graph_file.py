"""Graph files: what is read, and one clear error for each kind of mistake."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from csp_embed.errors import InputError
from csp_embed.network.files.graph import graph_document, read_graph

DEVICES = {"devices": [{"name": "a", "kind": "cpu"}, {"name": "b", "kind": "gpu"}]}


def document(**changes: Any) -> dict[str, Any]:
    return {
        "format": "csp-embed-graph/1",
        "tasks": [{"id": "x", "cost": {"a": 1.5}}, {"id": "y", "cost": {"gpu": 2}}],
        "edges": [{"src": "x", "dst": "y", "bytes": 100, "tensor": "t"}],
        "platform": DEVICES,
    } | changes


def write(path: Path, value: Any) -> Path:
    path.write_text(json.dumps(value))
    return path


def test_reads_what_it_writes(tmp_path: Path) -> None:
    tasks = [
        {"id": "x", "cost": {"a": 1.5}, "cost_by_batch": {"a": {"1": 1.5, "8": 9}}, "pin": "a"},
        {"id": "y", "cost": {"gpu": 2}, "weight_bytes": 7, "activation_bytes": 9, "colocate": "g"},
    ]
    graph, platform = read_graph(write(tmp_path / "g.json", document(tasks=tasks)))
    assert graph.by_id()["x"].cost_by_batch == {"a": {1: 1.5, 8: 9.0}}
    assert platform is not None
    again, there = read_graph(write(tmp_path / "h.json", graph_document(graph, platform)))
    assert (again.tasks, again.edges) == (graph.tasks, graph.edges)
    assert there is not None
    assert there.devices == platform.devices


def test_time_units_become_ms(tmp_path: Path) -> None:
    graph, _ = read_graph(write(tmp_path / "g.json", document(time_unit="us")))
    assert graph.by_id()["x"].cost["a"] == pytest.approx(0.0015)


def test_yaml_and_platform_file(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text(
        "devices: [{name: a, kind: cpu, memory_bytes: 16e9}, {name: b, kind: gpu}]\n"
        "links: [{between: [a, b], bytes_per_ms: 1.2e7}]\n"
    )
    (tmp_path / "g.yaml").write_text(
        "format: csp-embed-graph/1\nplatform: p.yaml\ntasks: [{id: x, cost: {a: 1}}]\nedges: []\n"
    )
    _, platform = read_graph(tmp_path / "g.yaml")
    assert platform is not None
    assert platform.devices[0].memory_bytes == 16e9  # YAML 1.1 reads 16e9 as text
    assert platform.links[0].bytes_per_ms == 1.2e7


def test_numbers_may_be_names(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text(
        "format: csp-embed-graph/1\ntasks: [{id: 1, cost: {a: 1}}, {id: 2, cost: {a: 1}}]\n"
        "edges: [{src: 1, dst: 2, bytes: 4}]\n"
    )
    graph, _ = read_graph(path)
    assert [t.id for t in graph.tasks] == ["1", "2"]


def task(**keys: Any) -> list[dict[str, Any]]:
    return [{"id": "x", "cost": {"a": 1}} | keys]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "other/1"}, "not a csp-embed-graph/1 file"),
        ({"colour": 1}, "unknown key 'colour'"),
        ({"tasks": task(size=3)}, "unknown key 'size'"),
        ({"tasks": [{"id": "x"}], "edges": []}, "the key 'cost' is missing"),
        ({"tasks": task(cost={}), "edges": []}, "has no cost"),
        ({"tasks": task(cost={"a": -1}), "edges": []}, "-1"),
        ({"tasks": task(cost={"a": True}), "edges": []}, "a is true or false"),
        ({"tasks": task(weight_bytes=True), "edges": []}, "a number is expected"),
        ({"tasks": task(cost={"a": "soon"}), "edges": []}, "valid number"),
        ({"tasks": task(cost={"a": "3"}), "edges": []}, "a is the text '3'"),
        ({"tasks": task(cost_by_batch={"a": {"2": "3"}}), "edges": []}, "2 is the text '3'"),
        ({"tasks": task(weight_bytes=-5), "edges": []}, "greater than or equal to 0"),
        ({"tasks": task() * 2, "edges": []}, "twice"),
        ({"tasks": [], "edges": []}, "no task"),
        ({"edges": [{"src": "x", "dst": "z", "bytes": 1}]}, "no task 'z'"),
        ({"edges": [{"src": "x", "dst": "y"}]}, "the key 'bytes' is missing"),
        (
            {
                "edges": [
                    {"src": "x", "dst": "y", "bytes": 1},
                    {"src": "y", "dst": "x", "bytes": 1},
                ]
            },
            "cycle",
        ),
        ({"time_unit": "days"}, "time_unit"),
        ({"tasks": task(cost_by_batch={"a": {"0": 1}}), "edges": []}, "greater than 0"),
        ({"tasks": task(cost={"a": None}), "edges": []}, "valid number"),
        ({"tasks": task(weight_bytes=1, memory_bytes=1), "edges": []}, "both weight_bytes"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "g.json", document(**changes))
    with pytest.raises(InputError) as caught:
        read_graph(path)
    assert message in caught.value.render()
    assert "g.json" in caught.value.where


def test_the_line_of_the_mistake(tmp_path: Path) -> None:
    path = tmp_path / "g.yaml"
    path.write_text("format: csp-embed-graph/1\ntasks:\n- id: x\n  cost: {a: 1}\n  speed: 3\n")
    with pytest.raises(InputError) as caught:
        read_graph(path)
    assert "g.yaml:5" in caught.value.where
    assert "tasks[0].speed" in caught.value.where


def test_broken_text_and_repeated_keys(tmp_path: Path) -> None:
    for name, text, reason in (
        ("a.json", '{"format": ', "not valid JSON"),
        ("b.json", '{"format": 1, "format": 2}', "twice"),
        ("c.yaml", "a: [1\nb: 2\n", "not valid YAML"),
        ("d.yaml", "a: 1\na: 2\n", "twice"),
        ("e.yaml", "- 1\n", "expected a mapping"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(InputError) as caught:
            read_graph(tmp_path / name)
        assert reason in caught.value.render()
    with pytest.raises(InputError, match="cannot read"):
        read_graph(tmp_path / "missing.json")


@pytest.mark.parametrize(
    ("text", "costs"), [("1e3", 1000.0), ("2.5E-1", 0.25), ("'1e3'", None), ('"3"', None)]
)
def test_numbers_without_a_point_are_numbers_and_texts_are_none(
    tmp_path: Path, text: str, costs: float | None
) -> None:
    """`1e3` is a text to YAML 1.1; what has quotes was meant as one."""
    path = tmp_path / "g.yaml"
    path.write_text(
        f"format: csp-embed-graph/1\ntasks:\n- id: 1e3\n  cost:\n    a: {text}\nedges: []\n"
    )
    if costs is None:
        with pytest.raises(InputError, match="a is the text") as caught:
            read_graph(path)
        assert "tasks[0].cost" in caught.value.where
        return
    (only,) = read_graph(path)[0].tasks
    assert (only.id, only.cost) == ("1e3", {"a": costs})
