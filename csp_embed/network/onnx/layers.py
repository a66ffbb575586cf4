"""Groups the nodes of a `Net` into layers: what is placed on a device as one piece.

node    every node is a layer, with what dequantises its inputs
fused   a node takes up the elementwise nodes with constant partners and the view changes that
        follow it (Conv + BatchNormalization + Relu; ConvInteger + bias + shift + Clip + Cast), as
        a device's runtime would fuse them
block   fused layers between two places where a single tensor crosses (a residual block, an
        inception module)
Every group is convex: no path leaves it and comes back, so the layers form an acyclic graph.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from csp_embed.errors import InputError
from csp_embed.network.onnx.net import Net
from csp_embed.network.onnx.reading.dequantise import is_dequantise
from csp_embed.network.onnx.seeds import ordered, seeds, users_of

GRANULARITIES = ("node", "fused", "block")

# One non-constant input, output of the same or fewer elements computed element by element.
# Only those whose result is computed from the element in its own place: they add no traffic.
ELEMENTWISE = {
    "Abs", "Add", "BatchNormalization", "Cast", "Ceil", "Celu", "Clip", "Div", "Dropout", "Elu",
    "Erf", "Exp", "Floor", "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log",
    "Max", "Min", "Mish", "Mul", "Neg", "PRelu", "Pow", "QuantizeLinear", "DequantizeLinear",
    "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus", "Softsign", "Sqrt", "Sub", "Swish",
    "Tanh", "ThresholdedRelu",
}  # fmt: skip
VIEWS = {"Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"}


@dataclass(frozen=True)
class Layer:
    """nodes: indices into net.nodes, in order. name: the heaviest node's name (unique).
    op: its operator type. reads / makes: non-constant tensors from outside, and tensors that others
    or the graph's output read. constants: weights and other constants that it reads."""

    name: str
    op: str
    nodes: tuple[int, ...]
    reads: tuple[str, ...]
    makes: tuple[str, ...]
    constants: tuple[str, ...]


def layers(net: Net, granularity: str = "fused") -> list[Layer]:
    """The layers of a model in topological order.

    Raises: InputError for an unknown granularity.
    """
    if granularity not in GRANULARITIES:
        raise InputError(
            f"unknown granularity {granularity!r}", hint="one of " + ", ".join(GRANULARITIES)
        )
    # Node groups are the least pieces; fusing starts from them.
    groups = seeds(net)
    if granularity != "node":
        groups = _fuse(net, groups)
    if granularity == "block":
        groups = _blocks(net, groups)
    return [_layer(net, group) for group in groups]


def _fuse(net: Net, pieces: list[list[int]]) -> list[list[int]]:
    """Joins pieces by following single consumers."""
    # Constants have no maker here: a piece that reads only them joins nobody.
    maker = {o: i for i, n in enumerate(net.nodes) for o in n.output if o}
    users = users_of(net)
    group_of = {i: at for at, piece in enumerate(pieces) for i in piece}
    members: dict[int, list[int]] = dict(enumerate(pieces))
    # In topological order, so that a chain of elementwise nodes joins one after the other.
    for at, piece in enumerate(pieces):
        node = net.nodes[piece[-1]]
        if not (node.op_type in ELEMENTWISE or node.op_type in VIEWS) or _unpacks(net, piece):
            continue
        own = {o for i in piece for o in net.nodes[i].output if o}
        reads = dict.fromkeys(n for i in piece for n in net.reads(net.nodes[i]) if n not in own)
        makers = {maker.get(name) for name in reads}
        if not reads or None in makers:
            continue
        groups = {group_of[m] for m in makers if m is not None}
        # Reads from two layers: fusing would tie these together.
        if len(groups) != 1:
            continue
        target = groups.pop()
        inside = {*members[target], *piece}
        # What the piece reads must be the group's only way out: no path may leave and return.
        open_tensors = {
            o
            for m in members[target]
            for o in net.nodes[m].output
            if o in net.outputs or any(u not in inside for u in users.get(o, ()))
        }
        gated = len(reads) > 1 and not _is_gate(net, members[target], piece[-1])
        if open_tensors or gated:
            continue
        members[target] = sorted(inside)
        del members[at]
        group_of.update(dict.fromkeys(piece, target))
    return ordered(net, list(members.values()))


