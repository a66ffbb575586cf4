"""Plans run for real: two CPU processes and a simulated kernel machine, every tensor compared."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from csp_embed import ops
from csp_embed.errors import CheckError, InputError, SimError
from csp_embed.ir.network import Assignment, Device, Link, Plan, Platform, Replica
from csp_embed.network.made.quantised import quantised_net
from csp_embed.network.onnx.graph import Imported, import_onnx_graph
from csp_embed.network.onnx.quantised_chains import QuantLayer
from csp_embed.network.onnx.submodels import cut
from csp_embed.network.onnx.weights import real_constants
from csp_embed.ops.reference import evaluate
from csp_embed.run.device_parts import Part, parts_of
from csp_embed.run.execute import TensorResult, compare
from csp_embed.run.run_plan import refuse_unequal, run_plan

sys.path.insert(0, str(Path(__file__).parents[1] / "network"))
from small_models import qlinear

PLATFORM = Platform(
    (
        Device("cpu0", "cpu", peak_ops_per_ms=1e6),
        Device("cpu1", "cpu", peak_ops_per_ms=1e6),
        Device("vta0", "vta", isa="vta", clock_mhz=100),
    ),
    (Link(("cpu0", "cpu1"), 1e6), Link(("cpu0", "vta0"), 1e6), Link(("cpu1", "vta0"), 1e6)),
    name="three",
)


def numpy_kernel(layer: QuantLayer, device: Device):
    """Stands in for the compiler: the operator's reference, one cycle per multiply-add."""
    operator = getattr(ops, layer.call)(**layer.arguments)

    def run(x: Any) -> tuple[Any, int]:
        operands = {"x": x, "w": layer.w} | ({} if layer.b is None else {"b": layer.b})
        return evaluate(operator, operands)["y"], 1000

    return run


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("model") / "q.onnx"
    onnx.save(quantised_net(9, 2, channels=8, size=8, branches=4), str(path))
    return path


@pytest.fixture(scope="module")
def model(network: Path) -> Imported:
    from dataclasses import replace

    costs = replace(PLATFORM, host=replace(PLATFORM.host, device="cpu0"))
    return import_onnx_graph(network, costs, kernel_cost=lambda net, layer, d: (0.01, "test"))


def plan_of(model: Imported, device_of: dict[str, str]) -> Plan:
    rows = tuple(
        Assignment(t, device_of.get(t, "cpu0"), float(i), i + 1.0)
        for i, t in enumerate(model.graph.order())
    )
    return Plan("latency", 1.0, 0.0, None, "FEASIBLE", "by hand", assignments=rows)


@pytest.fixture(scope="module")
def plan(model: Imported) -> Plan:
    """Branches 0 and 1 on the CPUs, branch 2 on the kernel machine, branch 3 on both CPUs."""
    device_of = {t: "cpu1" for t in model.layers if t.startswith("b1.")}
    device_of |= {t: "vta0" for t in model.layers if t.startswith("b2.")}
    device_of |= {"b3.conv0": "cpu1", "conv0": "vta0", "fc": "vta0"}
    return plan_of(model, device_of)


def test_parts_of_every_placement_can_run(model: Imported) -> None:
    tasks = list(model.layers)
    constants = real_constants(model.net)
    rng = np.random.default_rng(0)
    for _ in range(12):
        device_of = {t: str(rng.choice(["cpu0", "cpu1", "vta0"])) for t in tasks}
        parts = parts_of(plan_of(model, device_of), model, PLATFORM)
        assert sorted(t for p in parts for t in p.tasks) == sorted(tasks)
        known = set(model.net.inputs)
        for part in parts:
            assert {device_of[t] for t in part.tasks} == {part.device}
            assert set(part.reads) <= known
            known |= set(part.makes)
            cut(model.net, constants, part.nodes, part.name)  # refuses what is not convex


