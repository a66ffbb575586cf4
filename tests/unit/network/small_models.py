"""Small ONNX models that tests build in memory."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper


def save(
    path: Path,
    nodes: list[Any],
    inputs: dict[str, list[Any]],
    outputs: dict[str, list[Any]],
    constants: dict[str, Any],
    *,
    kind: int = TensorProto.FLOAT,
    opset: int = 17,
    ir_version: int = 8,
) -> Path:
    """A model file; shapes may hold names for dynamic dimensions."""
    graph = helper.make_graph(
        nodes,
        "small",
        [helper.make_tensor_value_info(n, kind, s) for n, s in inputs.items()],
        [helper.make_tensor_value_info(n, kind, s) for n, s in outputs.items()],
        [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    model.ir_version = ir_version
    onnx.save(model, str(path))
    return path


def diamond(path: Path, batch: Any = 1) -> Path:
    """conv+relu -> two convolutions (1x1 and 3x3) -> add+relu -> pool -> flatten -> gemm."""
    rng = np.random.default_rng(3)

    def weight(*shape: int) -> Any:
        return (rng.standard_normal(shape) / np.sqrt(np.prod(shape[1:]))).astype(np.float32)

    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w0"], ["c0"], name="conv0", pads=[1, 1, 1, 1]),
        node("Relu", ["c0"], ["r0"], name="relu0"),
        node("Conv", ["r0", "w1"], ["c1"], name="left"),
        node("Conv", ["r0", "w2", "b2"], ["c2"], name="right", pads=[1, 1, 1, 1]),
        node("Add", ["c1", "c2"], ["s"], name="add"),
        node("Relu", ["s"], ["r1"], name="relu1"),
        node("MaxPool", ["r1"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node("Shape", ["p"], ["shape"], name="shape"),
        node("Gather", ["shape", "zero"], ["n"], name="gather"),
        node("Unsqueeze", ["n", "axes"], ["n1"], name="unsqueeze"),
        node("Concat", ["n1", "minus"], ["to"], name="concat", axis=0),
        node("Reshape", ["p", "to"], ["f"], name="flat"),
        node("Gemm", ["f", "w3", "b3"], ["y"], name="fc", transB=1),
    ]
    constants = {
        "w0": weight(8, 3, 3, 3),
        "w1": weight(8, 8, 1, 1),
        "w2": weight(8, 8, 3, 3),
        "b2": weight(8),
        "w3": weight(5, 8 * 16),
        "b3": weight(5),
        "zero": np.int64(0),
        "axes": np.array([0], np.int64),
        "minus": np.array([-1], np.int64),
    }
    return save(path, nodes, {"x": [batch, 3, 8, 8]}, {"y": [batch, 5]}, constants)


def qlinear(path: Path, shift: int = 7, scale_y: float | None = None) -> Path:
    """Two QLinearConv layers on int8 with scales that make shifts, a pool between them."""
    rng = np.random.default_rng(9)
    node = helper.make_node
    scales = {"sx": np.float32(0.5), "sw": np.float32(0.25)}
    scales["sy"] = np.float32(scale_y if scale_y is not None else 0.125 * 2.0**shift)
    scales["sz"] = np.float32(scales["sy"] * 0.25 * 2.0**shift)
    constants = dict(scales) | {
        "zero": np.int8(0),
        "w0": rng.integers(-40, 41, (8, 4, 3, 3)).astype(np.int8),
        "b0": rng.integers(-500, 501, 8).astype(np.int32),
        "w1": rng.integers(-40, 41, (6, 8, 1, 1)).astype(np.int8),
    }
    nodes = [
        node(
            "QLinearConv", ["x", "sx", "zero", "w0", "sw", "zero", "sy", "zero", "b0"], ["a"],
            name="first", pads=[1, 1, 1, 1],
        ),
        node("MaxPool", ["a"], ["p"], name="pool", kernel_shape=[2, 2], strides=[2, 2]),
        node(
            "QLinearConv", ["p", "sy", "zero", "w1", "sw", "zero", "sz", "zero"], ["y"],
            name="second",
        ),
    ]  # fmt: skip
    shapes = {"x": [1, 4, 8, 8]}, {"y": [1, 6, 4, 4]}
    return save(path, nodes, *shapes, constants, kind=TensorProto.INT8)
