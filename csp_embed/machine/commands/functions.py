"""What a command's meaning may call, on numbers and on NumPy arrays alike."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np


def float32(value: Any) -> Any:
    """The nearest float32, ties to even."""
    # A lone number has no astype; a NumPy scalar is what `Machine.set` tells a float state by.
    return np.float32(value) if np.ndim(value) == 0 else np.asarray(value).astype(np.float32)


def as_float32(value: Any) -> Any:
    """The float32 whose bits these are."""
    return np.uint32(int(value)).view(np.float32)


def rint(value: Any) -> Any:
    """The nearest whole number, ties to even."""
    return np.rint(value)


def clip(value: Any, low: Any, high: Any) -> Any:
    return np.minimum(np.maximum(value, low), high)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    # Both forms call the same functions, so the point form works on numbers through NumPy as well.
    "float32": float32, "as_float32": as_float32, "rint": rint, "clip": clip,
    "min": np.minimum, "max": np.maximum, "abs": np.abs,
}  # fmt: skip
