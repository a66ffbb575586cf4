"""ONNX models as layers, tensors and costs."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper
from small_models import diamond, save

from csp_embed.errors import CheckError, InputError
from csp_embed.network.files.platform import find_platform, read_platform
from csp_embed.network.onnx.graph import import_onnx_graph
from csp_embed.network.onnx.layers import layers
from csp_embed.network.onnx.reading.model import read_model
from csp_embed.network.onnx.runtime import open_session
from csp_embed.network.onnx.submodels import cut, whole
from csp_embed.network.onnx.weights import real_constants
from csp_embed.network.profiles.file import profile_document
from csp_embed.network.profiles.measure import profile_model, random_inputs
from csp_embed.network.profiles.work import work_of

node = helper.make_node


@pytest.fixture
def gpus():
    return read_platform(find_platform("cpu_2gpu"))


def test_layers_of_the_diamond(tmp_path: Path) -> None:
    net = read_model(diamond(tmp_path / "m.onnx"))
    found = {g: layers(net, g) for g in ("node", "fused", "block")}
    assert [x.name for x in found["node"]] == [
        "conv0", "relu0", "left", "right", "add", "relu1", "pool", "flat", "fc",
    ]  # fmt: skip
    assert [(x.name, len(x.nodes)) for x in found["fused"]] == [
        ("conv0", 2), ("left", 1), ("right", 1), ("add", 2), ("pool", 2), ("fc", 1),
    ]  # fmt: skip
    assert [len(x.nodes) for x in found["block"]] == [2, 4, 2, 1]
    for groups in found.values():
        assert sorted(i for g in groups for i in g.nodes) == list(range(len(net.nodes)))
        made: set[str] = set(net.inputs)
        for group in groups:  # in an order that can run
            assert set(group.reads) <= made
            made |= set(group.makes)


def test_work_is_counted(tmp_path: Path) -> None:
    net = read_model(diamond(tmp_path / "m.onnx"))
    works = {x.name: work_of(net, x) for x in layers(net)}
    assert works["conv0"].macs == 8 * 8 * 8 * 3 * 9
    assert works["left"].kind == "Conv1x1"
    assert works["fc"].macs == 5 * 128
    assert works["fc"].weight_bytes == 4 * (5 * 128 + 5)
    assert works["pool"].macs == 0
    assert works["add"].read_bytes == 2 * 4 * 8 * 64


def test_tensors_become_named_edges(tmp_path: Path, gpus) -> None:
    model = import_onnx_graph(diamond(tmp_path / "m.onnx"), gpus)
    edges = {(e.src, e.dst): e for e in model.graph.edges}
    assert edges["conv0", "left"].tensor == edges["conv0", "right"].tensor == "r0"
    assert edges["conv0", "left"].bytes == 4 * 8 * 64
    assert edges["input:x", "conv0"].bytes == 4 * 3 * 64
    tasks = model.graph.by_id()
    assert tasks["input:x"].pin == tasks["output:y"].pin == "cpu0"
    assert set(tasks["left"].cost) == {"cpu", "gpu_large", "gpu_small"}
    assert all("roofline" in text for text in tasks["left"].origin.values())
    free = import_onnx_graph(diamond(tmp_path / "m.onnx"), gpus, io_free=True)
    assert not any(t.pin for t in free.graph.tasks)


def test_roofline_by_hand(tmp_path: Path, gpus) -> None:
    model = import_onnx_graph(diamond(tmp_path / "m.onnx"), gpus, batches=(4,))
    work = model.works["fc"]
    ops, size = 2 * 5 * 128, 4 * (128 + 5 + 5 * 128 + 5)
    assert (work.ops, work.bytes) == (ops, size)
    expected = max(ops / 1.4e9, size / 1.1e8) + 0.001
    assert model.graph.by_id()["fc"].cost["cpu"] == pytest.approx(expected)
    four = max(4 * ops / 1.4e9, (4 * 4 * (128 + 5) + 4 * (5 * 128 + 5)) / 1.1e8) + 0.001
    assert model.graph.by_id()["fc"].cost_by_batch["cpu"][4] == pytest.approx(four)


def test_dynamic_shapes_are_refused_or_bound(tmp_path: Path) -> None:
    path = diamond(tmp_path / "m.onnx", batch="N")
    with pytest.raises(InputError, match="dynamic shapes: x axis 0") as caught:
        read_model(path)
    assert "--dim" in caught.value.hint
    assert read_model(path, {"N": 2}).tensors["y"].shape == (2, 5)


def test_cycles_and_loose_ends_are_refused(tmp_path: Path) -> None:
    circle = [node("Add", ["x", "b"], ["a"], name="p"), node("Relu", ["a"], ["b"], name="q")]
    path = save(tmp_path / "c.onnx", circle, {"x": [2]}, {"b": [2]}, {})
    with pytest.raises(InputError, match="cycle"):
        read_model(path)
    loose = [node("Add", ["x", "nothing"], ["a"], name="p")]
    path = save(tmp_path / "l.onnx", loose, {"x": [2]}, {"a": [2]}, {})
    with pytest.raises(InputError, match="nothing"):
        read_model(path)


def test_unsorted_nodes_are_sorted(tmp_path: Path) -> None:
    nodes = [node("Relu", ["a"], ["y"], name="q"), node("Neg", ["x"], ["a"], name="p")]
    net = read_model(save(tmp_path / "u.onnx", nodes, {"x": [2]}, {"y": [2]}, {}))
    assert [n.name for n in net.nodes] == ["p", "q"]


def test_not_a_model(tmp_path: Path) -> None:
    (tmp_path / "n.onnx").write_bytes(b"not a model at all, only some text")
    with pytest.raises(InputError):
        read_model(tmp_path / "n.onnx")
    with pytest.raises(InputError, match="no such file"):
        read_model(tmp_path / "missing.onnx")


def test_an_operator_that_onnx_does_not_know(tmp_path: Path) -> None:
    nodes = [
        node("Twist", ["x"], ["a"], name="t", domain="my.ops"),
        node("Relu", ["a"], ["y"], name="r"),
    ]
    path = save(tmp_path / "o.onnx", nodes, {"x": [2]}, {"y": [2]}, {})
    model = onnx.load(str(path))
    model.opset_import.append(helper.make_opsetid("my.ops", 1))
    onnx.save(model, str(path))
    net = read_model(path)
    # What nobody knows the size of stays inside; the border is as declared, and both are said.
    assert [part.nodes for part in layers(net)] == [(0, 1)]
    assert net.tensors["y"].shape == (2,)
    assert "my.ops:Twist" in net.notes[0]
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    model.graph.output[0].type.tensor_type.shape.dim.add().dim_param = "n"
    onnx.save(model, str(path))
    with pytest.raises(InputError, match="Twist") as caught:
        read_model(path)
    assert "make_tensor_value_info('a'" in caught.value.hint


def test_a_model_that_this_onnxruntime_cannot_load(tmp_path: Path) -> None:
    nodes = [node("Relu", ["x"], ["y"], name="r")]
    path = save(tmp_path / "v.onnx", nodes, {"x": [2]}, {"y": [2]}, {})
    model = onnx.load(str(path))
    model.ir_version = 99
    with pytest.raises(InputError) as caught:
        open_session(model, str(path))
    text = caught.value.render()
    assert "IR version 99" in text
    assert "opset" in text
    assert "max supported IR version" in text


def test_a_device_without_an_operator(tmp_path: Path, gpus) -> None:
    from dataclasses import replace

    small = replace(gpus.devices[2], operators=("Conv", "Relu"))
    platform = replace(gpus, devices=(*gpus.devices[:2], small))
    graph = import_onnx_graph(diamond(tmp_path / "m.onnx"), platform).graph
    assert "gpu_small" in graph.by_id()["conv0"].cost
    assert "gpu_small" not in graph.by_id()["fc"].cost


def test_pieces_compute_what_the_whole_does(tmp_path: Path) -> None:
    net = read_model(diamond(tmp_path / "m.onnx"))
    constants = real_constants(net)
    feeds = random_inputs(net, 0)
    values = dict(feeds)
    for part in layers(net, "fused"):
        session = open_session(cut(net, constants, part.nodes, part.name), "part")
        given = {i.name: values[i.name] for i in session.get_inputs()}
        names = [o.name for o in session.get_outputs()]
        assert names == list(part.makes)
        values |= dict(zip(names, session.run(names, given), strict=True))
    original = onnx.load(str(tmp_path / "m.onnx"))
    expected = open_session(original, "m").run(["y"], feeds)[0]
    np.testing.assert_allclose(values["y"], expected, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(
        open_session(whole(net, constants), "w").run(["y"], feeds)[0], expected, rtol=1e-5
    )


def test_a_piece_that_needs_its_own_result_is_refused(tmp_path: Path) -> None:
    net = read_model(diamond(tmp_path / "m.onnx"))
    constants = real_constants(net)
    index = {n.name: i for i, n in enumerate(net.nodes)}
    with pytest.raises(CheckError, match="cannot run as one piece"):
        cut(net, constants, [index["conv0"], index["add"]], "bad")


def test_light_models_import(light: Path, gpus) -> None:
    expected = {"bvlc_alexnet": 14, "densenet121": 242, "inception_v1": 84, "resnet50": 73}
    for path in sorted(light.glob("light_*.onnx")):
        net = read_model(path)
        counts = [len(layers(net, g)) for g in ("node", "fused", "block")]
        assert counts == sorted(counts, reverse=True)
        name = path.stem.removeprefix("light_")
        assert counts[1] == expected.get(name, counts[1])
    graph = import_onnx_graph(light / "light_resnet50.onnx", gpus).graph
    assert len(graph.tasks) == 75
    macs = 4.089e9  # the published figure of ResNet-50
    works = import_onnx_graph(light / "light_resnet50.onnx", gpus).works
    assert sum(w.macs for w in works.values()) == pytest.approx(macs, rel=0.06)


def test_seeded_weights_make_the_output_depend_on_the_input(light: Path) -> None:
    net = read_model(light / "light_squeezenet.onnx")
    for policy, differs in (("auto", True), ("keep", False)):
        model = whole(net, real_constants(net, policy))
        session = open_session(model, "squeezenet")
        a, b = (session.run(None, random_inputs(net, s))[0] for s in (0, 1))
        assert np.array_equal(a, b) != differs
    again = real_constants(net, "auto", seed=0)
    first = real_constants(net, "auto", seed=0)
    assert all(np.array_equal(first[n], again[n]) for n in first)
    other = real_constants(net, "auto", seed=1)
    assert any(not np.array_equal(first[n], other[n]) for n in first)


def test_profile_is_complete_and_used(tmp_path: Path) -> None:
    import json

    path = diamond(tmp_path / "m.onnx")
    found = profile_model(path)
    assert list(found.layers) == [x.name for x in layers(read_model(path))]
    assert all(t.ms is not None and t.ms > 0 for t in found.layers.values())
    assert (found.threads, found.runs, found.warm_ups) == (1, 10, 3)
    (tmp_path / "prof.json").write_text(json.dumps(profile_document(found)))
    platform = read_platform(find_platform("two_cpu"))
    profiles = {"cpu": str(tmp_path / "prof.json")}
    graph = import_onnx_graph(path, platform, profiles=profiles).graph
    assert graph.by_id()["fc"].cost == {"cpu": found.layers["fc"].ms}
    assert graph.by_id()["fc"].origin["cpu"].startswith("measured (prof.json")
    with pytest.raises(InputError, match="granularity fused, not node"):
        import_onnx_graph(path, platform, profiles=profiles, granularity="node")
    other = diamond(tmp_path / "other.onnx", batch=2)
    with pytest.raises(InputError, match="another model"):
        import_onnx_graph(other, platform, profiles=profiles)
    with pytest.raises(InputError, match="no such device"):
        import_onnx_graph(path, platform, profiles={"tpu": "x"})
    with pytest.raises(InputError, match="cost on no device"):
        import_onnx_graph(path, platform)
    with pytest.raises(InputError, match="at least 10 runs"):
        profile_model(path, runs=2)


def test_profile_on_a_disturbed_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An empty call that seems slower than the whole model leaves every layer a time."""
    monkeypatch.setattr("csp_embed.network.profiles.measure._run_ms", lambda *_: 1e6)
    found = profile_model(diamond(tmp_path / "m.onnx"))
    times = [t.ms for t in found.layers.values()]
    assert all(ms is not None and ms > 0 for ms in times)
    assert found.run_ms + sum(times) == pytest.approx(found.whole_ms)


def test_integers_and_indices_get_values_that_fit(tmp_path: Path) -> None:
    nodes = [node("Gather", ["table", "i"], ["y"], name="g")]
    path = tmp_path / "e.onnx"
    save(path, nodes, {"i": [3]}, {"y": [3, 2]}, {"table": np.eye(2, dtype=np.float32)},
         kind=TensorProto.INT64)  # fmt: skip
    model = onnx.load(str(path))
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    onnx.save(model, str(path))
    assert random_inputs(read_model(path), 0)["i"].max() <= 1


def test_weights_in_a_second_file(tmp_path: Path) -> None:
    plain = read_model(diamond(tmp_path / "m.onnx"))
    model = onnx.load(str(tmp_path / "m.onnx"))
    onnx.save(
        model, str(tmp_path / "e.onnx"), save_as_external_data=True, size_threshold=0, location="w"
    )
    split = read_model(tmp_path / "e.onnx")
    feeds = random_inputs(plain, 0)
    found = [
        open_session(whole(net, real_constants(net)), "m").run(None, feeds)[0]
        for net in (plain, split)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    (tmp_path / "w").unlink()
    with pytest.raises(InputError, match="external data"):
        read_model(tmp_path / "e.onnx")
