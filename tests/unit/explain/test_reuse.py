"""Reuse: the structure comes back from an embedding, moves to other shapes, and bounds hold."""

from __future__ import annotations

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.embed import embed
from csp_embed.embed.build import build
from csp_embed.embed.certificate.make import certificate
from csp_embed.embed.certificate.reuse import bound, decisions_of, least, reuse
from csp_embed.embed.explain.pareto import pareto
from csp_embed.embed.explain.reasons import by_kind
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.search import embeddings
from csp_embed.judge.embedding.certificate import check_certificate
from csp_embed.judge.embedding.judge import judge
from csp_embed.machine.load import load_isa


def conv(c: int, h: int, k: int, r: int = 3, stride: int = 1, pad: int = 1):
    return ops.conv2d(n=1, c=c, h=h, w=h, k=k, r=r, s=r, stride=stride, pad=pad, bias=True)


SHAPES = [conv(1, 20, 8, 5), conv(3, 16, 20), conv(16, 14, 32), conv(40, 6, 24, 1, 1, 0),
          conv(3, 12, 16, 5, 2, 2)]  # fmt: skip
OTHERS = [
    ops.matmul(m=35, n=70, k=48),
    ops.matmul(m=5, n=3, k=7),
    ops.depthwise_conv2d(n=1, c=20, h=12, w=12, r=3, s=3, pad=1),
    ops.max_pool2d(n=1, c=5, h=9, w=9, r=3, s=3, stride=2),
]


@pytest.mark.parametrize(
    "op", SHAPES + OTHERS, ids=lambda op: f"{op.name}{tuple(op.axes.values())}"
)
def test_structure_comes_back(op):
    isa = load_isa("vta")
    problem = EmbedProblem.of(op, isa)
    members = [m.embedding for m in pareto(problem).members[:12]]
    for e in [*members, *by_kind(problem), *embeddings(problem, top=3)]:
        again = build(problem, decisions_of(e))
        assert again.formula() == e.formula()
        assert again.layouts == e.layouts


@pytest.mark.parametrize(
    "op", SHAPES + OTHERS, ids=lambda op: f"{op.name}{tuple(op.axes.values())}"
)
def test_bounds_are_below_everything(op):
    isa = load_isa("vta")
    optimum = embed(op, isa)[0].cost["objective"]
    assert bound(EmbedProblem.of(op, isa)) <= least(EmbedProblem.of(op, isa)) == optimum


def test_the_bound_is_reached_where_all_divides():
    isa = load_isa("vta")
    op = conv(32, 14, 64, 1, 1, 0)
    assert bound(EmbedProblem.of(op, isa)) == embed(op, isa)[0].cost["objective"]


@pytest.mark.parametrize("donor", SHAPES, ids=lambda op: str(tuple(op.axes.values())))
def test_reused_embeddings_are_right_and_their_gaps_true(donor):
    isa = load_isa("vta")
    solved = embed(donor, isa)[0]
    for op in SHAPES:
        found = reuse(solved, EmbedProblem.of(op, isa))
        if found is None:
            # Only where the filter's skew does not fit: another stride.
            assert solved.kind in ("toeplitz", "mixed")
            continue
        assert not judge(found.embedding, isa, limit=300_000).breaches
        optimum = embed(op, isa)[0].cost["objective"]
        assert found.cost >= optimum
        np.testing.assert_allclose(found.gap, found.cost / found.bound - 1)
        if found.proved_by == "sweep":
            np.testing.assert_allclose(found.bound, optimum)
        proved = found.embedding.proof["status"] == "OPTIMAL"
        assert proved == (found.cost == optimum)


def test_same_shape_is_optimal_again_and_certified():
    isa = load_isa("vta")
    for op in SHAPES:
        found = reuse(embed(op, isa)[0], EmbedProblem.of(op, isa))
        assert found is not None
        assert found.gap == 0
        assert check_certificate(certificate(found.embedding, isa)).problems == ()


def test_a_gap_stands_in_the_certificate():
    isa = load_isa("vta")
    found = reuse(
        embed(conv(1, 20, 8, 5), isa)[0], EmbedProblem.of(conv(16, 14, 32, 3), isa), within=0.1
    )
    assert found is not None
    assert found.gap > 0.1
    document = certificate(found.embedding, isa)
    assert document["status"] == "feasible"
    assert document["objective"]["gap"] > 0
    assert check_certificate(document).problems == ()


def test_other_operators_do_not_fit():
    isa = load_isa("vta")
    assert (
        reuse(embed(ops.matmul(m=4, n=4, k=4), isa)[0], EmbedProblem.of(conv(3, 8, 4), isa)) is None
    )
