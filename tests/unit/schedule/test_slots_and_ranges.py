"""Slots of a memory, and the parts of a loop."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import example, given
from hypothesis import strategies as st

from csp_embed.schedule.config import ranges
from csp_embed.targets.stream.building.slots import allocate, has_reuse

keys = st.lists(st.integers(-1, 6), max_size=40)


@given(keys, st.integers(1, 8))
@example([0, 1, 0, 2, 0, 1, 2], 2)
def test_a_slot_holds_what_its_step_reads(keys: list[int], slots: int) -> None:
    holds: dict[int, int] = {}
    previous = None
    for i, (key, (slot, fresh)) in enumerate(zip(keys, allocate(keys, slots), strict=True)):
        if key < 0:
            assert not fresh
            continue
        assert 0 <= slot < slots
        if fresh:
            assert key not in holds.values(), f"step {i} loads a box that is there"
            # The slot that the step before reads stays, so that this load can overlap with it.
            assert slots == 1 or slot != previous
            holds[slot] = key
        assert holds[slot] == key
        previous = slot


@given(keys, st.integers(2, 8))
def test_loads_are_few(keys: list[int], slots: int) -> None:
    """Each box once where all fit; never more than a memory that forgets everything."""
    loads = sum(fresh for _, fresh in allocate(keys, slots))
    real = [k for k in keys if k >= 0]
    changes = sum(1 for a, b in zip([None, *real], real, strict=False) if a != b)
    assert len(set(real)) <= loads <= changes
    if len(set(real)) <= slots:
        assert loads == len(set(real))


@given(keys)
def test_has_reuse(keys: list[int]) -> None:
    runs = [k for i, k in enumerate(keys) if i == 0 or keys[i - 1] != k]
    assert has_reuse(keys) == (len(set(runs)) < len(runs))


@given(st.integers(1, 200), st.integers(1, 60), st.integers(0, 3), st.integers(0, 3))
def test_ranges_partition_the_extent(extent: int, tile: int, up: int, down: int) -> None:
    parts = ranges(extent, tile, up, down)
    assert parts[0][0] == 0
    assert parts[-1][1] == extent
    assert all(b == c for (_, b), (c, _) in pairwise(parts))
    assert all(0 < b - a <= tile for a, b in parts)
    if up == down == 0:
        assert len(parts) == -(-extent // tile)


def test_ramps() -> None:
    assert ranges(32, 8, 2, 1) == [(0, 2), (2, 6), (6, 14), (14, 22), (22, 28), (28, 32)]
    assert ranges(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert ranges(4, 4, 3, 3) == [(0, 4)]
