"""Three enumerators find the same coverings; the lifted model claims none but regular ones."""

from __future__ import annotations

import pytest

from csp_embed import ops
from csp_embed.embed.ground.brute import brute_irregular, brute_regular
from csp_embed.embed.ground.corpus import corpus, machines, posed
from csp_embed.embed.ground.enumerate import irregular_solutions, regular_solutions
from csp_embed.embed.ground.lifted import lifted_solutions
from csp_embed.embed.ground.model import build_model
from csp_embed.embed.ground.posted import posted_irregular, posted_regular
from csp_embed.embed.ground.problem import pose_ground
from csp_embed.embed.ground.symmetry import orbit
from csp_embed.solver.enumerate import conflict
from csp_embed.solver.params import Params

TINY = [
    "dot matmul 2x2x2",
    "dot matmul 3x1x2 commuted",
    "dot conv1d strided",
    "dot max pooling",
    "dot avg pooling",
]


@pytest.mark.parametrize("name", TINY)
def test_three_enumerators_and_the_lifted_model(name: str) -> None:
    (row,) = [r for r in corpus() if r.name == name]
    ground = posed(row)
    assert ground is not None
    coverings = brute_irregular(ground)
    assert coverings
    assert irregular_solutions(ground).keys == coverings
    assert posted_irregular(ground) == coverings
    regular = brute_regular(ground, coverings)
    assert regular_solutions(ground).keys == regular
    assert posted_regular(ground) == regular
    assert lifted_solutions(ground, row.isa) <= regular


def test_breaking_symmetry_keeps_one_covering_of_each_orbit() -> None:
    ground = pose_ground(ops.matmul(m=2, n=1, k=2), machines()["dot"], 2)
    broken, whole = (irregular_solutions(ground, broken=b) for b in (True, False))
    assert broken.keys == whole.keys
    assert broken.raw == len(broken.keys)
    assert whole.raw >= sum(orbit(ground, k) for k in whole.keys)


def test_breaking_symmetry_of_maps_loses_no_regular_covering() -> None:
    ground = pose_ground(ops.conv1d(n=1, c=1, w=3, k=2, r=2), machines()["2x2x2"], 1)
    broken, whole = (regular_solutions(ground, broken=b) for b in (True, False))
    assert broken.keys == whole.keys
    assert broken.raw < whole.raw


def test_families_in_conflict() -> None:
    ground = pose_ground(ops.matmul(m=2, n=2, k=2), machines()["dot"], 3)  # 4 steps are needed
    vars = build_model(ground, explain=True, broken=False)
    gates = vars.gates
    status, names = conflict(vars.model, gates, Params(deterministic_limit=30.0))
    assert status == "INFEASIBLE"
    assert {"cover", "injectivity"} & set(names)
