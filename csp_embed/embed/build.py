"""From decisions to a whole embedding: digits, layouts, cost, the name of its kind.

Takes: EmbedProblem, Decisions (or the affine map that it means).  Leaves: Embedding.
Raises Reject where the decisions break a rule.
"""

from __future__ import annotations

import math

from csp_embed.embed.algebra.cost import figures
from csp_embed.embed.algebra.layouts import derive_layouts
from csp_embed.embed.algebra.rows import Reject
from csp_embed.embed.problem import EmbedProblem
from csp_embed.embed.space.digits import Decisions, Map, expand
from csp_embed.ir.embedding import Embedding


def build(problem: EmbedProblem, decisions: Decisions) -> Embedding:
    """The embedding that `decisions` mean.

    Raises: Reject, where they break a rule or do not keep the layout mode.
    """
    lanes = expand(problem.op, decisions)
    return build_map(problem, lanes, decisions.commuted, kind=kind_of(decisions))


def build_map(problem: EmbedProblem, lanes: Map, commuted: bool, *, kind: str = "") -> Embedding:
    """The embedding that an affine map means, if it meets every operator point once.

    Raises: Reject, where it breaks another rule or does not keep the layout mode.
    """
    op, isa, unit = problem.op, problem.isa, problem.unit
    # First the cheapest rule: layouts of a map that does not fit are costly to derive.
    for dim, size in unit.size.items():
        used = math.prod(d.extent for d in lanes.digits if d.dim == dim)
        if used > size:
            raise Reject("lanes", f"dimension {dim} has {size} lanes, {used} are asked for")
    layouts, counts = derive_layouts(op, unit, lanes, commuted, problem.mode)
    return Embedding(
        operator=op,
        isa_name=isa.name,
        instruction=unit.instruction,
        commuted=commuted,
        digits=lanes.digits,
        counters=lanes.counters,
        coordinates=lanes.coordinates,
        layouts=layouts,
        kind=kind,
        layout_mode=problem.mode,
        equal=lanes.equal,
        cost=figures(op, isa, unit, layouts, lanes.counters, counts, commuted, problem.weights),
    )


def kind_of(decisions: Decisions) -> str:
    """toeplitz (skewed), diagonal, mixed (both), im2col (several reduced axes share lanes) or
    aligned."""
    skewed = any(c.skew for c in decisions.carries)
    diagonal = any(c.diagonal for c in decisions.carries)
    if skewed and diagonal:
        return "mixed"
    if skewed or diagonal:
        return "toeplitz" if skewed else "diagonal"
    if any(len(c.axes) > 1 for c in decisions.carries):
        return "im2col"
    # Several reduced axes in one dimension are im2col, whatever options carry them.
    lanes: dict[str, int] = {}
    for c in decisions.carries:
        for dim, _ in (*c.inner, *c.outer):
            lanes[dim] = lanes.get(dim, 0) + 1
    return "im2col" if any(n > 1 for n in lanes.values()) else "aligned"
