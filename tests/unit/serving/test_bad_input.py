"""Bad input: each kind is refused with its place and a remedy, or shown to be impossible."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest
import serving_oracle as oracle
import serving_routes_oracle as routes
import yaml
from command_line import run

import csp_embed as ce
from csp_embed.errors import Infeasible, InputError
from csp_embed.serving.files.load import variants
from csp_embed.serving.files.read import instance_from
from csp_embed.serving.judge.check import check

EXAMPLE = Path(__file__).parents[3] / "examples" / "serving_cluster.yaml"


def cluster() -> dict[str, Any]:
    return copy.deepcopy(yaml.safe_load(EXAMPLE.read_text()))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda c: c["network"].update(bytes_per_s="10 gbps"), "may mean bits or bytes"),
        (lambda c: c["network"].update(bytes_per_s="10 GB"), "is no rate"),
        (lambda c: c["network"].update(bytes_per_s=float("nan")), "finite"),
        (lambda c: c["network"].update(latency_s=-1), "greater than or equal to 0"),
        (lambda c: c["servers"][0].update(memory_bytes="80 GB/s"), "is no size"),
        (lambda c: c["servers"][0].update(gpu="A1000"), "no GPU 'A1000'"),
        (lambda c: c["servers"][0].pop("gpu"), "neither a table nor a roofline"),
        (lambda c: c["servers"][0].update(count=0), "greater than 0"),
        (lambda c: c["servers"][0].update(tokens_per_s_by_layers={16: [1.0]}), "cannot form"),
        (lambda c: c["servers"][0].update(prefill_tokens_per_s_by_layers={4: [1.0]}),
         "two phases need a table each"),
        (lambda c: c["model"].update(kv_heads=100), "do not divide 64 heads"),
        (lambda c: c["workload"].update(batch=[]), "no batch to choose from"),
        (lambda c: c["workload"].update(batch=0), "batch"),
        (lambda c: c.update(limits={"first_token_s": 0}), "greater than 0"),
        (lambda c: c.update(limits={"first": 1}), "unknown key 'first'"),
        (lambda c: c.update(platform="cpu_2gpu"), "both there"),
        (lambda c: c.pop("network"), "needs servers with a network"),
        (lambda c: c["servers"].append({"name": "mid0", "gpu": "T4", "gpus": 4}), "there twice"),
    ],
)  # fmt: skip
def test_clusters(change: Any, words: str) -> None:
    entry = cluster()
    change(entry)
    with pytest.raises(InputError) as error:
        variants(entry)
    assert words in f"{error.value.what} {error.value.where}"


@pytest.mark.parametrize("text", ["10 Gbit/s", "1.25 GB/s", "1250 MB/s", "1.25e9", 1.25e9])
def test_units_that_say_the_same(text: Any) -> None:
    entry = cluster()
    entry["network"]["bytes_per_s"] = text
    instance = variants(entry)[0].instance
    at = {m: i for i, m in enumerate(instance.machines)}
    assert instance.link[at["big.0"], at["mid0.0"]] == 1.25e9 / 16384


@pytest.mark.parametrize(
    ("change", "words", "where"),
    [
        (lambda d: d["workload"].update(batch=[1, 0]), "not a whole number", "batch[1]"),
        (lambda d: d["workload"].update(promt_tokens=1), "unknown key 'promt_tokens'", "workload"),
        (lambda d: d["workload"].update(split_phases=1), "true or false", "split_phases"),
        (lambda d: d["model"].pop("kv_bytes_per_token"), "not known", "model"),
        (lambda d: d.update(limits=[1]), "no mapping", "limits"),
        (lambda d: d["nodes"][0].update(devices=[]), "different names", "nodes[0].devices"),
        (lambda d: d["nodes"][0].update(devices=["a", "a"]), "different", "nodes[0].devices"),
        (lambda d: kind(d).pop("decode_tokens_per_s_by_layers"), "need a table each", "node_types"),
        (lambda d: kind(d).update(tokens_per_s_by_layers=[1.0]), "both there", "node_types"),
        (lambda d: kind(d).update(decode_tokens_per_s_by_layers={"2": [1.0]}), "no table for batch",
         "decode"),
        (lambda d: kind(d).update(memory_bytes=5.0), "bytes of a layer", "node_types"),
        (lambda d: kind(d).update(decode_step_s_by_layers=[]), "expected a list", "decode_step"),
    ],
)  # fmt: skip
def test_instances(change: Any, words: str, where: str) -> None:
    document = routes.random_phases(0, split=True)
    change(document)
    with pytest.raises(InputError) as error:
        ce.serve(document)
    assert words in f"{error.value.what} {error.value.where}"
    assert where in error.value.where


def kind(document: dict[str, Any]) -> dict[str, Any]:
    return next(iter(document["node_types"].values()))


def test_disconnected_regions() -> None:
    """Neither region holds the model alone: nothing serves it, and the reason says so. With a link
    in one direction it is served in that direction."""
    document = oracle.cluster(4, {"x": [9.0, 8.0]}, [("p0", "x"), ("q0", "x")], lambda a, b: 0.0)
    with pytest.raises(Infeasible) as error:
        ce.serve(document)
    assert "2 layers fit on the 1 machines" in error.value.why
    document["links"] = [{"from": "p0", "to": "q0", "tokens_per_s": 5.0}]
    plan = ce.serve(document)
    assert plan.value == 5.0
    assert plan.placement == {"p0": (0, 1), "q0": (2, 3)}


def test_links_that_lead_nowhere() -> None:
    """Machines hold the model, but none of them lies on a way back to the coordinator."""
    document = oracle.cluster(2, {"x": [9.0]}, [("a", "x"), ("b", "x"), ("c", "x")])
    document["links"] = [{"from": "a", "to": "b", "tokens_per_s": 5.0}]
    document["coordinator"]["to_nodes"] = [{"to": "b", "tokens_per_s": 9.0}]
    document["coordinator"]["from_nodes"] = [{"from": "a", "tokens_per_s": 9.0}]
    with pytest.raises(Infeasible):
        ce.serve(document)


@pytest.mark.parametrize("interval", [[2, 3], [0, 9], [-1, 0], [1, 0]])
def test_intervals_past_the_end(interval: list[int]) -> None:
    document = oracle.cluster(3, {"x": [9.0, 8.0, 7.0]}, [("a", "x"), ("b", "x")])
    plan = {"format": "csp-embed-serving/1", "placement": {"a": interval}, "value": 1.0}
    assert {f.kind for f in check(instance_from(document), plan)} == {"interval"}


def test_nothing_fits_into_memory() -> None:
    """Weights of 1000 bytes a layer, 999 bytes of memory."""
    document = routes.random_phases(0)
    document["model"]["layer_weight_bytes"] = 1000
    for entry in document["node_types"].values():
        entry["memory_bytes"] = 999
    with pytest.raises(Infeasible):
        ce.serve(document)


def test_limits_that_nothing_keeps(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A plan within a microsecond a token: none, said with an exit code of its own."""
    path = tmp_path / "i.json"
    path.write_text(json.dumps(routes.random_phases(0)))
    got = run(capsys, "serve", "plan", path, "--per-token", "1e-6", "--json")
    assert got.code == 4
    assert got.document["value"] is None
    assert run(capsys, "serve", "plan", path, "--per-token", "nan").code == 2
    assert run(capsys, "serve", "plan", path, "--min-tokens", "5").code == 2
    assert run(capsys, "serve", "plan", path, "--platform", "cpu_2gpu").code == 2


