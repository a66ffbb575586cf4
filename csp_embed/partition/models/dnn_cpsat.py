"""CP-SAT models of the dnn-partitioning cost model (see `dnn`).

Takes: a Dnn.  Leaves: a `Built` with the placement variables and the objective posted.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from csp_embed.partition.arrays.view import Floats, Ints
from csp_embed.partition.models.dnn import Dnn
from csp_embed.partition.models.scale import Scale, whole_sizes
from csp_embed.solver import cpsat


@dataclass
class Built:
    """cp: the model. x[g][d]. finish [n], begin [m]: latency only."""

    cp: Any
    scale: Scale
    x: list[dict[int, Any]]
    goal: Any
    finish: list[Any] = field(default_factory=list)
    begin: dict[int, Any] = field(default_factory=dict)

    def hint(self, dnn: Dnn, dev: Ints) -> None:
        """A placement to start from."""
        for g, members in enumerate(dnn.p.groups()):
            for d, x in self.x[g].items():
                self.cp.add_hint(x, int(dev[members[0]] == d))

    def placement(self, dnn: Dnn, value: Any) -> Ints:
        """Device of each task in a solution."""
        dev = np.zeros(dnn.p.n, np.int64)
        # A group has exactly one device, so the first that is 1 is it.
        for g, members in enumerate(dnn.p.groups()):
            dev[members] = next(d for d, x in self.x[g].items() if value(x))
        return dev


def build(
    dnn: Dnn,
    latency: bool,
    contiguous: bool,
    pipeline: bool,
    horizon: float,
    symmetry: bool = True,
) -> Built:
    """The whole model: placement, tolls, memory, symmetry, shape, and period or makespan."""
    p, cp = dnn.p, cpsat.new_model()
    # What takes longer than the horizon cannot happen; ticks need not be coarse for its sake.
    cost = np.where(np.isfinite(p.cost), np.minimum(p.cost, horizon), 0.0)
    most = float(cost.sum(axis=0).max(initial=0.0) + 2 * np.minimum(dnn.toll, horizon).sum())
    scale = Scale(dnn.tick, horizon, p.n + 2 * p.m if latency else 0, most, p.unit)
    # One more, so that the value to beat is itself a solution.
    limit = scale.up(horizon) + 1
    members = p.groups()
    x = [{d: cp.new_bool_var("") for d in p.allowed(ts[0])} for ts in members]
    for row in x:
        cp.add_exactly_one(row.values())
    terms: dict[int, list[Any]] = {d: [] for d in range(p.m)}
    for t in range(p.n):
        for d, on in x[p.group[t]].items():
            terms[d].append(min(scale.whole(dnn.exact_cost(t, d)), limit + 1) * on)
    enters = _tolls(dnn, cp, scale, x, terms, latency, limit)
    for d in range(p.m):
        if math.isfinite(p.memory[d]):
            # Rounded down alike, so that nothing that fits is excluded.
            sizes, room = whole_sizes([float(p.weight[ts].sum()) for ts in members], p.memory[d])
            cp.add(sum(sizes[g] * x[g][d] for g in range(len(members)) if d in x[g]) <= room)
    if symmetry:
        _symmetry(dnn, cp, x)
    goal = cp.new_int_var(0, limit, "goal")
    built = Built(cp, scale, x, goal)
    if latency:
        _times(dnn, built, terms, enters, limit)
        # For latency each accelerator runs one subgraph, forward and backward tasks together.
        _convex(dnn, cp, x, [d for d in range(p.m) if dnn.accelerator[d]], False)
    else:
        for d in range(p.m):
            cp.add(sum(terms[d]) <= goal)
        if contiguous or pipeline:
            _convex(dnn, cp, x, list(range(p.m)), True)
    if pipeline:
        _ordered(dnn, cp, x)
    cp.minimize(goal)
    return built


def _tolls(
    dnn: Dnn,
    cp: Any,
    scale: Scale,
    x: list[dict[int, Any]],
    terms: dict[int, list[Any]],
    all_: bool,
    limit: int,
) -> dict[tuple[int, int], Any]:
    """Tolls in and out of accelerators. Returns enters[u, d]: d reads u's output, u elsewhere."""
    p = dnn.p
    enters: dict[tuple[int, int], Any] = {}
    for v, u in enumerate(p.value_src):
        u = int(u)
        mine = x[p.group[u]]
        # Readers by group: those of the maker's own group never cross.
        others = sorted({int(p.group[t]) for t in p.consumers(v)} - {int(p.group[u])})
        # As for costs, a toll above the horizon is as good as one just above it.
        toll = min(scale.whole(dnn.exact_toll(v)), limit + 1)
        # Latency needs to know who waits for whom even where it costs nothing.
        if not others or not (toll or all_):
            continue
        for d in range(p.m):
            if not dnn.accelerator[d]:
                continue
            comes, leaves = cp.new_bool_var(""), cp.new_bool_var("")
            for g in others:
                here, there = mine.get(d), x[g].get(d)
                if here is not None:
                    # Without a variable the reader can never be on d: the toll is then due whenever
                    # the maker is.
                    keep = [there] if there is not None else []
                    cp.add_bool_or([here.negated(), leaves, *keep])
                if there is not None:
                    keep = [here] if here is not None else []
                    cp.add_bool_or([there.negated(), comes, *keep])
            enters[u, d] = comes
            if toll:
                terms[d] += [toll * comes, toll * leaves]
    return enters


