"""The dnn-partitioning cost model: brute force on generated workloads, and hand-made cases.

The public workloads and their known values: `scripts/bench_partition known --data DIR`."""

from __future__ import annotations

from dataclasses import replace

import pytest
from dnn_workloads import brute, edge, generated, node

from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import Assignment, Plan
from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.models.dnn_file import parse_dnn, read_dnn
from csp_embed.partition.solve import solve

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


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize(
    ("objective", "contiguous"), [("latency", False), ("throughput", False), ("throughput", True)]
)
def test_optimum_of_all_placements(seed: int, objective: str, contiguous: bool) -> None:
    content = generated(seed)
    graph, platform = parse_dnn(content, objective)
    want = brute(content, objective, contiguous)
    options = {
        "objective": objective, "contiguous": contiguous, "cost_model": "dnn-partitioning",
        "effort": 0.05,
    }  # fmt: skip
    if want is None:
        with pytest.raises(Infeasible):
            solve(graph, platform, **options)
        return
    plan = solve(graph, platform, **options)
    assert (plan.objective, plan.status) == (float(want), "OPTIMAL")
    assert check_plan(graph, platform, plan) == []


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
        read_dnn("none.json")
