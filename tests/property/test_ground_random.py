"""Random tiny operators on random tiny machines: three enumerators agree, the checker with them."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from csp_embed import ops
from csp_embed.embed.ground.enumerate import irregular_solutions, regular_solutions
from csp_embed.embed.ground.points import key, placed_at, pose_ground
from csp_embed.errors import OperatorError
from csp_embed.ir.ground import Ground
from csp_embed.judge.embedding.covering import Covering, covering_of, judge
from csp_embed.machine.load import load_isa
from tests.oracles.brute import brute_irregular
from tests.oracles.brute_regular import brute_regular
from tests.oracles.corpus import VTA_2X2X2
from tests.oracles.posted import posted_irregular
from tests.oracles.posted_regular import posted_regular

MACHINES = [
    load_isa("toy_dot", "tiny"),
    load_isa("toy_outer", "tiny"),
    load_isa("vta", VTA_2X2X2),
    load_isa("vta", {**VTA_2X2X2, "LOG_BATCH": 0}),
]
few = st.integers(1, 3)
one = {"n": 1, "h": 1, "r": 1}


@st.composite
def operators(draw):
    kind = draw(st.sampled_from(["matmul", "conv1d", "conv2d", "depthwise", "max", "avg"]))
    a, b, c = draw(few), draw(few), draw(few)
    stride, pad, dilation = (
        draw(st.integers(1, 2)),
        draw(st.integers(0, 1)),
        draw(st.integers(1, 2)),
    )
    how = {"stride": stride, "pad": pad}
    if kind == "matmul":
        return ops.matmul(m=a, n=b, k=c)
    if kind == "conv1d":
        return ops.conv1d(n=1, c=1, w=a + 1, k=b, r=c, dilation=dilation, **how)
    if kind == "conv2d":
        return ops.conv2d(n=1, c=1, h=a, w=b, k=1, r=draw(st.integers(1, 2)), s=c, **how)
    if kind == "depthwise":
        return ops.depthwise_conv2d(c=a, w=b + 1, s=c, stride=stride, **one)
    if kind == "max":
        return ops.max_pool2d(c=a, w=b + 1, s=c, stride=stride, **one)
    return ops.avg_pool2d(c=a, w=b + 1, s=c, stride=stride, m=1, shift=1, **one)


@st.composite
def problems(draw) -> Ground:
    """At most five points in at most 16 places."""
    try:
        op = draw(operators())
    except OperatorError:
        assume(False)
        raise
    isa = draw(st.sampled_from(MACHINES))
    commuted = op.rhs is not None and draw(st.booleans())
    layout = draw(st.sampled_from(["relaxed", "relaxed", "strict"]))
    ground = pose_ground(op, isa, 1, commuted=commuted, layout=layout)
    assume(0 < len(ground.points) <= 5)
    least = math.ceil(len(ground.points) / ground.lanes)
    steps = draw(st.integers(least, max(least, min(3, 16 // ground.lanes))))
    tile = draw(st.sampled_from([None, None, 2])) if steps > 1 else None
    return pose_ground(op, isa, steps, commuted=commuted, layout=layout, tile=tile, rectangles=1)


@settings(max_examples=25, deadline=None, derandomize=True)
@given(problems())
def test_three_ways(ground: Ground) -> None:
    coverings = brute_irregular(ground)
    assert posted_irregular(ground) == coverings
    assert irregular_solutions(ground).keys == coverings
    regular = brute_regular(ground, coverings)
    assert posted_regular(ground) == regular
    assert regular_solutions(ground).keys == regular


@settings(max_examples=60, deadline=None, derandomize=True)
@given(problems(), st.data())
def test_mutations_are_refused_by_their_rule(ground: Ground, data) -> None:
    assume(not ground.ordered)  # judged with memory elements, which a place alone does not say
    right = posted_irregular(ground)
    assume(right)
    at = placed_at(data.draw(st.sampled_from(sorted(right))))
    covering = covering_of(ground, at)
    assert judge(ground, covering) == []
    q = data.draw(st.integers(0, len(at) - 1))
    step, lanes = int(at[q, 0]), tuple(at[q, 1:].tolist())
    place = data.draw(
        st.tuples(*(st.integers(0, n - 1) for n in (ground.steps, *ground.sizes.values())))
    )

    without = [dict(s) for s in covering.steps]
    del without[step][lanes]
    assert 5 in {b.rule for b in judge(ground, Covering(without))}

    twice = [dict(s) for s in covering.steps]
    if place[1:] not in twice[place[0]]:
        twice[place[0]][place[1:]] = q
        assert 3 in {b.rule for b in judge(ground, Covering(twice))}

    moved = at.copy()
    other = next((p for p, row in enumerate(at.tolist()) if tuple(row) == place), None)
    if other is not None:
        moved[other] = at[q]
    moved[q] = place
    accepted = judge(ground, covering_of(ground, np.array(moved))) == []
    assert accepted == (key(ground, moved) in right)
