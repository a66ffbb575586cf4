"""Sweeps: what is recorded, resumed after an interrupt, and run elsewhere."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from distributed import LocalCluster

from csp_embed.compiler import layers as bench
from csp_embed.compiler.layers import Setting, read_results, sweep
from csp_embed.errors import InputError
from csp_embed.ops import deepbench

RECORDS = [
    {"id": f"layer{n}", "op": "matmul", "m": n, "n": 1, "k": 1, "macs": n} for n in range(1, 5)
]
SMALL = {"id": "small", "op": "matmul", "class": "tiny", "m": 20, "n": 3, "k": 33, "macs": 1980}


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Ids in the order in which they were measured; the measurement itself is a stand-in."""
    seen: list[str] = []

    def measure(record: Mapping[str, Any], setting: Setting) -> dict[str, Any]:
        seen.append(record["id"])
        return {"id": record["id"], "cycles": record["macs"] * 10, "layout": setting.layout}

    monkeypatch.setattr(bench, "measure", measure)
    return seen


def test_a_sweep_writes_as_it_goes(measured: list[str], tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    results = sweep(RECORDS, Setting(), out)
    first = next(results)
    assert first["id"] == "layer4"  # The longest first.
    assert [r["id"] for r in read_results(out)] == ["layer4"]
    results.close()
    assert measured == ["layer4"]


def test_resume_measures_what_is_missing(measured: list[str], tmp_path: Path) -> None:
    """An interrupt between two layers, then another in the middle of a line."""
    out = tmp_path / "r.jsonl"
    results = sweep(RECORDS, Setting(), out)
    next(results)
    next(results)
    results.close()
    with out.open("a") as file:
        file.write('{"id": "layer2", "cyc')
    measured.clear()
    got = list(sweep(RECORDS, Setting(), out, resume=True))
    assert measured == ["layer2", "layer1"]
    assert sorted(r["id"] for r in got) == [r["id"] for r in RECORDS]
    assert all(r["cycles"] == 10 * int(r["id"][-1]) for r in got)
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert sorted(r["id"] for r in lines) == [r["id"] for r in RECORDS]
    measured.clear()
    assert len(list(sweep(RECORDS, Setting(), out, resume=True))) == 4
    assert measured == []


def test_resume_is_by_setting(measured: list[str], tmp_path: Path) -> None:
    """Another layout is another sweep; one file may hold both."""
    out = tmp_path / "r.jsonl"
    list(sweep(RECORDS, Setting(), out))
    measured.clear()
    got = list(sweep(RECORDS, Setting(layout="strict"), out, resume=True))
    assert len(measured) == 4
    assert {r["layout"] for r in got} == {"strict"}
    assert len(read_results(out)) == 8


def test_a_file_is_not_overwritten(measured: list[str], tmp_path: Path) -> None:
    out = tmp_path / "r.jsonl"
    out.write_text("precious\n", encoding="utf-8")
    with pytest.raises(InputError, match="exists"):
        list(sweep(RECORDS, Setting(), out))
    assert out.read_text("utf-8") == "precious\n"
    with pytest.raises(InputError, match="cannot write"):
        list(sweep(RECORDS, Setting(), tmp_path / "nowhere" / "r.jsonl"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("junk\n{}\n", "is no results file"),
        ('{"cycles": 3}\n', "has no id"),
        ('[1]\n{"id": "a"}\n', "is no results file"),
    ],
)
def test_files_that_are_no_results(text: str, message: str, tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InputError, match=message) as refusal:
        read_results(path)
    assert f"{path}:1" in refusal.value.render() or "no id" in refusal.value.render()


def check_record(r: Mapping[str, Any]) -> None:
    """What issue and report ask of a layer's record."""
    assert r["id"] == "small"
    assert r["class"] == "tiny"
    assert r["verified"] == "simulated"
    assert r["problems"] == []
    assert r["macs"] == 20 * 3 * 33
    assert r["cycles"] >= r["macs"] / 256
    assert r["ratio"] == pytest.approx(r["cycles"] / r["bound_cycles"])
    assert r["utilisation"] == pytest.approx(r["steps"]["contract"] / r["cycles"])
    assert r["useful_utilisation"] == pytest.approx(r["macs"] / 256 / r["cycles"])
    assert r["strict_cycles"] >= 1
    assert r["host_seconds"] >= 0
    assert set(r["queues"]) == {"load", "compute", "store"}
    assert r["port_bytes"]["read"] >= r["bytes"]["x"]
    assert json.loads(json.dumps(r, default=float))["id"] == "small"


def test_a_layer_for_real() -> None:
    check_record(bench.measure(SMALL, Setting()))


def test_a_layer_that_fails_is_a_record() -> None:
    got = bench.measure(SMALL, Setting(isa="unknown"))
    assert got["status"] == "failed"
    assert "no instruction set 'unknown'" in got["error"]


def test_dask(tmp_path: Path) -> None:
    """The same sweep on a Dask scheduler."""
    with LocalCluster(n_workers=1, threads_per_worker=1, processes=False,
                      dashboard_address=None) as cluster:  # fmt: skip
        address = cluster.scheduler_address
        (got,) = sweep([SMALL], Setting(), tmp_path / "r.jsonl", dask=address)
    check_record(got)
    (again,) = read_results(tmp_path / "r.jsonl")
    assert again["cycles"] == bench.measure(SMALL, Setting())["cycles"] == got["cycles"]


def test_no_scheduler_there() -> None:
    with pytest.raises(InputError, match="no Dask scheduler"):
        list(sweep([SMALL], Setting(), None, dask="tcp://127.0.0.1:9"))


def test_processes(tmp_path: Path) -> None:
    (got,) = sweep([SMALL], Setting(strict=False), tmp_path / "r.jsonl", jobs=2)
    assert got["verified"] == "simulated"
    assert "strict_cycles" not in got


def test_layer_ids() -> None:
    ids = [r["id"] for r in deepbench.layers("all")]
    assert ids == [f"conv{n:03}" for n in range(103)] + [f"gemm{n:03}" for n in range(84)]
    assert len(set(ids)) == 187
    others = [r["id"] for r in deepbench.layers("networks")]
    assert not set(others) & set(ids)
    assert deepbench.record("gemm008")["id"] == "gemm008"
