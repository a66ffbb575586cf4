"""Random small operators on five machines: the embedding computes what the reference computes."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parents[1] / "unit" / "embed"))
from embed_executor import draw, run

from csp_embed import ops
from csp_embed.embed import embed
from csp_embed.errors import Infeasible, OperatorError
from csp_embed.judge.embedding.judge import judge
from csp_embed.machine.load import load_isa
from csp_embed.ops.reference import evaluate

MACHINES = [
    load_isa("vta"),
    load_isa("vta", "1x4x4_small"),
    load_isa("vta", "2x16x16"),
    load_isa("toy_dot"),
    load_isa("toy_outer"),
]
small = st.integers(1, 7)


@st.composite
def convolutions(draw):
    stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    taps, pad = draw(st.integers(1, 4)), draw(st.integers(0, 2))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    sizes = {"n": draw(st.integers(1, 3)), "c": groups * draw(st.integers(1, 5))}
    sizes |= {"k": groups * draw(small), "w": draw(st.integers(1, 12))}
    shape = {"stride": stride, "dilation": dilation, "pad": pad, "groups": groups}
    layout = draw(st.booleans())
    if draw(st.booleans()):
        return ops.conv1d(**sizes, r=taps, **shape, layout="NCW" if layout else "NWC")
    rows = {"h": draw(st.integers(1, 6)), "r": draw(st.integers(1, 3))}
    return ops.conv2d(**sizes, **rows, s=taps, **shape, layout="NCHW" if layout else "NHWC")


@st.composite
def others(draw):
    a, b, c, d = draw(small), draw(small), draw(st.integers(1, 40)), draw(st.integers(1, 3))
    kind = draw(st.integers(0, 4))
    if kind == 0:
        return ops.matmul(m=c, n=a, k=b * 5)
    if kind == 1:
        return ops.batch_matmul(batch=d, m=a, n=b, k=c)
    if kind == 2:
        return ops.depthwise_conv2d(n=d, c=a, h=b, w=7, r=d, s=3, stride=d, pad=d - 1)
    if kind == 3:
        return ops.max_pool2d(n=1, c=c, h=b + 2, w=6, r=d, s=2, stride=2)
    return ops.elementwise((a, c), [("add", "z"), ("shr", 1)])


def judged(op, isa, mode):
    tensors = draw(op) | dict(op.values)
    (embedding,) = embed(op, isa, layout=mode)
    got = run(embedding, isa, tensors)
    assert judge(embedding, isa).breaches == ()
    if op.kind == "map":
        assert np.array_equal(got, tensors[op.lhs.tensor])
        return
    plain = type(op)(**{**vars(op), "epilogue": ()})
    assert np.array_equal(got, evaluate(plain, tensors)["acc"]), embedding.formula()


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.data())
def test_convolutions(data) -> None:
    try:
        op = data.draw(convolutions())
    except OperatorError:
        assume(False)
        return
    judged(op, data.draw(st.sampled_from(MACHINES)), "relaxed")


@settings(max_examples=50, deadline=None, derandomize=True)
@given(others(), st.sampled_from(MACHINES))
def test_other_operators(op, isa) -> None:
    judged(op, isa, "relaxed")


@settings(max_examples=30, deadline=None, derandomize=True)
@given(st.data())
def test_strict_or_proved_infeasible(data) -> None:
    try:
        op = data.draw(convolutions())
    except OperatorError:
        assume(False)
        return
    why = refusal(op, data.draw(st.sampled_from(MACHINES)))
    assert why is None or "layout" in why


def refusal(op, isa) -> str | None:
    """Why there is no strict embedding; None where there is a right one."""
    try:
        judged(op, isa, "strict")
    except Infeasible as error:
        return str(error)
    return None
