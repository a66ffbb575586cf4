"""The checker refuses wrong embeddings, each by the rule that it breaks."""

from __future__ import annotations

from dataclasses import replace

import pytest

from csp_embed import ops
from csp_embed.embed import embed
from csp_embed.embed.problem import Pins
from csp_embed.errors import CheckError
from csp_embed.ir.embedding import Coordinate, Counter, Digit, Embedding
from csp_embed.ir.operator import Operator
from csp_embed.judge.embedding.judge import judge, verify
from csp_embed.machine.load import load_isa
from csp_embed.ops.deepbench import layer

SMALL = load_isa("vta", "1x4x4_small")
VTA = load_isa("vta")


def rules(embedding: Embedding, isa=SMALL) -> set[int]:
    return {b.rule for b in judge(embedding, isa).breaches}


def product() -> Embedding:
    """o = m, i = k on four lanes each."""
    (embedding,) = embed(ops.matmul(m=8, n=3, k=8), SMALL)
    assert {d.name for d in embedding.digits} == {"m.o", "k.i"}
    assert rules(embedding) == set()
    return embedding


def window() -> Embedding:
    """A sliding window with the activations in x's own operand."""
    pins = {"straight": lambda option: not option.commuted}
    (embedding,) = embed(ops.conv1d(n=1, c=4, w=9, k=4, r=3, pad=1), SMALL, pins=Pins(pins))
    assert rules(embedding) == set()
    return embedding


def with_coordinate(embedding: Embedding, axis: str, **change) -> Embedding:
    old = next(c for c in embedding.coordinates if c.axes == (axis,))
    others = (replace(c, **change) if c is old else c for c in embedding.coordinates)
    return replace(embedding, coordinates=tuple(others))


def with_layout(embedding: Embedding, role: str, **change) -> Embedding:
    layouts = dict(embedding.layouts)
    layouts[role] = replace(layouts[role], **change)
    return replace(embedding, layouts=layouts)


def test_reduction_split_over_lanes_of_the_result() -> None:
    """k = 0, 2 lands in one lane and k = 1, 3 in another, and nobody adds the two."""
    op = ops.parse_formula("y[n,m] += x[n] * w[m,k]", {"x": (3,), "w": (4, 4)})
    (good,) = embed(op, SMALL)
    assert rules(good) == set()
    pins = {"straight": lambda option: not option.commuted}
    (straight,) = embed(op, SMALL, pins=Pins(pins))
    bad = replace(
        straight,
        digits=(Digit("k.o", "o", 2, 1), Digit("m.o", "o", 2, 2)),
        counters=(Counter("n", 3, False), Counter("m", 2, False), Counter("k", 2, True)),
    )
    bad = with_coordinate(bad, "n", digits={}, counters={"n": 1})
    bad = with_coordinate(bad, "m", digits={"m.o": 1}, counters={"m": 2})
    bad = with_coordinate(bad, "k", digits={"k.o": 1}, counters={"k": 2})
    step = {"m": (1, 0), "k": (0, 1)}
    bad = with_layout(
        bad, "rhs", grid=(2, 2), grid_names=("m", "k"), origin=(0, 0), step=step, const=(0, 0),
        grid_coef=((2, 0), (0, 2)), digit_coef=({"m.o": 1}, {"k.o": 1}), duplicates=False,
    )  # fmt: skip
    bad = with_layout(
        bad, "dst", grid=(3, 2), grid_names=("n", "m"), origin=(0, 0), const=(0, 0),
        step={"n": (1, 0), "m": (0, 1)}, grid_coef=((1, 0), (0, 2)),
        digit_coef=({}, {"m.o": 1}),
    )  # fmt: skip
    bad = with_layout(
        bad, "lhs", grid=(3,), grid_names=("n",), origin=(0,), step={"n": (1,)}, const=(0,),
        grid_coef=((1,),), digit_coef=({},),
    )  # fmt: skip
    assert 6 in rules(bad)
    assert rules(bad) <= {6, 9}


def test_two_contents_in_one_lane() -> None:
    """x's element would depend on the output lane, which it does not have."""
    good = product()
    x = good.layouts["lhs"]
    moved = ({"m.o": 1, **x.digit_coef[0]}, x.digit_coef[1])
    assert rules(with_layout(good, "lhs", digit_coef=moved)) == {7}


def test_lanes_that_share_an_element_want_different_ones() -> None:
    """Output lanes of a sliding window without skew: each needs another x."""
    op = ops.parse_formula("y[p] += x[p+r] * w[r]", {"x": (8,), "w": (3,)})
    pins = {"plain": lambda option: not option.commuted and not option.lanes}
    (good,) = embed(op, SMALL, pins=Pins(pins))
    assert rules(good) == set()
    lanes = (Digit("p.o", "o", 3, 1),)
    bad = replace(good, digits=lanes, counters=(Counter("p", 2, False), Counter("r", 3, True)))
    bad = with_coordinate(bad, "p", digits={"p.o": 1}, counters={"p": 3})
    bad = with_layout(bad, "lhs", step={"p": (3,), "r": (1,)})
    bad = with_layout(bad, "dst", grid=(2,), grid_coef=((3,),), digit_coef=({"p.o": 1},))
    assert rules(bad) == {2}


