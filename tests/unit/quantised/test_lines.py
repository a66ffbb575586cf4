"""Convolutions along a single axis: as onnxruntime computes them, on the machine, certified."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
import pytest
from one_operator import Model, differences

from tests.command_line import run


@pytest.mark.parametrize(
    ("channels", "groups", "attributes"),
    [
        (9, 1, {"pads": [4, 1], "dilations": [2]}),
        (16, 16, {"strides": [3], "pads": [0, 2]}),
        (12, 3, {"auto_pad": "SAME_LOWER", "strides": [2]}),
    ],
)
@pytest.mark.parametrize("rounding", ["exact", "shift"])
def test_convolutions_along_one_axis(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], channels: int, groups: int,
    attributes: dict[str, Any], rounding: str,
) -> None:  # fmt: skip
    m, rng = Model(), np.random.default_rng(channels)
    shape, outputs = (2, channels, 31), 2 * groups if groups > 1 else 17
    w = rng.integers(-127, 128, (outputs, channels // groups, 4)).astype(np.int8)
    x = m.real(m.input("x", "int8", shape), 0.0213, 4)
    weights = m.real(m.constant(w), rng.uniform(0.002, 0.004, outputs), [0] * outputs, axis=0)
    y = m.node("Conv", [x, weights], "a", group=groups, **attributes)
    path = m.save(tmp_path / "m.onnx", m.quantise(y, 0.0371, -6), "int8")
    file, feed = tmp_path / "p.npz", tmp_path / "x.npz"
    values = rng.integers(-128, 128, shape).astype(np.int8)
    assert differences(path, {"x": values})[0] == 0
    np.savez(feed, x=values)
    more = [] if rounding == "exact" else [
        "--rounding", rounding, "--requantised", tmp_path / "shift.onnx"]  # fmt: skip
    got = run(capsys, "build", path, "-o", file, "--inputs", feed, "--json", *more)
    assert (got.code, got.document["differences"]) == (0, 0), got.err
    assert got.document["macs_on_accelerator"] == got.document["macs"] > 0
    assert run(capsys, "certify", file).code == 0
    if more:
        # Its weights have three axes again, or no runtime would take it.
        assert differences(tmp_path / "shift.onnx", {"x": values})[0] == 0
        ort.InferenceSession(tmp_path / "shift.onnx", providers=["CPUExecutionProvider"])
