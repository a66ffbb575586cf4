"""The best placement of a dnn-partitioning workload so far, and what is proved of it.

Takes: candidates of any method.  Leaves: the best that keeps all constraints, as a Plan.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np

from csp_embed.ir.network import FEASIBLE, LATENCY, OPTIMAL, UNKNOWN, Assignment, Plan
from csp_embed.partition.arrays.view import Floats, Ints
from csp_embed.partition.bounds import latency_period as bounds
from csp_embed.partition.models.dnn import Dnn
from csp_embed.partition.models.dnn_cpsat import path_bounds
from csp_embed.partition.models.dnn_times import convex, exact_loads, timetable
from csp_embed.partition.proof import SAME, Proof
from csp_embed.partition.request import Clock
from csp_embed.partition.times.exact import below


class State:
    """dev [n]: the best placement, None before the first. value: its objective in units of the
    view. fresh: where annealing begins beside the best, which lies deep in its valley."""

    def __init__(self, dnn: Dnn, clock: Clock) -> None:
        self.dnn, self.clock = dnn, clock
        self.latency = clock.request.objective == LATENCY
        self.dev: Ints | None = None
        self.fresh: Ints | None = None
        self.value, self.method = float("inf"), ""
        self.rise: float | None = None  # what temperatures of annealing are multiples of
        self.proof = Proof(unit=dnn.p.unit, tick=dnn.tick, gap=clock.request.gap)
        clock.known = lambda: (self.value, self.proof.value)
        self.interrupted = False

    def fits(self, dev: Ints) -> bool:
        """Whether a placement keeps costs, memory and colours."""
        p = self.dnn.p
        if not np.isfinite(p.cost[np.arange(p.n), dev]).all():
            return False
        # Added up in floats: the view has whole bytes, so that these sums are exact.
        if (np.bincount(dev, p.weight, minlength=p.m) > p.memory).any():
            return False
        _, first = np.unique(p.group, return_index=True)
        return bool((dev == dev[first][p.group]).all())

    def offer(self, dev: Ints, method: str) -> bool:
        """Takes a placement if it is feasible and better; says whether it did."""
        dnn, r = self.dnn, self.clock.request
        if not self.fits(dev):
            return False
        if self.latency:
            # None: blocks wait for each other, so that this is no plan at all.
            times = timetable(dnn, dev)
            value = float("inf") if times is None else float(times[1].max(initial=0.0))
        else:
            value = float(dnn.loads(dev).max(initial=0.0))
            # For latency convexity need not be asked: blocks in rings have no timetable.
            if (r.contiguous or r.pipeline) and not convex(dnn, dev, r.pipeline):
                return False
        if not value < self.value:
            return False
        self.dev, self.value, self.method = np.array(dev), value, method
        return True

    def raise_to(self, low: float, name: str) -> None:
        """Keeps the larger bound, added up in floats."""
        self.proof.raise_to(low, name)

    def bound(self) -> None:
        """What is known before any search."""
        p = self.dnn.p
        if self.latency:
            heads, tails = path_bounds(self.dnn)
            self.raise_to(float((heads + tails).min(axis=1).max(initial=0.0)), "critical path")
            # Loads bound no latency: CPUs run any number of tasks at once.
            return
        self.raise_to(bounds.load(p), "load")
        self.raise_to(bounds.memory_knapsack(p), "memory knapsack")
        # A group is not split, so its cheapest device has at least that load.
        for g in p.groups():
            self.raise_to(float(p.cost[g].sum(axis=0).min()), "largest group")

    def settled(self) -> bool:
        """Whether the placement is proved the best, exactly, or as near to it as is wanted."""
        # Cheap first: exact times are counted only once floats say that the bound is met.
        if self.dev is None or not self.proof.settles(self.value):
            return False
        # Good enough for the user's gap, though not the optimum.
        if self.proof.gap and self.value > self.proof.value * (1 + SAME):
            return True
        return self.proof.meets(self._exactly()[0])

    def _exactly(self) -> tuple[Fraction, list[Fraction], tuple[Floats, Floats] | None]:
        """The objective in ms, loads, and for latency starts and ends."""
        assert self.dev is not None
        load = exact_loads(self.dnn, self.dev)
        if not self.latency:
            return max(load, default=Fraction(0)), load, None
        times = timetable(self.dnn, self.dev, load)
        assert times is not None
        return max(times[1], default=Fraction(0)), load, times

    def plan(self) -> Plan:
        """The best placement as a Plan; UNKNOWN where there is none within the user's limit."""
        p, r, proof = self.dnn.p, self.clock.request, self.proof
        names = [d.name for d in p.platform.devices]
        # The models keep a limit on the objective; quick placements may exceed it.
        limit = r.max_latency if self.latency else None
        if not self.latency and r.min_throughput:
            limit = 1 / r.min_throughput
        if self.dev is None or (limit is not None and self.value > limit * (1 + 1e-9)):
            return Plan(
                r.objective, None, below(proof.sure), None, UNKNOWN, r.method, bound=proof.name,
                graph_sha256=p.graph.sha256, platform_sha256=p.platform.sha256,
            )  # fmt: skip
        value, load, times = self._exactly()
        rows = tuple(Assignment(t, names[d]) for t, d in zip(p.ids, self.dev, strict=True))
        found = {name: float(x) for name, x in zip(names, load, strict=True)}
        if times is not None:
            begin, end = times
            order = sorted(range(p.n), key=lambda t: (begin[t], end[t], t))
            rows = tuple(
                Assignment(p.ids[t], names[self.dev[t]], float(begin[t]), float(end[t]))
                for t in order
            )
            found = {}
        closed = proof.meets(value)
        # No bound above the value is told: both are rounded on their own.
        low = min(proof.sure, value)
        return Plan(
            r.objective, float(value), below(low),
            0.0 if closed else float((value - low) / value),
            OPTIMAL if closed else FEASIBLE, f"{r.method}:{self.method}",
            assignments=rows, loads=found, bound=proof.name,
            graph_sha256=p.graph.sha256, platform_sha256=p.platform.sha256,
        )  # fmt: skip
