"""Lower bounds on the latency of a batch whose samples share devices, whatever the shares.

Takes: a graph, a platform, a batch.  Leaves: ms that no plan of the batch is below, and their name.

Shares are of any sizes. Those of one *class* of sizes have in common what a sample costs at least
(its part of a share's cost and of the links' latencies), and the heads and tails of the smallest
share. The program of `period.relaxation` is then about samples that go by a class, and besides
lines it keeps windows:

    h + q + work on one line that begins h after the start and ends q before the end  <=  makespan

Proof. What a line does in such a window it does one at a time, after h and before the last q; where
there is nothing of it, h + q is made no larger than `low`, a bound that is known. All samples'
placements together, a sample's part of each, are fractions that keep the program's rows; costs in
a class are no less than those that the rows count. A plan may also have shares of the classes that
were left out; then it is no less than their path.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction

import numpy as np

from csp_embed.ir.network import Link, Platform, TaskGraph
from csp_embed.partition.arrays.symmetry import trimmed
from csp_embed.partition.arrays.view import (
    Floats,
    Problem,
    in_unit,
    make_problem,
    normalised,
    number,
)
from csp_embed.partition.bounds.latency_period import path_bounds
from csp_embed.partition.methods.period.period_loads import Loads, load_arrays
from csp_embed.partition.methods.period.relaxation import (
    Hops,
    Relaxed,
    Way,
    Window,
    hop_times,
    relax,
)
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.several.copies import cheapest, load
from csp_embed.partition.times.exact import Exact

OWN = NUMBERS.batch_shares
ROUNDING = 1 - Fraction(1, 10**9)


def bound(
    graph: TaskGraph, platform: Platform, fix: dict[str, str], batch: int, value: Fraction
) -> tuple[Fraction, str]:
    """(ms, its name). value: of a plan, above which no bound is of use.

    path: every share runs every task, in no less than its least time over all shares.
    load: a share's cost is no less than its samples times the least cost per sample, so the busiest
    device works at least batch times the fractional load of a sample.
    load and transfers: likewise for links, where a share pays the latency of a hop once, so that a
    sample's part of it is at least 1/batch; all samples' placements together are a mixture, whose
    period times the batch nothing beats.
    samples in windows: see the module's text."""
    shares = range(1, batch + 1)
    few = trimmed(graph, platform, fix.values())
    single = replace(graph, tasks=tuple(cheapest(t, platform, shares, False) for t in graph.tasks))
    each = replace(graph, tasks=tuple(cheapest(t, platform, shares, True) for t in graph.tasks))
    path = Exact.of(normalised(make_problem(single, few, fix))).critical_path()
    # Costs per sample are rounded to doubles in `cheapest`; ROUNDING gives that back.
    found = [(path, "critical path"), (load(each, few, fix) * batch * ROUNDING, "load")]
    p = normalised(make_problem(each, light(few, batch), fix))
    if p.contended() and len(p.use) * p.m * p.m <= NUMBERS.relaxed.places:
        relaxed = relax(load_arrays(p))
        if relaxed is not None:
            low = number(relaxed.bound) * p.unit * batch * ROUNDING
            found.append((low, "load and transfers"))
    low = max(found)[0]
    if batch > 1 and len(p.use) * p.m * p.m <= NUMBERS.relaxed.places:
        found.append((windowed(graph, few, fix, batch, low, value, p.unit), "samples in windows"))
    return max(found)


def light(platform: Platform, samples: int) -> Platform:
    """The platform with a sample's part of the latencies in a share of so many."""

    def own(link: Link) -> Link:
        # A makespan does not know what devices do for values.
        return replace(link, latency_ms=link.latency_ms / samples, handling=None)

    return replace(platform, links=tuple(own(link) for link in platform.links))


@dataclass(frozen=True)
class Class:
    """Sizes from `least` to `most`. each: a problem of one sample's part; hops: ms of a sample's
    part of its values. heads, tails [n, m], before, after: ms around tasks and around hops, by
    (way, line). path: ms that a plan with such a share takes at least."""

    each: Problem
    hops: Hops
    heads: Floats
    tails: Floats
    before: dict[tuple[Way, int], float]
    after: dict[tuple[Way, int], float]
    path: float


