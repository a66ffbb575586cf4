"""Searches for placements whose routes are best.

In order: both phases together (the searches of one phase), on all machines and, where requests may
not take long, on the fast ones alone; prefill and decode on machines of their own, divided by what
each does best; short routes one beside another; and changes of single intervals.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import product

import numpy as np

from csp_embed.serving.instance import Instance, MachineType, Placement, delays, part_of
from csp_embed.serving.routes.bound import weighted
from csp_embed.serving.routes.short import short_route
from csp_embed.serving.routes.value import ROUNDS, Routed, route_plan
from csp_embed.serving.searches.first import first, first_placements
from csp_embed.serving.searches.search import Progress, Search

FEW = 4_000  # placements of which all are tried
CHANGES = 240  # single intervals changed, where there are more
SPLITS = 7  # ways to divide the machines between the phases
SHARES = (0.5, 0.25, 0.75, 0.0, 1.0)  # weights of the prompts at which a placement is screened

Method = Callable[[Search], None]


class RouteSearch:
    """One run. wanted: tokens/s that the shortest requests must come to; None = as many tokens/s
    as possible. best, placement, method: the best so far."""

    def __init__(
        self,
        instance: Instance,
        methods: Sequence[Method],
        limit: float | None,
        seed: int,
        tell: Progress | None,
        wanted: float | None,
    ) -> None:
        self.instance, self.methods, self.limit, self.seed = instance, methods, limit, seed
        self.tell = tell or (lambda text, done, total: None)
        self.wanted = wanted
        self.begin = time.perf_counter()
        self.delay = delays(instance)
        self.best: Routed | None = None
        self.placement: dict[int, tuple[int, int]] = {}
        self.method = "none"
        # Placements that were valued before are not valued again.
        self.known: set[tuple[tuple[int, tuple[int, int]], ...]] = set()

    def run(self) -> None:
        """All searches in turn."""
        # Few enough to try all: then nothing is missed.
        if self._few():
            self._every()
            return
        # Whatever ends the run early finds a plan to keep.
        self._first()
        # Phases together first: any later search begins from a plan.
        self._together()
        assert self.instance.phases is not None
        if self.instance.phases.split:
            self._apart()
        # Long pipelines are the better for tokens/s, short ones for time.
        if self.wanted is not None or self.instance.phases.limits:
            self._short()
        self._change()

    def _first(self) -> None:
        """Phases on the same machines: pairs of machines may take minutes where they are many."""
        assert self.instance.phases is not None
        whole = replace(self.instance, phases=replace(self.instance.phases, split=False))
        # A few routes at once, then all of them.
        for rounds in (1, ROUNDS):
            for placement in first_placements(weighted(self.instance, None)):
                self._valued(whole, placement, "first plan", rounds)

    def late(self, share: float = 1.0) -> bool:
        """Whether this share of the time limit is gone."""
        return self.limit is not None and time.perf_counter() - self.begin > self.limit * share

    def offer(self, placement: Placement, method: str) -> float:
        """Values a placement and keeps it if it is the best so far. Its score: more is better."""
        key = tuple(sorted(placement.items()))
        if not key or key in self.known:
            return -math.inf
        self.known.add(key)
        return self._valued(self.instance, placement, method)

    def _valued(
        self, instance: Instance, placement: Placement, method: str, rounds: int = ROUNDS
    ) -> float:
        found = route_plan(instance, placement, self.delay, self.wanted, self.late, rounds)
        score = self._score(found)
        if found is not None and score > self._score(self.best):
            # Machines that no route uses only hold memory.
            used = {i for q, _ in found.routes for i in (*q.prefill, *q.decode)}
            self.placement = {i: placement[i] for i in sorted(used)}
            self.best, self.method = found, method
            self.tell(f"{method}: {found.tokens_per_s:.6g} tokens/s", 0, 1)
        return score

    def _score(self, found: Routed | None) -> float:
        if found is None:
            return -math.inf
        # One score, where more is better.
        return found.tokens_per_s if self.wanted is None else -found.request_s

    def _flow(
        self, instance: Instance, kept: Sequence[int], share: float
    ) -> dict[int, tuple[int, int]]:
        """A placement of these machines for the most flow; {} where there is none."""
        # The searches of one phase know flow only; routes are valued in `offer`.
        part = part_of(instance, list(kept))
        left = None if self.limit is None else self.limit - (time.perf_counter() - self.begin)
        if left is not None and left <= 0:
            return {}
        search = Search(part, None if left is None else max(0.01, left * share), self.seed)
        first(search)
        search.tighten()
        for method in self.methods:
            if search.proved or search.late():
                break
            method(search)
        return {kept[i]: interval for i, interval in search.placement.items()}

    def _together(self) -> None:
        """Both phases on the same machines."""
        both = weighted(self.instance, None)
        # The fast machines alone: slow ones make requests long.
        for kept in self._fast(range(self.instance.size)):
            if self.late(0.6):
                return
            self.offer(self._flow(both, kept, 0.4), "phases together")

    def _fast(self, machines: Iterable[int]) -> list[list[int]]:
        """All machines, and where time counts those of at most so many seconds a layer."""
        ids = list(machines)
        found = [ids]
        assert self.instance.phases is not None
        if self.wanted is None and not self.instance.phases.limits:
            return found
        pace = {i: self._pace(i) for i in ids}
        # Without the slowest, then without the two slowest, and so on.
        for slowest in sorted(set(pace.values()), reverse=True)[1:]:
            found.append([i for i in ids if pace[i] <= slowest])
        return found

    def _pace(self, i: int) -> float:
        """Seconds of a request per layer, with as many layers as are best for that."""
        phases, kind = self.instance.phases, int(self.instance.kind[i])
        assert phases is not None
        paces = [
            (phases.prompt / p + phases.output * step) / (k + 1)
            for k, (p, d, step) in enumerate(
                zip(phases.prefill[kind], phases.decode[kind], phases.step[kind], strict=True)
            )
            if p > 0 and d > 0
        ]
        return min(paces, default=math.inf)

    def _apart(self) -> None:
        """Prefill and decode on machines of their own, divided where both carry about the same."""
        phases = self.instance.phases
        assert phases is not None
        work = [self._work(i) for i in range(self.instance.size)]
        # By what each is better at; the cut in this order is tried in several places.
        order = sorted(
            range(self.instance.size), key=lambda i: (-work[i][0] / max(work[i][1], 1e-12), i)
        )
        totals = []
        for m in range(1, len(order)):
            one = sum(work[i][0] for i in order[:m])
            two = sum(work[i][1] for i in order[m:])
            # What the weaker side can do is what the whole can.
            totals.append((-min(one, two), m))
        scale = phases.tokens
        # Tokens of one phase as tokens of whole requests, so that both sides compare.
        sides = [
            (phases.prefill, scale / phases.prompt), (phases.decode, scale / phases.output)
        ]  # fmt: skip
        parts = [self._one_phase(tables, factor) for tables, factor in sides]
        for _, m in sorted(totals)[:SPLITS]:
            if self.late(0.8):
                return
            one = self._flow(parts[0], sorted(order[:m]), 0.15)
            two = self._flow(parts[1], sorted(order[m:]), 0.15)
            # Both sides must hold all layers.
            if one and two:
                self.offer(one | two, "phases apart")

    def _work(self, i: int) -> tuple[float, float]:
        """Layers times requests/s that a machine does in each phase, at the most."""
        phases, kind = self.instance.phases, int(self.instance.kind[i])
        assert phases is not None
        return (
            max((k + 1) * r for k, r in enumerate(phases.prefill[kind])) / phases.prompt,
            max((k + 1) * r for k, r in enumerate(phases.decode[kind])) / phases.output,
        )

    def _one_phase(self, tables: Sequence[Sequence[float]], factor: float) -> Instance:
        """The instance of one phase alone, in tokens/s of whole requests."""
        types = tuple(
            MachineType(t.name, tuple(r * factor for r in table))
            for t, table in zip(self.instance.types, tables, strict=True)
        )
        return replace(
            self.instance, types=types, phases=None, link=self.instance.link * factor,
            start=self.instance.start * factor, end=self.instance.end * factor,
        )  # fmt: skip

    def _short(self) -> None:
        """Routes of few seconds, one beside another on machines of their own."""
        # Each on machines that the ones before have left free.
        placement: dict[int, tuple[int, int]] = {}
        while not self.late(0.9):
            route = short_route(self.instance, self.delay, set(placement), self.late)
            if route is None:
                return
            placement |= route
            self.offer(dict(placement), "short routes")

    def _few(self) -> bool:
        total = 1
        for i in range(self.instance.size):
            # A machine is free or holds one interval of some length.
            total *= 1 + sum(self.instance.layers - k for k in range(len(self.instance.table(i))))
            if total > FEW:
                return False
        return True

    def _every(self) -> None:
        """All placements, those first that could carry most; the rest as soon as none can."""
        ways: list[list[tuple[int, int] | None]] = []
        for i in range(self.instance.size):
            spans = [
                (a, a + k)
                for k in range(1, len(self.instance.table(i)) + 1)
                for a in range(self.instance.layers - k + 1)
            ]
            ways.append([None, *spans])
        rows = []
        for choice in product(*ways):
            placement = {i: x for i, x in enumerate(choice) if x is not None}
            most = self._at_most(placement)
            # Placements that leave a layer out are none.
            if most > 0:
                rows.append((-most, tuple(placement.items())))
        rows.sort()
        for most, items in rows:
            # Sorted by what they could carry at most: from here on none is better.
            if self.late() or (self.wanted is None and -most <= self._score(self.best)):
                return
            self.offer(dict(items), "all placements")

    def _at_most(self, placement: Placement) -> float:
        """Tokens/s that its layers could carry, whatever the links."""
        phases, least = self.instance.phases, math.inf
        assert phases is not None
        # For any weight of the phases the weakest layer bounds the value; the least of these is
        # taken.
        for w in SHARES:
            cover = np.zeros(self.instance.layers)
            for i, (a, b) in placement.items():
                kind, k = int(self.instance.kind[i]), b - a - 1
                one = w * phases.prefill[kind][k] / phases.prompt
                two = (1 - w) * phases.decode[kind][k] / phases.output
                cover[a:b] += max(one, two)
            least = min(least, float(cover.min()) * phases.tokens)
        # Rounding must not throw a placement away.
        return least * (1 + 1e-9)

    def _change(self) -> None:
        """Changes one interval at a time; worse placements are accepted ever more rarely."""
        draw = random.Random(self.seed)
        layers = self.instance.layers
        now, score = dict(self.placement), self._score(self.best)
        for step in range(CHANGES):
            if self.late():
                return
            trial = dict(now)
            for _ in range(draw.choice((1, 1, 2))):
                i = draw.randrange(self.instance.size)
                size = draw.randint(1, min(len(self.instance.table(i)), layers))
                # Borders of other intervals: where ends meet, something can flow.
                cuts = [0, layers, *(x for span in now.values() for x in span)]
                at = draw.choice(cuts) - draw.choice((0, size))
                if draw.random() < 0.1:
                    trial.pop(i, None)
                elif at >= 0 and at + size <= layers:
                    trial[i] = (at, at + size)
            # A layer that nobody holds: not worth a linear program.
            if self._at_most(trial) <= 0:
                continue
            found = self.offer(trial, "single changes")
            # Never 0: it is a divisor.
            heat = 0.1 * abs(score) * (1 - step / CHANGES) + 1e-12
            worse = found - score if score > -math.inf else 0.0
            if found > -math.inf and (worse >= 0 or draw.random() < math.exp(worse / heat)):
                now, score = trial, found
