"""Latency: list schedules, annealing, exact CP-SAT and neighbourhoods around the best plan.

Takes: a Problem, a Request, an Incumbent.  Leaves: the incumbent improved, and proved bounds.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from fractions import Fraction
from typing import Any

import numpy as np

from csp_embed.partition import kernels
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.exact import DOUBLE, Exact
from csp_embed.partition.methods.anneal import anneal
from csp_embed.partition.methods.list_scheduling import ListScheduler, Placement
from csp_embed.partition.methods.placements import placements
from csp_embed.partition.methods.reinsert import ordered, reinsert
from csp_embed.partition.models.cpsat import Model, Scale
from csp_embed.partition.request import Clock, Incumbent, Request
from csp_embed.partition.symmetry import canonical, device_classes
from csp_embed.partition.timetable import Timetable, carried, decoded, retimed
from csp_embed.partition.view import Ints, Problem, _csr
from csp_embed.solver import cpsat

SMALL = 30  # up to here interpreted list schedulers and CP-SAT are quicker than compiling
EXACT = 40  # above this many tasks the exact model is left to neighbourhoods, unless all but proved
NEAR = 0.005  # gap below which a proof is tried on up to 160 tasks
# First and last temperatures of chains by reinsertion, of the makespan, and weight of their work:
# it helps where devices are busy most of the time and hinders where paths are all.
HEATS = ((0.02, 1e-3, 1.0), (0.01, 5e-4, 0.0), (0.02, 1e-3, 3.0))
TRIAL = 1500  # proposals
GROWTH = 30  # from one round to the next, at most
CHAIN, WARM = 1.5e7, 0.3  # steps times tasks of a chain beside neighbourhoods; its temperature
REFUSALS = 200  # placements that one exact search may propose in vain
ABOVE = 1 + 1e-8  # placements are listed to a little above a makespan, so that none is missed
LISTABLE = 1.05  # placements are listed up to so many times the load bound
FLOATS = Fraction(1, 10**9)  # relative: more than any sum or product of floats here loses
SAME = 1e-13  # relative: floats of one exact value differ less
HITS = (
    100_000,
    100_000,
    400_000,
    3_000_000,
)  # placements that may be judged before each exact round


@dataclass
class Proof:
    """The best lower bound so far. closed: some exact search proved its optimum.

    sure: ms, holds exactly; value: the same in `unit` ms, as the searches have it. tick: ms of
    which every objective is a multiple (0: not known). rounded: times are too unlike for 64 bits,
    so that a finished search leaves a bound less by that rounding."""

    value: float = 0.0
    name: str = "none"
    closed: bool = False
    interrupted: bool = False
    notes: list[str] = field(default_factory=list)
    sure: Fraction = Fraction(0)
    unit: Fraction = Fraction(1)
    tick: Fraction = Fraction(0)
    rounded: bool = False

    @classmethod
    def of(cls, p: Problem) -> Proof:
        """Nothing proved yet."""
        return cls(unit=p.unit, tick=Exact.of(p).tick or Fraction(0))

    def raise_to(self, value: float, name: str) -> None:
        """Keeps the larger bound; `value` was added up in floats, whose errors are given back."""
        if np.isfinite(value):
            self.know(Fraction(float(value)) * (1 - FLOATS) * self.unit, name)

    def know(self, sure: Fraction, name: str) -> None:
        """Keeps the larger bound; `sure` (ms) holds exactly. An objective is a whole number of
        ticks, so a bound between two is as good as the next."""
        if self.tick:
            sure = -(-sure // self.tick) * self.tick
        if sure > self.sure:
            self.sure, self.name, self.value = sure, name, float(sure / self.unit)

    def meets(self, objective: Fraction) -> bool:
        """Whether an objective (ms) is proved the least: as exact numbers, and only where times had
        to be rounded, to all but the last digits of a double."""
        lost = objective * DOUBLE if self.rounded else 0
        return objective - lost <= self.sure

    def settles(self, value: float) -> bool:
        """Whether nothing better than `value` (in units) can be hoped for."""
        return value <= self.value * (1 + SAME)


def lists(p: Problem, inc: Incumbent, compiled: bool, large: bool = False) -> list[Placement]:
    """All list schedules, offered; best first."""
    scheduler = ListScheduler(p, compiled)
    found = scheduler.portfolio(large)
    for x in found:
        table = decoded(p, x.order, x.dev, scheduler.k, scheduler.a, scheduler.w)
        inc.offer(x.dev, table, x.method)
    return found


def annealed(
    p: Problem, inc: Incumbent, clock: Clock, starts: list[Placement], steps: int, share: float,
    low: float = 0.0,
) -> None:  # fmt: skip
    """Chains from the best starts in turn; two at a time with two workers.

    Deterministic: `steps` proposals per chain, one chain per start. Wall clock: four chains for
    each worker, as long as a share of what is left allows. low: a bound at which to stop, ms."""
    lanes = [x for x in starts if np.isfinite(x.value)]
    if not lanes:
        return
    chains, request = Chains(p, clock), clock.request
    threads = max(1, request.workers)
    begun = clock.seconds()
    budget, number, factor = 0.0, 0, 1.0
    if clock.wall:
        # The first round is a trial of the pace: contended links cost far more a proposal.
        budget, factor = clock.left() * share, min(1.0, TRIAL / steps)
    with ThreadPoolExecutor(threads) as pool:
        while True:
            before = clock.seconds()  # jobs may end before this thread goes on
            jobs = [
                pool.submit(chains.run, slot, lanes[(number + slot) % len(lanes)],
                            number + slot, int(steps * factor))
                for slot in range(threads)
            ]  # fmt: skip
            for job in jobs:
                chains.offer(inc, job.result())
            number += threads
            best = inc.best.value if inc.best else float("inf")
            clock.tell(f"annealing, {clock.ms(best)}", number, max(number, len(lanes)))
            if best <= low * (1 + SAME):
                return
            if not clock.wall:
                if number >= len(lanes):
                    return
                continue
            pace = (clock.seconds() - before) / (steps * factor)
            left = budget - (clock.seconds() - begun)
            # The pace of a short round is a rough one.
            factor = min(GROWTH * factor, min(budget / 4, left) / max(pace * steps, 1e-9))
            if left < budget / 20 or factor * steps < 1000:
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
        self.member_ptr, self.members = _csr(p.groups())
        self.arrays = kernels.arrays(p)
        self.spaces = [kernels.work(p) for _ in range(max(1, clock.request.workers))]
        self.graph = ordered(p) if self.plain else None

    def run(
        self, slot: int, start: Placement, number: int, steps: int, warm: float = 1.0
    ) -> Placement:
        """One chain. warm: factor on the first temperature."""
        p, order, dev = self.p, start.order.copy(), start.dev.copy()
        seed = self.seed * 1000 + number + 1
        scale = max(start.value, 1e-9)  # a plan that takes no time has no temperature of its own
        if self.plain:
            hot, cold, work = HEATS[number % len(HEATS)]
            hot, cold = max(warm * hot, cold) * scale, cold * scale
            value = reinsert(self.graph, order, dev, max(steps, 1), hot, cold, work, seed)
        else:
            hot = (0.01, 0.03, 0.005)[number % 3] * scale
            value = anneal(
                self.arrays, self.spaces[slot], p.lat, p.inv, self.activation, self.members,
                self.member_ptr, order, dev, steps, hot, 1e-4 * scale, seed,
            )  # fmt: skip
        return Placement(order, dev, float(value), "anneal")

    def offer(self, inc: Incumbent, x: Placement) -> None:
        """A chain's result as a timetable."""
        if inc.best is None or x.value < inc.best.value:
            inc.offer(x.dev, decoded(self.p, x.order, x.dev), x.method)


