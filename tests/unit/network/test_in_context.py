"""Times of layers inside the whole model: rewritten kernels, traced back to layers."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import helper
from small_models import diamond, save

from csp_embed.ir.network import Assignment, Plan
from csp_embed.network.files.platform import find_platform, read_platform
from csp_embed.network.onnx.graph import import_onnx_graph
from csp_embed.network.onnx.layers import layers
from csp_embed.network.onnx.reading.model import read_model
from csp_embed.network.onnx.runtime import open_session
from csp_embed.network.onnx.submodels import whole
from csp_embed.network.onnx.weights import real_constants
from csp_embed.network.profiles.file import profile_document
from csp_embed.network.profiles.in_context import kernel_ms, owners
from csp_embed.network.profiles.measure import profile_model, random_inputs
from csp_embed.run.device_parts import parts_of

node = helper.make_node


def rewritten(op: str, name: str, reads: list[str], makes: list[str]) -> Any:
    return SimpleNamespace(op_type=op, name=name, input=reads, output=makes)


def test_rewritten_nodes_find_their_layers(tmp_path: Path) -> None:
    net = read_model(diamond(tmp_path / "m.onnx"))
    parts = layers(net)
    nodes = [
        rewritten("ReorderInput", "ReorderInput", ["x"], ["token_0"]),
        rewritten("Conv", "c0_nchwc", ["token_0"], ["token_1"]),
        rewritten("Conv", "c1_nchwc", ["token_1"], ["token_2"]),
        # The sum and its rectifier went into the other convolution.
        rewritten("Conv", "c2_bn_nchwc", ["token_1", "token_2"], ["token_3"]),
        rewritten("MaxPool", "p_nchwc", ["token_3"], ["token_4"]),
        rewritten("ReorderOutput", "ReorderOutput", ["token_4"], ["p"]),
        rewritten("Reshape", "flat", ["p"], ["f"]),
        rewritten("Gemm", "fc", ["f"], ["y"]),
    ]
    assert owners(net, parts, nodes) == [
        "conv0", "conv0", "left", "right", "pool", "pool", "pool", "fc",
    ]  # fmt: skip


def test_a_fused_sum_belongs_to_the_work_that_it_was_fused_into(tmp_path: Path) -> None:
    nodes = [
        node("Conv", ["x", "w"], ["c"], name="conv"),
        node("Relu", ["c"], ["r"], name="relu"),
        node("Add", ["r", "x"], ["y"], name="add"),
    ]
    weights = {"w": np.ones((2, 2, 1, 1), np.float32)}
    shape = [1, 2, 4, 4]
    net = read_model(save(tmp_path / "m.onnx", nodes, {"x": shape}, {"y": shape}, weights))
    # onnxruntime names a FusedConv like its convolution, or gives it its last output's name.
    for name, out in (("conv", "t"), ("r_nchwc", "t"), ("unknown", "r")):
        found = owners(net, layers(net, "node"), [rewritten("FusedConv", name, ["x"], [out])])
        assert found == ["conv"]
    assert owners(net, layers(net, "node"), [rewritten("Odd", "odd", ["q"], ["t"])]) == [None]


@pytest.mark.parametrize("name", ["squeezenet", "shufflenet", "resnet50", "densenet121"])
def test_every_kernel_of_real_networks_has_its_layer(
    light: Path, tmp_path: Path, name: str
) -> None:
    net = read_model(light / f"light_{name}.onnx")
    parts = layers(net)
    path = tmp_path / "rewritten.onnx"
    open_session(whole(net, real_constants(net)), name, rewritten=path)
    nodes = list(onnx.load(str(path), load_external_data=False).graph.node)
    found = owners(net, parts, nodes)
    assert None not in found
    kernels = Counter(o for x, o in zip(nodes, found, strict=True) if x.op_type.endswith("Conv"))
    # One each: normalisations that became convolutions belong to layers of their own.
    assert {p.name: kernels[p.name] for p in parts if p.op == "Conv"} == {
        p.name: 1 for p in parts if p.op == "Conv"
    }


def test_a_profile_adds_up_to_the_whole(tmp_path: Path) -> None:
    path = diamond(tmp_path / "m.onnx")
    found = profile_model(path, clock="cpu")
    inside = [t.ms for t in found.layers.values()]
    assert sum(x or 0.0 for x in inside) + found.run_ms == pytest.approx(found.whole_ms)
    assert all(x is not None and x >= 0 for x in inside)
    assert found.run_ms > 0
    net = read_model(path)
    kernels = kernel_ms(net, real_constants(net), layers(net), random_inputs(net, 0))
    assert set(kernels) == set(found.layers)
    assert sum(kernels.values()) > 0


def test_a_part_lies_between_its_layers_inside_and_alone(tmp_path: Path) -> None:
    """conv0 -> (left, right) -> add -> pool -> fc; r0, c1, c2 and r1 have 2048 bytes each."""
    path = diamond(tmp_path / "m.onnx")
    profile = profile_model(path)
    names = list(profile.layers)
    times = {
        n: t.model_copy(update={"ms": 1.0 + i, "alone_ms": 10.0 + i})
        for i, (n, t) in enumerate(profile.layers.items())
    }
    file = tmp_path / "prof.json"
    known = profile.model_copy(update={"layers": times, "run_ms": 0.5, "whole_ms": 21.5})
    file.write_text(json.dumps(profile_document(known)))
    platform = read_platform(find_platform("two_cpu"))
    model = import_onnx_graph(path, platform, profiles={"cpu": str(file)})

    def parts(second: set[str]) -> dict[tuple[str, ...], float]:
        rows = tuple(Assignment(t, "cpu1" if t in second else "cpu0") for t in model.graph.order())
        plan = Plan("throughput", 1.0, 0.0, None, "FEASIBLE", "by hand", assignments=rows)
        return {p.tasks: p.predicted_ms for p in parts_of(plan, model, platform)}

    assert parts(set()) == {tuple(names): pytest.approx(sum(range(1, 7)) + 0.5)}
    found = parts({"left"})
    assert found["left",] == pytest.approx(11.0)  # alone
    # r0, all that conv0 makes, leaves the part for left; right reads it inside, and makes c2.
    assert found["conv0", "right"] == pytest.approx(
        0.5 + (1 + (10 - 0.5 - 1)) + (3 + 0.5 * (12 - 0.5 - 3))
    )
    # c1 and c2 come from outside, of c1, c2, r1; pool and fc stay inside.
    assert found["add", "pool", "fc"] == pytest.approx(0.5 + (4 + 2 / 3 * (13 - 0.5 - 4)) + 5 + 6)