def test_operator_point_twice() -> None:
    good = product()
    assert 3 in rules(replace(good, counters=(*good.counters, Counter("again", 2, True))))


def test_operator_point_missed() -> None:
    good = product()
    short = tuple(replace(c, extent=1) if c.name == "k" else c for c in good.counters)
    assert rules(replace(good, counters=short)) == {5}


def test_a_step_with_work_is_left_out() -> None:
    good = window()
    role = next(r for r, v in good.layouts.items() if v.tensor == "x")
    x = good.layouts[role]
    d = max(range(len(x.grid)), key=lambda n: x.grid[n])
    cut = tuple(g - 1 if n == d else g for n, g in enumerate(x.grid))
    assert 5 in rules(with_layout(good, role, grid=cut))


def test_live_garbage_in_a_stored_lane() -> None:
    """A pad lane of the reduction in which both operands hold data."""
    op = ops.matmul(m=4, n=2, k=6)
    (good,) = embed(op, SMALL)
    assert rules(good) == set()
    # Pretend that k ends at 5: the sixth product is pad now, but both operands still hold data.
    smaller = replace(op, axes={**op.axes, "k": 5})
    bad = replace(good, operator=smaller)
    bad = with_coordinate(bad, "k", extent=5)
    assert rules(bad) == {4}


def test_result_with_two_homes() -> None:
    good = product()
    dst = good.layouts["dst"]
    twice = with_layout(
        good, "dst", grid=(*dst.grid, 2), grid_names=(*dst.grid_names, "again"),
        origin=(*dst.origin, 0), step={c: (*v, 0) for c, v in dst.step.items()},
        grid_coef=tuple((*row, 0) for row in dst.grid_coef),
    )  # fmt: skip
    assert rules(twice) == {6}


def test_lane_named_twice() -> None:
    good = product()
    digits = tuple(replace(d, extent=5) if d.name == "k.i" else d for d in good.digits)
    assert rules(replace(good, digits=digits)) == {8}


def test_axis_carried_twice() -> None:
    good = product()
    extra = Coordinate(("k",), 8, 0, {}, {})
    assert rules(replace(good, coordinates=(*good.coordinates, extra))) == {8}


def test_wrong_instruction() -> None:
    assert rules(replace(product(), instruction="ALU")) == {1}


def test_strict_promise_is_checked() -> None:
    relaxed = window()
    role = next(r for r, v in relaxed.layouts.items() if v.tensor == "x")
    assert rules(with_layout(relaxed, role, duplicates=not relaxed.layouts[role].duplicates)) == {9}


def test_verify_names_the_rule() -> None:
    good = product()
    with pytest.raises(CheckError, match=r"rule 3 \(injective\)"):
        verify(replace(good, counters=(*good.counters, Counter("again", 2, True))), SMALL)


@pytest.mark.parametrize("id", ["conv000", "conv008", "gemm000"])
def test_large_layers_are_judged_by_argument_and_sample(id: str) -> None:
    (good,) = embed(layer(id), VTA)
    verdict = judge(good, VTA, limit=200_000)
    assert verdict.breaches == ()
    assert not verdict.exact
    name = next(c.name for c in good.counters if c.reduced)
    short = tuple(replace(c, extent=c.extent - 1) if c.name == name else c for c in good.counters)
    assert 5 in rules(replace(good, counters=short), VTA)


DEAD_TAPS = [
    ops.conv2d(n=1, c=512, h=14, w=14, k=256, r=3, s=3, pad=18, dilation=18),
    ops.conv2d(n=8, c=256, h=1, w=1, k=256, r=3, s=3, pad=1),
    ops.conv1d(n=1, c=64, w=100, k=64, r=3, pad=128, dilation=128),
    ops.conv2d(n=4, c=16, h=18, w=2, k=46, r=3, s=5, pad=(0, 2)),
]


@pytest.mark.parametrize("op", DEAD_TAPS, ids=lambda op: op.formula())
def test_taps_that_only_touch_padding_may_be_left_out(op: Operator) -> None:
    """By enumeration and by the argument over coordinates: both know that such a tap adds 0."""
    (embedding,) = embed(op, VTA)
    verdict = judge(embedding, VTA, limit=200_000)
    assert not verdict.exact
    assert verdict.breaches == ()


def test_a_live_tap_may_not_be_left_out() -> None:
    """The argument over coordinates, by which large layers are judged, tells live from dead taps:
    without the middle one of the three filter rows sums are missing."""
    op = ops.conv2d(n=8, c=16, h=1, w=1, k=16, r=3, s=3, pad=1)
    (embedding,) = embed(op, VTA)
    # Only the middle row and column touch the image; the coordinate starts at 1.
    for axis in ("r", "s"):
        (whole,) = (c for c in embedding.coordinates if c.axes == (axis,))
        assert (whole.const, whole.digits, whole.counters) == (1, {}, {})
        shifted = with_coordinate(embedding, axis, const=2)
        assert rules(shifted, VTA)
        assert 5 in {b.rule for b in judge(shifted, VTA, limit=100).breaches}
