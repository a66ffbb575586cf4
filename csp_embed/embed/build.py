"""From decisions to a whole embedding: digits, layouts, cost, the name of its kind.

Takes: Operator, Isa, Choice (or the affine map that it means), mode.  Leaves: Embedding.
Raises Reject where the choice breaks a rule.
"""

from __future__ import annotations

import math

from csp_embed.embed.algebra.cost import figures
from csp_embed.embed.algebra.layouts import derive_layouts
from csp_embed.embed.algebra.rows import Reject
from csp_embed.embed.space.digits import Choice, Map, expand
from csp_embed.embed.space.unit import unit_for
from csp_embed.ir.embedding import Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.costs import Costs, costs_of
from csp_embed.machine.spec import Isa


def build(
    op: Operator, isa: Isa, choice: Choice, mode: str = "relaxed", costs: Costs | None = None
) -> Embedding:
    """The embedding that `choice` means; costs: see `pose`.

    Raises: Reject, where it breaks a rule or does not keep the layout mode.
    """
    lanes = expand(op, choice)
    return build_map(op, isa, lanes, choice.commuted, mode, kind=kind_of(choice), costs=costs)


def build_map(
    op: Operator,
    isa: Isa,
    lanes: Map,
    commuted: bool,
    mode: str = "relaxed",
    *,
    kind: str = "",
    costs: Costs | None = None,
) -> Embedding:
    """The embedding that an affine map means, if it meets every operator point once.

    Raises: Reject, where it breaks another rule or does not keep the layout mode.
    """
    unit = unit_for(op, isa)
    for dim, size in unit.size.items():
        used = math.prod(d.extent for d in lanes.digits if d.dim == dim)
        if used > size:
            raise Reject("lanes", f"dimension {dim} has {size} lanes, {used} are asked for")
    layouts, counts = derive_layouts(op, unit, lanes, commuted, mode)
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
        layout_mode=mode,
        equal=lanes.equal,
        cost=figures(
            op, isa, unit, layouts, lanes.counters, counts, commuted, costs or costs_of(isa)
        ),
    )


def kind_of(choice: Choice) -> str:
    """toeplitz (skewed), diagonal, mixed (both), im2col (several reduced axes share lanes) or
    aligned."""
    skewed = any(c.skew for c in choice.carries)
    diagonal = any(c.diagonal for c in choice.carries)
    if skewed and diagonal:
        return "mixed"
    if skewed or diagonal:
        return "toeplitz" if skewed else "diagonal"
    if any(len(c.axes) > 1 for c in choice.carries):
        return "im2col"
    lanes: dict[str, int] = {}
    for c in choice.carries:
        for dim, _ in (*c.inner, *c.outer):
            lanes[dim] = lanes.get(dim, 0) + 1
    return "im2col" if any(n > 1 for n in lanes.values()) else "aligned"
