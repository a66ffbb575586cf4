"""Splitting for the period: prices, communities, exact parts, annealing on groups.

Takes: a Problem, the incumbent.  Leaves: the incumbent improved.

1. Prices of devices at which their loads balance, and a placement from them (`prices`): nearly
   optimal where links carry little, and the end where it is `near` the bound.
2. Communities placed as wholes, from Louvain's coarsest level to the finest, then opened.
3. After each annealing, parts of a few groups along the repaired communities are solved exactly
   (`part_loads`).
4. Lanes of annealing on single groups and walks of neighbours (`balance`), hotter and cooler.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from csp_embed.partition.arrays.view import Floats, Ints, Problem, csr
from csp_embed.partition.bounds.prices import balanced_prices
from csp_embed.partition.methods.communities import communities, levels, merge, runs, settled
from csp_embed.partition.methods.exact_search import exact
from csp_embed.partition.methods.local.cooling import TINY, slices, span, usual_rise
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.methods.period import throughput
from csp_embed.partition.methods.period.balance import Prices, balance
from csp_embed.partition.methods.period.exact_groups import solve_loads
from csp_embed.partition.methods.period.period_loads import Loads, load_arrays
from csp_embed.partition.portfolio import NUMBERS, Step
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Incumbent

OWN = NUMBERS.period


def split_throughput(p: Problem, inc: Incumbent, proof: Proof, clock: Clock) -> None:
    """Steps 1 to 4, until the incumbent is near the bound."""
    r = inc.request
    if p.n < 2 or p.m < 2:
        return
    if r.shaped:  # only the exact model knows convex sets
        rough = Proof.of(p)
        exact(merge(p, levels(p)[-1]), inc, rough, clock, *OWN.shaped)
        proof.interrupted |= rough.interrupted
        return
    search = Loading(p, inc, clock)
    proof.raise_to(search.low, "load")
    if search.priced():
        return
    dev: Ints | None = None
    for number, label in enumerate(reversed(levels(p))):
        merged = merge(p, label)
        q = load_arrays(merged)
        # The coarsest level begins from a balance; each finer one from the level above.
        dev = throughput.greedy(merged) if dev is None else settled(merged, dev)
        steps = max(OWN.touches * len(q.weight), OWN.least)
        search.anneal(q, dev, descent(q, dev), steps, 1.0, number)
        solve_parts(q, dev, list(range(len(q.weight))))
        clock.tell("communities", 1, 1)
    starts = [] if dev is None else [dev]
    if p.n <= OWN.small:
        starts += [throughput.greedy(p), *search.singles()]
    for number in range(OWN.lanes if p.n <= OWN.small else OWN.large_lanes):
        # Every other lane goes on from the best plan; the rest keep looking elsewhere.
        start = starts[number % len(starts)] if number % 2 == 0 or not inc.best else inc.best.dev
        search.lane(start, OWN.warmth[number % len(OWN.warmth)], number + 1)
        if search.done() or clock.left() < 0.1:
            return
        clock.tell("groups", 1, 1)
    number = 0
    while clock.wall and r.method == "split" and inc.best is not None and clock.left() > 0.2:
        if proof.settles(inc.best.value):
            return
        number += 1
        search.lane(inc.best.dev, OWN.again[number % len(OWN.again)], 1000 + number)


def descent(q: Loads, start: Ints, prices: Prices | None = None) -> float:
    """The usual rise on the way down from a placement of groups, or of tasks."""
    dev = start.copy()

    def descend(noted: Floats) -> None:
        balance(q, dev, OWN.probes, TINY, TINY, 1, longest=OWN.walk, prices=prices, rises=noted)

    return usual_rise(descend)


class Loading:
    """Lanes of annealing for the period, each followed by exact parts.

    low: bound in ms from the prices of devices."""

    def __init__(self, p: Problem, inc: Incumbent, clock: Clock) -> None:
        self.p, self.inc, self.clock, self.q = p, inc, clock, load_arrays(p)
        self.prices, self.low = balanced_prices(self.q.cost)
        self.target = self.low * (1 + OWN.near)
        self.steps = max(OWN.touches * p.n, OWN.least)
        self.known: float | None = None

    def priced(self) -> bool:
        """Lanes from prices, as long as they may be enough. Says whether the search is done."""
        cost = np.where(np.isfinite(self.q.cost), self.q.cost, 0.0) * self.prices
        cost[~np.isfinite(self.q.cost)] = np.inf
        loss = (cost - cost.min(axis=1, keepdims=True)).ravel()
        by = np.argsort(loss, kind="stable")[: int(np.isfinite(loss).sum())]
        # (group, device), those first that lose least against the group's cheapest place.
        moves = np.stack(np.divmod(by, self.p.m), axis=1)
        start = cost.argmin(axis=1)[self.p.group]
        known: dict[float, float] = {}  # prices are part of the energy
        for number, (pull, hot) in enumerate(OWN.pulls):
            guide, dev = Prices(pull * self.prices, moves), start.copy()
            if pull not in known:
                known[pull] = descent(self.q, dev, guide)
            heat, cold = span(known[pull], hot, OWN.priced_cooling * hot)
            value = balance(
                self.q, dev, int(OWN.priced * self.inc.request.effort), heat, cold,
                100 * self.inc.request.seed + number,
                longest=OWN.walk, target=self.target, prices=guide,
            )  # fmt: skip
            self.offer(dev)
            # So far above the bound, prices are no guide here: links or memory decide.
            if self.done() or value > OWN.priced_bound * self.low or self.clock.left() < 0.1:
                break
        return self.done()

    def offer(self, dev: Ints) -> None:
        """Offers a placement."""
        wanted = self.inc.request.max_latency is not None
        self.inc.offer(dev, throughput.timed(self.p, dev, wanted), "split")

    @cached_property
    def along(self) -> list[int]:
        """Groups in the order of the repaired communities."""
        order = [t for part in runs(self.p, communities(self.p), OWN.part) for t in part]
        return list(dict.fromkeys(self.p.group[order].tolist()))

    def singles(self) -> list[Ints]:
        """Every device alone that can run all."""
        able = np.flatnonzero(np.isfinite(self.q.cost).all(axis=0))
        return [np.full(self.p.n, d, np.int64) for d in able]

    def lane(self, start: Ints, hot: float, seed: int) -> None:
        """Anneals from a start and offers what is found."""
        dev = start.copy()
        self.anneal(self.q, dev, self.rise(start), self.steps, hot, seed)
        solve_parts(self.q, dev, self.along)
        self.offer(dev)

    def rise(self, start: Ints) -> float:
        """The usual one of the whole problem; the first start tells for all lanes."""
        if self.known is None:
            self.known = descent(self.q, start)
        return self.known

    def anneal(
        self, q: Loads, dev: Ints, rise: float, steps: int, warmth: float, seed: int
    ) -> None:
        """One chain. warmth: of the usual first temperature."""
        r = self.inc.request
        hot, cold = span(rise, warmth * OWN.heat, OWN.cold)
        for k, (top, low, size) in enumerate(slices(hot, cold, steps * r.effort, OWN.slice)):
            if self.clock.left() < 0.1:
                return
            balance(
                q, dev, size, top, low, 100_000 * r.seed + 100 * seed + k, longest=OWN.walk,
                target=self.target,
            )  # fmt: skip

    def done(self) -> bool:
        """Whether the incumbent is as near to the bound as is worth the time."""
        return self.inc.best is not None and self.inc.best.value <= self.target


def solve_parts(q: Loads, dev: Ints, groups: list[int]) -> None:
    """Exact parts of consecutive groups of an order."""
    # As many groups as can be enumerated: devices to the power of groups.
    size = min(OWN.part, max(2, int(np.log(OWN.moves) / np.log(len(q.memory)))))
    ptr, parts = csr([groups[k : k + size] for k in range(0, len(groups), size)])
    place = np.zeros(len(q.weight), np.int64)
    place[q.group] = dev
    room = q.memory - np.bincount(place, q.weight, minlength=len(q.memory))
    solve_loads(q, place, room, ptr, parts, OWN.moves)
    dev[:] = place[q.group]


def _large(search: Search, step: Step) -> str | None:
    if step.when == "auto" and search.p.n <= step.tasks:
        return f"exact search needs no better start up to {step.tasks} tasks"
    return None


def _run(search: Search, step: Step) -> None:
    split_throughput(search.p, search.inc, search.proof, search.clock)


METHOD = Method("split period", _large, _run)
