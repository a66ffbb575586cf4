"""The command line with a machine that is fed commands."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from command_line import run

MATMUL = ("compile", "matmul", "--m", "20", "--n", "9", "--k", "33", "--isa", "gemmini")


@pytest.fixture
def file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> str:
    path = str(tmp_path / "k.npz")
    done = run(capsys, *MATMUL, "--shift", "4", "--clip", "0", "127", "-o", path, "--json")
    assert done.code == 0, done.err
    assert done.document["values_equal"]
    assert done.document["counts"]["FENCE"] == 1
    return path


def test_a_program_is_simulated_checked_and_listed(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert "equal, 180 values" in run(capsys, "simulate", file).out
    assert run(capsys, "check", file, "--json").document == {
        "ok": True, "problems": [], "remarks": [],
    }  # fmt: skip
    lines = run(capsys, "disasm", file).out.splitlines()
    assert lines[-1].split() == [str(len(lines) - 1), "FENCE"]
    records = run(capsys, "disasm", file, "--json").document["commands"]
    names = [r["name"] for r in records]
    # Both tiles of rows by three of terms; each tile of weights is loaded once.
    assert names.count("COMPUTE_PRELOADED") == names.count("COMPUTE_ACCUMULATED") == 3


def test_a_changed_program_is_refused(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    with np.load(file) as arrays:
        content = dict(arrays)
    content["commands"] = content["commands"][1:]
    np.savez(file, **content)
    assert run(capsys, "check", file).code == 5
    assert run(capsys, "simulate", file).code == 5


def test_an_embedding_is_used_again(file: str, capsys: pytest.CaptureFixture[str]) -> None:
    other = ("compile", "matmul", "--m", "40", "--n", "9", "--k", "33", "--isa", "gemmini")
    reused = ("--shift", "4", "--clip", "0", "127", "--reuse", file, "--within", "9", "--json")
    assert run(capsys, *other, *reused).document["values_equal"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ((*MATMUL, "--shift", "4", "--clip", "-90", "101"), "a shift keeps the floor"),
        ((*MATMUL, "--threads", "2"), "--threads has no effect"),
        ((*MATMUL, "-o", "k.c"), ".npz"),
        (("deepbench", "conv000", "--isa", "gemmini", "--memory", "de10"), "--memory"),
    ],
)
def test_what_has_no_effect_or_no_exact_answer_is_refused(
    arguments: tuple[str, ...], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(capsys, *arguments)
    assert done.code in (2, 3)
    assert said in done.err


def test_certify_proves_a_file_and_refuses_a_changed_one(
    file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    done = run(capsys, "certify", file, "--json")
    assert done.code == 0
    assert [p["ok"] for p in done.document["parts"]] == [True] * 5
    with np.load(file) as arrays:
        content = dict(arrays)
    # One tile is not copied out.
    content["commands"] = np.delete(content["commands"], -2, axis=0)
    np.savez(file, **content)
    done = run(capsys, "certify", file)
    assert done.code == 5
    assert "never stored" in done.out


def test_a_layer_is_swept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    layers, out = tmp_path / "my.json", tmp_path / "r.jsonl"
    layers.write_text(json.dumps({"layers": [
        {"id": "small", "op": "matmul", "m": 20, "n": 9, "k": 33, "shift": 4, "clip": [0, 127]},
    ]}))  # fmt: skip
    done = run(capsys, "deepbench", layers, "--isa", "gemmini", "--certify", "--out", out)
    assert done.code == 0, done.err
    record = json.loads(out.read_text())
    assert (record["verified"], record["certified"]) == ("interpreted", True)
    # Two by one by three tiles of 16 cycles each are the bound's products; bytes move less.
    assert record["steps"] == {"contract": 6}
    assert record["bound_cycles"] <= record["cycles"]
    assert run(capsys, "report", out, "-o", tmp_path / "r.html").code == 0
