"""The dnn-partitioning workloads: known values, and hand-made cases of the cost model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from csp_embed.errors import InputError
from csp_embed.ir.network import Assignment, Plan
from csp_embed.partition.check import check_plan
from csp_embed.partition.dnn_file import parse_dnn, read_dnn
from csp_embed.partition.solve import solve

DATA = Path(__file__).parents[2] / "data" / "partition" / "dnn-partitioning"
THROUGHPUT, LATENCY = DATA / "throughput-inputs", DATA / "latency-inputs"


@pytest.mark.parametrize(
    ("file", "objective", "contiguous", "known"),
    [
        (THROUGHPUT / "LayerGraphs/bert24_inference.json", "throughput", True, 17.790),
        (THROUGHPUT / "LayerGraphs/bert24_training.json", "throughput", True, 41.746),
        (THROUGHPUT / "OperatorGraphs/bert_l-3_inference.json", "throughput", True, 27.919),
        (LATENCY / "LayerGraphs/bert24_inference.json", "latency", False, 100.218),
    ],
)
def test_known_values_are_proved(
    file: Path, objective: str, contiguous: bool, known: float
) -> None:
    graph, platform = read_dnn(file, objective)
    plan = solve(
        graph, platform, objective=objective, contiguous=contiguous, cost_model="dnn-partitioning"
    )
    assert plan.status == "OPTIMAL"
    assert plan.objective == pytest.approx(known, abs=1e-3)


def node(number: int, cpu: float, fpga: float, **more: object) -> dict[str, object]:
    """A node that runs on accelerators unless said otherwise."""
    row = {"id": number, "cpuLatency": cpu, "fpgaLatency": fpga, "isBackwardNode": 0}
    return {**row, "supportedOnFpga": 1, **more}


def edge(a: int, b: int, cost: float) -> dict[str, object]:
    """An edge with the cost of moving a's output once."""
    return {"sourceId": a, "destId": b, "cost": cost}


SMALL = {
    "maxFPGAs": 2,
    "maxCPUs": 1,
    "maxSizePerFPGA": 10,
    "nodes": [
        node(7, 50, 3, size=6, extra="ignored"),
        node(3, 50, 4, size=6, supportedOnFpga=True),
        node(9, 1, 0, supportedOnFpga=False),
    ],
    "edges": [edge(7, 3, 2), edge(7, 9, 2), edge(3, 9, 0.5)],
}


def test_tolls_by_hand() -> None:
    graph, platform = parse_dnn(SMALL, "throughput")
    plan = solve(graph, platform, objective="throughput", cost_model="dnn-partitioning")
    # 7 on one accelerator: 3 + 2 out (once for two readers); 3 on the other: 2 in + 4 + 0.5 out.
    assert plan.objective == 6.5
    assert sorted(plan.loads.values()) == [1.0, 5.0, 6.5]
    graph, platform = parse_dnn(SMALL, "latency")
    plan = solve(graph, platform, cost_model="dnn-partitioning")
    assert plan.objective == 5 + 6.5 + 1


def test_the_verifier_refuses_a_shared_toll_and_late_inputs() -> None:
    graph, platform = parse_dnn(SMALL, "latency")
    plan = solve(graph, platform, cost_model="dnn-partitioning")
    rows = {r.task: r for r in plan.assignments}
    short = replace(rows["7"], finish=3.0)
    early = replace(rows["3"], start=0.0, finish=6.5)

    def kinds(*changed: Assignment) -> set[str]:
        new = {**rows, **{r.task: r for r in changed}}
        wrong: Plan = replace(plan, assignments=tuple(new.values()))
        return {f.kind for f in check_plan(graph, platform, wrong)}

    assert kinds() == set()
    assert "time" in kinds(short)
    assert "early" in kinds(early)
    assert "memory" in kinds(replace(rows["3"], device=rows["7"].device))


def test_malformed_files_are_refused() -> None:
    with pytest.raises(InputError, match="differ in cost"):
        parse_dnn({**SMALL, "edges": [*SMALL["edges"], edge(7, 9, 5)]})
    with pytest.raises(InputError, match="not a dnn-partitioning workload"):
        parse_dnn({"nodes": []})
    with pytest.raises(InputError, match="cannot read"):
        read_dnn(DATA / "none.json")
