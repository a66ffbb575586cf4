"""`csp-embed build` on a small network: values on the simulated machine, report, refusals."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from command_line import run
from one_operator import Model
from shift_layers import Net

from csp_embed.compiler import network


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
    layers = d["layers"]
    places = [*["accelerator"] * 3, "host", "host", "accelerator"]  # mean and reshape
    assert [layer["where"] for layer in layers] == places
    # Outputs 4 x 3 x 16, twice; 4 x 3 x 20; 20; 4; filters of 45, 9, 16 and 20 products.
    assert [layer["macs"] for layer in layers if layer["macs"]] == [8640, 1728, 3840, 80]
    assert d["macs_on_accelerator"] == d["macs"] == 14288
    # Two inputs; the mean over the image is the host's.
    assert d["elements"] == 2 * (192 + 192 + 240 + 4)
    assert d["segments"] == 6  # two layers have results of both signs
    on = [layer for layer in layers if layer["where"] == "accelerator"]
    assert d["cycles"] == sum(layer["cycles"] for layer in on)
    assert all(layer["cycles"] >= layer["bound_cycles"] > 0 for layer in on)
    assert [bool(layer["extra_cycles"]) for layer in on] == [False, False, True, True]


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
    assert "not yet one program" in got.out
    assert "AveragePool has no operator here yet" in got.out


def test_a_wrong_constant_is_found(
    model: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One step of one channel's bias: exit code 5, and the layer is named."""
    honest = network.lower

    def wrong(graph: Any, op: Any) -> Any:
        made = honest(graph, op)
        if isinstance(made, str) or op is not graph.operators[0]:
            return made
        b = made.passes[0].constants["b"].copy()
        b[3] += 256
        first = replace(made.passes[0], constants={**made.passes[0].constants, "b": b})
        return replace(made, passes=(first, *made.passes[1:]))

    monkeypatch.setattr(network, "lower", wrong)
    got = run(capsys, "build", model, "--json")
    assert got.code == 5
    assert got.document["status"] == "unequal"
    layer = got.document["layers"][0]
    assert layer["differences"] > 0
    assert not layer["exact"]


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
    """Half to even has no single shift: the host computes it, and says why."""
    m = Model()
    x = m.input("x", "int8", (1, 4))
    w = m.constant(np.arange(-8, 8, dtype=np.int8).reshape(4, 4))
    names = [x, *m.scale(0.5, 0), w, *m.scale(0.25, 0), *m.scale(1.0, 0)]
    path = m.save(tmp_path / "m.onnx", m.node("QLinearMatMul", names, "y"))
    got = run(capsys, "build", path, "--json")
    assert got.code == 0, got.err
    assert (got.document["macs_on_accelerator"], got.document["status"]) == (0, "host")
    assert "halves to even" in got.document["layers"][0]["why"]
    assert "nothing was compared" in run(capsys, "build", path).out