def build(p: Problem, request: Request, horizon: float) -> Model:
    """The exact model of the request's objective and constraints."""
    model = Model(p, horizon)
    timed = request.objective == "latency" or request.max_latency is not None
    steady = request.objective != "latency" or request.min_throughput is not None
    if timed or (steady and p.contended()):
        model.send()
    if timed:
        model.schedule(*bounds.path_bounds(p))
    if steady:
        model.loads()
    model.shape(request.contiguous, request.pipeline)
    if request.max_latency is not None:
        model.cp.add(model.makespan <= model.scale.limit(request.max_latency))
    if request.min_throughput is not None:
        model.cp.add(model.period <= model.scale.limit(1.0 / request.min_throughput))
    model.goal = model.makespan if request.objective == "latency" else model.period
    model.cp.minimize(model.goal)
    return model


def exact(
    p: Problem, inc: Incumbent, proof: Proof, clock: Clock, limit: float, share: float = 1.0,
    target: float | None = None,
) -> str:  # fmt: skip
    """CP-SAT on the whole problem, hinted with the incumbent. Returns the solver's status.

    target: a value in ms at which it stops, with whatever bound it has by then."""
    request = clock.request
    best = inc.best
    model = build(p, request, horizon(p, inc))
    classes = device_classes(p)
    model.symmetry(classes)
    if best is not None:
        dev = canonical(p, best.dev, classes)
        same = bool((dev == best.dev).all())
        times = best.table.start if best.table is not None and same else None
        model.hint(dev, times if model.start else None)
    clock.tell("exact search")
    stop = None if target is None else model.scale.down(target)
    for _ in range(REFUSALS):
        params, extra = clock.params(limit, share), tuning(request)
        if extra and request.objective == "latency":
            params = replace(params, workers=1, interleave=False)
        found = cpsat.solve(model.cp, params, extra=extra, target=stop)
        proof.interrupted |= found.interrupted
        if not found.found or take(p, inc, model, found, "cpsat") or inc.keeps_last:
            break
        if inc.keeps(placed(p, model, found), None):
            break  # rounded times do not fit, exact ones of the same placement may
        # What the model leaves out (memory of inputs in flight) refuses this placement: not again.
        model.refuse(found)
    if found.status == "INFEASIBLE" and best is None:
        proof.notes.append("infeasible")
    elif found.status == "INFEASIBLE" and best is not None:
        # Nothing as good as the incumbent within the rounded horizon: it is optimal.
        proof.raise_to(best.value, "exact search")
        proof.closed = True
    elif found.status in ("OPTIMAL", "FEASIBLE", "UNKNOWN"):
        proof.rounded |= not model.scale.exact
        proof.know(reached(model.goal, model.scale, found), "exact search")
        proof.closed |= found.status == "OPTIMAL"
    return found.status


