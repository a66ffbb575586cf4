"""Known factors wider than int8: digits and passes mean the factor, whatever it is."""

from __future__ import annotations

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.errors import OperatorError
from csp_embed.ops.data import random_tensors
from csp_embed.ops.document import from_document, to_document
from csp_embed.ops.reference import evaluate
from csp_embed.ops.wide import MOST, digits, dtype_of, in_passes


def horner(parts: list[np.ndarray]) -> np.ndarray:
    """What the machine does with the digits, without its word length."""
    total = np.zeros(parts[0].shape, np.int64)
    for part in parts:
        total = total * 256 + part
    return total


def test_two_digits_make_every_value_that_is_int16_here() -> None:
    values = np.array([m for m in range(-(1 << 15), 1 << 15) if dtype_of(m) != "int32"])
    assert values.min() == -(1 << 15)
    assert values.max() == 127 * 256 + 127
    assert np.array_equal(horner(digits(values, 2)), values)


def test_four_digits_make_every_value_up_to_the_largest() -> None:
    rng = np.random.default_rng(3)
    values = np.concatenate([rng.integers(-(1 << 31), MOST, 10_000), [-(1 << 31), MOST, 0, 32640]])
    assert np.array_equal(horner(digits(values, 4)), values)
    # One more has no four digits: its highest would be 128.
    assert horner(digits(np.array([MOST + 1]), 4))[0] != MOST + 1


@pytest.mark.parametrize("m", [255, 300, -257, 1337, -2000])
def test_passes_of_int8_factors_are_the_same_operator(m: int) -> None:
    op = ops.avg_pool2d(n=1, c=3, h=9, w=7, r=5, s=3, stride=(2, 1), pad=1, m=m, shift=9)
    assert op.tensors["w"].dtype == "int16"
    x = random_tensors(op, 5)["x"]
    narrow = in_passes(op)
    assert narrow.tensors["w"].dtype == "int8"
    assert np.array_equal(evaluate(op, {"x": x})["y"], evaluate(narrow, {"x": x})["y"])


def test_a_wide_factor_survives_its_document_and_needs_values() -> None:
    op = ops.avg_pool2d(n=1, c=2, h=4, w=4, r=2, s=2, m=40_000, shift=18)
    assert from_document(to_document(op), op.values).tensors == op.tensors
    with pytest.raises(OperatorError, match="w cannot be int32"):
        ops.parse_formula(op.formula(), {n: t.shape for n, t in op.tensors.items()},
                          extents={"r": 2, "s": 2}, dtypes={"w": "int32"})  # fmt: skip
    with pytest.raises(OperatorError, match="x has type int16"):
        ops.parse_formula(op.formula(), {n: t.shape for n, t in op.tensors.items()},
                          extents={"r": 2, "s": 2}, dtypes={"x": "int16"})  # fmt: skip
