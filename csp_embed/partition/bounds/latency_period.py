"""Lower bounds on latency and period, each with its proof.

Takes: a Problem.  Leaves: bounds in ms that hold for every plan of the "links" model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from csp_embed.partition.bounds.prices import balanced_prices
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.view import Floats, Ints, Problem
from csp_embed.solver import lp

OWN = NUMBERS.bounds


def path_bounds(p: Problem) -> tuple[Floats, Floats]:
    """heads, tails [n, m] ms: least time before t starts on d, and after t ends there.

    heads[t, d] = max over values v read by t, made by u, of
                  min over e of heads[u, e] + cost[u, e] + comm(v, e, d)
    tails[t, d] = max over consumers s of t's values of
                  min over e of comm(v, d, e) + cost[s, e] + tails[s, e]

    Proof. By induction over the topological order: whatever device e runs u, u ends no earlier than
    heads[u, e] + cost[u, e], and the value needs comm(v, e, d) on idle links; t waits for all its
    values. Queues only add to that. tails is the same on the reversed graph."""
    heads, tails = np.zeros((p.n, p.m)), np.zeros((p.n, p.m))
    heads[~np.isfinite(p.cost)] = np.inf
    tails[~np.isfinite(p.cost)] = np.inf
    cost = p.cost
    for t in range(p.n):
        for v in p.inputs(t):
            u = int(p.value_src[v])
            comm = p.waits(int(v))
            least = (heads[u] + cost[u])[:, None] + comm
            heads[t] = np.maximum(heads[t], least.min(axis=0))
    for u in range(p.n - 1, -1, -1):
        for v in p.outputs(u):
            comm = p.waits(int(v))
            for t in p.consumers(int(v)):
                least = comm + (cost[t] + tails[t])[None, :]
                tails[u] = np.maximum(tails[u], least.min(axis=1))
    return heads, tails


def critical_path(p: Problem) -> float:
    """max over t of min over d of heads + cost + tails: every task runs somewhere."""
    if not p.n:
        return 0.0
    heads, tails = path_bounds(p)
    return float((heads + p.cost + tails).min(axis=1).max())


def load_prices(cost: Floats) -> Floats:
    """Prices w >= 0 of the devices, sum 1, that make sum_t min_d w_d cost[t, d] (nearly) largest.

    Up to `load_costs` costs: dual values of the linear program of `load`; beyond: subgradient
    steps, within 1e-5 of them."""
    n, m = cost.shape
    if np.isfinite(cost).sum() <= OWN.load_costs:
        found = _multipliers(cost, [Window(d, np.arange(n), 0.0) for d in range(m)])
        if found is not None:
            return found
    return balanced_prices(cost)[0]


def load(p: Problem) -> float:
    """Fractional load: the least T with sum_t z[t, d] cost[t, d] <= T for all d, z a fractional
    placement (sum_d z[t, d] = 1). By Lagrange multipliers, so that rounding in an LP solver cannot
    spoil it: for any prices w >= 0 with sum_d w_d = 1

    T >= sum_t min_d w_d cost[t, d].

    Proof. T = sum_d w_d T >= sum_d w_d sum_t z cost = sum_t sum_d z[t, d] w_d cost[t, d], and each
    inner sum is at least its smallest term because z[t, .] sums to 1. At the optimal dual prices of
    the linear program both sides are equal; whatever the prices, the value is a bound."""
    if not p.n:
        return 0.0
    finite = np.isfinite(p.cost)
    priced = np.where(finite, p.cost, 0.0) * load_prices(p.cost)
    return float(np.where(finite, priced, np.inf).min(axis=1).sum())


@dataclass(frozen=True)
class Window:
    """Tasks that keep device `device` from working for anything else; `around`: ms before and
    after. share: its multiplier."""

    device: int
    tasks: Ints
    around: float
    share: float = 0.0


def window_load(p: Problem) -> float:
    """The linear relaxation of placement with time windows: the least T such that for a fractional
    placement z and all windows k = (d, h, q) with h + q <= `critical_path`

    h + q + sum over t in W_k of z[t, d] cost[t, d] <= T,
    W_k = {t : heads[t, d] >= h, tails[t, d] >= q}   (heads, tails: `path_bounds`).

    Proof. The tasks of W_k that run on d start after h, run one at a time, and q more must pass
    after the last of them; if there are none, h + q <= T by the choice of windows. By multipliers
    y >= 0 with sum_k y_k = 1, as in `load`:

    T >= sum_k y_k (h_k + q_k) + sum_t min_d sum over windows k of d with t in W_k of y_k cost[t, d]

    Windows are taken at `levels` quantiles of heads and tails of each device; h = q = 0 is among
    them, so that the bound is at least `load`. The multipliers are the linear program's duals."""
    windows = priced_windows(p)
    priced = np.where(np.isfinite(p.cost), 0.0, np.inf)
    for w in windows:
        priced[w.tasks, w.device] += w.share * p.cost[w.tasks, w.device]
    around = sum(w.share * w.around for w in windows)
    return float(around + priced.min(axis=1).sum()) if windows else 0.0


