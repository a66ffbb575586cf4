"""Chains of a quantised network on a simulated VTA: priced as programs, planned, built, run."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

import csp_embed as ce
from csp_embed.commands.planning.built import Builder
from csp_embed.commands.planning.chains import PartOnMachine
from csp_embed.commands.planning.inputs import Inputs, Request, check_plan_file, load_inputs
from csp_embed.commands.planning.settle import settled
from csp_embed.ir.network import LATENCY, THROUGHPUT
from csp_embed.partition.solve import solve

sys.path.insert(0, str(Path(__file__).parents[1] / "quantised"))
from one_operator import Model

Call = Callable[..., tuple[int, str, str]]
CLOCK, RATE, TURNED, LATE = 100.0, 8e5, 2.5e5, 0.002  # MHz, bytes/ms twice, ms
PLATFORM = {
    "devices": [
        {"name": "arm", "kind": "arm", "peak_ops_per_ms": 2e6, "bytes_per_ms": 1e6},
        {"name": "vta0", "kind": "vta", "isa": "vta", "clock_mhz": CLOCK,
         "layout_bytes_per_ms": TURNED},
    ],
    "links": [{"between": ["arm", "vta0"], "bytes_per_ms": RATE, "latency_ms": LATE,
               "duplex": "half"}],
    "host": {"device": "arm"},
}  # fmt: skip


def chain(path: Path) -> Path:
    """int8 in, probabilities out: three convolutions, a pool, a dense layer, a softmax in floats.
    All activations have one scale, and weights scales that make shifts."""
    rng, m = np.random.default_rng(4), Model()
    step = 2.0**-4

    def real(stored: str) -> str:
        return m.real(stored, step, 0)

    def weights(*shape: int) -> str:
        # A shift that leaves sums of uniform int8 with a deviation of 50 to 100.
        shift = math.floor(math.log2(74 * 23 * math.sqrt(math.prod(shape[1:])) / 50))
        w = m.constant(rng.integers(-40, 41, shape).astype(np.int8))
        return m.real(w, 2.0**-shift, 0)

    at = m.input("x", "int8", (1, 16, 8, 8))
    for n, (c, k, r, stride) in enumerate([(16, 16, 3, 1), (16, 32, 1, 1), (32, 16, 3, 2)]):
        pads, strides = [r // 2] * 4, [stride] * 2
        y = m.node("Conv", [real(at), weights(k, c, r, r)], f"conv{n}", pads=pads, strides=strides)
        at = m.quantise(y, step, 0)
    pooled = m.node("GlobalAveragePool", [real(at)], "p")
    flat = m.node("Flatten", [real(m.quantise(pooled, step, 0))], "f", axis=1)
    dense = m.node("Gemm", [real(m.quantise(flat, step, 0)), weights(10, 16)], "d", transB=1)
    y = m.node("Softmax", [real(m.quantise(dense, step, 0))], "y", axis=-1)
    return m.save(path, y, "float32")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    folder = tmp_path_factory.mktemp("chain")
    (folder / "p.yaml").write_text(yaml.safe_dump(PLATFORM))
    return chain(folder / "net.onnx"), folder / "p.yaml"


@pytest.fixture(scope="module")
def inputs(files: tuple[Path, Path]) -> Inputs:
    return load_inputs(Request(str(files[0]), str(files[1])))


def network(inputs: Inputs) -> Any:
    assert inputs.model is not None
    assert inputs.costs is not None
    assert inputs.costs.network is not None
    return inputs.costs.network


def layers(inputs: Inputs) -> list[str]:
    assert inputs.model is not None
    return [t for t in inputs.graph.order() if t in inputs.model.layers]


def cycles(inputs: Inputs, tasks: list[str]) -> int:
    """Of these layers' program."""
    assert inputs.model is not None
    nodes = {i for t in tasks for i in inputs.model.layers[t].nodes}
    found = network(inputs)
    built = found.chains(inputs.platform.by_name()["vta0"]).chain(found.operators(nodes))
    assert built.whole
    return built.cycles


