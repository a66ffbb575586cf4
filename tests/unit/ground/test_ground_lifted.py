"""The complete lifted space is the regular coverings; the search loses nothing of its best."""

from __future__ import annotations

import itertools
import random

import pytest

from csp_embed import ops
from csp_embed.embed.ground.enumerate import regular_solutions
from csp_embed.embed.ground.expand import lifted_embeddings
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
