"""Quantised chains: recognised, equal to the NumPy reference, refused where inexact."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import qlinear, save

from csp_embed import ops
from csp_embed.network.made.quantised import quantised_net
from csp_embed.network.onnx.layers import layers
from csp_embed.network.onnx.quantised_chains import QuantLayer, quantised_layer
from csp_embed.network.onnx.reading.model import read_model
from csp_embed.network.onnx.runtime import open_session
from csp_embed.network.onnx.submodels import whole
from csp_embed.network.onnx.weights import real_constants
from csp_embed.network.profiles.measure import random_inputs
from csp_embed.ops.reference import evaluate

node = helper.make_node


def test_generated_networks_equal_the_reference(tmp_path: Path) -> None:
    onnx.save(quantised_net(6, 1), str(tmp_path / "q.onnx"))
    net = read_model(tmp_path / "q.onnx")
    parts = layers(net)
    inner = [t for p in parts for t in p.makes if t not in net.outputs]
    session = open_session(whole(net, real_constants(net), inner), "q")
    feeds = random_inputs(net, 0)
    names = [o.name for o in session.get_outputs()]
    values = feeds | dict(zip(names, session.run(names, feeds), strict=True))
    kernels = 0
    for part in parts:
        found = quantised_layer(net, part)
        if isinstance(found, str):
            assert part.op in ("Concat", "MaxPool")
            continue
        kernels += 1
        operator = getattr(ops, found.call)(**found.arguments)
        operands = {"x": values[found.x].reshape(found.x_shape), "w": found.w, "b": found.b}
        y = evaluate(operator, operands)["y"]
        expected = values[found.y].reshape(found.y_shape)
        np.testing.assert_array_equal(y, expected)
        low, high = found.arguments["clip"]
        assert ((expected > low) & (expected < high)).mean() >= 0.3
    assert kernels == 7


def test_equal_seeds_equal_bytes() -> None:
    first, again, other = (
        quantised_net(4, seed).SerializeToString(deterministic=True) for seed in (5, 5, 6)
    )
    assert first == again != other


def chain(tmp_path: Path, **changes: Any) -> QuantLayer | str:
    """A MatMulInteger chain with some of its properties changed."""
    given = {
        "w": np.full((64, 8), 3, np.int8),
        "scale": np.float64(2.0**-5),
        "low": np.float64(0),
        "high": np.float64(127),
        "to": TensorProto.DOUBLE,
        "floor": "Floor",
        "bias": np.arange(8, dtype=np.int32),
    } | changes
    nodes = [
        node("MatMulInteger", ["x", "w"], ["acc"], name="mm"),
        node("Add", ["acc", "b"], ["sum"], name="bias"),
        node("Cast", ["sum"], ["wide"], name="cast", to=given["to"]),
        node("Mul", ["wide", "scale"], ["scaled"], name="mul"),
        node(given["floor"], ["scaled"], ["floored"], name="floor"),
        node("Clip", ["floored", "low", "high"], ["clipped"], name="clip"),
        node("Cast", ["clipped"], ["y"], name="narrow", to=TensorProto.INT8),
    ]
    constants = {k: given[k] for k in ("w", "scale", "low", "high")} | {"b": given["bias"]}
    if given["to"] == TensorProto.FLOAT:
        for key in ("scale", "low", "high"):
            constants[key] = np.float32(constants[key])
    path = save(
        tmp_path / "c.onnx", nodes, {"x": [2, 64]}, {"y": [2, 8]}, constants, kind=TensorProto.INT8
    )
    net = read_model(path)
    (layer,) = layers(net)
    return quantised_layer(net, layer)


def test_the_plain_chain(tmp_path: Path) -> None:
    found = chain(tmp_path)
    assert isinstance(found, QuantLayer)
    assert found.call == "matmul"
    assert found.arguments == {
        "m": 8, "n": 2, "k": 64, "shift": 5, "clip": (0, 127), "bias_before_shift": True,
    }  # fmt: skip
    assert found.w is not None
    assert found.w.shape == (8, 64)
    np.testing.assert_array_equal(found.b, np.arange(8))


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"scale": np.float64(0.3)}, "2^-s"),
        ({"scale": np.float64(4.0)}, "2^-s"),
        ({"floor": "Round"}, "Round"),
        ({"high": np.float64(300)}, "wider than int8"),
        ({"low": np.float64(0.5)}, "not an integer"),
        ({"bias": np.arange(2 * 8, dtype=np.int32).reshape(2, 8)}, "one number per output channel"),
    ],
)
def test_what_no_kernel_computes_is_refused(
    tmp_path: Path, changes: dict[str, Any], reason: str
) -> None:
    found = chain(tmp_path, **changes)
    assert isinstance(found, str)
    assert reason in found


def test_float32_is_exact_only_below_24_bits(tmp_path: Path) -> None:
    assert isinstance(chain(tmp_path, to=TensorProto.FLOAT), QuantLayer)
    bias = np.full(8, 1 << 24, np.int32)
    found = chain(tmp_path, to=TensorProto.FLOAT, bias=bias)
    assert isinstance(found, str)
    assert "exactly" in found
    assert isinstance(chain(tmp_path, bias=bias), QuantLayer)


def test_float_layers_only_on_request(light: Path) -> None:
    net = read_model(light / "light_squeezenet.onnx")
    first = layers(net)[0]
    assert "not an integer chain" in str(quantised_layer(net, first))
    found = quantised_layer(net, first, assume_int8=True)
    assert isinstance(found, QuantLayer)
    assert (found.call, found.arguments["k"], found.arguments["shift"]) == ("conv2d", 64, 8)
    assert found.w is None


def test_qlinear_conv_with_power_of_two_scales(tmp_path: Path) -> None:
    net = read_model(qlinear(tmp_path / "q.onnx"))
    first, _, second = (quantised_layer(net, part) for part in layers(net))
    assert isinstance(first, QuantLayer)
    assert isinstance(second, QuantLayer)
    assert first.half_up
    assert first.arguments["shift"] == second.arguments["shift"] == 7
    np.testing.assert_array_equal(second.b, np.full(6, 64))
    x = random_inputs(net, 0)["x"]
    session = open_session(whole(net, real_constants(net), ["a"]), "q")
    expected = session.run(["a"], {"x": x})[0]
    found = evaluate(ops.conv2d(**first.arguments), {"x": x, "w": first.w, "b": first.b})
    total = found["acc"] + first.b.reshape(1, -1, 1, 1)
    up = total >> 7
    even = np.clip(up - ((total % 128 == 0) & (up % 2 == 1)), -128, 127)
    np.testing.assert_array_equal(even, expected)  # half to even is what onnxruntime does
    assert (found["y"] != expected).sum() == (np.clip(up, -128, 127) != even).sum()


def test_qlinear_conv_with_other_scales_is_refused(tmp_path: Path) -> None:
    net = read_model(qlinear(tmp_path / "q.onnx", scale_y=0.3))
    assert "2^-s" in str(quantised_layer(net, layers(net)[0]))
