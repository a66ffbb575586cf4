"""Solving under the dnn-partitioning cost model.

Takes: a workload, a clock.  Leaves: a Plan.  Quick placements, pipelines by dynamic programs,
annealing, then CP-SAT in rounds; see `dnn/`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from csp_embed.errors import Infeasible, InputError
from csp_embed.ir.network import THROUGHPUT, UNKNOWN, Plan, Platform, TaskGraph
from csp_embed.partition.arrays.symmetry import trimmed
from csp_embed.partition.dnn import rounds, starts
from csp_embed.partition.dnn.state import State
from csp_embed.partition.models.dnn import make_dnn
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.request import Clock, in_units
from csp_embed.partition.supervise import INTERRUPTED, supervised

OWN = NUMBERS.dnn


def solve_dnn(
    graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str], start: Plan | None
) -> Plan:
    """A plan under this cost model. Raises: InputError, Infeasible."""
    request = clock.request
    # Methods of the other model rest on links and queues, which are not here.
    if request.method not in ("auto", "exact", "anneal", "split", "greedy", "single"):
        raise InputError(
            f"method {request.method!r} does not serve the cost model dnn-partitioning",
            hint="auto, exact, anneal, split, greedy or single",
        )
    # This model has either times or loads, never both.
    cross = request.max_latency if request.objective == THROUGHPUT else request.min_throughput
    if cross is not None:
        raise InputError(
            "the cost model dnn-partitioning takes no limit on the other objective",
            hint="limit the objective itself or use the default cost model",
        )
    found: list[State] = []
    status = [UNKNOWN]

    def search() -> None:
        # Devices that nobody names and no plan needs only make models larger.
        few = trimmed(
            graph, platform, {*fix.values(), *(start.device_of().values() if start else ())}
        )
        dnn = make_dnn(graph, few, fix)
        # Limits are in ms, the searches count in the workload's own unit.
        own = clock.of(in_units(request, dnn.p), dnn.p.unit)
        state = State(dnn, own)
        found.append(state)
        status[0] = _search(state, start)

    # Until there is a placement the limit may be stretched a little; see `supervised`.
    ended = supervised(search, clock, lambda: bool(found) and found[0].dev is not None)
    if status[0] == "INFEASIBLE":
        finite = any(d.memory_bytes is not None for d in platform.devices)
        raise Infeasible(
            "no placement keeps memory, colours and shape",
            where="memory" if finite else "pins and colours",
            why="proved by exact search",
            hint="use more or larger accelerators, or drop --contiguous",
        )
    reasons = ("interrupted",) if ended == INTERRUPTED else ()
    if not found:  # the limit came before the first arrays
        return Plan(
            request.objective, None, 0.0, None, UNKNOWN, request.method, reasons=reasons,
            graph_sha256=graph.sha256, platform_sha256=platform.sha256,
        )  # fmt: skip
    return replace(found[0].plan(), reasons=reasons)


def _search(state: State, start: Plan | None) -> str:
    """The steps of the method that was asked for; the last status."""
    p, method = state.dnn.p, state.clock.request.method
    if start is not None:
        at = {d.name: i for i, d in enumerate(p.platform.devices)}
        named = start.device_of()
        # A start that names unknown devices or leaves tasks out is not mended here, only left out.
        if all(named.get(t) in at for t in p.ids):
            state.offer(np.array([at[named[t]] for t in p.ids], np.int64), "start")
    if method != "split":
        starts.quick(state, method)
    # Bounds after the first placements: on a short limit a plan comes first.
    state.bound()
    if method in ("single", "greedy") or state.settled():
        return UNKNOWN
    starts.pipelines(state)
    if method == "split" or state.settled():
        return UNKNOWN
    # Exact search comes after annealing in "auto" and "exact", which then needs fewer chains.
    starts.anneal(state, OWN.chains[0 if method in ("auto", "exact") else 1])
    if method == "anneal" or state.settled():
        return UNKNOWN
    return rounds.exact(state)
