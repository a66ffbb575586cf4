"""Times as exact rationals: what is printed as proved rests on these, not on floats.

Takes: a Problem and decisions of any solver.  Leaves: Fractions in ms.  A number in a file is the
decimal that it is written as (0.1 is one tenth), whatever double the reader made of it; so equal
sums are equal and the same graph in another unit gives the same proofs.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from fractions import Fraction
from functools import cached_property

import numpy as np

from csp_embed.partition.arrays.view import Ints, Problem, number
from csp_embed.partition.times.timetable import Timetable, carried, retimed

WIDTH = 2**61  # ticks of all operations together that CP-SAT can add up in 64 bits
DOUBLE = Fraction(1, 2**48)  # relative: what rounding to 64 bits may cost a proof
COUNT = 200_000  # durations up to which their common tick is looked for


class Exact:
    """Durations of one Problem in ms, as Fractions."""

    def __init__(self, p: Problem) -> None:
        self.p = p
        by_id = p.graph.by_id()
        self.tasks = [by_id[t] for t in p.ids]
        # Decimals are made once: every duration is asked for many times.
        self.sizes = [number(size) for *_, size, _ in p.graph.values()]
        self.rates = [number(p.platform.rate(k)) for k in p.platform.links]
        self.lats = [number(k.latency_ms) for k in p.platform.links]
        # By link and end: ms, ms per byte.
        self.hands = [
            {
                d: (number(own.ms), 1 / number(own.bytes_per_ms) if own.bytes_per_ms else 0)
                for d in k.between
                for own in [k.handled_by(d)]
            }
            for k in p.platform.links
        ]
        # By (value, link): all routes over a link share its time.
        self._hops: dict[tuple[int, int], Fraction] = {}

    @classmethod
    def of(cls, p: Problem) -> Exact:
        """The one of a problem: models and proofs ask for it again and again."""
        # Beside the fields of the frozen value, which stay what they are.
        if "_exact" not in p.__dict__:
            p.__dict__["_exact"] = cls(p)
        known: Exact = p.__dict__["_exact"]
        return known

    def cost(self, task: int, device: int) -> Fraction:
        """ms of a task on a device that may run it."""
        return number(self.tasks[task].cost_on(self.p.platform.devices[device]) or 0.0)

    def hop(self, value: int, hop: int) -> Fraction:
        """ms of one hop of a value."""
        link = int(self.p.hop_link[hop])
        key = (value, link)
        if key not in self._hops:
            self._hops[key] = self.lats[link] + self.sizes[value] / self.rates[link]
        return self._hops[key]

    def handling(self, value: int, hop: int) -> list[tuple[int, Fraction]]:
        """(device, ms that it takes) at both ends of one hop of a value."""
        p = self.p
        found = []
        for d in (int(p.hop_from[hop]), int(p.hop_to[hop])):
            ms, per_byte = self.hands[int(p.hop_link[hop])][p.platform.devices[d].name]
            found.append((d, ms + self.sizes[value] * per_byte))
        return found

    def comm(self, value: int, a: int, b: int) -> Fraction:
        """ms from device a to b over an idle route."""
        return sum((self.hop(value, h) for h in self.p.hops(a, b, value)), Fraction(0))

    @cached_property
    def tick(self) -> Fraction | None:
        """The largest time of which every duration is a multiple; 0 where all are 0, None where
        there are too many to look at."""
        p = self.p
        able = np.argwhere(np.isfinite(p.cost))
        links = np.unique(p.hop_link)
        # A common divisor of that many fractions would take seconds.
        if len(able) + len(p.value_src) * len(links) > COUNT:
            return None
        return common(
            [
                *(self.cost(int(t), int(d)) for t, d in able),
                *(self.lats[k] + s / self.rates[k] for k in links for s in set(self.sizes)),
                *(
                    ms + s * per_byte
                    for k in links
                    for ms, per_byte in self.hands[k].values()
                    for s in set(self.sizes)
                ),
            ]
        )

    def most(self, horizon: float) -> float:
        """No less than any load: all tasks on one device, all values over one link to all their
        readers, where nothing that takes longer than `horizon` may happen. In the Problem's unit.
        """
        p = self.p
        able = np.where(np.isfinite(p.cost), np.minimum(p.cost, horizon), 0.0)
        # A cost above the horizon cannot happen in the model, so it need not fit into 64 bits.
        work = able.sum(axis=0).max(initial=0.0)
        # A device handles each value once for every other device, over every route.
        if p.handled():
            each = np.maximum(p.hand[:, 0::2].max(axis=0), 0).max()
            by_size = p.hand[:, 1::2].max()
            work += 2 * p.m * p.m * (len(p.value_src) * each + p.value_bytes.sum() * by_size)
        # The first class of routes tells who can talk; sizes change only the ways.
        away = np.isfinite(p.lat[: p.m])
        sends = sum(
            min(float(p.waits(v)[away].max(initial=0.0)), horizon) * p.m * p.m
            for v in range(len(p.value_src))
        )
        return float(max(work, sends if p.contended() else 0.0))

    @cached_property
    def variables(self) -> int:
        """No fewer than the times that a model of the makespan has as variables."""
        p = self.p
        longest = int(np.diff(p.hop_ptr).max(initial=1))
        fan = int(np.minimum(np.diff(p.use_ptr), p.m).sum()) if p.contended() else 0
        return 3 * p.n + min(fan, len(p.value_src) * p.m) * p.m * (1 + longest)

    def timetable(self, table: Timetable) -> Timetable:
        """Earliest times, in Fractions, that keep the sequences of a timetable in floats."""
        hops = {key: start for key, (start, _) in table.hops.items()}
        ends = table.finish.tolist(), {key: end for key, (_, end) in table.hops.items()}
        return retimed(
            self.p, table.dev, table.start.tolist(), hops, self.cost, self.hop, ends=ends
        )

    def loads(self, dev: Ints) -> dict[str, Fraction]:
        """ms per sample by device, contended link and bus."""
        p = self.p
        found: dict[str, Fraction] = {}
        handled = p.handled()
        for t, d in enumerate(dev.tolist()):
            name = p.platform.devices[d].name
            found[name] = found.get(name, Fraction(0)) + self.cost(t, d)
        for v, _, _, h in zip(*(x.tolist() for x in carried(p, dev)), strict=True):
            # Uncontended links carry any number of values at once: no load.
            if p.hop_res[h] >= 0:
                name = p.resources[p.hop_res[h]]
                found[name] = found.get(name, Fraction(0)) + self.hop(v, h)
            for d, ms in self.handling(v, h) if handled else ():
                # Also devices that run nothing and only pass values on.
                if ms:
                    name = p.platform.devices[d].name
                    found[name] = found.get(name, Fraction(0)) + ms
        return found

    def critical_path(self) -> Fraction:
        """`bounds.critical_path`, exactly (the same recursion, heads only)."""
        p, zero = self.p, Fraction(0)
        # Only allowed devices are in it: Fractions have no inf.
        ends: list[dict[int, Fraction]] = []
        for t in range(p.n):
            here: dict[int, Fraction] = {}
            for d in p.allowed(t):
                ready = zero
                for v in p.inputs(t):
                    # From whatever device of the maker suits d best; one that cannot talk is no
                    # option.
                    options = [
                        end + (zero if e == d else self.comm(int(v), e, d))
                        for e, end in ends[int(p.value_src[v])].items()
                        if e == d or math.isfinite(p.lat[e, d])
                    ]
                    if not options:
                        break  # no device of the producer reaches d
                    ready = max(ready, min(options))
                else:
                    here[d] = ready + self.cost(t, d)
            ends.append(here)
        return max((min(e.values(), default=zero) for e in ends), default=zero)

    def load(self, prices: Iterable[float]) -> Fraction:
        """`bounds.load` under the given prices, exactly."""
        # Prices in floats are exact binary fractions: the bound is exact whatever they are.
        w = [Fraction(float(x)) for x in prices]
        total = sum(w, Fraction(0))
        if not total:
            return Fraction(0)
        least = Fraction(0)
        for tasks in self.p.groups():
            # Colocated tasks share their allowed devices; the first one tells them.
            able = self.p.allowed(tasks[0])
            least += min(w[d] * sum(self.cost(t, d) for t in tasks) for d in able)
        # Divided by their sum, so that prices need not sum to exactly 1.
        return least / total


def common(values: Iterable[Fraction]) -> Fraction:
    """The greatest common divisor of rationals; 0 of none."""
    found = Fraction(0)
    for x in set(values):
        # gcd of a / d and b / d is gcd(a, b) / d on their common denominator.
        den = math.lcm(found.denominator, x.denominator)
        found = Fraction(math.gcd(int(found * den), int(x * den)), den)
    return found


def below(x: Fraction) -> float:
    """The largest float that is not above x."""
    near = float(x)
    # A float is written as the shortest decimal that reads as it; that decimal must not be above.
    return near if number(near) <= x else math.nextafter(near, -math.inf)
