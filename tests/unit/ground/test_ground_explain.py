"""Infeasible ground problems name a minimal set of families in conflict."""

from __future__ import annotations

import pytest

from csp_embed import ops
from csp_embed.embed.ground.explain import conflicting_families, status_of
from csp_embed.embed.ground.points import pose_ground
from csp_embed.ir.ground import Ground
from tests.oracles.corpus import corpus, machines, posed, strict_corpus

MACHINES = machines()


def row(name: str) -> Ground:
    (found,) = [posed(r) for r in (*corpus(), *strict_corpus()) if r.name == name]
    assert found is not None
    return found


# An ALU is no multiplier; 8 points want 4 steps of 2 lanes; two outputs meet one lane; the halves
# of a reduction meet two lanes; overlapping windows move x from lane to lane.
CASES = {
    "kind": (
        pose_ground(ops.matmul(m=1, n=1, k=1), MACHINES["2x2x2"], 1, instruction="ALU"),
        {"kind", "cover"},
    ),
    "few steps": (pose_ground(ops.matmul(m=2, n=2, k=2), MACHINES["dot"], 3), {"cover"}),
    "two outputs": (
        pose_ground(ops.matmul(m=1, n=2, k=1), MACHINES["dot"], 1),
        {"agreement", "injectivity", "cover"},
    ),
    "split reduction": (
        pose_ground(ops.matmul(m=1, n=1, k=2), MACHINES["outer"], 1),
        {"home", "cover"},
    ),
    "strict windows": (
        pose_ground(ops.conv1d(n=1, c=1, w=3, k=1, r=2), MACHINES["dot"], 2, layout="strict"),
        {"layout", "content", "injectivity", "cover"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_minimal_set_of_families(name: str) -> None:
    ground, expected = CASES[name]
    found = conflicting_families(ground)
    assert set(found) == expected
    assert status_of(ground, found) == "INFEASIBLE"
    for family in found:
        assert status_of(ground, [f for f in found if f != family]) == "OPTIMAL"


def test_no_regular_covering_though_there_are_others() -> None:
    ground = row("outer conv1d padded strict")
    assert conflicting_families(ground) == ()
    found = conflicting_families(ground, regular=True)
    assert "regularity" in found
    for family in found:
        assert status_of(ground, [f for f in found if f != family]) == "OPTIMAL"
