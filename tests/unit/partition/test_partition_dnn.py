"""The dnn-partitioning cost model: brute force on generated workloads, and hand-made cases.

The public workloads and their known values: `scripts/bench_partition known --data DIR`."""

from __future__ import annotations

import itertools
import random
from dataclasses import replace
from fractions import Fraction

import pytest

from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import Assignment, Plan
from csp_embed.judge.plan import check_plan
from csp_embed.partition.models.dnn_file import parse_dnn, read_dnn
from csp_embed.partition.solve import solve


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


def generated(seed: int) -> dict[str, object]:
    """A small workload of that format: colours, missing accelerators, backward nodes, zero tolls,
    gaps in ids."""
    r = random.Random(seed)
    ids = r.sample(range(50), r.randint(3, 6))
    toll = {i: r.choice([0, 0.5, 1, 3, 0.1]) for i in ids}
    nodes = [
        node(
            i,
            r.choice([0, 2, 5, 9, 0.3]),
            r.choice([0, 1, 2, 4, 0.7]),
            size=r.choice([0, 3, 6]),
            supportedOnFpga=r.random() < 0.8,
            isBackwardNode=int(k > 3),
            **({"colorClass": 1} if r.random() < 0.3 else {}),
        )
        for k, i in enumerate(ids)
    ]
    edges = [edge(u, t, toll[u]) for k, t in enumerate(ids) for u in ids[:k] if r.random() < 0.45]
    return {
        "maxFPGAs": r.randint(1, 2), "maxCPUs": 1, "maxSizePerFPGA": r.choice([6, 9, 20]),
        "nodes": nodes, "edges": edges,
    }  # fmt: skip


def brute(content: dict[str, object], objective: str, contiguous: bool) -> Fraction | None:
    """The least objective over all placements, in Fractions, from the rules of the format alone."""
    nodes = {n["id"]: n for n in content["nodes"]}
    arcs = [(e["sourceId"], e["destId"]) for e in content["edges"]]
    toll = {e["sourceId"]: Fraction(str(e["cost"])) for e in content["edges"]}
    fast = list(range(content["maxFPGAs"]))
    best: Fraction | None = None
    reach = {i: {t for u, t in arcs if u == i} for i in nodes}
    for _ in nodes:
        for i in nodes:
            reach[i] = reach[i].union(*(reach[t] for t in reach[i]))

    def convex(inside: set[int], among: set[int], pairs: dict[int, set[int]]) -> bool:
        return not any(
            x in pairs[a] and b in pairs[x] for a in inside for b in inside for x in among - inside
        )

    for choice in itertools.product([*fast, "cpu"], repeat=len(nodes)):
        at = dict(zip(nodes, choice, strict=True))
        if any(d != "cpu" and not nodes[i]["supportedOnFpga"] for i, d in at.items()):
            continue
        if len({d for i, d in at.items() if "colorClass" in nodes[i]}) > 1:
            continue
        on = {d: [i for i in nodes if at[i] == d] for d in [*fast, "cpu"]}
        if any(sum(nodes[i]["size"] for i in on[d]) > content["maxSizePerFPGA"] for d in fast):
            continue
        load = {}
        for d in [*fast, "cpu"]:
            key = "cpuLatency" if d == "cpu" else "fpgaLatency"
            load[d] = sum((Fraction(str(nodes[i][key])) for i in on[d]), Fraction(0))
            if d != "cpu":
                leaves = {u for u, t in arcs if at[u] == d and at[t] != d}
                comes = {u for u, t in arcs if at[u] != d and at[t] == d}
                load[d] += sum(toll[u] for u in leaves) + sum(toll[u] for u in comes)
        if objective == "throughput":
            sound = True
            for back in (0, 1):
                part = {i for i in nodes if nodes[i]["isBackwardNode"] == back}
                near = {i: {t for u, t in arcs if u == i and t in part} for i in part}
                for _ in part:
                    for i in part:
                        near[i] = near[i].union(*(near[t] for t in near[i]))
                sound &= all(convex(set(on[d]) & part, part, near) for d in on)
            if sound or not contiguous:
                value = max(load.values())
                best = value if best is None else min(best, value)
            continue
        # One subgraph per accelerator: a piece; CPU nodes are pieces of their own.
        piece = {i: ("cpu", i) if d == "cpu" else ("fpga", d) for i, d in at.items()}
        takes = {
            x: Fraction(str(nodes[x[1]]["cpuLatency"])) if x[0] == "cpu" else load[x[1]]
            for x in piece.values()
        }
        before = {x: {piece[u] for u, t in arcs if piece[t] == x != piece[u]} for x in takes}
        end: dict[object, Fraction] = {}
        for _ in takes:
            for x in takes:
                if x not in end and before[x] <= end.keys():
                    end[x] = max((end[y] for y in before[x]), default=Fraction(0)) + takes[x]
        if len(end) == len(takes):
            value = max(end.values())
            best = value if best is None else min(best, value)
    return best


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
