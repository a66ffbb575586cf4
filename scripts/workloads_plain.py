"""A plain CP-SAT model of dnn-partitioning workloads, for bench_workloads; no start, no symmetry.

Takes: a `workloads_rivals.Net`.  Leaves: a placement and a bound for the period.
"""

from __future__ import annotations

from ortools.sat.python import cp_model
from workloads_rivals import Net, Place

TICKS = 10_000.0  # a ms


def plain(net: Net, contiguous: bool, seconds: float) -> tuple[Place | None, float]:
    """(placement or None, proved bound in ms) after so many seconds of one worker."""
    m, k = cp_model.CpModel(), net.k
    devices = k + net.cpus
    x = [[m.new_bool_var("") for _ in range(devices)] for _ in net.members]
    at = [x[net.group[t]] for t in range(net.n)]
    for row in x:
        m.add_exactly_one(row)
    period = m.new_int_var(0, 10**12, "")
    cost: list[list[tuple[cp_model.IntVar, float]]] = [[] for _ in range(devices)]
    for t in range(net.n):
        for d in range(devices):
            ms = net.acc[t] if d < k else net.cpu[t]
            if ms == float("inf"):
                m.add(at[t][d] == 0)
            else:
                cost[d].append((at[t][d], ms))
        for d in range(k):
            leaves, comes = m.new_bool_var(""), m.new_bool_var("")
            for s in net.succ[t]:
                m.add_bool_or([~at[t][d], at[s][d], leaves])
                m.add_bool_or([at[t][d], ~at[s][d], comes])
            cost[d] += [(leaves, net.toll[t]), (comes, net.toll[t])]
    for d in range(devices):
        m.add(sum(v * int(TICKS * ms) for v, ms in cost[d]) <= period)
        if d < k:
            held = [(at[t][d], net.size[t]) for t in range(net.n)]
            m.add(sum(v * -int(-s // 1024) for v, s in held) <= int(net.memory // 1024))
        if contiguous:
            # gone[t]: some path came out of the device on its way to t.
            gone = [m.new_bool_var("") for _ in range(net.n)]
            for t in range(net.n):
                m.add_implication(gone[t], ~at[t][d])
                for u in net.pred[t]:
                    if net.back[u] == net.back[t]:
                        m.add_implication(gone[u], gone[t])
                        m.add_bool_or([~at[u][d], at[t][d], gone[t]])
    m.minimize(period)
    solver = cp_model.CpSolver()
    solver.parameters.max_time_in_seconds = seconds
    solver.parameters.num_workers = 1
    status = solver.solve(m)
    low = solver.best_objective_bound / TICKS
    if status not in (cp_model.OPTIMAL, cp_model.FEASIBLE):
        return None, low
    return [next(d for d in range(devices) if solver.value(at[t][d])) for t in range(net.n)], low
