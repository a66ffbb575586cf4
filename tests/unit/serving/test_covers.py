"""The search for the cheapest set of machines says when it has not looked at all sets."""

import numpy as np
import pytest

from csp_embed.serving.bounds.covers import cheapest


@pytest.mark.parametrize(("machines", "finished"), [(100, True), (700, False)])
def test_sets_that_are_too_large_prove_nothing(machines, finished):
    """One class of machines of which `machines` carry one flow."""
    rate, cls = np.array([1.0]), np.array([0])
    found = cheapest(rate, cls, np.array([1.0]), np.array([0.0]), np.array([machines + 1]),
                     machines - 0.5, 0.0, np.inf, 1 << 20)  # fmt: skip
    assert found[-1] is finished
    assert not finished or found[0] == machines
