"""Sums made once and multiplied by shifts and additions: every accumulator, and on the machine."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from one_operator import Model, differences

from csp_embed.network.lower.layer import lower
from csp_embed.network.lower.lowered import Lowered
from csp_embed.network.lower.recipe import Recipe, Search
from csp_embed.network.lower.recipes import exact
from csp_embed.network.lower.recipes_terms import terms
from csp_embed.network.lower.recipes_windows import UNIT, exact_windows
from csp_embed.network.lower.thresholds import Rule, rule_of, thresholds
from csp_embed.network.quantised.graph import FixedPoint, FloatScale, Rescale
from csp_embed.network.quantised.read import read_quantised
from tests.command_line import run
from tests.oracles.integer_rules import requantised

CLAMP = (-128, 127)


def search(rescale: Rescale, zero: int, clamp: tuple[int, int], reach: int) -> Search:
    """Of channels with sums within `reach`, with a bias of 0 and 40 steps of products."""
    size = len(rescale.multiplier if isinstance(rescale, FixedPoint) else rescale.scale)
    rule = rule_of(rescale, zero, clamp, np.full(size, -reach), np.full(size, reach))
    return of_rule(rule)


def of_rule(rule: Rule) -> Search:
    size = rule.low.size
    zeros = np.zeros(size, np.int64)
    return Search(rule, thresholds(rule), np.full((size, 9), 100), zeros, np.ones(size, bool), 40)


def values(recipe: Recipe, sums: np.ndarray) -> np.ndarray:
    return np.clip(recipe.value(np.broadcast_to(sums, (recipe.live.size, sums.size))), *CLAMP)


@pytest.mark.parametrize(("zero", "clamp"), [(-128, CLAMP), (5, CLAMP), (-3, (-3, 90))])
def test_multipliers_of_tflm_at_every_sum(zero: int, clamp: tuple[int, int]) -> None:
    """Behind a Relu one constant does; results of both signs have one for each."""
    rng = np.random.default_rng(zero & 255)
    scales = [(int(rng.integers(1 << 30, 1 << 31)), int(rng.integers(-9, -6))) for _ in range(6)]
    task = search(FixedPoint(*(tuple(v) for v in zip(*scales, strict=True))), zero, clamp, 60_000)
    made = terms(task)
    assert isinstance(made, Recipe), made
    sums = np.arange(-60_000, 60_001)
    for channel, scale in enumerate(scales):
        wanted = [min(max(requantised(int(a), *scale) + zero, clamp[0]), clamp[1]) for a in sums]
        got = np.clip(made.value(np.tile(sums, (6, 1)))[channel], *clamp)
        assert got.tolist() == wanted


# seed, channels, whether single sums and whether odd and even are told
@pytest.mark.parametrize(
    ("seed", "channels", "hits", "odd"), [(0, 5, 0, False), (0, 40, 1, False), (2, 40, 0, True)]
)
@pytest.mark.parametrize("wide", [False, True])
def test_scales_of_float32_at_every_sum_that_matters(
    seed: int, channels: int, hits: int, odd: bool, wide: bool
) -> None:
    """NumPy's float32 and rint, halves to even: the sums around each half, and others; of wide
    ranges, which are clipped, too."""
    rng = np.random.default_rng(seed)
    scales = rng.uniform(2.0**-17, 2.0**-16, channels).astype(np.float32)
    scales, reach = (scales * 8, 1 << 26) if wide else (scales, 1 << 20)
    task = search(FloatScale(tuple(map(float, scales))), 3, CLAMP, reach)
    made = terms(task)
    assert isinstance(made, Recipe), made
    assert bool(made.ceilings) == wide
    found = 0 if made.hits is None else len(made.hits)
    assert wide or (found, made.tells is not None) == (hits, odd)
    assert exact(made, task.rule, task.first).all()
    for channel, scale in enumerate(scales):
        halves = ((np.arange(-140, 140) + 0.5) / np.float64(scale)).astype(np.int64)
        near = (halves[:, None] + np.arange(-40, 41)).reshape(-1)
        sums = np.concatenate([near, rng.integers(-reach, reach + 1, 20_000), [-reach, reach]])
        sums = np.clip(sums, -reach, reach)
        product = sums.astype(np.float32) * scale
        wanted = np.clip(np.rint(product.astype(np.float64)) + 3, *CLAMP)
        assert np.array_equal(values(made, sums)[channel], wanted)


@pytest.mark.parametrize("signed", [False, True])
def test_the_window_holds_all_factors_that_have_a_constant(signed: bool) -> None:
    """Factors at both ends have one, factors beyond have none: by trying every constant that may
    matter, those of single levels."""
    task = search(FixedPoint((1518500250, 1987654321), (-8, -8)), -128, CLAMP, 60_000)
    windows = exact_windows(task, np.arange(2), signed)
    assert windows is not None
    middle = -128 if signed else -200
    for channel in range(2):
        first, levels = task.first[channel].tolist(), task.rule.levels.tolist()
        real = [(t, y) for t, y in zip(first, levels, strict=True) if -60_000 < t <= 60_000]

        def possible(m: int, real: list[tuple[int, int]] = real) -> bool:
            for part in ([p for p in real if p[1] > middle], [p for p in real if p[1] <= middle]):
                least = [(y << UNIT) - m * t for t, y in part]
                most = [(y << UNIT) - 1 - m * (t - 1) for t, y in part]
                if part and max(least) > min(most):
                    return False
            return True

        low, high = int(windows.least[channel]), int(windows.most[channel])
        assert possible(low)
        assert possible(high)
        assert not possible(low - 2)
        assert not possible(high + 2)


@pytest.mark.parametrize("relu", [True, False])
def test_a_convolution_on_the_machine(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], relu: bool
) -> None:
    """More than a hundred products a sum: cheaper than products of digits; certified."""
    m, rng = Model(), np.random.default_rng(5)
    w = rng.integers(-127, 128, (24, 32, 3, 3)).astype(np.int8)
    x = m.real(m.input("x", "int8", (1, 32, 8, 7)), 0.0213, 4)
    weights = m.real(m.constant(w), rng.uniform(0.0005, 0.001, 24), [0] * 24, axis=0)
    y = m.node("Conv", [x, weights], "a", pads=[1, 1, 1, 1])
    if relu:
        y = m.node("Relu", [y], "r")
    path = m.save(tmp_path / "m.onnx", m.quantise(y, 0.0371, -128 if relu else 6), "int8")
    graph = read_quantised(path)
    made = lower(graph, graph.operators[0])
    assert isinstance(made, Lowered), made
    assert (made.recipe.name, made.copies) == ("terms", len(made.rounds))
    feed, file = tmp_path / "x.npz", tmp_path / "p.npz"
    values = rng.integers(-128, 128, (1, 32, 8, 7)).astype(np.int8)
    assert differences(path, {"x": values})[0] == 0
    np.savez(feed, x=values)
    got = run(capsys, "build", path, "-o", file, "--inputs", feed, "--json")
    assert (got.code, got.document["differences"]) == (0, 0)
    assert run(capsys, "check", file).code == 0
    assert run(capsys, "certify", file).code == 0
