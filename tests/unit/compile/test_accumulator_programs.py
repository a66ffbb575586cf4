"""Operators that live on the accumulator memory, against a floor that is counted by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

import csp_embed as ce

# (text, shape of a, shape of b, cycles a vector of 16 takes in the compute queue: eight beats for
# each of its tensors, one step with an immediate, two with a tensor)
PROGRAMS = {
    "one tensor": ("y[n,c,h,w] = clip(a[n,c,h,w] >> 4, 0, 127)", (1, 64, 28, 28), None, 8 + 3),
    "two": ("y[n,c,h,w] = clip(a[n,c,h,w] + b[n,c,h,w], 0, 127)", (1, 64, 28, 28),
            (1, 64, 28, 28), 16 + 4),
    "broadcast": ("y[n,c,h,w] = relu((a[n,c,h,w] + b[c]) >> 2)", (1, 64, 28, 28), (64,), 8 + 4),
}  # fmt: skip


@pytest.mark.parametrize("name", PROGRAMS)
def test_stores_run_beside_the_next_tile(name: str) -> None:
    """Loads and steps share a queue, and nothing else is waited for but at both ends: within 6 %.
    A store takes 3.4 cycles a vector: waiting for it would be a sixth to a third."""
    text, a, b, each = PROGRAMS[name]
    shapes = {"a": a} if b is None else {"a": a, "b": b}
    kernel = ce.compile(text, shapes=shapes)
    floor = math.prod(a) // 16 * each
    assert kernel.cycles is not None
    assert floor <= kernel.cycles <= 1.06 * floor
    rng = np.random.default_rng(3)
    x = rng.integers(-900, 900, a, dtype=np.int32)
    if b is None:
        got, want = kernel.run(x), np.clip(x >> 4, 0, 127)
    else:
        y = rng.integers(-900, 900, b, dtype=np.int32)
        got = kernel.run(a=x, b=y)
        want = np.clip(x + y, 0, 127) if len(b) == 4 else np.maximum((x + y[:, None, None]) >> 2, 0)
    assert np.array_equal(got, want.astype(np.int8))
