"""Operators that say the same are equal and have one hash; each difference tells them apart."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from csp_embed import ops
from csp_embed.ir.operator import Operator


def pool(**changes: int) -> Operator:
    return ops.avg_pool2d(**{**dict(n=1, c=4, h=8, w=8, r=2, s=2, m=64, shift=8), **changes})


OTHERS = {
    "extent": pool(c=5),
    "constant": replace(pool(), values={"w": np.array([63], np.int8)}),
    "constant's type": replace(pool(), values={"w": np.array([64], np.int32)}),
    "no constant": replace(pool(), values={}),
    "order of axes": replace(pool(), axes=dict(reversed(pool().axes.items()))),
    "notes": replace(pool(), notes={"layer": "conv000"}),
    "epilogue": replace(pool(), epilogue=()),
    "another operator": ops.matmul(m=2, n=3, k=4),
}


def test_equal_operators_are_one_key() -> None:
    assert pool() == pool()
    assert pool() is not pool()
    assert hash(pool()) == hash(pool())
    assert {pool(): "kept"}[pool()] == "kept"
    assert len({pool(), pool(), *OTHERS.values()}) == 1 + len(OTHERS)


@pytest.mark.parametrize("what", OTHERS)
def test_operators_that_differ_are_not_equal(what: str) -> None:
    assert pool() != OTHERS[what]
    assert OTHERS[what] != pool()
    assert pool() != what
