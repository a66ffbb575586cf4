"""The period's relaxation: a bound with transfers in it, and placements near what it wants.

Takes: a Search for the period.  Leaves: its proof and its incumbent improved.

What no mixture of placements can beat, no single placement can (`relaxation`). Its fractions say
which layers want to be together where; they are rounded, and annealed at temperatures that keep
most of that.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from csp_embed.partition.arrays.view import Floats, Ints
from csp_embed.partition.methods.local.cooling import TINY, span, usual_rise
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.methods.period.balance import balance
from csp_embed.partition.methods.period.period_loads import Loads, load_arrays
from csp_embed.partition.methods.period.relaxation import relax, rounded
from csp_embed.partition.methods.period.throughput import timed
from csp_embed.partition.portfolio import NUMBERS, Step

OWN = NUMBERS.relaxed


def _small(search: Search, step: Step) -> str | None:
    p = search.p
    if len(p.use) * p.m * p.m > OWN.places:
        return "the linear program would take longer than annealing from elsewhere"
    if not (p.contended() or p.handled()):
        return "without queues, the load bound says as much"
    return None


def _run(search: Search, step: Step) -> None:
    p, inc, clock = search.p, search.inc, search.clock
    q = load_arrays(p)
    clock.tell("relaxation")
    found = relax(q)
    if found is None:
        return
    search.proof.raise_to(found.bound, "load and transfers")
    if search.request.shaped:  # rounding knows no convex sets
        return
    rng = np.random.default_rng(search.request.seed)
    steps, target = int(OWN.proposals * search.request.effort), found.bound
    for number in range(OWN.roundings):
        if clock.left() < 0.1 or (inc.best is not None and inc.best.value <= target):
            return
        dev = rounded(found.x, rng)[p.group]
        rise = usual_rise(_descent(q, dev))
        hot, cold = span(rise, OWN.heats[number % len(OWN.heats)], OWN.cold)
        balance(q, dev, max(1, steps), hot, cold, number + 1, target=target)
        inc.offer(dev, timed(p, dev, search.request.max_latency is not None), "relaxed")
        clock.tell("rounding", number + 1, OWN.roundings)


def _descent(q: Loads, start: Ints) -> Callable[[Floats], None]:
    """A run at no temperature from a copy of `start`, for `usual_rise`."""
    dev = start.copy()

    def descend(noted: Floats) -> None:
        balance(q, dev, OWN.probes, TINY, TINY, 1, rises=noted)

    return descend


METHOD = Method("relaxed", _small, _run)
