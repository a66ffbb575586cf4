"""One shift in place of two roundings: exact where it says so, and only where there is none not."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed.network.lower.shift import rescaled, shifts
from csp_embed.network.quantised.graph import FixedPoint
from tests.oracles.integer_rules import requantised

LOW, HIGH = -1500, 1500
MULTIPLIERS = [
    (1 << 30, -1), (1 << 30, 0), (1 << 30, -6), ((1 << 30) + 2, -5), ((1 << 31) - 115, -6),
    ((1 << 31) - 1, -3), (1359514674, -5), (1518500250, -7), (1 << 30, 2), (1073741826, -30),
]  # fmt: skip


def rule(acc: int, scale: tuple[int, int], zero: int, clamp: tuple[int, int]) -> int:
    return min(max(requantised(acc, *scale) + zero, clamp[0]), clamp[1])


def some(accs: np.ndarray, amount: int, c: int, zero: int, clamp: tuple[int, int]) -> list[int]:
    return np.clip(((accs + c) >> amount) + zero, *clamp).tolist()


@pytest.mark.parametrize("scale", MULTIPLIERS)
@pytest.mark.parametrize(
    ("zero", "clamp"), [(-128, (-128, 127)), (3, (-128, 127)), (-20, (-20, 9))]
)
def test_every_constant_for_every_accumulator(
    scale: tuple[int, int], zero: int, clamp: tuple[int, int]
) -> None:
    """The interval is what trying all constants finds: none is wrong and none is missing."""
    accs = np.arange(LOW, HIGH + 1)
    wanted = [rule(int(a), scale, zero, clamp) for a in accs]
    low, high = np.array([LOW]), np.array([HIGH])
    found, bad = shifts(FixedPoint((scale[0],), (scale[1],)), zero, clamp, low, high)
    real = scale[0] * 2.0 ** (scale[1] - 31)
    near = int(np.clip(np.rint(-np.log2(real)), 0, 31))
    right = [c for c in range(-700, 701) if some(accs, near, c, zero, clamp) == wanted]
    if found is None:
        assert (right, bad) == ([], 1)
    else:
        assert int(found.amount[0]) == near
        inside = [c for c in range(-700, 701) if found.least[0] <= c <= found.most[0]]
        assert inside == right


@settings(max_examples=60, deadline=None)
@given(
    st.integers(1 << 30, (1 << 31) - 1), st.integers(-12, 3), st.integers(-128, 127),
    st.integers(-40000, 40000), st.integers(0, 3000),
)  # fmt: skip
def test_what_is_called_exact_is_exact(m: int, s: int, zero: int, low: int, size: int) -> None:
    """Short ranges, where a shift may do for a multiplier that is no power of two at all."""
    clamp = (max(-128, zero), 127)
    accs = np.arange(low, low + size + 1)
    found, _ = shifts(FixedPoint((m,), (s,)), zero, clamp, accs[:1], accs[-1:])
    if found is None:
        return
    wanted = [rule(int(a), (m, s), zero, clamp) for a in accs]
    for c in {int(found.least[0]), int(found.most[0])}:
        c = int(np.clip(c, -(1 << 33), 1 << 33))  # an open end
        assert some(accs, int(found.amount[0]), c, zero, clamp) == wanted


def test_constant_channels_take_the_shift_of_the_others() -> None:
    """All-zero weights come with any multiplier: their one value must not cost the layer."""
    rescale = FixedPoint((1 << 30, 1 << 30, 1987654321), (-6, -6, -31))
    low, high = np.array([-900, -500, 1 << 30]), np.array([900, 400, 1 << 30])
    found, bad = shifts(rescale, -128, (-128, 127), low, high)
    assert bad == 0
    assert found is not None
    assert found.amount.tolist() == [7, 7, 7]


def test_a_constant_channel_of_many_sums_keeps_its_own_shift() -> None:
    """Sums of 0 to 40,000 that all give 1 above the zero point: steps of 2^7 are too short."""
    rescale = FixedPoint((1 << 30, 1 << 30), (-6, -16))
    low, high = np.array([-900, 1 << 16]), np.array([900, (1 << 16) + 40000])
    found, bad = shifts(rescale, -3, (-3, 127), low, high)
    assert bad == 0
    assert found is not None
    assert found.amount.tolist() == [7, 17]
    accs = np.arange(low[1], high[1] + 1)
    wanted = [rule(int(a), (1 << 30, -16), -3, (-3, 127)) for a in accs[::997]]
    for c in (int(found.least[1]), int(found.most[1])):
        assert some(accs[::997], 17, c, -3, (-3, 127)) == wanted


@settings(max_examples=200, deadline=None)
@given(st.integers(-(1 << 30), 1 << 30), st.integers(1 << 30, (1 << 31) - 1), st.integers(-31, 0))
def test_the_rule_by_fractions(acc: int, m: int, s: int) -> None:
    assert int(rescaled(np.int64(acc), np.int64(m), np.int64(s))) == requantised(acc, m, s)
