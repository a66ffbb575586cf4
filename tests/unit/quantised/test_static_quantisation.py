"""What onnxruntime's quantiser makes of a float network, in all its forms, read and computed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import helper, numpy_helper
from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

from csp_embed.network.quantised.onnx.graph import read_onnx
from csp_embed.network.quantised.reference.run import run

SHAPE = (1, 3, 12, 10)


def network(tail: str) -> Any:
    """Convolutions with Relu and Relu6, a residual addition, pools, one of three classifiers."""
    rng = np.random.default_rng(1)

    def normal(name: str, *shape: int) -> Any:
        return numpy_helper.from_array(rng.normal(0, 0.3, shape).astype(np.float32), name)

    constants = [
        normal("w1", 8, 3, 3, 3), normal("b1", 8), normal("w2", 8, 1, 3, 3), normal("b2", 8),
        normal("w3", 8, 8, 1, 1), normal("b3", 8), normal("w4", 8, 5), normal("b4", 5),
        numpy_helper.from_array(np.float32(0), "low"),
        numpy_helper.from_array(np.float32(6), "high"),
    ]  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Conv", ["x", "w1", "b1"], ["a"], pads=[1, 1, 1, 1], strides=[2, 2]),
        node("Relu", ["a"], ["ar"]),
        node("Conv", ["ar", "w2", "b2"], ["d"], pads=[1, 1, 1, 1], group=8),
        node("Clip", ["d", "low", "high"], ["dr"]),
        node("Conv", ["dr", "w3", "b3"], ["e"]),
        node("Add", ["e", "ar"], ["s"]),
        node("MaxPool", ["s"], ["p"], kernel_shape=[2, 2], strides=[2, 2]),
        node("GlobalAveragePool", ["p"], ["g"]),
        node("Flatten", ["g"], ["f"]),
    ]
    if tail == "matmul":
        nodes += [node("MatMul", ["f", "w4"], ["m"]), node("Add", ["m", "b4"], ["y"])]
    else:
        nodes += [node("Gemm", ["f", "w4", "b4"], ["l" if tail == "softmax" else "y"])]
    if tail == "softmax":
        nodes += [node("Softmax", ["l"], ["y"])]
    value = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, "net", [value("x", 1, SHAPE)], [value("y", 1, [1, 5])], constants
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


class Reader(CalibrationDataReader):
    def __init__(self) -> None:
        rng = np.random.default_rng(2)
        self.rest = [{"x": rng.normal(0, 1, SHAPE).astype(np.float32)} for _ in range(8)]

    def get_next(self) -> Any:
        return self.rest.pop() if self.rest else None


@pytest.mark.parametrize("tail", ["gemm", "matmul", "softmax"])
@pytest.mark.parametrize("form", ["QDQ", "QOperator"])
@pytest.mark.parametrize(("kind", "per_channel"), [("QInt8", True), ("QUInt8", False)])
def test_every_form(tmp_path: Path, tail: str, form: str, kind: str, per_channel: bool) -> None:
    source, path = tmp_path / "float.onnx", tmp_path / "quantised.onnx"
    onnx.save(network(tail), source)
    quantize_static(
        source, path, Reader(), quant_format=QuantFormat[form], per_channel=per_channel,
        activation_type=QuantType[kind], weight_type=QuantType.QInt8,
    )  # fmt: skip
    graph = read_onnx(path)
    assert sum(op.kind in ("Conv", "FullyConnected") for op in graph.operators) == 4
    session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    first, last = graph.tensors[graph.inputs[0]], graph.tensors[graph.outputs[-1]]
    rng = np.random.default_rng(3)
    for _ in range(10):
        x = rng.normal(0, 1, SHAPE).astype(np.float32)
        stored = np.rint(x / np.float32(first.scales[0])) + first.zero
        values = run(graph, {first.name: np.clip(stored, *first.range).astype(first.dtype)})
        found = values[last.name].astype(np.float32) - np.float32(last.zero)
        found *= np.float32(last.scales[0])
        (expected,) = session.run(None, {"x": x})
        assert np.array_equal(found.reshape(expected.shape), expected)
