"""Plans with routes: values by hand, their judge, simulation, command, tutorial, platforms."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving_oracle as oracle
import serving_routes_oracle as routes
import yaml
from command_line import run

import csp_embed as ce
from csp_embed.serving.files.load import variants
from csp_embed.serving.files.read import instance_from
from csp_embed.serving.judge.check import check
from csp_embed.serving.simulate import Trace, simulate, ways

ROOT = Path(__file__).parents[3]


def apart() -> dict[str, Any]:
    """`fast` passes 100 prompt tokens/s and 2 generated ones, `slow` 2 and 50; one layer. Requests
    of 10 + 5 tokens; a cached token weighs half an activation on a link of 1000 tokens/s."""
    document = oracle.cluster(
        1, {"fast": [1.0], "slow": [1.0]}, [("f", "fast"), ("s", "slow")], lambda a, b: 1000.0
    )
    for name, rates in (("fast", (100.0, 2.0)), ("slow", (2.0, 50.0))):
        document["node_types"][name] = {
            "max_layers": 1,
            "prefill_tokens_per_s_by_layers": [rates[0]],
            "decode_tokens_per_s_by_layers": [rates[1]],
        }
    document["model"] |= {"activation_bytes_per_token": 100, "kv_bytes_per_token": 50}
    document["workload"] = {"prompt_tokens": 10, "output_tokens": 5, "split_phases": True}
    for row in document["links"]:
        row["latency_s"] = 0.25
    for row in document["coordinator"]["to_nodes"] + document["coordinator"]["from_nodes"]:
        row["tokens_per_s"] = 1e12
    return document


def test_phases_on_machines_of_their_own() -> None:
    """Prompts take `fast` 0.1 s, generated tokens `slow` 0.1 s a request: together 10 requests/s,
    150 tokens/s. On one machine a request takes 2.6 or 5.1 s."""
    document = apart()
    plan = ce.serve(document)
    assert plan.value == pytest.approx(150.0)
    (route,) = plan.more["routes"]
    assert (route["prefill"], route["decode"]) == (["f"], ["s"])
    # 10 / 100 s; 1 / 50 s a token; the cache of 10 tokens: 0.25 s + 10 x 0.5 / 1000.
    assert route["first_token_s"] == pytest.approx(0.1)
    assert route["token_s"] == pytest.approx(0.02)
    assert route["request_s"] == pytest.approx(0.1 + 0.255 + 4 * 0.02)
    assert check(instance_from(document), json.loads(json.dumps(plan.document()))) == []
    document["workload"]["split_phases"] = False
    together = 1 / (10 / 100 + 5 / 2) + 1 / (10 / 2 + 5 / 50)
    assert ce.serve(document).value == pytest.approx(15 * together)


def test_the_link_for_caches_binds() -> None:
    """On a link of 20 tokens/s, 5 tokens' worth of cache a request let 4 requests/s move; what time
    is left serves whole requests on either machine."""
    document = apart()
    for row in document["links"]:
        row["tokens_per_s"] = 20.0
    best = routes.most_tokens(document)
    plan = ce.serve(document)
    assert plan.value == pytest.approx(best)
    assert 60.0 < plan.value < 70.0


def test_one_request_through_both_phases() -> None:
    """10 prompt tokens at 100/s, the cache 0.25 + 0.005 s, then two tokens at 50/s."""
    document = apart()
    plan = ce.serve(document).document()
    instance = instance_from(document)
    one = Trace(np.array([1.0]), np.array([10]), np.array([3]))
    found = simulate(instance, {0: (0, 1), 1: (0, 1)}, one, None, ways(instance, plan))
    assert found.first == pytest.approx([0.1])
    assert found.each == pytest.approx([(0.255 + 2 * 0.02) / 2])
    assert found.busy.keys() >= {"f", "s", "f -> s"}


@pytest.mark.parametrize("seed", [0, 3, 5, 6])
def test_simulated_against_predicted(seed: int) -> None:
    document = routes.random_phases(seed, split=True)
    plan = ce.serve(document)
    assert plan.value
    instance = instance_from(document)
    at = {name: i for i, name in enumerate(instance.machines)}
    placed = {at[m]: (a, b + 1) for m, (a, b) in plan.placement.items()}
    work, count = document["workload"], 3000
    trace = Trace(
        np.zeros(count),
        np.full(count, work["prompt_tokens"]),
        # The prefill makes the first of the generated tokens.
        np.full(count, work["output_tokens"] + 1),
    )
    found = simulate(instance, placed, trace, None, ways(instance, plan.document()))
    assert found.tokens_per_s == pytest.approx(plan.value, rel=0.1)


@pytest.fixture(scope="module")
def planned() -> tuple[dict[str, Any], dict[str, Any]]:
    document = apart()
    return document, json.loads(json.dumps(ce.serve(document).document()))


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda p: p["routes"][0].update(requests_per_s=11.0), "load"),
        (lambda p: p["routes"][0].update(requests_per_s=-1.0), "route"),
        (lambda p: p["routes"][0].update(requests_per_s=9.0), "value"),
        (lambda p: p["routes"][0].update(prefill=["nobody"]), "route"),
        (lambda p: p["routes"][0].update(prefill=["f", "s"]), "route"),
        (lambda p: p["routes"][0].update(prefill=[]), "route"),
        (lambda p: p["routes"][0].pop("decode"), "load"),
        (lambda p: p["placement"].pop("s"), "route"),
        (lambda p: p.update(limits={"first_token_s": 0.05}), "limit"),
        (lambda p: p.update(limits={"token_s": 0.01}), "limit"),
        (lambda p: p.update(value=151.0), "value"),
        (lambda p: p.update(bound=140.0), "bound"),
        (lambda p: p["certificate"].update(weight=None), "certificate"),
        (lambda p: p["certificate"].update(weight=1.5), "certificate"),
        (lambda p: p["certificate"].update(rule="prices"), "certificate"),
        (lambda p: p["certificate"]["certificate"]["groups"].pop(), "certificate"),
        (lambda p: p.pop("routes"), "value"),
    ],
)  # fmt: skip
def test_tampering(change: Any, kind: str, planned: tuple[dict[str, Any], dict[str, Any]]) -> None:
    document, plan = copy.deepcopy(planned)
    assert check(instance_from(document), plan) == []
    change(plan)
    assert kind in {f.kind for f in check(instance_from(document), plan)}


def test_a_cache_cannot_move_without_a_link() -> None:
    document = apart()
    plan = json.loads(json.dumps(ce.serve(document).document()))
    document["links"] = []
    faults = check(instance_from(document), plan)
    assert "cannot move" in faults[0].text


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda p: p.update(request_s=p["request_s"] * 0.9), "value"),
        (lambda p: p.update(request_s_bound=p["request_s"] * 1.1), "bound"),
        (lambda p: p.update(request_s_bound=p["request_s"], min_tokens=1e9), "value"),
        (lambda p: [row.update({m: "0" for m in row}) for row in p["certificate"].values()
                    if isinstance(row, dict)] and p.update(request_s_bound=p["request_s"]),
         "certificate"),
        (lambda p: p["certificate"].pop("both"), "certificate"),
        (lambda p: p["certificate"]["both"].popitem(), "certificate"),
    ],
)  # fmt: skip
def test_tampering_with_the_shortest(change: Any, kind: str) -> None:
    """Two machines of 2 and 3 layers for 4 layers: a path of the faster one alone would be shorter
    than any plan, so prices must say that it is used once."""
    document = oracle.cluster(4, {"a": [40.0, 20.0], "b": [9.0, 4.0]}, [("x", "a"), ("y", "b")])
    plan = json.loads(json.dumps(ce.serve(document, objective="latency").document()))
    assert plan["status"] == "OPTIMAL"
    assert check(instance_from(document), plan) == []
    change(plan)
    assert kind in {f.kind for f in check(instance_from(document), plan)}


def test_memory_is_the_judges_too() -> None:
    """Tables may go further than the memory; the judge reckons for itself."""
    document = routes.random_phases(3)
    plan = json.loads(json.dumps(ce.serve(document).document()))
    instance = instance_from(document)
    assert check(instance, plan) == []
    for entry in document["node_types"].values():
        entry["memory_bytes"] = 1.0  # what `instance` was read from
    document["model"]["layer_weight_bytes"] = 1.0
    assert "memory" in {f.kind for f in check(instance, plan)}


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Limits and phases from the file and the command line; report, picture, simulation, export."""
    path, plan, picture = tmp_path / "i.json", tmp_path / "p.json", tmp_path / "p.svg"
    path.write_text(json.dumps(apart()))
    made = run(capsys, "serve", "plan", path, "-o", plan, "--picture", picture)
    assert made.code == 0, made.err
    assert "f | decode s" in made.out
    assert "prefill" in picture.read_text()
    assert run(capsys, "serve", "check", plan, "--instance", path).code == 0
    got = run(capsys, "serve", "simulate", plan, "--instance", path, "--json")
    assert got.document["predicted"] == pytest.approx(150.0)
    assert run(capsys, "serve", "export", plan, "--instance", path, "--to", "vllm").code == 2
    out = run(capsys, "serve", "export", plan, "--instance", path, "--to", "json").out
    assert json.loads(out)["pipelines"][0]["decode"] == ["s"]
    short = run(
        capsys, "serve", "plan", path, "-o", plan, "--objective", "latency",
        "--first-token", "0.5", "--json",
    )  # fmt: skip
    assert short.document["request_s"] == pytest.approx(0.435)
    told = run(capsys, "serve", "check", plan, "--instance", path)
    assert "0.435 s a request" in told.out


