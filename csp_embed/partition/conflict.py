"""Which constraint stands in the way of an infeasible problem.

Takes: a Problem proved infeasible and its Request.  Leaves: names of constraints, each of which
alone, when left out, makes it feasible; all that were tried together where none does.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from csp_embed.partition.arrays.view import Problem
from csp_embed.partition.models.search import build
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.proof import far
from csp_embed.partition.request import Request
from csp_embed.solver import cpsat
from csp_embed.solver.params import Params

OWN = NUMBERS.exact


def reasons(p: Problem, request: Request) -> list[str]:
    """Short texts that name the memory, links or limits at fault."""
    # Each constraint is left out alone; the rest stays, so that whoever is named is really at
    # fault.
    trials: list[tuple[str, Problem, Request]] = []
    if np.isfinite(p.memory).any():
        devices = [
            d.name for d, b in zip(p.platform.devices, p.memory, strict=True) if np.isfinite(b)
        ]
        free = replace(p, memory=np.full(p.m, np.inf))
        trials.append((f"memory of {', '.join(devices)}", free, request))
    # Devices that cannot talk, as if a link without delay joined them.
    if not np.isfinite(p.lat).all():
        joined = replace(
            p,
            lat=np.where(np.isfinite(p.lat), p.lat, 0.0),
        )
        trials.append(("links: devices that cannot talk", joined, request))
    if request.max_latency is not None:
        trials.append(
            (
                f"max latency {request.max_latency * float(p.unit):g} ms",
                p,
                replace(request, max_latency=None),
            )
        )
    if request.min_throughput is not None:
        text = f"min throughput {request.min_throughput / float(p.unit):g} samples per ms"
        trials.append((text, p, replace(request, min_throughput=None)))
    if request.shaped:
        loose = replace(request, contiguous=False, pipeline=False)
        trials.append(("contiguous or pipeline", p, loose))
    pins = sorted(t.id for t in p.graph.tasks if t.pin is not None)
    if pins:
        trials.append((f"pins of {', '.join(pins[:5])}", _unpinned(p), request))
    found = [text for text, q, r in trials if _possible(q, r)]
    # Where it takes two constraints to be in the way, all of them are named.
    return found or [text for text, *_ in trials]


def _unpinned(p: Problem) -> Problem:
    """The same where pinned tasks may use every device that has a cost."""
    from csp_embed.partition.arrays.view import in_unit, make_problem

    # The arrays hold pins as inf costs, so they are made anew from the graph.
    tasks = tuple(replace(t, pin=None) for t in p.graph.tasks)
    return in_unit(make_problem(replace(p.graph, tasks=tasks), p.platform), p.unit)


def _possible(p: Problem, request: Request) -> bool:
    horizon = request.max_latency if request.max_latency is not None else far(p)
    # Never shorter than some plan surely takes, or the horizon itself would be the conflict.
    model = build(p, request, max(horizon, far(p)))
    # Any solution answers the question; the best one would cost time for nothing.
    model.cp.clear_objective()
    return cpsat.solve(model.cp, Params(deterministic_limit=OWN.why)).found
