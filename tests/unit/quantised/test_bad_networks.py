"""`csp-embed build` on what cannot be built: each refusal says where, why and what to try."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from command_line import run
from one_operator import Model
from onnx import helper
from shift_layers import Net

import csp_embed as ce
from tests.oracles.tflite_writer import Written


def test_damaged_tflite_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Cut anywhere, or with a byte changed: refused by name, or still the same network."""
    whole = Net.begin(1, (1, 4, 4, 3)).conv(6, 3, 7).content()
    path = tmp_path / "cut.tflite"
    for part in (0, 4, 9, 40, len(whole) // 3, len(whole) // 2, len(whole) - 300):
        path.write_bytes(whole[:part])
        got = run(capsys, "build", path, "--show")
        assert (got.code, "cut.tflite" in got.err) == (2, True), (part, got.err)
    rng = np.random.default_rng(0)
    for at in rng.integers(4, len(whole), 60):
        broken = bytearray(whole)
        broken[at] ^= 0xFF
        path.write_bytes(bytes(broken))
        got = run(capsys, "build", path, "--show")
        assert got.code in (0, 2), (at, got.err)


def test_damaged_onnx_files(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    m = Model()
    x = m.input("x", "int8", (1, 4))
    w = m.constant(np.ones((4, 3), np.int8))
    names = [x, *m.scale(0.5, 0), w, *m.scale(0.25, 0), *m.scale(1.0, 0)]
    whole = m.save(tmp_path / "m.onnx", m.node("QLinearMatMul", names, "y")).read_bytes()
    path = tmp_path / "cut.onnx"
    for part in (0, 3, 30, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:part])
        got = run(capsys, "build", path, "--show")
        assert (got.code, "cut.onnx" in got.err) == (2, True), (part, got.err)


def test_a_float_tflite_model_is_told_how_to_become_integer(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = Written()
    x = file.tensor("x", (1, 4), "float32")
    y = file.tensor("y", (1, 4), "float32")
    w = file.constant("w", np.ones((4, 4), np.float32))
    file.operator("FULLY_CONNECTED", [x, w, -1], y, "FullyConnectedOptions")
    path = tmp_path / "float.tflite"
    path.write_bytes(file.content([x], [y]))
    got = run(capsys, "build", path)
    assert got.code == 2
    assert "floating point" in got.err
    assert "try:" in got.err


def test_scales_that_no_sequence_meets(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sum of scales 5 : 3.1 : 7 has ties that the network's two roundings break by chance: only
    single pairs that take another constant meet them, and they are limited in number."""
    file = Written()
    zeros, scales = (-128, -4, -128), (0.05, 0.031, 0.07)
    a, b = (file.tensor(n, (4, 16), scales=s, zeros=z)
            for n, s, z in zip("ab", scales, zeros, strict=False))  # fmt: skip
    y = file.tensor("y", (4, 16), scales=scales[2], zeros=zeros[2])
    file.operator("ADD", [a, b], y, "AddOptions", FusedActivationFunction=1)
    path = tmp_path / "ties.tflite"
    path.write_bytes(file.content([a, b], [y]))
    got = run(capsys, "build", path, "--json")
    assert (got.code, got.document["status"]) == (0, "equal")
    assert got.document["layers"][0]["why"].startswith("points")
    monkeypatch.setattr("csp_embed.network.lower.pair_points.MOST_PAIRS", 0)
    got = run(capsys, "build", path, "--json")
    assert (got.code, got.document["status"]) == (0, "host")
    (layer,) = got.document["layers"]
    assert layer["where"] == "host"
    assert "of 65,536 pairs are wrong at the nearest" in layer["why"]
    assert "powers of two" in layer["why"]  # what to do
    said = run(capsys, "build", path, "--explain", layer["name"])
    assert layer["why"] in said.out


def test_a_network_beyond_the_address_space(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path, spec = tmp_path / "m.tflite", tmp_path / "small.yaml"
    net = Net.begin(1, (1, 12, 12, 16))
    for _ in range(7):
        net = net.conv(32, 3, 8)
    path.write_bytes(net.content())
    text = Path("isa_specs/vta.yaml").read_text()
    assert text.count("dram_bits: 32") == 1
    folder = Path("isa_specs").resolve()
    text = text.replace("dram_bits: 32", "dram_bits: 16").replace("configs/", f"{folder}/configs/")
    spec.write_text(text)
    got = run(capsys, "build", path, "--isa", spec)
    assert got.code == 2, got.out
    assert "the network needs" in got.err
    assert "addresses 65,536" in got.err
    # Which layer takes most, and where to cut: by name.
    assert re.search(r"of the layers, \S+ takes most", got.err)
    assert "try: build two models, cut at the tensor" in got.err


def test_build_from_python(tmp_path: Path) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(Net.begin(1, (1, 4, 4, 3)).conv(6, 3, 7).content())
    built = ce.build(path)
    assert built.document()["status"] == "equal"
    (program,) = built.programs()
    assert program.meta["network"]["name"] == "m"


def _two_layers(between: Any, path: Path, scale: float = 0.1) -> Path:
    """A convolution, another node from t to u, a convolution."""
    rng = np.random.default_rng(0)

    def held(name: str, value: Any) -> Any:
        return onnx.numpy_helper.from_array(np.asarray(value), name)

    def conv(x: str, w: str, y: str) -> Any:
        names = [x, "s", "z", w, "ws", "z", "s" if y == "t" else "ys", "z"]
        return helper.make_node("QLinearConv", names, [y], name=f"conv.{y}", pads=[1, 1, 1, 1])

    graph = helper.make_graph(
        [conv("x", "w1", "t"), between, conv("u", "w2", "y")], "g",
        [helper.make_tensor_value_info("x", 3, [1, 3, 6, 6])],
        [helper.make_tensor_value_info("y", 3, [1, 8, 6, 6])],
        [held("s", np.float32(0.1)), held("z", np.int8(0)), held("ws", np.float32(0.01)),
         held("ys", np.float32(scale)),
         held("w1", rng.integers(-99, 99, (8, 3, 3, 3), np.int8)),
         held("w2", rng.integers(-99, 99, (8, 8, 3, 3), np.int8))],
    )  # fmt: skip
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return path


def test_an_unknown_operator_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    between = helper.make_node("Thing", ["t"], ["u"], name="odd one", domain="com.acme")
    got = run(capsys, "build", _two_layers(between, tmp_path / "m.onnx"))
    assert got.code == 2
    assert "node 'odd one'" in got.err
    assert "Thing of domain 'com.acme'" in got.err
    # What can be pasted: the part before it.
    (ends,) = re.findall(r"'before.onnx', (.*?)\), alike", got.err)
    inputs, outputs = (re.findall("'(.*?)'", part) for part in ends.split("], ["))
    assert (inputs, outputs) == (["x"], ["t"])
    onnx.utils.extract_model(str(tmp_path / "m.onnx"), str(tmp_path / "b.onnx"), inputs, outputs,
                             check_model=False)  # fmt: skip
    assert run(capsys, "build", tmp_path / "b.onnx").code == 0


@pytest.mark.filterwarnings("error")
def test_steep_scales_are_told_without_warnings(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A multiplier of 3e5: no sequence, and no number that leaves its type on the way."""
    between = helper.make_node("Relu", ["t"], ["u"])
    got = run(capsys, "build", _two_layers(between, tmp_path / "m.onnx", 3e-9), "--json")
    assert (got.code, got.document["differences"]) == (0, 0)
    last = got.document["layers"][-1]
    assert last["where"] == "host"
    assert "no exact sequence" in last["why"]