def class_of(
    graph: TaskGraph, platform: Platform, fix: dict[str, str], sizes: range, unit: Fraction
) -> Class:
    """What shares of these sizes have in common."""
    problems, parts = [], []
    for by_sample in (False, True):
        tasks = tuple(cheapest(t, platform, sizes, by_sample) for t in graph.tasks)
        # Times around are those of the smallest share, parts of latencies those of the largest.
        scale = 1 if by_sample else sizes[0]
        edges = tuple(replace(e, bytes=e.bytes * scale) for e in graph.edges)
        machine = light(platform, sizes[-1] if by_sample else 1)
        made = make_problem(replace(graph, tasks=tasks, edges=edges), machine, fix)
        problems.append(in_unit(made, unit))
    whole, each = problems
    hops = hop_times(load_arrays(each))
    # Larger values may take other ways: then nothing is said of how.
    for size in {sizes[0], sizes[-1]}:
        tasks = each.graph.tasks
        edges = tuple(replace(e, bytes=e.bytes * size) for e in graph.edges)
        made = in_unit(make_problem(replace(graph, tasks=tasks, edges=edges), light(platform, 1), fix), unit)
        parts.append(made)
    for way in list(hops):
        v, a, b = way
        lines = [[int(q.m + q.hop_res[h]) for h in q.hops(a, b, v)] for q in (each, *parts)]
        if any(x != lines[0] for x in lines):
            hops[way] = []
    heads, tails = path_bounds(whole)
    before, after = {}, {}
    for (v, a, b), route in hops.items():
        u = int(whole.value_src[v])
        times = [
            float(whole.hop_lat[h] + whole.value_bytes[v] * whole.hop_inv[h])
            for h in whole.hops(a, b, v)
        ]
        start = heads[u, a] + whole.cost[u, a]
        ends = [whole.cost[t, b] + tails[t, b] for t in whole.consumers(v) if whole.group[t] != whole.group[u]]
        for i, (line, _) in enumerate(route):
            before[(v, a, b), line] = float(start + sum(times[:i]))
            after[(v, a, b), line] = float(min(ends) + sum(times[i + 1 :]))
    path = float((heads + whole.cost + tails).min(axis=1).max())
    return Class(each, hops, heads, tails, before, after, path)


def windowed(
    graph: TaskGraph, platform: Platform, fix: dict[str, str], batch: int, low: Fraction,
    value: Fraction, unit: Fraction, cuts: Sequence[int] = (1, 2, 3, 4, 6, 8, 12), levels: int = 4,
) -> Fraction:  # fmt: skip
    """low: ms, a bound that is known; 0 where nothing more is found."""
    cuts = [c for c in cuts if c < batch] + [batch]
    classes: list[Class] = []
    rest = np.inf
    least = 1
    top = float(value / unit)
    for most in cuts:
        own = class_of(graph, platform, fix, range(least, most + 1), unit)
        least = most + 1
        if own.path >= top:
            rest = own.path
            break
        classes.append(own)
    base = float(low / unit)
    found = together(classes, batch, base, levels)
    if found is None:
        return Fraction(0)
    return min(number(found.bound) * unit * batch, number(min(rest, 1e300)) * unit) * ROUNDING


def together(classes: list[Class], batch: int, low: float, levels: int) -> Relaxed | None:
    """The program over samples of all these classes, each with devices of its own by name: lines
    are common."""
    first = load_arrays(classes[0].each)
    m, lines = classes[0].each.m, first.lines - 1
    count = len(classes) * m
    broken = [(count + lines - m, 1.0)]
    hops: Hops = {}
    for v in {way[0] for c in classes for way in c.hops}:
        for a in range(count):
            for b in range(count):
                if a // m != b // m:
                    hops[v, a, b] = broken
                elif a != b and (v, a % m, b % m) in classes[a // m].hops:
                    hops[v, a, b] = classes[a // m].hops[v, a % m, b % m]
    cost = np.concatenate([load_arrays(c.each).cost for c in classes], axis=1)
    q = first._replace(
        cost=cost, memory=np.full(count, np.inf), lines=count + lines - m + 1
    )
    rows: list[Window] = []
    for line in range(lines):
        rows += line_windows(classes, line, batch, low, levels)
    return relax(q, hops, rows)


def line_windows(
    classes: list[Class], line: int, batch: int, low: float, levels: int
) -> list[Window]:
    m = classes[0].each.m
    groups, devices, costs, ways = [], [], [], []
    h1, t1, h2, t2 = [], [], [], []
    for number_, c in enumerate(classes):
        p = c.each
        if line < m:
            mine = np.flatnonzero(np.isfinite(p.cost[:, line]))
            groups.append(p.group[mine])
            devices.append(np.full(len(mine), number_ * m + line))
            costs.append(p.cost[mine, line])
            h1.append(c.heads[mine, line])
            t1.append(c.tails[mine, line])
        for (v, a, b), route in c.hops.items():
            for r, ms in route:
                if r == line:
                    ways.append(((v, number_ * m + a, number_ * m + b), ms))
                    h2.append(c.before[(v, a, b), r])
                    t2.append(c.after[(v, a, b), r])
    none = np.zeros(0, np.int64)
    g, d, cost = (np.concatenate(x) if x else none for x in (groups, devices, costs))
    heads = np.concatenate([*h1, np.array(h2)])
    tails = np.concatenate([*t1, np.array(t2)])
    if not len(heads):
        return []
    seen: set[bytes] = set()
    out = []
    k = len(g)
    for h in [0.0, *_levels(heads, levels)]:
        for t in [0.0, *_levels(tails, levels)]:
            inside = (heads >= h) & (tails >= t)
            if not inside.any() or inside.tobytes() in seen:
                continue
            seen.add(inside.tobytes())
            around = min(float(heads[inside].min() + tails[inside].min()), low) if h or t else 0.0
            here = np.flatnonzero(inside[:k])
            sent = [ways[i] for i in np.flatnonzero(inside[k:])]
            out.append(Window(g[here], d[here], cost[here], sent, around / batch))
    return out


def _levels(values: Floats, count: int) -> Floats:
    return np.unique(np.quantile(values, np.linspace(0, 1, count), method="lower"))
