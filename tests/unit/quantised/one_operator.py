"""One-operator ONNX models at arbitrary scales, and onnxruntime's answer to them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from onnx import TensorProto, helper, numpy_helper

from csp_embed.network.quantised.onnx.graph import read_onnx
from csp_embed.network.quantised.reference.run import run

KINDS = {"int8": TensorProto.INT8, "uint8": TensorProto.UINT8, "float32": TensorProto.FLOAT}
MICROSOFT = {
    "QLinearAdd",
    "QGemm",
    "QLinearAveragePool",
    "QLinearGlobalAveragePool",
    "QLinearConcat",
    "QLinearMul",
    "QLinearSigmoid",
}


class Model:
    """Collects nodes; every constant gets a name of its own."""

    def __init__(self) -> None:
        self.nodes: list[Any] = []
        self.constants: list[Any] = []
        self.inputs: list[Any] = []

    def constant(self, value: Any) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def input(self, name: str, dtype: str, shape: tuple[int, ...]) -> str:
        self.inputs.append(helper.make_tensor_value_info(name, KINDS[dtype], shape))
        return name

    def node(self, op: str, inputs: list[str], output: str, **attributes: Any) -> str:
        domain = attributes.pop("domain", "com.microsoft" if op in MICROSOFT else "")
        name = f"{op}.{len(self.nodes)}"
        self.nodes.append(
            helper.make_node(op, inputs, [output], name=name, domain=domain, **attributes)
        )
        return output

    def scale(self, scale: Any, zero: Any, dtype: str = "int8") -> tuple[str, str]:
        s, z = np.array(scale, np.float32), np.array(zero, dtype)
        return self.constant(s), self.constant(z)

    def real(self, stored: str, scale: Any, zero: Any, dtype: str = "int8", **axis: int) -> str:
        """Behind a DequantizeLinear."""
        return self.node(
            "DequantizeLinear", [stored, *self.scale(scale, zero, dtype)], f"{stored}.real", **axis
        )

    def quantise(self, name: str, scale: float, zero: int, dtype: str = "int8") -> str:
        return self.node("QuantizeLinear", [name, *self.scale(scale, zero, dtype)], f"{name}.q")

    def save(self, path: Path, output: str, dtype: str = "int8") -> Path:
        made = helper.make_tensor_value_info(output, KINDS[dtype], None)
        graph = helper.make_graph(self.nodes, "one", self.inputs, [made], self.constants)
        opsets = [helper.make_opsetid("", 17), helper.make_opsetid("com.microsoft", 1)]
        own = {n.domain for n in self.nodes} - {"", "com.microsoft"}
        opsets += [helper.make_opsetid(domain, 1) for domain in sorted(own)]
        model = helper.make_model(graph, opset_imports=opsets, ir_version=8)
        onnx.save(model, path)
        return path


def differences(path: Path, feeds: dict[str, Any]) -> tuple[int, int]:
    """(elements that differ from onnxruntime's, elements that are not at an end of the type)."""
    graph = read_onnx(path)
    found = run(graph, feeds)[graph.outputs[0]]
    # Else it may convolve floats where activations are int8, and rounds otherwise.
    how = ort.SessionOptions()
    how.add_session_config_entry("session.qdqisint8allowed", "1")
    session = ort.InferenceSession(str(path), how, providers=["CPUExecutionProvider"])
    expected = session.run(None, feeds)[0]
    assert (found.shape, found.dtype) == (expected.shape, expected.dtype)
    inside = (expected != np.iinfo(expected.dtype).min) & (expected != np.iinfo(expected.dtype).max)
    return int((found != expected).sum()), int(inside.sum())