def _symmetry(dnn: Dnn, cp: Any, x: list[dict[int, Any]]) -> None:
    """Equal accelerators are first used in order of their numbers, over groups in order."""
    p = dnn.p
    # Devices are alike if swapping them changes no cost, memory or toll.
    for kind in (0, 1):
        classes: list[list[int]] = []
        for d in (d for d in range(p.m) if dnn.accelerator[d] == kind):
            for c in classes:
                if p.memory[c[0]] == p.memory[d] and np.array_equal(p.cost[:, c[0]], p.cost[:, d]):
                    c.append(d)
                    break
            else:
                classes.append([d])
        for c in classes:
            for one, two in itertools.pairwise(c):
                seen: Any = None
                for row in x:
                    if two in row:
                        # Without an earlier user of `one`, `two` stays empty.
                        cp.add_bool_or([row[two].negated(), *([seen] if seen is not None else [])])
                    if one in row:
                        now = cp.new_bool_var("")
                        cp.add_bool_or(
                            [now.negated(), row[one], *([seen] if seen is not None else [])]
                        )
                        seen = now


def _convex(dnn: Dnn, cp: Any, x: list[dict[int, Any]], devices: list[int], parts: bool) -> None:
    """Convex sets; with `parts` the forward and the backward tasks each."""
    p = dnn.p
    labels = dnn.backward if parts else np.zeros(p.n, np.int64)
    # Forward and backward tasks of one device need not be convex together.
    for label in sorted(set(labels.tolist())):
        inside = [t for t in range(p.n) if labels[t] == label]
        edges = [(u, t) for u, t, _ in p.edges() if labels[u] == label and labels[t] == label]
        for d in devices:
            # As in `cpsat.shape`: what lies between two tasks of d is on d.
            above = {t: cp.new_bool_var("") for t in inside}
            below = {t: cp.new_bool_var("") for t in inside}
            for t in inside:
                on = x[p.group[t]].get(d)
                keep = [] if on is None else [on]
                if on is not None:
                    cp.add_implication(on, above[t])
                    cp.add_implication(on, below[t])
                cp.add_bool_or([above[t].negated(), below[t].negated(), *keep])
            for u, t in edges:
                cp.add_implication(above[u], above[t])
                cp.add_implication(below[t], below[u])


def _ordered(dnn: Dnn, cp: Any, x: list[dict[int, Any]]) -> None:
    """No ring of devices within the forward or the backward part."""
    p = dnn.p
    for label in sorted(set(dnn.backward.tolist())):
        turn = [cp.new_int_var(0, p.m - 1, "") for _ in range(p.m)]
        before: dict[tuple[int, int], Any] = {}
        for u, t, _ in p.edges():
            # Edges from one part to the other do not count.
            if dnn.backward[u] != label or dnn.backward[t] != label:
                continue
            for a, xa in x[p.group[u]].items():
                for b, xb in x[p.group[t]].items():
                    if a == b:
                        continue
                    if (a, b) not in before:
                        before[a, b] = cp.new_bool_var("")
                        # Devices in a strict order cannot form a ring.
                        cp.add(turn[a] < turn[b]).only_enforce_if(before[a, b])
                    cp.add_bool_or([xa.negated(), xb.negated(), before[a, b]])


