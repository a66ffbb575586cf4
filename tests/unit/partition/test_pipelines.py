"""Pipelines by dynamic programs and annealing of blocks, against all placements of small workloads;
and what the whole search then keeps."""

from __future__ import annotations

import itertools
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from dnn_workloads import Content, contiguous, edge, generated, latency, loads, node, placements

from csp_embed.judge.plan.judge import check_plan
from csp_embed.partition.methods.period.period_loads import load_arrays
from csp_embed.partition.models.dnn import Dnn, make_dnn
from csp_embed.partition.models.dnn_file import parse_dnn
from csp_embed.partition.pipelines.blocks import anneal_blocks, blocks, makespan
from csp_embed.partition.pipelines.fold import fold
from csp_embed.partition.pipelines.ideals import best_chain, ideals
from csp_embed.partition.pipelines.intervals import classes, cut, prices
from csp_embed.partition.solve import solve


def workload(seed: int, objective: str) -> tuple[Content, Dnn]:
    content = generated(seed)
    return content, make_dnn(*parse_dnn(content, objective))


def at_of(dnn: Dnn, dev: np.ndarray) -> dict[int, Any]:
    """A placement as the rules want it: accelerators by number."""
    names = [d.name for d in dnn.p.platform.devices]
    at = [names[d].removeprefix("fpga") for d in dev]
    return {int(t): int(d) if d.isdigit() else "cpu" for t, d in zip(dnn.p.ids, at, strict=True)}


def piped(content: Content, at: dict[int, Any], turned: bool) -> bool:
    """Whether devices have an order that forward edges never descend, and backward edges never
    ascend (turned) or descend either."""
    back = {n["id"]: n["isBackwardNode"] for n in content["nodes"]}
    arcs = [(e["sourceId"], e["destId"]) for e in content["edges"]]
    arcs = [(u, t) for u, t in arcs if back[u] == back[t] and at[u] != at[t]]
    for order in itertools.permutations(set(at.values())):
        place = {d: k for k, d in enumerate(order)}
        if all((place[at[u]] < place[at[t]]) != (turned and back[u] == 1) for u, t in arcs):
            return True
    return False


def best_pipeline(content: Content, turned: bool) -> Fraction | None:
    found = [
        max(load.values())
        for at in placements(content)
        if (load := loads(content, at)) is not None and piped(content, at, turned)
    ]
    return min(found, default=None)


def placed(dnn: Dnn, kinds: Any, parts: list[tuple[int, Any]], group: np.ndarray) -> np.ndarray:
    free = [list(ds) for ds in kinds.of]
    place = np.zeros(group.max() + 1, np.int64)
    for c, groups in parts:
        place[groups] = free[c].pop(0)
    return place[group]


@pytest.mark.parametrize("seed", range(30))
def test_the_chain_of_ideals_is_the_best_pipeline(seed: int) -> None:
    content, dnn = workload(seed, "throughput")
    folded = fold(dnn.p, dnn.backward)
    q = load_arrays(folded.p, dnn.accelerator, dnn.toll)
    kinds, all_ = classes(q), ideals(folded, 1000)
    assert all_ is not None
    stages, done = best_chain(q, kinds, all_, 1e9, 10**6)
    assert done
    want = {best_pipeline(content, turned) for turned in (True, False)}
    if stages is None:
        assert None in want
        return
    order = np.arange(folded.count)
    parts = [(c, all_.groups(large, small, order)) for c, small, large in stages]
    at = at_of(dnn, placed(dnn, kinds, parts, folded.p.group))
    load = loads(content, at)
    assert load is not None
    assert max(load.values()) in want
    assert contiguous(content, at)
    # It is the better of the two where one of them folds less.
    assert any(piped(content, at, turned) for turned in (True, False))


@pytest.mark.parametrize("seed", range(20))
def test_cuts_of_an_order_cost_what_the_rules_say(seed: int) -> None:
    content, dnn = workload(seed, "throughput")
    folded = fold(dnn.p, dnn.backward)
    q = load_arrays(folded.p, dnn.accelerator, dnn.toll)
    kinds, unit = classes(q), float(dnn.p.unit)
    for order in folded.orders(2):
        price = prices(q, kinds, order)
        for begin, end in itertools.combinations(range(folded.count + 1), 2):
            dev = np.full(folded.count, dnn.p.m - 1)  # all others on the CPU
            dev[order[begin:end]] = 0
            load = loads(content, at_of(dnn, dev[folded.p.group]))
            got = price[next(k for k, ds in enumerate(kinds.of) if 0 in ds), begin, end] * unit
            assert got == (np.inf if load is None else pytest.approx(float(load[0])))
        stages = cut(price, kinds.count, True)
        if stages is None:
            continue
        parts = [(c, order[a:b]) for c, a, b in stages]
        load = loads(content, at_of(dnn, placed(dnn, kinds, parts, folded.p.group)))
        assert load is not None
        most = max(price[c, a, b] for c, a, b in stages) * unit
        assert most == pytest.approx(float(max(load.values())))
        tried = [
            max(price[c, a, b] for (a, b), c in zip(itertools.pairwise(ends), way, strict=True))
            for way in set(itertools.permutations(np.repeat(range(len(kinds.of)), kinds.count)))
            for ends in itertools.combinations_with_replacement(
                range(folded.count + 1), len(way) - 1
            )
            for ends in [(0, *ends, folded.count)]
        ]
        assert most == pytest.approx(min(tried) * unit)