def test_two_processes_and_a_kernel_machine_agree_with_the_whole(
    model: Imported, plan: Plan, tmp_path: Path
) -> None:
    report = run_plan(
        model, plan, PLATFORM, compile_layer=numpy_kernel, runs=3, warm_ups=1,
        export_to=tmp_path / "out",
    )  # fmt: skip
    assert report.equal
    assert report.inputs_matter
    assert {r.how for r in report.parts} == {"measured", "simulated"}
    assert {r.part.device for r in report.parts} == {"cpu0", "cpu1", "vta0"}
    assert all(t.dtype == "int8" for t in report.tensors)
    assert {t.name for t in report.tensors} == {n for r in report.parts for n in r.part.makes}
    for result in report.parts:
        if result.how == "simulated":
            assert result.ms == pytest.approx(len(result.part.tasks) * 1000 / 1e5)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [d["name"] for d in manifest["devices"]] == ["cpu0", "cpu1", "vta0"]
    nodes = 0
    for row in manifest["devices"]:
        exported = onnx.load(str(tmp_path / "out" / row["file"]))
        onnx.checker.check_model(exported, full_check=True)
        nodes += len(exported.graph.node)
    assert nodes == len(model.net.nodes)
    rerun = run_plan(
        model, plan, PLATFORM, compile_layer=numpy_kernel, runs=1, warm_ups=0,
        run_from=tmp_path / "out",
    )  # fmt: skip
    assert rerun.equal
    part = tmp_path / "out" / manifest["parts"][1]["file"]
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(CheckError, match="not the file that was exported"):
        run_plan(model, plan, PLATFORM, compile_layer=numpy_kernel, run_from=tmp_path / "out")


def test_swapped_parts_are_caught(model: Imported) -> None:
    """Two convolutions of one shape on different devices, exchanged."""
    plan = plan_of(model, {"b0.conv0": "cpu1", "b2.conv0": "vta0"})
    parts = parts_of(plan, model, PLATFORM)
    a, b = (p.index for p in parts if p.tasks in (("b0.conv0",), ("b2.conv0",)))
    assert run_plan(model, plan, PLATFORM, runs=1, warm_ups=0).equal
    report = run_plan(model, plan, PLATFORM, runs=1, warm_ups=0, swap=(a, b))
    assert not report.equal
    with pytest.raises(CheckError, match="boundary tensors differ") as caught:
        refuse_unequal(report)
    assert caught.value.exit_code == 5


def copies_of(model: Imported, copies: list[dict[str, str]]) -> Plan:
    """A plan of replicas: device by task of each copy, `""` for the others."""
    replicas = tuple(
        Replica(0.5, tuple(Assignment(t, c.get(t, c[""])) for t in model.graph.order()))
        for c in copies
    )
    return Plan("throughput", 1.0, 0.0, None, "FEASIBLE", "by hand", replicas=replicas)


def test_every_replica_runs_on_its_own_devices(network: Path, tmp_path: Path) -> None:
    found = import_onnx_graph(
        network, PLATFORM, kernel_cost=lambda *_: (0.01, "test"), io_free=True
    )
    plan = copies_of(found, [{"": "cpu0", "fc": "vta0"}, {"": "cpu1"}])
    report = run_plan(
        found, plan, PLATFORM, compile_layer=numpy_kernel, runs=1, warm_ups=0,
        export_to=tmp_path / "out",
    )  # fmt: skip
    assert report.equal
    assert [(r.part.index, r.part.replica, r.part.device) for r in report.parts] == [
        (0, 0, "cpu0"), (1, 0, "vta0"), (2, 1, "cpu1"),
    ]  # fmt: skip
    assert [t.maker for t in report.tensors if t.name == "y"] == [1, 2]
    assert any(note.startswith("2 replicas ran") for note in report.notes)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert [row["replica"] for row in manifest["parts"]] == [0, 0, 1]
    assert manifest["tensors"]["y"]["from_part"] == 1
    assert manifest["tensors"]["1/y"]["from_part"] == 2
    wrong = run_plan(
        found, copies_of(found, [{"": "cpu0", "fc": "vta0"}, {"": "cpu1"}]), PLATFORM,
        compile_layer=lambda layer, d: lambda x: (numpy_kernel(layer, d)(x)[0] ^ np.int8(1), 1),
        runs=1, warm_ups=0,
    )  # fmt: skip
    assert [(t.name, t.maker) for t in wrong.tensors if not t.equal] == [("y", 1)]
    with pytest.raises(InputError, match="different replicas"):
        run_plan(found, plan, PLATFORM, compile_layer=numpy_kernel, swap=(0, 2))


