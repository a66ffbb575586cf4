"""How much work a layer is: multiply-adds, other operations, bytes; what a roofline needs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from csp_embed.network.onnx.layers import Layer
from csp_embed.network.onnx.net import Net, total_bytes
from csp_embed.network.profiles.node_work import attributes, work_of_node


@dataclass(frozen=True)
class Work:
    """layer: its name. op: operator type. nodes: names of ONNX nodes.

    ops: operations, a multiply-add is two. macs: multiply-adds. read_bytes, written_bytes:
    activations that cross the layer's border. weight_bytes: constants. node_ops: operator types.
    kind: finer than op where devices differ: Conv1x1, ConvDepthwise, ConvGrouped, else the op.
    guesses: what of the operations is not known.
    """

    layer: str
    op: str
    nodes: tuple[str, ...]
    macs: int
    ops: int
    read_bytes: int
    written_bytes: int
    weight_bytes: int
    node_ops: tuple[str, ...] = ()
    kind: str = ""
    guesses: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """All traffic of one run."""
        return self.read_bytes + self.written_bytes + self.weight_bytes


def work_of(net: Net, layer: Layer) -> Work:
    """The work of one layer."""
    nodes = [net.nodes[i] for i in layer.nodes]
    works = [work_of_node(net, node) for node in nodes]
    return Work(
        layer=layer.name,
        op=layer.op,
        nodes=tuple(node.name for node in nodes),
        macs=sum(w.macs for w in works),
        # A multiply-add counts as two operations, as peaks of devices do.
        ops=sum(w.total for w in works),
        read_bytes=total_bytes(net, layer.reads),
        written_bytes=total_bytes(net, layer.makes),
        weight_bytes=total_bytes(net, layer.constants),
        node_ops=tuple(node.op_type for node in nodes),
        # The node that names the layer.
        kind=_kind(net, next((n for n in nodes if n.op_type == layer.op), nodes[0])),
        guesses=tuple(dict.fromkeys(g for w in works for g in w.guesses)),
    )


def _kind(net: Net, node: Any) -> str:
    if node.op_type not in ("Conv", "ConvInteger", "QLinearConv"):
        return str(node.op_type)
    name = node.input[3 if node.op_type == "QLinearConv" else 1]
    if name not in net.tensors:
        return str(node.op_type)
    w = net.tensors[name].shape
    groups = attributes(node).get("group", 1)
    # A 1x1 kernel is a matrix product, a depthwise one has no reuse: devices differ there.
    if groups > 1:
        return "ConvDepthwise" if w[1] == 1 else "ConvGrouped"
    return "Conv1x1" if math.prod(w[2:]) == 1 else "Conv"
