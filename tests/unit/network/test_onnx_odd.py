"""ONNX models as people export them: odd, but valid; and what is refused, with one error each."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper
from small_models import save

from csp_embed.errors import InputError
from csp_embed.network.files.platform import find_platform, read_platform
from csp_embed.network.onnx.graph import import_onnx_graph
from csp_embed.network.onnx.layers import layers
from csp_embed.network.onnx.reading.model import read_model
from csp_embed.network.onnx.runtime import open_session, run_session
from csp_embed.network.onnx.submodels import cut
from csp_embed.network.onnx.weights import real_constants
from csp_embed.network.profiles.measure import random_inputs

node = helper.make_node
value = helper.make_tensor_value_info
FLOAT, BOOL = TensorProto.FLOAT, TensorProto.BOOL
INT64, STRING = TensorProto.INT64, TensorProto.STRING
ONES = np.ones((2, 3), np.float32)


def write(
    path: Path,
    nodes: list[Any],
    inputs: list[Any],
    outputs: list[Any],
    constants: dict[str, Any],
    inner: list[Any] | None = None,
) -> Path:
    """A model file of typed values; inner: those between nodes."""
    tensors = [numpy_helper.from_array(np.asarray(v), n) for n, v in constants.items()]
    graph = helper.make_graph(nodes, "odd", inputs, outputs, tensors, value_info=inner)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.save(model, str(path))
    return path


def runs_in_pieces(path: Path) -> dict[str, Any]:
    """Every layer run alone gives what the file gives; returns all tensors."""
    net = read_model(path)
    import_onnx_graph(path, read_platform(find_platform("cpu_2gpu")))
    constants = real_constants(net, "keep")
    values: dict[str, Any] = dict(random_inputs(net, 0))
    expected = open_session(path, "file")
    names = [o.name for o in expected.get_outputs()]
    answer = dict(zip(names, expected.run(names, values), strict=True))
    for part in layers(net):
        session = open_session(cut(net, constants, part.nodes, part.name), part.name)
        given = {i.name: values[i.name] for i in session.get_inputs()}
        values |= dict(
            zip(part.makes, run_session(session, list(part.makes), given, ""), strict=True)
        )
    for name in names:
        np.testing.assert_allclose(values[name], answer[name], rtol=1e-5)
    return values


def branch(name: str, op: str) -> Any:
    """A subgraph without inputs that reads `x` from outside."""
    return helper.make_graph(
        [node(op, ["x"], [f"{name}.y"])], name, [], [value(f"{name}.y", FLOAT, [2, 3])]
    )


def test_branches_and_loops_read_from_outside(tmp_path: Path) -> None:
    choice = node(
        "If", ["c"], ["y"], then_branch=branch("a", "Relu"), else_branch=branch("b", "Neg")
    )
    body = helper.make_graph(
        [node("Add", ["v", "r"], ["v_out"]), node("Identity", ["go"], ["go_out"])],
        "body",
        [value("i", INT64, []), value("go", BOOL, []), value("v", FLOAT, [2, 3])],
        [value("go_out", BOOL, []), value("v_out", FLOAT, [2, 3])],
    )
    nodes = [
        node("Relu", ["x"], ["r"]), choice, node("Loop", ["n", "yes", "y"], ["z"], body=body),
        node("Sum", ["z", "y", "r"], ["out"]),
    ]  # fmt: skip
    path = write(
        tmp_path / "m.onnx", nodes, [value("x", FLOAT, [2, 3]), value("c", BOOL, [])],
        [value("out", FLOAT, [2, 3])], {"n": np.int64(3), "yes": np.array(True)},
        [value("z", FLOAT, [2, 3])],  # what a loop carries may change its shape: onnx asks
    )  # fmt: skip
    net = read_model(path)
    assert net.reads(net.nodes[1]) == ["c", "x"]
    assert net.reads(net.nodes[2]) == ["y", "r"]
    runs_in_pieces(path)


def test_several_inputs_and_outputs_missing_names_and_options(tmp_path: Path) -> None:
    nodes = [
        node("Clip", ["a", "", "high"], ["c"]),
        node("Split", ["c"], ["s0", "s1"], axis=1, num_outputs=2),
        node("Split", ["b", "sizes"], ["t0", "t1"], axis=0),
        node("Dropout", ["s1"], ["d", "mask"]),
        node("Add", ["s0", "d"], ["y"]),
        node("Mul", ["t1", "t1"], ["z"]),
    ]
    nodes[1].ClearField("attribute")
    nodes[1].attribute.append(helper.make_attribute("axis", 1))
    path = write(
        tmp_path / "m.onnx", nodes, [value("a", FLOAT, [2, 4]), value("b", FLOAT, [3, 2])],
        [value("y", FLOAT, [2, 2]), value("z", FLOAT, [2, 2]), value("c", FLOAT, [2, 4])],
        {"high": np.float32(0.5), "sizes": np.array([1, 2])},
    )  # fmt: skip
    values = runs_in_pieces(path)
    assert values["c"].max() <= 0.5
    graph = import_onnx_graph(path, read_platform(find_platform("cpu_2gpu"))).graph
    assert {t.id for t in graph.tasks if t.pin} == {
        "input:a", "input:b", "output:y", "output:z", "output:c",
    }  # fmt: skip


def test_initializers_as_inputs_and_empty_tensors(tmp_path: Path) -> None:
    nodes = [node("Concat", ["x", "none"], ["j"], axis=0), node("Add", ["j", "w"], ["y"])]
    path = write(
        tmp_path / "m.onnx", nodes, [value("x", FLOAT, [2, 3]), value("w", FLOAT, [2, 3])],
        [value("y", FLOAT, [2, 3])], {"w": ONES, "none": np.zeros((0, 3), np.float32)},
    )  # fmt: skip
    assert read_model(path).inputs == ("x",)
    runs_in_pieces(path)
    path = save(tmp_path / "e.onnx", [node("Relu", ["x"], ["y"])], {"x": [0, 3]}, {"y": [0, 3]}, {})
    assert runs_in_pieces(path)["y"].shape == (0, 3)


def test_shape_arithmetic_is_computed(tmp_path: Path) -> None:
    """Expand's target is a chain that onnx's own inference does not follow."""
    nodes = [
        node("Shape", ["x"], ["s"]),
        node("Equal", ["s", "two"], ["is2"]),
        node("Where", ["is2", "five", "s"], ["to"]),
        node("Expand", ["v", "to"], ["e"]),
        node("ReduceSum", ["e", "axes"], ["y"], keepdims=0),
    ]
    constants = {"two": np.array([2]), "five": np.array([5]), "axes": np.array([1])}
    path = save(tmp_path / "m.onnx", nodes, {"x": [2, 3], "v": [1, 3]}, {"y": [None]}, constants)
    assert read_model(path).tensors["e"].shape == (5, 3)
    assert read_model(path).tensors["y"].shape == (5,)
    runs_in_pieces(path)


def test_dynamic_dimensions_are_bound_by_the_option_that_the_error_names(tmp_path: Path) -> None:
    relu, shape = node("Relu", ["x"], ["y"]), ["n", None]
    path = save(tmp_path / "m.onnx", [relu], {"x": shape}, {"y": shape}, {})
    with pytest.raises(InputError, match=r"x axis 0 \(n\); x axis 1 \(unnamed\)") as caught:
        read_model(path)
    assert caught.value.hint == "--dim n=EXTENT --dim x:1=EXTENT"
    assert read_model(path, {"n": 2, "x:1": 7}).tensors["y"].shape == (2, 7)
    assert read_model(path, {"x:0": 2, "x:1": 7}).tensors["y"].shape == (2, 7)
    with pytest.raises(InputError, match="no input of the model has that dimension"):
        read_model(path, {"n": 2, "x:1": 7, "batch": 1})
    fixed = save(tmp_path / "f.onnx", [node("Relu", ["x"], ["y"])], {"x": [2]}, {"y": [2]}, {})
    with pytest.raises(InputError, match="fixed at 2"):
        read_model(fixed, {"x:0": 3})


@pytest.mark.parametrize(
    ("nodes", "x", "y", "message"),
    [
        ([node("NonZero", ["x"], ["y"])], FLOAT, (INT64, [1, None]), "depends on values"),
        (
            [node("StringNormalizer", ["x"], ["y"])], STRING, (STRING, [None]),
            "'x' is of type STRING",
        ),
        ([node("Identity", ["x"], ["y"])], STRING, (STRING, [3]), "'x' is of type STRING"),
    ],
)  # fmt: skip
def test_what_has_no_size_is_refused(
    tmp_path: Path, nodes: list[Any], x: int, y: tuple[int, list[Any]], message: str
) -> None:
    path = write(tmp_path / "m.onnx", nodes, [value("x", x, [3])], [value("y", *y)], {})
    with pytest.raises(InputError, match=message):
        read_model(path)


def test_a_model_that_is_too_new_is_told_the_limits() -> None:
    for opset, ir in ((17, 99), (99, 8)):
        graph = helper.make_graph(
            [node("Relu", ["x"], ["y"])], "g", [value("x", FLOAT, [1])], [value("y", FLOAT, [1])]
        )
        imports = [helper.make_opsetid("", opset)]
        model = helper.make_model(graph, opset_imports=imports, ir_version=ir)
        with pytest.raises(InputError) as caught:
            open_session(model, "new")
        text = caught.value.render()
        assert f"IR version {ir}, opset ai.onnx {opset}" in text
        words = text.split("export it with ")[1].split()
        assert words[:2] == ["IR", "version"]
        assert ir > int(words[2]) or opset > int(words[-3])


@pytest.mark.parametrize("opset", [3, 6, 7, 17, 22, 99])
def test_a_model_that_onnxruntime_refuses_for_its_age_is_planned_and_said_to_be(
    tmp_path: Path, opset: int
) -> None:
    """onnxruntime itself says which; below opset 7 it has kernels for some operators."""
    path = tmp_path / "m.onnx"
    graph = helper.make_graph([node("Neg", ["x"], ["y"])], "g", [value("x", FLOAT, [2, 3])],
                              [value("y", FLOAT, [2, 3])])  # fmt: skip
    imports = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=imports, ir_version=8), str(path))
    try:
        onnxruntime.InferenceSession(str(path))
        refused = False
    except Exception:  # noqa: BLE001 - it raises its own family of exceptions
        refused = True
    notes = import_onnx_graph(path, read_platform(find_platform("cpu_2gpu"))).notes
    assert any("refuses this model" in n and f"ai.onnx {opset}" in n for n in notes) == refused
    assert refused or opset < 99