@pytest.mark.parametrize("seed", range(20))
def test_makespans_of_blocks_and_what_annealing_keeps(seed: int) -> None:
    content, dnn = workload(seed, "latency")
    b, unit = blocks(dnn), float(dnn.p.unit)
    groups = dnn.p.group.max() + 1
    able = []
    for way in itertools.product(range(dnn.p.m), repeat=groups):
        place = np.array(way, np.int64)
        at = at_of(dnn, place[dnn.p.group])
        if loads(content, at) is None:
            continue
        value, want = makespan(b, place)[0] * unit, latency(content, at)
        assert value == (np.inf if want is None else pytest.approx(float(want)))
        if want is not None:
            able.append((float(want), place))
    for _, place in able[:: max(1, len(able) // 5)]:
        dev = place[dnn.p.group]
        value = anneal_blocks(dnn, dev, 3000, 5.0 / unit, 0.01 / unit, seed + 1) * unit
        at = latency(content, at_of(dnn, dev))
        assert at is not None
        assert value == pytest.approx(float(at))
        assert value == pytest.approx(min(x for x, _ in able))


def wide(n: int, accelerators: int, training: bool = False) -> Content:
    """Two chains with bridges between them, some nodes coloured in pairs."""
    rows = [
        node(i, 20 + i % 7, 2 + i % 5, size=1, **({"colorClass": i // 9} if i % 9 < 2 else {}))
        for i in range(n)
    ]
    edges = [edge(i, i + 2, 0.5 + i % 3) for i in range(n - 2)]
    edges += [edge(i, i + 3, 0.5 + i % 3) for i in range(0, n - 3, 4)]
    if training:
        for i in range(n):
            color = rows[i].get("colorClass", 1000 + i)
            rows[i]["colorClass"] = color
            rows.append(node(n + i, 30, 3, size=1, isBackwardNode=1, colorClass=color))
        edges += [edge(n + b, n + a, 1) for a, b in [(i, i + 2) for i in range(n - 2)]]
    return {
        "maxFPGAs": accelerators, "maxCPUs": 1, "maxSizePerFPGA": n, "nodes": rows, "edges": edges,
    }  # fmt: skip


@pytest.mark.parametrize("training", [False, True])
def test_free_is_never_above_contiguous(training: bool) -> None:
    content = wide(40, 3, training)
    graph, platform = parse_dnn(content, "throughput")
    values = {}
    for convex in (True, False):
        plan = solve(
            graph, platform, objective="throughput", cost_model="dnn-partitioning",
            contiguous=convex, effort=0.05,
        )  # fmt: skip
        assert check_plan(graph, platform, plan) == []
        at = {
            int(r.task): int(r.device[4:]) if r.device[:4] == "fpga" else "cpu"
            for r in plan.assignments
        }
        load = loads(content, at)
        assert load is not None
        assert plan.objective == float(max(load.values()))
        assert contiguous(content, at) or not convex
        values[convex] = plan.objective
    assert values[False] <= values[True]


@pytest.mark.parametrize("objective", ["latency", "throughput"])
@pytest.mark.parametrize("moment", ["pipelines", "annealing", "exact search"])
def test_an_interrupt_at_any_stage_keeps_the_plan(objective: str, moment: str) -> None:
    graph, platform = parse_dnn(wide(40, 3), objective)
    told: list[str] = []

    def listen(text: str, done: int, total: int) -> None:
        told.append(text)
        if text.startswith(moment):
            raise KeyboardInterrupt

    plan = solve(
        graph, platform, objective=objective, cost_model="dnn-partitioning", effort=0.05,
        progress=listen,
    )  # fmt: skip
    assert told[-1].startswith(moment)
    assert plan.objective is not None
    assert plan.reasons == ("interrupted",)
    assert check_plan(graph, platform, plan) == []
