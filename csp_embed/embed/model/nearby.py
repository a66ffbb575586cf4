"""The cheapest embeddings of other structures than the best: all within a cost limit, no solver.

Takes: Candidates, a cost limit.  Leaves: answers, one for each structure, cheapest first.

Blocks are joined one after the other; a partial answer stays while a lower bound on what completes
it keeps the limit (the bound of `reduce`). Structures are who is carried where, without numbers.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.algebra.cost import Weights, elementwise, objective, parts
from csp_embed.embed.model.greedy import cost_of
from csp_embed.embed.model.reduce import SLACK, within
from csp_embed.embed.problem import EmbedProblem, Option
from csp_embed.embed.space.candidates import Candidates

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
MOST = 100_000  # partial answers that are kept: beyond, the list may lack a structure, and says so


@dataclass(frozen=True)
class Nearby:
    """answers: (one option per block, cost), one for each structure, cheapest first. complete:
    there is no other structure within the limit, and none of these is cheaper."""

    answers: list[tuple[tuple[Option, ...], int]]
    complete: bool


@dataclass
class _Joined:
    """Partial answers. picks: [answer, block] row of the group's options; values: [answer, what]
    steps and elements; lanes: [answer, dimension]."""

    picks: Ints
    values: Floats
    lanes: Floats

    def take(self, rows: NDArray[np.intp]) -> _Joined:
        return _Joined(self.picks[rows], self.values[rows], self.lanes[rows])


def nearby(space: Candidates, limit: int) -> Nearby:
    """All structures with an answer of at most `limit`."""
    problem = space.problem
    # The same bound as the solver's reduction, so that both see the same options.
    options, count = within(space, limit), len(problem.blocks)
    found: list[tuple[float, tuple[Option, ...]]] = []
    complete = True
    fusions = [o for o in options if o.block == count]
    for commuted, given in sorted({(o.commuted, tuple(sorted(o.given))) for o in fusions}):
        blocks: list[list[Option]] = []
        for block in range(count + 1):
            axes = frozenset(given)
            if block != count:
                axes &= set(problem.blocks[block])
            blocks.append([o for o in options if (o.block, o.commuted) == (block, commuted)
                           and o.given == axes])  # fmt: skip
        # No answer where a block has no option left.
        if all(blocks):
            answers, whole = _group(problem, blocks, limit)
            found += answers
            complete &= whole
    # By float cost first, then exactly: rounding must neither drop nor add an answer at the limit.
    found.sort(key=lambda f: f[0])
    exact = [(picked, cost_of(problem, picked)) for _, picked in found]
    return Nearby([a for a in exact if a[1] <= limit], complete)


def _group(
    problem: EmbedProblem, blocks: Sequence[list[Option]], limit: int
) -> tuple[list[tuple[float, tuple[Option, ...]]], bool]:
    """The cheapest answer of each structure, of one way to commute and to fuse."""
    dims, roles = list(problem.unit.size), list(blocks[0][0].elements)
    size = np.array([problem.unit.size[d] for d in dims], float)
    over = np.ones((1 + len(roles), len(dims)), bool)
    for n, role in enumerate(roles):
        own = problem.unit.dims_of(role)
        over[n + 1] = [d in own for d in dims]
    tables: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []
    for options in blocks:
        values = [[o.steps, *(o.elements[r] for r in roles)] for o in options]
        lanes = [[o.lanes.get(d, 1) for d in dims] for o in options]
        tables.append((np.array(values, float), np.array(lanes, float)))
    order = sorted(range(len(blocks)), key=lambda b: len(blocks[b]))
    waste = [v * _over(lanes, over) for v, lanes in tables]
    capacity = _over(size[None], over)[0]
    joined = _Joined(
        np.zeros((1, 0), np.int64), np.ones((1, 1 + len(roles))), np.ones((1, len(dims)))
    )
    complete = True
    for n, block in enumerate(order):
        values, lanes = tables[block]
        rest = order[n + 1 :]
        least = np.prod([tables[b][0].min(axis=0) for b in rest], axis=0)
        spare = np.prod([waste[b].min(axis=0) for b in rest], axis=0)
        i, j = np.nonzero((joined.lanes[:, None] * lanes[None] <= size).all(axis=2))
        joined = _Joined(
            np.concatenate([joined.picks[i], j[:, None]], axis=1),
            joined.values[i] * values[j],
            joined.lanes[i] * lanes[j],
        )
        low = np.maximum(
            joined.values * least, joined.values * _over(joined.lanes, over) * spare / capacity
        )
        bound = _score(problem.weights, roles, blocks[0][0].commuted, low)
        keep = np.flatnonzero(bound <= limit * SLACK)
        if len(keep) > MOST:
            keep = np.sort(keep[np.argsort(bound[keep], kind="stable")[:MOST]])
            complete = False
        joined = joined.take(keep)
    score = _score(problem.weights, roles, blocks[0][0].commuted, joined.values)
    shapes = [_numbers([(o.shape, o.given) for o in blocks[b]]) for b in order]
    kinds = np.stack([s[joined.picks[:, n]] for n, s in enumerate(shapes)], axis=1)
    rank = np.argsort(score, kind="stable")
    _, first = np.unique(kinds[rank], axis=0, return_index=True)
    out: list[tuple[float, tuple[Option, ...]]] = []
    for row in rank[np.sort(first)]:
        picked = [blocks[b][int(p)] for b, p in zip(order, joined.picks[row], strict=True)]
        out.append((float(score[row]), tuple(sorted(picked, key=lambda o: o.block))))
    return out, complete


def _over(lanes: Floats, over: NDArray[np.bool_]) -> Floats:
    """[row, what]: product of the lanes of the dimensions that each figure has."""
    return np.stack([lanes[:, own].prod(axis=1) for own in over], axis=1)


def _score(w: Weights, roles: Sequence[str], commuted: bool, values: Floats) -> Floats:
    columns = {r: values[:, n + 1] for n, r in enumerate(roles)}
    out: Floats = objective(*parts(w, values[:, 0], columns, commuted), slowest=elementwise)
    return out


def _numbers(keys: Sequence[object]) -> Ints:
    number: dict[object, int] = {}
    return np.array([number.setdefault(k, len(number)) for k in keys], np.int64)
