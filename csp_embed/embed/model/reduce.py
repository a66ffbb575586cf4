"""Leaves out options that no answer within a cost limit can contain.

Takes: Candidates, a cost limit.  Leaves: the options that remain; every answer that costs at most
the limit survives.

An option's waste bounds the whole: lanes multiply over blocks to at most the machine's, so
steps = product(steps * lanes) / product(lanes) >= product over blocks of min(steps * lanes) / all
lanes, and the same holds for an operand's elements and its own dimensions' lanes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.algebra.cost import elementwise, objective, parts
from csp_embed.embed.problem import EmbedProblem, Option
from csp_embed.embed.space.candidates import Candidates

# A float64 comparison must not drop an answer that costs exactly the limit.
SLACK = 1 + 1e-9


def within(space: Candidates, limit: int) -> list[Option]:
    """Options that some answer of at most `limit` may contain, in order."""
    problem = space.problem
    count = len(problem.blocks)
    kept: set[int] = set()
    fusions = [o for o in space.options if o.block == count]
    for commuted, given in sorted({(o.commuted, tuple(sorted(o.given))) for o in fusions}):
        blocks: list[list[Option]] = []
        for block in range(count + 1):
            axes = frozenset(given)
            if block != count:
                axes &= set(problem.blocks[block])
            blocks.append(
                [
                    o
                    for o in space.options
                    if o.block == block and o.commuted == commuted and o.given == axes
                ]
            )
        if all(blocks):
            kept |= _survivors(problem, blocks, limit)
    return [o for o in space.options if id(o) in kept]


def _survivors(problem: EmbedProblem, blocks: Sequence[Sequence[Option]], limit: int) -> set[int]:
    size, commuted = problem.unit.size, blocks[0][0].commuted
    dims = {"steps": tuple(size)} | {
        role: problem.unit.dims_of(role) for role in blocks[0][0].elements
    }
    waste: list[dict[str, NDArray[np.float64]]] = []
    for options in blocks:
        waste.append(
            {
                what: np.array(
                    [
                        float(o.steps if what == "steps" else o.elements[what])
                        * math.prod(o.lanes.get(d, 1) for d in over)
                        for o in options
                    ]
                )
                for what, over in dims.items()
            }
        )
    out: set[int] = set()
    for n, options in enumerate(blocks):
        low: dict[str, NDArray[np.float64]] = {}
        for what, over in dims.items():
            others = math.prod(float(v[what].min()) for m, v in enumerate(waste) if m != n)
            low[what] = waste[n][what] * others / math.prod(size[d] for d in over)
        bound = objective(*parts(problem.weights, low["steps"], low, commuted), slowest=elementwise)
        out |= {id(o) for o, b in zip(options, bound, strict=True) if b <= limit * SLACK}
    return out
