"""Boxes and affine functions against isl, which shares nothing with them."""

from __future__ import annotations

import islpy as isl
import networkx as nx
from hypothesis import given
from hypothesis import strategies as st

from csp_embed.ir.affine import Affine, Limit, count_inside, meeting, reach
from csp_embed.ir.union import joined

NAMES = "abcd"
COEF = st.integers(-5, 5)


@st.composite
def boxes(draw: st.DrawFn) -> dict[str, int]:
    return {n: draw(st.integers(1, 6)) for n in NAMES[: draw(st.integers(1, 4))]}


@st.composite
def limits(draw: st.DrawFn, extents: dict[str, int]) -> list[Limit]:
    """Random ones, some without variables, some that hold everywhere."""
    return [
        (
            {n: draw(COEF.filter(bool)) for n in extents if draw(st.booleans())},
            draw(st.integers(-8, 8)),
            draw(st.integers(1, 12)),
        )
        for _ in range(draw(st.integers(0, 4)))
    ]


def text(step: dict[str, int], const: int) -> str:
    return " + ".join([*(f"{c}*{n}" for n, c in step.items()), str(const)])


def isl_box(extents: dict[str, int], found: list[Limit] = ()) -> isl.Set:
    """The points of the box at which all limits hold, as isl has them."""
    names = ", ".join(extents)
    says = [f"0 <= {n} < {size}" for n, size in extents.items()]
    says += [f"0 <= {text(step, const)} < {size}" for step, const, size in found]
    return isl.Set(f"{{ [{names}] : {' and '.join(says)} }}")


@given(st.data())
def test_points_inside_are_those_that_isl_counts(data: st.DataObject) -> None:
    extents = data.draw(boxes())
    found = data.draw(limits(extents))
    counted = isl_box(extents, found).count_val()
    assert count_inside(found, extents) == counted.to_python()


@given(st.data())
def test_reach_is_what_isl_finds(data: st.DataObject) -> None:
    extents = data.draw(boxes())
    terms = {n: data.draw(COEF) for n in extents}
    const = data.draw(st.integers(-9, 9))
    names = ", ".join(extents)
    function = isl.Aff(f"{{ [{names}] -> [{text(terms, const)}] }}")
    box = isl_box(extents)
    expected = box.min_val(function).to_python(), box.max_val(function).to_python()
    assert reach(((c, extents[n]) for n, c in terms.items()), const) == expected
    kept = tuple((n, c) for n, c in sorted(terms.items()) if c)
    assert Affine(kept, const).reach(extents) == expected


@given(COEF.filter(bool), st.integers(-20, 20), st.integers(0, 9), st.integers(1, 15))
def test_an_interval_meets_where_isl_says(coef: int, low: int, wide: int, size: int) -> None:
    high = low + wide
    inside = isl.Set(f"{{ [v] : exists d : {low} <= d <= {high} and 0 <= d + {coef}*v < {size} }}")
    first, last = meeting(coef, low, high, size)
    found = isl.Set(f"{{ [v] : {first} <= v <= {last} }}")
    assert found.is_equal(inside)


@given(st.lists(st.sets(st.integers(0, 12), max_size=4), max_size=8))
def test_joined_sets_are_connected_components(sets: list[set[int]]) -> None:
    graph = nx.Graph()
    for s in sets:
        nx.add_path(graph, sorted(s))
        graph.add_nodes_from(s)
    expected = sorted(map(sorted, nx.connected_components(graph)))
    found = joined(sets)
    assert sorted(sorted(g) for g in found if g) == expected
    assert sum(not g for g in found) == sum(not s for s in sets)
