"""Micro-op placement, DMA rectangles and bias factors, each against a direct simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed.ir.schedule import Region
from csp_embed.schedule.bias_by_contract import constants, reach
from csp_embed.targets.stream.factor import factor
from csp_embed.targets.stream.rectangles import DmaLimits, rectangles
from csp_embed.targets.stream.uops import place

words = st.lists(st.integers(0, 5), min_size=1, max_size=6)


@settings(max_examples=300)
@given(st.lists(words, min_size=1, max_size=8), st.data(), st.sampled_from([6, 9, 14, 1000]))
def test_every_use_finds_its_micro_ops(lists, data, depth) -> None:  # type: ignore[no-untyped-def]
    """Small depths make a ring in which lists come and go; large ones are loaded once."""
    arrays = [np.array(v, dtype=np.uint32) for v in lists]
    uses = data.draw(st.lists(st.integers(0, len(lists) - 1), min_size=1, max_size=30))
    batch = data.draw(st.sampled_from([4, 96]))
    plan = place(arrays, uses, depth, batch)
    memory = np.full(depth, 99, dtype=np.uint32)
    loads = 0
    for n, u in enumerate(uses):
        if n in plan.before:
            word, at, length = plan.before[n]
            assert length > 0
            assert at + length <= depth
            memory[at : at + length] = plan.words[word : word + length]
            loads += length
        assert memory[plan.at[n] : plan.at[n] + len(arrays[u])].tolist() == lists[u]
    assert set(plan.before) <= set(range(len(uses)))
    if len(plan.words) <= depth:
        assert loads <= len(plan.words)


def test_contained_lists_are_shared() -> None:
    arrays = [np.array(v, dtype=np.uint32) for v in ([2, 3], [1, 2, 3, 4], [3, 4], [9])]
    plan = place(arrays, [0, 1, 2, 3], 100)
    assert sorted(plan.words.tolist()) == [1, 2, 3, 4, 9]
    assert len(plan.before) == 1


def test_lists_that_take_turns_are_not_all_loaded_each_time() -> None:
    """Five lists of three words, four times in turn, where twelve words fit: two can stay beside
    places for two others, so three of five are loaded in each turn. Overwriting the oldest loads
    every list every time: twenty loads."""
    arrays = [np.arange(3 * n, 3 * n + 3, dtype=np.uint32) for n in range(5)]
    # Batches of three words: each list is loaded by itself.
    plan = place(arrays, list(range(5)) * 4, 12, 3)
    assert len(plan.before) == 2 + 3 * 4
    # Lists that are used in spells come and go: nothing is gained where one stays.
    assert len(place(arrays, [n for n in range(5) for _ in range(4)], 12, 3).before) == 5


def test_lists_that_are_used_soon_come_along() -> None:
    """Forty lists of three words, in turn, where thirty-six words fit: twelve at a time, each of
    them once. What is used before the others come back is not overwritten for them: two lists in
    turn with a third one that takes all of the rest stay where they are."""
    arrays = [np.arange(3 * n, 3 * n + 3, dtype=np.uint32) for n in range(40)]
    plan = place(arrays, list(range(40)), 36)
    assert len(plan.before) == 4
    assert sum(length for *_, length in plan.before.values()) == 120
    wide = [*arrays[:2], np.arange(200, 206, dtype=np.uint32)]
    turns = place(wide, [0, 1, 0, 1, 2, 0, 1], 11)
    assert sum(length for *_, length in turns.before.values()) <= 18


@st.composite
def boxes(draw: st.DrawFn):  # type: ignore[no-untyped-def]
    grid = draw(st.lists(st.integers(1, 6), min_size=1, max_size=4))
    order = tuple(draw(st.permutations(range(len(grid)))))
    box = []
    for d in order:
        a = draw(st.integers(0, grid[d] - 1))
        box.append((a, draw(st.integers(a + 1, grid[d]))))
    limits = DmaLimits(*(draw(st.sampled_from([1, 2, 5, 100])) for _ in range(2)),
                       draw(st.sampled_from([3, 10, 1000])))  # fmt: skip
    return tuple(grid), order, tuple(box), limits, draw(st.booleans())


@settings(max_examples=400)
@given(boxes())
def test_rectangles_bring_the_box(case) -> None:  # type: ignore[no-untyped-def]
    grid, order, box, limits, by_box = case
    ordered = np.arange(np.prod(grid)).reshape(grid).transpose(order)
    want = ordered[tuple(slice(a, b) for a, b in box)].ravel()
    if by_box:  # DRAM holds another box of 7 elements, then this one.
        dram, start = np.concatenate([np.full(7, -1), want]), 7
    else:
        dram, start = ordered.ravel(), 0
    region = Region("lhs", "INP", grid, order, (box,), by_box)
    sram = np.full(len(want), -1)
    for r in rectangles(region, 0, start, limits):
        assert 1 <= r.y <= limits.y
        assert 1 <= r.x <= limits.x
        assert r.y == 1 or r.stride <= limits.stride
        for row in range(r.y):
            part = dram[r.dram + row * r.stride :][: r.x]
            here = slice(r.sram + row * r.x, r.sram + (row + 1) * r.x)
            assert (sram[here] == -1).all(), "written twice"
            sram[here] = part
    assert sram.tolist() == want.tolist()


def test_whole_rows_are_one_rectangle() -> None:
    region = Region("lhs", "INP", (8, 6, 5), (0, 1, 2), (((2, 5), (0, 6), (0, 5)),), False)
    (r,) = rectangles(region, 0, 0, DmaLimits(99, 99, 99))
    assert (r.dram, r.y, r.x) == (60, 1, 90)


@pytest.mark.parametrize("lanes", [1, 2, 4, 16])
def test_factors_give_the_value(lanes: int) -> None:
    """Every magnitude up to the stated reach (a sample where that is large)."""
    values = constants(lanes)
    most = reach(values)
    step = max(1, most // 5000)
    tensor = np.unique(np.concatenate([np.arange(-most, most + 1, step), [-most, 0, most]]))
    factors = factor(tensor, values)
    assert factors.dtype == np.int8
    assert (factors.astype(np.int64) @ np.array(values) == tensor).all()
    assert (factors >= -127).all()


def test_factors_out_of_reach_are_refused() -> None:
    values = constants(16)
    with pytest.raises(ValueError, match="reach"):
        factor(np.array([10 * reach(values)]), values)
    assert reach(values) > 32768  # What DeepBench promises of its bias.
