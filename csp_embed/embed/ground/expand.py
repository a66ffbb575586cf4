"""The lifted model's embeddings of a ground problem, expanded to its points.

Takes: Ground, Isa.  Leaves: embeddings, and where each puts every point.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator

import numpy as np

from csp_embed.embed.algebra.rows import Reject
from csp_embed.embed.build import build
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.space.digits import Decisions
from csp_embed.embed.space.options import block_options, lanes_of
from csp_embed.embed.space.reduced import fused_options
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.ground import Ground, Ints
from csp_embed.machine.spec import Isa


def lifted_embeddings(ground: Ground, isa: Isa, mode: str = "relaxed") -> Iterator[Embedding]:
    """Every embedding of the lifted model with the ground problem's commutation."""
    problem = EmbedProblem.of(ground.op, isa, mode)
    op, unit, rules = problem.op, problem.unit, problem.rules(ground.commuted)
    # Options of blocks by themselves; their product is all embeddings.
    blocks = [list(block_options(rules, block)) for block in problem.blocks]
    order = {a: n for n, a in enumerate(op.axes)}
    for fused in fused_options(rules):
        given = set(fused.axes) if fused else set[str]()
        for picked in itertools.product(*blocks):
            # What blocks give away is what the fused carry takes.
            if set[str]().union(*(away for _, away in picked)) != given:
                continue
            carries = [c for own, _ in picked for c in own] + ([fused] if fused else [])
            used = lanes_of(carries)
            # More lanes than the machine has.
            if any(used.get(d, 1) > n for d, n in unit.size.items()):
                continue
            # In the operator's order, as the lifted model names its coordinates.
            carries.sort(key=lambda c: order[c.axes[0]])
            try:
                yield build(problem, Decisions(ground.commuted, tuple(carries)))
            except Reject:
                # Rules over several blocks are checked when it is built.
                continue


def named_steps(embedding: Embedding) -> int:
    """Steps that the counters name, those without effect included."""
    return math.prod(c.extent for c in embedding.counters)


def expanded(ground: Ground, embedding: Embedding) -> Ints:
    """Step (numbered by first use) and lanes of every effective point; -1 where it is missed.

    Raises: ValueError, where a point is met twice.
    """
    axes = ground.op.axes
    index = {tuple(p): q for q, p in enumerate(ground.points.tolist())}
    at = np.full((len(index), 1 + len(ground.sizes)), -1, np.int64)
    moves = [*embedding.counters, *embedding.digits]
    steps: dict[tuple[int, ...], int] = {}
    for values in itertools.product(*(range(m.extent) for m in moves)):
        name = {m.name: v for m, v in zip(moves, values, strict=True)}
        # Diagonal digits carry one value: other combinations are no places.
        if any(name[a] != name[b] for a, b in embedding.equal):
            continue
        point: dict[str, int] = {}
        for c in embedding.coordinates:
            flat = c.const + sum(k * name[n] for n, k in (*c.digits.items(), *c.counters.items()))
            if not 0 <= flat < c.extent:
                # Outside the domain: pad.
                break
            for a in reversed(c.axes):
                # Flattened row-major: the last axis is the fastest.
                flat, point[a] = divmod(flat, axes[a])
        else:
            q = index.get(tuple(point[a] for a in axes))
            # In the domain, but with a factor out of range: no effect.
            if q is None:
                continue
            if at[q, 0] >= 0:
                raise ValueError(f"{embedding.formula()} meets point {q} twice")
            where = dict.fromkeys(ground.sizes, 0)
            for d in embedding.digits:
                where[d.dim] += d.radix * name[d.name]
            # Steps without any point get no number.
            step = steps.setdefault(values[: len(embedding.counters)], len(steps))
            at[q] = (step, *where.values())
    return at
