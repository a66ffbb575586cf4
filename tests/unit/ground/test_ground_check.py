"""Wrong coverings are refused, each by the rule that it breaks."""

from __future__ import annotations

import random

import numpy as np

from csp_embed import ops
from csp_embed.embed.ground.points import pose_ground
from csp_embed.embed.ground.rectangles import covers
from csp_embed.judge.embedding.covering import Covering, _few_transfers, covering_of, judge
from tests.oracles.corpus import machines

VTA = machines()["2x2x2"]  # dimensions b, o, i of two lanes each


def rules(ground, covering) -> set[int]:
    return {b.rule for b in judge(ground, covering)}


def test_the_plain_covering_is_right() -> None:
    ground = pose_ground(ops.matmul(m=2, n=2, k=2), VTA, 1)
    at = np.array([(0, *p[[0, 1, 2]]) for p in ground.points])  # axes n, m, k on b, o, i
    assert judge(ground, covering_of(ground, at)) == []


def test_reduction_split_over_output_lanes_has_two_homes() -> None:
    ground = pose_ground(ops.matmul(m=1, n=1, k=2), VTA, 1)
    split = Covering(({(0, 0, 0): 0, (0, 1, 1): 1},))
    assert rules(ground, split) == {6}
    apart = Covering(({(0, 0, 0): 0}, {(0, 1, 0): 1}))
    assert rules(ground, apart) == {6}


def test_two_elements_in_one_lane_of_a_step() -> None:
    ground = pose_ground(ops.matmul(m=1, n=2, k=1), VTA, 1)
    both = Covering(({(0, 0, 0): 0, (0, 1, 0): 1},))  # x[0] and x[1] in the lane b=0, i=0
    assert rules(ground, both) == {2}


def test_two_contents_of_one_element_between_steps() -> None:
    ground = pose_ground(ops.matmul(m=2, n=1, k=1), VTA, 2)
    steps = ({(0, 0, 0): 0}, {(0, 0, 0): 1})
    assert judge(ground, Covering(steps)) == []
    assert rules(ground, Covering(steps, {"rhs": (0, 0)})) == {7}
    assert rules(ground, Covering(steps, {"dst": (0, 0)})) == {7}


def test_a_point_twice_and_a_point_missed() -> None:
    ground = pose_ground(ops.matmul(m=1, n=1, k=2), VTA, 2)
    step = {(0, 0, 0): 0, (0, 0, 1): 1}
    assert rules(ground, Covering((step, {(0, 0, 0): 0}))) == {3}
    assert rules(ground, Covering(({(0, 0, 0): 0}, {}))) == {5}


def test_garbage_in_a_stored_lane() -> None:
    # y[0] in o=0 reads i=0, y[1] in o=1 reads i=1: the off-diagonal lanes hold zeros.
    op = ops.depthwise_conv2d(n=1, c=2, h=1, w=1, r=1, s=1)
    ground = pose_ground(op, VTA, 1)
    diagonal = ({(0, 0, 0): 0, (0, 1, 1): 1},)
    assert judge(ground, Covering(diagonal)) == []
    weights = frozenset({("rhs", 0, 1)})  # live data at o=0, i=1
    assert rules(ground, Covering(diagonal, garbage=weights)) == {4}


def test_another_kind_of_instruction() -> None:
    op = ops.matmul(m=1, n=1, k=1)
    ground = pose_ground(op, VTA, 1, instruction="ALU")
    assert 1 in rules(ground, Covering(({(0, 0): 0},)))


def test_strict_operands_stand_once() -> None:
    ground = pose_ground(ops.matmul(m=2, n=1, k=1), VTA, 2, layout="strict")
    moved = Covering(({(0, 0, 0): 0}, {(0, 0, 1): 1}))  # x[0,0] in lane i=0, then in i=1
    assert rules(ground, moved) == {9}


def test_few_transfers_move_a_tile() -> None:
    assert covers({0, 1, 4, 5}, 1)  # two rows of two at stride 4
    assert not covers({0, 1, 3}, 1)
    assert covers({0, 1, 3}, 2)


def test_the_judge_counts_transfers_as_the_model_does() -> None:
    """Two codes, one answer, on every set of addresses below 9 and on random larger ones."""
    draw = random.Random(0)
    sets = [frozenset(a for a in range(9) if mask >> a & 1) for mask in range(1 << 9)]
    sets += [frozenset(draw.sample(range(40), draw.randint(1, 12))) for _ in range(60)]
    for addresses in sets:
        for most in range(4):
            assert _few_transfers(addresses, most) == covers(addresses, most), (addresses, most)
