"""What the tests compare with: random instances, and the best plan by trying every placement.

Nothing of csp_embed is used: flows are networkx's on fractions of the document's own numbers.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterator
from fractions import Fraction
from typing import Any

import networkx as nx


def random_document(
    seed: int, machines: int = 4, layers: int = 5, partial: bool = False
) -> dict[str, Any]:
    """A tiny instance: uneven tables (not all falling), some links missing, some slow."""
    draw = random.Random(seed)
    types = {}
    for name in "AB"[: draw.randint(1, 2)]:
        most = draw.randint(1, min(4, layers))
        rate = draw.randint(20, 100)
        table = [max(1, round(rate / k * draw.uniform(0.6, 1.2))) + draw.choice([0, 0.25])
                 for k in range(1, most + 1)]  # fmt: skip
        types[name] = {"max_layers": most, "tokens_per_s_by_layers": table}
    nodes = [{"id": f"m{i}", "type": draw.choice(list(types))} for i in range(machines)]
    density, slow = draw.choice([1.0, 1.0, 0.7, 0.4]), draw.choice([0.0, 0.5])
    links = [
        {"from": a["id"], "to": b["id"],
         "tokens_per_s": float(draw.randint(3, 30) if draw.random() < slow else 500)}
        for a in nodes for b in nodes if a is not b and draw.random() < density
    ]  # fmt: skip
    ends = density if draw.random() < 0.5 else 1.0
    return {
        "format": "layer-placement-1",
        "name": f"random{seed}",
        "model": {"name": "tiny", "layers": layers},
        "partial_inference": partial,
        "node_types": types,
        "nodes": nodes,
        "links": links,
        "coordinator": {
            "to_nodes": [{"to": n["id"], "tokens_per_s": 1000.0}
                         for n in nodes if draw.random() < ends],
            "from_nodes": [{"from": n["id"], "tokens_per_s": 1000.0}
                           for n in nodes if draw.random() < ends],
        },
    }  # fmt: skip


def carried(document: dict[str, Any], placement: dict[str, tuple[int, int]]) -> Fraction:
    """Tokens/s of a placement {machine: (first, last)}, both included; by the problem's words."""
    layers = document["model"]["layers"]
    kind = {n["id"]: n["type"] for n in document["nodes"]}
    graph = nx.DiGraph()
    graph.add_nodes_from(("source", "sink"))

    def add(a: Any, b: Any, capacity: float) -> None:
        graph.add_edge(a, b, capacity=Fraction(capacity))

    for m, (first, last) in placement.items():
        table = document["node_types"][kind[m]]["tokens_per_s_by_layers"]
        add((m, "in"), (m, "out"), table[last - first])
    for row in document["coordinator"]["to_nodes"]:
        if row["to"] in placement and placement[row["to"]][0] == 0:
            add("source", (row["to"], "in"), row["tokens_per_s"])
    for row in document["coordinator"]["from_nodes"]:
        if row["from"] in placement and placement[row["from"]][1] == layers - 1:
            add((row["from"], "out"), "sink", row["tokens_per_s"])
    for row in document["links"]:
        a, b = row["from"], row["to"]
        if a in placement and b in placement:
            end, (first, last) = placement[a][1] + 1, placement[b]
            inside = first <= end <= last
            if inside if document.get("partial_inference") else end == first:
                add((a, "out"), (b, "in"), row["tokens_per_s"])
    return Fraction(nx.maximum_flow_value(graph, "source", "sink"))


def placements(document: dict[str, Any]) -> Iterator[dict[str, tuple[int, int]]]:
    """Every placement of every subset of the machines."""
    layers = document["model"]["layers"]
    options = []
    for node in document["nodes"]:
        most = document["node_types"][node["type"]]["max_layers"]
        intervals = [(a, a + k - 1) for k in range(1, most + 1) for a in range(layers - k + 1)]
        options.append([None, *intervals])
    names = [n["id"] for n in document["nodes"]]
    for choice in itertools.product(*options):
        placed = {m: i for m, i in zip(names, choice, strict=True) if i is not None}
        # Only placements that hold every layer carry anything.
        if {x for a, b in placed.values() for x in range(a, b + 1)} == set(range(layers)):
            yield placed


def best(document: dict[str, Any]) -> Fraction:
    """The optimum."""
    return max((carried(document, p) for p in placements(document)), default=Fraction(0))


def cluster(
    layers: int,
    tables: dict[str, list[float]],
    machines: list[tuple[str, str]],
    link: Any = lambda a, b: 1e6,
) -> dict[str, Any]:
    """machines: (id, type); link: (id, id) -> tokens/s, 0 for none."""
    pairs = [(a, b) for a, _ in machines for b, _ in machines if a != b and link(a, b)]
    return {
        "format": "layer-placement-1",
        "model": {"layers": layers},
        "node_types": {
            t: {"max_layers": len(v), "tokens_per_s_by_layers": v} for t, v in tables.items()
        },
        "nodes": [{"id": m, "type": t} for m, t in machines],
        "links": [{"from": a, "to": b, "tokens_per_s": link(a, b)} for a, b in pairs],
        "coordinator": {
            "to_nodes": [{"to": m, "tokens_per_s": 1e9} for m, _ in machines],
            "from_nodes": [{"from": m, "tokens_per_s": 1e9} for m, _ in machines],
        },
    }
