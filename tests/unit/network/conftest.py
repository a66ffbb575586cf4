"""Where the light models of the onnx wheel lie."""

from __future__ import annotations

from pathlib import Path

import pytest

onnx = pytest.importorskip("onnx")

LIGHT = Path(onnx.__file__).parent / "backend" / "test" / "data" / "light"


@pytest.fixture
def light() -> Path:
    if not LIGHT.is_dir():
        pytest.skip("this onnx wheel carries no light models")
    return LIGHT