def test_the_tutorial_is_the_example() -> None:
    """The YAML on the page, and the file that its commands name."""
    page = (ROOT / "docs" / "serving.md").read_text()
    (shown,) = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)
    written = yaml.safe_load((ROOT / "examples" / "serving_cluster.yaml").read_text())
    rest = {k: v for k, v in written.items() if k not in ("name", "notes")}
    assert yaml.safe_load(shown) == rest
    (plain,) = re.findall(r"```json\n(.*?)```", page, re.DOTALL)
    assert ce.serve(json.loads(plain)).value == 400.0


def test_platforms_of_the_partitioner(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Devices that state their sizes are machines; a way over a CPU has its least rate."""
    cluster = tmp_path / "c.yaml"
    cluster.write_text(yaml.safe_dump({
        "format": "csp-embed-cluster/1", "platform": "four_servers",
        "model": {"layers": 4, "hidden": 512, "heads": 8, "intermediate": 1024},
    }))  # fmt: skip
    instance = variants(str(cluster))[0].instance
    at = {m: i for i, m in enumerate(instance.machines)}
    assert len(at) == 12
    size = 2 * 512
    assert instance.link[at["node0.large"], at["node0.small"]] == 1.2e7 * 1e3 / size
    assert instance.link[at["node0.large"], at["node1.small"]] == 3.0e6 * 1e3 / size
    plan = tmp_path / "p.json"
    options = ["--time-limit", "1", "-o", plan, "--json"]
    assert run(capsys, "serve", "plan", cluster, *options).code == 0
    assert run(capsys, "serve", "check", plan, "--instance", cluster).code == 0
    other = run(capsys, "serve", "plan", cluster, "--platform", "cpu_2gpu", *options)
    assert other.code == 0, other.err
    wrong = run(capsys, "serve", "check", plan, "--instance", cluster)
    assert wrong.code == 5
    right = ["--instance", cluster, "--platform", "cpu_2gpu"]
    assert run(capsys, "serve", "check", plan, *right).code == 0
