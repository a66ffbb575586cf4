"""Three enumerators find the same coverings; breaking symmetry removes copies and nothing else.

The whole corpus is compared by scripts/bench_ground; here are rows of every machine and kind.
"""

from __future__ import annotations

from dataclasses import replace

import pytest

from csp_embed.embed.ground.enumerate import irregular_solutions, regular_solutions
from csp_embed.embed.ground.symmetry import copies, orbit
from tests.oracles.brute import brute_irregular
from tests.oracles.brute_regular import brute_regular
from tests.oracles.corpus import corpus, posed, strict_corpus
from tests.oracles.posted import posted_irregular
from tests.oracles.posted_regular import posted_regular

# name: steps, irregular coverings, regular ones
COUNTS = {
    "dot matmul 2x1x3": (4, 72, 8),
    "dot conv1d strided commuted": (2, 2, 1),
    "dot max pooling": (4, 1, 1),
    "outer matmul 3x1x2": (4, 36, 8),
    "outer conv1d dilated": (2, 3, 2),
    "outer avg pooling": (4, 16, 7),
    "2x2x2 matmul 1x3x2 commuted": (2, 96, 12),
    "2x2x2 conv2d": (2, 6, 2),
    "2x2x2 max pooling": (2, 6, 3),
    "1x4x4 matmul 3x1x2": (1, 18, 4),
    "1x4x4 conv1d strided commuted": (1, 4, 2),
    "1x4x4 max pooling": (2, 2, 1),
    # x stands once: c in one lane for all steps.
    "dot matmul 2x1x3 strict": (4, 6, 4),
    "2x2x2 avg pooling strict": (2, 80, 7),
    # Overlapping windows: 720 orders of six steps, R = 1 refuses a third of them.
    "dot pooling overlapping R1": (6, 480, 4),
    "dot pooling overlapping R2": (6, 720, 8),
    "2x2x2 pooling R1": (3, 108, 18),
}
ROWS = {r.name: r for r in [*corpus(), *strict_corpus()]}


@pytest.mark.parametrize("name", COUNTS)
def test_three_enumerators(name: str) -> None:
    steps, count, regular_count = COUNTS[name]
    ground = posed(replace(ROWS[name], steps=steps))
    assert ground is not None
    coverings = brute_irregular(ground)
    assert irregular_solutions(ground).keys == coverings
    assert posted_irregular(ground) == coverings
    regular = brute_regular(ground, coverings)
    assert regular_solutions(ground).keys == regular
    assert posted_regular(ground) == regular
    assert (len(coverings), len(regular)) == (count, regular_count)


@pytest.mark.parametrize(
    "name", ["dot conv2d", "outer max pooling", "2x2x2 conv1d strided", "1x4x4 matmul 2x1x3"]
)
def test_breaking_symmetry_keeps_one_covering_of_each_orbit(name: str) -> None:
    ground = posed(ROWS[name])
    assert ground is not None
    broken, whole = (irregular_solutions(ground, broken=b) for b in (True, False))
    assert broken.keys == whole.keys
    assert broken.coverings == len(broken.keys)
    assert whole.coverings == sum(orbit(ground, k) for k in broken.keys) > broken.coverings


@pytest.mark.parametrize(
    "name", ["dot matmul 2x1x3", "outer conv1d padded", "2x2x2 conv1d strided", "1x4x4 avg pooling"]
)
def test_breaking_symmetry_of_maps_leaves_one_of_each_class(name: str) -> None:
    ground = posed(ROWS[name])
    assert ground is not None
    broken, whole = (regular_solutions(ground, broken=b) for b in (True, False))
    assert broken.keys == whole.keys
    assert broken.maps < whole.maps
    assert set().union(*(copies(ground, m) for m in broken.maps)) == whole.maps
