"""The numbers of `csp_embed/partition/portfolio.json`: other values tried, the shipped ones scored.

    scripts/tune score [SEED …] [--write]      the shipped numbers on the held-out graphs
    scripts/tune try GROUP.NAME=VALUE … [--write]   single values, each on the training graphs

Both sets of graphs are stated in the file (`graphs`: a product of families, tasks, CCR, duplex and
seeds; no seed is in both). A score is a geometric mean over the graphs of a set: of the makespan
over HEFT's, of the period over its lower bound; smaller is better. Held-out graphs are scored seed
by seed: a row of each in the file, so that a part can be done again. Runs are deterministic, at the
set's effort. `try` prints the shipped value's score first; --write puts the value with the best
product of both scores into the file, and its score on the training graphs beside it; after that,
`score --write` is due. Values are JSON; several of one number are tried apart.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import subprocess
import sys
from dataclasses import replace
from typing import Any

from csp_embed.files import atomic
from csp_embed.ir.network import LATENCY, THROUGHPUT, Platform, TaskGraph
from csp_embed.partition import portfolio

Told = dict[str, Any]


def graphs(told: Told) -> list[tuple[TaskGraph, Platform]]:
    """The graphs of a set."""
    # Imports the methods, which take their numbers along: not before `child` has set them.
    from bench_random import make

    found = []
    for family, n, ccr, duplex, seed in itertools.product(
        told["families"], told["tasks"], told["ccr"], told["duplex"], told["seeds"]
    ):
        graph, machines = make(family, n, ccr, seed, seed % 2 == 0)
        if duplex is not None:
            links = tuple(replace(link, duplex=duplex) for link in machines.links)
            machines = replace(machines, links=links)
        found.append((graph, machines))
    return found


def measured(told: Told) -> dict[str, float]:
    """Both scores of the numbers that this process has."""
    from csp_embed.partition.solve import solve

    over: dict[str, list[float]] = {LATENCY: [], THROUGHPUT: []}
    for graph, machines in graphs(told):
        plan = solve(graph, machines, effort=told["effort"])
        heft = solve(graph, machines, method="heft")
        over[LATENCY].append((plan.objective or 0.0) / (heft.objective or 1.0))
        plan = solve(graph, machines, objective=THROUGHPUT, effort=told["effort"])
        over[THROUGHPUT].append((plan.objective or 0.0) / plan.lower_bound)
        print(
            f"{graph.name}: latency {over[LATENCY][-1]:.4f}, period {over[THROUGHPUT][-1]:.4f}",
            file=sys.stderr, flush=True,
        )  # fmt: skip
    return {
        name: round(math.exp(sum(map(math.log, rows)) / len(rows)), 6)
        for name, rows in over.items()
    }


def apart(told: Told, of: Told) -> dict[str, float]:
    """`measured` on the set `of` under another portfolio, in a process of its own: modules read
    their numbers once, when they are imported."""
    done = subprocess.run(
        [sys.executable, __file__, "child"],
        input=json.dumps([told, of]), capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise SystemExit(f"a run with other numbers failed:\n{done.stderr}")
    scores: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return scores


def child() -> None:
    """The other end of `apart`."""
    told, of = json.load(sys.stdin)
    portfolio.PORTFOLIO = portfolio.read(json.dumps(told))
    portfolio.NUMBERS = portfolio.PORTFOLIO.numbers
    scores = measured(of)
    from csp_embed.partition.methods import splitting

    assert portfolio.NUMBERS.split == splitting.OWN, (
        "methods were imported with the shipped numbers"
    )
    print(json.dumps(scores))


def entry(told: Told, name: str) -> Told:
    """The entry of GROUP.NAME."""
    group, _, field = name.partition(".")
    try:
        found: Told = told["numbers"][group][field]
    except KeyError:
        known = ", ".join(told["numbers"].get(group) or told["numbers"])
        raise SystemExit(f"no number {name!r}; there are {known}") from None
    return found


def best_of(told: Told, name: str, values: list[Any]) -> tuple[Any, dict[str, float]]:
    """The shipped value or the one of `values` that beats it by most, and its scores."""
    of = told["graphs"]["training"]
    shipped = entry(told, name)["value"]
    rows: list[tuple[float, int, Any, dict[str, float]]] = []
    for number, value in enumerate([shipped, *values]):
        other = json.loads(json.dumps(told))
        entry(other, name)["value"] = value
        scores = apart(other, of)
        rows.append((scores[LATENCY] * scores[THROUGHPUT], number, value, scores))
        print(
            f"{name} = {json.dumps(value)}: latency {scores[LATENCY]:.6f} of HEFT,"
            f" period {scores[THROUGHPUT]:.6f} of its bound",
            flush=True,
        )
    _, _, value, scores = min(rows)
    return value, scores


def written(told: Told) -> str:
    """The file's text: a line for each step, number and set of graphs."""
    lines = ["{"]
    parts = []
    for key, part in told.items():
        groups = []
        for name, rows in part.items():
            if not isinstance(rows, dict) or key in ("graphs", "scores"):
                groups.append(f"    {json.dumps(name)}: {json.dumps(rows)}")
                continue
            inner = []
            for field, value in rows.items():
                if isinstance(value, list) and len(value) > 1:
                    steps = ",\n".join(f"        {json.dumps(step)}" for step in value)
                    inner.append(f"      {json.dumps(field)}: [\n{steps}\n      ]")
                else:
                    inner.append(f"      {json.dumps(field)}: {json.dumps(value)}")
            groups.append(f"    {json.dumps(name)}: {{\n" + ",\n".join(inner) + "\n    }")
        parts.append(f"  {json.dumps(key)}: {{\n" + ",\n".join(groups) + "\n  }")
    return "\n".join([*lines, ",\n".join(parts), "}"]) + "\n"


def main() -> None:
    """See the module's docstring."""
    if sys.argv[1:] == ["child"]:
        child()
        return
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("what", choices=("score", "try"))
    parser.add_argument("values", nargs="*", metavar="GROUP.NAME=VALUE or SEED")
    parser.add_argument("--write", action="store_true")
    asked = parser.parse_args()
    told: Told = json.loads(portfolio.FILE.read_text(encoding="utf-8"))
    if asked.what == "score":
        for seed in map(int, asked.values or told["graphs"]["held out"]["seeds"]):
            scores = measured({**told["graphs"]["held out"], "seeds": [seed]})
            told["scores"]["held out"][str(seed)] = scores
            print(
                f"seed {seed}: latency {scores[LATENCY]:.6f} of HEFT,"
                f" period {scores[THROUGHPUT]:.6f} of its bound",
                flush=True,
            )
        asked.values = []
    tried: dict[str, list[Any]] = {}
    for text in asked.values:
        name, _, value = text.partition("=")
        tried.setdefault(name, []).append(json.loads(value))
    for name, values in tried.items():
        entry(told, name)["value"], told["scores"]["training"] = best_of(told, name, values)
    if asked.write:
        with atomic(portfolio.FILE) as out:
            out.write(written(told))


if __name__ == "__main__":
    main()
