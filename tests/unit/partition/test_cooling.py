"""Temperatures from the instance: they follow its times, and the moves that make a plan worse."""

import numpy as np
import pytest
from partition_cases import platform, random_graph

from csp_embed.partition.arrays.view import make_problem
from csp_embed.partition.methods.local.cooling import TINY, slices, span, usual_rise
from csp_embed.partition.methods.period.balance import balance
from csp_embed.partition.methods.period.period_loads import load_arrays


def rise_of_loads(cost: np.ndarray) -> float:
    """The usual rise of a problem with these costs and no edges, from all tasks on device 0."""
    p = make_problem(random_graph(len(cost), 1, cost.shape[1], ccr=0.0), platform(cost.shape[1]))
    q = load_arrays(p)
    q.cost[:] = cost
    dev = np.zeros(len(cost), np.int64)
    return usual_rise(lambda noted: balance(q, dev, 2000, TINY, TINY, 1, rises=noted))


def test_temperatures_follow_the_unit_of_time() -> None:
    cost = np.random.default_rng(1).uniform(1, 9, (12, 3))
    usual = rise_of_loads(cost)
    assert usual > 0
    assert rise_of_loads(1000 * cost) == pytest.approx(1000 * usual, rel=1e-9)


def test_two_equal_tasks_rise_by_what_one_weighs() -> None:
    """On two devices the descent ends with one task each; both together weigh 4 more, and the root
    mean square of the loads grows from 4 to sqrt(32); a tenth of it is in the energy."""
    usual = rise_of_loads(np.full((2, 2), 4.0))
    assert usual == pytest.approx(4 + 0.1 * (np.sqrt(32) - 4))


def test_where_nothing_gets_worse_the_temperature_is_the_least() -> None:
    assert usual_rise(lambda noted: None) == 0
    assert span(0.0, 0.3, 0.01) == (TINY, TINY)


def test_slices_join_and_fall_by_an_equal_factor() -> None:
    rows = list(slices(8.0, 0.5, 4000, 1000))
    assert [size for _, _, size in rows] == [1000] * 4
    assert [top for top, _, _ in rows] == pytest.approx([8, 4, 2, 1])
    assert [low for _, low, _ in rows] == pytest.approx([4, 2, 1, 0.5])
