"""The least pieces that layers are made of: nodes that nothing may part.

A dequantisation goes with the node that reads it, so that a border is crossed by the quantised
tensor, and so does what is made of quantised weights before it. Tensors without a fixed size
(sequences, strings, results of NonZero) stay inside one piece, whose cost and transfers are then
known.
"""

from __future__ import annotations

from collections.abc import Sequence

from csp_embed.network.onnx.net import Net
from csp_embed.network.onnx.reading.dequantise import is_dequantise
from csp_embed.network.onnx.reading.normalise import stable_topological


def seeds(net: Net) -> list[list[int]]:
    """Groups of indices into net.nodes that form an acyclic graph, in an order that it allows."""
    users = users_of(net)
    root = list(range(len(net.nodes)))

    def find(index: int) -> int:
        while root[index] != index:
            # Path halving: chains of thousands of nodes stay flat.
            root[index] = root[root[index]]
            index = root[index]
        return index

    for index, node in enumerate(net.nodes):
        for name in node.output:
            readers = users.get(name, [])
            unsized = name and name not in net.tensors
            # Several readers have got copies (dequantise.py), so that one reader is the rule.
            moves = (is_dequantise(node) or name in net.unpacked) and len(readers) == 1
            if unsized or (moves and name not in net.outputs):
                for reader in readers:
                    root[find(reader)] = find(index)
    groups: dict[int, list[int]] = {}
    for index in range(len(net.nodes)):
        groups.setdefault(find(index), []).append(index)
    return ordered(net, _acyclic(net, list(groups.values())))


def ordered(net: Net, groups: Sequence[list[int]]) -> list[list[int]]:
    """Groups in dependency order, by their last nodes where that allows."""
    # By the last node: that is when a group's result is there.
    by_last = sorted(groups, key=lambda group: group[-1])
    return [by_last[i] for i in stable_topological(needs_of(net, by_last))]


def needs_of(net: Net, groups: Sequence[Sequence[int]]) -> list[set[int]]:
    """For each group the indices of those whose results it reads."""
    made_in = {o: at for at, g in enumerate(groups) for i in g for o in net.nodes[i].output if o}
    return [
        {made_in[n] for i in g for n in net.reads(net.nodes[i]) if n in made_in} - {at}
        # A group's own tensors are no need.
        for at, g in enumerate(groups)
    ]


def users_of(net: Net) -> dict[str, list[int]]:
    """Indices of the nodes that read each tensor."""
    users: dict[str, list[int]] = {}
    for index, node in enumerate(net.nodes):
        for name in net.reads(node):
            users.setdefault(name, []).append(index)
    return users


def _acyclic(net: Net, groups: list[list[int]]) -> list[list[int]]:
    """Joins groups that need each other: what lies between two nodes of one piece belongs to it."""
    import networkx

    needs = needs_of(net, groups)
    graph: networkx.DiGraph[int] = networkx.DiGraph()
    graph.add_nodes_from(range(len(groups)))
    graph.add_edges_from((other, at) for at, need in enumerate(needs) for other in need)
    # Groups in a circle are one piece: none can run before the other.
    knots = networkx.strongly_connected_components(graph)
    return [sorted(i for at in knot for i in groups[at]) for knot in knots]
