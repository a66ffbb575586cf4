"""`csp-embed explain … --ground`: brute force's numbers; one error where the model is no use."""

from __future__ import annotations

from command_line import run

from csp_embed import ops
from csp_embed.embed.ground.points import pose_ground
from csp_embed.machine.load import load_isa
from tests.oracles.brute import brute_irregular
from tests.oracles.brute_regular import brute_regular

TINY = ["explain", "matmul", "--m", 2, "--n", 1, "--k", 2, "--isa", "toy_dot", "--ground"]


def test_fewest_steps_and_coverings(capsys) -> None:
    document = run(capsys, *TINY, "--json").document
    regular, every = document["ground"]
    op, isa = ops.matmul(m=2, n=1, k=2), load_isa("toy_dot")
    posed = [pose_ground(op, isa, 2, commuted=c) for c in (False, True)]
    assert not any(brute_irregular(pose_ground(op, isa, 1, commuted=c)) for c in (False, True))
    assert (regular["status"], regular["steps"]) == ("OPTIMAL", 2)
    assert (every["status"], every["steps"]) == ("OPTIMAL", 2)
    assert regular["coverings"] == sum(len(brute_regular(g)) for g in posed)
    assert every["coverings"] == sum(len(brute_irregular(g)) for g in posed)
    text = run(capsys, *TINY).out
    assert f"coverings: {every['coverings']} up to order of steps and lanes" in text


def test_too_many_points_and_pins_are_refused(capsys) -> None:
    large = run(capsys, "explain", "matmul", "--m", 20, "--n", 20, "--k", 30, "--ground")
    assert large.code == 2
    assert "12,000 points, the ground model takes 2,000" in large.err
    pinned = run(capsys, *TINY, "--forbid", "commuted")
    assert pinned.code == 2
    assert "--ground knows no pins" in pinned.err
