"""The destructive lower bound on latency: suppose a makespan, and look for a contradiction.

Takes: a Problem and a makespan.  Leaves: what every plan within it must keep (`Tight`), or that
there is none.  Source of the idea: Klein and Scholl, EJOR 112, 1999.

Where transfers take long, the linear relaxations say little: fractions of a task stand beside
fractions of what it reads. Here a task is on one device, and what it reads either comes from
elsewhere, late, or runs on that device too, one at a time.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from csp_embed.partition.arrays.view import Floats, Ints, Problem
from csp_embed.partition.bounds.latency_period import by_group, supposed_load
from csp_embed.partition.bounds.refuting import exclude, gather, suppose
from csp_embed.partition.portfolio import NUMBERS

OWN = NUMBERS.bounds

SLACK = 1 + 1e-9  # relative: more than sums of floats lose


@dataclass(frozen=True)
class Tight:
    """What holds of every plan with a makespan of at most `limit`.

    cost [n, m]: ms, inf on devices that the task cannot be on. heads, tails [n, m]: ms before its
    start and after its end there. bad [n m, n m]: pairs of choices (task times m plus device) that
    are not made together."""

    limit: float
    cost: Floats
    heads: Floats
    tails: Floats
    bad: NDArray[np.bool_]


def small_enough(p: Problem) -> bool:
    """Whether pairs of choices are few enough to look at."""
    return 0 < p.n * p.m <= OWN.choices


def gaps(p: Problem, cost: Floats) -> Floats:
    """[n, m, n, m]: least ms between the end of v on e and the start of t on d, over all chains of
    tasks from v to t and all devices of those between; -inf where t needs nothing of v.

    Proof. As for `path_bounds`, with one start and one end."""
    gap = np.full((p.n, p.m, p.n, p.m), -np.inf)
    for u in range(p.n - 1, -1, -1):
        for v in p.outputs(u):
            comm = p.waits(int(v))
            for s in p.consumers(int(v)):
                gap[u, :, s] = np.maximum(gap[u, :, s], comm)
                behind = gap[s, 0, :, 0] > -np.inf
                # [device of s, tasks behind s, their device]
                via = cost[s][:, None, None] + gap[s][:, behind]
                least = (comm[:, :, None, None] + via).min(axis=1)
                gap[u][:, behind] = np.maximum(gap[u][:, behind], least)
    return gap


def tightened(p: Problem, limit: float, start: Tight | None = None) -> Tight | None:
    """What a makespan of at most `limit` (units of p) implies; None: no plan has it. start: the
    same for a limit that is no less.

    Until nothing changes:
    heads  A task t on d starts no earlier than s, where for every k the tasks v_1 ... v_k before
           it, by falling a_v, all run on d from heads on, one at a time, with `gaps` behind them,
           or s >= a_k. a_v: the least of heads + cost + gap over devices e != d of v, inf where
           v on e and t on d would be late together. (A task of v's colocation group goes with v.)
    tails  The same on the reversed graph.
    pairs  v on e and t on d exclude each other where heads + cost + gap + cost + tails > limit,
           and on one device where either order of two unrelated tasks is late.
    probes t on d is supposed. Choices that it excludes go; who has one choice left takes it, and so
           on. Tasks that are then on one device run there one at a time within heads and tails, and
           their weights are within its memory; if not, t is not on d.

    Proof. Each rule says what any plan within `limit` does, given what was said before: v on
    another device than d is ready at d no earlier than its least a_v, so if t starts before a_v,
    then v is on d; tasks of one device do not overlap, so those of a window with h before and q
    after it need h + their sum + q (`busiest`). Links and their queues are idle here, which only
    makes plans shorter."""
    late = limit * SLACK
    cost = (p.cost if start is None else start.cost).copy()
    heads = np.zeros((p.n, p.m)) if start is None else start.heads.copy()
    tails = np.zeros((p.n, p.m)) if start is None else start.tails.copy()
    choices = p.n * p.m
    bad = np.zeros((choices, choices), np.bool_) if start is None else start.bad.copy()
    onward, back = np.arange(p.n), np.arange(p.n)[::-1].copy()
    reached = -np.inf
    for _ in range(OWN.refutations):
        gap = gaps(p, cost)
        turned = np.ascontiguousarray(gap.transpose(2, 3, 0, 1))
        if not gather(onward, gap, cost, p.group, heads, tails, late):
            return None
        if not gather(back, turned, cost, p.group, tails, heads, late):
            return None
        exclude(gap, cost, p.group, heads, tails, late, bad)
        facts = suppose(cost, heads, tails, p.weight, p.memory, late, bad)
        if facts < 0:
            return None
        able = np.isfinite(cost)
        now = float(heads[able].sum() + tails[able].sum())
        # Heads that creep up would be followed for ever.
        if not facts and now <= reached + OWN.creeping * choices * limit:
            break
        reached = now
    return Tight(limit, cost, heads, tails, bad)


def destructive(
    p: Problem, low: float, high: float, stop: Callable[[], bool] = lambda: False
) -> tuple[float, Tight | None]:
    """The largest makespan between two that was refuted, by bisection, and what the least that was
    not implies. low: a bound that is known (returned where nothing is refuted)."""
    best, fine = low, tightened(p, high)
    while fine is not None and high - best > OWN.bisected * high and not stop():
        middle = (best + high) / 2
        found = tightened(p, middle, fine)
        if found is None or overloaded(p, found, best):
            best = middle
        else:
            high, fine = middle, found
    return best, fine


def overloaded(p: Problem, tight: Tight, low: float) -> bool:
    """Whether the load in windows alone is too much for what a makespan implies, by the linear
    relaxation of `window_load`: with the devices, heads and tails that are left, and with tasks
    that no two devices may part as one group. low: a bound that is known."""
    view = replace(p, cost=tight.cost, group=joined(p, tight))
    # Groups whose tasks have no device in common are found by the next round of pairs.
    if not np.isfinite(by_group(view)[0]).any(axis=1).all():
        return True
    return supposed_load(view, tight.heads, tight.tails, low) > tight.limit * SLACK


def joined(p: Problem, tight: Tight) -> Ints:
    """[n] numbers of groups: those of colocation, and tasks all of whose choices on different
    devices exclude each other."""
    m = p.m
    pairs = tight.bad.reshape(p.n, m, p.n, m)
    apart = ~np.eye(m, dtype=bool)
    together = pairs.transpose(0, 2, 1, 3)[:, :, apart].all(axis=2)
    together |= p.group[:, None] == p.group[None, :]
    group, before = np.arange(p.n), None
    # The least number spreads to all that are joined, a step at a time.
    while before is None or (group != before).any():
        before = group
        group = np.where(together, group[None, :], p.n).min(axis=1)
    return np.unique(group, return_inverse=True)[1].astype(np.int64)
