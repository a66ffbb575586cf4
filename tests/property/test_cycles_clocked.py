"""The cycle engine against the clock-by-clock model on random instruction tables."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "sim"))

from clocked import clocked
from cycle_programs import measured

from csp_embed.machine.load import load_isa
from csp_embed.sim.cycles import layout
from csp_embed.sim.cycles.core import run
from csp_embed.sim.cycles.engine import Engine

VTA = load_isa("vta")
ELEMENT = {1: 4, 2: 16, 3: 256, 4: 64}


def random_table(rng: np.random.Generator, n: int) -> np.ndarray:
    """Loads, fixed spans and token-only instructions; a pop only after its push, so no deadlock."""
    table = np.zeros((n, layout.COLUMNS), np.int64)
    waiting = [0] * 6
    mix = rng.dirichlet(np.ones(4))
    size = int(rng.choice([4, 30, 300, 2000]))
    for row in table[:-1]:
        kind = rng.choice(4, p=mix)
        queue = int(rng.integers(3))
        if kind == 0:
            client = int(rng.integers(1, 5))
            queue = 0 if client in (2, 3) else 1
            element = ELEMENT[client]
            above, below, before, after = (
                int(p) for p in rng.integers(0, 4, 4) * (rng.random(4) < 0.3)
            )
            rows = int(rng.integers(1, 12))
            width = int(rng.integers(1, max(2, size // rows // max(1, element // 16) + 1)))
            row[layout.KIND] = layout.LOAD
            row[layout.PORT] = client
            row[layout.TAIL] = 1 if client == 1 else 2
            row[layout.DELAY] = 1 + above
            row[layout.ADDRESS] = int(rng.integers(1, 1000)) * element
            row[layout.ROW] = width * element
            row[layout.ROWS] = rows
            row[layout.STRIDE] = int(rng.integers(0, 100)) * element
            whole = width + before + after
            row[layout.TOP] = above * whole
            row[layout.BOTTOM] = below * whole
            row[layout.SKIP] = before + after == 0 and below > 0
            row[layout.MIDDLE] = rows if row[layout.SKIP] else (before + after) * rows
        elif kind == 1:
            queue = int(rng.integers(1, 3))
            row[layout.SPAN] = int(rng.integers(6, size + 10))
        else:
            row[layout.SPAN] = 1
        row[layout.QUEUE] = queue
        for flag, direction, pops, has in (
            (layout.POP_PREV, 2 * queue - 2, True, queue > 0),
            (layout.POP_NEXT, 2 * queue + 1, True, queue < 2),
            (layout.PUSH_PREV, 2 * queue - 1, False, queue > 0),
            (layout.PUSH_NEXT, 2 * queue, False, queue < 2),
        ):
            possible = has and (waiting[direction] > 0 if pops else waiting[direction] < 200)
            if possible and rng.random() < 0.4:
                row[layout.TOKENS] |= flag
                waiting[direction] += -1 if pops else 1
    table[-1, [layout.QUEUE, layout.KIND, layout.SPAN]] = 1, layout.FINISH, 1
    return table


def engine_cycles(table: np.ndarray, burst: int, delay: int, latency: int) -> int:
    cost = Engine(VTA, "de10").costs.vector.copy()
    cost[layout.BURST_BEATS] = burst
    cost[layout.WAKE] = delay + 1
    cost[layout.LATENCY] = latency
    result = run(table, 3, cost, *np.empty((5, len(table)), np.int64), np.empty((0, 3), np.int64))
    assert result[0] == layout.DONE
    return int(result[1])


@settings(max_examples=150, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    n=st.sampled_from([2, 5, 20, 100, 600, 1500]),
    burst=st.sampled_from([2, 4, 8, 16, 256]),
    latency=st.sampled_from([0, 0, 1, 40, 400]),
)
def test_the_engine_equals_the_clocked_model(seed: int, n: int, burst: int, latency: int) -> None:
    table = random_table(np.random.default_rng(seed), n)
    # The memory's counter stays full while requests wait, so latency beyond it is per request.
    expected = clocked(table, burst, 16 + latency, latency, 10**8)
    assert engine_cycles(table, burst, 16, latency) == expected


@pytest.mark.parametrize("name", ["mix_x64", "pingpong_x16", "load_inp_pad_8x8_3333", "gemm078"])
def test_the_clocked_model_reproduces_measured_programs(name: str) -> None:
    item = next(p for p in measured(VTA) if p.name == name)
    for memory, burst in (("de10", 16), ("pynq", 256)):
        table = Engine(VTA, memory).table(item.stream).rows
        assert clocked(table, burst, 16, 0, 10**8) == item.cycles[memory]
