"""Routes of tiny instances by trying everything: all placements, all pairs of pipelines, and a
linear program over them (a plain simplex on a tableau). Only the document is used, nothing of
csp_embed."""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import numpy as np
import serving_oracle as oracle


def simplex(gain: np.ndarray, a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """max gain x, a x <= b, x >= 0 with b >= 0, by Bland's rule: (value, x)."""
    m, n = a.shape
    table = np.hstack([a, np.eye(m), b[:, None]])
    row = np.concatenate([-gain, np.zeros(m + 1)])
    basis = list(range(n, n + m))
    while True:
        enter = next((j for j in range(n + m) if row[j] < -1e-10), None)
        if enter is None:
            break
        ratios = [(table[i, -1] / table[i, enter], basis[i], i)
                  for i in range(m) if table[i, enter] > 1e-11]  # fmt: skip
        _, _, leave = min(ratios)
        table[leave] /= table[leave, enter]
        for i in range(m):
            if i != leave:
                table[i] -= table[i, enter] * table[leave]
        row = row - row[enter] * table[leave]
        basis[leave] = enter
    x = np.zeros(n + m)
    x[basis] = table[:, -1]
    return float(row[-1]), x[:n]


def random_phases(
    seed: int, split: bool = False, limits: bool = False, machines: int = 3, layers: int = 0
) -> dict[str, Any]:
    """A tiny instance with tables of two phases; types are good at different ones."""
    draw = random.Random(1000 + seed)
    document = oracle.random_document(seed, machines=machines, layers=layers or 3 + seed % 2)
    for entry in document["node_types"].values():
        del entry["tokens_per_s_by_layers"]
        lean = draw.choice([0.3, 1.0, 3.0])
        rate = draw.randint(20, 100)
        for name, base in (("prefill", rate * lean), ("decode", rate / lean)):
            entry[f"{name}_tokens_per_s_by_layers"] = [
                round(base / k * draw.uniform(0.7, 1.2), 2) + 0.5
                for k in range(1, entry["max_layers"] + 1)
            ]
    document["model"] |= {"activation_bytes_per_token": 100, "kv_bytes_per_token": 20}
    for row in document["links"]:
        row["latency_s"] = draw.choice([0.0, 0.01, 0.3])
    document["workload"] = {
        "prompt_tokens": draw.choice([2, 10]), "output_tokens": draw.choice([2, 6]),
        "split_phases": split,
    }  # fmt: skip
    if limits:
        document["limits"] = {
            "first_token_s": draw.choice([0.5, 1.0, 2.0]), "token_s": draw.choice([0.1, 0.3, 0.6])
        }  # fmt: skip
    return document


class Tiny:
    """What a document says, as plain dictionaries."""

    def __init__(self, document: dict[str, Any]) -> None:
        self.document = document
        work = document.get("workload", {})
        self.p = work.get("prompt_tokens", 750)
        self.o = work.get("output_tokens", 240)
        self.split = work.get("split_phases", False)
        limits = document.get("limits", {})
        self.first_s = limits.get("first_token_s", np.inf)
        self.token_s = limits.get("token_s", np.inf)
        self.layers = document["model"]["layers"]
        self.kind = {n["id"]: document["node_types"][n["type"]] for n in document["nodes"]}
        self.link = {(r["from"], r["to"]): r for r in document["links"]}
        ends = document["coordinator"]
        self.start = {r["to"]: r for r in ends["to_nodes"]}
        self.end = {r["from"]: r for r in ends["from_nodes"]}
        model = document["model"]
        self.cache = model.get("kv_bytes_per_token", 0) / model.get("activation_bytes_per_token", 1)

    def rate(self, m: str, k: int, phase: str) -> float:
        kind = self.kind[m]
        if "tokens_per_s_by_layers" in kind:
            return kind["tokens_per_s_by_layers"][k - 1]
        return kind[f"{phase}_tokens_per_s_by_layers"][k - 1]

    def pipelines(self, placed: dict[str, tuple[int, int]]) -> list[list[str]]:
        partial = self.document.get("partial_inference", False)
        found: list[list[str]] = []

        def grow(path: list[str]) -> None:
            end = placed[path[-1]][1] + 1
            if end == self.layers:
                if path[-1] in self.end:
                    found.append(path)
                return
            for m, (a, b) in placed.items():
                goes_on = a <= end <= b if partial else a == end
                if goes_on and (path[-1], m) in self.link:
                    grow([*path, m])

        for m, (a, _) in placed.items():
            if a == 0 and m in self.start:
                grow([m])
        return found

    def hops(self, path: list[str]) -> list[tuple[Any, dict[str, Any]]]:
        rows = [(("start", path[0]), self.start[path[0]])]
        rows += [((a, b), self.link[a, b]) for a, b in pairwise(path)]
        return [*rows, (("end", path[-1]), self.end[path[-1]])]

    def holder(self, path: list[str], placed: dict[str, tuple[int, int]], layer: int) -> str:
        done = 0
        for m in path:
            if done <= layer <= placed[m][1]:
                return m
            done = placed[m][1] + 1
        raise AssertionError

    def pair(
        self, one: list[str], two: list[str], placed: dict[str, tuple[int, int]]
    ) -> tuple[dict[Any, float], float] | None:
        """(what a request per second uses, seconds of a request); None where not allowed."""
        use: dict[Any, float] = {}
        times = {"prefill": 0.0, "decode": 0.0}
        for path, phase, tokens, alone in (
            (one, "prefill", self.p, self.p), (two, "decode", self.o, 1)
        ):  # fmt: skip
            for m in path:
                rate = self.rate(m, placed[m][1] - placed[m][0] + 1, phase)
                use[m] = use.get(m, 0.0) + tokens / rate
                times[phase] += alone / rate
            for key, row in self.hops(path):
                use[key] = use.get(key, 0.0) + tokens
                times[phase] += row.get("latency_s", 0.0) + alone / row["tokens_per_s"]
        moved, before = 0.0, None
        for layer in range(self.layers):
            ends = self.holder(one, placed, layer), self.holder(two, placed, layer)
            if ends[0] != ends[1]:
                if ends not in self.link or not self.split:
                    return None
                use[ends] = use.get(ends, 0.0) + self.p * self.cache
                moved += self.p * self.cache / self.link[ends]["tokens_per_s"]
                if ends != before:
                    moved += self.link[ends].get("latency_s", 0.0)
            before = ends
        if not self.split and one != two:
            return None
        if times["prefill"] > self.first_s or times["decode"] > self.token_s:
            return None
        return use, times["prefill"] + moved + max(0, self.o - 1) * times["decode"]

    def capacity(self, key: Any) -> float:
        if isinstance(key, str):
            return 1.0
        if key[0] == "start":
            return self.start[key[1]]["tokens_per_s"]
        return (self.end[key[1]] if key[0] == "end" else self.link[key])["tokens_per_s"]

    def pairs(self, placed: dict[str, tuple[int, int]]) -> list[tuple[dict[Any, float], float]]:
        paths = self.pipelines(placed)
        found = [self.pair(a, b, placed) for a in paths for b in paths]
        return [x for x in found if x is not None]

    def most(self, placed: dict[str, tuple[int, int]]) -> float:
        """Tokens/s."""
        rows = self.pairs(placed)
        if not rows:
            return 0.0
        value, _ = simplex(np.ones(len(rows)), *self.program(rows))
        return value * (self.p + self.o)

    def program(self, rows: list[tuple[dict[Any, float], float]]) -> tuple[np.ndarray, np.ndarray]:
        keys = sorted({k for use, _ in rows for k in use}, key=str)
        a = np.array([[use.get(k, 0.0) / self.capacity(k) for use, _ in rows] for k in keys])
        return a, np.ones(len(keys))

    def shortest(self, placed: dict[str, tuple[int, int]], wanted: float) -> float:
        """Mean seconds of a request at so many tokens/s; inf where they are not carried."""
        rows = self.pairs(placed)
        if not rows:
            return np.inf
        seconds = np.array([s for _, s in rows])
        if not wanted:
            return float(seconds.min())
        total = wanted / (self.p + self.o)
        a, b = self.program(rows)
        # Being served is worth more than any time, so as many are served as can be.
        gain = 1e3 * seconds.max() - seconds
        _, x = simplex(gain, np.vstack([a, np.ones(len(rows))]), np.append(b, total))
        if x.sum() < total * (1 - 1e-9):
            return np.inf
        return float(seconds @ x) / total


def most_tokens(document: dict[str, Any]) -> float:
    """The optimum over all placements."""
    tiny = Tiny(document)
    return max((tiny.most(p) for p in oracle.placements(document)), default=0.0)


def least_seconds(document: dict[str, Any], wanted: float = 0.0) -> float:
    """The shortest mean request over all placements; inf where none carries enough."""
    tiny = Tiny(document)
    return min((tiny.shortest(p, wanted) for p in oracle.placements(document)), default=np.inf)
