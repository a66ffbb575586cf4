"""A seeded part of scripts/fuzz_specs: variations of the shipped machines.

What `isa check` accepts must be compiled right, judged by NumPy; everything else must be refused
with file:line, a reason and a remedy. A traceback fails the test by itself.
"""

from __future__ import annotations

from pathlib import Path

import pytest
import random_specs

# Each change comes first once.
SEEDS = range(len(random_specs.CHANGES))


@pytest.mark.parametrize("seed", SEEDS)
def test_a_variation_is_right_or_refused(tmp_path: Path, seed: int) -> None:
    text, spec = random_specs.mutant(seed)
    path = tmp_path / "mutant.yaml"
    random_specs.write(spec, path)
    found = random_specs.verdict(path)
    assert found.kind in ("right", "refused"), f"{text}: {found.text}"


@pytest.mark.parametrize("name", random_specs.BASES)
def test_the_shipped_machines_are_right(tmp_path: Path, name: str) -> None:
    path = tmp_path / "same.yaml"
    random_specs.write(random_specs.base(name), path)
    assert random_specs.verdict(path).kind == "right"


def test_variations_are_the_same_every_time() -> None:
    assert [random_specs.mutant(n) for n in range(50)] == [
        random_specs.mutant(n) for n in range(50)
    ]
