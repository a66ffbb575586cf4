"""The modularity-based splitting heuristic.

Takes: a Problem, the incumbent.  Leaves: the incumbent improved.

1. Communities: Louvain's hierarchy on the transfer times (`communities`). From the coarsest level
   to the finest, communities are placed as wholes, then opened (`levelled`).
2. Repair: the quotient of communities is usually cyclic. Intervals of a topological order that
   stays within a community as long as it can are the parts; their quotient is acyclic.
3. Parts: with all else fixed, devices and order of a part's tasks are solved exactly by branch and
   bound (`parts`), one part after the other.
4. Boundaries: annealing in windows over the order by start times, shifted from pass to pass, so
   that every boundary lies inside a window (`sweep`).

This is for the makespan; `period` does the same for the period.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from csp_embed.partition.arrays.view import Ints, Problem
from csp_embed.partition.methods.communities import communities, levels, merge, runs, settled
from csp_embed.partition.methods.exact_search import exact
from csp_embed.partition.methods.list_scheduling import ListScheduler, Placement
from csp_embed.partition.methods.local.annealing import annealed
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.methods.period import throughput
from csp_embed.partition.methods.windows.window_passes import RESERVE, Sweep
from csp_embed.partition.portfolio import NUMBERS, Step
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Incumbent
from csp_embed.partition.times import feasible, kernels
from csp_embed.partition.times.timetable import decoded

OWN = NUMBERS.split


def split_latency(
    p: Problem, inc: Incumbent, proof: Proof, clock: Clock, found: list[Placement]
) -> None:
    """Steps 1 to 4 for the makespan; annealing starts from `found` too."""
    if p.n < 2 or p.m < 2 or inc.request.shaped:
        # Windows move tasks one by one and would break convex sets; the exact model knows them.
        if inc.best is None or inc.request.shaped:
            exact(p, inc, proof, clock, OWN.shaped)
        return
    seed = 1000 * inc.request.seed
    # The best list schedule is a start too: repair is blind to costs.
    tables = [decoded(p, x.order, x.dev) for x in (repaired(p), *found[:1]) if np.isfinite(x.value)]
    starts = [(x.order(), x.dev) for x in tables] + levelled(p, clock)
    lanes = []
    for order, dev in starts:
        sweep = Sweep(p)
        # Not every placement can talk; one that cannot has no makespan to improve.
        if np.isfinite(sweep.begin(order, dev)):
            sweep.exact(np.array([*range(0, p.n, OWN.part), p.n]), OWN.nodes, clock)
            lanes.append(sweep)
    for number, sweep in enumerate(lanes):
        if clock.left() < 0.1 + RESERVE * p.n:
            break
        refine(
            p,
            inc,
            sweep,
            clock,
            OWN.proposals if p.n <= OWN.small else OWN.proposals // OWN.large_part,
            seed + 100 * number,
        )
    if p.n > OWN.small and lanes and clock.left() > 0.1 + RESERVE * p.n:
        # On large graphs one lane gets what is left: passes are dear, and the lanes are near each
        # other by now.
        lane = min(lanes, key=lambda x: x.value)
        refine(p, inc, lane, clock, OWN.proposals // OWN.best_part, seed + 1000)
    if p.n <= OWN.small:
        polish(p, inc, proof, clock, OWN.polish)
    # Activations matter only where some device could not hold everything at once.
    heavy = p.activation.any() and (p.weight.sum() + p.activation.sum() > p.memory).any()
    if heavy or (p.contended() and p.n <= OWN.small):
        # Live activations and gaps between transfers are seen by the decoder's annealing only.
        begin = [Placement(x.order(), x.dev, x.makespan, "split") for x in tables]
        if inc.best is not None and inc.best.table is not None:
            order = inc.best.table.order()
            begin = [Placement(order, inc.best.dev, inc.best.value, "split"), *begin]
        steps = int(min(OWN.decoded, OWN.decoded_touches / p.n) * clock.request.effort)
        annealed(p, inc, clock, begin, max(steps, 1), OWN.decoded_share)
    if clock.wall and clock.left() > 0.3 + RESERVE * p.n and inc.request.method == "split":
        polish(p, inc, proof, clock, 1_000_000)


def repaired(p: Problem) -> Placement:
    """Step 2: the parts in sequence, each task where it finishes first."""
    parts = runs(p, communities(p), OWN.part)
    scheduler = ListScheduler(p)
    order = np.array([t for part in parts for t in part], np.int64)
    return scheduler.run("split", order, kernels.HEFT, scheduler.none, np.full(p.n, -1, np.int64))


def levelled(p: Problem, clock: Clock) -> list[tuple[Ints, Ints]]:
    """Step 1: all on the fastest device, then communities moved as wholes, level by level. Where no
    device can take all, they begin where they fit."""
    # All on one device is a plan without transfers: every later move is an improvement of a plan
    # that runs.
    alone = np.where(p.memory >= p.weight.sum(), p.cost.sum(axis=0), np.inf)
    order, dev = np.arange(p.n), np.full(p.n, int(alone.argmin()), np.int64)
    if not np.isfinite(alone).any():
        dev = throughput.greedy(merge(p, levels(p)[-1]))
        if not feasible.runs(p, dev):
            return []
    # Coarse first: few large decisions, then the finer ones inside them.
    for number, label in enumerate(reversed(levels(p))):
        sweep = Sweep(merge(p, label))
        if not np.isfinite(sweep.begin(order, settled(sweep.p, dev))):
            return []
        # Proposals by communities, not by tasks: that is how much there is to decide at this level.
        tasks = OWN.level_proposals * (int(label.max(initial=0)) + 1) / p.n
        sweep.anneal(
            min(p.n, OWN.level_width),
            0,
            tasks * clock.request.effort,
            OWN.level_heat,
            number,
            clock,
        )
        sweep.sort()
        order, dev = sweep.order, sweep.dev
    return [(order, dev)]


def refine(p: Problem, inc: Incumbent, sweep: Sweep, clock: Clock, steps: int, seed: int) -> None:
    """Step 4: passes of windows, cooler from pass to pass; then the decoder's verdict."""
    least, most = OWN.passes
    passes = int(np.clip(p.n / OWN.pass_tasks, least, most))
    width = OWN.widths[0 if p.n <= OWN.small else 1]
    hot = OWN.heat
    try:
        for k in range(passes):
            if clock.left() < 0.1 + RESERVE * p.n:
                break
            each = steps * clock.request.effort / passes
            # Every other pass is shifted by half a window, so that no boundary stands twice.
            shift = width // 2 if k % 2 else 0
            sweep.anneal(width, shift, each, hot * (1 - k / passes), seed + k, clock)
            sweep.sort()
            clock.tell("windows", k + 1, passes)
    finally:
        inc.offer(sweep.dev, decoded(p, sweep.order, sweep.dev), "split")


