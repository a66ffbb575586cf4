"""A first answer for the solver to start from: descent over blocks, two at a time.

Takes: Candidates.  Leaves: picked options and their cost. Not needed for correctness: it gives
CP-SAT a hint and an upper bound.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.algebra.cost import Weights, elementwise, objective, parts
from csp_embed.embed.problem import EmbedProblem, Option
from csp_embed.embed.space.candidates import Candidates


def cost_of(problem: EmbedProblem, picked: Sequence[Option]) -> int:
    """The analytic cost of one option per block, in the objective's units."""
    elements = {r: math.prod(o.elements[r] for o in picked) for r in picked[0].elements}
    # Sizes are products over blocks, which is why blocks exist.
    steps = math.prod(o.steps for o in picked)
    return objective(*parts(problem.weights, steps, elements, picked[0].commuted))


def worst_cost(space: Candidates) -> int:
    """At least the cost of every answer: each block at its worst in everything."""
    # Worst in each thing by itself: no answer is that bad, and a bound need not be one.
    w, count = space.problem.weights, len(space.problem.blocks)
    blocks = [[o for o in space.options if o.block == b] for b in range(count + 1)]
    steps = math.prod(max(o.steps for o in options) for options in blocks)
    elements = {
        role: math.prod(max(o.elements[role] for o in options) for options in blocks)
        for role in blocks[0][0].elements
    }
    return max(objective(*parts(w, steps, elements, commuted)) for commuted in (False, True))


@dataclass(frozen=True)
class _Table:
    """Options of one block as columns."""

    options: list[Option]
    lanes: NDArray[np.float64]  # log, [option, dimension]
    factors: NDArray[np.float64]  # [option, steps and roles]


def warm_start(space: Candidates) -> tuple[tuple[Option, ...], int] | None:
    """A good answer and its cost; None where none was met."""
    best: tuple[tuple[Option, ...], int] | None = None
    count = len(space.problem.blocks)
    # The last block is the fused coordinate, and what it takes the others must leave.
    fusions = [o for o in space.options if o.block == count]
    groups = sorted({(o.commuted, tuple(sorted(o.given))) for o in fusions})
    for commuted, given in groups:
        found = _descend(space, commuted, frozenset(given))
        if found is not None and (best is None or found[1] < best[1]):
            best = found
    return best


def structure_of(picked: Sequence[Option]) -> tuple[object, ...]:
    """Who is carried where, without numbers: by this answers are told apart."""
    return (picked[0].commuted, *((o.shape, o.given) for o in picked))


def _descend(
    space: Candidates, commuted: bool, given: frozenset[str]
) -> tuple[tuple[Option, ...], int] | None:
    problem, w = space.problem, space.problem.weights
    count = len(problem.blocks)
    tables: list[_Table] = []
    roles = list(space.options[0].elements)
    for block in range(count + 1):
        # A block leaves exactly those of its axes that the fused coordinate takes.
        axes = given if block == count else given & set(problem.blocks[block])
        options = [
            o
            for o in space.options
            if o.block == block
            and o.commuted == commuted
            and o.given == axes
            and problem.pins.keep(o)
        ]
        if not options:
            return None
        tables.append(_table(problem, options, roles))
    # Lanes multiply, so logarithms add; half a lane of room keeps rounding from refusing a full
    # dimension.
    limits = np.log([n + 0.5 for n in problem.unit.size.values()])
    # From the narrowest options: they fit together if anything does.
    at = [int(np.argmin(t.lanes.sum(axis=1))) for t in tables]
    value = _score(w, roles, commuted, _all(tables, at)[None])[0]
    pairs = [
        (a, b)
        for a, b in itertools.combinations(range(len(tables)), 2)
        if len(tables[a].options) * len(tables[b].options) > 1
    ]
    while True:
        # The best of all pairs is taken each round; two at a time, because lanes that one gives up
        # another must take.
        move = None
        for a, b in pairs:
            rest = [n for n in range(len(tables)) if n not in (a, b)]
            used = sum((tables[n].lanes[at[n]] for n in rest), np.zeros(len(limits)))
            others = np.prod([tables[n].factors[at[n]] for n in rest], axis=0)
            lanes = tables[a].lanes[:, None] + tables[b].lanes[None] + used
            fits = (lanes <= limits).all(axis=2)
            factors = tables[a].factors[:, None] * tables[b].factors[None] * others
            scores = np.where(fits, _score(w, roles, commuted, factors), np.inf)
            i, j = np.unravel_index(int(np.argmin(scores)), scores.shape)
            if scores[i, j] < value:
                value, move = scores[i, j], (a, int(i), b, int(j))
        if move is None:
            break
        at[move[0]], at[move[2]] = move[1], move[3]
    picked = tuple(t.options[n] for t, n in zip(tables, at, strict=True))
    # Even the narrowest may not fit together: then there is nothing to start from.
    if not np.isfinite(value):
        return None
    return picked, cost_of(problem, picked)


def _table(problem: EmbedProblem, options: list[Option], roles: Sequence[str]) -> _Table:
    dims = list(problem.unit.size)
    lanes = np.log([[float(o.lanes.get(d, 1)) for d in dims] for o in options])
    factors = [[float(o.steps), *(float(o.elements[r]) for r in roles)] for o in options]
    return _Table(options, lanes.reshape(len(options), len(dims)), np.array(factors))


def _all(tables: Sequence[_Table], at: Sequence[int]) -> NDArray[np.float64]:
    return np.prod([t.factors[n] for t, n in zip(tables, at, strict=True)], axis=0)


def _score(
    w: Weights, roles: Sequence[str], commuted: bool, factors: NDArray[np.float64]
) -> NDArray[np.float64]:
    """The objective of many answers at once (float64, for comparison only)."""
    columns = {r: factors[..., n + 1] for n, r in enumerate(roles)}
    scores: NDArray[np.float64] = objective(
        *parts(w, factors[..., 0], columns, commuted), slowest=elementwise
    )
    return scores
