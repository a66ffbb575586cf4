"""Parts of an ONNX model between stored tensors that have no integer form of their own.

Takes: a quantised result, and the nodes behind it up to stored tensors.  Leaves: one operator:
    Lookup   the part is a function of one stored value (a sigmoid, a constant factor, a Relu with
             a slope): onnxruntime tells it at all of them
    Move     the part moves or repeats elements: onnxruntime tells where each comes from
    Outside  anything else: onnxruntime computes it whenever the network runs, on the host
onnxruntime is what the profile is named after, so its answer is the definition in all three.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.network.onnx.net import copied, import_onnx, node_reads
from csp_embed.network.onnx.runtime import open_session, run_session
from csp_embed.network.onnx.weights import constant_values
from csp_embed.network.profiles.node_work import node_macs
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.onnx.values import Reading, Real, Stored

Array = NDArray[Any]
# One element in, one out: nothing but the value decides.
_ELEMENTWISE = frozenset({
    "Abs", "Add", "Cast", "Ceil", "Celu", "Clip", "Div", "Dropout", "Elu", "Erf", "Exp", "Floor",
    "Gelu", "HardSigmoid", "HardSwish", "Identity", "LeakyRelu", "Log", "Max", "Min", "Mish", "Mul",
    "Neg", "Pow", "PRelu", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign", "Softplus",
    "Softsign", "Sqrt", "Sub", "Sum", "Tanh", "ThresholdedRelu", "QuantizeLinear",
    "DequantizeLinear", "QLinearAdd", "QLinearMul", "QLinearSigmoid", "QLinearLeakyRelu",
})  # fmt: skip
MOVING = (
    "DepthToSpace", "Expand", "Gather", "GatherElements", "GatherND", "Resize", "Slice",
    "SpaceToDepth", "Split", "Tile", "Upsample",
)  # fmt: skip


@dataclass(frozen=True)
class Part:
    """nodes in order, dequantisations of the border among them. stored: names of the tensors that
    they read. floats: inputs of the model that no integer stands for. held: constants by name."""

    nodes: tuple[Any, ...]
    stored: tuple[str, ...]
    floats: tuple[str, ...]
    held: Mapping[str, Array]

    @property
    def what(self) -> str:
        """Its operators in words, those of the border left out."""
        kinds = [n.op_type for n in self.nodes if n.op_type not in ("DequantizeLinear", "Identity")]
        return ", ".join(dict.fromkeys(k for k in kinds if k != "QuantizeLinear")) or "Identity"


def part_behind(r: Reading, last: Iterable[Any]) -> Part:
    """Everything from these nodes back to stored tensors and inputs."""
    # By name: nodes are protobuf objects and are compared by content.
    order = {n.name: i for i, n in enumerate(r.net.nodes)}
    maker = {o: n for n in r.net.nodes for o in n.output if o}
    inner: dict[str, Any] = {}
    border: list[Any] = []
    stored: dict[str, None] = {}
    floats: dict[str, None] = {}
    held: dict[str, Array] = {}
    names: set[str] = set()
    rest = list(last)
    # Backwards from the results, each tensor once.
    while rest:
        node = rest.pop()
        inner[node.name] = node
        for name in node_reads(node):
            if name in names:
                continue
            names.add(name)
            value = r.values.get(name)
            # Constants come along whatever made them.
            if name in r.net.constants:
                held[name] = constant_values(r.net, [name])[name]
            # A stored tensor ends the walk: before it everything is known in integers.
            elif isinstance(value, Stored | Real):
                border += _border(r, name, value, held)
                t = r.tensors[value.tensor]
                if t.data is None:
                    stored[value.tensor] = None
                else:
                    held[value.tensor] = t.data
            elif name in maker:
                rest.append(maker[name])
            else:
                floats[name] = None
    nodes = sorted(inner.values(), key=lambda n: order[n.name])
    return Part((*border, *map(copied, nodes)), tuple(stored), tuple(floats), held)


def _border(
    r: Reading, name: str, value: Stored | Real, held: dict[str, Array]
) -> list[Any]:  # fmt: skip
    """The node that makes `name` of the stored tensor behind it."""
    make = import_onnx().helper.make_node
    t = r.tensors[value.tensor]
    if isinstance(value, Stored):
        # The part reads the original name; the stored tensor may have another.
        return [] if name == t.name else [make("Identity", [t.name], [name], name=f"{name}.border")]
    if not t.scales:
        return []
    scale, zero = f"{t.name}.scale", f"{t.name}.zero"
    # One scale is a scalar in ONNX, several are a vector along an axis.
    one = len(t.scales) == 1
    held[scale] = np.array(t.scales[0] if one else t.scales, np.float32)
    # A single zero point may stand for all scales.
    zeros = t.zero_points if len(t.zero_points) == len(t.scales) else (t.zero,) * len(t.scales)
    held[zero] = np.array(zeros[0] if one else zeros, t.dtype)
    axis = {} if t.axis is None else {"axis": t.axis}
    return [make("DequantizeLinear", [t.name, scale, zero], [name], name=f"{name}.border", **axis)]


def model_of(
    r: Reading, part: Part, inputs: Mapping[str, str], output: str, fixed: bool = True
) -> Any:
    """A ModelProto of a part. inputs: type by name. fixed: with the shapes that the model has."""
    onnx = import_onnx()
    kind = {v: getattr(onnx.TensorProto, k) for k, v in _TYPES.items()}

    def shape(name: str) -> Any:
        # Open where a table is asked for at once: its batch is the stored values.
        known = r.tensors.get(name)
        return list(known.shape) if fixed and known is not None else None

    graph = onnx.helper.make_graph(
        list(part.nodes), "part",
        [onnx.helper.make_tensor_value_info(n, kind[t], shape(n)) for n, t in inputs.items()],
        [onnx.helper.make_empty_tensor_value_info(output)],
        [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in part.held.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(
        graph, opset_imports=list(r.net.model.opset_import), ir_version=r.net.model.ir_version,
        functions=list(r.net.model.functions),
    )  # fmt: skip
    have = {o.domain for o in model.opset_import}
    # onnxruntime's own operators need their domain declared.
    if any(n.domain == "com.microsoft" for n in part.nodes) and "com.microsoft" not in have:
        model.opset_import.append(onnx.helper.make_opsetid("com.microsoft", 1))
    return model


_TYPES = {"INT8": "int8", "UINT8": "uint8", "INT32": "int32", "FLOAT": "float32",
          "INT16": "int16", "INT64": "int64"}  # fmt: skip


def put_part(r: Reading, node: Any, y: g.Tensor, why: str) -> None:
    """The operator that makes `y`, the quantised result of `node`. why: it has no other form.

    Raises: InputError where floats of an input meet stored tensors, or onnxruntime cannot run it.
    """
    part = part_behind(r, [node])
    # Nothing to compute from integers: the program begins with y.
    if not part.stored:
        # Nothing quantised stands before it: the caller's own part.
        r.inputs.append(y.name)
        r.notes.append(
            f"input {y.name} is made outside ({part.what}): scale {y.scales[0]:.9g}, zero {y.zero}"
        )
        return
    if part.floats:
        # Floats from the caller and stored values cannot meet in one integer operator.
        r.refuse(
            node, f"input {part.floats[0]!r} is not quantised where it meets {part.stored[0]!r}"
        )
    name = r.free(node.name or y.name)
    table = _table(r, part, y)
    # A table needs no runtime any more: the machine may do it.
    if table is not None:
        source, axis, data = table
        held = r.free(f"{name}.table")
        r.tensors[held] = g.Tensor(held, data.shape, y.dtype, data=data)
        r.put(g.Lookup(name, (source, held), y.name, axis))
        return
    kinds = {n: r.tensors[n].dtype for n in part.stored}
    model = model_of(r, part, kinds, y.name)
    open_session(model, r.net.path)  # whether it can be run is known now
    inner = {n.name for n in r.net.nodes}
    products = sum(node_macs(r.net, n) for n in part.nodes if n.name in inner)
    content = model.SerializeToString()
    r.put(g.Outside(name, part.stored, y.name, content, part.what, why, products))


def _table(r: Reading, part: Part, y: g.Tensor) -> tuple[str, int, Array] | None:
    """(tensor, axis of its channels, table) where y is a function of each of its values."""
    if any(n.op_type not in _ELEMENTWISE for n in part.nodes):
        return None
    found = _common(r, part.stored)
    if found is None:
        return None
    source, chains = found
    x = r.tensors[source]
    # 256 values: wider types would need tables of thousands.
    if x.shape != y.shape or x.dtype not in ("int8", "uint8") or y.dtype not in ("int8", "uint8"):
        return None
    # Constants that differ along one axis at most (a scale by channel).
    axes = {a for held in part.held.values() for a in _varies(held, len(x.shape))}
    # Neither along the batch, nor along an axis that the tensor lacks.
    if len(axes) > 1 or not axes.isdisjoint({-1, 0}) or any(len(n.attribute) and n.op_type ==
            "DequantizeLinear" for n in part.nodes):  # fmt: skip
        return None
    axis = axes.pop() if axes else 0
    channels = x.shape[axis] if axis else 1
    # One row for each stored value, in the place of the batch; every channel beside it.
    low, high = x.range
    # The batch axis carries the stored values.
    shape = [high - low + 1, *(channels if a == axis else 1 for a in range(1, len(x.shape)))]
    rows = np.arange(low, high + 1).reshape(-1, *[1] * (len(shape) - 1))
    flat = np.broadcast_to(rows, shape).astype(x.dtype)
    kinds = {n: r.tensors[n].dtype for n in part.stored}
    feeds = {n: _through(flat, chains[n], low, axis) for n in part.stored}
    try:
        session = open_session(model_of(r, part, kinds, y.name, fixed=False), r.net.path)
        made = run_session(session, None, feeds, r.net.path)[0]
    except InputError:
        return None  # it asks for other shapes: it runs as it is
    if made.shape != flat.shape:
        return None
    table = made.reshape(high - low + 1, channels).T
    # One row where all channels have the same function.
    if (table == table[:1]).all():
        table = table[:1]
    return source, axis, np.ascontiguousarray(table)


def _varies(a: Array, rank: int) -> list[int]:
    """Axes of a tensor of that rank along which a constant differs; -1: none of them."""
    a = np.asarray(a)
    return (
        # Aligned from the right, as broadcasting does.
        [] if a.size == 1 else [max(-1, rank - a.ndim + n) for n, e in enumerate(a.shape) if e > 1]
    )


def _common(
    r: Reading, names: tuple[str, ...]
) -> tuple[str, dict[str, list[tuple[g.Lookup, Array]]]] | None:
    """A tensor of whose values all of these are functions, and the tables on the way."""
    maker = {o.output: o for o in r.operators}
    chains: list[dict[str, list[tuple[g.Lookup, Array]]]] = []
    for name in names:
        at, way = name, list[tuple[g.Lookup, Array]]()
        seen = {at: list(way)}
        while isinstance(made := maker.get(at), g.Lookup):
            data = r.tensors[made.inputs[1]].data
            assert data is not None
            at, way = made.inputs[0], [(made, data), *way]
            seen[at] = list(way)
        chains.append(seen)
    # Nearest tensor first: the shortest way back that all have in common.
    for candidate in chains[0]:
        if all(candidate in seen for seen in chains):
            return candidate, {n: s[candidate] for n, s in zip(names, chains, strict=True)}
    return None


def _through(values: Array, way: list[tuple[g.Lookup, Array]], low: int, axis: int) -> Array:
    """Stored values behind the tables of a way."""
    # Indices into a table begin at the type's least value.
    for _, table in way:
        number = values.astype(np.int64) - low
        low = int(np.iinfo(table.dtype).min)
        if len(table) == 1:
            values = table[0][number]
        else:
            shape = [-1 if a == axis else 1 for a in range(values.ndim)]
            values = table[np.arange(len(table)).reshape(shape), number]
    return values


def moved_places(r: Reading, node: Any, x: g.Tensor) -> list[tuple[str, Array]] | None:
    """Where each element of the node's outputs comes from; None where it computes."""
    mode = r.attributes(node).get("mode", b"nearest")
    if node.op_type in ("Resize", "Upsample") and mode not in (b"nearest", "nearest"):
        return None
    others = [n for n in node.input[1:] if n]
    # Beyond 2^24 a float32 cannot number the elements.
    if any(n not in r.net.constants for n in others) or x.elements >= 1 << 24:
        return None
    onnx = import_onnx()
    held = constant_values(r.net, others)
    outputs = [o for o in node.output if o]
    graph = onnx.helper.make_graph(
        [copied(node)], "moved",
        [onnx.helper.make_tensor_value_info(node.input[0], onnx.TensorProto.FLOAT, x.shape)],
        [onnx.helper.make_tensor_value_info(o, onnx.TensorProto.FLOAT, None) for o in outputs],
        [onnx.numpy_helper.from_array(np.asarray(a), n) for n, a in held.items()],
    )  # fmt: skip
    model = onnx.helper.make_model(
        graph, opset_imports=list(r.net.model.opset_import), ir_version=r.net.model.ir_version
    )
    # Element numbers up to 2^24 are exact in float32, which all of these operators take. From 1:
    # 0 is what an operator fills in where no element is (Resize with tf_crop_and_resize).
    ids = np.arange(1, x.elements + 1, dtype=np.float32).reshape(x.shape)
    made = run_session(open_session(model, r.net.path), outputs, {node.input[0]: ids}, r.net.path)
    # An extrapolation value of another number would look like an element; it is an attribute.
    filled = float(r.attributes(node).get("extrapolation_value", 0.0))
    places = [np.asarray(m).astype(np.int64) - 1 for m in made]
    if filled or any((p < 0).any() for p in places):
        return None
    return list(zip(outputs, places, strict=True))
