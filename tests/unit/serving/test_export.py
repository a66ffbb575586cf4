"""Exports: what vLLM and llama.cpp would hold, by their own documented rules."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
from bisect import bisect_right
from pathlib import Path
from typing import Any

import pytest
import serving_oracle as oracle
from command_line import run

TABLES = {"x": [30.0, 15.0, 10.0], "y": [18.0, 9.0]}


def exported(
    document: dict[str, Any],
    placement: dict[str, list[int]],
    to: str,
    folder: Path,
    capsys: pytest.CaptureFixture[str],
    value: float | None = None,
) -> Any:
    """Runs `serve export` on a plan written by hand."""
    instance, plan = folder / "i.json", folder / "p.json"
    instance.write_text(json.dumps(document))
    placed = {m: (a, b) for m, (a, b) in placement.items()}
    value = float(oracle.carried(document, placed)) if value is None else value
    plan.write_text(
        json.dumps({"format": "csp-embed-serving/1", "placement": placement, "value": value})
    )
    return run(
        capsys, "serve", "export", plan, "--instance", instance, "--to", to, "--model", "m x"
    )


def row() -> tuple[dict[str, Any], dict[str, list[int]]]:
    document = oracle.cluster(7, TABLES, [("a", "x"), ("b", "y"), ("c", "y")])
    return document, {"a": [0, 2], "b": [3, 4], "c": [5, 6]}


def started(script: str, machine: str, folder: Path) -> list[tuple[dict[str, str], list[str]]]:
    """(environment, words) of each command that the script starts on a machine: it is run, with
    programs of these names that only say how they were called."""
    tools = folder / "tools"
    tools.mkdir(exist_ok=True)
    tool = tools / "vllm"
    tool.write_text(
        "#!/usr/bin/env python3\nimport json, os, sys\n"
        "keys = ('VLLM_PP_LAYER_PARTITION', 'CUDA_VISIBLE_DEVICES')\n"
        "print(json.dumps([{k: os.environ[k] for k in keys if k in os.environ}, sys.argv[1:]]))\n"
    )
    tool.chmod(0o755)
    path = folder / "start.sh"
    path.write_text(script)
    env = {"PATH": f"{tools}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["sh", str(path), machine], env=env, capture_output=True, text=True, check=False
    )
    if done.returncode:
        return []
    return [tuple(json.loads(line)) for line in sorted(done.stdout.splitlines())]


def options(words: list[str]) -> dict[str, str]:
    return {w: words[at + 1] for at, w in enumerate(words[:-1]) if w.startswith("--")}


def test_vllm(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What vLLM makes of it by its own rules: node r runs stage r, all with the same partition."""
    got = exported(*row(), "vllm", tmp_path, capsys)
    assert got.code == 0, got.err
    for rank, name in enumerate("abc"):
        ((env, words),) = started(got.out, name, tmp_path)
        assert words[:2] == ["serve", "m x"]
        said = options(words)
        assert env == {"VLLM_PP_LAYER_PARTITION": "3,2,2"}
        assert said["--pipeline-parallel-size"] == said["--nnodes"] == "3"
        assert said["--tensor-parallel-size"] == "1"
        assert said["--node-rank"] == str(rank)
        assert said["--master-addr"] == "a"
        assert ("--headless" in words) == (rank > 0)
        assert ("--port" in words) == (rank == 0)
    assert started(got.out, "nobody", tmp_path) == []


