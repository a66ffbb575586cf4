"""Annealing chains for the makespan: which annealer, from which starts, for how long.

Takes: a Problem, placements to start from.  Leaves: the incumbent improved.
"""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from csp_embed.partition.arrays.view import Floats, Problem, csr
from csp_embed.partition.methods.list_scheduling import Placement
from csp_embed.partition.methods.local.anneal import anneal
from csp_embed.partition.methods.local.cooling import TINY, UNNOTED, span, usual_rise
from csp_embed.partition.methods.local.reinsert import ordered, reinsert
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.portfolio import NUMBERS, Step
from csp_embed.partition.proof import SAME
from csp_embed.partition.request import Clock, Incumbent
from csp_embed.partition.times import kernels
from csp_embed.partition.times.timetable import decoded

OWN = NUMBERS.anneal


def annealed(
    p: Problem, inc: Incumbent, clock: Clock, starts: list[Placement], steps: int, share: float,
    low: float = 0.0,
) -> None:  # fmt: skip
    """Chains from the best starts in turn; two at a time with two workers.

    Deterministic: `steps` proposals per chain, one chain per start. Wall clock: four chains for
    each worker, as long as a share of what is left allows. low: a bound at which to stop, ms."""
    # Starts that cannot run have no energy to begin with.
    lanes = [x for x in starts if np.isfinite(x.value)]
    if not lanes:
        return
    chains, request = Chains(p, clock), clock.request
    if not (chains.plain or clock.wall):
        steps = min(steps, max(OWN.least, int(OWN.decoded_work * request.effort / max(p.n, 1))))
    threads = max(1, request.workers)
    begun = clock.seconds()
    budget, number, factor, idle = 0.0, 0, 1.0, 0
    if clock.wall:
        # The first round is a trial of the pace: contended links cost far more a proposal.
        budget, factor = clock.left() * share, min(1.0, OWN.trial / steps)
    with ThreadPoolExecutor(threads) as pool:
        while True:
            before = clock.seconds()  # jobs may end before this thread goes on
            value = inc.best.value if inc.best else float("inf")
            jobs = [
                pool.submit(chains.run, slot, lanes[(number + slot) % len(lanes)],
                            number + slot, int(steps * factor))
                for slot in range(threads)
            ]  # fmt: skip
            for job in jobs:
                chains.offer(inc, job.result())
            number += threads
            best = inc.best.value if inc.best else float("inf")
            clock.tell("annealing", number, max(number, len(lanes)))
            # The bound is met: nothing can be better.
            if best <= low * (1 + SAME):
                return
            if not clock.wall:
                # Deterministic runs stop where chains bring nothing, for they have no clock to stop
                # them.
                idle = 0 if best < value * (1 - OWN.gain) else idle + 1
                if number >= len(lanes) or idle >= OWN.patience:
                    return
                continue
            # Seconds a proposal, of this round: contention and load change it.
            pace = (clock.seconds() - before) / (steps * factor)
            left = budget - (clock.seconds() - begun)
            # The pace of a short round is a rough one.
            factor = min(OWN.growth * factor, min(budget / 4, left) / max(pace * steps, 1e-9))
            if left < budget / 20 or factor * steps < OWN.least:
                return


class Chains:
    """Annealing chains on one problem: by reinsertion where no link is contended, no task is
    colocated and no activation counts, else by the general proposals of `anneal`. One work space
    per thread."""

    def __init__(self, p: Problem, clock: Clock) -> None:
        self.p, self.seed = p, clock.request.seed
        alone = len(p.groups()) == p.n
        # Where any device could hold everything at once, no activation can be one too many.
        tight = p.weight.sum() + p.activation.sum() > p.memory.min(initial=np.inf)
        self.activation = p.activation if tight else np.zeros(p.n)
        self.plain = alone and not (p.contended() or p.row.any() or self.activation.any())
        self.member_ptr, self.members = csr(p.groups())
        self.arrays = kernels.arrays(p)
        self.spaces = [kernels.work(p) for _ in range(max(1, clock.request.workers))]
        self.graph = ordered(p) if self.plain else None
        self.rise: float | None = None
        self.lock = threading.Lock()

    def run(
        self, slot: int, start: Placement, number: int, steps: int, warm: float = 1.0
    ) -> Placement:
        """One chain. warm: factor on the first temperature."""
        hot, cold, work = OWN.heats[number % len(OWN.heats)]
        if not self.plain:
            hot, cold = OWN.decoded_heats[number % len(OWN.decoded_heats)], OWN.decoded_cold
        first, last = span(self.measured(slot, start), max(warm * hot, cold), cold)
        return self.one(slot, start, steps, first, last, work, self.seed * 1000 + number + 1)

    def measured(self, slot: int, start: Placement) -> float:
        """What worsening moves cost on the way down from a start; the first start tells for all."""
        with self.lock:
            if self.rise is None:
                steps = OWN.probes if self.plain else OWN.decoded_probes
                self.rise = usual_rise(
                    lambda noted: self.one(slot, start, steps, TINY, TINY, 0.0, self.seed, noted)
                )
            return self.rise

    def one(
        self, slot: int, start: Placement, steps: int, hot: float, cold: float, work: float,
        seed: int, rises: Floats = UNNOTED,
    ) -> Placement:  # fmt: skip
        """A chain at temperatures in ms."""
        order, dev = start.order.copy(), start.dev.copy()
        if self.plain:
            value = reinsert(self.graph, order, dev, max(steps, 1), hot, cold, work, seed, rises)
        else:
            value = anneal(
                self.arrays, self.spaces[slot], self.activation, self.members,
                self.member_ptr, order, dev, steps, hot, cold, seed, rises,
            )  # fmt: skip
        return Placement(order, dev, float(value), "anneal")

    def offer(self, inc: Incumbent, x: Placement) -> None:
        """A chain's result as a timetable."""
        if inc.best is None or x.value < inc.best.value:
            inc.offer(x.dev, decoded(self.p, x.order, x.dev), x.method)


def _free(search: Search, step: Step) -> str | None:
    if search.request.shaped:
        return "it does not know convex sets"
    if step.when != "always" and search.p.n <= NUMBERS.lists.interpreted:
        return f"exact search is quicker up to {NUMBERS.lists.interpreted} tasks"
    return None


def _run(search: Search, step: Step) -> None:
    p = search.p
    steps = int(min(OWN.proposals, OWN.touches / max(p.n, 1)) * search.request.effort)
    share = step.share
    if share == 1:  # beside other methods: the less, the more those can do
        share = OWN.share_queued
        if p.n <= OWN.share_tasks and not p.contended():
            share = OWN.share_free
    starts = search.starts[: OWN.starts]
    annealed(p, search.inc, search.clock, starts, max(steps, OWN.least), share, search.proof.value)


METHOD = Method("anneal", _free, _run)
