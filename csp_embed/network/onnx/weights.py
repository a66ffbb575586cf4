"""Constants of a model made real: folded, and random where the model only says their shape.

The light models of the onnx wheel fill every weight with one value, so their output does not depend
on their input. Such weights (results of ConstantOfShape) are replaced by seeded values at He scale:
a wrong cut or a swapped part then shows.
Source of the scale: He, Zhang, Ren, Sun, "Delving deep into rectifiers", ICCV 2015.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import InputError
from csp_embed.network.onnx.net import Net, import_onnx, node_reads
from csp_embed.network.onnx.runtime import open_session, run_session
from csp_embed.network.profiles.node_work import attributes

POLICIES = ("auto", "keep", "random")
# Seen through: they change form, not what a tensor is.
_PASS_ON = {"Unsqueeze", "Squeeze", "Reshape", "Flatten", "Transpose", "Identity", "Cast"}
_KEEPS_SIGN = {"MaxPool", "AveragePool", "GlobalAveragePool", "Concat", "Dropout", "LRN"}

Array = NDArray[Any]


def real_constants(net: Net, policy: str = "auto", seed: int = 0) -> dict[str, Array]:
    """Values of every constant that working nodes read.

    policy: "auto" replaces weights that ConstantOfShape filled, "random" every float weight of a
    known role (contraction weights, biases, normalisation), "keep" none. The values depend on the
    seed and the tensor's name alone.
    """
    if policy not in POLICIES:
        raise InputError(f"unknown weights policy {policy!r}", hint="one of " + ", ".join(POLICIES))
    # Only what working nodes read is made: unpacking is their own matter.
    need = dict.fromkeys(name for node in net.nodes for name in net.constant_reads(node))
    replaced = {} if policy == "keep" else _replaced(net, policy, seed)
    values = {name: value for name, value in replaced.items() if name in need}
    values |= constant_values(net, [name for name in need if name not in values])
    return {name: values[name] for name in need}


def _replaced(net: Net, policy: str, seed: int) -> dict[str, Array]:
    maker = {o: n for n in net.model.graph.node for o in n.output if o}
    # Sums of branches double the variance again and again until a softmax knows one class only.
    branches = {
        name
        for node in net.nodes
        if node.op_type in ("Add", "Sum") and len(net.reads(node)) > 1
        for name in net.reads(node)
    }
    values: dict[str, Array] = {}
    for node in net.nodes:
        for place, name in enumerate(node.input):
            if name not in net.constants or name in values or name not in net.tensors:
                continue
            # A single value is a parameter, no weight.
            info = net.tensors[name]
            if info.dtype not in ("FLOAT", "DOUBLE", "FLOAT16") or info.elements < 2:
                continue
            if policy == "auto" and not _filled(maker, name):
                continue
            # By name: a weight keeps its value when the model around it changes.
            rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
            gain = 0.4 if node.output[0] in branches else 1.0
            # Half of a rectifier's output is 0: weights read half the variance.
            if place == 1 and _rectified(maker, node.input[0]):
                gain *= math.sqrt(2.0)
            value = _draw(node, place, info.shape, gain, rng)
            if value is not None:
                kinds = {"FLOAT": np.float32, "DOUBLE": np.float64, "FLOAT16": np.float16}
                values[name] = value.astype(kinds[info.dtype])
    return values


def _filled(maker: Mapping[str, Any], name: str) -> bool:
    """Whether a tensor is ConstantOfShape's, seen through changes of shape or type."""
    node = maker.get(name)
    while node is not None and node.op_type in _PASS_ON:
        node = maker.get(node.input[0])
    return node is not None and node.op_type == "ConstantOfShape"


def _rectified(maker: Mapping[str, Any], name: str) -> bool:
    """Whether a tensor is a rectifier's, seen through what keeps its sign: then half of it is 0 and
    the weights that read it are twice as variable."""
    node = maker.get(name)
    while node is not None and node.op_type in (*_PASS_ON, *_KEEPS_SIGN):
        node = maker.get(node.input[0])
    return node is not None and node.op_type in ("Relu", "LeakyRelu", "PRelu", "Clip")


