"""Which layers an integer machine can run as one kernel: quantised chains, recognised exactly.

    ConvInteger | MatMulInteger (+ bias) -> floor(acc * 2^-s) (+ bias) -> Clip -> Cast to int8

QLinearConv counts where its scales make a shift: int8, zero points 0, scale_x * scale_w / scale_y =
2^-s. Adding 2^(s-1) before the shift rounds half up where ONNX rounds half to even: such layers are
marked `half_up`, and whoever runs them counts the ties. Anything else is refused with the reason.
With `assume_int8` a float Conv, Gemm or MatMul counts as the int8 layer of the same shape (shift
8), for costs only.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.network.onnx.layers import Layer
from csp_embed.network.onnx.net import Net
from csp_embed.network.onnx.weights import constant_values
from csp_embed.network.profiles.node_work import attributes

# Bits of a significand: integers below 2^bits are exact.
_EXACT = {"FLOAT": 24, "DOUBLE": 53, "FLOAT16": 11}


@dataclass(frozen=True)
class QuantLayer:
    """One kernel call.

    call, arguments: a function of csp_embed.ops and its keyword arguments. x, y: tensors of the
    model. w, b: int8 and int32 arrays in the operator's layout, None when only the cost is wanted.
    x_shape, y_shape: shapes of the operator's tensors (the model's own may have other views).
    half_up: b holds 2^(s-1) more than the model's bias: ties round up, not to even.
    """

    call: str
    arguments: Mapping[str, Any]
    x: str
    y: str
    x_shape: tuple[int, ...]
    y_shape: tuple[int, ...]
    w: NDArray[np.int8] | None = None
    b: NDArray[np.int32] | None = None
    key: tuple[Any, ...] = field(default=())
    half_up: bool = False


class _No(Exception):
    """The reason why a layer is not a quantised chain."""


def quantised_layer(net: Net, layer: Layer, assume_int8: bool = False) -> QuantLayer | str:
    """The kernel of a layer, or the reason why there is none."""
    try:
        # The contraction comes first in a fused layer.
        anchor = net.nodes[layer.nodes[0]]
        if anchor.op_type in ("ConvInteger", "MatMulInteger"):
            return _chain(net, layer)
        if anchor.op_type == "QLinearConv":
            return _qlinear(net, layer)
        if assume_int8 and layer.op in ("Conv", "Gemm", "MatMul"):
            return _assumed(net, layer)
    except _No as reason:
        return str(reason)
    return f"{layer.op} is not an integer chain"


def _chain(net: Net, layer: Layer) -> QuantLayer:
    nodes = [net.nodes[i] for i in layer.nodes]
    # A kernel writes one tensor.
    if len(layer.makes) != 1:
        raise _No("more than one tensor leaves the layer")
    anchor = nodes[0]
    x, w = anchor.input[0], anchor.input[1]
    if net.tensors[x].dtype != "INT8" or w not in net.constants:
        raise _No("x must be int8 and w a constant")
    weights = _constant(net, w)
    if weights.dtype != np.int8:
        raise _No("w must be int8")
    # A zero point of 0 is the same as none.
    for name in anchor.input[2:]:
        if name and (name not in net.constants or np.any(_constant(net, name))):
            raise _No("a zero point is not zero")
    steps = _steps(net, nodes, weights)
    epilogue: dict[str, Any] = {"shift": steps.shift, "clip": (steps.low, steps.high)}
    if steps.bias is not None:
        epilogue["bias_before_shift" if steps.before else "bias"] = True
    if anchor.op_type == "ConvInteger":
        call, arguments, array, x_shape, y_shape = _conv(net, anchor, weights)
    else:
        call, arguments, array, x_shape, y_shape = _matmul(net, anchor, weights)
    # Output channels, by whatever name the operator has for them.
    outputs = arguments.get("k", arguments.get("c", 0)) if call != "matmul" else arguments["m"]
    bias = None
    if steps.bias is not None:
        flat = steps.bias.reshape(-1)
        if flat.size not in (1, outputs):
            raise _No("the bias is not one number per output channel")
        bias = np.broadcast_to(flat, (outputs,)).astype(np.int32)
    arguments |= epilogue
    return QuantLayer(
        call, arguments, x, layer.makes[0], x_shape, y_shape, array, bias, _key(call, arguments)
    )


def _qlinear(net: Net, layer: Layer) -> QuantLayer:
    """QLinearConv(x, sx, zx, w, sw, zw, sy, zy, b) with scales that make a shift."""
    nodes = [net.nodes[i] for i in layer.nodes]
    # Anything behind would need a second rounding.
    if any(n.op_type not in ("Reshape", "Flatten", "Squeeze", "Unsqueeze") for n in nodes[1:]):
        raise _No("something other than a change of shape follows QLinearConv")
    if len(layer.makes) != 1:
        raise _No("more than one tensor leaves the layer")
    inputs = [*nodes[0].input, ""]
    if net.tensors[inputs[0]].dtype != "INT8" or any(n not in net.constants for n in inputs[1:8]):
        raise _No("x must be int8, everything else a constant")
    weights = _constant(net, inputs[3])
    zeros = [_constant(net, inputs[i]) for i in (2, 5, 7)]
    if weights.dtype != np.int8 or any(np.any(z) or z.dtype != np.int8 for z in zeros):
        raise _No("w must be int8 and the zero points int8 zeros")
    sx, sw, sy = (_constant(net, inputs[i]).astype(np.float64).reshape(-1) for i in (1, 4, 6))
    if not (sw == sw[0]).all():
        raise _No("the scale of w differs by channel")
    shift = _power("Mul", np.array(sx[0] * sw[0] / sy[0]))
    if shift < 1:
        raise _No("there is nothing to shift")
    call, arguments = _conv_arguments(net, nodes[0], (0, 3))
    outputs = weights.shape[0]
    given = _constant(net, inputs[8]) if inputs[8] else np.zeros(outputs, np.int32)
    # floor(acc * 2^-s + 1/2), which differs from half to even at ties alone.
    bias = given.astype(np.int64) + (1 << shift - 1)
    # The largest sum for any int8 input: x is at most 128 in magnitude.
    wide = np.abs(weights.astype(np.int64)).reshape(outputs, -1).sum(axis=1).max() * 128
    if wide + np.abs(bias).max() >= 1 << _EXACT["FLOAT"]:
        raise _No("sums may exceed what onnxruntime's float32 scaling holds exactly")
    arguments |= {"shift": shift, "clip": (-128, 127), "bias_before_shift": True}
    return QuantLayer(
        call,
        arguments,
        inputs[0],
        layer.makes[0],
        net.tensors[inputs[0]].shape,
        net.tensors[nodes[0].output[0]].shape,
        np.ascontiguousarray(weights[:, 0] if call == "depthwise_conv2d" else weights),
        bias.astype(np.int32),
        _key(call, arguments),
        half_up=True,
    )


@dataclass
class _Steps:
    shift: int = 0
    low: int = -128
    high: int = 127
    bias: NDArray[np.int64] | None = None
    before: bool = False


def _steps(net: Net, nodes: list[Any], weights: NDArray[Any]) -> _Steps:
    """Reads the epilogue; every node must follow the one before."""
    steps = _Steps()
    # States in the order in which a chain must pass them.
    state, kind = "sum", "INT32"
    largest = _largest_sum(nodes[0], weights)
    for before, node in pairwise(nodes):
        if before.output[0] not in node.input:
            # Bias before the shift or after it: only one of the two.
            raise _No(f"{node.op_type} does not follow {before.op_type}")
        others = [n for n in node.input if n and n != before.output[0]]
        if any(n not in net.constants for n in others):
            raise _No(f"{node.op_type} has two inputs that are not constant")
        values = [_constant(net, n) for n in others]
        op = node.op_type
        # A view behind the kernel costs nothing; in between it would change what a channel is.
        if op in ("Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity") and state == "end":
            continue
        if op == "Cast" and state != "end":
            kind = net.tensors[node.output[0]].dtype
            if kind == "INT8" and state in ("clipped",):
                state = "end"
            elif kind not in (*_EXACT, "INT32", "INT64"):
                raise _No(f"cast to {kind} before the clip")
        elif op == "Add" and state in ("sum", "floored") and steps.bias is None:
            bias = _integers(values[0])
            largest += int(np.abs(bias).max())
            steps.bias, steps.before = bias, state == "sum"
        elif op in ("Mul", "Div") and state == "sum":
            # Scaled in floating point: the product is exact only while the sum is.
            if largest >= 1 << _EXACT.get(kind, 0):
                raise _No(f"sums may reach {largest}, which {kind} does not hold exactly")
            steps.shift, state = _power(op, values[0]), "scaled"
        elif op == "Floor" and state in ("scaled", "sum"):
            state = "floored"
        elif op == "Clip" and state in ("sum", "floored"):
            if len(values) != 2:
                raise _No("Clip needs both limits")
            # Limits in float, but whole: integer clips.
            steps.low, steps.high = (int(v) for v in _integers(np.array([*map(float, values)])))
            state = "clipped"
        elif op == "Max" and state in ("sum", "floored") and values[0].size == 1:
            raise _No("use Clip with both limits")
        else:
            raise _No(f"{op} has no place after the {state} of the chain")
    if state != "end":
        raise _No("the chain does not end with Clip and Cast to int8")
    if not -128 <= steps.low <= steps.high <= 127:
        raise _No("the clip is wider than int8")
    if steps.bias is not None and np.abs(steps.bias).max() > np.iinfo(np.int32).max:
        raise _No("the bias does not fit int32")
    return steps


def _largest_sum(anchor: Any, weights: NDArray[Any]) -> int:
    """Largest magnitude of the integer sum for any int8 x."""
    wide = np.abs(weights.astype(np.int64))
    if anchor.op_type == "ConvInteger":
        # [..., k, m]: the sum runs over the axis before the last.
        return int(wide.reshape(wide.shape[0], -1).sum(axis=1).max()) * 128
    return int(wide.sum(axis=-2 if wide.ndim > 1 else 0).max()) * 128


def _power(op: str, value: NDArray[Any]) -> int:
    if value.size != 1:
        raise _No("the scale is not one number")
    # 0.5 is no integer, so that a scale of 0 or less is refused below.
    exponent = math.log2(float(value.reshape(-1)[0])) if float(value.reshape(-1)[0]) > 0 else 0.5
    shift = -exponent if op == "Mul" else exponent
    if shift != int(shift) or not 0 <= shift <= 31:
        raise _No("the scale is not 2^-s with s from 0 to 31")
    return int(shift)


def _integers(value: NDArray[Any]) -> NDArray[np.int64]:
    wide = np.asarray(value, dtype=np.float64)
    if not np.array_equal(wide, np.round(wide)):
        raise _No("a bias or limit is not an integer")
    return wide.astype(np.int64)


def _conv(
    net: Net, node: Any, w: NDArray[Any]
) -> tuple[str, dict[str, Any], NDArray[np.int8], tuple[int, ...], tuple[int, ...]]:
    call, arguments = _conv_arguments(net, node)
    array = w[:, 0] if call == "depthwise_conv2d" else w
    x_shape, y_shape = net.tensors[node.input[0]].shape, net.tensors[node.output[0]].shape
    return call, arguments, np.ascontiguousarray(array), x_shape, y_shape


def _conv_arguments(
    net: Net, node: Any, places: tuple[int, int] = (0, 1)
) -> tuple[str, dict[str, Any]]:
    """(function of csp_embed.ops, its arguments); places: of x and w among the node's inputs."""
    x, w = (net.tensors[node.input[i]].shape for i in places)
    if len(x) != 4:
        raise _No("only 2-D convolutions have a kernel")
    a = attributes(node)
    if a.get("auto_pad", b"NOTSET") not in (b"NOTSET", b""):
        raise _No("auto_pad is not supported: give pads")
    # ONNX lists begins of all axes, then ends.
    top, left, bottom, right = a.get("pads", [0, 0, 0, 0])
    arguments: dict[str, Any] = {"n": x[0], "c": x[1], "h": x[2], "w": x[3]}
    arguments |= {"k": w[0], "r": w[2], "s": w[3], "stride": tuple(a.get("strides", [1, 1]))}
    arguments |= {"pad": ((top, bottom), (left, right))}
    if list(a.get("dilations", [1, 1])) != [1, 1]:
        arguments["dilation"] = tuple(a["dilations"])
    groups = a.get("group", 1)
    # One input channel for each group: depthwise, with a multiplier.
    if groups == x[1] and w[1] == 1 and w[0] % groups == 0 and groups > 1:
        del arguments["k"]
        if w[0] != groups:
            arguments["multiplier"] = w[0] // groups
        return "depthwise_conv2d", arguments
    if groups != 1:
        arguments["groups"] = groups
    return "conv2d", arguments


