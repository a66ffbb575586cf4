"""Keeps quantised models quantised: each reader of a dequantised tensor dequantises it itself, so
that what crosses a border can be the quantised tensor, and weights count in their own bytes.
"""

from __future__ import annotations

from typing import Any

from csp_embed.network.onnx.net import copied, node_reads
from csp_embed.network.onnx.reading.normalise import fresh

_DOMAINS = ("", "ai.onnx", "com.microsoft")


def is_dequantise(node: Any) -> bool:
    """Whether a node is DequantizeLinear, standard or onnxruntime's own."""
    return node.op_type == "DequantizeLinear" and node.domain in _DOMAINS


def split_dequantised(graph: Any, unpacked: set[str]) -> dict[str, str]:
    """Gives every reader of a dequantised tensor, or of one that is `unpacked`, its own copy of the
    node that makes it. Readers inside branches and the graph's own outputs keep the original.

    Returns: the original tensor of each copy's.
    """
    outputs = {o.name for o in graph.output}
    names = {n.name for n in graph.node}
    original: dict[str, str] = {}
    readers_of: dict[str, list[Any]] = {}
    done: list[Any] = []
    # From the back: the copies of a reader ask for copies of what they read in turn.
    for node in reversed(list(graph.node)):
        made = [o for o in node.output if o]
        # Nodes of several outputs would have to be cloned for each; dequantisation has one.
        alone = len(made) == 1 and (is_dequantise(node) or made[0] in unpacked)
        readers = readers_of.get(made[0], []) if alone else []
        movable = [n for n in readers if made[0] in n.input]
        # The first reader keeps the original unless others must.
        stay = alone and (made[0] in outputs or len(movable) < len(readers))
        clones: list[Any] = []
        # With the original kept elsewhere every reader needs a copy, else all but the first.
        for count, reader in enumerate(movable if stay else movable[1:]):
            clone = type(node)()
            clone.CopyFrom(node)
            clone.name = fresh(f"{node.name}_{count + 1}", names)
            clone.output[0] = f"{made[0]}__for_{clone.name}"
            original[clone.output[0]] = made[0]
            for at, name in enumerate(reader.input):
                if name == made[0]:
                    reader.input[at] = clone.output[0]
            clones.append(clone)
        for one in (*clones, node):
            done.append(one)
            for name in set(node_reads(one)):
                readers_of.setdefault(name, []).append(one)
    if original:
        kept = [copied(n) for n in reversed(done)]
        del graph.node[:]
        graph.node.extend(kept)
    return original
