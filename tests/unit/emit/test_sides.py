"""Neighbouring schedules in places of their own: what each touches, moved as one."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from csp_embed.ir.schedule import COMPUTE, LOAD, Region, Schedule, Template
from csp_embed.machine.load import load_isa
from csp_embed.targets.stream.building.sides import apart

ISA = load_isa("vta")
DEPTH = {m.name: m.depth for m in ISA.memories}


def schedule(inp: list[tuple[int, int]], wgt: list[tuple[int, int]]) -> Schedule:
    """Loads of those elements (from, how many), each read by a step of its own."""
    regions, rows, templates = list[Region](), list[tuple[int, int, int, int]](), list[Template]()
    for memory, column, places in (("INP", 1, inp), ("WGT", 2, wgt)):
        for at, size in places:
            rows.append((LOAD, len(regions), 0, at))
            regions.append(Region("x", memory, (size,), (0,), (((0, size),),), True))
            uops = np.zeros((1, 3), np.int64)
            uops[0, column] = at
            factors = tuple((0, int(k == column)) for k in range(3))
            rows.append((COMPUTE, len(templates), 0, 0))
            templates.append(Template("GEMM", uops, 1, size, factors))
    return Schedule(tuple(regions), tuple(templates), np.array(rows), np.zeros(len(rows), np.int64))


def touched(s: Schedule, memory: str) -> list[list[int]]:
    """Elements of each load and of the step that reads it, which must be the same."""
    out: list[list[int]] = []
    column = {"INP": 1, "WGT": 2}[memory]
    for kind, n, _, sram in s.ops.tolist():
        if kind == LOAD and s.regions[n].memory == memory:
            out.append(list(range(sram, sram + s.regions[n].grid[0])))
            step = s.templates[n]
            first = int(step.uops[0, column])
            assert out[-1] == list(range(first, first + step.iter_in))
    return out


places = st.lists(st.tuples(st.integers(0, 900), st.integers(1, 60)), min_size=1, max_size=4)
ends = st.lists(st.tuples(st.integers(950, 960), st.integers(1, 60)), max_size=1)


@given(st.lists(st.tuples(places, ends), min_size=1, max_size=5))
def test_what_was_one_place_stays_one_place(parts: list[tuple[list[tuple[int, int]], ...]]) -> None:
    """Elements move alone or together, never onto others, and never out of the memory."""
    before = [schedule(low, [*low, *high]) for low, high in parts]
    for old, new in zip(before, apart(before, ISA), strict=True):
        for memory in ("INP", "WGT"):
            pairs = dict[int, int]()
            for a, b in zip(touched(old, memory), touched(new, memory), strict=True):
                for one, other in zip(a, b, strict=True):
                    assert pairs.setdefault(one, other) == other
                    assert 0 <= other < DEPTH[memory]
            assert len(set(pairs.values())) == len(pairs)


def test_neighbours_share_no_weights_where_both_fit() -> None:
    """Three alike, at both ends of the memory: the second one moves between, the third is in
    nobody's way at the first one's place."""
    one = schedule([(0, 10)], [(0, 200), (1000, 24)])
    made = [touched(s, "WGT") for s in apart([one, one, one], ISA)]
    flat = [{e for piece in s for e in piece} for s in made]
    assert not flat[0] & flat[1]
    assert not flat[1] & flat[2]
    assert made[0] == made[2]
    # Too large for both: it stays.
    wide = schedule([(0, 10)], [(0, 800)])
    assert [touched(s, "WGT") for s in apart([wide, wide], ISA)] == [touched(wide, "WGT")] * 2
