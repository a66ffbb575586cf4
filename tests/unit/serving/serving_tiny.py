"""Random tiny instances of every extension, and their optimum by trying everything.

Nothing of csp_embed is used to find an optimum. NAMES: the extensions. An optimum is of tokens/s,
of cost per hour or of seconds of a request, as the options say.
"""

from __future__ import annotations

import itertools
import json
import math
import random
from collections.abc import Iterator
from typing import Any

import serving_oracle as oracle
import serving_routes_oracle as routes

import csp_embed as ce
from csp_embed.errors import Infeasible
from csp_embed.serving.files.load import variants
from csp_embed.serving.judge.check import check, check_choices


def random_boxes(seed: int) -> dict[str, Any]:
    """A cluster: a box or two of four GPUs that may be divided, and a small server."""
    draw = random.Random(2000 + seed)
    degrees = draw.choice([[1, 2], [2, 4], [1, 2, 4]])
    rate = draw.randint(10, 40)
    tables = {
        d: [
            round(rate * d**0.9 / k * draw.uniform(0.7, 1.2), 2) + 0.25
            for k in range(1, draw.randint(1, 2) + d // 2 + 1)
        ]
        for d in degrees
    }
    small = draw.choice([None, [float(draw.randint(3, 30)), float(draw.randint(2, 15))]])
    servers: list[dict[str, Any]] = [
        {"name": "box", "gpus": 4 if 4 in degrees or draw.random() < 0.5 else 2,
         "tensor_parallel": degrees, "tokens_per_s_by_layers": tables,
         "links_bytes_per_s": draw.choice([1e9, 160.0 * rate])}
    ]  # fmt: skip
    if small:
        servers.append({"name": "one", "tokens_per_s_by_layers": {1: small}})
    return {
        "format": "csp-embed-cluster/1",
        "name": f"boxes{seed}",
        "model": {"layers": 3, "hidden": 8, "heads": 4, "intermediate": 16},
        "network": {"bytes_per_s": draw.choice([1e9, 80.0 * rate])},
        "servers": servers,
    }


def divisions(gpus: int, degrees: list[int], first: int = 0) -> Iterator[list[tuple[int, int]]]:
    """Ways to divide GPUs first … gpus - 1 into aligned groups (first GPU, degree), or to leave
    some of them alone."""
    if first >= gpus:
        yield []
        return
    for rest in divisions(gpus, degrees, first + 1):
        yield rest
    for d in degrees:
        if first % d == 0 and first + d <= gpus:
            for rest in divisions(gpus, degrees, first + d):
                yield [(first, d), *rest]


def best_boxes(document: dict[str, Any]) -> float:
    """The optimum over all divisions and all placements of each."""
    box = document["servers"][0]
    layers, size = document["model"]["layers"], 2.0 * document["model"]["hidden"]
    best, seen = 0.0, set()
    for groups in divisions(box["gpus"], box["tensor_parallel"]):
        shape = tuple(sorted(d for _, d in groups))
        if shape in seen:  # which GPUs they are makes no difference
            continue
        seen.add(shape)
        tables = {f"x{d}": box["tokens_per_s_by_layers"][d] for d in set(shape)}
        machines = [(f"g{at}", f"x{d}") for at, d in enumerate(shape)]
        for server in document["servers"][1:]:
            tables["one"] = server["tokens_per_s_by_layers"][1]
            machines.append(("one", "one"))
        if not machines:
            continue
        inside, net = box["links_bytes_per_s"], document["network"]["bytes_per_s"]
        made = oracle.cluster(
            layers, tables, machines,
            lambda a, b, inside=inside, net=net: (net if "one" in (a, b) else inside) / size,
        )  # fmt: skip
        ends = made["coordinator"]
        for row in [*ends["to_nodes"], *ends["from_nodes"]]:
            row["tokens_per_s"] = document["network"]["bytes_per_s"] / 4
        best = max(best, float(oracle.best(made)))
    return best


def priced(seed: int) -> dict[str, Any]:
    """A tiny instance with a price for every type."""
    document = oracle.random_document(seed, machines=3, layers=4)
    draw = random.Random(seed)
    price = {t: float(draw.randint(1, 9)) for t in document["node_types"]}
    for node in document["nodes"]:
        node["price_per_hour"] = price[node["type"]]
    return document


def least_cost(document: dict[str, Any], wanted: float) -> float:
    """The cheapest machines that carry `wanted`."""
    price = {n["id"]: n["price_per_hour"] for n in document["nodes"]}
    return min(
        sum(price[m] for m in placed)
        for placed in oracle.placements(document)
        if oracle.carried(document, placed) >= wanted * (1 - 1e-12)
    )


def batches(seed: int) -> dict[str, Any]:
    """Larger batches pass more tokens and leave memory for fewer layers."""
    draw = random.Random(3000 + seed)
    document = routes.random_phases(seed)
    document["workload"]["batch"] = [1, 2, 4]
    document["model"] |= {"layer_weight_bytes": 1000, "kv_bytes_per_token": 20}
    for entry in document["node_types"].values():
        base = entry["decode_tokens_per_s_by_layers"]
        entry["decode_tokens_per_s_by_layers"] = {
            str(b): [round(r * b ** draw.uniform(0.3, 0.9), 2) for r in base] for b in (1, 2, 4)
        }
        entry["memory_bytes"] = 1000 * draw.randint(2, 6)
    return document


def of_batch(document: dict[str, Any], batch: int) -> dict[str, Any]:
    """The same with one batch and no memory left to reckon with."""
    work = document["workload"]
    each = 1000 + batch * (work["prompt_tokens"] + work["output_tokens"]) * 20
    types = {}
    for name, entry in document["node_types"].items():
        fits = min(entry["max_layers"], entry["memory_bytes"] // each)
        types[name] = {
            "max_layers": fits,
            "prefill_tokens_per_s_by_layers": entry["prefill_tokens_per_s_by_layers"],
            "decode_tokens_per_s_by_layers": entry["decode_tokens_per_s_by_layers"][str(batch)],
        }
    return {**document, "node_types": types}


def best_batch(document: dict[str, Any]) -> float:
    return max(routes.most_tokens(of_batch(document, b)) for b in document["workload"]["batch"])


def kinds_in_one_stage(seed: int) -> dict[str, Any]:
    """Two types, each too slow alone for the other's stage."""
    draw = random.Random(4000 + seed)
    tables = {t: [float(draw.randint(5, 60)) for _ in range(draw.randint(1, 3))] for t in "AB"}
    machines = [(f"m{i}", "AB"[i % 2]) for i in range(draw.choice([3, 4]))]
    return oracle.cluster(3, tables, machines, lambda a, b: draw.choice([1e6, 1e6, 20.0]))


def islands(seed: int) -> dict[str, Any]:
    """Two groups of two machines without a link between them, and a coordinator that may bind."""
    draw = random.Random(5000 + seed)
    tables = {t: [float(draw.randint(5, 60)) for _ in range(draw.randint(2, 3))] for t in "AB"}
    machines = [(f"{g}{i}", draw.choice("AB")) for g in "pq" for i in range(2)]
    document = oracle.cluster(3, tables, machines, lambda a, b: 1e6 if a[0] == b[0] else 0.0)
    if draw.random() < 0.5:
        for row in document["coordinator"]["to_nodes"]:
            row["tokens_per_s"] = float(draw.randint(1, 20))
    return document


def case(name: str, seed: int) -> tuple[dict[str, Any], dict[str, Any], float]:
    """(document, options of `serve`, the optimum)."""
    if name in ("plain", "partial"):
        document = oracle.random_document(
            seed, machines=3 + (seed % 4 == 3), layers=4 + seed % 2, partial=name == "partial"
        )
        return document, {}, float(oracle.best(document))
    if name in ("kinds in one stage", "islands and coordinator"):
        document = (kinds_in_one_stage if name[0] == "k" else islands)(seed)
        return document, {}, float(oracle.best(document))
    if name == "mixed degrees":
        document = random_boxes(seed)
        return document, {}, best_boxes(document)
    if name == "price":
        document = next(d for s in itertools.count(seed, 1000) if oracle.best(d := priced(s)) > 0)
        wanted = float(oracle.best(document)) * (1.0, 0.7, 0.4)[seed % 3]
        return document, {"objective": "cost", "min_tokens": wanted}, least_cost(document, wanted)
    if name == "batches and memory":
        document = batches(seed)
        return document, {}, best_batch(document)
    document = routes.random_phases(seed, split="split" in name, limits="limits" in name, layers=3)
    if "latency" in name:
        wanted = 0.5 * routes.most_tokens(document) if seed % 2 else 0.0
        options = {"objective": "latency", "min_tokens": wanted}
        return document, options, routes.least_seconds(document, wanted)
    return document, {}, routes.most_tokens(document)


NAMES = (
    "plain", "partial", "kinds in one stage", "islands and coordinator", "mixed degrees", "price",
    "batches and memory", "phases together", "phases split", "limits", "limits, phases split",
    "latency", "latency, phases split",
)  # fmt: skip


def compared(document: dict[str, Any], options: dict[str, Any], best: float) -> dict[str, bool]:
    """Whether `serve` finds and proves the optimum, claims anything wrong, or writes what the judge
    refuses."""
    near = 1e-6 * max(abs(best), 1e-9) if best < math.inf else 0.0
    try:
        plan = ce.serve(document, **options)
    except Infeasible:
        nothing = best in (0.0, math.inf)
        return {"found": nothing, "infeasible": True, "wrong": not nothing}
    objective = options.get("objective", "tokens")
    if objective == "tokens":
        value, bound = plan.value or 0.0, plan.bound
        wrong = value > best + near or bound < best - near
    else:
        key = {"cost": "cost", "latency": "request_s"}[objective]
        value = plan.more.get(key)
        value, bound = math.inf if value is None else value, plan.more[f"{key}_bound"] or 0.0
        wrong = value < best - near or bound > best + near
    return {
        "found": value == best or abs(value - best) <= near,
        "proved": plan.status == "OPTIMAL",
        "wrong": wrong,
        "refused": plan.value is not None and bool(judged(document, plan)),
    }


def judged(document: dict[str, Any], plan: Any) -> list[Any]:
    """The judge's faults of what would be written to a file."""
    written, found = json.loads(json.dumps(plan.document())), variants(document)
    if len(found) > 1:
        return check_choices([(v.batch or 0, v.instance) for v in found], written)
    return check(found[0].instance, written)
