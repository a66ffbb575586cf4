"""Lower bounds on latency and period, each with its proof.

Takes: a Problem.  Leaves: bounds in ms that hold for every plan of the "links" model.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from csp_embed.partition.arrays.view import Floats, Ints, Problem
from csp_embed.partition.bounds.prices import balanced_prices
from csp_embed.partition.portfolio import NUMBERS
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
    # Forbidden devices are inf already here, so that no least below ever goes by way of them.
    heads, tails = np.zeros((p.n, p.m)), np.zeros((p.n, p.m))
    heads[~np.isfinite(p.cost)] = np.inf
    tails[~np.isfinite(p.cost)] = np.inf
    cost = p.cost
    for t in range(p.n):
        for v in p.inputs(t):
            u = int(p.value_src[v])
            comm = p.waits(int(v))
            # [from, to] of one value; the diagonal is 0, a producer on the same device waits for no
            # link.
            least = (heads[u] + cost[u])[:, None] + comm
            # The greatest over inputs: a task waits for all of them, whichever devices suit each
            # one best.
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
    m = cost.shape[1]
    # The linear program gives the best prices but grows with the costs; see portfolio.json.
    if np.isfinite(cost).sum() <= OWN.load_costs:
        able = np.isfinite(cost)
        column = np.full(cost.shape, -1)
        # Column 0 is the period T; a pair that is forbidden gets no column at all.
        column[able] = 1 + np.arange(able.sum())
        objective = np.zeros(1 + int(able.sum()))
        objective[0] = 1.0
        rows = []
        for d in range(m):
            here = np.flatnonzero(able[:, d])
            columns = np.concatenate([[0], column[here, d]])
            rows.append((columns, np.concatenate([[-1.0], cost[here, d]]), 0.0))
        equal = [(c[c > 0], np.ones(int((c > 0).sum())), 1.0) for c in column]
        found = lp.duals(objective, rows, equal)
        # Duals of an unsolved or all-free program sum to 0 and are no prices.
        if found is not None and found.sum() > 0:
            return found / found.sum()
    return balanced_prices(cost)[0]


def load(p: Problem) -> float:
    """Fractional load: the least T with sum_g z[g, d] cost[g, d] <= T for all d, z a fractional
    placement of colocation groups (sum_d z[g, d] = 1), cost of a group the sum over its tasks. By
    Lagrange multipliers, so that rounding in an LP solver cannot spoil it: for any prices w >= 0
    with sum_d w_d = 1

    T >= sum_g min_d w_d cost[g, d].

    Proof. T = sum_d w_d T >= sum_d w_d sum_g z cost = sum_g sum_d z[g, d] w_d cost[g, d], and each
    inner sum is at least its smallest term because z[g, .] sums to 1. At the optimal dual prices of
    the linear program both sides are equal; whatever the prices, the value is a bound."""
    if not p.n:
        return 0.0
    cost, _ = by_group(p)
    finite = np.isfinite(cost)
    # inf * 0 is nan, so forbidden places are set to 0 first and to inf after.
    priced = np.where(finite, cost, 0.0) * load_prices(cost)
    return float(np.where(finite, priced, np.inf).min(axis=1).sum())


def by_group(p: Problem) -> tuple[Floats, Floats]:
    """cost [group, m], weight [group]: sums over tasks that share a device."""
    count = int(p.group.max(initial=-1)) + 1
    # inf of one task makes the whole group's sum inf: colocated tasks share what is allowed.
    cost = np.zeros((count, p.m))
    np.add.at(cost, p.group, p.cost)
    return cost, np.bincount(p.group, p.weight, minlength=count).astype(np.float64)


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
    placement z of colocation groups within memory and all windows k = (d, h, q), with h and q the
    least heads and tails of W_k, made smaller where h + q would exceed `critical_path`

    h + q + sum over g of z[g, d] cost_k[g] <= T
    cost_k[g] = sum over t in g and W_k of cost[t, d]
    W_k = {t : heads[t, d] >= h, tails[t, d] >= q}   (heads, tails: `path_bounds`).

    Proof. The tasks of W_k that run on d start after h, run one at a time, and q more must pass
    after the last of them; if there are none, h + q <= `critical_path` <= T. By multipliers
    y >= 0 with sum_k y_k = 1 and rents u >= 0 of bytes, as in `load` and `load_within_memory`:

    T >= sum_k y_k (h_k + q_k) - sum_d u_d M_d
         + sum_g min_d (u_d weight_g + sum over windows k of d of y_k cost_k[g])

    Windows are taken at `levels` quantiles of heads and tails of each device; h = q = 0 is among
    them, so that the bound is at least `load`. The multipliers are the linear program's duals."""
    windows = time_windows(p)
    return _relaxed(p, windows, _tight(p)) if windows else 0.0


