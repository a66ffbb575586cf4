"""`csp-embed compile`: its document, its files, and every kind of wrong input."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cases import CONFIGS
from command_line import run

from csp_embed.machine.program_file import read_program

MATMUL = ["compile", "matmul", "--m", "3", "--n", "4", "--k", "5"]
Capture = pytest.CaptureFixture[str]


def test_the_document(capsys: Capture) -> None:
    got = run(capsys, *MATMUL, "--shift", 2, "--bias", "--clip", 0, 127, "--json")
    assert got.code == 0
    assert [n for n in got.err.splitlines() if not n.startswith("csp-embed: compiling")] == []
    d = got.document
    assert {"status", "cycles", "bound_cycles", "utilisation", "seconds", "verified"} <= set(d)
    assert d["status"] == "OPTIMAL"
    assert d["verified"] == "simulated"
    # 3 vectors hold y where rows fill the lanes; the bound counts natural MACs, e = 6 per 16 of y.
    assert d["bound_cycles"] <= d["cycles"]
    # Executed products over peak: steps over cycles. Of them 60 are of the operator.
    assert d["utilisation"] == pytest.approx(d["steps"]["contract"] / d["cycles"])
    assert d["useful_utilisation"] == pytest.approx(60 / (256 * d["cycles"]))
    assert d["lane_utilisation"] == pytest.approx(60 / (256 * d["steps"]["contract"]))
    assert sum(d["instructions"].values()) * 16 == d["bytes"]["instructions"]


def test_clip_below_zero_and_text(capsys: Capture) -> None:
    got = run(capsys, *MATMUL, "--clip", -5, 100, "--explain")
    assert got.code == 0
    assert "max -5; min 100" in got.out
    assert "alternatives that were scheduled" in got.out
    assert "simulated bit-equal to NumPy" in got.out


def test_files(tmp_path: Path, capsys: Capture) -> None:
    program, page = tmp_path / "p.npz", tmp_path / "p.html"
    certificate = tmp_path / "c.json"
    got = run(capsys, *MATMUL, "-o", program, "--report", page, "--certificate", certificate,
              "--json")  # fmt: skip
    assert got.code == 0
    assert sorted(got.document["written"]) == sorted(map(str, (program, page, certificate)))
    stored = read_program(program)
    x, w = stored.tensors["x"].astype(int), stored.tensors["w"].astype(int)
    assert np.array_equal(stored.tensors["y"], (x @ w.T).astype(np.int8))
    text = page.read_text("utf-8")
    assert text.startswith("<!doctype html>")
    assert "FINISH" in text
    assert json.loads(certificate.read_text("utf-8"))["status"] == "optimal"
    assert {p.name for p in tmp_path.iterdir()} == {"p.npz", "p.html", "c.json"}
    assert run(capsys, "check", program).code == 0
    assert run(capsys, "simulate", program).code == 0
    assert "GEMM" in run(capsys, "disasm", program).out


def test_seed_is_data_alone(tmp_path: Path, capsys: Capture) -> None:
    for n in (0, 1):
        run(capsys, *MATMUL, "-o", tmp_path / f"{n}.npz", "--seed", n)
    a, b = (read_program(tmp_path / f"{n}.npz") for n in (0, 1))
    assert np.array_equal(a.insn, b.insn)
    assert not np.array_equal(a.tensors["x"], b.tensors["x"])


@pytest.mark.parametrize(
    ("stage", "word"),
    [
        ("operator", "axes n=4 m=3 k=5"),
        ("dataflow", "points"),
        ("embedding", "o = "),
        ("schedule", "tile"),
        ("program", "FINISH"),
    ],
)
def test_stop_after(stage: str, word: str, capsys: Capture) -> None:
    assert word in run(capsys, *MATMUL, "--stop-after", stage, "--show").out
    document = run(capsys, *MATMUL, "--stop-after", stage, "--json").document
    assert document["artefact"] == stage
    assert word in document["text"]


def test_dot(tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "d.dot"
    assert run(capsys, *MATMUL, "--dot", path, "--stop-after", "dataflow").code == 0
    text = path.read_text("utf-8")
    assert text.startswith("digraph")
    assert text.count("{") == text.count("}")


def refused(capsys: Capture, args: list[Any], code: int, *words: str) -> None:
    """That exit code and those words, in text and in JSON; standard output stays clean."""
    got = run(capsys, *args)
    assert got.code == code, got.err
    assert got.out == ""
    assert "Traceback" not in got.err
    assert got.err.startswith("error[")
    for word in words:
        assert word in got.err
    document = run(capsys, *args, "--json").document
    assert document["what"] in got.err
    assert got.err.startswith(f"error[{document['error']}]")


FORMULA = "y[i,j] += x[i,k] * w[j,k]"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["nothing"], ["unknown operator 'nothing'", "conv2d"]),
        (["conv2d", "--n", 1], ["needs --c, --h", "try: csp-embed compile conv2d"]),
        (["matmul", "--m", 0, "--n", 1, "--k", 1], ["m is 0; it must be positive"]),
        (["matmul", "--m", 1, "--n", -7, "--k", 1], ["n is -7; it must be positive"]),
        (["matmul", "--m", 1, "--n", 1, "--k", 1, "--pad", 1], ["matmul has no --pad"]),
        (["conv2d", "--n", 1, "--c", 1, "--h", 2, "--w", 2, "--k", 1, "--r", 3, "--s", 3],
         ["filter does not fit"]),
        (["y[i] += x[i*j] * w[j]", "--shape", "x=9", "--shape", "w=3"], ["not affine", "^"]),
        (["y[i] += x[i%2] * w[i]", "--shape", "x=9", "--shape", "w=3"], ["^"]),
        ([FORMULA, "--shape", "x=3,4", "--shape", "w=3,5"], ["k is 4", "but 5", "^"]),
        ([FORMULA, "--shape", "x=3,0", "--shape", "w=3,0"], ["is 0; it must be positive"]),
        ([FORMULA, "--shape", "x=3,-4", "--shape", "w=3,4"], ["is -4; it must be positive"]),
        ([FORMULA, "--shape", "x=3,a", "--shape", "w=3,4"], ["--shape x=3,a cannot be read"]),
        ([FORMULA, "--shape", "x=3,4"], ["extent of j"]),
        (["y[i] += 1.5 * w[i]", "--shape", "w=3"], ["floating-point"]),
        (["elementwise", "--step", "relu"], ["needs the shape of x"]),
        (["elementwise", "--shape", "x=4", "--step", "frob 3"], ["unknown step 'frob'"]),
        (["elementwise", "--shape", "x=4", "--step", ""], ["unknown step ''"]),
        (["deepbench:conv999"], ["there is no layer 'conv999'"]),
        (["deepbench:conv003", "--n", 3], ["takes no --n"]),
        (["matmul", "--m", 70000, "--n", 70000, "--k", 70000], ["32 bits", "split the operator"]),
        ([*MATMUL[1:], "--shift", 99], ["shift by 99"]),
        ([*MATMUL[1:], "--clip", 5, 3], ["clip 5..3 is empty"]),
        ([*MATMUL[1:], "--bias", "--bias-before-shift"], ["not both"]),
        ([*MATMUL[1:], "--bias", "--bias-range", -1], ["bias_range is -1"]),
        ([*MATMUL[1:], "--stride", "a"], ["--stride a is no integer"]),
        ([*MATMUL[1:], "--layout", "loose"], ["--layout loose is unknown", "strict"]),
        ([*MATMUL[1:], "--memory", "ddr"], ["'ddr'", "de10, pynq"]),
        ([*MATMUL[1:], "--isa", "x86"], ["no instruction set 'x86'", "toy_dot"]),
        ([*MATMUL[1:], "--isa", "/nowhere.yaml"], ["cannot read /nowhere.yaml"]),
        ([*MATMUL[1:], "--vta-config", "/nowhere.json"], ["cannot read /nowhere.json"]),
        ([*MATMUL[1:], "--top", -1], ["--top -1 is negative"]),
        ([*MATMUL[1:], "--seed", -1], ["a seed is negative"]),
        ([*MATMUL[1:], "--host-weight", "nan"], ["is no weight"]),
        ([*MATMUL[1:], "--show"], ["--show needs --stop-after"]),
        ([*MATMUL[1:], "--stop-after", "lunch"], ["--stop-after lunch is unknown"]),
        ([*MATMUL[1:], "--stop-after", "program", "-o", "x.npz"], ["makes no program"]),
        ([*MATMUL[1:], "-o", "/nowhere/x.npz"], ["cannot write /nowhere/x.npz"]),
        ([*MATMUL[1:], "--report", "/proc/x.html"], ["cannot write /proc/x.html"]),
        ([*MATMUL[1:], "-o", "/"], ["is a folder"]),
    ],
)  # fmt: skip
def test_wrong_arguments(args: list[Any], words: list[str], capsys: Capture) -> None:
    refused(capsys, ["compile", *args], 2, *words)


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ("mul z", ["add, max, min, shr; not mul"]),
        ("mul 3", ["add, max, min, shr; not mul"]),
        ("add 70000", ["needs 70000", "-32768..32767"]),
    ],
)
def test_what_the_machine_cannot_do_is_infeasible(
    step: str, words: list[str], capsys: Capture
) -> None:
    refused(capsys, ["compile", "elementwise", "--shape", "x=4,4", "--step", step], 3, *words)


def arrays(**change: Any) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    good = {
        "x": rng.integers(-128, 128, (4, 5), np.int8),
        "w": rng.integers(-8, 9, (3, 5), np.int8),
        "b": rng.integers(-64, 65, 3, np.int32),
    }
    return {k: v for k, v in {**good, **change}.items() if v is not None}


def test_data(tmp_path: Path, capsys: Capture) -> None:
    """Operands of the file are used; of other arrays in it we say that they are not."""
    path, program = tmp_path / "d.npz", tmp_path / "p.npz"
    np.savez(path, **arrays(more=np.ones(2)))
    got = run(capsys, *MATMUL, "--bias", "--data", path, "-o", program)
    assert got.code == 0
    assert f"note: more of {path} is not used: matmul takes x, w, b" in got.out
    stored = read_program(program)
    for name in "xwb":
        assert np.array_equal(stored.tensors[name], arrays()[name])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"x": None}, ["tensor x is missing", "(4, 5), int8"]),
        ({"w": None}, ["tensor w is missing", "(3, 5), int8"]),
        ({"b": None}, ["tensor b is missing", "(3,), int32"]),
        ({"x": np.zeros((5, 4), np.int8)}, ["x has shape (5, 4)", "declares (4, 5)"]),
        ({"w": np.zeros((5, 3), np.int8)}, ["w has shape (5, 3)", "declares (3, 5)"]),
        ({"b": np.zeros(4, np.int32)}, ["b has shape (4,)", "declares (3,)"]),
        ({"x": np.zeros((4, 5), np.float32)}, ["x is float32", "declares int8"]),
        ({"w": np.zeros((3, 5))}, ["w is float64", "quantise"]),
        ({"b": np.zeros(3)}, ["b is float64", "declares int32"]),
        ({"x": np.full((4, 5), 300)}, ["values outside int8", "300"]),
        ({"b": np.full(3, 1 << 40)}, ["values outside int32"]),
        ({"x": np.array("text")}, ["shape ()"]),
    ],
)
def test_wrong_data(
    change: dict[str, Any], words: list[str], tmp_path: Path, capsys: Capture
) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, **arrays(**change))
    refused(capsys, [*MATMUL, "--bias", "--data", path], 2, *words, str(path))


@pytest.mark.parametrize("kind", ["missing", "folder", "text", "cut", "npy", "objects", "empty"])
def test_files_that_are_no_data(kind: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "d.npz"
    np.savez(path, **arrays())
    whole = path.read_bytes()
    path.unlink()
    if kind == "folder":
        path.mkdir()
    elif kind == "npy":
        with path.open("wb") as file:
            np.save(file, np.zeros(3))
    elif kind == "objects":
        np.savez(path, x=np.array([{}], dtype=object))
    elif kind != "missing":
        path.write_bytes({"text": b"hello", "cut": whole[:300], "empty": b""}[kind])
    refused(capsys, [*MATMUL, "--data", path], 2, str(path), "--data takes a NumPy .npz file")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", ["not JSON"]),
        ("[]", ["JSON object"]),
        ("{}", ["lacks LOG_INP_WIDTH"]),
        ({"LOG_BLOCK": None}, ["lacks LOG_BLOCK"]),
        ({"LOG_BLOCK": "four"}, ["LOG_BLOCK"]),
        ({"LOG_UOP_BUFF_SIZE": 18}, ["configuration c is illegal", "u <= 13"]),
        ({"LOG_ACC_BUFF_SIZE": 22}, ["configuration c is illegal", "<= 32"]),
    ],
)
def test_wrong_vta_config(text: Any, words: list[str], tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "c.json"
    if isinstance(text, dict):
        good = json.loads((CONFIGS / "1x16x16.json").read_text("utf-8"))
        text = json.dumps({k: v for k, v in {**good, **text}.items() if v is not None})
    path.write_text(text, encoding="utf-8")
    refused(capsys, [*MATMUL, "--vta-config", path], 2, *words)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [", ["y.yaml:"]),
        ("- 1", ["y.yaml"]),
        ("", ["y.yaml"]),
    ],
)
def test_wrong_spec(text: str, words: list[str], tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "y.yaml"
    path.write_text(text, encoding="utf-8")
    refused(capsys, [*MATMUL, "--isa", path], 2, *words)


@pytest.mark.parametrize("command", ["simulate", "check", "disasm"])
@pytest.mark.parametrize("kind", ["cut", "foreign", "text", "missing"])
def test_wrong_program_files(command: str, kind: str, tmp_path: Path, capsys: Capture) -> None:
    path = tmp_path / "p.npz"
    assert run(capsys, *MATMUL, "-o", path).code == 0
    whole = path.read_bytes()
    path.unlink()
    if kind == "foreign":
        np.savez(path, **arrays())
    elif kind != "missing":
        path.write_bytes(whole[: len(whole) // 2] if kind == "cut" else b"hello")
    refused(capsys, [command, path], 2, str(path))


def test_nothing_is_left_when_the_run_fails(tmp_path: Path, capsys: Capture) -> None:
    """The program's path is good, the data is not: no file appears."""
    data = tmp_path / "d.npz"
    np.savez(data, **arrays(x=None))
    out = tmp_path / "p.npz"
    assert run(capsys, *MATMUL, "--data", data, "-o", out, "--report", tmp_path / "r").code == 2
    assert [p.name for p in tmp_path.iterdir()] == ["d.npz"]
