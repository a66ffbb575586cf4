"""Throughput: single devices, splits, greedy balancing, annealing, exact CP-SAT.

Takes: a Problem, a Request, an Incumbent.  Leaves: the incumbent improved, and proved bounds.
"""

from __future__ import annotations

import numpy as np

from csp_embed.partition.arrays.view import Ints, Problem
from csp_embed.partition.methods import chains
from csp_embed.partition.methods.list_scheduling import ListScheduler
from csp_embed.partition.methods.local.cooling import TINY, span, usual_rise
from csp_embed.partition.methods.period.balance import balance
from csp_embed.partition.methods.period.period_loads import Loads
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.request import Clock, Incumbent
from csp_embed.partition.times import feasible
from csp_embed.partition.times.timetable import Timetable, decoded

OWN = NUMBERS.balance


def greedy(p: Problem) -> Ints:
    """Groups by falling cost, each to the allowed device that is least loaded with it."""
    groups = p.groups()
    cost = np.array([p.cost[g].sum(axis=0) for g in groups])
    # By what a group costs at best, or one device that is slow for everything would decide the
    # order.
    best = np.where(np.isfinite(cost), cost, np.inf).min(axis=1)
    load, room = np.zeros(p.m), p.memory.copy()
    dev = np.zeros(p.n, np.int64)
    for g in np.argsort(-best, kind="stable"):
        need = p.weight[groups[g]].sum()
        after = np.where(room >= need, load + cost[g], np.inf)
        # Where it fits nowhere it goes where it runs best; whether that is a plan is judged later.
        d = int(after.argmin()) if np.isfinite(after).any() else int(cost[g].argmin())
        dev[groups[g]] = d
        load[d] += cost[g][d]
        room[d] -= need
    return dev


def starts(p: Problem) -> list[tuple[str, Ints]]:
    """Placements to begin with: each device alone, splits, greedy."""
    found: list[tuple[str, Ints]] = []
    for d in range(p.m):
        if np.isfinite(p.cost[:, d]).all():
            found.append(("single", np.full(p.n, d, np.int64)))
    found += [("split", dev) for dev in chains.candidates(p)]
    found.append(("greedy", greedy(p)))
    return found


def timed(p: Problem, dev: Ints, wanted: bool) -> Timetable | None:
    """A timetable of a placement where one is wanted."""
    if not wanted or not feasible.talks(p, dev):
        return None
    scheduler = ListScheduler(p, compiled=p.n > NUMBERS.lists.interpreted)
    # Ranks with the costs of these devices: the placement is given, only the order is open.
    order = scheduler.by_rank(scheduler.upward(p.cost[np.arange(p.n), dev]))
    return decoded(p, order, dev, scheduler.k, scheduler.a, scheduler.w)


def balanced(p: Problem, inc: Incumbent, clock: Clock, q: Loads, steps: int, share: float) -> None:
    """Annealing chains from the starts in turn, until `steps` each or a share of the clock."""
    begin = [dev for _, dev in starts(p)]
    if inc.best is not None:
        begin.insert(0, inc.best.dev)
    allowed = [
        d for d in begin
        if np.isfinite(p.cost[np.arange(p.n), d]).all()
        and (np.bincount(d, p.weight, minlength=p.m) <= p.memory).all()
    ]  # fmt: skip
    if not allowed or p.m < 2:
        return
    until = clock.seconds() + clock.left() * share if clock.wall else 0.0
    probe = allowed[0].copy()
    rise = usual_rise(lambda noted: balance(q, probe, OWN.probes, TINY, TINY, 1, rises=noted))
    number, each = 0, min(steps, OWN.trial) if clock.wall else steps
    while True:
        dev, before = allowed[number % len(allowed)].copy(), clock.seconds()
        hot, cold = span(rise, OWN.heats[number % len(OWN.heats)], OWN.cold)
        balance(q, dev, each, hot, cold, 1000 * inc.request.seed + number + 1)
        inc.offer(dev, timed(p, dev, inc.request.max_latency is not None), "anneal")
        number += 1
        clock.tell("balancing", number, max(number, OWN.chains))
        if not clock.wall:
            if number >= OWN.chains:
                return
            continue
        pace = (clock.seconds() - before) / each
        each = int(min(steps, (until - clock.seconds()) / max(pace, 1e-9)))
        if each < OWN.least:
            return
