"""Quantised models stay quantised: bytes of weights and borders, and pieces equal the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from csp_embed.ir.network import Assignment, Plan
from csp_embed.network.files.platform import find_platform, read_platform
from csp_embed.network.onnx.graph import import_onnx_graph
from csp_embed.network.onnx.layers import GRANULARITIES
from csp_embed.network.onnx.reading.model import read_model
from csp_embed.run.agreement import RTOL, tolerance
from csp_embed.run.report import report_text
from csp_embed.run.run_plan import run_plan

node, value = helper.make_node, helper.make_tensor_value_info
FLOAT = TensorProto.FLOAT
PLATFORM = read_platform(find_platform("cpu_2gpu"))


def save(path: Path, nodes: Any, inputs: Any, outputs: Any, constants: dict[str, Any]) -> Path:
    tensors = [
        v if isinstance(v, onnx.TensorProto) else numpy_helper.from_array(np.asarray(v), n)
        for n, v in constants.items()
    ]
    model = helper.make_model(
        helper.make_graph(nodes, "g", inputs, outputs, tensors),
        opset_imports=[helper.make_opsetid("", 21)],
        ir_version=10,
    )
    onnx.checker.check_model(model)
    onnx.save(model, str(path))
    return path


def qdq(path: Path) -> Path:
    """Two uint8 x int8 convolutions and a residual sum, each between Q and DQ, as quantisers write
    them: one dequantisation serves two readers."""
    rng = np.random.default_rng(2)
    nodes, constants = [], {"z": np.uint8(128), "zw": np.int8(0), "s": np.float32(0.03)}

    def q(x: str, name: str) -> str:
        nodes.append(node("QuantizeLinear", [x, "s", "z"], [f"{name}.q"], name=f"{name}.Q"))
        nodes.append(node("DequantizeLinear", [f"{name}.q", "s", "z"], [f"{name}.d"]))
        return f"{name}.d"

    def conv(name: str, x: str, c: int) -> str:
        constants[f"{name}.w"] = rng.integers(-127, 128, (8, c, 3, 3)).astype(np.int8)
        nodes.append(node("DequantizeLinear", [f"{name}.w", "s", "zw"], [f"{name}.wf"]))
        nodes.append(node("Conv", [x, f"{name}.wf"], [f"{name}.y"], name=name, pads=[1] * 4))
        return f"{name}.y"

    a = q(conv("first", q("x", "in"), 3), "a")
    b = q(conv("second", a, 8), "b")
    nodes.append(node("Add", [a, b], ["sum"], name="residual"))
    nodes.append(node("Identity", [q("sum", "c")], ["y"]))
    shapes = value("x", FLOAT, [1, 3, 8, 8]), value("y", FLOAT, [1, 8, 8, 8])
    return save(path, nodes, [shapes[0]], [shapes[1]], constants)


@pytest.mark.parametrize("granularity", GRANULARITIES)
def test_weights_and_borders_are_counted_in_their_own_bytes(
    tmp_path: Path, granularity: str
) -> None:
    model = import_onnx_graph(qdq(tmp_path / "q.onnx"), PLATFORM, granularity=granularity)
    weights = sum(t.weight_bytes for t in model.graph.tasks)
    # Every reader has its scale (4) and zero point (1); the float form alone would be 4 x as large.
    assert 8 * 3 * 9 + 8 * 8 * 9 < weights < 8 * 3 * 9 + 8 * 8 * 9 + 100
    dequantised = {
        name: info.bytes
        for name, info in model.net.tensors.items()
        if name.endswith(".d") or "__for_" in name
    }
    assert dequantised
    crossing = {e.tensor: e.bytes for e in model.graph.edges}
    assert crossing["a.q"] == 8 * 8 * 8  # one byte each
    assert not set(crossing) & (set(dequantised) - {"c.d"})


def test_parts_equal_the_whole_and_the_tolerance_is_said(tmp_path: Path) -> None:
    model = import_onnx_graph(qdq(tmp_path / "q.onnx"), PLATFORM)
    devices = {"first": "gpu0", "second": "cpu0", "residual": "gpu1"}
    rows = tuple(
        Assignment(t, devices.get(t, "cpu0"), float(i), i + 1.0)
        for i, t in enumerate(model.graph.order())
    )
    plan = Plan("latency", 1.0, 0.0, None, "FEASIBLE", "by hand", assignments=rows)
    report = run_plan(model, plan, PLATFORM, runs=1, warm_ups=0)
    assert [t.dtype for t in report.tensors].count("uint8") >= 3
    assert report.equal
    assert max(t.worst for t in report.tensors) == 0.0
    assert "uint8 exactly" in report_text(report, plan)


def test_four_bit_weights_are_half_a_byte(tmp_path: Path) -> None:
    scale = np.full((1, 64), 0.1, np.float32)
    packed = helper.make_tensor("w", TensorProto.INT4, [64, 64], (np.arange(4096) % 16 - 8))
    nodes = [
        node("DequantizeLinear", ["w", "s"], ["wf"], axis=0, block_size=64),
        node("MatMul", ["x", "wf"], ["y"], name="mm"),
    ]
    ends = value("x", FLOAT, [1, 64]), value("y", FLOAT, [1, 64])
    path = save(tmp_path / "m.onnx", nodes, [ends[0]], [ends[1]], {"w": packed, "s": scale})
    model = import_onnx_graph(path, PLATFORM, granularity="node")
    assert [t.weight_bytes for t in model.graph.tasks if not t.pin] == [64 * 64 // 2 + 64 * 4]
    assert model.works["mm"].macs == 64 * 64


def test_weights_unpacked_through_a_transpose_stay_with_each_reader(tmp_path: Path) -> None:
    nodes = [
        node("DequantizeLinear", ["w", "s"], ["wf"]), node("Transpose", ["wf"], ["wt"]),
        node("MatMul", ["x", "wt"], ["a"], name="up"), node("Relu", ["a"], ["r"]),
        node("MatMul", ["r", "wf"], ["b"], name="down"),
        node("MatMul", ["b", "wt"], ["y"], name="z"),
    ]  # fmt: skip
    constants = {"w": np.arange(12).reshape(4, 3).astype(np.int8), "s": np.float32(0.5)}
    ends = value("x", FLOAT, [2, 3]), value("y", FLOAT, [2, 4])
    path = save(tmp_path / "m.onnx", nodes, [ends[0]], [ends[1]], constants)
    model = import_onnx_graph(path, PLATFORM)
    assert {t.id: t.weight_bytes for t in model.graph.tasks if not t.pin} == {
        "up": 16, "down": 16, "z": 16,
    }  # fmt: skip
    assert read_model(path).unpacked >= {"wf", "wt"}


def test_tolerances_follow_the_type() -> None:
    assert tolerance(np.dtype(np.float32)) == RTOL
    assert tolerance(np.dtype(np.float16)) == 4 * 2.0**-10
    assert tolerance(np.dtype(ml_dtypes.bfloat16)) == 4 * 2.0**-7
    assert tolerance(np.dtype(np.int8)) == 0.0
