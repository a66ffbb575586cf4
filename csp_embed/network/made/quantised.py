"""Small integer ONNX networks that run bit-exact on CPU and on an int8 machine.

Every layer is ConvInteger or MatMulInteger, an int32 bias, floor(sum * 2^-s), Clip, Cast to int8;
sums are scaled in float64, which holds them exactly. Max pooling and flattening stand between.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.network.onnx.net import import_onnx

# Opset and IR version that every onnxruntime of the last years reads.
OPSET, IR_VERSION = 17, 8


def quantised_net(
    layers: int,
    seed: int,
    *,
    channels: int = 16,
    size: int = 16,
    classes: int = 10,
    branches: int = 2,
    batch: int = 1,
) -> Any:
    """A ModelProto with `layers` convolutions and a classifier.

    The convolutions run in `branches` parallel chains that join by concatenation, so that several
    devices have work at once. Input x: int8 [batch, channels, size, size]; output y: int8
    [batch, classes]. Raises: InputError for numbers out of range.
    """
    if min(layers, channels, classes, branches, batch) < 1 or size < 4:
        raise InputError(
            "quantised: numbers must be at least 1, size at least 4",
            hint="partition generate quantised --n 4 -o model.onnx",
        )
    onnx = import_onnx()
    # Seeded by what shapes the weights.
    build = _Builder(onnx, np.random.default_rng([seed, layers, channels]))
    value, width, extent = build.conv("conv0", "x", channels, channels, 3, 1)[0], channels, size
    ends: list[str] = []
    rest = layers - 1
    # Each branch gets its share of the layers; the first ones one more.
    for at in range(min(branches, max(1, rest))):
        count = rest // branches + (at < rest % branches)
        # Only the first convolution of a branch strides, so that all branches end at one size.
        branch, stride = value, 2 if count else 1
        for step in range(count):
            kernel = (3, 1)[(at + step) % 2]
            name = f"b{at}.conv{step}"
            branch = build.conv(name, branch, width, width, kernel, stride if step == 0 else 1)[0]
        # A branch without a layer still has to halve the image.
        if not count and rest:
            branch = build.pool(f"b{at}.pool", branch)
        ends.append(branch)
    if rest:
        extent = math.ceil(extent / 2)
    if len(ends) > 1:
        value = build.node("Concat", ends, "concat", axis=1)
        width *= len(ends)
    else:
        value = ends[0]
    value = build.pool("pool", value)
    extent = (extent - 2) // 2 + 1
    value = build.node("Flatten", [value], "flat", axis=1)
    build.matmul("fc", value, width * extent * extent, classes, output="y")
    shape = [batch, channels, size, size]
    graph = onnx.helper.make_graph(
        build.nodes,
        f"quantised-{layers}-s{seed}",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT8, shape)],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.INT8, [batch, classes])],
        build.constants,
    )
    opset = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(graph, opset_imports=opset, producer_name="csp-embed")
    model.ir_version = IR_VERSION
    # Checked by onnx itself: a generated model that no runtime takes would test nothing.
    onnx.checker.check_model(model, full_check=True)
    return model


class _Builder:
    """Collects nodes and constants."""

    def __init__(self, onnx: Any, rng: np.random.Generator) -> None:
        self.onnx, self.rng = onnx, rng
        self.nodes: list[Any] = []
        self.constants: list[Any] = []

    def node(self, op: str, inputs: list[str], name: str, **attributes: Any) -> str:
        made = self.onnx.helper.make_node(op, inputs, [f"{name}.y"], name=name, **attributes)
        self.nodes.append(made)
        return f"{name}.y"

    def constant(self, name: str, value: Any) -> str:
        self.constants.append(self.onnx.numpy_helper.from_array(np.asarray(value), name))
        return name

    def pool(self, name: str, x: str) -> str:
        return self.node("MaxPool", [x], name, kernel_shape=[2, 2], strides=[2, 2])

    def conv(self, name: str, x: str, c: int, k: int, r: int, stride: int) -> tuple[str, int]:
        w, shift = self.weights((k, c, r, r), c * r * r, x)
        inputs = [x, self.constant(f"{name}.w", w)]
        pad = r // 2
        total = self.node(
            "ConvInteger", inputs, name, pads=[pad] * 4, strides=[stride] * 2, kernel_shape=[r, r]
        )
        return self.epilogue(name, total, (1, k, 1, 1), shift, (0, 127)), shift

    def matmul(self, name: str, x: str, inputs: int, outputs: int, output: str) -> None:
        w, shift = self.weights((inputs, outputs), inputs, x)
        total = self.node("MatMulInteger", [x, self.constant(f"{name}.w", w)], name)
        self.epilogue(name, total, (outputs,), shift, (-128, 127), output)

    def weights(self, shape: tuple[int, ...], fan_in: int, x: str) -> tuple[Any, int]:
        """int8 weights, and a shift that leaves a standard deviation of 50 to 100: much of the
        result then lies inside the clip, and does so in the layers behind it too."""
        w = self.rng.integers(-63, 64, shape).astype(np.int8)
        # Root mean squares: of uniform int8 inputs, and of what a clip to 0..127 leaves.
        size = 74.0 if x == "x" else 42.0
        return w, max(0, math.floor(math.log2(size * 36.5 * math.sqrt(fan_in) / 50.0)))

    def epilogue(
        self,
        name: str,
        total: str,
        bias_shape: tuple[int, ...],
        shift: int,
        clip: tuple[int, int],
        output: str | None = None,
    ) -> str:
        double = self.onnx.TensorProto.DOUBLE
        # Up to 16 levels of the result either way: biases matter, and do not drown the sums.
        reach = 64 << shift >> 2
        bias = self.rng.integers(-reach, reach + 1, bias_shape).astype(np.int32)
        value = self.node("Add", [total, self.constant(f"{name}.b", bias)], f"{name}.bias")
        # float64 holds every int32 sum times a power of two exactly.
        value = self.node("Cast", [value], f"{name}.wide", to=double)
        scale = self.constant(f"{name}.scale", np.float64(2.0**-shift))
        value = self.node("Mul", [value, scale], f"{name}.shift")
        value = self.node("Floor", [value], f"{name}.floor")
        limits = [
            self.constant(f"{name}.{n}", np.float64(v)) for n, v in zip("lh", clip, strict=True)
        ]
        value = self.node("Clip", [value, *limits], f"{name}.clip")
        value = self.node("Cast", [value], f"{name}.narrow", to=self.onnx.TensorProto.INT8)
        if output is not None:
            self.nodes[-1].output[0] = output
            return output
        return value
