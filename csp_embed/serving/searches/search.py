"""What the searches share: the clock, the best plan so far, the bound that prices prove.

Takes: an Instance.  Leaves: placements, each valued by exact maximum flow before it counts.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from fractions import Fraction

import numpy as np

from csp_embed.serving.bounds.relaxation import Prices, Relaxation, lower
from csp_embed.serving.files.plan_file import rounded_up
from csp_embed.serving.flow import max_flow
from csp_embed.serving.instance import Instance, Ints
from csp_embed.serving.searches.aligned import Chain
from csp_embed.serving.searches.patterns import Class

EQUAL = 1e-9  # value and bound that differ by less are the same number

Progress = Callable[[str, int, int], None]


class Search:
    """One run. limit: seconds, None = by counted work alone (the same answer on every run)."""

    def __init__(
        self,
        instance: Instance,
        limit: float | None = None,
        seed: int = 0,
        tell: Progress | None = None,
    ) -> None:
        self.instance, self.limit, self.seed = instance, limit, seed
        self.begin = time.perf_counter()
        self.tell = tell or (lambda text, done, total: None)
        self.relaxation = Relaxation(instance)
        self.placement: dict[int, tuple[int, int]] = {}
        self.value = Fraction(0)
        self.method = "none"
        self.goal: Fraction | None = None  # a value that is enough
        self.open = links_never_bind(instance)
        # Crude: at once and always valid; kept, in case better prices cannot be verified.
        self.bound = self.crude = work_bound(self.relaxation)
        # What the coordinator can send and take back.
        top = [max(instance.table(i)) for i in range(instance.size)]
        self.ceiling = rounded_up(min(
            sum((Fraction(min(float(c), t)) for c, t in zip(way, top, strict=True)), Fraction(0))
            for way in (instance.start, instance.end)
        ))  # fmt: skip

    def tighten(self) -> None:
        """Lowers the bound as far as prices go, towards the value of the best plan."""
        self.bound = lower(self.relaxation, float(self.value), self.bound, self.late)

    @property
    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.begin

    def late(self, share: float = 1.0) -> bool:
        """Whether this share of the time limit is gone."""
        return self.limit is not None and self.seconds > self.limit * share

    @property
    def left(self) -> float | None:
        """Seconds that one more step may take; None without a limit."""
        return None if self.limit is None else max(0.05, self.limit - self.seconds)

    @property
    def most(self) -> float:
        """No plan carries more, as far as is known."""
        return min(self.bound.bound, self.ceiling)

    @property
    def proved(self) -> bool:
        """Whether the best plan reaches the bound, or what was asked for."""
        if self.goal is not None and self.value >= self.goal:
            return True
        return float(self.value) >= self.most * (1 - EQUAL)

    def offer(self, placement: dict[int, tuple[int, int]], method: str) -> Fraction:
        """Values a placement exactly and keeps it if it is the best so far."""
        flow = max_flow(self.instance, placement)
        if flow.value > self.value:
            # Machines without flow are left out: they would only hold memory.
            used = {i: placement[i] for i in sorted(placement) if flow.through.get(i)}
            self.placement, self.value, self.method = used, flow.value, method
            self.tell(f"{method}: {float(flow.value):.6g} tokens/s", 0, 1)
        return flow.value

    def climb(self, attempt: Callable[[float], bool], steps: int = 16) -> None:
        """Bisects between the best value and the bound; attempt(F) says whether F was reached.

        The bound itself comes first: it is often the rate of one machine with so many layers, and
        then it is often reached."""
        low, high = float(self.value), self.most
        # A hair less than the bound, which is a float rounded up.
        target = high * (1 - 1e-7)
        for _ in range(steps):
            if self.proved or self.late() or high - low <= 1e-6 * high:
                return
            # What was missed may exist: it only steers the search, no bound is drawn from it.
            if not attempt(target):
                high = target
            low = max(low, float(self.value))
            target = (low + high) / 2


def in_order(classes: Sequence[Class], chain: Chain) -> dict[int, tuple[int, int]]:
    """A placement of a chain where links do not matter: stages one after another."""
    free = [list(cl.members) for cl in classes]
    placement: dict[int, tuple[int, int]] = {}

    def put(stages: Sequence, first: int) -> int:  # type: ignore[type-arg]
        for stage in stages:
            for c, n in stage.counts:
                for _ in range(n):
                    # Machines of a class are alike: the next free one.
                    placement[free[c].pop(0)] = (first, first + stage.layers)
            first += stage.layers
        return first

    first = put(chain.whole, 0)
    # Both tracks begin where the stretch does, and end together.
    for thin, thick in chain.stretches:
        put(thin, first)
        first = put(thick, first)
    return placement


def links_never_bind(instance: Instance) -> bool:
    """Whether every link exists and carries whatever its machines can."""
    top = np.array([max(instance.table(i)) for i in range(instance.size)])
    smaller = np.minimum.outer(top, top)
    # A machine needs no link to itself.
    np.fill_diagonal(smaller, 0.0)
    ends = (instance.start >= top) & (instance.end >= top)
    return bool((instance.link >= smaller).all() and ends.all())


def components(instance: Instance, above: float) -> Ints:
    """The number of each machine's group: joined by links of more than `above`, either way."""
    joined = (instance.link > above) | (above < instance.link.T)
    label = np.full(instance.size, -1, np.int64)
    groups = 0
    for i in range(instance.size):
        if label[i] < 0:
            front = np.array([i])
            while len(front):
                label[front] = groups
                front = np.flatnonzero(joined[front].any(axis=0) & (label < 0))
            groups += 1
    return label


def work_bound(relaxation: Relaxation) -> Prices:
    """A first, crude bound: the most layers times rate that all machines can do, per layer.

    Each machine's price is its share of that work, so a set costs at least its rate over the bound.
    Of machines that share devices, a device's work is the most that any machine does with it.
    """
    own = [
        max((k + 1) * Fraction(rate) for k, rate in enumerate(table)) for table in relaxation.tables
    ]
    work = [
        max((w / int(n) for w, n in zip(own, row, strict=True) if n), default=Fraction(0))
        for row in relaxation.takes
    ]
    scarce = [int(n) for n in relaxation.scarce]
    total = sum((w * n for w, n in zip(work, scarce, strict=True)), Fraction(0))
    bound = float(total / relaxation.instance.layers) * (1 + 1e-9)
    if not bound:
        return relaxation.certificate(0.0, [Fraction(0)] * len(scarce))
    rounded = 10**12  # upwards: at these prices a set can only cost more
    prices = [Fraction(-int(-w / Fraction(bound) * rounded // 1), rounded) for w in work]
    return relaxation.certificate(bound, prices)
