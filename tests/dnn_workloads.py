"""Workloads of the dnn-partitioning format that the project makes, and what the rules of the format
alone say of a placement: nothing of the package is used here."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping
from fractions import Fraction
from typing import Any

Content = dict[str, Any]


def node(number: int, cpu: float, fpga: float, **more: object) -> dict[str, object]:
    """A node that runs on accelerators unless said otherwise."""
    row = {"id": number, "cpuLatency": cpu, "fpgaLatency": fpga, "isBackwardNode": 0}
    return {**row, "supportedOnFpga": 1, **more}


def edge(a: int, b: int, cost: float) -> dict[str, object]:
    """An edge with the cost of moving a's output once."""
    return {"sourceId": a, "destId": b, "cost": cost}


def generated(seed: int) -> Content:
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


def loads(content: Content, at: Mapping[int, Any]) -> dict[Any, Fraction] | None:
    """ms on each device, accelerators by number and "cpu"; None where a rule is broken."""
    nodes = {n["id"]: n for n in content["nodes"]}
    arcs = [(e["sourceId"], e["destId"]) for e in content["edges"]]
    toll = {e["sourceId"]: Fraction(str(e["cost"])) for e in content["edges"]}
    fast = list(range(content["maxFPGAs"]))
    if any(d != "cpu" and not nodes[i]["supportedOnFpga"] for i, d in at.items()):
        return None
    colour = {i: n["colorClass"] for i, n in nodes.items() if "colorClass" in n}
    if len({(c, at[i]) for i, c in colour.items()}) > len(set(colour.values())):
        return None
    found = {}
    for d in [*fast, "cpu"]:
        on = [i for i in nodes if at[i] == d]
        if d != "cpu" and sum(nodes[i]["size"] for i in on) > content["maxSizePerFPGA"]:
            return None
        key = "cpuLatency" if d == "cpu" else "fpgaLatency"
        found[d] = sum((Fraction(str(nodes[i][key])) for i in on), Fraction(0))
        if d != "cpu":
            leaves = {u for u, t in arcs if at[u] == d and at[t] != d}
            comes = {u for u, t in arcs if at[u] != d and at[t] == d}
            found[d] += sum(toll[u] for u in leaves) + sum(toll[u] for u in comes)
    return found


def contiguous(content: Content, at: Mapping[int, Any]) -> bool:
    """Whether forward and backward nodes of each device are convex, each among their own."""
    arcs = [(e["sourceId"], e["destId"]) for e in content["edges"]]
    for back in (0, 1):
        part = {n["id"] for n in content["nodes"] if n["isBackwardNode"] == back}
        near = {i: {t for u, t in arcs if u == i and t in part} for i in part}
        for _ in part:
            for i in part:
                near[i] = near[i].union(*(near[t] for t in near[i]))
        for a, x, b in itertools.product(part, repeat=3):
            if x in near[a] and b in near[x] and at[a] == at[b] != at[x]:
                return False
    return True


def latency(content: Content, at: Mapping[int, Any]) -> Fraction | None:
    """ms until all has ended; None where a rule is broken or blocks wait for each other."""
    load = loads(content, at)
    if load is None:
        return None
    nodes = {n["id"]: n for n in content["nodes"]}
    arcs = [(e["sourceId"], e["destId"]) for e in content["edges"]]
    # One subgraph per accelerator: a piece; CPU nodes are pieces of their own.
    piece = {i: ("cpu", i) if d == "cpu" else ("fpga", d) for i, d in at.items()}
    takes = {
        x: Fraction(str(nodes[x[1]]["cpuLatency"])) if x[0] == "cpu" else load[x[1]]
        for x in piece.values()
    }
    before = {x: {piece[u] for u, t in arcs if piece[t] == x != piece[u]} for x in takes}
    end: dict[Any, Fraction] = {}
    for _ in takes:
        for x in takes:
            if x not in end and before[x] <= end.keys():
                end[x] = max((end[y] for y in before[x]), default=Fraction(0)) + takes[x]
    return max(end.values()) if len(end) == len(takes) else None


def placements(content: Content) -> list[dict[int, Any]]:
    """All of them, right or wrong."""
    ids = [n["id"] for n in content["nodes"]]
    where = [*range(content["maxFPGAs"]), "cpu"]
    ways = itertools.product(where, repeat=len(ids))
    return [dict(zip(ids, way, strict=True)) for way in ways]


def brute(content: Content, objective: str, convex: bool) -> Fraction | None:
    """The least objective over all placements, in Fractions."""
    best: Fraction | None = None
    for at in placements(content):
        if objective == "latency":
            value = latency(content, at)
        else:
            load = loads(content, at)
            value = None if load is None else max(load.values())
            if value is not None and convex and not contiguous(content, at):
                continue
        if value is not None:
            best = value if best is None else min(best, value)
    return best
