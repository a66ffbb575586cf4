"""`csp-embed build` on a small network: values on the simulated machine, report, refusals."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest
from command_line import run
from one_operator import Model
from shift_layers import Net

import csp_embed as ce
from csp_embed.compiler.whole import partition
from csp_embed.machine.program_file import isa_of, read_program
from csp_embed.network.quantised.read import read_quantised
from csp_embed.sim.functional import run as functional


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A convolution with Relu, a depthwise one, one of both signs, a mean, a dense layer."""
    net = Net.begin(1, (1, 8, 6, 5)).conv(16, 3, [7, 8], stride=2)
    net = net.conv(16, 3, 6, depthwise=True).conv(20, 1, [7, 6], relu=False, zero=-9)
    path = tmp_path_factory.mktemp("build") / "small.tflite"
    path.write_bytes(net.pool().dense(4, 9).content())
    return path


def test_every_element_and_the_report(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = run(capsys, "build", model, "--samples", 2, "--seed", 3, "--json")
    assert got.code == 0, got.err
    d = got.document
    assert (d["status"], d["differences"], d["profile"]) == ("equal", 0, "tflm")
    assert (d["segments"], d["one_program"]) == (1, True)
    layers = d["layers"]
    places = [*["accelerator"] * 4, "none", "accelerator"]  # the mean, too; a reshape
    assert [layer["where"] for layer in layers] == places
    # Outputs 4 x 3 x 16, twice; 4 x 3 x 20; 20; 4; filters of 45, 9, 16 and 20 products.
    assert [layer["macs"] for layer in layers if layer["macs"]] == [8640, 1728, 3840, 80]
    assert d["macs_on_accelerator"] == d["macs"] == 14288
    assert d["elements"] == 2 * (192 + 192 + 240 + 20 + 4)
    on = [layer for layer in layers if layer["where"] == "accelerator"]
    # One after the other, in one program.
    assert [layer["begin"] for layer in on] == [0, *(layer["end"] for layer in on[:-1])]
    assert d["cycles"] == on[-1]["end"]
    assert all(layer["bound_cycles"] > 0 for layer in on)
    recipes = [layer["recipe"] for layer in on]
    assert recipes == ["shift", "shift", "sign", "digits", "sign"]
    assert d["layout_status"] == d["memory_status"] == ["OPTIMAL"]
    assert d["activation_bytes"] == d["activation_bound_bytes"] < d["dram_bytes"]


def test_the_same_seed_gives_the_same_report(
    model: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = (run(capsys, "build", model, "--json").document for _ in range(2))
    for d in (first, second):
        del d["seconds"]
    assert first == second


def test_given_inputs_and_the_table(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in.npz"
    np.savez(file, x=np.zeros((3, 8, 6, 5), np.int8))
    got = run(capsys, "build", model, "--inputs", file)
    assert got.code == 0
    assert "3 inputs" in got.out
    assert "in one program of" in got.out
    assert "0 of 1,944 elements differ" in got.out


def test_the_program_file_is_judged_by_the_other_commands(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.npz"
    got = run(capsys, "build", model, "-o", file)
    assert got.code == 0, got.err
    assert f"wrote {file}" in got.out
    checked = run(capsys, "check", file)
    assert checked.code == 0, checked.out
    assert "it stores what the file expects" in checked.out
    ran = run(capsys, "simulate", file, "--engine", "both", "--strict", "--json")
    assert ran.code == 0, ran.err
    assert ran.document["values_equal"] is True
    # Dense and mean of the last layers are outputs; every tensor that keeps its bytes is expected.
    program = read_program(file)
    names = {t["name"] for t in program.meta["tensors"].values()}
    graph = read_quantised(model, {})
    assert {*graph.inputs, *graph.outputs} <= names
    again = tmp_path / "again.npz"
    run(capsys, "build", model, "-o", again)
    assert again.read_bytes() == file.read_bytes()


def test_tensors_lie_where_the_file_says(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A stranger finds each element by the addresses in `meta`."""
    file = tmp_path / "net.npz"
    run(capsys, "build", model, "-o", file)
    program = read_program(file)
    ran = functional.run(isa_of(program), program)
    found = 0
    for key, t in program.meta["tensors"].items():
        if "addr" not in t:
            continue
        at = np.full([1] * len(t["shape"]), t["addr"])
        for digit in t["digits"]:
            shape = [-1 if a == digit["axis"] else 1 for a in range(len(t["shape"]))]
            at = at + np.array(digit["offset_bytes"]).reshape(shape)
        low, high = int(at.min()), int(at.max())
        stored = ran.dram(low, high - low + 1).view(np.int8)[at - low]
        assert np.array_equal(stored, program.tensors[key]), t["name"]
        found += 1
    assert found >= 3


def test_a_wrong_constant_is_found(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """One step of one channel's bias: exit code 5, the layer is named, no file is left."""
    honest = partition.lower

    def wrong(graph: Any, op: Any) -> Any:
        made = honest(graph, op)
        if isinstance(made, str) or op is not graph.operators[0]:
            return made
        b = made.constants[0]["b"].copy()
        b[3] += 256
        return replace(made, constants=({**made.constants[0], "b": b},))

    monkeypatch.setattr(partition, "lower", wrong)
    file = tmp_path / "net.npz"
    got = run(capsys, "build", model, "-o", file, "--json")
    assert got.code == 5
    assert got.document["status"] == "unequal"
    layer = got.document["layers"][0]
    assert layer["differences"] > 0
    assert not layer["exact"]
    assert not file.exists()


def test_the_report_shows_layers_timeline_and_memory(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "net.html"
    got = run(capsys, "build", model, "--report", file, "--json")
    assert got.code == 0, got.err
    text = file.read_text()
    for layer in got.document["layers"]:
        assert f'<td data-head="layer">{layer["name"]}</td>' in text
        if layer["cycles"]:
            assert f"{layer['name']}: {layer['cycles']:,} cycles" in text  # in the timeline
    for title in ("Farthest from their bound", "Timeline", "Memory over time"):
        assert f"<h2>{title}</h2>" in text
    worst = text[text.index("Farthest from their bound") : text.index("<h2>Timeline")]
    on = [la for la in got.document["layers"] if la["cycles"]]
    # The most lost cycles first, each with what every queue does meanwhile.
    on.sort(key=lambda la: la["bound_cycles"] - la["cycles"])
    found = re.findall(r'<td data-head="layer">(.*?)</td>', worst)
    assert found == [la["name"] for la in on]
    assert worst.count("compute works") == worst.count("store works") == len(on)
    # Bars of the queues' work lie in the picture, and compute works most of the time.
    pictures = ElementTree.fromstring(f"<x>{''.join(re.findall('<svg.*?</svg>', text, re.S))}</x>")
    boxes = [r for r in pictures.iter() if r.tag.endswith("rect")]
    assert len(boxes) > 40
    assert all(float(r.get("width", "0")) >= 0 and float(r.get("y", "0")) >= -1 for r in boxes)


def test_explain(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = read_quantised(model, {})
    signed = run(capsys, "build", model, "--explain", graph.operators[2].name)
    assert signed.code == 0
    assert "sign: equal for every sum that can occur" in signed.out
    assert "after round 1" in signed.out
    assert "not taken: shift: 20 of 20 channels have none" in signed.out
    # What was weighed has prices, one of them chosen; places are those of the whole program.
    assert len(re.findall(r"^ +\*? +[\d,]+ cycles  o = ", signed.out, re.M)) >= 1
    assert len(re.findall(r"^ +\* +[\d,]+ cycles  ", signed.out, re.M)) == 1
    cycles = next(la.cycles for la in ce.build(model).layers if la.name == graph.operators[2].name)
    assert f": {cycles:,}; bound of its plain form" in signed.out
    assert "what would make it cheaper: scales whose ratio is a power of two" in signed.out
    other = run(capsys, "build", model, "--explain", "nobody")
    assert other.code == 2
    assert graph.operators[0].name in other.err
    # A name nearly right is met by its like first.
    near = run(capsys, "build", model, "--explain", graph.operators[2].name[:-1] + "x")
    assert near.code == 2
    assert f"--explain '{graph.operators[2].name}'" in near.err


def test_show(model: Path, capsys: pytest.CaptureFixture[str]) -> None:
    got = run(capsys, "build", model, "--show")
    assert got.code == 0
    assert "small: profile tflm, 6 operators" in got.out
    assert "Conv(x) -> y" in got.out
    assert "AveragePool" in got.out


@pytest.mark.parametrize(
    ("options", "what"),
    [
        (["--samples", 0], "--samples 0"),
        (["--seed", -1], "--seed -1"),
        (["--dim", "n=0"], "--dim n=0"),
        (["--dim", "n=1"], "no effect on a TFLite model"),
        (["--inputs", "none.npz"], "cannot read none.npz"),
        (["--inputs", "none.npz", "--seed", 1], "--seed has no effect"),
        (["--show", "--json"], "--json has no effect"),
    ],
)
def test_refused_options(
    model: Path, options: list[Any], what: str, capsys: pytest.CaptureFixture[str]
) -> None:
    got = run(capsys, "build", model, *options)
    assert got.code == 2
    assert what in got.err
    assert "try:" in got.err


def test_inputs_of_another_form(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "in.npz"
    np.savez(file, x=np.zeros((3, 8, 6, 5), np.float32))
    got = run(capsys, "build", model, "--inputs", file)
    assert got.code == 2
    assert "float32" in got.err
    assert "'x': int8 [1, 8, 6, 5]" in got.err


def test_missing_files_and_other_formats(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for path, content in (("none.tflite", None), ("a.onnx", b"PK\x03\x04"), ("b.bin", b"")):
        if content is not None:
            (tmp_path / path).write_bytes(content)
        got = run(capsys, "build", tmp_path / path)
        assert got.code == 2
        assert path in got.err
    assert run(capsys, "build", tmp_path).code == 2


def test_an_onnx_network_is_read_and_its_layers_named(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Halves to even are exact on the machine."""
    m = Model()
    x = m.input("x", "int8", (1, 4))
    w = m.constant(np.arange(-8, 8, dtype=np.int8).reshape(4, 4))
    names = [x, *m.scale(0.5, 0), w, *m.scale(0.25, 0), *m.scale(1.0, 0)]
    path = m.save(tmp_path / "m.onnx", m.node("QLinearMatMul", names, "y"))
    got = run(capsys, "build", path, "--samples", 20, "--json")
    assert got.code == 0, got.err
    assert (got.document["macs_on_accelerator"], got.document["status"]) == (16, "equal")
    assert got.document["layers"][0]["recipe"] == "even"


def test_nothing_on_the_machine(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = Model()
    x = m.real(m.input("x", "int8", (1, 4)), 0.1, 3)
    y = m.quantise(m.node("Softmax", [x], "y"), 1 / 256, -128)
    path = m.save(tmp_path / "m.onnx", y)
    got = run(capsys, "build", path, "--json")
    assert got.code == 0, got.err
    assert got.document["status"] == "host"
    assert "Softmax in floating point" in got.document["layers"][0]["why"]
    said = run(capsys, "build", path)
    assert "nothing was compared" in said.out
    refused = run(capsys, "build", path, "-o", tmp_path / "m.npz")
    assert refused.code == 2
    assert "the host computes every layer" in refused.err
