"""The operations of one node: multiply-adds, others, and what of them is only a guess."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csp_embed.network.onnx.net import Net, TensorInfo, import_onnx, subgraphs, tensors_of

MICROSOFT = "com.microsoft"
# Operations per output element of what is not a contraction; 1 where nothing is said.
# Rough counts of arithmetic: they only matter where a layer has no contraction.
_PER_ELEMENT = {
    "BatchNormalization": 2, "Softmax": 5, "LogSoftmax": 6, "LayerNormalization": 8,
    "InstanceNormalization": 8, "Gelu": 10, "Erf": 8, "Exp": 4, "Tanh": 6, "Sigmoid": 6,
    "LRN": 12, "Concat": 0, "Reshape": 0, "Flatten": 0, "Squeeze": 0, "Unsqueeze": 0,
    "Identity": 0, "Dropout": 0, "Transpose": 0, "Slice": 0, "Split": 0, "Gather": 0, "Pad": 0,
    "FastGelu": 10, "BiasGelu": 11, "QuickGelu": 7, "SkipLayerNormalization": 9,
    "SimplifiedLayerNormalization": 6, "SkipSimplifiedLayerNormalization": 7, "QLinearSoftmax": 7,
    "QLinearConcat": 0, "QLinearSigmoid": 8, "QLinearAdd": 6, "QLinearMul": 6,
}  # fmt: skip
# onnxruntime's own operators that take about one operation per element (or the number above).
_PLAIN = {
    *_PER_ELEMENT, "QuantizeLinear", "DequantizeLinear", "QLinearLeakyRelu", "QLinearAveragePool",
    "QLinearGlobalAveragePool", "QLinearReduceMean", "QLinearWhere", "NhwcMaxPool", "Rotary",
    "RotaryEmbedding", "EmbedLayerNormalization", "GatherND", "Trilu", "DynamicQuantizeLinear",
}  # fmt: skip
# Operator -> (input that holds the weights or the other factor, form of the contraction).
_CONV = {
    "Conv": 1, "ConvInteger": 1, "QLinearConv": 3, "FusedConv": 1, "NhwcConv": 1,
    "NhwcFusedConv": 1, "DeformConv": 1,
}  # fmt: skip
_MATMUL = {
    "MatMul", "MatMulInteger", "QLinearMatMul", "FusedMatMul", "MatMulIntegerToFloat",
    "DynamicQuantizeMatMul", "TransposeMatMul", "MatMulFpQ4", "MatMulBnb4",
}  # fmt: skip
_GEMM = {"Gemm", "FusedGemm", "QGemm", "GemmFloat8", "GemmFastGelu"}


@dataclass
class NodeWork:
    """macs: multiply-adds. ops: other operations. guesses: what is not known, one phrase each."""

    macs: int = 0
    ops: int = 0
    guesses: tuple[str, ...] = ()

    @property
    def total(self) -> int:
        return 2 * self.macs + self.ops


def work_of_node(net: Net, node: Any) -> NodeWork:
    """The operations of one working node of a model, its branches and bodies included."""
    if node.output and node.output[0] in net.unpacked:
        return NodeWork()  # weights are unpacked once, when the model is loaded
    return _work(net, node, net.tensors)


def node_macs(net: Net, node: Any) -> int:
    """Multiply-adds of one node; 0 for what is not a contraction."""
    return work_of_node(net, node).macs


def _work(net: Net, node: Any, tensors: Mapping[str, TensorInfo]) -> NodeWork:
    if subgraphs(node):
        return _nested(net, node, tensors)
    if not _known(node):
        out = sum(tensors[o].elements for o in node.output if o in tensors)
        name = f"{node.domain}.{node.op_type}"
        return NodeWork(ops=out, guesses=(f"{name} counts as one operation per element",))
    macs = contraction(node, tensors)
    if macs:
        return NodeWork(macs=macs)
    # A result of no fixed size hides how much work it was.
    lost = any(o and o not in tensors for o in node.output) and _PER_ELEMENT.get(node.op_type, 1)
    guess = (f"{node.op_type} has no fixed size and counts as nothing",) if lost else ()
    return NodeWork(ops=_other_ops(node, tensors), guesses=guess)


def _known(node: Any) -> bool:
    if node.domain == MICROSOFT:
        op = node.op_type
        return op in _PLAIN or op in _CONV or op in _MATMUL or op in _GEMM or op in _OWN
    return node.domain in ("", "ai.onnx", "ai.onnx.ml")


def _nested(net: Net, node: Any, outer: Mapping[str, TensorInfo]) -> NodeWork:
    """If: its dearest branch. Loop, Scan: the body, as often as it runs at most."""
    found: list[NodeWork] = []
    for graph in subgraphs(node):
        # Names of the body hide those outside.
        inside = {**outer, **tensors_of(graph)}
        parts = [_work(net, inner, inside) for inner in graph.node]
        guesses = tuple(dict.fromkeys(g for part in parts for g in part.guesses))
        macs, ops = sum(p.macs for p in parts), sum(p.ops for p in parts)
        found.append(NodeWork(macs, ops, guesses))
    if node.op_type == "If":
        dearest = max(found, key=lambda work: work.total)
        note = "If counts as its dearer branch"
        return NodeWork(dearest.macs, dearest.ops, (note, *dearest.guesses))
    # Branches exclude each other, bodies repeat.
    times, note = _times(net, node, outer)
    macs, ops = times * sum(w.macs for w in found), times * sum(w.ops for w in found)
    return NodeWork(macs, ops, (*note, *(g for w in found for g in w.guesses)))


def _times(net: Net, node: Any, tensors: Mapping[str, TensorInfo]) -> tuple[int, tuple[str, ...]]:
    """(how often a body runs, what of that is a guess)."""
    if node.op_type == "Scan":
        # Scanned inputs come last; their first axis is the number of steps.
        scanned = node.input[-attributes(node).get("num_scan_inputs", 1) :]
        shape = tensors[scanned[0]].shape if scanned and scanned[0] in tensors else ()
        if shape:
            return shape[0], ()
    if node.op_type == "Loop" and node.input[0]:
        count = _stored(net, node.input[0])
        if count is not None:
            return max(0, count), ()
    return 1, (f"the body of {node.op_type} counts once: how often it runs depends on values",)


def _stored(net: Net, name: str) -> int | None:
    """A constant number of the graph, where it is written there."""
    onnx = import_onnx()
    graph = net.model.graph
    tensors = [t for t in graph.initializer if t.name == name]
    tensors += [
        n.attribute[0].t
        for n in graph.node
        if n.op_type == "Constant" and name in n.output and n.attribute[0].name == "value"
    ]
    if not tensors or math.prod(tensors[0].dims) != 1:
        return None
    # Loop's M is an int64, optional values aside: 2^63 - 1 stands for "until the condition fails".
    count = int(onnx.numpy_helper.to_array(tensors[0]).reshape(-1)[0])
    return count if count < 1 << 31 else None


def contraction(node: Any, tensors: Mapping[str, TensorInfo]) -> int:
    """Multiply-adds of a node without subgraphs; 0 for what is not a contraction."""
    op = node.op_type
    shape = {i: tensors[n].shape for i, n in enumerate(node.input) if n in tensors}
    # Every output element is one sum over the products of a kernel.
    out = tensors[node.output[0]].elements if node.output[0] in tensors else 0
    if op in _CONV and _CONV[op] in shape:
        w = shape[_CONV[op]]
        # NhwcConv: the weights stay [k, c, r, s].
        return out * math.prod(w[1:])
    if op == "ConvTranspose" and 0 in shape and 1 in shape:
        # A transposed convolution spreads each input over a kernel.
        return math.prod(shape[0]) * math.prod(shape[1][1:])
    if op in _GEMM and 0 in shape:
        trans = attributes(node).get("transA", 0)
        # The summed axis is A's last, or its first where it is transposed.
        return out * shape[0][0 if trans else -1]
    if op in _MATMUL and shape.get(0):
        return out * shape[0][-2 if attributes(node).get("transA", 0) else -1]
    if op == "MatMulNBits":
        # The packed weights have another shape; K says how long a sum is.
        return out * int(attributes(node).get("K", 0))
    if op == "Einsum" and len(shape) == 2:
        return _einsum(attributes(node).get("equation", b""), shape)
    if op in ("LSTM", "GRU", "RNN", "DynamicQuantizeLSTM") and 0 in shape and 2 in shape:
        # W: [directions, gates*hidden, inputs], R: [directions, gates*hidden, hidden]
        steps, batch = shape[0][0], shape[0][1]
        return steps * batch * (math.prod(shape[1]) + math.prod(shape[2]))
    if op == "Attention" and node.domain == "" and {0, 1, 2} <= shape.keys():
        if len(shape[0]) == 4:
            batch, heads, queries, size = shape[0]
            return batch * heads * queries * shape[1][2] * (size + shape[2][3])
        # [batch, length, heads * size]: the heads share out the last axis.
        batch, queries, width = shape[0]
        return batch * queries * shape[1][1] * (width + shape[2][2])
    return _own(node, shape)


# onnxruntime's attention: the projections, then both products with the keys and values.
_OWN = {"Attention", "QAttention", "MultiHeadAttention", "MatMulNBits", "DynamicQuantizeLSTM"}


def _own(node: Any, shape: Mapping[int, tuple[int, ...]]) -> int:
    if node.domain != MICROSOFT or node.op_type not in _OWN or len(shape.get(0, ())) != 3:
        return 0
    batch, length, width = shape[0]
    if node.op_type in ("Attention", "QAttention") and len(shape.get(1, ())) == 2:
        # Q, K and V come from one matrix: its width is three times the heads'.
        hidden = shape[1][1] // 3
        return batch * length * (width * shape[1][1] + 2 * length * hidden)
    keys = shape[1][1] if len(shape.get(1, ())) == 3 else length
    return 2 * batch * length * keys * width


def attributes(node: Any) -> dict[str, Any]:
    """Attribute values of a node by name (ints, floats, bytes, lists)."""
    out: dict[str, Any] = {}
    for a in node.attribute:
        field = {1: "f", 2: "i", 3: "s", 4: "t", 5: "g", 6: "floats", 7: "ints", 8: "strings"}
        if a.type in field:
            value = getattr(a, field[a.type])
            out[a.name] = list(value) if a.type in (6, 7, 8) else value
    return out


def _einsum(equation: bytes, shape: Mapping[int, tuple[int, ...]]) -> int:
    terms = equation.decode().replace(" ", "").split("->")[0].split(",")
    extent: dict[str, int] = {}
    for at, term in enumerate(terms):
        # "..." stands for axes that are not named: not counted.
        if "." in term or at not in shape or len(term) != len(shape[at]):
            return 0
        extent.update(zip(term, shape[at], strict=True))
    # One multiply-add for every combination of the letters: an upper bound for longer chains.
    return math.prod(extent.values())


def _other_ops(node: Any, tensors: Mapping[str, TensorInfo]) -> int:
    out = sum(tensors[o].elements for o in node.output if o in tensors)
    if node.op_type in ("MaxPool", "AveragePool", "LpPool"):
        return out * math.prod(attributes(node).get("kernel_shape", [1]))
    if node.op_type.startswith(("Global", "Reduce")):
        # A reduction reads every input once.
        return tensors[node.input[0]].elements if node.input[0] in tensors else 0
    if node.op_type == "Sum":
        return out * max(1, len(node.input) - 1)
    return out * _PER_ELEMENT.get(node.op_type, 1)