def _unpacks(net: Net, piece: list[int]) -> bool:
    """Whether a piece begins with dequantised activations: a border is cheapest in front of it."""
    return len(piece) > 1 and any(
        is_dequantise(net.nodes[i]) and net.reads(net.nodes[i]) for i in piece
    )


def _is_gate(net: Net, group: list[int], index: int) -> bool:
    """x * sigmoid(x) and its kin: all reads of the node come from one layer's own result."""
    node = net.nodes[index]
    # The caller has made sure that all reads are of one group.
    return node.op_type in ("Mul", "Add", "Div") and len(group) >= 2


def _blocks(net: Net, groups: list[list[int]]) -> list[list[int]]:
    """Joins groups between places where one tensor at most crosses."""
    position = {m: at for at, group in enumerate(groups) for m in group}
    last_use: dict[str, int] = {}
    for index, node in enumerate(net.nodes):
        for name in net.reads(node):
            last_use[name] = max(last_use.get(name, -1), position[index])
    for name in net.outputs:
        if name not in net.constants:
            last_use[name] = len(groups)
    # Inputs cross until their last reader.
    live = {name for name in net.inputs if name in last_use}
    blocks: list[list[int]] = [[]]
    for at, group in enumerate(groups):
        blocks[-1] += group
        live |= {o for m in group for o in net.nodes[m].output if o in last_use}
        # A tensor is alive between its maker and its last use.
        live = {name for name in live if last_use[name] > at}
        # At most one tensor alive: the narrowest place to cut.
        if len(live) <= 1 and at + 1 < len(groups):
            blocks.append([])
    return [sorted(block) for block in blocks]


# Of a group, the node with the smallest rank names it.
# Contractions first, then attention and recurrent nodes: what most of the time goes into.
_RANK = (
    (
        "Conv",
        "ConvInteger",
        "ConvTranspose",
        "Gemm",
        "MatMul",
        "MatMulInteger",
        "QLinearConv",
        "QLinearMatMul",
        "QGemm",
        "FusedConv",
        "FusedGemm",
        "FusedMatMul",
        "DynamicQuantizeMatMul",
        "MatMulIntegerToFloat",
        "MatMulNBits",
    ),
    ("Attention", "LSTM", "GRU", "RNN", "Einsum", "MultiHeadAttention", "QAttention"),
)


def _anchor(net: Net, group: Sequence[int]) -> Any:
    for ops in _RANK:
        for index in group:
            if net.nodes[index].op_type in ops:
                return net.nodes[index]
    # Not by what only unpacks: Add, Relu or MaxPool say more.
    plain = [i for i in group if net.nodes[i].op_type not in ("DequantizeLinear", "QuantizeLinear")]
    return net.nodes[next((i for i in plain if net.reads(net.nodes[i])), (plain or group)[0])]


def _layer(net: Net, group: list[int]) -> Layer:
    inside = set(group)
    made = {o for i in group for o in net.nodes[i].output if o}
    reads = dict.fromkeys(n for i in group for n in net.reads(net.nodes[i]) if n not in made)
    # Users among the working nodes; constants read nothing.
    users = _all_users(net)
    makes = [
        o
        for i in group
        for o in net.nodes[i].output
        if o and (o in net.outputs or any(u not in inside for u in users.get(o, ())))
    ]
    constants = dict.fromkeys(n for i in group for n in net.constant_reads(net.nodes[i]))
    anchor = _anchor(net, group)
    return Layer(
        name=anchor.name,
        op=anchor.op_type,
        nodes=tuple(group),
        reads=tuple(reads),
        makes=tuple(makes),
        constants=tuple(constants),
    )


_USERS_OF: dict[int, tuple[Net, dict[str, list[int]]]] = {}


def _all_users(net: Net) -> dict[str, list[int]]:
    """`users_of`, kept for the last model asked about."""
    # id() may be reused by another model, so the model itself is compared.
    if id(net) not in _USERS_OF or _USERS_OF[id(net)][0] is not net:
        _USERS_OF.clear()
        _USERS_OF[id(net)] = (net, users_of(net))
    return _USERS_OF[id(net)][1]
