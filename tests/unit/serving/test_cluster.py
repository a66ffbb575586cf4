"""Clusters of one's own: degrees against trying all, rates by hand, memory, refusals."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import serving_oracle as oracle
import serving_tiny as tiny
import yaml
from command_line import run

import csp_embed as ce
from csp_embed.errors import Infeasible, InputError
from csp_embed.serving.files.gpus import Gpu
from csp_embed.serving.files.load import variants
from csp_embed.serving.files.rates import Model, Workload, roofline
from csp_embed.serving.judge.check import check

EXAMPLE = Path(__file__).parents[3] / "examples" / "serving_cluster.yaml"


def cluster() -> dict[str, Any]:
    """Four layers; a box of two GPUs that may work apart or together, and a small one."""
    return {
        "format": "csp-embed-cluster/1",
        "name": "own",
        "model": {"layers": 4, "hidden": 8, "heads": 2, "intermediate": 16},
        "network": {"bytes_per_s": 1e6},
        "servers": [
            {"name": "box", "gpus": 2, "tensor_parallel": [1, 2],
             "tokens_per_s_by_layers": {1: [10.0, 4.0], 2: [18.0, 9.0, 5.0]}},
            {"name": "one", "tokens_per_s_by_layers": {1: [7.0, 3.0]}},
        ],
    }  # fmt: skip


def written_out(layers: int, small: list[float]) -> list[dict[str, Any]]:
    """The cluster's two ways to use the box, as instances by hand."""
    apart = oracle.cluster(
        layers,
        {"b": [10.0, 4.0], "o": small},
        [("box.0", "b"), ("box.1", "b"), ("one", "o")],
    )
    together = oracle.cluster(
        layers, {"b": [18.0, 9.0, 5.0], "o": small}, [("box", "b"), ("one", "o")]
    )
    return [apart, together]


@pytest.mark.parametrize("small", [[7.0, 3.0], [30.0, 12.0], [1.0]])
@pytest.mark.parametrize("layers", [2, 3, 4])
def test_degrees_against_trying_all(small: list[float], layers: int) -> None:
    """Both degrees written out by hand as instances, and every placement of each tried."""
    entry = cluster()
    entry["model"]["layers"] = layers
    entry["servers"][1]["tokens_per_s_by_layers"] = {1: small}
    ways = written_out(layers, small)
    best = max(float(oracle.best(d)) for d in ways)
    plan = ce.serve(entry)
    assert plan.value == pytest.approx(best)
    assert plan.bound >= best * (1 - 1e-9)
    assert check(variants(entry)[0].instance, json.loads(json.dumps(plan.document()))) == []
    chosen = ways["box" in plan.placement]
    placed = {m: tuple(i) for m, i in plan.placement.items()}
    assert float(oracle.carried(chosen, placed)) == pytest.approx(best)


@pytest.mark.parametrize("seed", range(12))
def test_degrees_mixed_within_a_server(seed: int) -> None:
    """Boxes of four GPUs divided into groups of 1, 2 and 4 in any way: each way of dividing every
    box is written out as an instance of its own, and every placement of it tried."""
    document = tiny.random_boxes(seed)
    best = tiny.best_boxes(document)
    try:
        plan = ce.serve(document)
    except Infeasible:
        assert best == 0
        return
    assert (plan.value or 0.0) == pytest.approx(best, rel=1e-9)
    assert plan.bound >= best * (1 - 1e-9)
    if plan.value:
        written = json.loads(json.dumps(plan.document()))
        assert check(variants(document)[0].instance, written) == []


def test_more_divisions_than_are_listed() -> None:
    """Eight boxes of eight GPUs have 24,310 divisions; half of them in groups of 4 hold 4 layers at
    10/s each, others nothing, and none is left over: 16 groups, two in a row, carry 80."""
    entry = cluster()
    entry["model"] |= {"layers": 8, "heads": 8}
    entry["servers"] = [
        {"name": "box", "count": 8, "gpus": 8, "tensor_parallel": [1, 2, 4, 8],
         "tokens_per_s_by_layers": {1: [1.0], 2: [3.0, 1.0], 4: [12.0, 11.0, 10.5, 10.0],
                                    8: [14.0, 13.0, 12.0, 11.0]}},
    ]  # fmt: skip
    plan = ce.serve(entry)
    assert plan.value == pytest.approx(80.0)
    assert check(variants(entry)[0].instance, json.loads(json.dumps(plan.document()))) == []


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda p: p["certificate"]["devices"][0].update(price="0"), "certificate"),
        (lambda p: p["certificate"]["devices"].pop(), "certificate"),
        (lambda p: p["certificate"]["devices"][0].update(price="-1"), "certificate"),
        (lambda p: p["certificate"].pop("devices"), "certificate"),
        (lambda p: p.update(bound=p["value"] / 2), "bound"),
        (lambda p: p.update(value=p["value"] * 2), "value"),
        (lambda p: p["placement"].update({"box": [0, 0], "box.1": [0, 0]}), "device"),
    ],
)
def test_tampering_with_shared_devices(change: Any, kind: str) -> None:
    entry = cluster()
    plan = json.loads(json.dumps(ce.serve(entry).document()))
    change(plan)
    assert kind in {f.kind for f in check(variants(entry)[0].instance, plan)}


def together(*args: Any) -> list[float]:
    """Tokens/s of machines that pass both phases of requests of 6 + 4 tokens."""
    rates = roofline(*args)
    return [10 / (6 / p + 4 / d) for p, d in zip(rates.prefill, rates.decode, strict=True)]


