"""Importer and reference together against what TensorFlow Lite Micro computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from csp_embed.network.quantised.reference.run import run
from csp_embed.network.quantised.tflite.graph import read_tflite

FOLDER = Path(__file__).parents[2] / "data" / "quantised"
RECORDED: dict[str, Any] = {}
for _name in ("tflm_operators.npz", "tflm_more_operators.npz"):
    with np.load(FOLDER / _name) as _file:
        RECORDED |= {name: _file[name] for name in _file.files}
NAMES = sorted({name.split("/")[0] for name in RECORDED})


@pytest.mark.parametrize("name", NAMES)
def test_every_element(name: str, tmp_path: Path) -> None:
    path = tmp_path / f"{name}.tflite"
    path.write_bytes(RECORDED[f"{name}/model"].tobytes())
    graph = read_tflite(path)
    values = run(graph, {n: RECORDED[f"{name}/{n}"] for n in graph.inputs})
    expected = RECORDED[f"{name}/y"]
    assert np.array_equal(values["y"].reshape(expected.shape), expected)
    assert len(np.unique(expected)) > 1


def test_what_was_recorded() -> None:
    """A file that lost its content would leave nothing to compare."""
    assert len(NAMES) == 71 + 28
    assert sum(RECORDED[f"{n}/y"].size for n in NAMES) == 26444 + 8680