def polish(p: Problem, inc: Incumbent, proof: Proof, clock: Clock, passes: int) -> None:
    """Rounds of step 4 from the incumbent, at most so many, or until the clock's end. On the wall
    clock each worker has a round of its own."""
    threads, seed = inc.request.workers if clock.wall else 1, inc.request.seed
    with ThreadPoolExecutor(threads) as pool:
        for number in range(passes):
            if (
                inc.best is None
                or inc.best.table is None
                or proof.interrupted
                or clock.left() < 0.2 + RESERVE * p.n
            ):
                return
            if proof.settles(inc.best.value):
                return
            sweeps = [Sweep(p) for _ in range(threads)]
            jobs = []
            for k, sweep in enumerate(sweeps):
                sweep.begin(inc.best.table.order(), inc.best.dev)
                # A prime apart, so that no two lanes draw the same numbers.
                lane = 7919 * (threads * number + k + 1) + seed
                jobs.append(
                    pool.submit(
                        refine, p, inc, sweep, clock, OWN.proposals // OWN.polish_part, lane
                    )
                )
            for job in jobs:
                job.result()


def restarted(search: Search, step: Step) -> None:
    """The whole search anew from other seeds, each with rounds from its own best: lanes of one
    search end near each other, and rounds from the best of all stay in its valley."""
    p, clock = search.p, search.clock
    for number in range(step.rounds):
        if search.proof.interrupted or clock.left() < 0.2 + RESERVE * p.n:
            return
        # A prime apart from the rounds' own seeds, which are a hundred apart.
        seed = search.request.seed + 7919 * (number + 1)
        own = clock.of(replace(clock.request, seed=seed)).part(1 / (step.rounds - number))
        inc = Incumbent(p, own.request)
        split_latency(p, inc, search.proof, own, search.starts)
        polish(p, inc, search.proof, own, OWN.again)
        if inc.best is not None:
            search.inc.offer(inc.best.dev, inc.best.table, inc.best.method)
        clock.tell("splitting again", number + 1, step.rounds)
        if search.proof.settles(search.inc.best.value if search.inc.best else float("inf")):
            return


def _again(search: Search, step: Step) -> str | None:
    if search.request.shaped or search.p.n <= OWN.small:
        return "rounds from the incumbent find as much"
    if search.p.n > step.tasks:
        return f"worth its time up to {step.tasks} tasks"
    return None if search.p.contended() else "annealing by reinsertion finds more"


def _large(search: Search, step: Step) -> str | None:
    """Without queues exact search alone settles small graphs, with them it hardly begins to."""
    least = OWN.queued_tasks if search.p.contended() else NUMBERS.lists.interpreted
    if step.when == "auto" and search.p.n <= least:
        return f"exact search settles up to {least} tasks"
    return None


def _run(search: Search, step: Step) -> None:
    clock = search.clock.part(step.share) if step.share < 1 else search.clock
    split_latency(search.p, search.inc, search.proof, clock, search.starts)


METHOD = Method("split", _large, _run)
AGAIN = Method("split again", _again, restarted)