def test_unlike_parts_cannot_be_swapped(model: Imported, plan: Plan) -> None:
    with pytest.raises(CheckError, match="cannot stand for each other"):
        run_plan(model, plan, PLATFORM, compile_layer=numpy_kernel, swap=(0, 1))
    with pytest.raises(InputError, match="numbered"):
        run_plan(model, plan, PLATFORM, compile_layer=numpy_kernel, swap=(0, 99))


def test_plans_of_other_networks_are_refused(model: Imported) -> None:
    plan = plan_of(model, {})
    from dataclasses import replace

    with pytest.raises(InputError, match="not the model's layers"):
        parts_of(replace(plan, assignments=plan.assignments[1:]), model, PLATFORM)
    with pytest.raises(InputError, match="'tpu'"):
        parts_of(plan_of(model, {"fc": "tpu"}), model, PLATFORM)


def test_what_no_kernel_computes_does_not_run_there(model: Imported) -> None:
    with pytest.raises(InputError, match="MaxPool is not an integer chain"):
        run_plan(model, plan_of(model, {"pool": "vta0"}), PLATFORM, compile_layer=numpy_kernel)


def result_of(a: Any, b: Any) -> TensorResult:
    part = Part(0, "cpu0", ("t",), (), (), ("y",), 1.0)
    return compare({"y": np.asarray(a)}, {"y": np.asarray(b)}, [part])[0]


def test_the_comparison_is_exact_for_integers_and_close_for_floats() -> None:
    assert result_of(np.int8([1, 2]), np.int8([1, 2])).equal
    assert not result_of(np.int8([1, 2]), np.int8([1, 3])).equal
    assert not result_of(np.int8([1, 2]), np.int32([1, 2])).equal
    base = np.linspace(-1, 1, 101, dtype=np.float32)
    assert result_of(base * np.float32(1 + 5e-5), base).equal
    assert not result_of(base * np.float32(1.001), base).equal
    assert not result_of(base + np.float32(3e-4), base).equal
    assert not result_of(np.float32([np.nan, 1]), np.float32([1, 1])).equal
    assert not result_of(base[:-1], base).equal


def test_ties_of_qlinear_conv_are_counted_and_reported(tmp_path: Path) -> None:
    from dataclasses import replace

    platform = replace(PLATFORM, host=replace(PLATFORM.host, device="cpu0"))
    found = import_onnx_graph(
        qlinear(tmp_path / "q.onnx", shift=3), platform, kernel_cost=lambda *_: (0.01, "test")
    )
    plan = plan_of(found, {"first": "vta0", "second": "cpu1"})
    report = run_plan(found, plan, platform, compile_layer=numpy_kernel, runs=1, warm_ups=0)
    assert report.equal
    (note,) = [n for n in report.notes if n.startswith("ties: ")]
    differing = int(note.split()[1])
    assert 0 < differing < 8 * 64

    def wrong(layer: QuantLayer, device: Device):
        return lambda x: (numpy_kernel(layer, device)(x)[0] ^ np.int8(1), 1)

    with pytest.raises(SimError, match="differs from its reference"):
        run_plan(found, plan, platform, compile_layer=wrong, runs=1, warm_ups=0)