def priced_windows(p: Problem) -> list[Window]:
    """The windows of `window_load` with their multipliers; none where there are too many tasks."""
    if not p.n or not OWN.levels * OWN.levels * np.isfinite(p.cost).sum() <= OWN.window_costs:
        return []
    heads, tails = path_bounds(p)
    low = critical_path(p)
    windows: dict[tuple[int, bytes], Window] = {}
    for d in range(p.m):
        mine = np.flatnonzero(np.isfinite(p.cost[:, d]))
        if not len(mine):
            continue
        for h in _levels(heads[mine, d]):
            for q in _levels(tails[mine, d]):
                inside = mine[(heads[mine, d] >= h) & (tails[mine, d] >= q)]
                if len(inside) and h + q <= low:
                    windows.setdefault((d, inside.tobytes()), Window(d, inside, float(h + q)))
        everything = Window(d, mine, 0.0)
        windows.setdefault((d, mine.tobytes()), everything)
    found = list(windows.values())
    y = _multipliers(p.cost, found)
    return [] if y is None else [replace(w, share=float(s)) for w, s in zip(found, y, strict=True)]


def _levels(values: Floats) -> Floats:
    return np.unique(np.quantile(values, np.linspace(0, 1, OWN.levels), method="lower"))


def _multipliers(cost: Floats, windows: list[Window]) -> Floats | None:
    """Dual values, sum 1, of the windows in the linear program."""
    able = np.isfinite(cost)
    column = np.full(cost.shape, -1)
    column[able] = 1 + np.arange(able.sum())
    objective = np.zeros(1 + int(able.sum()))
    objective[0] = 1.0
    at_most = []
    for w in windows:
        here = w.tasks[able[w.tasks, w.device]]
        columns = np.concatenate([[0], column[here, w.device]])
        at_most.append((columns, np.concatenate([[-1.0], cost[here, w.device]]), -w.around))
    equal = [(c[c > 0], np.ones(int((c > 0).sum())), 1.0) for c in column]
    found = lp.duals(objective, at_most, equal)
    if found is None or not found.sum() > 0:
        return None
    return found / found.sum()


def memory_knapsack(p: Problem) -> float:
    """What does not fit into a fast device's memory must run elsewhere.

    For each device d with finite memory M_d: let T be the period or makespan. The tasks on d weigh
    at most M_d, and the others cost at least r_t = min over e != d of cost[t, e], on m - 1 devices:

    T >= (sum_t r_t - K_d) / (m - 1),  K_d = max sum z_t r_t, sum z_t weight_t <= M_d, 0 <= z <= 1

    Proof. The set S on d is a feasible z, so sum_{t not in S} r_t >= sum r - K_d; this work is
    spread over m - 1 devices, the busiest of which has at least the mean. K_d is solved greedily by
    falling r_t / weight_t (fractional knapsack). A task that only d can run has r_t = 0 (no claim).
    """
    best = 0.0
    for d in range(p.m):
        if not math.isfinite(p.memory[d]) or p.weight.sum() <= p.memory[d] or p.m < 2:
            continue
        others = np.delete(p.cost, d, axis=1).min(axis=1)
        others = np.where(np.isfinite(others), others, 0.0)
        value = np.where(np.isfinite(p.cost[:, d]), others, 0.0)
        ratio = value / np.maximum(p.weight, 1e-300)
        room, kept = float(p.memory[d]), 0.0
        for t in np.argsort(-ratio, kind="stable"):
            if p.weight[t] <= room:
                room -= p.weight[t]
                kept += value[t]
            else:
                kept += value[t] * room / p.weight[t]
                break
        best = max(best, float(others.sum() - kept) / (p.m - 1))
    return best


