"""Every extension against trying everything, on a sample; `scripts/bench_serving tiny` has 200 of
each."""

from __future__ import annotations

import pytest
import serving_tiny as tiny


@pytest.mark.parametrize("name", tiny.NAMES)
@pytest.mark.parametrize("seed", range(40, 43))
def test_extensions(name: str, seed: int) -> None:
    """The optimum is found, nothing wrong is claimed, and the judge accepts the plan."""
    document, options, best = tiny.case(name, seed)
    said = tiny.compared(document, options, best)
    assert said["found"]
    assert not said["wrong"]
    assert not said.get("refused")
