"""When two tensors count as equal: integers exactly, floats within a tolerance, which is stated."""

from __future__ import annotations

from typing import Any

import numpy as np

from csp_embed.run.runner import Array

# About what sums of float32 in another order may differ by.
RTOL = 1e-4


def tolerance(dtype: np.dtype[Any]) -> float:
    """Of a comparison of floats: RTOL, or four units in the last place of a shorter type; 0 of
    what is no float."""
    if not _is_float(dtype):
        return 0.0
    # Types of ml_dtypes (bfloat16, float8) are no builtins of NumPy: finfo does not know them.
    onnx_types = dtype.kind == "V" or dtype.isbuiltin != 1
    if onnx_types:
        import ml_dtypes

        return max(RTOL, 4.0 * float(ml_dtypes.finfo(dtype).eps))
    return max(RTOL, 4.0 * float(np.finfo(dtype).eps))


def _is_float(dtype: np.dtype[Any]) -> bool:
    # ml_dtypes' floats have kind "V", so the name decides too.
    return dtype.kind in "fc" or "float" in dtype.name


def agree(a: Array, b: Array) -> tuple[bool, float]:
    """(whether a may stand for b, how far apart they are at most). See `compare` in execute.py."""
    # Integers have no order of additions that could matter.
    if not _is_float(b.dtype):
        return bool(np.array_equal(a, b)), 0.0 if np.array_equal(a, b) else float("inf")
    if not b.size:
        return True, 0.0
    # Differences are taken in doubles: float16 would overflow in the squares.
    wide = np.complex128 if b.dtype.kind == "c" else np.float64
    wide_a, wide_b = a.astype(wide), b.astype(wide)
    same = (wide_a == wide_b) | (np.isnan(wide_a) & np.isnan(wide_b))  # infinities, too
    if same.all():
        return True, 0.0
    # inf - inf is nan here; such places are settled by `same` above.
    with np.errstate(invalid="ignore"):
        finite = np.isfinite(wide_b)
        # The root mean square: small values among large ones come from sums that cancel.
        size = np.sqrt(np.mean(np.abs(wide_b[finite]) ** 2)) if finite.any() else 0.0
        scale = np.abs(wide_b) + size
        far = np.abs(wide_a - wide_b) / np.where(scale > 0, scale, 1.0)
    # Infinite where only one of the two is infinite or nan.
    far = np.where(same, 0.0, np.where(np.isfinite(far), far, np.inf))
    worst = float(far.max())
    return worst <= tolerance(b.dtype), worst
