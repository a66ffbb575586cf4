"""The throughput of samples that go by several placements: column generation, and a Plan.

Takes: a graph, a platform, the best single placement.  Leaves: a Plan with a replica for each
placement that takes a share, or the single placement where sharing does not help.

The master program finds the shares of the placements known so far that make the busiest line least
busy; its multipliers are prices of lines; a placement that is cheaper under them than the period
makes it better. It ends at the bound of `methods.relaxation`, where no start finds such a
placement, or at the limit. Devices keep the weights of every layer that any placement puts there,
once.
"""

from __future__ import annotations

from dataclasses import replace
from fractions import Fraction

import numpy as np

from csp_embed.errors import InputError
from csp_embed.ir.network import FEASIBLE, OPTIMAL, THROUGHPUT, Plan, Platform, Replica, TaskGraph
from csp_embed.partition.arrays.view import Floats, Ints, Problem, make_problem, normalised, number
from csp_embed.partition.links import solve_links
from csp_embed.partition.methods.period.period_loads import Loads, load_arrays
from csp_embed.partition.methods.period.relaxation import Relaxed, relax, rounded
from csp_embed.partition.mixture.pricing import descend, loads_of
from csp_embed.partition.request import Clock
from csp_embed.partition.supervise import INTERRUPTED, supervised
from csp_embed.partition.times import feasible
from csp_embed.partition.times.exact import DOUBLE, Exact, below
from csp_embed.partition.times.timetable import throughput_plan
from csp_embed.solver.lp import optimum

NEAR = 1e-4  # relative: a gap that no further placement is worth
PATIENCE = 4  # rounds without a better placement
STARTS = 12  # roundings a round
ROUNDS = 200
HELPS = Fraction(1, 10**6)  # relative: what sharing must gain, for it costs memory


def solve_mixture(graph: TaskGraph, platform: Platform, clock: Clock, fix: dict[str, str]) -> Plan:
    """Raises: InputError (options that a mixture cannot keep), Infeasible."""
    request = clock.request
    if request.objective != THROUGHPUT:
        raise InputError(
            "sharing layers is for throughput",
            why="one sample has one placement; of a batch each may have its own",
            hint="--objective throughput, or --batch 8",
        )
    if request.shaped or request.max_latency is not None or request.min_throughput is not None:
        raise InputError(
            "shared layers keep no limit on latency or rate, and no convex sets",
            hint="leave out --share, or --contiguous, --pipeline, --max-latency, --min-throughput",
        )
    # Half for the single placement, from which the mixture begins.
    own = replace(request, time_limit=max(0.05, clock.left() / 2)) if clock.wall else request
    single = solve_links(graph, platform, Clock(replace(own, progress=request.progress)), fix, None)
    if single.objective is None or not single.objective:
        return single
    # Not trimmed: a mixture may use more devices than there are groups.
    p = normalised(make_problem(graph, platform, fix))
    search = _Search(p, single, clock)
    # Linear programs and kernels do not look at clocks; what is found so far is whole at any time.
    if not search.reasons and supervised(search.run, clock, lambda: True) == INTERRUPTED:
        search.reasons = ("interrupted",)
    return search.plan()