def test_prices_of_layers_add_up_to_the_program(files: tuple[Path, Path], inputs: Inputs) -> None:
    vta = inputs.platform.by_name()["vta0"]
    costs = {t: inputs.graph.by_id()[t].cost_on(vta) for t in layers(inputs)}
    # The softmax is the host's, with the reason; all else has its share.
    (tail,) = [t for t, c in costs.items() if c is None]
    assert inputs.model is not None
    assert tail.startswith("Softmax")
    assert "no quantised tensor" in inputs.model.refused[tail]["vta0"]
    total = sum(c for c in costs.values() if c is not None) * CLOCK * 1e3
    # Built by another way, from the file: the command's own figure.
    built = ce.build(files[0])
    assert total == pytest.approx(built.document()["cycles"], abs=0.5)
    alone = sum(cycles(inputs, [t]) for t, c in costs.items() if c)
    assert alone > total  # kept layouts and hidden loads are what a chain saves


def test_floors_are_below_every_program(inputs: Inputs) -> None:
    vta = inputs.platform.by_name()["vta0"]
    builder = Builder(inputs, LATENCY)
    free = [t for t in layers(inputs) if inputs.graph.by_id()[t].cost_on(vta) is not None]
    least = {t: builder.floor(t, vta) * CLOCK * 1e3 for t in free}
    for first in range(len(free)):
        for last in range(first, len(free)):
            run = free[first : last + 1]
            assert sum(least[t] for t in run) <= cycles(inputs, run)
    # By hand: products over 16 x 16 lanes; a reset, an addition and two clips a vector.
    shapes = [(16, 16, 9, 64), (16, 32, 1, 64), (32, 16, 9, 16)]
    convolutions = [t for t in free if t.startswith("Conv")]
    for name, (c, k, taps, pixels) in zip(convolutions, shapes, strict=True):
        assert least[name] >= c * k * taps * pixels / 256 + 4 * k * pixels / 16


def test_turned_layouts_count_on_the_way(inputs: Inputs) -> None:
    (link,) = inputs.platform.links
    assert 1e3 / inputs.platform.rate(link) == pytest.approx(1e3 / RATE + 1e3 / TURNED)


def with_costs(inputs: Inputs, seed: int) -> Inputs:
    """The CPU made a random one, about as fast as the machine."""
    rng = np.random.default_rng(seed)
    tasks = [
        replace(t, cost={**t.cost, "arm": (t.cost.get("vta", 0.01)) * rng.uniform(0.5, 2.0)})
        if t.pin is None else t
        for t in inputs.graph.tasks
    ]  # fmt: skip
    graph = replace(inputs.graph, tasks=tuple(tasks))
    assert inputs.model is not None
    return replace(inputs, graph=graph, model=replace(inputs.model, graph=graph))


def by_hand(inputs: Inputs, devices: dict[str, str], goal: str) -> float:
    """Objective of a placement of this chain, from built programs and the rules alone."""
    order, by_id = layers(inputs), inputs.graph.by_id()
    sizes = {(s, c): b for s, _, b, cs in inputs.graph.values() for c in cs}
    work = {"arm": 0.0, "vta0": 0.0, "link": 0.0}
    run: list[str] = []
    for task in order:
        if devices[task] == "vta0":
            run.append(task)
        if run and (devices[task] == "arm" or task == order[-1]):
            work["vta0"] += cycles(inputs, run) / (CLOCK * 1e3)
            run = []
        if devices[task] == "arm":
            work["arm"] += by_id[task].cost["arm"]
    ends = ["input:x", *order, "output:y"]
    for a, b in pairwise(ends):
        if devices.get(a, "arm") != devices.get(b, "arm"):
            work["link"] += LATE + sizes[a, b] * (1 / RATE + 1 / TURNED)
    return sum(work.values()) if goal == LATENCY else max(work.values())