def _draw(node: Any, place: int, shape: tuple[int, ...], gain: float, rng: Any) -> Array | None:
    """Random values for one input of an operator; None where its role is not a weight's."""
    op = node.op_type
    if op in ("Conv", "ConvTranspose", "Gemm", "MatMul") and place == 1:
        # Products that go into one output: the variance grows with them.
        if op == "Conv":
            fan_in = math.prod(shape[1:])
        elif op == "ConvTranspose":
            fan_in = shape[0] * math.prod(shape[2:])
        elif op == "Gemm":
            fan_in = shape[1 if attributes(node).get("transB", 0) else 0]
        else:
            fan_in = shape[max(len(shape) - 2, 0)]
        # float32 from the start: scaling a float64 draw would double the memory.
        scale = np.float32(gain / math.sqrt(max(1, fan_in)))
        return rng.standard_normal(shape, np.float32) * scale
    if op == "BatchNormalization":
        if place in (1, 4):  # scale, variance
            # Near 1: a normalised network stays normalised.
            return (gain if place == 1 else 1.0) * rng.uniform(0.8, 1.2, shape)
        return rng.normal(0.0, 0.1, shape)
    if op in ("Conv", "ConvTranspose", "Gemm", "Add", "Sum", "Sub"):
        return rng.normal(0.0, 0.1, shape)
    if op in ("Mul", "Div"):
        # Factors near 1 keep the signal's size.
        return rng.uniform(0.8, 1.2, shape)
    return None


def constant_values(net: Net, names: list[str]) -> dict[str, Array]:
    """Values of initializers, and of constant nodes by running them alone.

    Raises: InputError where external weights cannot be read or onnxruntime refuses a node.
    """
    onnx = import_onnx()
    graph = net.model.graph
    folder = str(Path(net.path).parent)
    stored = {t.name: t for t in graph.initializer}
    values: dict[str, Array] = {}

    def value_of(tensor: Any) -> Array:
        try:
            return onnx.numpy_helper.to_array(tensor, base_dir=folder)
        except (OSError, ValueError, onnx.checker.ValidationError) as error:
            raise InputError(
                f"cannot read the weights of {tensor.name!r}",
                where=net.path,
                why=str(error),
                hint="keep the model's data file beside it, whole",
            ) from error

    computed = [name for name in names if name not in stored]
    values.update({n: value_of(stored[n]) for n in names if n in stored})
    if not computed:
        return values
    maker = {o: n for n in graph.node for o in n.output if o}
    nodes: list[Any] = []
    known: dict[str, Any] = {}
    seen: set[str] = set()
    # From the wanted constants back to initializers: nothing else is run.
    stack = list(computed)
    while stack:
        name = stack.pop()
        if name in seen:
            continue
        seen.add(name)
        node = maker.get(name)
        if node is None:
            known[name] = stored[name]
        elif node.op_type == "Constant" and node.attribute[0].name == "value":
            known[name] = onnx.TensorProto()
            known[name].CopyFrom(node.attribute[0].t)
            known[name].name = name
        # A Shape of a working tensor is constant without the tensor.
        elif node.op_type in ("Shape", "Size") and node.input[0] in net.tensors:
            known[name] = onnx.numpy_helper.from_array(_shape_value(net, node), name)
        elif node not in nodes:
            nodes.append(node)
            stack += node_reads(node)
    place = {id(n): i for i, n in enumerate(graph.node)}
    # The graph's own order is topological.
    nodes.sort(key=lambda n: place[id(n)])
    direct = [n for n in computed if n in known]
    values.update({n: onnx.numpy_helper.to_array(known[n], base_dir=folder) for n in direct})
    run = [n for n in computed if n not in known]
    if run:
        outputs = [onnx.helper.make_empty_tensor_value_info(n) for n in run]
        sub = onnx.helper.make_graph(nodes, "constants", [], outputs, list(known.values()))
        model = onnx.helper.make_model(sub, opset_imports=net.model.opset_import)
        model.ir_version = net.model.ir_version
        model.functions.extend(net.model.functions)
        session = open_session(model, net.path, folder=Path(folder))
        for name, result in zip(run, run_session(session, run, {}, net.path), strict=True):
            if not isinstance(result, np.ndarray):
                raise InputError(
                    f"constant {name!r} is a sequence or optional, not a tensor",
                    where=net.path,
                    hint="export the model again with that constant folded",
                )
            values[name] = result
    return values


def _shape_value(net: Net, node: Any) -> NDArray[np.int64]:
    shape = net.tensors[node.input[0]].shape
    if node.op_type == "Size":
        return np.array(math.prod(shape), np.int64)
    a = attributes(node)
    return np.array(shape[a.get("start", 0) : a.get("end", len(shape))], np.int64)
