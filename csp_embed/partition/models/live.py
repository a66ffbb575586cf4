"""Weights and live activations within memory, as constraints of a CP-SAT model.

Takes: a model whose schedule is posted.  Leaves: intervals of activations, and what they imply.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

from csp_embed.partition.arrays.view import Problem
from csp_embed.partition.models.scale import whole_sizes


class Scheduled(Protocol):
    """What of a model is needed here: its parts, not the class that calls this."""

    p: Problem
    cp: Any
    horizon: int
    start: list[Any]
    end: list[Any]

    def at(self, task: int) -> dict[int, Any]: ...


def watch_memory(model: Scheduled) -> None:
    """Weights and live activations within memory at all times."""
    p, cp = model.p, model.cp
    for d in range(p.m):
        mine = [t for t in range(p.n) if d in model.at(t)]
        if not math.isfinite(p.memory[d]):
            continue
        # All that may come here fits at once: nothing to watch.
        if p.weight[mine].sum() + p.activation[mine].sum() <= p.memory[d]:
            continue
        # Weights and activations rounded alike, so that their sum compares with one memory.
        both = [*p.weight[mine].tolist(), *p.activation[mine].tolist()]
        sizes, most = whole_sizes(both, float(p.memory[d]))
        weight = dict(zip(mine, sizes[: len(mine)], strict=True))
        live = dict(zip(mine, sizes[len(mine) :], strict=True))
        intervals, demands = [], []
        for t in mine:
            if not p.activation[t]:
                continue
            until = cp.new_int_var(0, model.horizon, "")
            # The activation lives until its last reader ends, on whatever device that is.
            cp.add(until >= model.end[t])
            for v in p.outputs(t):
                for c in p.consumers(int(v)):
                    cp.add(until >= model.end[c])
            life = cp.new_int_var(0, model.horizon, "")
            intervals.append(
                cp.new_optional_interval_var(model.start[t], life, until, model.at(t)[d], "")
            )
            demands.append(live[t])
        weights = sum(weight[t] * model.at(t)[d] for t in mine if weight[t])
        # The weights that are on the device take their part of its memory for the whole run.
        room = cp.new_int_var(0, most, "")
        cp.add(room + weights <= most)
        cp.add_cumulative(intervals, demands, room)
        _while_running(model, d, live, room)


def _while_running(model: Scheduled, d: int, live: dict[int, int], room: Any) -> None:
    """While a task runs, it and all that it reads are alive: implied by the intervals, and said
    of devices alone. From intervals of two fine ticks it would follow tick by tick."""
    p, cp = model.p, model.cp
    reads: dict[int, set[int]] = {}
    for u, t, _ in p.edges():
        reads.setdefault(int(t), set()).add(int(u))
    for t in live:
        # A task of no length runs at no time.
        if p.cost[t, d] <= 0:
            continue
        held = [u for u in sorted({t, *reads.get(t, ())}) if live.get(u)]
        if len(held) > 1:
            cp.add(sum(live[u] * model.at(u)[d] for u in held) <= room).only_enforce_if(
                model.at(t)[d]
            )
