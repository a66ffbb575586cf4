"""The simulation: times worked out by hand, capacity against the flow, traces, utilisation."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import serving_oracle as oracle
from command_line import run

import csp_embed as ce
from csp_embed.errors import Infeasible, InputError
from csp_embed.serving.files.read import instance_from
from csp_embed.serving.files.trace_file import read_trace
from csp_embed.serving.flow import max_flow
from csp_embed.serving.simulate import Trace, generated_trace, pipelines, simulate


def trace(*rows: tuple[float, int, int]) -> Trace:
    a, p, o = zip(*rows, strict=True)
    return Trace(np.array(a, float), np.array(p), np.array(o))


def chain(rates: list[float], latency: float = 0.0) -> Any:
    """Machines of one layer each in a row; links and coordinator do not bind."""
    tables = {f"t{i}": [rate] for i, rate in enumerate(rates)}
    document = oracle.cluster(
        len(rates), tables, [(f"m{i}", f"t{i}") for i in range(len(rates))], lambda a, b: 1e12
    )
    for row in document["coordinator"]["to_nodes"] + document["coordinator"]["from_nodes"]:
        row["tokens_per_s"] = 1e12
    for row in document["links"]:
        row["latency_s"] = latency
    return instance_from(document), {i: (i, i + 1) for i in range(len(rates))}


def test_one_request_by_hand() -> None:
    """10 prompt tokens at 5/s and 4/s with a link of 0.5 s: first token after 2 + 0.5 + 2.5 s;
    each further one after 0.2 + 0.5 + 0.25 s."""
    found = simulate(*chain([5.0, 4.0], 0.5), trace((1.0, 10, 3)))
    assert found.first == pytest.approx([5.0])
    assert found.each == pytest.approx([0.95])
    assert found.seconds == pytest.approx(1 + 5 + 2 * 0.95)


def test_a_second_request_waits_in_line() -> None:
    """Both arrive at 0: the second prompt begins when the first is through the only machine."""
    found = simulate(*chain([5.0]), trace((0.0, 10, 1), (0.0, 5, 1)))
    assert found.first == pytest.approx([2.0, 3.0])


def test_only_so_many_in_flight() -> None:
    """One at a time: the second is begun when the first has ended, after 2 + 2 x 0.2 s."""
    found = simulate(*chain([5.0]), trace((0.0, 10, 3), (0.0, 5, 1)), in_flight=1)
    assert found.waited == pytest.approx([0.0, 2.4])
    assert found.first == pytest.approx([2.0, 3.4])


def test_capacity_is_the_flow() -> None:
    """Planned clusters, requests all at once: within a tenth of the predicted tokens/s."""
    compared = 0
    for seed in range(12):
        document = oracle.random_document(seed, machines=5, layers=4)
        instance = instance_from(document)
        try:
            plan = ce.serve(document)
        except Infeasible:
            continue
        if plan.value is None:  # links lead nowhere: there is nothing to run
            continue
        position = {m: i for i, m in enumerate(instance.machines)}
        placement = {position[m]: (a, b + 1) for m, (a, b) in plan.placement.items()}
        found = simulate(instance, placement, generated_trace(600, None, seed, 40, 20))
        assert found.tokens_per_s == pytest.approx(plan.value, rel=0.1)
        assert max(found.busy.values()) <= 1 + 1e-9
        assert found.busy[found.binding] > 0.9
        compared += 1
    assert compared >= 6


def test_a_low_rate_is_served_as_it_comes() -> None:
    """A tenth of the capacity: nobody waits long, and the machine is busy a tenth of the time."""
    found = simulate(*chain([1000.0]), generated_trace(2000, 1.0, 3, 80, 20))
    assert found.busy["m0"] == pytest.approx(0.1, rel=0.1)
    assert np.median(found.first) < 0.2


def test_pipelines_add_up_to_the_flow() -> None:
    for seed in range(20):
        document = oracle.random_document(seed, machines=5, layers=4)
        instance = instance_from(document)
        half = {i: (0, 2) if i % 2 else (2, 4) for i in range(5) if len(instance.table(i)) > 1}
        flow = max_flow(instance, half)
        assert sum(rate for _, rate in pipelines(flow)) == pytest.approx(float(flow.value))


def test_traces(tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text("arrival_s,prompt_tokens,output_tokens,user\n2,5,6,a\n1.5,7,8,b\n")
    found = read_trace(path)
    assert found.arrival.tolist() == [1.5, 2.0]
    assert found.prompt.tolist() == [7, 5]


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("arrival_s,prompt_tokens\n1,2\n", ":1"),
        ("arrival_s,prompt_tokens,output_tokens\n1,2,x\n", ":2"),
        ("arrival_s,prompt_tokens,output_tokens\n1,2,3\nnan,2,3\n", ":3"),
        ("arrival_s,prompt_tokens,output_tokens\n1,0,3\n", ":2"),
        ("arrival_s,prompt_tokens,output_tokens\n1,5\n", ":2"),
    ],
)
def test_traces_that_are_none(text: str, where: str, tmp_path: Path) -> None:
    path = tmp_path / "t.csv"
    path.write_text(text)
    with pytest.raises(InputError) as error:
        read_trace(path)
    assert error.value.where.endswith(where)


def test_an_empty_trace() -> None:
    with pytest.raises(InputError):
        simulate(*chain([1.0]), Trace(np.zeros(0), np.zeros(0, int), np.zeros(0, int)))


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    instance, plan = tmp_path / "i.json", tmp_path / "p.json"
    instance.write_text(json.dumps(oracle.random_document(4)))
    assert run(capsys, "serve", "plan", instance, "-o", plan, "--json").code == 0
    got = run(
        capsys, "serve", "simulate", plan, "--instance", instance, "--requests", 300,
        "--prompt", 30, "--output-tokens", 10, "--json",
    )  # fmt: skip
    assert got.code == 0, got.err
    assert got.document["tokens_per_s"] == pytest.approx(got.document["predicted"], rel=0.1)
    assert got.document["served"] == 300
    text = run(capsys, "serve", "simulate", plan, "--instance", instance, "--rate", 0.01)
    assert "busiest" in text.out
    assert run(capsys, "serve", "simulate", plan, "--instance", instance, "--rate", 0).code == 2
