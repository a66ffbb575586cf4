"""Concatenations by address: which of them move nothing, because their parts are stored as pieces.

Takes: a graph.  Leaves: the graph with copies of those parts that cannot be pieces themselves: a
part of two concatenations, an input of the network, another view of a stored tensor.
"""

from __future__ import annotations

from dataclasses import replace

from csp_embed.compiler.whole.views import MOVES
from csp_embed.network.quantised import graph as g


def with_copies(graph: g.Graph) -> g.Graph:
    """A copy is a clamp to the whole range, which the machine computes as any other layer."""
    maker = {o.output: o for o in graph.operators}
    taken: set[str] = set()
    copies: dict[tuple[str, str], str] = {}  # (concatenation, part) -> the copy
    # From the back: the last concatenation that a part stands in gets it.
    for op in reversed(graph.operators):
        if not isinstance(op, g.Concat) or len(set(op.inputs)) < len(op.inputs):
            continue
        made = [maker.get(n) for n in op.inputs]
        # Nothing is gained by joining what the host stores anyway.
        if not any(isinstance(m, _COMPUTED) for m in made):
            continue  # the host has every part
        # An input, a view and a part of another concatenation lie elsewhere already.
        for name, m in zip(op.inputs, made, strict=True):
            if m is None or isinstance(m, MOVES) or name in taken:
                copies[op.name, name] = f"{name} in {op.name}"
            taken.add(name)
    if not copies:
        return graph
    tensors, operators = dict(graph.tensors), list[g.Operator]()
    for op in graph.operators:
        # The copy stands right before the concatenation that reads it.
        renamed = {n: copies[op.name, n] for n in op.inputs if (op.name, n) in copies}
        for name, copy in renamed.items():
            t = graph.tensors[name]
            tensors[copy] = replace(t, name=copy)
            operators.append(g.Clamp(f"copy of {copy}", (name,), copy, t.range))
        inputs = tuple(renamed.get(n, n) for n in op.inputs)
        operators.append(replace(op, inputs=inputs) if renamed else op)
    return replace(graph, tensors=tensors, operators=tuple(operators))


_COMPUTED = (
    g.Conv, g.FullyConnected, g.Add, g.MaxPool, g.AveragePool, g.Mean, g.Clamp, g.Lookup,
    g.Requantise, g.Concat,
)  # fmt: skip


def template(graph: g.Graph, name: str) -> tuple[g.Graph, g.Operator]:
    """A graph with a layer that stores the whole of a concatenation: how that could lie."""
    # The layer before it is made up: only its result's layouts are wanted.
    t = graph.tensors[name]
    source = replace(t, name=f"{name} before")
    op = g.Clamp(f"template of {name}", (source.name,), name, t.range)
    tensors = {source.name: source, name: t}
    return replace(graph, tensors=tensors, operators=(op,), inputs=(source.name,)), op
