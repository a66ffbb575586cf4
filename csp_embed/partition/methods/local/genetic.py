"""A genetic algorithm over (order, devices), as a baseline.

Takes: list schedules as the first generation.  Leaves: the incumbent improved.  Crossover: devices
from either parent; the order takes one parent's prefix, then the rest in the other's order (that
keeps it topological). Mutation: a device, or a short run of annealing.
"""

from __future__ import annotations

import numpy as np

from csp_embed.partition.arrays.view import Floats, Ints, Problem, csr
from csp_embed.partition.methods.list_scheduling import Placement
from csp_embed.partition.methods.local.anneal import anneal
from csp_embed.partition.methods.local.cooling import TINY, UNNOTED, span, usual_rise
from csp_embed.partition.methods.method import Method, Search, always
from csp_embed.partition.portfolio import NUMBERS, Step
from csp_embed.partition.request import Clock, Incumbent
from csp_embed.partition.times import kernels
from csp_embed.partition.times.timetable import decoded

OWN = NUMBERS.genetic


def genetic(p: Problem, inc: Incumbent, clock: Clock, first: list[Placement]) -> None:
    """Elitist generations; deterministic by seed unless the wall clock ends it."""
    if not first or p.n < 2:
        return
    rng = np.random.default_rng(clock.request.seed)
    a, w = kernels.arrays(p), kernels.work(p)
    member_ptr, members = csr(p.groups())
    people: list[tuple[float, int, Ints, Ints]] = []

    def anneal_one(
        order: Ints, dev: Ints, steps: int, heats: tuple[float, float], rises: Floats = UNNOTED
    ) -> float:
        seed = 7919 * clock.request.seed + len(people) + 1
        return float(
            anneal(a, w, p.activation, members, member_ptr, order, dev, steps, *heats, seed, rises)
        )

    order, dev = first[0].order.copy(), first[0].dev.copy()
    rise = usual_rise(lambda noted: anneal_one(order, dev, OWN.touch, (TINY, TINY), noted))
    known = span(rise, OWN.heat, OWN.cold)

    def add(order: Ints, dev: Ints, steps: int) -> None:
        people.append((anneal_one(order, dev, steps, known), len(people), order, dev))

    for x in first[: OWN.population]:
        add(x.order.copy(), x.dev.copy(), 1)
    generation = 0
    while clock.left() > 0.2 if clock.wall else generation < OWN.generations * clock.request.effort:
        best = sorted(people)[: OWN.population]
        for _ in range(OWN.population):
            one, two = (best[int(k)] for k in rng.integers(len(best), size=2))
            cut = int(rng.integers(p.n + 1))
            seen = set(one[2][:cut].tolist())
            order = np.concatenate([one[2][:cut], [t for t in two[2] if int(t) not in seen]])
            dev = one[3].copy()
            for g in np.flatnonzero(rng.random(len(member_ptr) - 1) < 0.5):
                some = members[member_ptr[g] : member_ptr[g + 1]]
                dev[some] = two[3][some]
            if (np.bincount(dev, p.weight, minlength=p.m) > p.memory).any():
                dev = one[3].copy()
            add(order.astype(np.int64), dev, OWN.touch)
        people = [(v, i, o, d) for i, (v, _, o, d) in enumerate(sorted(people)[: OWN.population])]
        generation += 1
        clock.tell("generations", generation, max(generation, OWN.generations))
        value, _, order, dev = people[0]
        if inc.best is None or value < inc.best.value:
            inc.offer(dev, decoded(p, order, dev), "genetic")


def _run(search: Search, step: Step) -> None:
    genetic(search.p, search.inc, search.clock, search.starts)


METHOD = Method("genetic", always, _run)
