"""`csp-embed deepbench my.json`: a user's own layers in sweeps and reports."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from command_line import run

from csp_embed.ops import deepbench
from csp_embed.ops.layer_list import read_layer_list

Capture = pytest.CaptureFixture[str]
L0 = {"id": "l0", "op": "conv2d", "n": 1, "c": 16, "h": 8, "w": 8, "k": 16, "r": 3, "s": 3,
      "pad": 1}  # fmt: skip
MORE = [
    L0,
    {"id": "up", "op": "conv_transpose2d", "n": 1, "c": 4, "h": 3, "w": 3, "k": 4, "r": 2, "s": 2,
     "stride": 2, "groups": 4, "class": "upsampling"},
    {"id": "pool", "op": "max_pool2d", "n": 1, "c": 8, "h": 6, "w": 6, "r": 2, "s": 2, "count": 3},
    {"id": "fc", "op": "dense", "n": 2, "c": 30, "k": 20, "shift": 4, "clip": [-8, 8]},
]  # fmt: skip


def write(path: Path, document: Any) -> Path:
    path.write_text(json.dumps(document), encoding="utf-8")
    return path


def test_sweep_resume_and_report(tmp_path: Path, capsys: Capture) -> None:
    mine, out = write(tmp_path / "my.json", MORE), tmp_path / "o.jsonl"
    sweep = ["deepbench", mine, "--no-strict", "--out", out]
    got = run(capsys, *sweep, "--json")
    assert got.code == 0, got.err
    assert {r["id"]: r["verified"] for r in got.document} == {
        layer["id"]: "simulated" for layer in MORE
    }
    by_id = {r["id"]: r for r in got.document}
    assert by_id["up"]["class"] == "upsampling"
    assert by_id["l0"]["macs"] == 8 * 8 * 16 * 16 * 9
    page = tmp_path / "o.html"
    assert run(capsys, "report", out, "-o", page).code == 0
    assert all(f">{layer['id']}<" in page.read_text("utf-8") for layer in MORE)
    # The same id with another shape is another layer: it is measured, not taken from the file.
    write(mine, [{**L0, "h": 6}, *MORE[1:]])
    assert run(capsys, *sweep, "--resume").code == 0
    lines = [json.loads(line) for line in out.read_text("utf-8").splitlines()]
    assert [r["layer"]["h"] for r in lines if r["id"] == "l0"] == [8, 6]
    assert len(lines) == len(MORE) + 1


def test_the_shipped_lists_are_in_the_format() -> None:
    for name in deepbench.FILES:
        path = Path(str(deepbench.folder() / name))
        assert [r["id"] for r in read_layer_list(path)] == [r["id"] for r in deepbench.load(name)]


def test_an_epilogue_of_its_own(tmp_path: Path) -> None:
    (entry,) = read_layer_list(write(tmp_path / "a.json", {"layers": [MORE[3]]}))
    assert deepbench.build(entry).text().endswith("shr 4; max -8; min 8")


@pytest.mark.parametrize(
    ("document", "message", "where"),
    [
        ([], "holds no layers", "my.json"),
        ({"layer": [L0]}, "holds no layers", "my.json"),
        ("text", "holds no layers", "my.json"),
        ([L0, 3], "a layer is a JSON object", "entry 1"),
        ([{"op": "matmul"}], "has no id", "entry 0"),
        ([{"id": 7, "op": "matmul"}], "has no id", "entry 0"),
        ([{"id": "a"}], "has no op", "entry 0"),
        ([{"id": "a", "op": "conv4d"}], "unknown operator 'conv4d'", "entry 0, 'a'"),
        ([L0, L0], "the id 'l0' stands twice", "entries 0 and 1"),
        ([L0, {**L0, "id": "b", "strid": 2}], "conv2d has no 'strid'", "entry 1, 'b'"),
        ([{"id": "a", "op": "matmul", "m": 3}], "matmul needs n, k", "entry 0, 'a'"),
        ([{**L0, "h": 0}], "h is 0", "entry 0, 'l0'"),
        ([{**L0, "h": 2.5}], "h is 2.5", "entry 0, 'l0'"),
        ([{**L0, "pad": "upper"}], "pad", "entry 0, 'l0'"),
        ([{**L0, "r": 99}], "the filter does not fit", "entry 0, 'l0'"),
        ([{**L0, "count": 0}], "count is 0", "entry 0, 'l0'"),
    ],
)
def test_wrong_lists(
    document: Any, message: str, where: str, tmp_path: Path, capsys: Capture
) -> None:
    got = run(capsys, "deepbench", write(tmp_path / "my.json", document), "--json")
    assert got.code == 2
    assert message in got.document["what"]
    assert where in got.document["where"]
    assert got.document["where"].startswith(str(tmp_path))


def test_files_that_are_no_lists(tmp_path: Path, capsys: Capture) -> None:
    assert "cannot read" in run(capsys, "deepbench", tmp_path / "none.json").err
    (tmp_path / "cut.json").write_text('[{"id": "a",\n "op"', encoding="utf-8")
    got = run(capsys, "deepbench", tmp_path / "cut.json")
    assert (got.code, "cut.json:2" in got.err) == (2, True)
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe\x00")
    assert run(capsys, "deepbench", tmp_path / "bytes.json").code == 2
    assert run(capsys, "deepbench", tmp_path / "folder.json").code == 2
