"""Placements of a dnn-partitioning workload without a solver: quick ones, pipelines, annealing.

Takes: a State.  Leaves: its placement improved.

1. Single devices and greedy balancing: before anything is compiled.
2. Pipelines: stages as intervals of several orders, cut by a dynamic program; where ideals are few,
   the best pipeline of all. For latency the sum of the stages is made small: they wait for each
   other.
3. Annealing from the best: groups for the period, blocks for the latency.
"""

from __future__ import annotations

import numpy as np

from csp_embed.partition.arrays.view import Floats, Ints
from csp_embed.partition.dnn.state import State
from csp_embed.partition.methods.local.cooling import TINY, UNNOTED, slices, span, usual_rise
from csp_embed.partition.methods.period import throughput
from csp_embed.partition.methods.period.balance import balance
from csp_embed.partition.methods.period.period_loads import Loads, load_arrays
from csp_embed.partition.pipelines.blocks import anneal_blocks
from csp_embed.partition.pipelines.fold import Fold, fold
from csp_embed.partition.pipelines.ideals import best_chain, ideals
from csp_embed.partition.pipelines.intervals import STATES, Classes, classes, cut, prices
from csp_embed.partition.portfolio import NUMBERS

OWN = NUMBERS.dnn


def quick(state: State, method: str) -> None:
    """Single devices and greedy balancing."""
    p = state.dnn.p
    if method != "greedy":
        for d in range(p.m):
            state.offer(np.full(p.n, d, np.int64), "single")
    if method != "single":
        state.offer(throughput.greedy(p), "greedy")


def pipelines(state: State) -> None:
    """The best cuts of orders; for the period, also the best pipeline where ideals are few."""
    dnn, clock = state.dnn, state.clock
    # For latency a device's whole set is convex: no task is folded as a backward one.
    folded = fold(dnn.p, None if state.latency else dnn.backward)
    q = load_arrays(folded.p, dnn.accelerator, dnn.toll)
    # Equal accelerators are one class: a stage's price is the same on each of them.
    kinds = classes(q)
    # Copied: `kinds` still counts real devices when stages are placed.
    counts = kinds.count.copy()
    if state.latency:  # CPUs run what they like at once: as many stages as there can be
        cpus = [c for c, ds in enumerate(kinds.of) if not dnn.accelerator[ds[0]]]
        counts[cpus] = counts.sum()
    states = int(np.prod(counts + 1))
    if states > STATES or folded.count > OWN.groups:
        return
    # Work of one cut is about this; the more it is, the fewer orders are tried.
    pairs = (folded.count + 1) ** 2 * len(counts) * (states + 5)
    more = int(min(OWN.orders, OWN.order_work / pairs) * clock.request.effort)
    for number, order in enumerate(folded.orders(more, clock.request.seed)):
        # The first order is always cut: without it there is no pipeline at all.
        if number and clock.left() < 0.1:
            return
        stages = cut(prices(q, kinds, order), counts, not state.latency)
        if stages is not None:
            parts = [(c, order[a:b]) for c, a, b in stages]
            state.offer(_placed(state, folded, kinds, parts), "split")
        clock.tell("pipelines")
    # Ideals minimise the largest stage, which is the period and not the latency.
    if not state.latency and not state.settled():
        _ideals(state, folded, q, kinds)


def _ideals(state: State, folded: Fold, q: Loads, kinds: Classes) -> None:
    """The best pipeline of all, where that is quick. It is the optimum where folding lost none and
    the request is for a pipeline."""
    clock = state.clock
    all_ = ideals(folded, OWN.ideals)
    # Graphs of many branches have exponentially many ideals: then there are none here.
    if all_ is None or clock.left() < 1.0:
        return
    clock.tell("ideals")
    # A little above, so that a pipeline as good as the best is found again rather than missed.
    beat = state.value * (1 + 1e-9) if np.isfinite(state.value) else 1e300
    stages, done = best_chain(q, kinds, all_, beat, int(OWN.ideal_work))
    if stages is None:
        return
    order = np.arange(folded.count)
    parts = [
        (c, np.array(all_.groups(large, small, order), np.int64)) for c, small, large in stages
    ]
    state.offer(_placed(state, folded, kinds, parts), "ideals")
    # Only then is every pipeline a chain of these ideals.
    if done and folded.whole and clock.request.pipeline:
        state.raise_to(state.value, "ideals")


def _placed(state: State, folded: Fold, kinds: Classes, parts: list[tuple[int, Ints]]) -> Ints:
    """Devices of tasks, from stages (class, groups): accelerators are taken in their order."""
    free = [list(ds) for ds in kinds.of]
    place = np.zeros(folded.count, np.int64)
    for c, groups in parts:
        # For latency one CPU stands for all of them (see `dnn_file`): it is not used up.
        shared = state.latency and not state.dnn.accelerator[free[c][0]]
        place[groups] = free[c][0] if shared else free[c].pop(0)
    return place[folded.p.group]


def anneal(state: State, chains: int) -> None:
    """Chains of annealing, two of three from the best pipeline, else from the best placement."""
    state.fresh, r = state.dev, state.clock.request
    # With shapes the period is left to pipelines: moves of single groups break convex sets.
    for number in range(chains if state.latency or not r.shaped else 0):
        chain(state, number)
        # On the wall clock, at least 0.6 of the limit is left to exact search.
        if state.settled() or state.clock.left() < (0.6 * r.time_limit if r.time_limit else 0):
            return


def chain(state: State, number: int) -> None:
    """One chain, in slices so that a limit is kept; offers its best. The period's does not know
    convex sets."""
    dnn, clock, r = state.dnn, state.clock, state.clock.request
    p, start = dnn.p, state.dev if number % 3 == 2 else state.fresh
    if start is None:
        return
    steps = max(1000, min(OWN.proposals, OWN.touches / (p.n + len(p.use))) * r.effort)
    q = None if state.latency else load_arrays(p, dnn.accelerator, dnn.toll)

    def run(dev: Ints, steps: int, top: float, low: float, seed: int, noted: Floats) -> None:
        if q is None:
            anneal_blocks(dnn, dev, steps, top, low, seed, noted)
        else:
            # Borders: all of a device before a group, or behind it, may move at once.
            balance(q, dev, steps, top, low, seed, borders=True, rises=noted)

    if state.rise is None:
        probe, count = start.copy(), int(min(steps, OWN.probes))
        state.rise = usual_rise(lambda noted: run(probe, count, TINY, TINY, 1, noted))
    own = OWN.block_anneal if state.latency else OWN.load_anneal
    # Chains differ in their heat: which is right differs from workload to workload.
    hot, cold = span(state.rise, *own[number % len(own)])
    dev = start.copy()
    for k, (top, low, size) in enumerate(slices(hot, cold, steps, OWN.slice)):
        if clock.left() < 0.1:
            break
        # Every slice of a run has a seed of its own.
        run(dev, size, top, low, 100_000 * r.seed + 1000 * number + k + 1, UNNOTED)
    state.offer(dev, "anneal")
    clock.tell("annealing")