def priced_windows(p: Problem) -> list[Window]:
    """The windows of `window_load` with their multipliers; none where there are too many tasks."""
    windows = time_windows(p)
    found = _multipliers(p, windows, []) if windows else None
    if found is None:
        return []
    return [replace(w, share=float(s)) for w, s in zip(windows, found[0], strict=True)]


def supposed_load(p: Problem, heads: Floats, tails: Floats, low: float) -> float:
    """`window_load` of plans that keep other heads and tails than those of paths. low: a bound."""
    windows = _windows(p, heads, tails, low)
    return _relaxed(p, windows, _tight(p)) if windows else 0.0


def time_windows(p: Problem) -> list[Window]:
    """The windows of `window_load`; none where there are too many tasks."""
    return _windows(p, *path_bounds(p), critical_path(p)) if p.n else []


def _windows(p: Problem, heads: Floats, tails: Floats, low: float) -> list[Window]:
    """low: what T is at least without any task in a window (see the proof)."""
    # The program has a row per window, which are levels^2 a device, over all costs.
    if not p.n or not OWN.levels * OWN.levels * np.isfinite(p.cost).sum() <= OWN.window_costs:
        return []
    windows: dict[tuple[int, bytes], Window] = {}
    for d in range(p.m):
        mine = np.flatnonzero(np.isfinite(p.cost[:, d]))
        if not len(mine):
            continue
        for h in _levels(heads[mine, d]):
            for q in _levels(tails[mine, d]):
                inside = mine[(heads[mine, d] >= h) & (tails[mine, d] >= q)]
                if not len(inside):
                    continue
                # Levels may cut out the same tasks: what stands before and behind all of these is
                # the most that may be said of them. Without tasks there, T is at least `low`.
                around = min(float(heads[inside, d].min() + tails[inside, d].min()), low)
                windows.setdefault((d, inside.tobytes()), Window(d, inside, around))
        # The window of `load` itself, so that this bound is never below that one.
        windows.setdefault((d, mine.tobytes()), Window(d, mine, 0.0))
    return list(windows.values())


def _levels(values: Floats) -> Floats:
    return np.unique(np.quantile(values, np.linspace(0, 1, OWN.levels), method="lower"))


def _tight(p: Problem) -> list[int]:
    """Devices whose memory does not hold everything."""
    # A memory of 0 would be divided by; one that holds all constrains nothing.
    return [d for d in range(p.m) if 0 < p.memory[d] < p.weight.sum()]


def _relaxed(p: Problem, windows: list[Window], tight: list[int]) -> float:
    """The bound of `window_load` with these windows and memories."""
    found = _multipliers(p, windows, tight)
    if found is None:
        return 0.0
    share, rent = found
    # Any multipliers prove a bound, so it is summed up anew here and not read off the solver.
    priced = np.where(np.isfinite(by_group(p)[0]), 0.0, np.inf)
    for w, y in zip(windows, share, strict=True):
        priced[:, w.device] += y * _window_costs(p, w)
    for d, u in zip(tight, rent, strict=True):  # bytes count in parts of the memory
        priced[:, d] += u * by_group(p)[1] / p.memory[d]
    least = float(priced.min(axis=1).sum())
    around = sum(y * w.around for w, y in zip(windows, share, strict=True))
    # A difference of sums loses more than its own size tells.
    spent = float(rent.sum())
    return float(least + around - spent - 1e-9 * (least + spent if spent else 0.0))


def _window_costs(p: Problem, w: Window) -> Floats:
    """[group] ms of a window's tasks on its device."""
    cost = np.where(np.isfinite(p.cost[w.tasks, w.device]), p.cost[w.tasks, w.device], 0.0)
    count = int(p.group.max()) + 1
    return np.bincount(p.group[w.tasks], cost, minlength=count).astype(np.float64)


