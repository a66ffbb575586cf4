"""`csp-embed deepbench` and `csp-embed report`."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from command_line import run

from csp_embed.compiler import layers as bench

Capture = pytest.CaptureFixture[str]


class Page(HTMLParser):
    """Balanced tags, rows of the sortable table, links to elsewhere."""

    VOID = ("meta", "br", "link")

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.rows, self.charts, self.links = 0, 0, []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.rows += tag == "tr"
        self.charts += tag == "svg"
        self.links += [v for k, v in attrs if k in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """<line … />: opened and closed."""


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Layers are replaced by one that takes a moment; ids, classes and references stay."""
    whole = bench.measure

    def measure(record: Any, setting: Any) -> dict[str, Any]:
        small = {"op": "matmul", "m": 16, "n": 2, "k": 16, "macs": 512}
        kept = {k: record[k] for k in ("id", "class", "reference", "count") if k in record}
        return whole(small | kept, setting)

    monkeypatch.setattr(bench, "measure", measure)


def test_sweep_and_page(tmp_path: Path, capsys: Capture, quick: None) -> None:
    out, page = tmp_path / "r.jsonl", tmp_path / "r.html"
    got = run(capsys, "deepbench", "gemm000,gemm001,conv000", "--out", out)
    assert got.code == 0
    assert "gemm001" in got.out
    assert len(out.read_text("utf-8").splitlines()) == 3
    assert run(capsys, "deepbench", "gemm000", "--out", out).code == 2
    assert run(capsys, "deepbench", "gemm000,gemm002", "--out", out, "--resume").code == 0
    assert len(out.read_text("utf-8").splitlines()) == 4
    assert run(capsys, "report", out, "-o", page).code == 0
    text = page.read_text("utf-8")
    parsed = Page(text)
    assert parsed.links == []  # Self-contained.
    assert parsed.rows >= 1 + 4
    assert parsed.charts >= 2 + 4  # Roofline, speed-up, a bar per layer.
    for word in ("gemm002", "conv000", "Roofline", "Speed-up", "By class", "Compute cycles"):
        assert word in text


def test_machines_are_compared(tmp_path: Path, capsys: Capture, quick: None) -> None:
    files = []
    for layout in ("1x16x16", "1x8x8"):
        files.append(tmp_path / f"{layout}.jsonl")
        config = Path(__file__).parents[2] / "data" / "configs" / f"{layout}.json"
        args = ["deepbench", "gemm000", "--out", files[-1], "--vta-config", config, "--no-strict"]
        assert run(capsys, *args).code == 0
    page = tmp_path / "both.html"
    assert run(capsys, "report", *files, "-o", page).code == 0
    text = page.read_text("utf-8")
    Page(text)
    assert "Machines compared" in text
    assert re.search(r"1x8x8", text)


def test_json_is_one_document(capsys: Capture, quick: None) -> None:
    got = run(capsys, "deepbench", "gemm000,gemm000", "--json")
    assert got.code == 0
    (record,) = got.document
    assert record["id"] == "gemm000"
    assert record["verified"] == "simulated"


def test_a_layer_that_fails_ends_in_5(capsys: Capture, monkeypatch: pytest.MonkeyPatch) -> None:
    def measure(record: Any, setting: Any) -> dict[str, Any]:
        failed = {"status": "failed", "error": "does not fit", "why": "", "wall_seconds": 0.0}
        return {"id": record["id"], "class": "c", **failed}

    monkeypatch.setattr(bench, "measure", measure)
    got = run(capsys, "deepbench", "gemm000,gemm001", "--json")
    assert got.code == 5
    assert len(got.document) == 2
    assert "2 of 2 layers failed: gemm000, gemm001" in got.err
    assert run(capsys, "deepbench", "gemm000").code == 5


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["conv9999"], "there is no layer 'conv9999'"),
        ([""], "no layer is selected"),
        ([","], "no layer is selected"),
        (["gemm000", "--jobs", 0], "--jobs 0 runs nothing"),
        (["gemm000", "--layout", "loose"], "--layout loose is unknown"),
        (["gemm000", "--memory", "ddr"], "memory interface 'ddr'"),
        (["gemm000", "--isa", "x86"], "no instruction set 'x86'"),
        (["gemm000", "--vta-config", "/nowhere.json"], "cannot read /nowhere.json"),
    ],
)
def test_wrong_arguments(args: list[Any], message: str, capsys: Capture) -> None:
    """Refused before any layer is compiled."""
    got = run(capsys, "deepbench", *args)
    assert got.code == 2
    assert got.out == ""
    assert message in got.err


def test_wrong_results(tmp_path: Path, capsys: Capture) -> None:
    page = tmp_path / "p.html"
    assert "cannot read" in run(capsys, "report", tmp_path / "none", "-o", page).err
    empty = tmp_path / "empty.jsonl"
    empty.write_text("", encoding="utf-8")
    assert "empty" in run(capsys, "report", empty, "-o", page).err
    good = tmp_path / "good.jsonl"
    good.write_text(json.dumps({"id": "a"}) + "\n", encoding="utf-8")
    assert run(capsys, "report", good, "-o", tmp_path / "no" / "p.html").code == 2
    assert not page.exists()


def test_results_of_another_sweep_are_refused(tmp_path: Path, capsys: Capture) -> None:
    # What `partition sweep --out` writes: records with ids, of platforms rather than layers.
    (tmp_path / "p.jsonl").write_text('{"id": "cpu_2gpu", "value": 3.0, "status": "OPTIMAL"}\n')
    got = run(capsys, "report", tmp_path / "p.jsonl", "-o", tmp_path / "r.html")
    assert got.code == 2
    assert "cpu_2gpu" in got.err
    assert not (tmp_path / "r.html").exists()


def test_tables_keep_numbers_whole_at_80_columns(
    capsys: Capture, quick: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    got = run(capsys, "deepbench", "gemm000,gemm001,conv000")
    assert got.code == 0
    assert all(len(line) <= 80 for line in got.out.splitlines())
    assert "…" not in got.out
    whole = run(capsys, "deepbench", "gemm000,gemm001,conv000", "--json").document
    words = got.out.split()
    for row in whole:
        assert f"{row['cycles']:,}" in words
        assert f"{row['ratio']:.4f}" in words
    for head in ("machine", "cycles/bound", "simulated", "strict"):
        assert head in words
