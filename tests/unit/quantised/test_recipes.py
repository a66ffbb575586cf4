"""Requantisation as steps of the accumulator: exact wherever it says so."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed.network.lower.recipe import Recipe, Search
from csp_embed.network.lower.recipes import recipes
from csp_embed.network.lower.recipes_digits import parity
from csp_embed.network.lower.recipes_points import points
from csp_embed.network.lower.thresholds import Rule, rescaled, rule_of, thresholds
from csp_embed.network.quantised.graph import FixedPoint, FloatScale
from tests.oracles.integer_rules import requantised

LOW, HIGH = -1500, 1500
MULTIPLIERS = [
    (1 << 30, -1), (1 << 30, 0), (1 << 30, -6), ((1 << 30) + 2, -5), ((1 << 31) - 115, -6),
    ((1 << 31) - 1, -3), (1359514674, -5), (1518500250, -7), (1 << 30, 2), (1073741826, -30),
]  # fmt: skip


def rule(acc: int, scale: tuple[int, int], zero: int, clamp: tuple[int, int]) -> int:
    return min(max(requantised(acc, *scale) + zero, clamp[0]), clamp[1])


def found(
    rescale: FixedPoint, zero: int, clamp: tuple[int, int], low: np.ndarray, high: np.ndarray,
    weights: int = 100,
) -> tuple[dict[str, Recipe], list[str]]:  # fmt: skip
    rule = rule_of(rescale, zero, clamp, low, high)
    size = low.size
    made, why = recipes(rule, np.full((size, 3), weights), np.zeros(size, np.int64))
    return {r.name: r for r in made}, why


def search(rule: Rule, steps: float) -> Search:
    size = rule.low.size
    weights, bias = np.full((size, 3), 127), np.arange(size)
    return Search(rule, thresholds(rule), weights, bias, np.ones(size, bool), steps)


def values(recipe: Recipe, accs: np.ndarray, clamp: tuple[int, int], channel: int = 0) -> list[int]:
    rows = np.broadcast_to(accs, (recipe.live.size, accs.size))
    return np.clip(recipe.value(rows)[channel], *clamp).tolist()


@pytest.mark.parametrize("scale", MULTIPLIERS)
@pytest.mark.parametrize(
    ("zero", "clamp"), [(-128, (-128, 127)), (3, (-128, 127)), (-20, (-20, 9))]
)
def test_every_recipe_for_every_accumulator(
    scale: tuple[int, int], zero: int, clamp: tuple[int, int]
) -> None:
    """Whatever is called exact is so; a shift is found wherever trying all constants finds one."""
    accs = np.arange(LOW, HIGH + 1)
    wanted = [rule(int(a), scale, zero, clamp) for a in accs]
    low, high = np.array([LOW]), np.array([HIGH])
    made, _ = found(FixedPoint((scale[0],), (scale[1],)), zero, clamp, low, high)
    several = len(set(wanted)) > 1
    for recipe in made.values():
        assert not several or values(recipe, accs, clamp) == wanted, recipe.name
    real = scale[0] * 2.0 ** (scale[1] - 31)
    near = int(np.clip(np.rint(-np.log2(real)), 0, 31))
    constants = range(-700 + (zero << near), 701 + (zero << near))
    right = [c for c in constants if np.clip((accs + c) >> near, *clamp).tolist() == wanted]
    if several:
        assert ("shift" in made) == bool(right)


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1 << 30, (1 << 31) - 1), st.integers(-12, 3), st.integers(-128, 127),
    st.integers(-40000, 40000), st.integers(0, 3000), st.booleans(),
)  # fmt: skip
def test_what_is_called_exact_is_exact(
    m: int, s: int, zero: int, low: int, size: int, relu: bool
) -> None:
    clamp = (max(-128, zero), 127) if relu else (-128, 127)
    accs = np.arange(low, low + size + 1)
    made, _ = found(FixedPoint((m,), (s,)), zero, clamp, accs[:1], accs[-1:])
    wanted = [rule(int(a), (m, s), zero, clamp) for a in accs]
    for recipe in made.values():
        if recipe.live[0]:
            assert values(recipe, accs, clamp) == wanted, recipe.name
        else:
            assert set(wanted) == {int(recipe.constant[0])}


@pytest.mark.parametrize("zero", [-128, 5])
def test_arbitrary_multipliers_have_digits(zero: int) -> None:
    """Twelve of one seed: behind a Relu, and with results of both signs."""
    rng = np.random.default_rng(7)
    for _ in range(6):
        m, s = int(rng.integers(1 << 30, 1 << 31)), int(rng.integers(-9, -5))
        low, high = np.array([-60000]), np.array([60000])
        made, why = found(FixedPoint((m,), (s,)), zero, (-128, 127), low, high)
        assert made, why
        accs = rng.integers(-60000, 60001, 4000)
        wanted = [rule(int(a), (m, s), zero, (-128, 127)) for a in accs]
        for recipe in made.values():
            assert values(recipe, accs, (-128, 127)) == wanted


def test_channels_of_one_value_do_not_cost_the_layer_its_shift() -> None:
    """All-zero weights come with any multiplier; sums of 0 to 40,000 that all give 1."""
    rescale = FixedPoint((1 << 30, 1 << 30, 1987654321), (-6, -6, -31))
    low, high = np.array([-900, -500, 1 << 30]), np.array([900, 400, 1 << 30])
    made, _ = found(rescale, -128, (-128, 127), low, high)
    assert made["shift"].amount.tolist() == [7, 7, 7]
    assert made["shift"].live.tolist() == [True, True, False]
    assert made["shift"].constant[2] == rule(1 << 30, (1987654321, -31), -128, (-128, 127))


def test_halves_to_even_are_one_bit_of_the_sum() -> None:
    """Against NumPy's rint, with odd and even zero points and shifts that differ by channel."""
    for zero in (-128, 3, 0):
        for scale in ((2.0**-5,), (2.0**-1,), (2.0**-4, 2.0**-7)):
            size = len(scale)
            low, high = np.full(size, -5000), np.full(size, 5000)
            made, why = found(FloatScale(scale), zero, (-128, 127), low, high)
            accs = np.arange(-5000, 5001)
            for channel, one in enumerate(scale):
                wanted = np.clip(np.rint(accs * one) + zero, -128, 127).astype(int).tolist()
                assert values(made["even"], accs, (-128, 127), channel) == wanted, why