def path_bounds(dnn: Dnn) -> tuple[Floats, Floats]:
    """heads, tails [n, m] ms: least finish of t on d; least time from there to the end of all.

    A path u -> t costs, besides t's compute, the tolls of u's output where the devices differ (out
    of an accelerator, into one); staying on an accelerator is excluded where the weights of both
    groups exceed its memory. heads[t, d] is the largest over u of the least over u's devices; what
    finishes on an accelerator finishes at its subgraph's end, after all of the path inside it and
    the tolls out. tails: the same backwards; tasks of t's own accelerator add nothing, because t is
    released only after them. Proof: induction along the path; a path enters an accelerator once."""
    p = dnn.p
    group_weight = np.bincount(p.group, p.weight)
    acc = dnn.accelerator.astype(bool)
    # Costs are in already: heads are finishes here, not starts.
    heads = np.where(np.isfinite(p.cost), p.cost, np.inf)
    tails = np.where(np.isfinite(p.cost), 0.0, np.inf)

    def step(u: int, t: int, v: int) -> tuple[Floats, Floats]:
        """[m, m] tolls out of u's device and into t's; inf where both cannot be."""
        # No toll where both run on one device.
        out = np.where(acc, dnn.toll[v], 0.0)[:, None] * ~np.eye(p.m, dtype=bool)
        into = np.where(acc, dnn.toll[v], 0.0)[None, :] * ~np.eye(p.m, dtype=bool)
        if p.group[u] != p.group[t]:
            both = group_weight[p.group[u]] + group_weight[p.group[t]]
            # Groups too heavy for one accelerator together never meet there.
            full = np.flatnonzero(acc & (both > p.memory))
            out[full, full] = np.inf
        return out, into

    for t in range(p.n):
        for v in p.inputs(t):
            out, into = step(int(p.value_src[v]), t, int(v))
            least = (heads[p.value_src[v]][:, None] + out + into).min(axis=0)
            heads[t] = np.maximum(heads[t], least + p.cost[t])
    for u in range(p.n - 1, -1, -1):
        for v in p.outputs(u):
            for t in p.consumers(int(v)):
                out, into = step(u, int(t), int(v))
                # On its own accelerator the rest adds nothing to t's tail: t is released with it.
                own = np.where(np.eye(p.m, dtype=bool) & acc[None, :], 0.0, p.cost[t][None, :])
                # The toll out is in u's finish already; only the places that cannot be are taken
                # over.
                blocked = np.where(np.isfinite(out), 0.0, np.inf)
                least = (blocked + into + own + tails[t][None, :]).min(axis=1)
                tails[u] = np.maximum(tails[u], least)
    return heads, tails


def _times(
    dnn: Dnn,
    built: Built,
    terms: dict[int, list[Any]],
    enters: dict[tuple[int, int], Any],
    limit: int,
) -> None:
    """Subgraphs start after their inputs and release all outputs at their end; CPUs never queue."""
    p, cp, scale = dnn.p, built.cp, built.scale
    heads, tails = path_bounds(dnn)
    # Floats: a little above the limit, so that nothing possible is cut off.
    last = scale.time(limit) * (1 + 1e-9)
    for t in range(p.n):
        here = built.x[p.group[t]]
        low = {d: scale.down(float(heads[t, d])) if heads[t, d] < last else limit for d in here}
        f = cp.new_int_var(min(*low.values(), limit), limit, "")
        built.finish.append(f)
        cp.add(f >= sum(low[d] * on for d, on in here.items()))
        rest = {d: scale.down(min(float(tails[t, d]), last)) for d in here}
        cp.add(built.goal >= f + sum(rest[d] * on for d, on in here.items()))
        for d, on in here.items():
            if heads[t, d] + tails[t, d] > last:
                cp.add(on == 0)
    end: dict[int, Any] = {}
    for d in range(p.m):
        if dnn.accelerator[d]:
            built.begin[d] = cp.new_int_var(0, limit, "")
            end[d] = cp.new_int_var(0, limit, "")
            # A block takes its compute and tolls, one after the other.
            cp.add(end[d] >= built.begin[d] + sum(terms[d]))
            cp.add(built.goal >= end[d])
    for (u, d), comes in enters.items():
        # All inputs from elsewhere must be there before the block begins.
        cp.add(built.begin[d] >= built.finish[u]).only_enforce_if(comes)
    for t in range(p.n):
        cp.add(built.goal >= built.finish[t])
        producers = sorted({int(p.value_src[v]) for v in p.inputs(t)})
        for d, on in built.x[p.group[t]].items():
            if dnn.accelerator[d]:
                # A task's finish on an accelerator is its block's end, tolls and all.
                cp.add(built.finish[t] >= end[d]).only_enforce_if(on)
                continue
            # CPUs run tasks as soon as their inputs are there, however many at once.
            cost = min(scale.whole(dnn.exact_cost(t, d)), limit + 1)
            for u in producers:
                cp.add(built.finish[t] >= built.finish[u] + cost).only_enforce_if(on)
        for u in producers:
            cp.add(built.finish[t] >= built.finish[u])