def test_vllm_in_one_server(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Stages on the GPUs of one box are one process that sees them in the order of the stages."""
    document, placement = row()
    for node, gpu in zip(document["nodes"], (4, 0, 2), strict=True):
        node |= {"server": "box", "first_gpu": gpu, "tensor_parallel": 2}
    got = exported(document, placement, "vllm", tmp_path, capsys)
    ((env, words),) = started(got.out, "box", tmp_path)
    assert env == {"VLLM_PP_LAYER_PARTITION": "3,2,2", "CUDA_VISIBLE_DEVICES": "4,5,0,1,2,3"}
    assert options(words)["--tensor-parallel-size"] == "2"
    assert "--nnodes" not in words


def test_vllm_has_one_degree(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, placement = row()
    for node in document["nodes"]:
        node["tensor_parallel"] = 4
    got = exported(document, placement, "vllm", tmp_path, capsys)
    assert "--tensor-parallel-size 4" in got.out
    document["nodes"][0]["tensor_parallel"] = 2
    got = exported(document, placement, "vllm", tmp_path, capsys)
    assert got.code == 2
    assert "[2, 4]" in got.err


def test_llamacpp_has_no_groups(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, placement = row()
    document["nodes"][1]["tensor_parallel"] = 2
    got = exported(document, placement, "llama.cpp", tmp_path, capsys)
    assert got.code == 2
    assert "tensor-parallel group of 2" in got.err


def test_llamacpp_cuts_where_the_plan_does(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Layer i goes to the first device whose share of layers + 1, added up, exceeds i."""
    document, placement = row()
    got = exported(document, placement, "llama.cpp", tmp_path, capsys)
    assert got.code == 0, got.err
    words = shlex.split(next(x for x in got.out.splitlines() if x.startswith("llama-server")))
    assert words[words.index("-m") + 1] == "m x"
    share = [float(x) for x in words[words.index("-ts") + 1].split(",")]
    hosts = words[words.index("--rpc") + 1].split(",")
    assert [h.split(":")[0] for h in hosts] == ["a", "b", "c"]
    cuts = [sum(share[: i + 1]) / sum(share) for i in range(len(share))]
    assert int(words[words.index("-ngl") + 1]) == 8
    device = [bisect_right(cuts, layer / 8) for layer in range(7)]
    assert device == [0, 0, 0, 1, 1, 2, 2]


@pytest.mark.parametrize("to", ["vllm", "llama.cpp"])
def test_two_whole_pipelines_are_two_engines(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Cut in different places, so that no flow crosses from one to the other."""
    document = oracle.cluster(5, TABLES, [("a", "x"), ("b", "y"), ("c", "y"), ("d", "x")])
    placement = {"a": [0, 2], "b": [3, 4], "c": [0, 1], "d": [2, 4]}
    got = exported(document, placement, to, tmp_path, capsys)
    assert got.code == 0, got.err
    if to == "vllm":
        first = [started(got.out, m, tmp_path) for m in "ac"]
        assert sorted(options(s[0][1])["--port"] for s in first) == ["8000", "8001"]
        assert len({options(s[0][1])["--master-port"] for s in first}) == 2
    else:
        assert len(re.findall(r"^llama-server ", got.out, re.MULTILINE)) == 2
        assert got.out.rstrip().endswith("wait")


@pytest.mark.parametrize("to", ["vllm", "llama.cpp"])
def test_machines_side_by_side_are_refused_with_the_reason(
    to: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = oracle.cluster(5, TABLES, [("a", "x"), ("b", "y"), ("c", "y")])
    placement = {"a": [0, 2], "b": [3, 4], "c": [3, 4]}
    got = exported(document, placement, to, tmp_path, capsys)
    assert got.code == 2
    assert "machine a (layers 0..2) serves several of 2 pipelines" in got.err
    routes = exported(document, placement, "json", tmp_path, capsys)
    pipes = json.loads(routes.out)["pipelines"]
    assert {tuple(p["machines"]) for p in pipes} == {("a", "b"), ("a", "c")}
    assert sum(p["tokens_per_s"] for p in pipes) == pytest.approx(10.0)


def test_a_plan_of_another_instance(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    document, placement = row()
    got = exported(document, {**placement, "c": [4, 6]}, "vllm", tmp_path, capsys, 9.0)
    assert got.code == 5
    assert exported(document, placement, "tgi", tmp_path, capsys).code == 2
