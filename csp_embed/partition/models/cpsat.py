"""The CP-SAT model of placement and scheduling, in families that the callers combine.

Times are integers: `Scale` rounds durations down, so that a bound of the model is a bound of the
problem; where all durations are multiples of one tick that 64 bits can count, nothing is lost.

Families: `place` (who runs where, memory, reachability), `send` (which value crosses which route),
`schedule` (starts, queues, makespan), `loads` (period), `shape` (contiguous, pipeline), `symmetry`.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.partition.arrays.view import Floats, Ints, Problem
from csp_embed.partition.models.live import watch_memory
from csp_embed.partition.models.scale import Scale, whole_sizes
from csp_embed.partition.times.exact import Exact
from csp_embed.solver import cpsat


class Model:
    """A CP-SAT model under construction. x[g][d]: group g runs on device d (absent = forbidden)."""

    def __init__(self, p: Problem, horizon: float) -> None:
        self.p, self.cp, self.exact = p, cpsat.new_model(), Exact.of(p)
        # The scale needs to know the tick and how large sums may get.
        self.scale = Scale(
            self.exact.tick, horizon, self.exact.variables, self.exact.most(horizon), p.unit
        )
        # One more than the horizon rounds to, so that the incumbent itself stays a solution.
        self.horizon = self.scale.up(horizon) + 1
        self.x: list[dict[int, Any]] = []
        self.active: dict[tuple[int, int, int], Any] = {}
        self.hop_start: dict[tuple[int, int, int], Any] = {}
        self.start: list[Any] = []
        self.end: list[Any] = []
        self.makespan: Any = None
        self.period: Any = None
        self.goal: Any = None
        self.place()

    def cost(self, t: int, d: int) -> int:
        """Ticks of a task on a device."""
        return self.within(self.scale.whole(self.exact.cost(t, d)))

    def hop(self, v: int, h: int) -> int:
        """Ticks of a value on a hop."""
        return self.within(self.scale.whole(self.exact.hop(v, h)))

    def within(self, ticks: int) -> int:
        """The same, or one more than the horizon: what is longer cannot happen, and how much longer
        it is would only make ticks coarse."""
        return min(ticks, self.horizon + 1)

    # --- families ----------------------------------------------------------------------------

    def place(self) -> None:
        """One device per group; weights within memory; no value where devices cannot talk."""
        p, cp = self.p, self.cp
        members = p.groups()
        weight = [float(p.weight[ts].sum()) for ts in members]
        for g, ts in enumerate(members):
            self.x.append({d: cp.new_bool_var(f"x{g}_{d}") for d in p.allowed(ts[0])})
            cp.add_exactly_one(self.x[g].values())
        # A memory that holds all constrains nothing.
        for d in range(p.m):
            if math.isfinite(p.memory[d]) and sum(weight) > p.memory[d]:
                sizes, room = whole_sizes(weight, float(p.memory[d]))
                cp.add(
                    sum(
                        size * self.x[g][d]
                        for g, size in enumerate(sizes)
                        if d in self.x[g] and size
                    )
                    <= room
                )
        # Most platforms join all devices; the pairs of pairs are then saved.
        if not np.isfinite(p.lat).all():
            for u, t, _ in p.edges():
                for a, xa in self.at(u).items():
                    for b, xb in self.at(t).items():
                        if not np.isfinite(p.lat[a, b]):
                            cp.add_bool_or([xa.negated(), xb.negated()])

    def at(self, task: int) -> dict[int, Any]:
        """The placement variables of a task."""
        return self.x[self.p.group[task]]

    def send(self) -> None:
        """active[v, a, b] where value v goes from a to b over at least one hop that has a queue or
        takes time of a device."""
        p, cp = self.p, self.cp
        # By class of routes, not by value: the same answer holds for thousands of values.
        queued = {
            (row, a, b)
            for a in range(p.m)
            for b in range(p.m)
            for row in set(p.row.tolist())
            if any(p.hop_res[h] >= 0 or p.hand[h].any() for h in p.route(row, a, b))
        }
        for v, u in enumerate(p.value_src):
            for t in p.consumers(v):
                for a, xa in self.at(int(u)).items():
                    for b, xb in self.at(int(t)).items():
                        # An uncontended route has no queue; its time is only a wait (see
                        # `_arrivals`).
                        if a == b or (int(p.row[v]), a, b) not in queued:
                            continue
                        key = (v, a, b)
                        if key not in self.active:
                            self.active[key] = cp.new_bool_var(f"s{v}_{a}_{b}")
                            # Sent from a only if its maker is there: a needless send would hold the
                            # link.
                            cp.add_implication(self.active[key], xa)
                        cp.add_bool_or([xa.negated(), xb.negated(), self.active[key]])

    def schedule(self, heads: Floats, tails: Floats) -> None:
        """Starts, one task at a time per device, data before use, queues, live activations.

        heads, tails [n, m]: ms that must pass before the start and after the end of each task, by
        the device that runs it (see `bounds.path_bounds`)."""
        p, cp, scale = self.p, self.cp, self.scale
        # A little above: heads and tails were added up in floats.
        last = scale.time(self.horizon) * (1 + 1e-9)
        self.makespan = cp.new_int_var(0, self.horizon, "makespan")
        # One line for each device, then one for each contended link or bus.
        lines: list[list[Any]] = [[] for _ in range(p.m + len(p.resources))]
        for t in range(p.n):
            here = self.at(t)
            head = {d: self.within(scale.down(float(heads[t, d]))) for d in here}
            # Heads in floats, rounded down, so that they cut off no solution.
            start = cp.new_int_var(min(*head.values(), self.horizon), self.horizon, f"t{t}")
            cost = {d: self.cost(t, d) for d in here}
            length = sum(cost[d] * xd for d, xd in here.items())
            self.start.append(start)
            self.end.append(start + length)
            cp.add(start >= sum(head[d] * xd for d, xd in here.items()))
            tail = sum(self.within(scale.down(float(tails[t, d]))) * xd for d, xd in here.items())
            cp.add(start + length + tail <= self.makespan)
            for d, xd in here.items():
                # On this device the task could not end within the horizon.
                if heads[t, d] + p.cost[t, d] + tails[t, d] > last:
                    cp.add(xd == 0)
                # What takes no time still needs the device idle then: it is on the line too.
                lines[d].append(cp.new_optional_fixed_size_interval_var(start, cost[d], xd, ""))
        self._arrivals(lines)
        for r, line in enumerate(lines):
            if len(line) > 1:
                cp.add_no_overlap(line)
            if r < p.m:
                mine = [t for t in range(p.n) if r in self.at(t)]
                if mine:
                    # Nothing runs on r before its least head nor after its least tail.
                    room = min(scale.down(float(heads[t, r])) for t in mine)
                    room += min(scale.down(float(tails[t, r])) for t in mine)
                    busy = sum(self.cost(t, r) * self.at(t)[r] for t in mine)
                    # Only a used device loses that time: an idle one has neither.
                    used = cp.new_bool_var("") if room else None
                    if used is None:
                        cp.add(busy <= self.makespan)
                    else:
                        for t in mine:
                            cp.add_implication(self.at(t)[r], used)
                        cp.add(busy + room * used <= self.makespan)
        if p.activation.any():
            watch_memory(self)

    def _arrivals(self, lines: list[list[Any]]) -> None:
        p, cp = self.p, self.cp
        same: dict[tuple[int, int], Any] = {}
        arrive: dict[tuple[int, int], Any] = {}
        for v, u in enumerate(p.value_src):
            u = int(u)
            for t in p.consumers(v):
                t = int(t)
                pairs = [
                    (a, b, sum(self.hop(v, h) for h in p.hops(a, b, v)))
                    for a in self.at(u)
                    for b in self.at(t)
                    if a != b and math.isfinite(p.lat[a, b])
                ]
                # On different devices the value takes the least of all pairs, whichever these are.
                least = min((c for *_, c in pairs), default=0)
                together = self._same(u, t, same)
                cp.add(self.start[t] >= self.end[u] + least - least * together)
                for a, b, c in pairs:
                    if (v, a, b) in self.active:
                        continue
                    # The rest above the least holds only for that pair of devices.
                    if c > least:
                        cp.add(self.start[t] >= self.end[u] + c).only_enforce_if(
                            self.at(u)[a], self.at(t)[b]
                        )
        for (v, a, b), on in self.active.items():
            u = int(p.value_src[v])
            # A value arrives once at a device, however many read it there.
            if (v, b) not in arrive:
                arrive[v, b] = cp.new_int_var(0, self.horizon, f"a{v}_{b}")
                for t in p.consumers(v):
                    if b in self.at(int(t)):
                        cp.add(self.start[t] >= arrive[v, b]).only_enforce_if(self.at(int(t))[b])
            before = self.end[u]
            for k, h in enumerate(p.hops(a, b, v)):
                # Hops by destination, not by pair: only one maker's device is true, so they can
                # share times.
                if (v, b, k) not in self.hop_start:
                    self.hop_start[v, b, k] = cp.new_int_var(0, self.horizon, f"h{v}_{b}_{k}")
                begin = self.hop_start[v, b, k]
                length = self.hop(v, h)
                # Only if it is sent; else the hop's start is free.
                cp.add(begin >= before).only_enforce_if(on)
                if p.hop_res[h] >= 0:
                    lines[p.m + int(p.hop_res[h])].append(
                        cp.new_optional_fixed_size_interval_var(begin, length, on, "")
                    )
                before = begin + length
            cp.add(arrive[v, b] >= before).only_enforce_if(on)

    def _same(self, u: int, t: int, known: dict[tuple[int, int], Any]) -> Any:
        """1 only if tasks u and t share a device."""
        # By group: tasks of one group stand together anyway.
        key = (int(self.p.group[u]), int(self.p.group[t]))
        if key[0] == key[1]:
            return 1
        if key not in known:
            y = known[key] = self.cp.new_bool_var("")
            for d, xd in self.at(u).items():
                other = self.at(t).get(d)
                # One way only: y may be 1 only where both are; that it need not be 1 costs nothing.
                if other is None:
                    self.cp.add_implication(xd, y.negated())
                else:
                    self.cp.add_bool_or([xd.negated(), other, y.negated()])
        return known[key]

    def loads(self) -> None:
        """period >= the load of every device and contended link."""
        p, cp = self.p, self.cp
        self.period = cp.new_int_var(0, self.horizon, "period")
        work = [
            [self.cost(t, d) * self.at(t)[d] for t in range(p.n) if d in self.at(t)]
            for d in range(p.m)
        ]
        by_res: list[list[Any]] = [[] for _ in p.resources]
        handled = p.handled()
        for (v, a, b), on in self.active.items():
            for h in p.hops(a, b, v):
                if p.hop_res[h] >= 0:
                    by_res[p.hop_res[h]].append(self.hop(v, h) * on)
                for d, ms in self.exact.handling(v, h) if handled else ():
                    work[d].append(self.within(self.scale.whole(ms)) * on)
        # For a period the order on a device does not matter, only the sum.
        for terms in [*work, *filter(None, by_res)]:
            cp.add(sum(terms) <= self.period)

    def flight(self) -> None:
        """Weights and activations of all inputs in flight within memory: what every placement that
        `feasible.pipelined_memory` accepts meets, and few others do. A stage may be later here than
        it is, and a value that is kept for more than one input is not counted again where others
        are gone."""
        p, cp = self.p, self.cp
        most = p.weight.sum() + (p.n + 1) * p.activation.sum()
        tight = [d for d in range(p.m) if p.memory[d] < most]
        if not tight or not p.activation.any():
            return
        known: dict[tuple[int, int], Any] = {}
        stage = [cp.new_int_var(0, p.n, "") for _ in range(p.n)]
        kept = [cp.new_int_var(0, p.n, "") for _ in range(p.n)]
        last = list(range(p.n))
        for u, t, _ in p.edges():
            cp.add(stage[t] >= stage[u] + 1 - self._same(u, t, known))
            cp.add(kept[u] >= stage[t] - stage[u])
            last[u] = max(last[u], t)
        for d in tight:
            mine = [t for t in range(p.n) if d in self.at(t)]
            both = [*p.weight[mine].tolist(), *p.activation[mine].tolist()]
            # With the memory among them: more than one input of them all may be in flight.
            sizes, room = whole_sizes([*both, float(p.memory[d])], float(p.memory[d]))
            sizes = sizes[:-1]
            held = []
            for t, size in zip(mine, sizes[len(mine) :], strict=True):
                if not size:
                    continue
                here = cp.new_int_var(0, p.n, "")
                cp.add(here >= kept[t]).only_enforce_if(self.at(t)[d])
                held.append(size * here)
            weight = [w * self.at(t)[d] for t, w in zip(mine, sizes, strict=False) if w]
            for turn in mine:
                alive = [
                    size * self.at(t)[d]
                    for t, size in zip(mine, sizes[len(mine) :], strict=True)
                    if size and t <= turn <= last[t]
                ]
                cp.add(sum(weight) + sum(held) + sum(alive) <= room)

    def shape(self, contiguous: bool, pipeline: bool) -> None:
        """Convex sets: x >= reached-from + reaches - 1. Pipeline: devices in a strict order."""
        p, cp = self.p, self.cp
        if pipeline:
            # Turns of devices: a strict order is one without rings.
            turn = [cp.new_int_var(0, p.m - 1, "") for _ in range(p.m)]
            before = {}
            for u, t, _ in p.edges():
                for a, xa in self.at(u).items():
                    for b, xb in self.at(t).items():
                        if a == b:
                            continue
                        # Only pairs of devices that some edge may cross are compared.
                        if (a, b) not in before:
                            before[a, b] = cp.new_bool_var("")
                            cp.add(turn[a] + 1 <= turn[b]).only_enforce_if(before[a, b])
                        cp.add_bool_or([xa.negated(), xb.negated(), before[a, b]])
        if not (contiguous or pipeline):
            return
        for d in range(p.m):
            # above: some task on d leads to t; below: t leads to some task on d.
            above = [cp.new_bool_var("") for _ in range(p.n)]
            below = [cp.new_bool_var("") for _ in range(p.n)]
            for t in range(p.n):
                if d in self.at(t):
                    cp.add_implication(self.at(t)[d], above[t])
                    cp.add_implication(self.at(t)[d], below[t])
                    # Between two tasks of d, so on d: that is convexity.
                    cp.add_bool_or([above[t].negated(), below[t].negated(), self.at(t)[d]])
                else:
                    cp.add_bool_or([above[t].negated(), below[t].negated()])
            for u, t, _ in p.edges():
                cp.add_implication(above[u], above[t])
                cp.add_implication(below[t], below[u])

    def refuse(self, found: Any) -> None:
        """Excludes the placement of a solution."""
        used = [x for row in self.x for x in row.values() if found.value(x)]
        # Only what is 1: another placement sets at least one other device to 1.
        self.cp.add_bool_or([x.negated() for x in used])

    def forbid(self, choices: NDArray[np.bool_]) -> None:
        """Excludes devices of tasks, [n, m]: True where the task cannot run."""
        for t in range(self.p.n):
            for d, x in self.at(t).items():
                if choices[t, d]:
                    self.cp.add(x == 0)

    def among(self, placements: Ints) -> None:
        """One of the given placements [k, n]: rows of devices."""
        # One task tells its group's device.
        first = [ts[0] for ts in self.p.groups()]
        columns = [(g, d) for g, x in enumerate(self.x) for d in x]
        rows = [[int(row[first[g]] == d) for g, d in columns] for row in placements]
        self.cp.add_allowed_assignments([self.x[g][d] for g, d in columns], rows)

    def symmetry(self, classes: Sequence[Sequence[int]]) -> None:
        """Of interchangeable devices the k-th may be used by a group only if an earlier group uses
        the one before it. Removes copies of solutions only."""
        cp = self.cp
        for devices in classes:
            for one, two in itertools.pairwise(devices):
                seen: Any = None
                for x in self.x:
                    if two in x:
                        if seen is None:
                            # The first group that could use `two` may not: nobody has used `one`
                            # before it.
                            cp.add(x[two] == 0)
                        else:
                            cp.add_implication(x[two], seen)
                    if one in x:
                        now = cp.new_bool_var("")
                        # now -> x[one] or seen: `seen` may be 1 only once a group has used the
                        # device.
                        cp.add_bool_or(
                            [x[one], seen] if seen is not None else [x[one]]
                        ).only_enforce_if(now)
                        seen = now

    def hint(
        self, dev: Sequence[int] | Ints, start: Sequence[float] | Floats | None = None
    ) -> None:
        """A starting point: device of each task and, where scheduled, its start in ms."""
        for g, x in enumerate(self.x):
            # Also the zeros: a hint that is complete is a solution at once.
            first = int(np.flatnonzero(self.p.group == g)[0])
            for d, var in x.items():
                self.cp.add_hint(var, int(dev[first] == d))
        if start is not None:
            for t, var in enumerate(self.start):
                self.cp.add_hint(var, self.scale.down(float(start[t])))