@settings(max_examples=200, deadline=None)
@given(st.integers(-(1 << 30), 1 << 30), st.integers(1 << 30, (1 << 31) - 1), st.integers(-31, 0))
def test_the_rule_by_fractions(acc: int, m: int, s: int) -> None:
    assert int(rescaled(np.int64(acc), np.int64(m), np.int64(s))) == requantised(acc, m, s)


def test_halves_of_one_channel_do_not_cost_the_others_their_digits() -> None:
    """No one window suits both multipliers: only the second meets halves, in float32."""
    scales = np.array([0.000992477755, 0.0009667648700997233], np.float32)
    size = np.full(2, 150_000)
    rescale = FloatScale(tuple(map(float, scales)))
    made, _ = found(rescale, 0, (-128, 127), -size, size)
    assert "digits" not in made
    accs = np.arange(-150_000, 150_001)
    one = parity(search(rule_of(rescale, 0, (-128, 127), -size, size), 1))
    assert isinstance(one, Recipe), one
    for channel, scale in enumerate(scales):
        wanted = np.clip(np.rint(accs.astype(np.float32) * scale), -128, 127).astype(int)
        assert values(one, accs, (-128, 127), channel) == wanted.tolist()


@pytest.mark.parametrize(("zero", "low", "seed"), [(0, -128, 4), (57, -128, 9), (-21, -21, 3)])
def test_points_for_every_sum(zero: int, low: int, seed: int) -> None:
    """float32 scales as quantisers leave them: where few products make a coarse one cheap, which
    tells odd from even, and where many make it dear; against NumPy at every accumulator."""
    rng = np.random.default_rng([zero + 128, seed])
    scales = np.exp2(rng.uniform(-11.5, -10.5, 5)).astype(np.float32)
    size = np.full(scales.size, 270_000)
    rule = rule_of(FloatScale(tuple(map(float, scales))), zero, (low, 127), -size, size)
    accs = np.arange(-size[0], size[0] + 1)
    wanted = np.clip(np.rint(accs.astype(np.float32) * scales[:, None]) + zero, low, 127)
    hits: list[int] = []
    for steps in (1, 300):
        one = points(search(rule, steps))
        assert isinstance(one, Recipe), one
        assert one.hits is not None
        hits.append(len(one.hits))
        got = one.value(np.broadcast_to(accs, (scales.size, accs.size)))
        assert np.array_equal(np.clip(got, low, 127), wanted)
    # A contraction more is the price of fewer hits.
    assert hits[1] > 0
    assert hits[0] <= hits[1]
