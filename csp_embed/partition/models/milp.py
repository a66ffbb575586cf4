"""The exact mixed-integer program, solved by HiGHS through MathOpt.

Takes: a Problem, a Request.  Leaves: the incumbent improved, a proved bound.

Variables: x[g, d] placement, y[v, a, b] value v crosses a -> b (continuous, pushed up), s[t]
starts, h[v, b, k] hop starts, o[i, j] order of two operations that may meet on one timeline.
Latency, big M = H (the incumbent's makespan):
    s_t >= s_u + sum_d cost[u, d] x[u, d] + sum_ab comm(v, a, b) y[v, a, b]   (uncontended hops)
    s_j >= s_i + cost[i, d] - H (3 - o_ij - x[i, d] - x[j, d])
    s_i >= s_j + cost[j, d] - H (2 + o_ij - x[i, d] - x[j, d])
Throughput: load of every device and contended link <= period.
Activations are not modelled: a solution that exceeds memory by them is refused by the incumbent.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np

from csp_embed.errors import InputError
from csp_embed.partition.arrays.view import Ints, Problem
from csp_embed.partition.bounds.latency_period import path_bounds
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.proof import Proof, far, horizon
from csp_embed.partition.request import Clock, Incumbent
from csp_embed.partition.times.timetable import carried, retimed
from csp_embed.solver import milp

OWN = NUMBERS.exact


class Late(Exception):
    """The limit came while the model was being built."""


class Program:
    """The model under construction."""

    def __init__(self, p: Problem, clock: Clock) -> None:
        self.p, self.clock, self.m = p, clock, milp.new_model()
        groups = p.groups()
        self.x: list[dict[int, Any]] = []
        for ts in groups:
            # Only allowed devices get a variable: fewer columns, and no inf in the program.
            row = {d: self.m.add_binary_variable() for d in p.allowed(ts[0])}
            self.m.add_linear_constraint(sum(row.values()) == 1)
            self.x.append(row)
        for d in range(p.m):
            terms = [
                float(p.weight[ts].sum()) * self.x[g][d]
                for g, ts in enumerate(groups)
                if d in self.x[g]
            ]
            if np.isfinite(p.memory[d]) and terms:
                self.m.add_linear_constraint(sum(terms) <= float(p.memory[d]))
        self.y: dict[tuple[int, int, int], Any] = {}
        for u, t, v in p.edges():
            for a, xa in self.at(u).items():
                for b, xb in self.at(t).items():
                    # Colocated tasks never cross a link.
                    if a == b or p.group[u] == p.group[t]:
                        continue
                    if not np.isfinite(p.lat[a, b]):
                        self.m.add_linear_constraint(xa + xb <= 1)
                        continue
                    if (v, a, b) not in self.y:
                        # Continuous: costs push it down, the constraint below pushes it up to 1
                        # where it must be.
                        self.y[v, a, b] = self.m.add_variable(lb=0.0, ub=1.0)
                    self.m.add_linear_constraint(self.y[v, a, b] >= xa + xb - 1)
        self.start: list[Any] = []
        self.hops: dict[tuple[int, int, int], Any] = {}
        self.goal = self.m.add_variable(lb=0.0)
        self.m.minimize(self.goal)

    def at(self, t: int) -> dict[int, Any]:
        """Placement variables of a task."""
        return self.x[self.p.group[t]]

    def length(self, t: int) -> Any:
        """Cost of a task, linear in its placement."""
        return sum(float(self.p.cost[t, d]) * x for d, x in self.at(t).items())

    def loads(self, limit: Any) -> None:
        """Loads within `limit`."""
        p = self.p
        work = [
            [float(p.cost[t, d]) * self.at(t)[d] for t in range(p.n) if d in self.at(t)]
            for d in range(p.m)
        ]
        for (v, a, b), y in self.y.items() if p.handled() else ():
            for h in p.hops(a, b, v):
                for d, k in ((int(p.hop_from[h]), 0), (int(p.hop_to[h]), 2)):
                    work[d].append(float(p.hand[h, k] + p.value_bytes[v] * p.hand[h, k + 1]) * y)
        for terms in work:
            if terms:
                self.m.add_linear_constraint(sum(terms) <= limit)
        for r in range(len(p.resources)):
            terms = [
                float(p.hop_lat[h] + p.value_bytes[v] * p.hop_inv[h]) * y
                for (v, a, b), y in self.y.items()
                for h in p.hops(a, b, v)
                if p.hop_res[h] == r
            ]
            if terms:
                self.m.add_linear_constraint(sum(terms) <= limit)

    def schedule(self, big: float) -> None:
        """Starts, data, one operation at a time."""
        p, m = self.p, self.m
        heads, tails = path_bounds(p)
        for t in range(p.n):
            s = m.add_variable(lb=float(heads[t].min()), ub=big)
            self.start.append(s)
            tail = sum(float(tails[t, d]) * x for d, x in self.at(t).items())
            # Tails are of what comes after t by its device, so the goal is never below the critical
            # path.
            m.add_linear_constraint(s + self.length(t) + tail <= self.goal)
        lines: list[list[tuple[Any, float, Any, int]]] = [[] for _ in range(p.m + len(p.resources))]
        for t in range(p.n):
            for d, x in self.at(t).items():
                lines[d].append((self.start[t], float(p.cost[t, d]), x, t))
        for u, t, v in p.edges():
            wait = sum(
                p.comm(v, a, b) * self.y[v, a, b]
                for a in self.at(u)
                for b in self.at(t)
                if (v, a, b) in self.y
            )
            m.add_linear_constraint(self.start[t] >= self.start[u] + self.length(u))
            # Contended hops have starts of their own, see `_hops`.
            if p.contended():
                continue
            # Of several consumers' crossings only those to this consumer's device count.
            if len(p.consumers(v)) == 1:
                m.add_linear_constraint(self.start[t] >= self.start[u] + self.length(u) + wait)
                continue
            for a, xa in self.at(u).items():
                for b, xb in self.at(t).items():
                    if (v, a, b) in self.y:
                        c = p.comm(v, a, b)
                        m.add_linear_constraint(
                            # c where both are 1, at most 0 otherwise: no big M is needed.
                            self.start[t] >= self.start[u] + self.length(u) + c * (xa + xb - 1)
                        )
        if p.contended():
            self._hops(lines, big)
        for line in lines:
            self._disjoint(line, big)

    def _hops(self, lines: list[list[tuple[Any, float, Any, int]]], big: float) -> None:
        p, m = self.p, self.m
        for (v, a, b), y in self.y.items():
            u = int(p.value_src[v])
            before: Any = self.start[u] + self.length(u)
            for k, h in enumerate(p.hops(a, b, v)):
                if (v, b, k) not in self.hops:
                    self.hops[v, b, k] = m.add_variable(lb=0.0, ub=big)
                begin = self.hops[v, b, k]
                # Big M switches off hops that are not used.
                m.add_linear_constraint(begin >= before - big * (1 - y))
                length = float(p.hop_lat[h] + p.value_bytes[v] * p.hop_inv[h])
                if p.hop_res[h] >= 0:
                    # p.n + v is no task's number. Hops of one value are not ordered then: a
                    # relaxation.
                    lines[p.m + int(p.hop_res[h])].append((begin, length, y, p.n + v))
                before = begin + length
            for t in p.consumers(v):
                if b in self.at(int(t)):
                    x = self.at(int(t))[b]
                    m.add_linear_constraint(self.start[t] >= before - big * (2 - y - x))

    def _disjoint(self, line: list[tuple[Any, float, Any, int]], big: float) -> None:
        # What a path orders needs no binary: that saves most pairs.
        p = self.p
        reach = _reach(p)
        pairs = itertools.combinations(line, 2)
        for n, ((s, c, x, i), (s2, c2, x2, j)) in enumerate(pairs):
            # Not at every pair: looking at the clock costs as much as a constraint.
            if n % 1024 == 0 and self.clock.left() <= 0:
                raise Late  # contended links of hundreds of tasks: millions of pairs
            if i == j:
                continue
            if max(i, j) < p.n and (reach[i, j] or reach[j, i]):
                continue
            o = self.m.add_binary_variable()
            # o = 1: j after i, o = 0: i after j, where both are there; else the horizon switches it
            # off.
            self.m.add_linear_constraint(s2 >= s + c - big * (3 - o - x - x2))
            self.m.add_linear_constraint(s >= s2 + c2 - big * (2 + o - x - x2))


def _reach(p: Problem) -> np.ndarray:
    """reach[u, t]: a path leads from u to t."""
    # Backward over the topological order: reach of all readers is known by then.
    reach = np.zeros((p.n, p.n), bool)
    for t in range(p.n - 1, -1, -1):
        for v in p.outputs(t):
            for c in p.consumers(int(v)):
                reach[t, c] = True
                reach[t] |= reach[c]
    return reach


def solve_milp(
    p: Problem, inc: Incumbent, proof: Proof, clock: Clock, *, seeded: bool = True,
    engine: str = "highs", target: float | None = None,
) -> None:  # fmt: skip
    """Solves the program. seeded: with the incumbent as hint and horizon. target: a value in ms at
    which it stops, with whatever bound it has by then.

    Raises: InputError for constraints that only CP-SAT models (contiguous, pipeline)."""
    r = clock.request
    if r.shaped:
        raise InputError("method milp does not take contiguous or pipeline", hint="--method exact")
    try:
        program = _built(p, clock, horizon(p, inc) if seeded else far(p))
    except Late:
        return
    _solve(p, inc, proof, clock, program, seeded, engine, target)


def _built(p: Problem, clock: Clock, big: float) -> Program:
    """The whole program. Raises: Late."""
    # The horizon is the big M as well: the smaller, the tighter the relaxation.
    program, r = Program(p, clock), clock.request
    timed = r.objective == "latency" or r.max_latency is not None
    if r.objective == "latency":
        program.schedule(big)
        if r.min_throughput is not None:
            program.loads(1.0 / r.min_throughput)
        if r.max_latency is not None:
            program.m.add_linear_constraint(program.goal <= r.max_latency)
    else:
        period, program.goal = program.goal, program.goal
        # The schedule has a goal of its own; the limit on latency is its upper bound.
        if timed:
            program.goal = program.m.add_variable(lb=0.0, ub=float(r.max_latency or big))
            program.schedule(float(r.max_latency or big))
            program.goal = period
        program.loads(period)
    return program


def _solve(
    p: Problem, inc: Incumbent, proof: Proof, clock: Clock, program: Program, seeded: bool,
    engine: str, target: float | None,
) -> None:  # fmt: skip
    hint: dict[Any, float] = {}
    if seeded and inc.best is not None:
        for g, row in enumerate(program.x):
            first = int(np.flatnonzero(p.group == g)[0])
            for d, x in row.items():
                # A hint of the whole solution, so that HiGHS can take it as it is.
                hint[x] = float(inc.best.dev[first] == d)
        if inc.best.table is not None and program.start:
            for t, s in enumerate(program.start):
                hint[s] = float(inc.best.table.start[t])
    clock.tell("mixed-integer program")
    found = milp.solve(program.m, clock.params(OWN.nodes), hint=hint, engine=engine, target=target)
    proof.interrupted |= found.interrupted
    if found.found:
        dev: Ints = np.zeros(p.n, np.int64)
        for t in range(p.n):
            # Binaries come back as floats near 0 and 1.
            dev[t] = max(program.at(t), key=lambda d: found.value(program.at(t)[d]))
        table = None
        if program.start:
            start = [found.value(s) for s in program.start]
            hops = {key: found.value(h) for key, h in program.hops.items()}
            # HiGHS keeps its constraints to a millionth only: what almost had ended, had.
            early = 1e-6 * max(1.0, *start)
            ends = [s + float(p.cost[t, dev[t]]) - early for t, s in enumerate(start)]
            passed: dict[tuple[int, int, int], float] = {}
            for v, b, k, h in zip(*(x.tolist() for x in carried(p, dev)), strict=True):
                before = hops.get((v, b, k), passed[v, b, k - 1] if k else ends[p.value_src[v]])
                passed[v, b, k] = before + float(p.hop_lat[h] + p.value_bytes[v] * p.hop_inv[h])
            table = retimed(p, dev, start, hops, ends=(ends, passed))
        inc.offer(dev, table, "milp")
    # With an incumbent as horizon, "infeasible" says only that nothing is better.
    if found.status == "INFEASIBLE" and inc.best is None:
        proof.notes.append("infeasible")
    if np.isfinite(found.bound) and inc.best is not None and found.found:
        # HiGHS proves its bound to a relative 1e-6 only; what it cannot see is given back. (Where
        # objectives are multiples of a tick, the next tick is as good as what is left.)
        proof.raise_to(min(found.bound * (1 - 2e-6), inc.best.value), "milp")
