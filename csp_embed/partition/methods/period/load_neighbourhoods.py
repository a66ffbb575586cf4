"""Large neighbourhood search for the period: some groups are freed, CP-SAT places them best.

Takes: a Search for the period with a plan.  Leaves: its incumbent improved.

The model is the whole one with all other groups fixed. Neighbourhoods in turn: a walk through the
graph, and groups by chance of which half stand on the busiest device. The size of each kind adapts:
larger after a proof, smaller after a limit; the search ends where many in a row bring nothing.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from csp_embed.partition.arrays.view import Ints, Problem
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.models.search import build, take, tuning
from csp_embed.partition.portfolio import NUMBERS, Step
from csp_embed.partition.proof import horizon
from csp_embed.partition.times.timetable import loads
from csp_embed.solver import cpsat

OWN = NUMBERS.load_neighbourhoods


def improve(search: Search, rounds: int, share: float) -> None:
    """rounds: at most. share: of the clock."""
    p, inc, proof = search.p, search.inc, search.proof
    clock, rng = search.clock.part(share), np.random.default_rng(search.request.seed)
    sizes, idle, done, groups = [OWN.size, OWN.size], 0, 0, p.groups()
    while inc.best is not None and idle < OWN.patience and not proof.interrupted:
        if clock.left() < 0.3 or (done >= rounds and not clock.wall):
            return
        if proof.settles(inc.best.value):
            return
        before, dev = inc.best.value, inc.best.dev
        # Both kinds have sizes of their own, for they are not equally hard.
        kind = done % 2
        free = (_busy if kind else _walk)(p, dev, rng, sizes[kind])
        model = build(p, clock.request, horizon(p, inc))
        for g, members in enumerate(groups):
            # A group stands where its first member stands.
            if g not in free:
                model.cp.add(model.x[g][int(dev[members[0]])] == 1)
        model.hint(dev, None)
        params = replace(clock.params(OWN.units), workers=1, interleave=False)
        if clock.wall:
            params = replace(params, time_limit=max(0.05, min(OWN.seconds, clock.left())))
        found = cpsat.solve(model.cp, params, extra=tuning(clock.request))
        proof.interrupted |= found.interrupted
        if found.found:
            take(p, inc, model, found, "lns")
        # A proof came easily, so there is time for more; a limit says the opposite.
        size = sizes[kind] + (OWN.step if found.status == "OPTIMAL" else -OWN.step)
        sizes[kind] = int(np.clip(size, OWN.least, len(groups)))
        idle = 0 if inc.best.value < before * (1 - OWN.gain) else idle + 1
        done += 1
        clock.tell("neighbourhoods", done, rounds)


def _walk(p: Problem, dev: Ints, rng: Any, size: int) -> set[int]:
    """Groups met on a walk from a task by chance."""
    seen: set[int] = set()
    queue = [int(rng.integers(p.n))]
    while queue and len(seen) < size:
        t = queue.pop(int(rng.integers(len(queue))))
        if int(p.group[t]) in seen:
            continue
        seen.add(int(p.group[t]))
        queue += [int(p.value_src[v]) for v in p.inputs(t)]
        queue += [int(c) for v in p.outputs(t) for c in p.consumers(int(v))]
    return seen


def _busy(p: Problem, dev: Ints, rng: Any, size: int) -> set[int]:
    """Groups by chance, half of them of the busiest device."""
    load = loads(p, dev)
    busiest = max(range(p.m), key=lambda d: load.get(p.platform.devices[d].name, 0.0))
    here = np.unique(p.group[dev == busiest])
    some = rng.choice(here, min(len(here), size // 2), replace=False)
    # Groups of other devices too: load has to go somewhere.
    others = rng.choice(int(p.group.max()) + 1, min(size, int(p.group.max()) + 1), replace=False)
    return set([*some.tolist(), *others.tolist()][:size])


def _planned(search: Search, step: Step) -> str | None:
    if search.inc.best is None:
        return "there is no plan yet"
    if search.proof.closed or search.proof.interrupted:
        return "the search is done"
    if search.p.n <= NUMBERS.lists.interpreted:
        return "exact search sees all of it"
    if search.p.n > OWN.tasks:
        return f"more than {OWN.tasks} tasks"
    if search.request.max_latency is not None:
        return "a limit on the latency wants the whole schedule"
    return None


def _run(search: Search, step: Step) -> None:
    rounds = max(1, int(step.rounds * search.request.effort))
    improve(search, rounds, step.share)


METHOD = Method("load neighbourhoods", _planned, _run)
