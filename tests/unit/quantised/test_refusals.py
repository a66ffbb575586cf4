"""What is no quantised network is refused with the reason; graphs are checked."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from one_operator import Model
from onnx import TensorProto, helper
from shift_layers import Net

from csp_embed.errors import CheckError, InputError, MissingLibrary
from csp_embed.network.quantised import graph as g
from csp_embed.network.quantised.onnx.graph import read_onnx
from csp_embed.network.quantised.reference.run import run
from csp_embed.network.quantised.tflite.graph import read_tflite
from csp_embed.network.quantised.verify import verify


def refusal(path: Path) -> str:
    with pytest.raises(InputError) as caught:
        read_onnx(path)
    assert caught.value.hint
    return str(caught.value)


def test_a_float_model_is_told_how_to_become_integer(tmp_path: Path) -> None:
    m = Model()
    x = m.input("x", "float32", (1, 4))
    w = m.constant(np.ones((4, 3), np.float32))
    text = refusal(m.save(tmp_path / "m.onnx", m.node("MatMul", [x, w], "y"), "float32"))
    assert "no quantised operator" in text
    assert "quantize_static" in text


def test_an_operator_that_nobody_knows_before_a_layer(tmp_path: Path) -> None:
    m = Model()
    x = m.real(m.input("x", "int8", (1, 4)), 0.1, 0)
    y = m.quantise(m.node("Weird", [x], "f", domain="my.ops"), 0.1, 0)
    w = m.constant(np.ones((4, 3), np.int8))
    names = [y, *m.scale(0.1, 0), w, *m.scale(0.25, 0), *m.scale(1.0, 0)]
    assert "shape" in refusal(m.save(tmp_path / "m.onnx", m.node("QLinearMatMul", names, "y")))


def test_names_that_are_no_text(tmp_path: Path) -> None:
    m = Model()
    x = m.real(m.input("x", "int8", (1, 4)), 0.1, 0)
    path = m.save(tmp_path / "m.onnx", m.quantise(m.node("Relu", [x], "middle"), 0.1, 0))
    path.write_bytes(path.read_bytes().replace(b"Relu.1", b"Relu\xbf1"))
    assert "whole ONNX model" in refusal(path)


def test_a_float_tail_is_the_hosts(tmp_path: Path) -> None:
    m = Model()
    stored = m.input("x", "int8", (1, 1, 4, 4))
    real = m.real(stored, 0.1, 3)
    pooled = m.real(m.quantise(m.node("MaxPool", [real], "p", kernel_shape=[2, 2]), 0.1, 3), 0.1, 3)
    graph = read_onnx(m.save(tmp_path / "m.onnx", m.node("Softmax", [pooled], "y"), "float32"))
    assert [op.kind for op in graph.operators] == ["MaxPool"]
    assert graph.outputs == (graph.operators[0].output,)
    assert "the host's: Softmax" in " ".join(graph.notes)


def test_open_extents(tmp_path: Path) -> None:
    m = Model()
    m.inputs.append(helper.make_tensor_value_info("x", TensorProto.INT8, ["n", 4]))
    w = m.constant(np.ones((4, 3), np.int8))
    names = ["x", *m.scale(0.5, 0), w, *m.scale(0.25, 0), *m.scale(1.0, 0)]
    path = m.save(tmp_path / "m.onnx", m.node("QLinearMatMul", names, "y"))
    assert "n" in refusal(path)
    assert read_onnx(path, {"n": 5}).tensors["y"].shape == (5, 3)


def test_two_scales_of_one_tensor(tmp_path: Path) -> None:
    m = Model()
    x = m.input("x", "int8", (1, 2, 4, 4))
    a = m.node("QLinearGlobalAveragePool", [x, *m.scale(0.5, 0), *m.scale(1.0, 0)], "a")
    b = m.node("QLinearGlobalAveragePool", [x, *m.scale(0.25, 0), *m.scale(1.0, 0)], "b")
    names = [a, *m.scale(1.0, 0), b, *m.scale(1.0, 0), *m.scale(1.0, 0)]
    assert "two scales" in refusal(m.save(tmp_path / "m.onnx", m.node("QLinearAdd", names, "y")))


def test_missing_extras(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "m.tflite"
    path.write_bytes(Net.begin(1, (1, 4)).dense(3, 5).content())
    monkeypatch.setitem(sys.modules, "tflite", None)
    with pytest.raises(MissingLibrary, match=r"csp-embed\[tflite\]"):
        read_tflite(path)
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(MissingLibrary, match=r"csp-embed\[onnx\]"):
        read_onnx(tmp_path / "m.onnx")


def small(tmp_path: Path) -> g.Graph:
    path = tmp_path / "m.tflite"
    path.write_bytes(Net.begin(1, (1, 6, 6, 3)).conv(4, 3, 6).pool().dense(3, 5).content())
    return read_tflite(path)


def test_verify_names_what_is_broken(tmp_path: Path) -> None:
    graph = small(tmp_path)
    verify(graph)
    conv = next(op for op in graph.operators if isinstance(op, g.Conv))
    rest = tuple(op for op in graph.operators if op is not conv)
    rescale = g.FixedPoint((1 << 30,) * 3, (0,) * 3)
    broken = [
        (replace(conv, stride=(2, 1)), "operands make"),
        (replace(conv, stride=(0, 1)), "not positive"),
        (replace(conv, clamp=(-129, 127)), "clamps"),
        (replace(conv, rescale=rescale), "3 multipliers for 4"),
        (replace(conv, rescale=g.FloatScale((0.5,))), "profile tflm"),
        (replace(conv, groups=2), "2 groups"),
        (replace(conv, inputs=("nothing", *conv.inputs[1:])), "which nothing before it makes"),
        (replace(conv, rescale=g.FixedPoint((1 << 30,), (40,))), "beyond 2^30"),
    ]
    for op, text in broken:
        with pytest.raises(CheckError) as caught:
            verify(replace(graph, operators=(op, *rest)))
        assert text.replace("^", "^") in str(caught.value), text
    with pytest.raises(CheckError, match="second time"):
        verify(replace(graph, operators=(conv, replace(conv, name="again"), *rest)))
    with pytest.raises(CheckError, match="unknown profile"):
        verify(replace(graph, profile="litert"))


def test_inputs_of_the_reference(tmp_path: Path) -> None:
    graph = small(tmp_path)
    with pytest.raises(InputError, match="is missing"):
        run(graph, {})
    with pytest.raises(InputError, match="float32"):
        run(graph, {"x": np.zeros((1, 6, 6, 3), np.float32)})
    values = run(graph, {"x": np.zeros((5, 6, 6, 3), np.int8)})
    assert {v.shape[0] for v in values.values()} == {5}
