"""CP-SAT in rounds on a dnn-partitioning workload.

Takes: a State.  Leaves: its placement and its proof improved.

Each model knows the best value so far as its horizon, which strengthens its bounds, and gets twice
the limit of the round before. Between rounds: annealing, and pairs of devices solved exactly.
"""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np

from csp_embed.ir.network import FEASIBLE, OPTIMAL, UNKNOWN
from csp_embed.partition.dnn.starts import chain
from csp_embed.partition.dnn.state import State
from csp_embed.partition.models.dnn import Dnn
from csp_embed.partition.models.dnn_cpsat import Built, build
from csp_embed.partition.models.dnn_times import canonical
from csp_embed.partition.models.search import reached
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.solver import cpsat
from csp_embed.solver.status import Solved

OWN = NUMBERS.dnn


def exact(state: State) -> str:
    """Rounds of CP-SAT until a proof or the limit; the last status."""
    clock, r = state.clock, state.clock.request
    limit, status, number = OWN.first, UNKNOWN, 100
    # Building counts too: models of large workloads take longer to build than a short round runs.
    spent = building = size(state.dnn) * OWN.build
    while clock.left() > 0 and not state.interrupted:
        # Without a limit the first round is for a proof of small ones; large ones have no time.
        if not clock.wall and spent + limit > OWN.total:
            break
        # On the wall clock a round gets a fifth of what is left, at least 4 s.
        share = max(0.2, 4.0 / max(clock.left(), 0.1)) if clock.wall else 1.0
        found = _round(state, limit, min(share, 1.0))
        status = found.status
        if status == "INFEASIBLE":
            # With a limit: nothing keeps it. Without: nothing is better than the placement at hand.
            if state.dev is None or r.max_latency is not None or r.min_throughput is not None:
                return status
            state.raise_to(state.value, "exact search")
            return OPTIMAL
        if status == OPTIMAL or state.settled():
            return OPTIMAL
        spent += limit + building
        if not state.latency:
            # Annealing on loads does not keep convex sets.
            if not r.shaped:
                chain(state, number)
                number += 1
            spent += _pairs(state, limit if clock.wall else min(limit, OWN.total - spent))
        # Doubled: rounds that were too short cost no more in all than the last one.
        limit = min(limit * 2, OWN.last)
    return status


def size(dnn: Dnn) -> int:
    """Of a model: places of tasks and of what they read."""
    return dnn.p.m * (dnn.p.n + len(dnn.p.use))


def _worst(dnn: Dnn) -> float:
    """A period and makespan that no placement exceeds."""
    cost = np.where(np.isfinite(dnn.p.cost), dnn.p.cost, 0)
    # A value's toll at most twice per device: out of it and into it.
    return float(cost.max(axis=1).sum()) + 2.0 * dnn.p.m * float(dnn.toll.sum()) + 1.0


def _round(state: State, limit: float, share: float) -> Solved:
    """One CP-SAT search under the incumbent's horizon; offers what it finds."""
    clock, r = state.clock, state.clock.request
    # The horizon is the value to beat: what takes longer cannot happen in the model.
    best = min(state.value, _worst(state.dnn))
    clock.tell("exact search")
    built = build(state.dnn, state.latency, r.contiguous, r.pipeline, best)
    cap = r.max_latency if state.latency else None
    if not state.latency and r.min_throughput is not None:
        cap = 1.0 / r.min_throughput
    if cap is not None:
        built.cp.add(built.goal <= built.scale.limit(cap))
    if state.dev is not None:
        # The model breaks symmetry among equal devices, so the hint must be in its canonical form.
        built.hint(state.dnn, canonical(state.dnn, state.dev))
    found = _solved(state, built, limit, share, "cpsat")
    if found.status in (OPTIMAL, FEASIBLE):
        # Ticks that are rounded make the model's bound a little low; the proof must say so.
        state.proof.rounded |= not built.scale.exact
        state.proof.know(reached(built.goal, built.scale, found), "exact search")
    return found


def _solved(state: State, built: Built, limit: float, share: float, method: str) -> Solved:
    """Runs a model and offers what it finds. limit: deterministic units; share: of the clock."""
    params = state.clock.params(limit, share)
    # On the wall clock a pair must not eat the whole share.
    if method == "pairs" and state.clock.wall:
        params = replace(params, time_limit=min(OWN.pair_seconds, state.clock.left()))
    found = cpsat.solve(built.cp, params)
    state.interrupted |= found.interrupted
    if found.found:
        state.offer(built.placement(state.dnn, found.value), method)
    return found


def _pairs(state: State, limit: float) -> float:
    """Neighbourhoods: frees all groups on two devices, keeps the others, solves exactly; busiest
    devices first, until no pair improves. Returns the units spent."""
    # A model with two devices free has few variables and is solved in a moment.
    dnn, p, r, clock = state.dnn, state.dnn.p, state.clock.request, state.clock
    improved, spent = True, 0.0
    while improved and state.dev is not None and spent < limit and not state.interrupted:
        improved = False
        # The busiest device alone sets the period, so pairs with it come first.
        ranked = np.argsort(-dnn.loads(state.dev), kind="stable").tolist()
        for one, two in itertools.combinations(ranked, 2):
            if clock.left() < 0.5 or state.interrupted or spent >= limit:
                return spent
            # Without symmetry: fixed groups name devices, which renaming would contradict.
            built = build(dnn, False, r.contiguous, r.pipeline, state.value, symmetry=False)
            for g, members in enumerate(p.groups()):
                d = int(state.dev[members[0]])
                if d not in (one, two):
                    built.cp.add(built.x[g][d] == 1)
            built.hint(dnn, state.dev)
            before = state.value
            _solved(state, built, OWN.pair, 1.0, "pairs")
            # Less than that is rounding, and the pairs would go round for ever.
            improved |= state.value < before * (1 - 1e-9)
            spent += OWN.pair + size(dnn) * OWN.build
            clock.tell("pairs of devices")
    return spent
