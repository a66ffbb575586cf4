"""List schedulers: HEFT, PEFT, CPOP, lookahead HEFT, min-min, greedy, single best device, mixes.

Takes: a Problem.  Leaves: an order and a device per task (`Placement`), whose times the decoder of
`kernels` gives.  All insert into gaps, queue on contended links, and keep weights within memory.

Sources: Topcuoglu, Hariri and Wu, IEEE TPDS 2002 (HEFT, CPOP); Arabnejad and Barbosa, IEEE TPDS
2014 (PEFT); Bittencourt, Sakellariou and Madeira, PDP 2010 (lookahead).
"""

from __future__ import annotations

import heapq
from dataclasses import dataclass
from typing import Any

import numpy as np

from csp_embed.partition.arrays.view import Floats, Ints, Problem
from csp_embed.partition.times import kernels

# Summaries of a task's costs over the devices that may run it, for its rank.
SUMMARIES = {"mean": np.nanmean, "median": np.nanmedian, "best": np.nanmin, "worst": np.nanmax}


@dataclass(frozen=True)
class Placement:
    """Tasks in a topological order, and the device of each task (by task number)."""

    order: Ints
    dev: Ints
    value: float
    method: str


class ListScheduler:
    """Ranks computed once, then any of the rules."""

    def __init__(self, p: Problem, compiled: bool = True) -> None:
        self.p = p
        self.k: Any = kernels.pick(p, compiled)
        self.a, self.w = kernels.arrays(p), kernels.work(p)
        # NaN, so that summaries leave out devices that cannot run a task.
        self.open_cost = np.where(np.isfinite(p.cost), p.cost, np.nan)
        lat, inv = p.lat[: p.m], p.inv[: p.m]
        # Means over pairs of different devices that can talk, as the papers define them.
        away = np.isfinite(lat) & ~np.eye(p.m, dtype=bool)
        some = bool(away.any())
        self.mean_lat = float(lat[away].mean()) if some else 0.0
        self.mean_inv = float(inv[away].mean()) if some else 0.0
        self.none = np.zeros((1, 1))

    def comm(self, v: int) -> float:
        """Mean ms of a value between two different devices."""
        return self.mean_lat + float(self.p.value_bytes[v]) * self.mean_inv

    def upward(self, cost: Floats, comm: bool = True) -> Floats:
        """rank_u: the longest remaining path from the start of each task, costs and transfers."""
        rank = cost.copy()
        for t in range(self.p.n - 1, -1, -1):
            tail = 0.0
            for v in self.p.outputs(t):
                c = self.comm(int(v)) if comm else 0.0
                for u in self.p.consumers(int(v)):
                    tail = max(tail, c + rank[u])
            rank[t] += tail
        return rank

    def downward(self, cost: Floats) -> Floats:
        """rank_d: the longest path to the start of each task."""
        rank = np.zeros(self.p.n)
        for t in range(self.p.n):
            for v in self.p.outputs(t):
                for u in self.p.consumers(int(v)):
                    rank[u] = max(rank[u], rank[t] + cost[t] + self.comm(int(v)))
        return rank

    def optimistic(self) -> Floats:
        """OCT [n, m]: the remaining path if every later task ran where it suits it best."""
        p = self.p
        table = np.zeros((p.n, p.m))
        for t in range(p.n - 1, -1, -1):
            for v in p.outputs(t):
                c = self.comm(int(v))
                for u in p.consumers(int(v)):
                    there = np.where(np.isfinite(p.cost[u]), p.cost[u], np.inf) + table[u]
                    # Either the child stays on this device, or it goes where it is best and the
                    # value travels.
                    table[t] = np.maximum(table[t], np.minimum(there, there.min() + c))
        return table

    def by_rank(self, rank: Floats) -> Ints:
        """Ready tasks by falling rank, ties in task order."""
        p = self.p
        waiting = np.diff(p.inp_ptr).tolist()
        # Only ready tasks: a rank alone is no topological order where transfers cost nothing.
        heap = [(-rank[t], t) for t in range(p.n) if not waiting[t]]
        heapq.heapify(heap)
        order: list[int] = []
        while heap:
            _, t = heapq.heappop(heap)
            order.append(t)
            for v in p.outputs(t):
                for u in p.consumers(int(v)):
                    waiting[u] -= 1
                    if not waiting[u]:
                        heapq.heappush(heap, (-rank[u], int(u)))
        return np.array(order, np.int64)

    def run(self, name: str, order: Ints, mode: int, table: Floats, forced: Ints) -> Placement:
        """One pass of the list scheduler."""
        value = self.k.list_schedule(self.a, self.w, order, mode, table, forced)
        return Placement(order, self.w.dev.copy(), float(value), name)

    def summary(self, how: str) -> Floats:
        """Cost of each task, summed up over its devices."""
        return SUMMARIES[how](self.open_cost, axis=1)

    def ranked(self, how: str, mode: int, name: str, comm: bool = True) -> Placement:
        """Order by rank_u of `how`, device by `mode`."""
        order = self.by_rank(self.upward(self.summary(how), comm))
        table = self.optimistic() if mode == kernels.OCT else self.none
        return self.run(name, order, mode, table, np.full(self.p.n, -1))

    def heft(self) -> Placement:
        """HEFT."""
        return self.ranked("mean", kernels.HEFT, "heft")

    def lookahead(self) -> Placement:
        """HEFT that looks at the children of each choice."""
        return self.ranked("mean", kernels.LOOKAHEAD, "lookahead")

    def peft(self) -> Placement:
        """PEFT."""
        table = self.optimistic()
        order = self.by_rank(table.mean(axis=1))
        return self.run("peft", order, kernels.OCT, table, np.full(self.p.n, -1))

    def cpop(self) -> Placement:
        """CPOP: the critical path on the one device that runs it fastest."""
        p, cost = self.p, self.summary("mean")
        priority = self.upward(cost) + self.downward(cost)
        top = priority.max(initial=0.0)
        on_path, t = [], -1
        entry = [t for t in range(p.n) if p.inp_ptr[t] == p.inp_ptr[t + 1]]
        ahead = entry
        while ahead:
            t = max(ahead, key=lambda x: (priority[x], -x))
            # The path ends where priority falls: every task on a critical path has the same.
            if priority[t] < top * (1 - 1e-9):
                break
            on_path.append(t)
            ahead = [int(u) for v in p.outputs(t) for u in p.consumers(int(v))]
        forced = np.full(p.n, -1)
        if on_path:
            total = p.cost[on_path].sum(axis=0)
            if np.isfinite(total).any():
                forced[on_path] = int(np.argmin(total))
        return self.run("cpop", self.by_rank(priority), kernels.HEFT, self.none, forced)

    def min_min(self, largest: bool = False) -> Placement:
        """Min-min, or max-min."""
        order = np.zeros(self.p.n, np.int64)
        value = self.k.min_min(
            self.a, self.w, np.diff(self.p.inp_ptr).astype(np.int64), largest, order
        )
        return Placement(order, self.w.dev.copy(), value, "maxmin" if largest else "minmin")

    def greedy(self) -> Placement:
        """Tasks in file order, each where it finishes first."""
        return self.run(
            "greedy", np.arange(self.p.n), kernels.HEFT, self.none, np.full(self.p.n, -1)
        )

    def single(self) -> Placement:
        """Everything on the one device that is fastest alone; what it cannot run goes elsewhere."""
        order = self.by_rank(self.upward(self.summary("mean")))
        runs = [
            self.run("single", order, kernels.HEFT, self.none, np.full(self.p.n, d))
            for d in range(self.p.m)
        ]
        # Fewest devices first: one that cannot run everything is not alone.
        return min(runs, key=lambda x: (len(set(x.dev.tolist())), x.value))

    def portfolio(self, large: bool = False) -> list[Placement]:
        """Twenty rules (fewer on large graphs), best first."""
        done = [self.heft(), self.peft(), self.cpop(), self.greedy(), self.single()]
        for how in SUMMARIES:
            done.append(self.ranked(how, kernels.OCT, f"oct-{how}"))
            if how != "mean":
                done.append(self.ranked(how, kernels.HEFT, f"heft-{how}"))
        if not large:
            done += [self.min_min(), self.min_min(True), self.lookahead()]
            done += [self.ranked(h, kernels.LOOKAHEAD, f"lookahead-{h}") for h in ("best", "worst")]
            done += [
                self.ranked("mean", mode, f"free-{mode}", comm=False)
                for mode in (kernels.HEFT, kernels.OCT, kernels.LOOKAHEAD)
            ]
        done = [x for x in done if np.isfinite(x.value)]
        return sorted(done, key=lambda x: x.value)
