"""Invented machines that are fed commands: what is accepted is compiled right and certified."""

from __future__ import annotations

from collections import Counter

import pytest
from random_commands import trial


# 0 and 7: state that a copy of one row reads was never set, as its value has no effect.
@pytest.mark.parametrize("seed", [0, 10, 19])
def test_an_invented_machine_computes_what_numpy_computes(seed: int) -> None:
    said: Counter[str] = Counter()
    assert trial(seed, said) == []
    assert said["accepted"] == 1
    assert said["certified"] > 0
