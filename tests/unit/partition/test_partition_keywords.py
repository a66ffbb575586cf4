"""Keywords and options that mean nothing are refused, not taken."""

from __future__ import annotations

import pytest
from command_line import run
from partition_cases import topcuoglu

import csp_embed as ce
from csp_embed.errors import CspEmbedError


@pytest.mark.parametrize(
    ("keywords", "text"),
    [
        ({"foo": 1}, "no keyword 'foo'"),
        ({"replicas": "2"}, "replicas is '2'"),
        ({"time_limit": "x"}, "time_limit is 'x'"),
        ({"method": "heft", "seed": 3}, "seed has no effect"),
        ({"cost_model": "dnn-partitioning", "batch": 2}, "batch has no effect"),
    ],
)
def test_keywords(keywords: dict[str, object], text: str) -> None:
    with pytest.raises(CspEmbedError, match=text):
        ce.partition(*topcuoglu(), **keywords)


def test_a_graph_that_is_none() -> None:
    with pytest.raises(CspEmbedError, match="graph is 3"):
        ce.partition(3, 4)


@pytest.mark.parametrize(
    "options",
    [
        ("--pareto", 3, "--objective", "throughput"),
        ("--method", "heft", "--solver-seed", 3),
        ("--method", "milp", "--workers", 2),
        ("--granularity", "node"),
        ("--json", "--explain", "t1"),
        ("--lost", "p2", "--allow-unknown-devices"),
        ("--from", "plan.json", "--allow-unknown-devices"),
    ],
)
def test_options(capsys: pytest.CaptureFixture[str], tmp_path: object, options: tuple) -> None:
    graph = f"{tmp_path}/g.json"
    assert run(capsys, "partition", "generate", "layered", "--n", 5, "-o", graph).code == 0
    found = run(capsys, "partition", graph, *options)
    assert found.code == 2
    assert "has no effect with" in found.err + found.out
