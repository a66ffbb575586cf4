"""Where the constants of a round are 0: there is nothing to multiply, and nothing to load.

Takes: a Problem, its layer.  Leaves: by round and counter the range that holds all of a round's
constants; what lies outside is skipped.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.algebra.packing import pack
from csp_embed.ir.embedding import Embedding
from csp_embed.machine.spec import Isa
from csp_embed.network.lower.lowered import Lowered
from csp_embed.schedule.inputs import Map, Problem
from csp_embed.schedule.inputs import build as build_problem

Ranges = tuple[tuple[int, int], ...]


def live_ranges(problem: Problem, made: Lowered) -> tuple[Ranges, ...]:
    """Empty where every round needs all of its products."""
    e = problem.embedding
    tensors = e.operator.tensors
    sides = [m for m in (problem.lhs, problem.rhs) if m is not None
             and tensors[e.layouts[m.operand].tensor].constant]  # fmt: skip
    # Both factors variable, or both constant: nothing is known to be 0.
    if len(sides) != 1:
        return ()
    (m,) = sides
    layout, found = e.layouts[m.operand], list[Ranges]()
    # Each round has factors of its own.
    factors = [made.constants[turn][layout.tensor] for turn in problem.turns]
    # Most layers end here, before anything is packed.
    if all(map(_dense, factors)):
        return ()
    for array in factors:
        elements = pack(layout, e, problem.isa, array)
        # An element is used where any of its lanes is.
        used = (elements != 0).reshape(*m.grid, -1).any(axis=-1)
        found.append(tuple(_range(problem, m, used, c) for c in range(len(problem.extents))))
    whole = tuple((0, n) for n in problem.extents)
    # Where no round has a product, one is kept: a schedule without any is none.
    some = any(all(a < b for a, b in r) for r in found)
    return tuple(found) if some and any(r != whole for r in found) else ()


def problem_of(e: Embedding, isa: Isa, made: Lowered) -> Problem:
    """A layer's rounds by one of its embeddings, every product of them."""
    return build_problem(
        e, isa, made.rounds, made.repeats, made.copies, made.kept, made.dropped
    )  # fmt: skip


def _range(problem: Problem, m: Map, used: NDArray[np.bool_], counter: int) -> tuple[int, int]:
    """From the first value of a counter at which a constant is not 0 to behind the last one."""
    size = problem.extents[counter]
    moved = [d for d, movers in enumerate(m.movers) if any(c == counter for c, _ in movers)]
    # Outputs have no product less; places that several counters reach are not told apart.
    if not problem.reduced[counter] or len(moved) != 1 or len(m.movers[moved[0]]) != 1:
        return 0, size
    (d,) = moved
    ((_, step),) = m.movers[d]
    others = tuple(a for a in range(used.ndim) if a != d)
    # Where the counter's values lie in the grid.
    places = m.origin[d] + step * np.arange(size)
    inside = (places >= 0) & (places < m.grid[d])
    seen = np.asarray(used.any(axis=others))
    # Outside of the grid zeros are loaded, which need no product either.
    held = np.flatnonzero(inside & seen[np.clip(places, 0, m.grid[d] - 1)])
    return (int(held[0]), int(held[-1]) + 1) if held.size else (0, 0)


def _dense(array: NDArray[Any]) -> bool:
    """Whether no border of the constants is 0 as a whole, so that nothing can be cut off."""
    return all(
        array.take(0, axis).any() and array.take(-1, axis).any() for axis in range(array.ndim)
    )


def passes(e: Embedding, made: Lowered, isa: Isa) -> float:
    """How often an embedding makes its products, rounds counted in part where constants are 0."""
    problem = problem_of(e, isa, made)
    return replace(problem, live=live_ranges(problem, made)).passes
