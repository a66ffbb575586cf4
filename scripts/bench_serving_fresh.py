"""Unseen members of the published families of placement problems, for `bench_serving fresh`.

Tables are those of the published files, scaled machine type by machine type; counts, regions, link
rates, order of machines and pruning are drawn.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Document = dict[str, Any]
KEPT = 12  # fastest links that pruning keeps of each machine


def members(folder: Path, seed: int) -> Iterator[tuple[str, Document]]:
    """(name, instance), a dozen for each seed."""
    tables = {size: _tables(folder, size) for size in ("30b", "70b")}
    draw = random.Random(seed)
    rows = (
        ("single", "30b", {"A100": draw.randint(4, 9)}, 1),
        ("single", "30b", {"L4": draw.randint(9, 16)}, 1),
        ("single", "30b", {"T4": draw.randint(10, 24)}, 1),
        ("single", "30b", {"T4": draw.randint(4, 8), "L4": draw.randint(3, 6)}, 1),
        ("single", "70b", {"A100": draw.randint(3, 6), "L4": 8, "T4": draw.randint(8, 16)}, 1),
        ("geo", "30b", {"T4": draw.randint(10, 16)}, 3),
        ("geo", "30b", {"L4": draw.randint(8, 14), "T4": draw.randint(3, 6)}, 2),
        ("geo", "70b", {"A100": 4, "L4": draw.randint(6, 10), "T4": draw.randint(8, 14)}, 3),
        ("geo-pruned", "70b", {"A100": 4, "L4": 8, "T4": 12}, 3),
        ("het", "70b", {t: draw.randint(3, 9) for t in tables["70b"]}, 1),
        ("het-pruned", "70b", {"T4": 10, "L4": 8, "V100": 6, "T4x2": 6, "L4x2": 4, "T4x4": 4,
                               "A100": 4}, 1),
        ("het-pruned", "70b", {t: draw.randint(3, 7) for t in tables["70b"]}, 1),
    )  # fmt: skip
    for at, (family, size, mix, regions) in enumerate(rows):
        name = f"{family}{sum(mix.values())}_{size}"
        yield name, _member(name, tables[size], size, mix, regions, 100 * seed + at, family)


def _tables(folder: Path, size: str) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {}
    for path in sorted(folder.glob(f"*_{size}.json")):
        for name, entry in json.loads(path.read_text())["node_types"].items():
            found.setdefault(name, entry["tokens_per_s_by_layers"])
    return found


def _member(
    name: str, tables: dict[str, list[float]], size: str, mix: dict[str, int], regions: int,
    seed: int, family: str,
) -> Document:  # fmt: skip
    draw = random.Random(seed)
    layers, activation = (60, 13312) if size == "30b" else (80, 16384)
    types = {
        t: {
            "max_layers": len(tables[t]),
            "tokens_per_s_by_layers": [
                r * factor * draw.uniform(0.98, 1.02) for r in tables[t]
            ],
        }
        for t in mix
        for factor in [draw.uniform(0.8, 1.2)]
    }  # fmt: skip
    kinds = [t for t, n in mix.items() for _ in range(n)]
    # Regions hold neighbours of the list, so types gather in them as in the published clusters.
    region = [i * regions // len(kinds) for i in range(len(kinds))]
    both = list(zip(kinds, region, strict=True))
    draw.shuffle(both)
    n = len(both)
    rate: dict[tuple[int, int], float] = {}
    for i in range(n):
        for j in range(i):
            if regions == 1:
                data = 1e9
            elif both[i][1] == both[j][1]:
                data = draw.uniform(1.1e9, 1.35e9)
            else:
                data = draw.uniform(9e6, 16e6)
            rate[i, j] = rate[j, i] = data / activation
    ends = list(range(n))
    if family.endswith("pruned"):
        rate = _pruned(rate, n, draw)
        ends = sorted(draw.sample(ends, KEPT))
    return {
        "format": "layer-placement-1",
        "name": name,
        "model": {"layers": layers},
        "node_types": types,
        "nodes": [{"id": i, "type": t} for i, (t, _) in enumerate(both)],
        "links": [{"from": i, "to": j, "tokens_per_s": r} for (i, j), r in rate.items()],
        "coordinator": {
            "to_nodes": [{"to": i, "tokens_per_s": 6e6} for i in ends],
            "from_nodes": [{"from": i, "tokens_per_s": 6e6} for i in ends],
        },
    }


def _pruned(
    rate: dict[tuple[int, int], float], n: int, draw: random.Random
) -> dict[tuple[int, int], float]:
    """Each machine's fastest links; a link stays if either end keeps it. Ties go by an order of
    machines that is drawn, as names would break them: few become hubs."""
    order = list(range(n))
    draw.shuffle(order)
    kept = set()
    for i in range(n):
        near = sorted((j for j in range(n) if j != i), key=lambda j: (-rate[i, j], order[j]))
        kept |= {pair for j in near[:KEPT] for pair in ((i, j), (j, i))}
    return {pair: rate[pair] for pair in rate if pair in kept}
