"""Schedules of many equal shares, from the relaxation of one: how much of each layer runs where,
dealt out to the shares, then annealed by dispatching.

Takes: the graph of one share, that of all shares, a platform.  Leaves: the plan of all shares.

Where hundreds of tasks keep all devices busy, the makespan is nearly the largest load, and list
schedules balance it badly: each of their choices looks at one task. The relaxation of the period
sees all loads at once. Its fractions of a layer are rounded share by share, loads are balanced over
all shares, and an order is found by `local.dispatching`. Links are made dearer for it by some
factors in turn, because an order needs room on them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from csp_embed.ir.network import Assignment, Plan, Platform, TaskGraph
from csp_embed.partition.arrays.symmetry import trimmed
from csp_embed.partition.arrays.view import Floats, Ints, Problem, csr, make_problem, normalised
from csp_embed.partition.bounds.latency_period import path_bounds
from csp_embed.partition.links import finish
from csp_embed.partition.methods.local.cooling import TINY, UNNOTED, slices, span, usual_rise
from csp_embed.partition.methods.local.dispatching import anneal_dispatch
from csp_embed.partition.methods.period.balance import balance
from csp_embed.partition.methods.period.period_loads import Loads, load_arrays
from csp_embed.partition.methods.period.relaxation import Relaxed, relax, rounded
from csp_embed.partition.portfolio import NUMBERS
from csp_embed.partition.proof import Proof
from csp_embed.partition.request import Clock, Incumbent, in_units
from csp_embed.partition.supervise import INTERRUPTED, supervised
from csp_embed.partition.times import kernels
from csp_embed.partition.times.dispatch import Space, dispatch, space, timed

OWN = NUMBERS.dispatched


@dataclass
class State:
    """A schedule by dispatching. prices [lines]: of the relaxation that it came from."""

    value: float
    dev: Ints
    priority: Floats
    prices: Floats


class Shares:
    """One problem of all shares, p, beside that of one of them."""

    def __init__(
        self, one: Problem, p: Problem, inc: Incumbent, clock: Clock, scratch: Space
    ) -> None:
        self.one, self.p, self.inc, self.clock, self.s = one, p, inc, clock, scratch
        self.rng = np.random.default_rng(clock.request.seed)
        self.a = kernels.arrays(p)
        self.member_ptr, self.members = csr(p.groups())
        at = {name.split("/", 1)[1]: i for i, name in enumerate(one.ids)}
        named = [name.split("/", 1) for name in p.ids]
        self.layer = np.array([at[name] for _, name in named], np.int64)
        self.copy = np.array([int(number) for number, _ in named], np.int64)
        self.twins = np.zeros((one.n, int(self.copy.max()) + 1), np.int64)
        self.twins[self.layer, self.copy] = np.arange(p.n)
        self.rise: float | None = None

    def run(self, rows: Sequence[Assignment], last: bool) -> None:
        """Improves the incumbent. rows: of a plan of all shares, one of the starts; last: no more
        shares will be tried from what comes out, so that it is worth a long chain."""
        q, joint = (load_arrays(p, handled=False) for p in (self.one, self.p))
        found: list[State] = []
        for number, factor in enumerate(OWN.stretches):
            if found and self.clock.late():
                break
            relaxed = relax(_stretched(q, factor))
            if relaxed is None:
                continue
            if not number:
                first = self.state(rows, relaxed.prices)
                found.append(self.anneal(first, OWN.trial, len(OWN.stretches)))
            found.append(self.anneal(self.dealt(q, joint, relaxed, factor), OWN.trial, number))
            self.clock.tell("dealing out shares", number + 1, len(OWN.stretches))
        found.sort(key=lambda x: x.value)
        for number, state in enumerate(found[: OWN.lanes]):
            self.anneal(state, OWN.touches if last else OWN.trial, len(OWN.stretches) + 1 + number)
            self.clock.tell("dispatching", number + 1, OWN.lanes)

    def state(self, rows: Sequence[Assignment], prices: Floats) -> State:
        """A plan of all shares, dispatched by its starts."""
        at = {d.name: i for i, d in enumerate(self.p.platform.devices)}
        named = {row.task: row for row in rows}
        dev = np.array([at[named[name].device] for name in self.p.ids], np.int64)
        priority = np.array([-(named[name].start or 0.0) for name in self.p.ids])
        priority /= float(self.p.unit)
        cut = prices[: len(self.s.head)].copy()
        return State(dispatch(self.a, self.s, dev, priority, cut)[0], dev, priority, cut)

    def dealt(self, q: Loads, joint: Loads, relaxed: Relaxed, factor: float) -> State:
        """The best start of some roundings and priorities."""
        prices = relaxed.prices[: len(self.s.head)].copy()
        prices[self.p.m :] *= factor
        best: State | None = None
        for number in range(OWN.roundings):
            dev = np.zeros(self.p.n, np.int64)
            for k in range(self.twins.shape[1]):
                dev[self.twins[:, k]] = rounded(relaxed.x, self.rng)[q.group]
            dear, start = _stretched(joint, factor), dev.copy()
            usual = usual_rise(
                lambda noted, dear=dear, start=start: balance(
                    dear, start, OWN.probes, TINY, TINY, 1, rises=noted
                )
            )
            hot, cold = span(usual, *OWN.balance_heats)
            balance(dear, dev, OWN.balanced, hot, cold, number + 1)
            for priority in self.priorities():
                value = dispatch(self.a, self.s, dev, priority, prices)[0]
                if best is None or value < best.value:
                    best = State(value, dev, priority, prices)
        assert best is not None
        return best

    def priorities(self) -> list[Floats]:
        """Least ms behind a task; shares one after the other; some of both; what is behind last."""
        tails = path_bounds(self.one)[1].min(axis=1)[self.layer]
        late = self.copy * float(tails.max()) / self.twins.shape[1]
        return [tails, -late * self.twins.shape[1], tails - late, -tails]

    def anneal(self, state: State, touches: float, number: int) -> State:
        """A chain; its best goes to the incumbent."""
        steps = touches * self.clock.request.effort / max(1, self.p.n)
        dev, priority = state.dev.copy(), state.priority.copy()
        if not np.isfinite(state.value):
            return state
        hot, cold = span(self.usual(state), *OWN.heats)
        value = state.value
        for first, last, count in slices(hot, cold, steps, OWN.slice):
            number += 1
            value = self.chain(dev, priority, state.prices, count, first, last, number)
            if self.clock.late():
                break
        value = dispatch(self.a, self.s, dev, priority, state.prices)[0]
        self.inc.offer(dev, timed(self.p, self.s, dev), "dispatch")
        return State(value, dev, priority, state.prices)

    def usual(self, state: State) -> float:
        """What worsening moves cost; the first start tells for all."""
        if self.rise is None:
            dev, priority = state.dev.copy(), state.priority.copy()
            self.rise = usual_rise(
                lambda noted: self.chain(
                    dev, priority, state.prices, OWN.probes, TINY, TINY, 0, noted
                )
            )
        return self.rise

    def chain(
        self, dev: Ints, priority: Floats, prices: Floats, steps: int, hot: float, cold: float,
        number: int, rises: Floats = UNNOTED,
    ) -> float:  # fmt: skip
        """Changes dev and priority in place."""
        seed = self.clock.request.seed * 1000 + number + 1
        return float(
            anneal_dispatch(
                self.a, self.s, self.members, self.member_ptr, self.layer, self.twins, dev,
                priority, prices, OWN.priced, OWN.late, steps, hot, cold, seed, rises,
            )
        )  # fmt: skip


def _stretched(q: Loads, factor: float) -> Loads:
    """With links so many times slower."""
    return q._replace(hop_lat=q.hop_lat * factor, hop_inv=q.hop_inv * factor)


def dispatched(
    one: TaskGraph, together: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str],
    known: Plan, rows: Sequence[Assignment], last: bool,
) -> Plan | None:  # fmt: skip
    """A better plan of `together` than `known`, if there is. rows, last: see `Shares.run`.

    Tasks of `together` are `number/name` for those of `one`, `0/name`. None also where this is no
    use: the relaxation or the work space too large, one device.
    """
    few = trimmed(together, platform, fix.values())
    p = normalised(make_problem(together, few, fix))
    single = normalised(make_problem(one, few, {t: d for t, d in fix.items() if t[:2] == "0/"}))
    scratch = space(p)
    if scratch is None or len(single.use) * p.m * p.m > NUMBERS.relaxed.places or p.m < 2:
        return None
    own = clock.of(in_units(clock.request, p), p.unit)
    inc, proof = Incumbent(p, own.request), Proof.of(p)
    own.known = lambda: (inc.best.value if inc.best else float("inf"), proof.value)
    work = Shares(single, p, inc, own, scratch)
    proof.interrupted = supervised(lambda: work.run(rows, last), clock, lambda: True) == INTERRUPTED
    if inc.best is None or inc.best.value * float(p.unit) >= (known.objective or 0.0):
        # Whoever asked for the end must hear of it, whichever plan is kept.
        return replace(known, reasons=("interrupted",)) if proof.interrupted else None
    return finish(p, inc, proof, own.request)