def _matmul(
    net: Net, node: Any, w: NDArray[Any]
) -> tuple[str, dict[str, Any], NDArray[np.int8], tuple[int, ...], tuple[int, ...]]:
    if w.ndim != 2:
        raise _No("w must be a matrix")
    shape = net.tensors[node.input[0]].shape
    rows = math.prod(shape[:-1])
    arguments: dict[str, Any] = {"m": w.shape[1], "n": rows, "k": w.shape[0]}
    y_shape = (rows, w.shape[1])
    return "matmul", arguments, np.ascontiguousarray(w.T), (rows, w.shape[0]), y_shape


def _assumed(net: Net, layer: Layer) -> QuantLayer:
    """The int8 layer of a float layer's shape."""
    node = next(n for i in layer.nodes if (n := net.nodes[i]).op_type == layer.op)
    rest = [net.nodes[i].op_type for i in layer.nodes if net.nodes[i] is not node]
    # Two contractions do not fit one kernel; their cost would be a guess.
    if any(op in ("Conv", "Gemm", "MatMul") for op in rest):
        raise _No("the layer has more than one contraction")
    if node.input[1] not in net.constants and node.input[1] not in net.unpacked:
        raise _No("w is not a constant")
    clip = (0, 127) if "Relu" in rest or "Clip" in rest else (-128, 127)
    if layer.op == "Conv":
        call, arguments = _conv_arguments(net, node)
        x_shape, y_shape = net.tensors[node.input[0]].shape, net.tensors[node.output[0]].shape
    else:
        w, x = net.tensors[node.input[1]].shape, net.tensors[node.input[0]].shape
        if len(w) != 2:
            raise _No("w is not a matrix")
        a = attributes(node)
        # Gemm may say that an operand is stored transposed.
        if layer.op == "Gemm" and a.get("transB", 0):
            w = w[::-1]
        if layer.op == "Gemm" and a.get("transA", 0):
            x = x[::-1]
        rows = math.prod(x[:-1])
        call, arguments = "matmul", {"m": w[1], "n": rows, "k": w[0]}
        x_shape, y_shape = (rows, w[0]), (rows, w[1])
    arguments |= {"shift": 8, "clip": clip}
    if len(node.input) > 2 or "BatchNormalization" in rest:
        arguments["bias"] = True
        # A bias of 16 bits: the usual size, and only costs are wanted here.
        arguments["bias_range"] = 32768
    y = layer.makes[0]
    key = _key(call, arguments)
    return QuantLayer(call, arguments, node.input[0], y, x_shape, y_shape, key=key)


def _key(call: str, arguments: Mapping[str, Any]) -> tuple[Any, ...]:
    """Layers with the same key have the same kernel."""
    return (call, *sorted((k, str(v)) for k, v in arguments.items()))


def _constant(net: Net, name: str) -> NDArray[Any]:
    return constant_values(net, [name])[name]