@pytest.mark.parametrize("goal", [LATENCY, THROUGHPUT])
def test_no_cut_of_the_chain_is_better(inputs: Inputs, goal: str) -> None:
    """Every placement of the six layers that the machine can run, each chain really built."""
    ends = 0
    for seed in range(4):
        own = with_costs(inputs, seed)
        by_id, vta = own.graph.by_id(), own.platform.by_name()["vta0"]
        free = [t for t in layers(own) if by_id[t].cost_on(vta) is not None]
        assert len(free) == 6
        values: dict[tuple[str, ...], float] = {}
        for place in product(("arm", "vta0"), repeat=len(free)):
            devices = dict.fromkeys(layers(own), "arm") | dict(zip(free, place, strict=True))
            values[place] = by_hand(own, devices, goal)
        options: dict[str, Any] = {"objective": goal, "effort": 0.1}
        plan, _ = settled(own, solve(own.graph, own.platform, **options), options)
        assert plan.objective == pytest.approx(values[tuple(plan.device_of()[t] for t in free)])
        assert plan.objective <= min(values.values()) * 1.02
        assert 0 < plan.lower_bound <= min(values.values())
        ends += plan.objective <= min(values.values()) * (1 + 1e-9)
    assert ends >= 3


def test_a_plan_is_built_judged_and_run(
    call: Call, files: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, platform = files
    plan, out = tmp_path / "plan.json", tmp_path / "out"
    code, text, err = call("partition", model, "--platform", platform, "-o", plan, "--table")
    assert code == 0, err
    document = json.loads(plan.read_text())
    (program,) = document["programs"]
    assert f"{program['cycles']:,} built" in text
    assert check_plan_file(plan, model) == []
    code, text, err = call("run-plan", model, plan, "--json", "--runs", 1, "--warm-ups", 0,
                           "--export", out)  # fmt: skip
    assert code == 0, err
    report = json.loads(text)
    assert report["equal"]
    assert report["inputs_matter"]
    (row,) = [r for r in report["parts"] if r["device"] == "vta0"]
    assert (row["tasks"], row["how"]) == (program["tasks"], "simulated")
    assert row["ms"] == pytest.approx(program["cycles"] / (CLOCK * 1e3))
    assert {t["dtype"] for t in report["tensors"]} >= {"int8"}
    # The part's own model is a network by itself, and its program a file that checks itself.
    (cut_file,) = (out / "parts").glob("*_vta0.onnx")
    assert ce.build(cut_file).document()["cycles"] == program["cycles"]
    assert call("check", cut_file.with_suffix(".npz"))[0] == 0
    # What the plan says of its program is built anew, not believed.
    document["programs"][0]["sha256"] = "0" * 64
    (tmp_path / "other.json").write_text(json.dumps(document))
    assert [f.kind for f in check_plan_file(tmp_path / "other.json", model)] == ["program"]
    document["assignments"][-2]["device"] = "vta0"
    (tmp_path / "other.json").write_text(json.dumps(document))
    assert check_plan_file(tmp_path / "other.json", model)
    # A program that computes one wrong bit is noticed.
    own = PartOnMachine.run
    monkeypatch.setattr(
        PartOnMachine, "run",
        lambda self, feeds: {n: v ^ np.int8(1) for n, v in own(self, feeds).items()},
    )  # fmt: skip
    code, _, err = call("run-plan", model, plan, "--runs", 1, "--warm-ups", 0)
    assert code == 5
    assert "differ from the whole model" in err


def test_what_the_machine_cannot_run_says_why(
    call: Call, files: tuple[Path, Path], tmp_path: Path
) -> None:
    model, platform = files
    code, _, err = call("partition", model, "--platform", platform, "--fix", "Softmax.23=vta0")
    assert code == 3
    assert "no quantised tensor" in err
    assert "its devices are arm" in " ".join(err.split())
    code, out, _ = call("partition", model, "--platform", platform, "--explain", "Softmax.23",
                        "--fix", "Conv.2=arm")  # fmt: skip
    assert code == 0
    assert "vta0: cannot run it, it makes 'y'" in out
    floats = tmp_path / "float.onnx"
    m = Model()
    w = m.constant(np.ones((4, 4, 1, 1), np.float32))
    m.save(floats, m.node("Conv", [m.input("x", "float32", (1, 4, 4, 4)), w], "y"), "float32")
    code, _, err = call("partition", floats, "--platform", platform)
    assert code == 0
    assert "vta0 can run no layer: the model has no quantised operator" in err
    assert "quantize_static" in err
    code, _, err = call("partition", floats, "--platform", platform, "--fix", "Conv.0=vta0")
    assert code == 3
    assert "quantize_static" in err