def reached(goal: Any, scale: Scale, found: Any) -> Fraction:
    """ms below which CP-SAT has proved that there is nothing. goal: the variable that it made
    small."""
    if found.status == "OPTIMAL":
        return int(found.value(goal)) * scale.tick
    if not np.isfinite(found.bound):
        return Fraction(0)
    # The bound comes as a float of whole ticks, which beyond 2^53 is rounded to either side.
    return max(0, math.ceil(found.bound * (1 - 2.0**-50) - 1e-6)) * scale.tick


def tuning(request: Request) -> dict[str, Any]:
    """Parameters of CP-SAT. On makespans alone its linear relaxation costs more than it gives
    (`bounds.window_load` is that bound) and learnt clauses do the work; a second worker would be
    another search, of less use than what runs beside this one."""
    plain = request.objective == "latency" and request.min_throughput is None
    return {"linearization_level": 0} if plain else {}


def few_left(p: Problem, inc: Incumbent, proof: Proof, clock: Clock, hits: int) -> None:
    """Searches the placements that may stay below makespans from the lower bound upwards, as long
    as these are few: far above the load bound they never are."""
    most = LISTABLE * bounds.window_load(p)
    for part in (1 / 64, 1 / 16, 1 / 4, 1.0):
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
    status = "INFEASIBLE"
    if len(rows):
        model = build(p, clock.request, goal)
        model.among(rows)
        params = replace(clock.params(2.0, 0.5), workers=1, interleave=False)
        found = cpsat.solve(model.cp, params, extra=tuning(clock.request))
        proof.interrupted |= found.interrupted
        status = found.status
        if found.found:
            take(p, inc, model, found, "placements")
    best = inc.best.value if inc.best is not None else float("inf")
    if status == "OPTIMAL":  # the best of these, and all others reach `goal`
        others = Fraction(goal * (1 + 1e-12)) * p.unit
        proof.rounded |= not model.scale.exact
        least = min(reached(model.goal, model.scale, found), others)
        proof.know(least, "all placements")
        proof.closed = True
    elif status == "INFEASIBLE" and goal >= best:
        proof.raise_to(best, "all placements")
        proof.closed = True
    elif status == "INFEASIBLE":
        proof.raise_to(goal, "all placements")
    return status in ("OPTIMAL", "INFEASIBLE")


def exact_rounds(p: Problem, inc: Incumbent, proof: Proof, clock: Clock, share: float) -> None:
    """`exact` again and again while it improves: each model knows the better horizon. For the
    makespan placements are listed before each round, on the wall clock and a second worker beside
    the later rounds."""
    listed = clock.request.objective == "latency"
    aside = listed and clock.wall and clock.request.workers > 1
    most = LISTABLE * bounds.window_load(p) if aside else 0.0
    rounds = ((0.4, 0.05), (1.0, 0.1), (3.0, 0.3), (10.0 if p.n <= 60 else 6.0, 1.0))
    with ThreadPoolExecutor(1) as pool:
        for number, (limit, part) in enumerate(rounds):
            if listed:
                few_left(p, inc, proof, clock, HITS[0 if aside else number])
            before = inc.best.value if inc.best is not None else float("inf")
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
            if number and not better and clock.wall and clock.left() < 1.0:
                return