def load_within_memory(p: Problem) -> float:
    """`load` where the fractional placement also keeps memory: for any prices w >= 0 of devices,
    sum 1, and u >= 0 of bytes on those with finite memory M_d

    T >= sum_t min_d (w_d cost[t, d] + u_d weight_t) - sum_d u_d M_d.

    Proof. As for `load`, with sum_d u_d (sum_t z[t, d] weight_t - M_d) <= 0 added. The prices are
    the
    duals of that linear program; bytes count in parts of M_d, so that both are of one order."""
    tight = [d for d in range(p.m) if 0 < p.memory[d] < p.weight.sum()]
    able = np.isfinite(p.cost)
    if not tight or able.sum() > OWN.load_costs:
        return 0.0
    column = np.full(p.cost.shape, -1)
    column[able] = 1 + np.arange(able.sum())
    objective = np.zeros(1 + int(able.sum()))
    objective[0] = 1.0
    rows = []
    for d in range(p.m):
        here = np.flatnonzero(able[:, d])
        columns = np.concatenate([[0], column[here, d]])
        rows.append((columns, np.concatenate([[-1.0], p.cost[here, d]]), 0.0))
    for d in tight:
        here = np.flatnonzero(able[:, d])
        rows.append((column[here, d], p.weight[here] / p.memory[d], 1.0))
    equal = [(c[c > 0], np.ones(int((c > 0).sum())), 1.0) for c in column]
    found = lp.duals(objective, rows, equal)
    if found is None or not found[: p.m].sum() > 0:
        return 0.0
    found = found / found[: p.m].sum()
    priced = np.where(able, p.cost, 0.0) * found[: p.m]
    for k, d in enumerate(tight):
        priced[:, d] += found[p.m + k] * p.weight / p.memory[d]
    least = np.where(able, priced, np.inf).min(axis=1).sum()
    rent = found[p.m :].sum()
    # A difference of sums loses more than its own size tells.
    return float(least - rent - 1e-9 * (least + rent))


def forced_communication(p: Problem) -> float:
    """Edges whose ends have no device in common cross contended links whatever the plan.

    For such a value v its cheapest crossing uses some resource for at least
    c_v = min over allowed (a, b), a != b, of the sum of its contended hop times; all resources
    together carry sum_v c_v, so the busiest carries at least that over their number.

    Proof. No common device, so v crosses; its hops' times count on their resources once per input;
    a maximum is at least the mean. (c_v = 0 where some crossing is uncontended.)"""
    if not p.resources:
        return 0.0
    total = 0.0
    for v, u in enumerate(p.value_src):
        a = set(p.allowed(int(u)))
        for t in p.consumers(v):
            b = p.allowed(int(t))
            if a & set(b):
                continue
            times = [
                sum(
                    p.hop_lat[h] + p.value_bytes[v] * p.hop_inv[h]
                    for h in p.hops(x, y, v)
                    if p.hop_res[h] >= 0
                )
                for x in a
                for y in b
                if math.isfinite(p.lat[x, y])
            ]
            total += float(min(times, default=0.0))
            break
    return total / len(p.resources)


def all_bounds(p: Problem, latency: bool) -> dict[str, float]:
    """Every cheap bound by name. The critical path bounds latency only; the largest single task
    bounds both (its cheapest device has at least that load)."""
    found = {
        "load": load(p),
        "largest task": float(p.cost.min(axis=1).max()) if p.n else 0.0,
        "memory knapsack": memory_knapsack(p),
        "load within memory": load_within_memory(p),
        "forced communication": forced_communication(p),
    }
    if latency:
        found["critical path"] = critical_path(p)
        found["load in windows"] = window_load(p)
    return found


def best_bound(p: Problem, latency: bool) -> tuple[float, str]:
    """The largest of `all_bounds` and its name."""
    found = all_bounds(p, latency)
    name = max(found, key=lambda k: found[k])
    return found[name], name