def test_rates_by_hand() -> None:
    """P = 2 x 16 + 2 x 16 + 3 x 32 = 160 parameters, W = 320 bytes; a cached token is 16 bytes.
    1000 bytes hold one layer and (1000 - 320) / (16 x 10) = 4.25 requests of 6 + 4 tokens; a step
    works on a quarter of them."""
    model = Model(layers=4, hidden=4, heads=2, intermediate=8)
    work = Workload(
        prompt_tokens=6, output_tokens=4, flops_efficiency=1, bandwidth_efficiency=1, reserve=0
    )
    gpu = Gpu(memory_bytes=1000.0, flops=3200.0, bytes_per_s=100.0)
    b = 4.25 / 4
    step = max((320 + b * 160) / 100, 2 * 160 * b / 3200)
    one = 10 / (6 * 320 / 3200 + 4 * step / b)
    assert together(model, work, gpu, 1, 1e9)[0] == pytest.approx(one)
    # Degree 2: twice of everything, and two all-reduces of 8 bytes a token over 50 bytes/s.
    b = (2000 - 320) / 160 / 4
    step = max((320 + b * 160) / 200, 2 * 160 * b / 6400)
    reduce = 2 * 2 * (1 / 2) * 8 / 50
    two = 10 / (6 * (320 / 6400 + reduce) + 4 * (step / b + reduce))
    assert together(model, work, gpu, 2, 50.0)[0] == pytest.approx(two)


@pytest.mark.parametrize("batch", [1, 16, 64])
@pytest.mark.parametrize("context", [1000, 8000, 30000])
def test_caches_take_what_layers_need(context: int, batch: int) -> None:
    """The last entry of a table is the most layers at which weights and one request's cache fit."""
    model = Model(layers=80, hidden=8192, heads=64, kv_heads=8, intermediate=28672)
    work = Workload(prompt_tokens=context - 10, output_tokens=10)
    rates = roofline(model, work, Gpu(40e9, 312e12, 1.5e12), 1, 1e9, batch).prefill
    layer = (2 * 8192**2 + 2 * 8192 * 128 * 8 + 3 * 8192 * 28672) * 2 + 2 * 128 * 8 * 2 * context
    assert len(rates) == int(40e9 * 0.9 // layer)


def test_longer_contexts_leave_less() -> None:
    model = Model(layers=80, hidden=8192, heads=64, kv_heads=8, intermediate=28672)
    gpu = Gpu(40e9, 312e12, 1.5e12)
    lengths = [
        len(roofline(model, Workload(prompt_tokens=c), gpu, 1, 1e9).prefill)
        for c in (500, 20000, 200000)
    ]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


def test_links_are_of_their_kind() -> None:
    """Inside a box, between boxes, between regions: bytes/s over the bytes of one activation."""
    entry = cluster()
    entry["network"] |= {"regions_bytes_per_s": 1e5}
    entry["servers"][0] |= {"links_bytes_per_s": 1e7, "tensor_parallel": [1]}
    entry["servers"][1] |= {"count": 2, "region": "far"}
    instance = variants(entry)[0].instance
    at = {m: i for i, m in enumerate(instance.machines)}
    assert set(at) == {"box.0", "box.1", "one0", "one1"}
    assert instance.link[at["box.0"], at["box.1"]] == 1e7 / 16
    assert instance.link[at["one0"], at["one1"]] == 1e6 / 16
    assert instance.link[at["box.0"], at["one1"]] == 1e5 / 16


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["servers"][0].update(tensor_parallel=[3]), "does not divide 2 GPUs"),
        (lambda c: c["model"].update(heads=1), "does not divide 1 heads"),
        (lambda c: c["servers"][1].pop("tokens_per_s_by_layers"), "neither a table nor a roofline"),
        (lambda c: c["servers"][1].update(gpu="A1000"), "no GPU 'A1000'"),
        (lambda c: c["servers"][1].update(name="box"), "there twice"),
        (lambda c: c["servers"][1].update(gpu_memory=1), "unknown key"),
        (lambda c: c["network"].update(bytes_per_s=float("nan")), "finite"),
        (lambda c: c["network"].update(bytes_per_s=-1), "greater than 0"),
        (lambda c: c.update(servers=[]), "needs servers"),
        (lambda c: c.update(platform="cpu_2gpu"), "both there"),
    ],
)
def test_refusals(change: Any, words: str) -> None:
    entry = cluster()
    change(entry)
    with pytest.raises(InputError) as error:
        ce.serve(entry)
    assert words in error.value.what


def test_a_model_too_large_for_any_server() -> None:
    entry = copy.deepcopy(yaml.safe_load(EXAMPLE.read_text()))
    entry["workload"]["prompt_tokens"] = 10**9
    with pytest.raises(InputError) as error:
        ce.serve(entry)
    assert "single layer with its caches" in error.value.what


def test_the_example(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Plan, check, simulate and export of the file that the tutorial shows."""
    plan = tmp_path / "plan.json"
    made = run(capsys, "serve", "plan", EXAMPLE, "-o", plan, "--json")
    assert made.code == 0, made.err
    assert made.document["status"] == "OPTIMAL"
    assert run(capsys, "serve", "check", plan, "--instance", EXAMPLE).code == 0
    got = run(capsys, "serve", "simulate", plan, "--instance", EXAMPLE, "--json")
    assert got.document["tokens_per_s"] == pytest.approx(made.document["value"], rel=0.1)
    assert run(capsys, "serve", "export", plan, "--instance", EXAMPLE, "--to", "json").code == 0
    assert run(capsys, "serve", "export", plan, "--instance", EXAMPLE, "--to", "vllm").code == 2
