"""The fewest steps of a ground problem: answers that the checker accepts, bounds that hold."""

from __future__ import annotations

import pytest

from csp_embed import ops
from csp_embed.embed.ground.bounds import least_steps
from csp_embed.embed.ground.points import pose_ground
from csp_embed.embed.ground.solve import solve_ground
from csp_embed.judge.embedding.covering import judge
from tests.oracles.brute import brute_irregular
from tests.oracles.brute_regular import brute_regular
from tests.oracles.corpus import machines

MACHINES = machines()
TINY = {
    "matmul": ops.matmul(m=3, n=1, k=2),
    "strided": ops.conv1d(n=1, c=1, w=4, k=1, r=2, stride=2),
    "padded": ops.conv1d(n=1, c=1, w=2, k=1, r=2, pad=1),
    "depthwise": ops.depthwise_conv2d(n=1, c=2, h=1, w=2, r=1, s=2),
    "pooling": ops.max_pool2d(n=1, c=2, h=1, w=2, r=1, s=2),
}


@pytest.mark.parametrize("regular", [True, False])
@pytest.mark.parametrize("machine", ["dot", "outer"])
@pytest.mark.parametrize("name", TINY)
def test_fewest_steps_of_brute_force(name: str, machine: str, regular: bool) -> None:
    op, isa = TINY[name], MACHINES[machine]
    answer = solve_ground(op, isa, regular=regular, commuted=False)
    steps = 1
    while True:
        ground = pose_ground(op, isa, steps)
        found = brute_irregular(ground)
        if brute_regular(ground, found) if regular else found:
            break
        steps += 1
    assert (answer.status, answer.steps, answer.bound) == ("OPTIMAL", steps, steps)
    assert least_steps(pose_ground(op, isa, 1)) <= steps
    assert judge(answer.ground, answer.covering) == []


# Worked by hand: 10 rows of x by 20 in 4 lanes of o for 10 outputs, ceil(10/4)*10*20/4 = 150; the
# strided convolution by 4 outputs k and 9 taps of 3 channels as 28 lanes of i, 7 * 16 places.
@pytest.mark.parametrize(
    ("op", "machine", "steps"),
    [
        (ops.matmul(m=10, n=10, k=20), "1x4x4", 150),
        (ops.matmul(m=10, n=10, k=20), "2x2x2", 250),
        (ops.conv1d(n=1, c=4, w=18, k=8, r=3), "outer", 384),
        (ops.conv2d(n=1, c=3, h=9, w=9, k=4, r=3, s=3, stride=2), "1x4x4", 112),
        (ops.conv2d(n=1, c=3, h=9, w=9, k=4, r=3, s=3, stride=2), "dot", 896),
    ],
)
def test_large_problems_meet_the_bound(op, machine: str, steps: int) -> None:
    answer = solve_ground(op, MACHINES[machine])
    assert (answer.status, answer.steps, answer.bound) == ("OPTIMAL", steps, steps)
    assert judge(answer.ground, answer.covering) == []


def test_too_few_steps_are_explained() -> None:
    answer = solve_ground(ops.matmul(m=1, n=2, k=1), MACHINES["dot"], steps=1)
    assert (answer.status, answer.steps, answer.covering) == ("INFEASIBLE", None, None)
    assert set(answer.families) == {"agreement", "injectivity", "cover"}


def test_an_instruction_of_another_kind_is_explained() -> None:
    op = ops.matmul(m=1, n=1, k=1)
    answer = solve_ground(op, MACHINES["2x2x2"], instruction="ALU")
    assert answer.status == "INFEASIBLE"
    assert set(answer.families) == {"kind", "cover"}


def test_strict_layouts_take_more_steps() -> None:
    op = ops.conv1d(n=1, c=1, w=3, k=1, r=2)
    assert solve_ground(op, MACHINES["dot"]).steps == 2
    answer = solve_ground(op, MACHINES["dot"], layout="strict")
    grounds = (
        pose_ground(op, MACHINES["dot"], steps, layout="strict", commuted=commuted)
        for steps in range(1, 5)
        for commuted in (False, True)
    )
    least = next(g.steps for g in grounds if brute_regular(g))
    assert (answer.status, answer.steps) == ("OPTIMAL", least)
    assert least > 2