def horizon(p: Problem, inc: Incumbent) -> float:
    """Times beyond this matter to no better plan."""
    if inc.request.objective != "latency" and inc.request.max_latency is not None:
        return inc.request.max_latency
    return inc.best.value if inc.best is not None else far(p)


def far(p: Problem) -> float:
    """A makespan that some plan surely keeps: everything one after the other, all values sent."""
    longest = np.where(np.isfinite(p.cost), p.cost, 0.0).max(axis=1).sum()
    away = np.isfinite(p.lat[: p.m])
    sends = sum(
        float(p.waits(v)[away].max()) * len(p.consumers(v)) for v in range(len(p.value_src))
    )
    return float(longest + sends) * (1 + 1e-6)


def placed(p: Problem, model: Model, found: Any) -> Ints:
    """Devices in a solver's solution."""
    at = (model.at(t) for t in range(p.n))
    return np.array([next(d for d, x in here.items() if found.value(x)) for here in at], np.int64)


def take(p: Problem, inc: Incumbent, model: Model, found: Any, method: str) -> bool:
    """Offers a solver's solution with exact times."""
    dev = placed(p, model, found)
    if not model.start:
        return inc.offer(dev, None, method)
    start = [found.value(s) for s in model.start]
    hops = {key: found.value(h) for key, h in model.hop_start.items()}
    ends = [found.value(e) for e in model.end]
    passed: dict[tuple[int, int, int], float] = {}
    for v, b, k, h in zip(*(x.tolist() for x in carried(p, dev)), strict=True):
        before = hops.get((v, b, k), passed[v, b, k - 1] if k else ends[p.value_src[v]])
        passed[v, b, k] = before + model.hop(v, h)
    return inc.offer(dev, retimed(p, dev, start, hops, ends=(ends, passed)), method)


def neighbourhoods(
    p: Problem, inc: Incumbent, proof: Proof, clock: Clock, rounds: int, size: int
) -> None:
    """LNS: free some tasks, keep the devices and mutual order of all others, solve with CP-SAT.

    Neighbourhoods in turn: a time window, a task's ancestors and descendants nearby, random tasks.
    Sizes adapt: larger after a proof, smaller after a limit. On the wall clock every further worker
    anneals from the best plan meanwhile."""
    request, rng = clock.request, np.random.default_rng(clock.request.seed)
    aside = request.workers - 1 if clock.wall and not request.shaped else 0
    chains = Chains(p, clock)
    done, jobs = 0, {}
    with ThreadPoolExecutor(max(1, aside)) as pool:
        while inc.best is not None and inc.best.table is not None and not proof.interrupted:
            if clock.left() <= 0.5 if clock.wall else done >= rounds:
                break
            if proof.settles(inc.best.value):
                break
            table = inc.best.table
            for slot in range(aside):
                if slot in jobs and jobs[slot].done():
                    chains.offer(inc, jobs.pop(slot).result())
                if slot not in jobs and clock.left() > 2.0:
                    start = Placement(table.order(), table.dev, inc.best.value, "")
                    steps = int(CHAIN / max(p.n, 1))
                    jobs[slot] = pool.submit(chains.run, slot, start, done + slot, steps, WARM)
            free = choose(p, table, rng, done % 3, size)
            model = build(p, request, inc.best.value)
            pin_down(p, model, table, free)
            model.hint(table.dev, table.start)
            params = replace(clock.params(0.15), workers=1, interleave=False)
            if clock.wall:
                params = replace(params, time_limit=min(3.0, clock.left()))
            found = cpsat.solve(model.cp, params, extra=tuning(request))
            proof.interrupted |= found.interrupted
            if found.found:
                take(p, inc, model, found, "lns")
            size = min(p.n, size + 2) if found.status == "OPTIMAL" else max(6, size - 2)
            done += 1
            clock.tell(f"neighbourhoods, {clock.ms(inc.best.value)}", done, rounds)
        for job in jobs.values():
            chains.offer(inc, job.result())


def choose(p: Problem, table: Timetable, rng: Any, kind: int, size: int) -> set[int]:
    """Tasks to free."""
    size = min(size, p.n)
    if kind == 0:
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
        if int(p.group[t]) in loose:
            continue
        d = int(table.dev[t])
        model.cp.add(model.at(t)[d] == 1)
        if d in last:
            model.cp.add(model.start[t] >= model.end[last[d]])
        last[d] = t
