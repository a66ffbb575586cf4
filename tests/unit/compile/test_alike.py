"""Embeddings that `distinct` takes for one covering put the same points into the same lanes."""

from __future__ import annotations

from collections import defaultdict
from itertools import product

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.compiler.search.alike import covering, distinct
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.search import embeddings
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.load import load_isa

OPERATORS = {
    "conv2d": ops.conv2d(n=2, c=4, h=5, w=4, k=4, r=2, s=2),
    "dense": ops.dense(n=6, c=24, k=12),
    "groups": ops.conv2d(n=1, c=4, h=4, w=4, k=4, r=2, s=2, groups=2),
    "ragged": ops.conv1d(n=1, c=5, w=9, k=3, r=3),
    "padded": ops.conv2d(n=2, c=4, h=5, w=6, k=4, r=2, s=2, stride=2, pad=1),
}


def expanded(e: Embedding) -> object:
    """By brute force: which points share a step, and which share a lane of each dimension."""
    places = [(d.name, d.extent) for d in e.digits] + [(c.name, c.extent) for c in e.counters]
    held = {a for a, _ in e.equal}
    steps, lanes = defaultdict(set), defaultdict(set)
    for values in product(*(range(n) for _, n in places)):
        at = dict(zip((n for n, _ in places), values, strict=True))
        if any(at[a] != at[b] for a, b in e.equal):
            continue
        point: dict[str, int] = {}
        for c in e.coordinates:
            value = c.const + sum(k * at[n] for n, k in {**c.digits, **c.counters}.items())
            if not 0 <= value < c.extent:
                break
            sizes = [e.operator.axes[a] for a in c.axes]
            point |= dict(zip(c.axes, map(int, np.unravel_index(value, sizes)), strict=True))
        else:
            key = tuple(sorted(point.items()))
            steps[tuple(at[c.name] for c in e.counters)].add(key)
            for dim in {d.dim for d in e.digits}:
                mine = tuple(at[d.name] for d in e.digits if d.dim == dim)
                lanes[dim, mine].add(key)
    assert held <= set(dict(places))
    groups = defaultdict(set)
    for (dim, _), points in lanes.items():
        groups[dim].add(frozenset(points))
    return frozenset(map(frozenset, steps.values())), frozenset(
        (dim, frozenset(g)) for dim, g in groups.items()
    )


@pytest.mark.parametrize("name", OPERATORS)
def test_what_is_taken_for_one_is_one(name: str) -> None:
    op: Operator = OPERATORS[name]
    found = embeddings(EmbedProblem.of(op, load_isa("vta", "1x16x16")), 40)
    kept = distinct(found)
    of = {covering(e): e for e in kept}
    assert kept[0] is found[0]
    assert [e for e in found if e in kept] == kept
    for e in found:
        if e not in kept:
            assert expanded(e) == expanded(of[covering(e)]), e.formula()


def test_a_pool_of_a_convolution_holds_fewer_than_are_written() -> None:
    found = embeddings(EmbedProblem.of(OPERATORS["conv2d"], load_isa("vta")), 40)
    assert len({expanded(e) for e in found}) <= len(distinct(found)) < len(found)


def test_a_loop_over_blocks_of_which_each_step_meets_one_is_no_loop() -> None:
    """Where padding cuts windows, blocks are written as loops too; three times in ten of a pool."""
    found = embeddings(EmbedProblem.of(OPERATORS["padded"], load_isa("vta")), 40)
    loops = {e.formula(): len(e.counters) for e in found}
    kept = {covering(e): e.formula() for e in distinct(found)}
    tied = [e for e in found if loops[kept[covering(e)]] < loops[e.formula()]]
    assert any("u(r)-" in e.formula() for e in tied)
