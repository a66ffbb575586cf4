"""What the searches share: the request, the clock, candidates that keep all constraints.

Takes: a Problem and a Request.  Leaves: the best feasible candidate seen.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from fractions import Fraction

import numpy as np

from csp_embed.ir.network import LATENCY
from csp_embed.partition.arrays.view import Ints, Problem, number
from csp_embed.partition.times import feasible
from csp_embed.partition.times.timetable import Timetable, loads
from csp_embed.solver.params import Params

Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Request:
    """What the user asked for; see `solve.solve`."""

    objective: str = LATENCY
    method: str = "auto"
    contiguous: bool = False
    pipeline: bool = False
    max_latency: float | None = None
    min_throughput: float | None = None
    time_limit: float | None = None
    workers: int = 1
    seed: int = 0
    effort: float = 1.0
    gap: float = 0.0
    # Not compared: who listens changes nothing of what is asked.
    progress: Progress | None = field(default=None, compare=False)

    @property
    def shaped(self) -> bool:
        """Whether sets of tasks must be convex."""
        return self.contiguous or self.pipeline


class Clock:
    """Shares of one limit. Deterministic unless the request is a wall-clock one."""

    def __init__(self, request: Request, unit: Fraction = Fraction(1)) -> None:
        """unit: ms of 1 in what the searches report. known (set later): the objective and its lower
        bound so far, in that unit."""
        self.request, self.started, self.unit = request, time.perf_counter(), unit
        # Set from the watching thread; every look at the clock heeds it.
        self.stop = threading.Event()
        self.wall = request.time_limit is not None
        self.told: list[Callable[[], None]] = []  # the last progress, of all clocks of one limit
        self.known: Callable[[], tuple[float, float]] | None = None

    def of(self, request: Request, unit: Fraction | None = None) -> Clock:
        """The same clock for another request with the same limits."""
        other = Clock(request, self.unit if unit is None else unit)
        # Started and stop are shared: one limit, one Ctrl-C for all parts.
        other.started, other.stop = self.started, self.stop
        other.known, other.told = self.known, self.told
        return other

    def ms(self, value: float) -> str:
        """A time of the searches, for people."""
        return f"{value * float(self.unit):.6g} ms"

    def part(self, share: float) -> Clock:
        """A clock that ends when so much of what is left is gone; this one without a limit."""
        if not self.wall:
            return self
        # A later end of the same clock: limits count from its start.
        return self.of(replace(self.request, time_limit=self.seconds() + share * self.left()))

    def seconds(self) -> float:
        """Since the start."""
        return time.perf_counter() - self.started

    def late(self) -> bool:
        """Whether the limit has passed."""
        limit = self.request.time_limit
        return limit is not None and self.seconds() >= limit

    def heed(self) -> None:
        """Raises: KeyboardInterrupt where the search was asked to stop (see `supervise`)."""
        if self.stop.is_set():
            raise KeyboardInterrupt

    def left(self) -> float:
        """Seconds until the limit; inf without one."""
        self.heed()
        limit = self.request.time_limit
        return float("inf") if limit is None else limit - self.seconds()

    def params(self, deterministic: float, share: float = 1.0) -> Params:
        """Limits of one CP-SAT call: `deterministic` units times effort, or a share of what is
        left on the wall clock."""
        r = self.request
        if self.wall:
            limit = max(0.05, self.left() * share)
            return Params(r.seed, r.workers, time_limit=limit, stop=self.stop.is_set)
        # With several workers CP-SAT is reproducible only if they take turns.
        self.heed()
        many = r.workers > 1
        return Params(
            r.seed, r.workers, deterministic * r.effort, interleave=many, stop=self.stop.is_set
        )

    def tell(self, stage: str, done: int = 0, total: int = 1) -> None:
        """Progress, if anybody listens: the stage, the best value so far, its bound and the gap."""
        self.heed()
        progress = self.request.progress
        if progress is not None:
            # A list in place, as clocks of one limit share it.
            self.told[:] = [lambda: progress(self._so_far(stage), done, total)]
            self.repeat()

    def repeat(self) -> None:
        """The last progress again, with what is known by now."""
        for say in self.told:
            say()

    def _so_far(self, stage: str) -> str:
        value, low = self.known() if self.known is not None else (float("inf"), 0.0)
        if not np.isfinite(value):
            return stage
        gap = 100 * (value - low) / value if value > low else 0.0
        return f"{stage}: {self.ms(value)}, bound {self.ms(low)}, gap {gap:.2g} %"


@dataclass(frozen=True)
class Candidate:
    """A placement with its timetable (None where nobody asked for times) and objective in ms."""

    value: float
    dev: Ints
    table: Timetable | None
    method: str


class Incumbent:
    """The best candidate that keeps every constraint."""

    def __init__(self, p: Problem, request: Request) -> None:
        self.p, self.request = p, request
        self.best: Candidate | None = None
        self.keeps_last = True  # whether the last candidate failed by its value only
        self.lock = threading.Lock()

    def offer(self, dev: Ints, table: Timetable | None, method: str) -> bool:
        """Takes the candidate if it is feasible and better; says whether it did."""
        r = self.request
        latency = table.makespan if table is not None else None
        period = None
        # Loads cost a pass over the graph: only where somebody asks.
        if r.objective != LATENCY or r.min_throughput is not None:
            period = max(loads(self.p, dev).values(), default=0.0)
        value = latency if r.objective == LATENCY else period
        if value is None or not np.isfinite(value):
            return False
        self.keeps_last = True
        # A hair less: floats of one value must not replace each other for ever.
        if self.best is not None and value >= self.best.value * (1 - 1e-15):
            return False
        # Limits are kept to what floats can tell; exact times follow later.
        slack = 1 + 1e-9
        if r.max_latency is not None and (latency is None or latency > r.max_latency * slack):
            return False
        if r.min_throughput is not None:
            limit = (period if r.objective == LATENCY else value) or 0.0
            if limit * r.min_throughput > slack:
                return False
        # Slow, so last: most candidates fail by their value.
        self.keeps_last = self.keeps(dev, table)
        if not self.keeps_last:
            return False
        with self.lock:  # another thread may have offered meanwhile
            if self.best is not None and value >= self.best.value:
                return False
            self.best = Candidate(float(value), np.array(dev), table, method)
        return True

    def keeps(self, dev: Ints, table: Timetable | None) -> bool:
        """Whether a placement keeps memory, reachability and shape."""
        p, r = self.p, self.request
        if not feasible.runs(p, dev):
            return False
        if r.contiguous and not feasible.convex(p, dev):
            return False
        if r.pipeline and not feasible.ordered(p, dev):
            return False
        # With a rate several samples are in flight: their activations are there at once.
        steady = r.objective != LATENCY or r.min_throughput is not None
        if steady and not feasible.pipelined_memory(p, dev):
            return False
        timed = r.objective == LATENCY or r.max_latency is not None
        return table is None or not timed or feasible.peak(p, table)


def in_units(request: Request, p: Problem) -> Request:
    """The same with limits in the times of a problem."""
    most, rate = request.max_latency, request.min_throughput
    return replace(
        request,
        max_latency=None if most is None else float(number(most) / p.unit),
        min_throughput=None if rate is None else float(number(rate) * p.unit),
    )
