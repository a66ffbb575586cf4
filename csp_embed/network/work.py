"""How much work a layer is: multiply-adds, other operations, bytes; what a roofline needs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csp_embed.network.onnx_layers import Layer
from csp_embed.network.onnx_model import Net, total_bytes

# Operations per output element of what is not a contraction; 1 where nothing is said.
_PER_ELEMENT = {
    "BatchNormalization": 2, "Softmax": 5, "LogSoftmax": 6, "LayerNormalization": 8,
    "InstanceNormalization": 8, "Gelu": 10, "Erf": 8, "Exp": 4, "Tanh": 6, "Sigmoid": 6,
    "LRN": 12, "Concat": 0, "Reshape": 0, "Flatten": 0, "Squeeze": 0, "Unsqueeze": 0,
    "Identity": 0, "Dropout": 0, "Transpose": 0, "Slice": 0, "Split": 0, "Gather": 0, "Pad": 0,
}  # fmt: skip


@dataclass(frozen=True)
class Work:
    """layer: its name. op: operator type. nodes: names of ONNX nodes.

    ops: operations, a multiply-add is two. macs: multiply-adds. read_bytes, written_bytes:
    activations that cross the layer's border. weight_bytes: constants. node_ops: operator types.
    kind: finer than op where devices differ: Conv1x1, ConvDepthwise, ConvGrouped, else the op.
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

    @property
    def bytes(self) -> int:
        """All traffic of one run."""
        return self.read_bytes + self.written_bytes + self.weight_bytes


def work_of(net: Net, layer: Layer) -> Work:
    """The work of one layer."""
    nodes = [net.nodes[i] for i in layer.nodes]
    macs = sum(node_macs(net, node) for node in nodes)
    other = sum(_other_ops(net, node) for node in nodes)
    return Work(
        layer=layer.name,
        op=layer.op,
        nodes=tuple(node.name for node in nodes),
        macs=macs,
        ops=2 * macs + other,
        read_bytes=total_bytes(net, layer.reads),
        written_bytes=total_bytes(net, layer.makes),
        weight_bytes=total_bytes(net, layer.constants),
        node_ops=tuple(node.op_type for node in nodes),
        kind=_kind(net, next((n for n in nodes if n.op_type == layer.op), nodes[0])),
    )


def _kind(net: Net, node: Any) -> str:
    if node.op_type not in ("Conv", "ConvInteger", "QLinearConv"):
        return str(node.op_type)
    w = net.tensors[node.input[3 if node.op_type == "QLinearConv" else 1]].shape
    groups = attributes(node).get("group", 1)
    if groups > 1:
        return "ConvDepthwise" if w[1] == 1 else "ConvGrouped"
    return "Conv1x1" if math.prod(w[2:]) == 1 else "Conv"


def node_macs(net: Net, node: Any) -> int:
    """Multiply-adds of one node; 0 for what is not a contraction."""
    op = node.op_type
    shape = {i: net.tensors[n].shape for i, n in enumerate(node.input) if n in net.tensors}
    out = net.tensors[node.output[0]].elements if node.output[0] in net.tensors else 0
    if op in ("Conv", "ConvInteger") and 1 in shape:
        return out * math.prod(shape[1][1:])
    if op == "QLinearConv" and 3 in shape:
        return out * math.prod(shape[3][1:])
    if op == "ConvTranspose" and 0 in shape and 1 in shape:
        return math.prod(shape[0]) * math.prod(shape[1][1:])
    if op == "Gemm" and 0 in shape:
        trans = attributes(node).get("transA", 0)
        return out * shape[0][0 if trans else 1]
    if op in ("MatMul", "MatMulInteger", "QLinearMatMul") and shape.get(0):
        return out * shape[0][-1]
    if op == "Einsum" and len(shape) == 2:
        return _einsum_macs(attributes(node).get("equation", b""), shape)
    if op in ("LSTM", "GRU", "RNN") and 0 in shape and 2 in shape:
        # W: [directions, gates*hidden, inputs], R: [directions, gates*hidden, hidden]
        steps, batch = shape[0][0], shape[0][1]
        return steps * batch * (math.prod(shape[1]) + math.prod(shape[2]))
    if op == "Attention" and {0, 1, 2} <= shape.keys() and len(shape[0]) == 4:
        batch, heads, queries, size = shape[0]
        return batch * heads * queries * shape[1][2] * (size + shape[2][3])
    return 0


def attributes(node: Any) -> dict[str, Any]:
    """Attribute values of a node by name (ints, floats, bytes, lists)."""
    out: dict[str, Any] = {}
    for a in node.attribute:
        field = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings"}
        if a.type in field:
            value = getattr(a, field[a.type])
            out[a.name] = list(value) if a.type in (6, 7, 8) else value
    return out


def _einsum_macs(equation: bytes, shape: Mapping[int, tuple[int, ...]]) -> int:
    terms = equation.decode().replace(" ", "").split("->")[0].split(",")
    extent: dict[str, int] = {}
    for at, term in enumerate(terms):
        if "." in term or at not in shape or len(term) != len(shape[at]):
            return 0
        extent.update(zip(term, shape[at], strict=True))
    return math.prod(extent.values())


def _other_ops(net: Net, node: Any) -> int:
    if node_macs(net, node):
        return 0
    out = sum(net.tensors[o].elements for o in node.output if o in net.tensors)
    if node.op_type in ("MaxPool", "AveragePool", "LpPool"):
        return out * math.prod(attributes(node).get("kernel_shape", [1]))
    if node.op_type.startswith(("Global", "Reduce")):
        return sum(net.tensors[n].elements for n in net.reads(node))
    if node.op_type == "Sum":
        return out * max(1, len(node.input) - 1)
    return out * _PER_ELEMENT.get(node.op_type, 1)
