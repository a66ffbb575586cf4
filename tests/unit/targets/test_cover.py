"""Loop nests as micro-op lists and two loops, against brute force over all points."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed.targets.stream.building.cover import CoverLimits, Piece, cover

OPERANDS = 3


def points(pieces: list[Piece]) -> list[tuple[int, ...]]:
    """The addresses of every executed step, as the machine's loops make them."""
    return sorted(
        tuple(int(u[o] + i * p.factors[o][0] + j * p.factors[o][1]) for o in range(OPERANDS))
        for p in pieces
        for i in range(p.iter_out)
        for j in range(p.iter_in)
        for u in p.uops
    )


@st.composite
def nests(draw: st.DrawFn):  # type: ignore[no-untyped-def]
    extents = tuple(draw(st.lists(st.integers(1, 5), min_size=1, max_size=5)))
    n = len(extents)
    constraints = []
    for _ in range(draw(st.integers(0, 2))):
        row = [0] * n
        for i in draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=2)):
            row[i] = draw(st.sampled_from([1, 2, -1]))
        constraints.append((tuple(row), draw(st.integers(-2, 3)), draw(st.integers(1, 8))))
    column = st.lists(st.sampled_from([0, 1, 3, 7, 20]), min_size=n, max_size=n)
    coef = np.array([draw(column) for _ in range(OPERANDS)])
    limits = CoverLimits(draw(st.sampled_from([3, 10, 100])), draw(st.sampled_from([3, 100])),
                         (draw(st.sampled_from([5, 100])),) * OPERANDS)  # fmt: skip
    return extents, tuple(constraints), coef, limits


@settings(max_examples=300)
@given(nests())
def test_every_valid_point_once_and_within_the_limits(nest) -> None:  # type: ignore[no-untyped-def]
    extents, constraints, coef, limits = nest
    base = np.array([5, 6, 7])
    want = [
        tuple(int(x) for x in base + coef @ np.array(v))
        for v in itertools.product(*map(range, extents))
        if all(
            0 <= c + sum(a * b for a, b in zip(k, v, strict=True)) < s for k, c, s in constraints
        )
    ]
    pieces = cover(extents, constraints, coef, base, limits)
    assert points(pieces) == sorted(want)
    for p in pieces:
        assert 1 <= len(p.uops) <= limits.uops
        assert 1 <= p.iter_out <= limits.iterations
        assert 1 <= p.iter_in <= limits.iterations
        for (outer, inner), most in zip(p.factors, limits.factors, strict=True):
            assert 0 <= outer <= most
            assert 0 <= inner <= most


@settings(max_examples=150)
@given(nests(), st.sampled_from([(9.0, 0.5, 1), (9.0, 0.5, 8), (1.0, 3.0, 2), (40.0, 0.5, 1)]))
def test_limits_above_what_is_listed_change_nothing(nest, prices) -> None:  # type: ignore[no-untyped-def]
    """So a search need not build such schedules again."""
    extents, constraints, coef, limits = nest
    overhead, word, repeats = prices

    def covered(uops: int) -> list[tuple[object, ...]]:
        rest = (limits.iterations, limits.factors, overhead, word, repeats)
        pieces = cover(extents, constraints, coef, np.zeros(OPERANDS, dtype=np.int64),
                       CoverLimits(uops, *rest))  # fmt: skip
        return [(p.uops.tolist(), p.iter_out, p.iter_in, p.factors) for p in pieces]

    long = covered(limits.uops)
    listed = sum(len(uops) for uops, *_ in long)
    for uops in range(max(1, listed), limits.uops):
        assert covered(uops) == long


def test_a_plain_nest_is_one_instruction() -> None:
    """Three counters of which two merge: one list of micro-ops, no copy of an instruction."""
    coef = np.array([[12, 3, 1], [0, 3, 1], [5, 0, 0]])
    (piece,) = cover(
        (7, 4, 3), (), coef, np.zeros(3, dtype=np.int64), CoverLimits(64, 99, (99,) * 3)
    )
    assert len(piece.uops) * piece.iter_out * piece.iter_in == 84


def test_descending_addresses() -> None:
    """A counter that lowers every address runs backwards: factors are unsigned."""
    coef = np.array([[-1], [-2], [0]])
    pieces = cover((5,), (), coef, np.array([4, 8, 0]), CoverLimits(1, 99, (99,) * 3))
    assert points(pieces) == sorted((4 - i, 8 - 2 * i, 0) for i in range(5))


def test_nothing_is_valid() -> None:
    coef = np.ones((3, 2), dtype=np.int64)
    base = np.zeros(3, dtype=np.int64)
    limits = CoverLimits(9, 9, (9,) * 3)
    assert cover((3, 3), (((1, 0), 5, 5),), coef, base, limits) == []
    assert cover((3, 3), (((2, 2), -9, 2), ((1, 1), 0, 4)), coef, base, limits) == []


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_long_windows_at_full_tiles(data: st.DataObject) -> None:
    """A window nearly as long as its row: neither one list nor few segments hold its points."""
    width, taps = data.draw(st.integers(60, 160)), data.draw(st.integers(40, 110))
    pad, stride = data.draw(st.integers(0, 60)), data.draw(st.integers(1, 2))
    outputs = max(1, (width + 2 * pad - taps) // stride + 1)
    channels = data.draw(st.integers(1, 2))
    most, iterations = (
        data.draw(st.sampled_from([7, 64, 512])),
        data.draw(st.sampled_from([15, 255])),
    )
    limits = CoverLimits(most, iterations, (4096,) * OPERANDS)
    coef = np.array([[1, 0, 0], [stride, 1, width], [0, 1, taps]])
    base = np.array([0, 200, 0])
    pieces = cover((outputs, taps, channels), (((stride, 1, 0), -pad, width),), coef, base, limits)
    q, r, c = np.indices((outputs, taps, channels)).reshape(3, -1)
    at = stride * q + r - pad
    inside = (at >= 0) & (at < width)
    want = (base[:, None] + coef @ np.stack([q, r, c]))[:, inside].T
    assert points(pieces) == sorted(map(tuple, want.tolist()))
    assert all(len(p.uops) <= limits.uops for p in pieces)
    assert all(max(p.iter_out, p.iter_in) <= limits.iterations for p in pieces)
