"""How a grid lies in a home, against trying every base and pitch."""

from __future__ import annotations

import itertools

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from csp_embed.compiler.whole.homes import Grid, Home, fit, home_of, packed


def tried(grid: Grid, home: Home) -> tuple[int, tuple[int, ...]] | None:
    """Every base and pitch inside of the home, by the definition of a fit."""
    at = np.stack(np.unravel_index(grid.cell, grid.shape), axis=1)
    empty = np.stack(np.unravel_index(grid.empty, grid.shape), axis=1)
    held = grid.ids >= 0
    taken = {int(p) // grid.elem for p in home.place}
    # A dimension in which no elements differ has no pitch.
    free = [np.unique(at[held, d]).size > 1 for d in range(at.shape[1])]
    span = range(0, home.size, grid.elem)
    for pitch in itertools.product(*(span if f else (0,) for f in free)):
        for base in range(-home.size, home.size, grid.elem):
            first = at @ np.array(pitch) + base
            others = np.concatenate([first[~held], empty @ np.array(pitch) + base])
            right = (first + grid.lane)[held] == home.place[grid.ids[held]]
            beside = all(0 <= o < home.size and o // grid.elem not in taken for o in others)
            if right.all() and beside:
                return base, pitch
    return None


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_fit_is_the_base_and_pitch_that_hold_for_all(data: st.DataObject) -> None:
    shape = data.draw(st.tuples(st.integers(1, 3), st.integers(1, 3)))
    elem = data.draw(st.sampled_from([1, 2]))
    cells = shape[0] * shape[1]
    used = data.draw(st.integers(1, cells))
    border = data.draw(st.integers(0, used - 1))
    # From the front or from the back: an element that differs from the first one in one dimension
    # alone is there for each, without which the compiler does not look further.
    order = np.arange(cells)[:: data.draw(st.sampled_from([1, -1]))]
    cell = np.repeat(order[:used], elem)
    lane = np.tile(np.arange(elem), used)
    # The rest hold the tensor in some order.
    held = np.arange(cell.size) < elem * (used - border)
    ids = np.full(cell.size, -1)
    ids[held] = data.draw(st.permutations(range(int(held.sum()))))
    grid = Grid(shape, elem, cell, lane, ids, np.sort(order[used:]))
    lies, size = packed(grid, data.draw(st.permutations(range(2))))
    home = home_of(grid, lies, int(held.sum()), size)
    assert home is not None
    # Another grid's home now and then: two elements have changed places, or all moved.
    change = data.draw(st.sampled_from(["none", "swap", "move", "short"]))
    place = home.place.copy()
    if change == "swap":
        place[[0, -1]] = place[[-1, 0]]
    home = Home.of(place + elem * (change == "move"), size + elem * (change == "move"))
    if change == "short" and place.max() < size - elem:
        home = Home.of(place, size - elem)
    wanted, found = tried(grid, home), fit(grid, home)
    assert (None if found is None else (found.base, found.pitch)) == wanted


def test_a_grid_that_lacks_elements_is_no_home() -> None:
    none = np.zeros(0, np.int64)
    grid = Grid((3,), 1, np.arange(3), np.zeros(3, np.int64), np.array([0, 2, 2]), none)
    lies, size = packed(grid, [0])
    assert home_of(grid, lies, 3, size) is None
    whole = Grid((3,), 1, np.arange(3), np.zeros(3, np.int64), np.array([2, 0, 1]), none)
    found = home_of(whole, lies, 3, size)
    assert found is not None
    assert found.place.tolist() == [1, 2, 0]