class _Search:
    """columns: placements [g]; loads [k, lines]; shares [k]."""

    def __init__(self, p: Problem, single: Plan, clock: Clock) -> None:
        self.p, self.single, self.clock = p, single, clock
        self.q: Loads = load_arrays(p)
        self.able = np.where(np.isfinite(self.q.cost), 0.0, np.inf)
        self.columns: list[Ints] = []
        self.loads: list[Floats] = []
        self.shares = np.ones(1)
        self.prices = np.zeros(self.q.lines)
        self.value = np.inf
        self.relaxed: Relaxed | None = None
        self.reasons = single.reasons
        self.rng = np.random.default_rng(clock.request.seed)
        at = {d.name: i for i, d in enumerate(p.platform.devices)}
        named = single.device_of()
        dev = np.zeros(len(self.q.cost), np.int64)
        dev[p.group] = [at[named[t]] for t in p.ids]
        self.add(dev)

    def add(self, dev: Ints) -> bool:
        """Takes a placement that is new and can talk."""
        if any(np.array_equal(dev, other) for other in self.columns):
            return False
        load = loads_of(self.q, dev)
        # The last line counts what cannot be sent: no mixture may hold such a placement.
        if load[-1] > 0:
            return False
        self.columns.append(dev)
        self.loads.append(load)
        return True

    def run(self) -> None:
        self.clock.tell("bounding shared layers")
        self.relaxed = relax(self.q)
        # Memory first: columns that do not fit together would be refused only at the end.
        self.hold()
        self.master()
        tired = 0
        for turn in range(ROUNDS):
            if self.clock.late() or tired >= PATIENCE or self.closed():
                return
            self.clock.tell("sharing layers", turn, ROUNDS)
            before = self.value
            if self.generate(turn):
                self.master()
            tired = 0 if self.value < before * (1 - NEAR / 10) else tired + 1

    def closed(self) -> bool:
        return self.relaxed is not None and self.value <= self.relaxed.bound * (1 + NEAR)

    def hold(self) -> None:
        """Where all weights do not fit a device: which groups it keeps. Those of the placement that
        is there, then the others by the fraction that the relaxation puts there per byte."""
        weight, memory = self.q.weight, self.q.memory
        for d in np.flatnonzero(np.isfinite(memory)):
            mine = self.columns[0] == d
            # The single placement's own weights are there in any case.
            may = (self.able[:, d] == 0) & ~mine
            room = memory[d] - self._need(mine)
            if weight[may].sum() <= room:
                continue
            wish = self.relaxed.x[:, d] if self.relaxed is not None else np.ones(len(weight))
            for g in sorted(np.flatnonzero(may), key=lambda g: (-wish[g], weight[g])):
                if weight[g] <= room:
                    room -= weight[g]
                else:
                    # Not allowed in any placement: weights count once, whatever the shares.
                    self.able[g, d] = np.inf

    def _need(self, mine: np.ndarray) -> float:
        """Bytes of the single placement on a device, activations of all samples in flight at most
        twice those of a sample."""
        tasks = mine[self.p.group]
        return float(self.p.weight[tasks].sum() + 2 * self.p.activation[tasks].sum())

    def master(self) -> None:
        """Shares of the placements, and prices of lines."""
        count, lines = len(self.columns), self.q.lines - 1
        # The last line (what cannot be sent) is 0 in every column and has no row.
        table = np.array(self.loads)[:, :lines]
        objective = np.zeros(count + 1)
        objective[count] = 1.0
        used = np.arange(count + 1)
        at_most = [(used, np.append(table[:, x], -1.0), 0.0) for x in range(lines)]
        found = optimum(objective, at_most, [(used[:count], np.ones(count), 1.0)])
        if found is None:
            return
        # A solver's shares sum to 1 only nearly.
        shares = found[0][:count] / found[0][:count].sum()
        value = float((shares @ table).max())
        if value < self.value:
            self.value, self.shares = value, shares
        # The dual values of the lines' rows are the prices that a new column must beat.
        self.prices = np.append(found[1], 0.0)

    def generate(self, turn: int) -> bool:
        """Placements cheaper than the period under the prices; whether there were any."""
        # Placements in use are near good ones; from each one descends under new prices.
        starts = [self.columns[i] for i in np.flatnonzero(self.shares > 1e-9)]
        if self.relaxed is not None:
            starts += [rounded(self.relaxed.x, self.rng) for _ in range(STARTS)]
            # The relaxation's own prices do not swing from round to round as the master's do.
            mixed = [self.prices, (self.prices[:-1] + self.relaxed.prices) / 2]
        else:
            groups, m = self.q.cost.shape
            starts += [self.rng.integers(m, size=groups) for _ in range(STARTS)]
            mixed = [self.prices]
        found = False
        broken = 1.0 + 1e3 * self.value  # no placement is worth a value that cannot be sent
        for n, start in enumerate(starts):
            allowed = self.able[np.arange(len(start)), start] == 0
            # Where memory forbids a start's device, that of the first placement.
            begin = np.where(allowed, start, self.columns[0])
            for prices in mixed:
                full = np.append(prices[: self.q.lines - 1], broken)
                dev, _ = descend(self.q, begin, full, self.able, 1000 * turn + n)
                load = loads_of(self.q, dev)
                # Cheaper than the period under the master's own prices: only then can the master
                # gain.
                if load[:-1] @ self.prices[:-1] < self.value * (1 - 1e-9) and self.add(dev):
                    found = True
        return found

    def plan(self) -> Plan:
        """Exactly counted; the single placement where sharing gains nothing."""
        p, exact = self.p, Exact.of(self.p)
        kept = np.flatnonzero(self.shares > 1e-9) if len(self.shares) > 1 else np.array([0])
        devs = [self.columns[i][p.group] for i in kept]
        counted = [exact.loads(dev) for dev in devs]
        # Twelve digits are more than the solver has; the decimals are then exact.
        shares = [number(float(f"{self.shares[i]:.12g}")) for i in kept]
        total = sum(shares, Fraction(0))
        busy: dict[str, Fraction] = {}
        for share, loads in zip(shares, counted, strict=True):
            for name, ms in loads.items():
                busy[name] = busy.get(name, Fraction(0)) + share / total * ms
        value = max(busy.values())
        bound, name = number(self.single.lower_bound), self.single.bound
        if self.relaxed is not None:
            shared = number(self.relaxed.bound) * p.unit
            # A bound on one placement says nothing about mixtures, unless it is one of theirs.
            bound, name = (shared, "load and transfers")
        elif name != "load":
            bound, name = Fraction(0), "none"
        alone = number(self.single.objective or 0.0)
        # Sharing costs memory and another copy of weights: it must gain something.
        if value >= alone * (1 - HELPS) or not self.fits(devs):
            return self._alone(min(bound, alone), name)
        rates = [float(share / total / value) for share in shares]
        # Rounded to doubles their sum may ask for a little more than there is.
        most = max(
            sum((number(r) * loads.get(line, Fraction(0)) for r, loads in
                 zip(rates, counted, strict=True)), Fraction(0))
            for line in busy
        )  # fmt: skip
        rates = [float(number(r) / max(Fraction(1), most)) for r in rates]
        replicas = tuple(
            Replica(rate, made.assignments, made.loads, made.transfers)
            for rate, made in zip(
                rates,
                (throughput_plan(p, d, x) for d, x in zip(devs, counted, strict=True)),
                strict=True,
            )
        )
        final = 1 / sum((number(r) for r in rates), Fraction(0))
        low = min(bound, final)
        done = final - low <= final * DOUBLE
        return Plan(
            THROUGHPUT, float(final), below(low), 0.0 if done else float((final - low) / final),
            OPTIMAL if done else FEASIBLE, f"{self.single.method}, shared", replicas=replicas,
            bound=name, graph_sha256=p.graph.sha256, platform_sha256=p.platform.sha256,
            reasons=self.reasons,
        )  # fmt: skip

    def fits(self, devs: list[Ints]) -> bool:
        """Weights once, activations of every placement, within each device's memory."""
        p = self.p
        held = np.zeros((p.n, p.m), bool)
        for dev in devs:
            held[np.arange(p.n), dev] = True
        # Activations of different placements are alive together: samples of all are in flight.
        need = p.weight @ held + sum(feasible.in_flight(p, dev) for dev in devs)
        return bool((need <= p.memory).all())

    def _alone(self, low: Fraction, name: str) -> Plan:
        value = number(self.single.objective or 0.0)
        done = value - low <= value * DOUBLE
        return replace(
            self.single, lower_bound=below(low), bound=name, reasons=self.reasons,
            gap=0.0 if done else float((value - low) / value),
            status=OPTIMAL if done else FEASIBLE,
        )  # fmt: skip
