"""The search for exact multipliers skips only what has none: against trying every factor."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from csp_embed.network.lower import recipes_digits
from csp_embed.network.lower.recipes import recipes
from csp_embed.network.lower.thresholds import Rule, rule_of
from csp_embed.network.quantised.graph import FixedPoint, FloatScale


def layer(seed: int, fixed: bool) -> tuple[Rule, Any, Any]:
    """A layer with some channels that have no exact factor, and its weights and biases."""
    draw = np.random.default_rng(seed)
    channels, products = 6, int(draw.integers(20, 3000))
    weights = draw.integers(-127, 128, (channels, products))
    high = 128 * np.abs(weights).sum(axis=1)
    if fixed:
        multiplier = draw.integers(1 << 30, 1 << 31, channels).tolist()
        rescale = FixedPoint(tuple(multiplier), tuple(draw.integers(-12, -8, channels).tolist()))
    else:
        rescale = FloatScale(tuple(np.exp(draw.uniform(-8, -6, channels)).tolist()))
    bias = draw.integers(-3000, 3000, channels)
    return rule_of(rescale, -3, (-128, 127), bias - high, bias + high), weights, bias


@pytest.mark.parametrize("fixed", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_skipping_loses_no_recipe(seed: int, fixed: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    rule, weights, bias = layer(seed, fixed)
    some, why = recipes(rule, weights, bias)
    # Never asked whether there is one: every factor is tried.
    monkeypatch.setattr(recipes_digits, "SOON", 1000)
    every, reasons = recipes(rule, weights, bias)
    # The reasons count the channels without a factor.
    assert why == reasons
    for one, other in zip(some, every, strict=True):
        assert one.name == other.name
        assert np.array_equal(one.factor, other.factor)
        assert all(map(np.array_equal, one.offsets, other.offsets))


@pytest.mark.parametrize("seed", range(20))
def test_bisection_tells_where_a_convex_gap_closes(seed: int) -> None:
    draw = np.random.default_rng(seed)
    rows, far = np.arange(30), int(draw.integers(4, 41))
    slope, start = draw.integers(-9, 10, (2, 30, 5))
    start = start * 10 + draw.integers(-150, 60, (30, 1))

    def apart(rows: Any, step: Any) -> Any:
        return (slope[rows] * np.asarray(step)[:, None] + start[rows]).max(axis=1)

    every = [apart(rows, np.full(30, s)) <= 0 for s in range(-far, far + 1)]
    wanted = np.any(every, axis=0)
    assert 0 < wanted.sum() < 30
    found = recipes_digits.some_close(apart, rows, far)
    assert found.tolist() == wanted.tolist()