def test_more_machines_on_the_way_than_layers() -> None:
    """Requests enter at a and leave at b only, and there is one layer."""
    document = oracle.cluster(1, {"x": [9.0]}, [("a", "x"), ("b", "x")])
    ends = document["coordinator"]
    ends["to_nodes"] = [{"to": "a", "tokens_per_s": 9.0}]
    ends["from_nodes"] = [{"from": "b", "tokens_per_s": 9.0}]
    assert oracle.best(document) == 0
    with pytest.raises(Infeasible) as error:
        ce.serve(document)
    assert "has 2 or more" in error.value.why
    ends["from_nodes"].append({"from": "a", "tokens_per_s": 5.0})
    assert ce.serve(document).value == 5.0


def test_such_an_island_beside_another() -> None:
    """An island that cannot serve one layer counts nothing, and the judge agrees."""
    machines = [("a", "x"), ("b", "x"), ("c", "x")]
    linked = {("a", "b"), ("b", "a")}
    document = oracle.cluster(1, {"x": [9.0]}, machines, lambda a, b: 9.0 * ((a, b) in linked))
    ends = document["coordinator"]
    ends["to_nodes"] = [{"to": m, "tokens_per_s": 9.0} for m in "ac"]
    ends["from_nodes"] = [{"from": m, "tokens_per_s": 7.0} for m in "bc"]
    plan = ce.serve(document)
    assert (plan.value, plan.status) == (7.0, "OPTIMAL")
    assert check(instance_from(document), json.loads(json.dumps(plan.document()))) == []


@pytest.mark.parametrize(
    ("change", "key"),
    [
        (lambda d: d.update(partial_infernce=True), "partial_inference"),
        (lambda d: kind(d).update(max_layer=1), "max_layers"),
        (lambda d: d["model"].update(kv_byte_per_token=1), "kv_bytes_per_token"),
        (lambda d: d["nodes"][0].update(price_per_hours=1), "price_per_hour"),
        (lambda d: d["links"][0].update(latencys=1), "latency_s"),
    ],
)
def test_misspelt_keys(change: Any, key: str) -> None:
    """What is only ours to read must not be lost; notes of others may stay."""
    document = oracle.random_document(0, machines=3, layers=4)
    document["origin"] = document["nodes"][0]["rack"] = "somewhere"
    instance_from(document)
    change(document)
    with pytest.raises(InputError) as error:
        instance_from(document)
    assert key in error.value.hint
