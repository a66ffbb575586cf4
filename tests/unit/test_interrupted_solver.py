"""An interrupt while CP-SAT runs ends the search and is reported, whenever it comes."""

from __future__ import annotations

import itertools
import signal
from typing import Any

import pytest

from csp_embed.solver import cpsat
from csp_embed.solver.params import Params


def interrupt(*_: Any) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("after", [0.15, 0.22, 0.31])
def test_an_interrupt_ends_the_search(after: float) -> None:
    model = cpsat.new_model()
    places = [model.new_int_var(0, 400, "") for _ in range(40)]
    model.add_all_different(places)
    for a, b in itertools.pairwise(places):
        model.add_abs_equality(model.new_int_var(1, 400, ""), a - b)
    model.minimize(sum((7 * n % 11 - 5) * x for n, x in enumerate(places)))
    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        answer = cpsat.solve(model, Params(time_limit=20.0))
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    # One that is proved sooner was not interrupted.
    assert answer.interrupted or answer.status == "OPTIMAL"
