"""Time that values take of the devices at both ends of a link: against brute force by hand."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from partition_cases import random_graph

from csp_embed.errors import InputError
from csp_embed.ir.network import Device, Handling, Link, Platform, TaskGraph
from csp_embed.judge.plan.judge import check_plan
from csp_embed.network.files.graph import platform_document
from csp_embed.network.files.platform import platform_from
from csp_embed.partition.arrays.view import make_problem, normalised
from csp_embed.partition.methods.period.period_loads import load_arrays
from csp_embed.partition.methods.period.relaxation import relax
from csp_embed.partition.solve import solve
from csp_embed.partition.times.timetable import loads


def platform(seed: int, duplex: str | None) -> Platform:
    """Three devices in a row: p0 and p2 talk by p1, which handles what it only passes on."""
    rng = np.random.default_rng(seed)

    def end() -> Handling:
        rate = None if rng.random() < 0.3 else float(rng.integers(2, 9))
        return Handling(float(rng.integers(0, 4)), rate)

    links = tuple(
        Link(ends, 4.0, 1.0, duplex, handling=(end(), end()))
        for ends in (("p0", "p1"), ("p2", "p1"))
    )
    return Platform(tuple(Device(f"p{i}", "cpu") for i in range(3)), links)


def least_period(graph: TaskGraph, p: Platform) -> Fraction:
    """By every placement, from the files' numbers alone."""
    names = [d.name for d in p.devices]
    ids = [t.id for t in graph.tasks]
    best: Fraction | None = None
    for chosen in itertools.product(names, repeat=len(ids)):
        at = dict(zip(ids, chosen, strict=True))
        load: dict[str, Fraction] = dict.fromkeys(names, Fraction(0))
        for t in graph.tasks:
            load[at[t.id]] += Fraction(str(t.cost_on(p.by_name()[at[t.id]])))
        for src, _, size, readers in graph.values():
            for there in {at[r] for r in readers} - {at[src]}:
                way = [at[src], there]
                if "p1" not in way:
                    way.insert(1, "p1")
                for a, b in itertools.pairwise(way):
                    link = next(k for k in p.links if set(k.between) == {a, b})
                    for x in (a, b):
                        own = link.handling[link.between.index(x)]  # type: ignore[index]
                        load[x] += Fraction(own.ms)
                        if own.bytes_per_ms:
                            load[x] += Fraction(size) / Fraction(own.bytes_per_ms)
                    if link.duplex:
                        line = f"{link.name}:{a}>{b}"
                        load[line] = load.get(line, Fraction(0)) + 1 + Fraction(size) / 4
        top = max(load.values())
        best = top if best is None else min(best, top)
    assert best is not None
    return best


@pytest.mark.parametrize("duplex", [None, "full"])
@pytest.mark.parametrize("method", ["auto", "milp", "exact"])
def test_periods_are_those_of_brute_force(method: str, duplex: str | None) -> None:
    gained = 0
    for seed in range(4):
        graph, p = random_graph(6, 3, seed), platform(seed, duplex)
        found = solve(graph, p, objective="throughput", method=method)
        assert found.objective is not None
        value = Fraction(found.objective)
        assert float(value) == pytest.approx(float(least_period(graph, p)), rel=1e-12)
        assert found.lower_bound <= value
        assert check_plan(graph, p, found) == []
        # The same plan without that time is another one's: the judge counts it by itself.
        plain = replace(p, links=tuple(replace(k, handling=None) for k in p.links))
        if found.transfers:
            gained += bool(check_plan(graph, plain, found))
        # A mixture of placements may be better than each, but not than the relaxation.
        relaxed = relax(load_arrays(make_problem(graph, p)))
        assert relaxed is None or relaxed.bound <= float(value) * (1 + 1e-9)
    assert gained


def test_loads_of_arrays_and_names_agree() -> None:
    graph, p = random_graph(30, 3, 1, integer=False), platform(5, "full")
    problem = normalised(make_problem(graph, p))
    dev = np.random.default_rng(0).integers(0, 3, problem.n)
    from csp_embed.partition.mixture.pricing import loads_of

    by_name = loads(problem, dev)
    names = [d.name for d in p.devices] + problem.resources
    found = loads_of(load_arrays(problem), dev[np.argsort(problem.group)])
    assert [by_name.get(n, 0.0) for n in names] == pytest.approx(found[:-1].tolist())


def test_a_makespan_does_not_know_it() -> None:
    graph, p = random_graph(6, 3, 2), platform(2, "full")
    plain = replace(p, links=tuple(replace(k, handling=None) for k in p.links))
    assert solve(graph, p).objective == solve(graph, plain).objective


def test_files_keep_it(tmp_path: Path) -> None:
    p = platform(3, "full")
    again = platform_from(platform_document(p), tmp_path / "p.json")
    assert [k.handling for k in again.links] == [k.handling for k in p.links]


def test_negative_times_are_refused() -> None:
    p = platform(3, "full")
    bad = replace(p.links[0], handling=(Handling(-1.0), Handling()))
    with pytest.raises(InputError, match=r"handling -1\.0 ms"):
        replace(p, links=(bad,)).verify()


def test_handling_of_one_end_only_is_told() -> None:
    document = platform_document(platform(3, None))
    document["links"][1]["handling"].pop()
    with pytest.raises(InputError, match=r"entry \[1\] is missing\n.*links\[1\]\.handling"):
        platform_from(document, "p.json")
