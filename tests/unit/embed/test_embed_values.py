"""Embeddings compute what their operators mean: run element by element against brute force."""

from __future__ import annotations

import numpy as np
import pytest
from embed_executor import brute, draw, run

from csp_embed import ops
from csp_embed.embed import embed
from csp_embed.judge.embedding.judge import judge
from csp_embed.machine.load import load_isa

MACHINES = {
    "1x16x16": ("vta", "1x16x16"),
    "2x16x16": ("vta", "2x16x16"),
    "1x4x4": ("vta", "1x4x4_small"),
    "dot": ("toy_dot", None),
    "outer": ("toy_outer", None),
}
F = ops.parse_formula
OPERATORS = {
    "conv2d stride 2, 3 channels": lambda: ops.conv2d(
        n=1, c=3, h=9, w=8, k=5, r=3, s=3, stride=2, pad=1
    ),
    "conv2d batch, NHWC, bias": lambda: ops.conv2d(
        n=2, c=4, h=5, w=5, k=7, r=3, s=2, pad=1, layout="NHWC", bias=True, shift=3
    ),
    "conv1d stride 3, dilation 2": lambda: ops.conv1d(
        n=2, c=4, w=20, k=6, r=5, stride=3, dilation=2, pad=3
    ),
    "conv2d groups": lambda: ops.conv2d(n=1, c=6, h=5, w=6, k=9, r=3, s=2, groups=3),
    "conv2d ragged groups": lambda: ops.conv2d(n=1, c=48, h=2, w=2, k=96, r=1, s=1, groups=2),
    "depthwise stride 2": lambda: ops.depthwise_conv2d(
        n=1, c=5, h=6, w=7, r=3, s=3, stride=2, pad=1
    ),
    "depthwise multiplier": lambda: ops.depthwise_conv2d(
        n=1, c=3, h=5, w=5, r=3, s=3, multiplier=2
    ),
    "conv3d": lambda: ops.conv3d(n=1, c=2, d=4, h=4, w=4, k=3, t=2, r=2, s=2),
    "conv_transpose2d": lambda: ops.conv_transpose2d(
        n=1, c=3, h=4, w=4, k=5, r=3, s=3, stride=2, pad=1
    ),
    "matmul": lambda: ops.matmul(m=5, n=7, k=19),
    "batch_matmul": lambda: ops.batch_matmul(batch=3, m=4, n=5, k=6),
    "max_pool2d": lambda: ops.max_pool2d(n=1, c=5, h=7, w=8, r=3, s=2, stride=2, pad=1),
    "avg_pool2d": lambda: ops.avg_pool2d(n=1, c=6, h=6, w=6, r=2, s=2, m=64, shift=8),
    "elementwise": lambda: ops.elementwise((5, 37), [("add", "z"), ("bias", "b"), "relu"]),
    "outer product": lambda: F("y[i,j] += x[i] * w[j]", {"x": (9,), "w": (7,)}),
    "sliding weights": lambda: F(
        "y[h,k] += x[p,c] * w[h-2*p,k,c]", {"x": (3, 4), "w": (4, 5, 4), "y": (8, 5)}
    ),
    "weights without the window": lambda: F(
        "y[p,k] += x[p+r] * w[k]", {"x": (12,), "w": (5,), "y": (10, 5)}, extents={"r": 3}
    ),
    "two outputs in one index": lambda: F(
        "y[p,q,k] += x[2*p-q+r+2,c] * w[k,r,c]", {"x": (12, 3), "w": (5, 3, 3), "y": (4, 3, 5)}
    ),
    "one axis in two indices": lambda: F(
        "y[p,k] += x[p,p+c] * w[k,c]", {"x": (6, 9), "w": (5, 4), "y": (6, 5)}
    ),
    "fused axes read apart": lambda: F(
        "y[a] += x[r] * w[s,a]", {"x": (3,), "w": (5, 2), "y": (2,)}
    ),
    "constant index": lambda: F("y[a] += x[1,a+r] * w[0,r]", {"x": (3, 9), "w": (2, 3), "y": (7,)}),
    "one axis in two plain indices": lambda: F(
        "y[a,k] += x[a,a,c] * w[k,c]", {"x": (6, 6, 4), "w": (3, 4), "y": (6, 3)}
    ),
    "axis in all operands": lambda: F(
        "y[i,j] += x[i,c] * w[i,j,c]", {"x": (20, 3), "w": (20, 5, 3)}
    ),
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("name", OPERATORS)
def test_values(name: str, machine: str) -> None:
    op, isa = OPERATORS[name](), load_isa(*MACHINES[machine])
    tensors = draw(op) | dict(op.values)
    expected = brute(op, tensors)
    found = [*embed(op, isa, top=3), *embed(op, isa, layout="strict")]
    for embedding in found:
        assert np.array_equal(run(embedding, isa, tensors), expected), embedding.formula()
        verdict = judge(embedding, isa)
        assert verdict.exact
        assert verdict.breaches == ()


def test_strict_stores_every_activation_once() -> None:
    isa = load_isa("vta")
    (embedding,) = embed(OPERATORS["conv2d stride 2, 3 channels"](), isa, layout="strict")
    x = next(v for v in embedding.layouts.values() if v.tensor == "x")
    assert not x.duplicates
    assert embedding.cost["duplication"] == 1