def _multipliers(
    p: Problem, windows: list[Window], tight: list[int]
) -> tuple[Floats, Floats] | None:
    """Dual values of the windows, sum 1, and of the memories in the linear program."""
    cost, weight = by_group(p)
    able = np.isfinite(cost)
    column = np.full(cost.shape, -1)
    column[able] = 1 + np.arange(able.sum())
    objective = np.zeros(1 + int(able.sum()))
    objective[0] = 1.0
    rows = []
    for w in windows:
        own = _window_costs(p, w)
        here = np.flatnonzero(able[:, w.device] & (own > 0))
        columns = np.concatenate([[0], column[here, w.device]])
        rows.append((columns, np.concatenate([[-1.0], own[here]]), -w.around))
    for d in tight:
        here = np.flatnonzero(able[:, d])
        # Memory as parts of 1: bytes beside ms would be badly scaled for the solver.
        rows.append((column[here, d], weight[here] / p.memory[d], 1.0))
    equal = [(c[c > 0], np.ones(int((c > 0).sum())), 1.0) for c in column]
    found = lp.duals(objective, rows, equal)
    if found is None or not found[: len(windows)].sum() > 0:
        return None
    # Only the windows' share is made 1; rents of memory are scaled by the same factor.
    found = found / found[: len(windows)].sum()
    return found[: len(windows)], found[len(windows) :]


def memory_knapsack(p: Problem) -> float:
    """What does not fit into a fast device's memory must run elsewhere.

    For each device d with finite memory M_d: let T be the period or makespan. The tasks on d weigh
    at most M_d, and the others cost at least r_t = min over e != d of cost[t, e], on m - 1 devices:

    T >= (sum_t r_t - K_d) / (m - 1),  K_d = max sum z_t r_t, sum z_t weight_t <= M_d, 0 <= z <= 1

    Proof. The set S on d is a feasible z, so sum_{t not in S} r_t >= sum r - K_d; this work is
    spread over m - 1 devices, the busiest of which has at least the mean. K_d is solved greedily by
    falling r_t / weight_t (fractional knapsack). A task that only d can run has r_t = 0 (no claim).
    Tasks that share a device count as one.
    """
    best, (cost, weight) = 0.0, by_group(p)
    for d in range(p.m):
        # With one device there is no other, and m - 1 would be 0.
        if not math.isfinite(p.memory[d]) or weight.sum() <= p.memory[d] or p.m < 2:
            continue
        others = np.delete(cost, d, axis=1).min(axis=1)
        # Tasks that only d can run claim nothing elsewhere.
        others = np.where(np.isfinite(others), others, 0.0)
        # Tasks that d cannot run take no room there: worth 0, they come last.
        value = np.where(np.isfinite(cost[:, d]), others, 0.0)
        # Tasks without weight cost no room: first, if they are worth anything.
        ratio = value / np.maximum(weight, 1e-300)
        room, kept = float(p.memory[d]), 0.0
        for t in np.argsort(-ratio, kind="stable"):
            # The last one in is cut: a fractional knapsack is no less than a whole one, so the
            # bound holds.
            if weight[t] <= room:
                room -= weight[t]
                kept += value[t]
            else:
                kept += value[t] * room / weight[t]
                break
        # A difference of sums loses more than its own size tells.
        best = max(best, float(others.sum() * (1 - 1e-12) - kept) / (p.m - 1))
    return best


def load_within_memory(p: Problem) -> float:
    """`load` where the fractional placement also keeps memory: for any prices w >= 0 of devices,
    sum 1, and u >= 0 of bytes on those with finite memory M_d

    T >= sum_g min_d (w_d cost[g, d] + u_d weight_g) - sum_d u_d M_d.

    Proof. As for `load`, with sum_d u_d (sum_g z[g, d] weight_g - M_d) <= 0 added. The prices are
    the duals of that linear program."""
    tight = _tight(p)
    if not tight or np.isfinite(p.cost).sum() > OWN.load_costs:
        return 0.0
    return _relaxed(p, [Window(d, np.arange(p.n), 0.0) for d in range(p.m)], tight)


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
            # Once per value: further readers may get it by the same hops.
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
    # A sample's way may be longer than the period, as samples overlap: no bound on throughput.
    if latency:
        found["critical path"] = critical_path(p)
        found["load in windows"] = window_load(p)
    return found


def best_bound(p: Problem, latency: bool) -> tuple[float, str]:
    """The largest of `all_bounds` and its name."""
    found = all_bounds(p, latency)
    name = max(found, key=lambda k: found[k])
    return found[name], name
