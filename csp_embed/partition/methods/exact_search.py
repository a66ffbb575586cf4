"""Exact search: CP-SAT in rounds, and lists of the placements that may still be better.

Takes: a Problem, an Incumbent, a Proof.  Leaves: both improved, up to a proved optimum.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from fractions import Fraction

import numpy as np

from csp_embed.ir.network import LATENCY
from csp_embed.partition.arrays.symmetry import canonical, device_classes
from csp_embed.partition.arrays.view import Ints, Problem
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.bounds.destructive import small_enough
from csp_embed.partition.methods.method import Method, Search
from csp_embed.partition.methods.placements import placements
from csp_embed.partition.models.search import build, placed, reached, take, tuning
from csp_embed.partition.portfolio import NUMBERS, Step
from csp_embed.partition.proof import Proof, horizon, settled
from csp_embed.partition.request import Clock, Incumbent
from csp_embed.solver import cpsat

OWN = NUMBERS.exact

ABOVE = 1 + 1e-8  # placements are listed to a little above a makespan, so that none is missed
SURELY = 1 + Fraction(1, 2 * 10**8)  # of that what sums of floats cannot have used up


def exact(
    p: Problem, inc: Incumbent, proof: Proof, clock: Clock, limit: float, share: float = 1.0,
    target: float | None = None, *, below: float | None = None, core: bool = False,
) -> str:  # fmt: skip
    """CP-SAT on the whole problem, hinted with the incumbent. Returns the solver's status.

    target: a value in ms at which it stops, with whatever bound it has by then. below: only
    makespans up to this one are looked for. core: from the bound upwards."""
    request = clock.request
    best = inc.best
    model = build(p, request, horizon(p, inc) if below is None else below)
    classes = device_classes(p)
    model.symmetry(classes)
    if core or below is not None:
        # Durations are rounded down, but the makespan of a plan is no less than its bound.
        model.cp.add(model.makespan >= min(model.scale.down(proof.value), model.horizon))
    if best is not None and below is None:  # the incumbent is no solution below
        dev = canonical(p, best.dev, classes)
        same = bool((dev == best.dev).all())
        times = best.table.start if best.table is not None and same else None
        model.hint(dev, times if model.start else None)
    clock.tell("exact search")
    stop = None if target is None else model.scale.down(target)
    refused, taken, spent = 0, False, 0.0
    while True:
        params, extra = clock.params(limit, share), tuning(request)
        if extra and request.objective == "latency":
            params = replace(params, workers=1, interleave=False)
        if core:
            extra = {**extra, "optimize_with_core": True}
        found = cpsat.solve(model.cp, params, extra=extra, target=stop)
        proof.interrupted |= found.interrupted
        spent += found.work
        if not found.found:
            break
        taken = take(p, inc, model, found, "cpsat")
        if taken or inc.keeps_last:
            break
        dev = placed(p, model, found)
        if inc.keeps(dev, None) and (model.scale.exact or _timed(p, inc, clock, dev)):
            break  # rounded times do not fit, exact ones of the same placement may
        # What the model leaves out (memory of inputs in flight) refuses this placement: not again.
        model.refuse(found)
        refused += 1
        if refused == OWN.refusals or spent > OWN.refused * limit * clock.request.effort:
            break
    if found.status == "INFEASIBLE" and below is not None:
        if not refused:
            proof.raise_to(below, "exact search")
    elif found.status == "INFEASIBLE" and best is None:
        proof.notes.append("infeasible")
    elif found.status == "INFEASIBLE" and best is not None:
        # Nothing as good as the incumbent within the rounded horizon: it is optimal.
        proof.raise_to(best.value, "exact search")
        proof.closed = True
    elif found.status in ("OPTIMAL", "FEASIBLE", "UNKNOWN"):
        proof.rounded |= not model.scale.exact
        proof.know(reached(model.goal, model.scale, found), "exact search")
        # A plan that rounded times did not tell leaves room for better ones on finer times.
        proof.closed |= found.status == "OPTIMAL" and (taken or inc.keeps_last)
    return found.status


def _timed(p: Problem, inc: Incumbent, clock: Clock, dev: Ints) -> bool:
    """Whether a placement has times that keep memory, on ticks of its own: costs of other devices
    may be so much larger that its times were all rounded to nothing."""
    # One after the other, with every value sent to every reader: no plan needs longer.
    own = sum(float(p.cost[t, d]) for t, d in enumerate(dev.tolist()))
    sends = sum(
        float(p.waits(v)[dev[u], dev[c]]) for v, u in enumerate(p.value_src) for c in p.consumers(v)
    )
    model = build(p, clock.request, (own + sends) * (1 + 1e-6))
    model.among(np.array([dev]))
    params = replace(clock.params(*OWN.among), workers=1, interleave=False)
    found = cpsat.solve(model.cp, params, extra=tuning(clock.request))
    return found.found and take(p, inc, model, found, "cpsat")


def few_left(p: Problem, inc: Incumbent, proof: Proof, clock: Clock, hits: int) -> None:
    """Searches the placements that may stay below makespans from the lower bound upwards, as long
    as these are few: far above the load bound they never are."""
    most = OWN.listable * bounds.window_load(p)
    for part in OWN.goals:
        if inc.best is None or clock.left() < 0.2 or proof.interrupted or proof.closed:
            return
        high = inc.best.value
        goal = proof.value + part * (high - proof.value) if part < 1 else high
        if goal > most:
            return
        clock.tell(f"listing placements below {clock.ms(goal)}")
        rows = placements(p, goal * ABOVE, hits=hits, stop=lambda: clock.left() < 0.1)
        if rows is None or not search_among(p, inc, proof, clock, rows, goal):
            return


def search_among(
    p: Problem, inc: Incumbent, proof: Proof, clock: Clock, rows: Ints, goal: float
) -> bool:
    """CP-SAT on the placements `rows`, which are all that may have a makespan below `goal`: an
    optimum among them is the optimum, and where they have no plan, `goal` is a bound. Says whether
    either was proved."""
    status, least = "INFEASIBLE", None
    if len(rows):
        model = build(p, clock.request, goal)
        model.among(rows)
        params = replace(clock.params(*OWN.among), workers=1, interleave=False)
        found = cpsat.solve(model.cp, params, extra=tuning(clock.request))
        proof.interrupted |= found.interrupted
        status = found.status
        if found.found:
            take(p, inc, model, found, "placements")
        if status == "OPTIMAL":
            proof.rounded |= not model.scale.exact
            least = reached(model.goal, model.scale, found)
    best = inc.best.value if inc.best is not None else float("inf")
    if least is not None:  # the best of these, and all others reach `goal`
        proof.know(min(least, Fraction(goal) * SURELY * p.unit), "all placements")
        proof.closed = True
    elif status == "INFEASIBLE" and goal >= best:
        proof.raise_to(best, "all placements")
        proof.closed = True
    elif status == "INFEASIBLE":
        proof.raise_to(goal, "all placements")
    return status in ("OPTIMAL", "INFEASIBLE")


def exact_rounds(search: Search, count: int, share: float) -> None:
    """The next `count` rounds of `exact`, while it improves: each model knows the better horizon.
    For the makespan placements are listed before each round, on the wall clock and a second worker
    beside the later rounds."""
    p, inc, proof, clock = search.p, search.inc, search.proof, search.clock
    # Listing serves the makespan: its conditions are about paths.
    listed = clock.request.objective == "latency"
    aside = listed and clock.wall and clock.request.workers > 1
    most = OWN.listable * bounds.window_load(p) if aside else 0.0
    rounds = OWN.rounds if p.n <= OWN.small else OWN.large_rounds
    first, search.rounds = search.rounds, min(len(rounds), search.rounds + count)
    with ThreadPoolExecutor(1) as pool:
        for number in range(first, search.rounds):
            limit, part = rounds[number]
            # The list is of placements that beat this plan, whatever is found meanwhile.
            before = inc.best.value if inc.best is not None else float("inf")
            if settled(p, inc, proof):  # as exact numbers: floats may agree where these do not
                return
            if listed:
                few_left(p, inc, proof, clock, OWN.hits[0 if aside else number])
            job = None
            if aside and number and not proof.closed and before <= most:
                job = pool.submit(placements, p, before * ABOVE, stop=lambda: clock.left() < 0.1)
            if not proof.closed:
                exact(p, inc, proof, clock, limit, share * part)
            rows = job.result() if job is not None else None
            if rows is not None and not proof.closed and not proof.interrupted:
                search_among(p, inc, proof, clock, rows, before)
            if proof.closed or proof.interrupted or proof.notes:
                return
            better = inc.best is not None and inc.best.value < before * (1 - 1e-9)
            # A further round would be over before its model is built.
            if number and not better and clock.wall and clock.left() < 1.0:
                return


def bisected(search: Search, share: float) -> None:
    """Makespans between the bound and the best plan, each within a small limit: whether it finds a
    plan or refutes them all, the gap is smaller. Below a horizon that is far from the best plan
    propagation does most of the work, which from the best plan down it would not."""
    p, inc, proof, clock = search.p, search.inc, search.proof, search.clock.part(share)
    part, vain, moved = 0.5, 0, False
    for _ in range(OWN.bisections):
        low, high = proof.value, inc.best.value if inc.best is not None else 0.0
        gone = clock.wall and clock.left() < OWN.least
        if settled(p, inc, proof) or proof.closed or proof.interrupted or gone:
            return
        if low >= high * (1 - OWN.wide_gap) or vain == 2:
            break
        middle = low + part * (high - low)
        clock.tell(f"exact search below {clock.ms(middle)}")
        share = 0.5 / OWN.bisections
        status = exact(p, inc, proof, clock, OWN.bisection, share, below=middle)
        if status == "UNKNOWN":
            # Nearer to the bound there is more to refute it with.
            part, vain = part / 2, vain + 1
        else:
            vain, moved = 0, True
    # Where that got somewhere, the rest may be within reach too.
    if moved and not settled(p, inc, proof) and not proof.closed:
        exact(p, inc, proof, clock, OWN.closing, core=True)


def _between(search: Search, step: Step) -> str | None:
    p, best = search.p, search.inc.best
    if search.request.objective != LATENCY or best is None:
        return "it needs a plan to begin from, and makespans"
    if p.n <= OWN.tasks or not small_enough(p):
        return "exact search on the whole serves fewer tasks, and nothing serves many"
    return None


def _bisect(search: Search, step: Step) -> None:
    bisected(search, step.share)


def _worth(search: Search, step: Step) -> str | None:
    """Where there is no plan, it is the one method that proves that none exists."""
    p, best, proof, r = search.p, search.inc.best, search.proof, search.request
    if step.when == "shaped" and not r.shaped:
        return "annealing serves what need not be convex"
    if best is None or step.when == "always":
        return None
    if step.when == "nothing found":
        return "there is a plan"
    if r.objective != LATENCY:
        if p.n > OWN.period_tasks or search.clock.left() <= OWN.build * p.n:
            return "the model takes longer to build than there is time"
        return None
    nearly = best.value <= proof.value * (1 + OWN.near_gap) and p.n <= OWN.near_tasks
    return (
        None
        if p.n <= OWN.tasks or r.shaped or nearly
        else f"more than {OWN.tasks} tasks, and a wide gap"
    )


def _run(search: Search, step: Step) -> None:
    share = (
        1.0 if search.p.n <= NUMBERS.lists.interpreted else step.share
    )  # nothing comes after it on small graphs
    exact_rounds(search, step.rounds or len(OWN.rounds), share)


METHOD = Method("exact", _worth, _run)
BETWEEN = Method("bisect", _between, _bisect)
