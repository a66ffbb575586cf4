"""What onnxruntime runs, we import: declared shapes, branches, functions, operators of its own,
values that decide shapes; and what is refused says why and what helps."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_onnx_odd import runs_in_pieces

from csp_embed.errors import InputError
from csp_embed.network.files.platform import find_platform, read_platform
from csp_embed.network.onnx.graph import import_onnx_graph
from csp_embed.network.onnx.reading.load import is_model_file
from csp_embed.network.onnx.reading.model import read_model
from csp_embed.network.onnx.runtime import open_session
from csp_embed.network.profiles.measure import profile_model

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))
from bench_onnx_import import judge, model_cases, node_cases

node, value = helper.make_node, helper.make_tensor_value_info
FLOAT, BOOL, INT64 = TensorProto.FLOAT, TensorProto.BOOL, TensorProto.INT64
X, Y = value("x", FLOAT, [2, 3]), value("y", FLOAT, [2, 3])
RELU = node("Relu", ["x"], ["y"], name="relu")


def write(path: Path, nodes: Any, inputs: Any, outputs: Any, constants: Any = (), **more: Any):
    """A model file. more: value_info, functions, domains (name -> version), opset, ir."""
    tensors = [
        v if isinstance(v, onnx.TensorProto) else numpy_helper.from_array(np.asarray(v), n)
        for n, v in dict(constants).items()
    ]
    graph = helper.make_graph(
        nodes, "g", inputs, outputs, tensors, value_info=more.get("value_info", [])
    )
    domains = {"": more.get("opset", 21)} | more.get("domains", {})
    model = helper.make_model(
        graph,
        opset_imports=[helper.make_opsetid(d, v) for d, v in domains.items()],
        functions=more.get("functions", []),
    )
    model.ir_version = more.get("ir", 10)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.slow
def test_a_sample_of_the_wheels_tests(tmp_path: Path) -> None:
    """The rest is walked by scripts/bench_onnx_import."""
    cases = [*random.Random(11).sample(node_cases(), 60)]
    cases += random.Random(12).sample(list(model_cases()), 40)
    verdicts = [judge(case, tmp_path) for case in cases]
    known = ("sequences, maps and optionals", "no fixed size in bytes", "is constant, or an input")
    for verdict in verdicts:
        assert verdict.kind != "wrong", verdict
        assert verdict.kind != "refused" or any(text in verdict.why for text in known), verdict
    assert sum(v.kind == "imported" for v in verdicts) > 50


@pytest.mark.parametrize("shape", [[7, 7], [0, 3], [-1, 3], [6], ["N", "M"], None])
def test_declared_shapes_of_computed_tensors_are_hints(tmp_path: Path, shape: Any) -> None:
    nodes = [node("Relu", ["x"], ["a"]), node("Neg", ["a"], ["y"])]
    path = write(
        tmp_path / "m.onnx", nodes, [X], [value("y", FLOAT, shape)],
        value_info=[value("a", FLOAT, shape)],
    )  # fmt: skip
    net = read_model(path)
    assert net.tensors["y"].shape == net.tensors["a"].shape == (2, 3)


def squeeze_if(cond: list[Any]) -> list[Any]:
    """If c: drop the axis of extent 1, else keep it."""
    squeeze = helper.make_graph(
        [node("Squeeze", ["x", "one"], ["t"])], "then", [], [value("t", FLOAT, None)]
    )
    keep = helper.make_graph([node("Neg", ["x"], ["t"])], "else", [], [value("t", FLOAT, None)])
    choice = node("If", ["c"], ["q"], name="if", then_branch=squeeze, else_branch=keep)
    return [*cond, choice, node("Abs", ["q"], ["y"], name="abs")]


def test_a_branch_on_a_bound_shape_is_opened(tmp_path: Path) -> None:
    cond = [
        node("Shape", ["x"], ["s"]), node("Gather", ["s", "one0"], ["d"]),
        node("Equal", ["d", "one0"], ["c"]),
    ]  # fmt: skip
    path = write(
        tmp_path / "m.onnx", squeeze_if(cond), [value("x", FLOAT, ["N", 1, 3])],
        [value("y", FLOAT, None)], {"one": np.array([1]), "one0": np.int64(1)},
    )  # fmt: skip
    net = read_model(path, {"N": 2})
    assert net.tensors["y"].shape == (2, 3)
    assert all(n.op_type != "If" for n in net.nodes)


def test_a_branch_on_an_input_takes_its_shape_from_given_values(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.onnx", squeeze_if([]), [value("x", FLOAT, [2, 1, 3]), value("c", BOOL, [])],
        [value("y", FLOAT, None)], {"one": np.array([1])},
    )  # fmt: skip
    with pytest.raises(InputError, match="values of the model's inputs decide it") as caught:
        read_model(path)
    assert "--inputs FILE.npz with values for x, c" in caught.value.hint
    x = np.ones((2, 1, 3), np.float32)
    for cond, shape in ((True, (2, 3)), (False, (2, 1, 3))):
        net = read_model(path, feeds={"x": x, "c": np.array(cond)})
        assert net.tensors["y"].shape == shape


def test_the_command_line_takes_values_and_keeps_them_in_the_plan(tmp_path: Path) -> None:
    path = write(
        tmp_path / "m.onnx", [node("NonZero", ["x"], ["y"], name="nz")],
        [value("x", FLOAT, [2, "N"])], [value("y", INT64, [2, None])],
    )  # fmt: skip
    np.savez(tmp_path / "in.npz", x=np.eye(2, 5, dtype=np.float32))
    command = [sys.executable, "-m", "csp_embed"]
    plan = str(tmp_path / "p.json")
    given = ["--platform", "cpu_2gpu", "--inputs", str(tmp_path / "in.npz"), "-o", plan]
    first = subprocess.run([*command, "partition", str(path), *given], capture_output=True)
    assert first.returncode == 0, first.stderr
    run = subprocess.run([*command, "run-plan", str(path), plan, "--runs=1"], capture_output=True)
    assert run.returncode == 0, run.stderr
    assert b"int64 exactly" in run.stdout


@pytest.mark.parametrize(
    ("nodes", "outputs", "sizes"),
    [
        # Unsized tensors inside: sequences, counts.
        ([node("SplitToSequence", ["x"], ["q"], axis=0),
          node("ConcatFromSequence", ["q"], ["y"], axis=0)], [Y], 1),
        ([node("NonZero", ["x"], ["i"]), node("Cast", ["i"], ["f"], to=FLOAT),
          node("ReduceSum", ["f"], ["r"], keepdims=0), node("Add", ["x", "r"], ["y"])], [Y], 2),
        # onnxruntime's own operators.
        ([node("Gelu", ["x"], ["a"], domain="com.microsoft"), node("Shape", ["a"], ["s"]),
          node("Reshape", ["a", "s"], ["b"]),
          node("FusedMatMul", ["b", "b"], ["y"], domain="com.microsoft", transB=1)],
         [value("y", FLOAT, None)], 2),
    ],
)  # fmt: skip
def test_what_onnx_cannot_infer_runs_in_pieces(
    tmp_path: Path, nodes: list[Any], outputs: list[Any], sizes: int
) -> None:
    path = write(tmp_path / "m.onnx", nodes, [X], outputs, domains={"com.microsoft": 1})
    runs_in_pieces(path)
    graph = import_onnx_graph(path, read_platform(find_platform("cpu_2gpu"))).graph
    assert sum(not t.pin for t in graph.tasks) <= sizes


def test_nested_functions_of_another_opset(tmp_path: Path) -> None:
    imports = [helper.make_opsetid("", 13), helper.make_opsetid("my", 1)]
    inner = helper.make_function(
        "my", "F", ["a"], ["b"], [node("Relu", ["a"], ["r"]), node("Neg", ["r"], ["b"])], imports
    )
    outer = helper.make_function(
        "my", "G", ["a"], ["b"],
        [node("F", ["a"], ["r"], domain="my"), node("F", ["r"], ["b"], domain="my")], imports,
    )  # fmt: skip
    path = write(
        tmp_path / "m.onnx", [node("G", ["x"], ["y"], domain="my")], [X], [Y],
        functions=[inner, outer], domains={"my": 1},
    )  # fmt: skip
    net = read_model(path)
    assert [n.op_type for n in net.nodes] == ["Relu", "Neg"] * 2
    runs_in_pieces(path)


def test_what_nobody_reads_does_not_matter(tmp_path: Path) -> None:
    unread = [
        value("u", FLOAT, ["K"]), value("s", TensorProto.STRING, [1]),
        helper.make_tensor_sequence_value_info("q", FLOAT, [2]),
    ]  # fmt: skip
    dead = [node("Neg", ["x"], ["d"], name="dead"), node("Abs", ["d"], ["e"], name="deader")]
    path = write(tmp_path / "m.onnx", [RELU, *dead], [X, *unread], [Y])
    model = import_onnx_graph(path, read_platform(find_platform("cpu_2gpu")))
    assert list(model.layers) == ["relu"]
    assert "dead, deader" in model.notes[0]
    assert list(profile_model(path).layers) == ["relu"]


def test_guessed_costs_are_said(tmp_path: Path) -> None:
    foo = [node("Foo", ["x"], ["a"], name="foo", domain="my"), node("Relu", ["a"], ["y"])]
    path = write(
        tmp_path / "m.onnx", foo, [X], [value("y", FLOAT, None)], domains={"my": 1},
        value_info=[value("a", FLOAT, [2, 7])],
    )  # fmt: skip
    model = import_onnx_graph(path, read_platform(find_platform("cpu_2gpu")))
    assert model.net.tensors["y"].shape == (2, 7)
    assert any("'foo' is a guess: my.Foo counts as one operation" in n for n in model.notes)
    assert any("as the file declares them" in n for n in model.notes)


def test_loops_cost_as_often_as_they_run(tmp_path: Path) -> None:
    body = helper.make_graph(
        [node("MatMul", ["v", "w"], ["v2"]), node("Identity", ["go"], ["go2"])], "body",
        [value("i", INT64, []), value("go", BOOL, []), value("v", FLOAT, [4, 4])],
        [value("go2", BOOL, []), value("v2", FLOAT, [4, 4])],
    )  # fmt: skip
    square = [value(n, FLOAT, [4, 4]) for n in "xy"]
    path = write(
        tmp_path / "m.onnx", [node("Loop", ["n", "yes", "x"], ["y"], name="loop", body=body)],
        square[:1], square[1:],
        {"n": np.int64(5), "yes": np.array(True), "w": np.eye(4, dtype=np.float32)},
    )  # fmt: skip
    model = import_onnx_graph(path, read_platform(find_platform("cpu_2gpu")))
    assert model.works["loop"].macs == 5 * 4 * 4 * 4


@pytest.mark.parametrize(("opset", "ir"), [(4, 3), (27, 10), (21, 14)])
def test_the_hint_for_a_wrong_version_works(tmp_path: Path, opset: int, ir: int) -> None:
    path = write(tmp_path / "m.onnx", [RELU], [X], [Y], opset=opset, ir=ir)
    with pytest.raises(InputError) as caught:
        open_session(onnx.load(str(path)), str(path))
    hint = caught.value.hint
    assert ("too old" if opset < 7 else "too new") in hint
    code = hint.split('python -c "')[1].split('", or ')[0]
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    session = onnxruntime.InferenceSession(str(tmp_path / "converted.onnx"))
    x = np.array([[1, -2, 3], [-4, 5, -6]], np.float32)
    np.testing.assert_array_equal(session.run(None, {"x": x})[0], np.maximum(x, 0))


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("m.ort", b"\x10\0\0\0ORTM" + bytes(8), "onnxruntime's own format"),
        ("m.tflite", b"\x1c\0\0\0TFL3" + bytes(8), "a TensorFlow Lite model"),
        ("m.onnx", b"PK\x03\x04" + bytes(8), "a zip archive"),
        ("m.onnx", b"version https://git-lfs.github.com/spec/v1\n", "a pointer of git-lfs"),
        ("m.onnx", b"", "the file is empty"),
        ("m.onnx", b"layers: []\n", "not an ONNX model"),
    ],
)
def test_other_files_are_named(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    (tmp_path / name).write_bytes(data)
    assert is_model_file(tmp_path / name)
    with pytest.raises(InputError, match=message) as caught:
        read_model(tmp_path / name)
    assert caught.value.hint


def test_models_are_known_by_their_bytes_and_texts_by_their_ending(tmp_path: Path) -> None:
    binary = write(tmp_path / "m.json", [RELU], [X], [Y])
    text = tmp_path / "m.textproto"
    text.write_text(str(onnx.load(str(binary), format="protobuf")))
    for path in (binary, text):
        assert is_model_file(path)
        assert read_model(path).tensors["y"].shape == (2, 3)
    graph = tmp_path / "g.json"
    graph.write_text('{"format": "csp-embed-graph/1"}')
    assert not is_model_file(graph)
