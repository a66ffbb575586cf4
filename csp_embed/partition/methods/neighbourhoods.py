"""Large neighbourhood search around the best timetable, each neighbourhood solved by CP-SAT.

Takes: a Problem, an Incumbent with a timetable.  Leaves: the incumbent improved.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np

from csp_embed.partition.arrays.view import Problem
from csp_embed.partition.methods.list_scheduling import Placement
from csp_embed.partition.methods.local.annealing import Chains
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.models.cpsat import Model
from csp_embed.partition.models.search import build, take, tuning
from csp_embed.partition.portfolio import NUMBERS, Step
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Incumbent
from csp_embed.partition.times.timetable import Timetable
from csp_embed.solver import cpsat

OWN = NUMBERS.neighbourhoods


def neighbourhoods(
    p: Problem, inc: Incumbent, proof: Proof, clock: Clock, rounds: int, size: int
) -> None:
    """LNS: free some tasks, keep the devices and mutual order of all others, solve with CP-SAT.

    Neighbourhoods in turn: a time window, a task's ancestors and descendants nearby, random tasks.
    Sizes adapt: larger after a proof, smaller after a limit. On the wall clock every further worker
    anneals from the best plan meanwhile."""
    request, rng = clock.request, np.random.default_rng(clock.request.seed)
    # One worker solves; deterministic runs have no others, or their timing would show in the
    # result.
    aside = request.workers - 1 if clock.wall and not request.shaped else 0
    chains = Chains(p, clock)
    done, jobs = 0, {}
    with ThreadPoolExecutor(max(1, aside)) as pool:
        while inc.best is not None and inc.best.table is not None and not proof.interrupted:
            # On the clock, half a second for the last model to be built and read.
            if clock.left() <= 0.5 if clock.wall else done >= rounds:
                break
            if proof.settles(inc.best.value):
                break
            table = inc.best.table
            for slot in range(aside):
                if slot in jobs and jobs[slot].done():
                    chains.offer(inc, jobs.pop(slot).result())
                if slot not in jobs and clock.left() > 2.0:
                    # From the best plan of all workers, not from where this one was.
                    start = Placement(table.order(), table.dev, inc.best.value, "")
                    steps = int(OWN.beside / max(p.n, 1))
                    jobs[slot] = pool.submit(
                        chains.run, slot, start, done + slot, steps, OWN.beside_warm
                    )
            # In turn and not by chance: each kind gets its share even in few rounds.
            free = choose(p, table, rng, done % 3, size)
            model = build(p, request, inc.best.value)
            pin_down(p, model, table, free)
            model.hint(table.dev, table.start)
            params = replace(clock.params(OWN.units), workers=1, interleave=False)
            if clock.wall:
                params = replace(params, time_limit=min(OWN.seconds, clock.left()))
            found = cpsat.solve(model.cp, params, extra=tuning(request))
            proof.interrupted |= found.interrupted
            if found.found:
                take(p, inc, model, found, "lns")
            size = (
                min(p.n, size + OWN.step)
                if found.status == "OPTIMAL"
                else max(OWN.least, size - OWN.step)
            )
            done += 1
            clock.tell("neighbourhoods", done, rounds)
        for job in jobs.values():
            chains.offer(inc, job.result())


def choose(p: Problem, table: Timetable, rng: Any, kind: int, size: int) -> set[int]:
    """Tasks to free."""
    size = min(size, p.n)
    if kind == 0:
        # Tasks that run at one time compete for devices; those are worth freeing together.
        middle = rng.uniform(0, table.makespan)
        near = np.argsort(np.abs((table.start + table.finish) / 2 - middle), kind="stable")
        return {int(t) for t in near[:size]}
    if kind == 2:
        return {int(t) for t in rng.choice(p.n, size, replace=False)}
    seen, queue = set(), [int(rng.integers(p.n))]
    while queue and len(seen) < size:
        t = queue.pop(int(rng.integers(len(queue))))
        if t in seen:
            continue
        seen.add(t)
        queue += [int(p.value_src[v]) for v in p.inputs(t)]
        queue += [int(c) for v in p.outputs(t) for c in p.consumers(int(v))]
    return seen


def pin_down(p: Problem, model: Model, table: Timetable, free: set[int]) -> None:
    """Fixes devices and mutual order of the tasks that are not free."""
    loose = {int(p.group[t]) for t in free}
    last: dict[int, int] = {}
    for t in table.order():
        t = int(t)
        # A group with one free task is free as a whole: it has one device.
        if int(p.group[t]) in loose:
            continue
        d = int(table.dev[t])
        model.cp.add(model.at(t)[d] == 1)
        if d in last:
            # Neighbours only: the order of all others follows.
            model.cp.add(model.start[t] >= model.end[last[d]])
        last[d] = t


def in_reach(search: Search, step: Step) -> str | None:
    """Whether work around the incumbent can still be of use."""
    if search.p.n > OWN.tasks:
        return f"more than {OWN.tasks} tasks"
    if step.when != "always" and search.p.n <= NUMBERS.lists.interpreted:
        return "exact search has seen all of it"
    if search.proof.closed or search.proof.interrupted:
        return "the search is done"
    return None


def _few(search: Search, step: Step) -> str | None:
    """Convex sets are known to the exact model only."""
    why = in_reach(search, step)
    if why is None and not search.request.shaped and search.p.n > step.tasks:
        return f"windows serve more than {step.tasks} tasks"
    return why


def _run(search: Search, step: Step) -> None:
    rounds = max(1, int(step.rounds * search.request.effort))
    neighbourhoods(search.p, search.inc, search.proof, search.clock, rounds, OWN.size)


METHOD = Method("neighbourhoods", _few, _run)
