"""A piece of a quantised graph as a graph of its own.

Takes: a graph and names of operators.  Leaves: a graph of those, whose inputs others make and whose
outputs others read.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import replace

from csp_embed.network.quantised import graph as g


def piece(graph: g.Graph, names: Collection[str]) -> g.Graph:
    """The operators of these names, in the graph's order. An input has the whole range of its type
    whoever makes it, so that a piece is right for all that it may be given."""
    mine = [op for op in graph.operators if op.name in names]
    made = {op.output for op in mine}
    read = {n for op in mine for n in op.inputs if n}
    outside = {n for op in graph.operators if op.name not in names for n in op.inputs}
    wanted = outside | {*graph.outputs}
    used = read | made
    return replace(
        graph,
        tensors={n: t for n, t in graph.tensors.items() if n in used},
        operators=tuple(mine),
        # In the order in which they are first read or made.
        inputs=tuple(
            dict.fromkeys(
                n for op in mine for n in op.inputs
                if n and n not in made and graph.tensors[n].data is None
            )
        ),
        outputs=tuple(op.output for op in mine if op.output in wanted),
    )  # fmt: skip
