"""The complete lifted space is the regular coverings; the search loses nothing of its best."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace

import pytest

from csp_embed import ops
from csp_embed.embed.ground.enumerate import regular_solutions
from csp_embed.embed.ground.expand import lifted_embeddings, named_steps
from csp_embed.embed.ground.points import key, pose_ground
from csp_embed.judge.embedding.judge import judge
from tests.oracles.complete import complete_embeddings
from tests.oracles.corpus import Row, corpus, machines, posed, strict_corpus
from tests.oracles.lifted import accidental, complete_solutions, lifted_solutions, regular_maps
from tests.oracles.random_problems import random_problems

PLAIN = {r.name: r for r in [*corpus(), *strict_corpus()] if r.tile is None}
# The complete space and the regular coverings differ by accidental ones here, nowhere else.
ACCIDENTAL = {"outer conv1d padded", "outer conv1d padded commuted"}
# Longer ones are compared by scripts/bench_complete.
LONG = ("depthwise", "2x2x2 conv1d padded", "1x4x4 conv1d")
STRICT = {"dot matmul 2x1x3 strict": 4, "outer matmul 1x3x2 strict": 8,
          "dot conv1d dilated strict": 1, "outer conv1d strided strict": 2}  # fmt: skip
ROWS = [n for n, r in PLAIN.items() if len(r.op.axes) < 7 and not any(w in n for w in LONG)]


def row_ground(name: str) -> tuple[Row, object]:
    row = PLAIN[name]
    ground = posed(row)
    assert ground is not None
    return row, ground


@pytest.mark.parametrize("name", ROWS)
def test_complete_space_is_the_regular_coverings(name: str) -> None:
    row, ground = row_ground(name)
    regular = regular_maps(ground)
    complete = complete_solutions(ground, row.isa, row.layout)
    assert complete <= regular.keys()
    assert len(complete) == STRICT.get(name, len(complete))
    assert lifted_solutions(ground, row.isa, row.layout) <= complete
    missing = [maps for k, maps in regular.items() if k not in complete]
    assert all(accidental(ground, m) for maps in missing for m in maps)
    assert bool(missing) == (name in ACCIDENTAL)
    plain = [k for k, maps in regular.items() if not all(accidental(ground, m) for m in maps)]
    assert complete == frozenset(plain)


def test_blocks_of_a_window_reach_beyond_its_taps() -> None:
    """u = 2*step + i counts from -2 to 1 taps, farther than any axis is long."""
    op = ops.conv1d(n=1, c=1, w=4, k=1, r=2, stride=2)
    ground = pose_ground(op, machines()["dot"], 4, layout="strict")
    regular = regular_maps(ground)
    wide = [m for maps in regular.values() for m in maps
            if max(abs(v) for c in m.columns.values() for v in c) > 2]  # fmt: skip
    assert wide
    found = {key(ground, m.at) for m in wide}
    assert found <= regular_solutions(ground).keys
    assert lifted_solutions(ground, machines()["dot"], "strict") <= set(regular)


@pytest.mark.parametrize("name", ["dot matmul 2x1x3", "2x2x2 matmul 2x1x3", "outer avg pooling"])
def test_regular_maps_are_those_of_the_ground_model(name: str) -> None:
    _, ground = row_ground(name)
    assert regular_maps(ground).keys() == regular_solutions(ground).keys


@pytest.mark.parametrize("name", ["2x2x2 depthwise", "2x2x2 conv1d padded", "1x4x4 conv1d padded"])
def test_checker_accepts_every_embedding_of_the_complete_space(name: str) -> None:
    row, ground = row_ground(name)
    found = {key(ground, m.at): e for m, e in complete_embeddings(ground, row.isa)}
    assert len(found) > 1
    for embedding in found.values():
        assert judge(embedding, row.isa).breaches == ()


def test_search_has_the_least_cost_of_the_complete_space() -> None:
    problems = list(itertools.islice(random_problems(random.Random(4)), 40))
    assert len({(isa.name, ground.op.name) for ground, isa, _, _ in problems}) > 8
    for ground, isa, mode, cost in problems:
        whole = [e.cost for _, e in complete_embeddings(ground, isa, mode)]
        named = (isa.name, mode, ground.op.formula(), ground.op.axes)
        assert cost == pytest.approx(min(c["objective"] for c in whole)), named
        searched = [e.cost for e in lifted_embeddings(ground, isa, mode)]
        for part in ("steps", "vectors", "lhs_bytes", "host_bytes"):
            assert min(c[part] for c in searched) <= min(c[part] for c in whole), (part, named)


OFFSETS = {
    # Strict: each output's live taps begin elsewhere, and so does its block of lanes.
    "strided": (dict(w=4, r=2, stride=3, pad=((1, 0),)), "dot", "strict"),
    "dilated": (dict(w=3, r=2, stride=3, dilation=2, pad=((2, 1),)), "dot", "strict"),
    "diagonal": (dict(w=4, r=3, stride=3, dilation=2, pad=((2, 2),)), "2x2x2", "strict"),
    # A loop over the outputs that the window absorbs whole: the input is one block.
    "whole": (dict(w=2, r=3, pad=1), "dot", "strict"),
    "outer product": (dict(w=3, r=2, stride=2, dilation=2, pad=1), "outer", "relaxed"),
}


@pytest.mark.parametrize("name", OFFSETS)
def test_each_output_may_have_an_offset_of_its_own(name: str) -> None:
    """Least costs are the complete space's, and the judge agrees point by point and in sum."""
    shape, machine, mode = OFFSETS[name]
    isa = machines()[machine]
    op = ops.conv1d(n=1, c=1, k=1, **shape)
    commuted = False
    found = [e for e in lifted_embeddings(pose_ground(op, isa, 1, commuted=commuted), isa, mode)]
    mine = min(found, key=lambda e: e.cost["objective"])
    ground = pose_ground(op, isa, named_steps(mine), commuted=commuted)
    every = [e.cost["objective"] for _, e in complete_embeddings(ground, isa, mode)]
    assert mine.cost["objective"] == pytest.approx(min(every))
    taps = next(c for c in mine.coordinates if c.axes == ("r",))
    outputs = next(c for c in mine.coordinates if c.axes == ("p",))
    own = {*outputs.digits, *outputs.counters}
    assert own & {*taps.digits, *taps.counters}
    for e in found:
        # Limit 1: by the argument over coordinates.
        assert judge(e, isa).breaches == judge(e, isa, limit=1).breaches == ()


def test_a_tap_that_an_offset_loses_is_seen_by_both_arguments() -> None:
    op = ops.conv1d(n=1, c=1, w=2, k=1, r=3, pad=1)
    isa = machines()["dot"]
    found = lifted_embeddings(pose_ground(op, isa, 1), isa, "strict")
    mine = min(found, key=lambda e: e.cost["objective"])
    assert any(c.axes == ("r",) and "p" in c.counters for c in mine.coordinates)
    moved = tuple(
        replace(c, const=c.const - 1) if c.axes == ("r",) else c for c in mine.coordinates
    )
    wrong = replace(mine, coordinates=moved)
    for limit in (4_000_000, 1):
        assert judge(wrong, isa, limit=limit).breaches
