"""The exact model of a request, and what a solver's answer says in exact numbers.

Takes: a Problem, a Request.  Leaves: a `Model`; offers of its solutions; bounds in ms.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np

from csp_embed.ir.network import LATENCY
from csp_embed.partition.arrays.view import Ints, Problem
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.bounds.destructive import small_enough, tightened
from csp_embed.partition.models.cpsat import Model
from csp_embed.partition.models.scale import Scale
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.request import Incumbent, Request
from csp_embed.partition.times.timetable import carried, retimed


def build(p: Problem, request: Request, horizon: float) -> Model:
    """The exact model of the request's objective and constraints."""
    model = Model(p, horizon)
    timed = request.objective == "latency" or request.max_latency is not None
    steady = request.objective != "latency" or request.min_throughput is not None
    # Without queues a period has no sends: nothing of a value would count.
    if timed or (steady and (p.contended() or p.handled())):
        model.send()
    if timed:
        # Heads and tails cut down each task's domain before the search begins.
        heads, tails = bounds.path_bounds(p)
        tight = None
        # Of fewer tasks the solver finds out as quickly, and nothing needs compiling.
        if request.objective == LATENCY and p.n > NUMBERS.lists.interpreted and small_enough(p):
            tight = tightened(p, horizon)
        if tight is None:
            model.schedule(heads, tails)
        else:
            able = np.isfinite(tight.cost)
            model.schedule(np.where(able, tight.heads, heads), np.where(able, tight.tails, tails))
            model.forbid(~able)
    if steady:
        model.loads()
        model.flight()
    model.shape(request.contiguous, request.pipeline)
    # Limits of either kind are constraints on variables that exist by then.
    if request.max_latency is not None:
        model.cp.add(model.makespan <= model.scale.limit(request.max_latency))
    if request.min_throughput is not None:
        model.cp.add(model.period <= model.scale.limit(1.0 / request.min_throughput))
    model.goal = model.makespan if request.objective == "latency" else model.period
    model.cp.minimize(model.goal)
    return model


def reached(goal: Any, scale: Scale, found: Any) -> Fraction:
    """ms below which CP-SAT has proved that there is nothing. goal: the variable that it made
    small."""
    if found.status == "OPTIMAL":
        # An optimum is exact: the goal's own ticks.
        return int(found.value(goal)) * scale.tick
    if not np.isfinite(found.bound):
        return Fraction(0)
    # The bound comes as a float of whole ticks, which beyond 2^53 is rounded to either side.
    return max(0, math.ceil(found.bound * (1 - 2.0**-50) - 1e-6)) * scale.tick


def placed(p: Problem, model: Model, found: Any) -> Ints:
    """Devices in a solver's solution."""
    at = (model.at(t) for t in range(p.n))
    return np.array([next(d for d, x in here.items() if found.value(x)) for here in at], np.int64)


def take(p: Problem, inc: Incumbent, model: Model, found: Any, method: str) -> bool:
    """Offers a solver's solution with exact times."""
    dev = placed(p, model, found)
    if not model.start:
        return inc.offer(dev, None, method)
    # The solver's starts only tell the order; exact times follow from it.
    start = [found.value(s) for s in model.start]
    hops = {key: found.value(h) for key, h in model.hop_start.items()}
    ends = [found.value(e) for e in model.end]
    passed: dict[tuple[int, int, int], float] = {}
    for v, b, k, h in zip(*(x.tolist() for x in carried(p, dev)), strict=True):
        # Routes without a queue are not in the model: their hops follow one another.
        before = hops.get((v, b, k), passed[v, b, k - 1] if k else ends[p.value_src[v]])
        passed[v, b, k] = before + model.hop(v, h)
    return inc.offer(dev, retimed(p, dev, start, hops, ends=(ends, passed)), method)


def tuning(request: Request) -> dict[str, Any]:
    """Parameters of CP-SAT. On makespans alone its linear relaxation costs more than it gives
    (`bounds.window_load` is that bound) and learnt clauses do the work; a second worker would be
    another search, of less use than what runs beside this one."""
    # With a period in the model its loads are linear: then the relaxation is of use.
    plain = request.objective == "latency" and request.min_throughput is None
    return {"linearization_level": 0} if plain else {}
