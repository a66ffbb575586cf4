"""What no placement can exceed: a linear program over the sets of machines that carry a layer.

In a plan of value F every layer is carried by a set of (machine, layers held) whose rates add up
to F, and a machine with k layers stands in k of these sets. Dropping everything else (that a
machine's layers are consecutive, that ends meet) leaves: y_S >= 0 layers carried by set S,

    sum_S y_S = L,    sum_S y_S * sum_{(c,k) in S} 1/k <= n_c   for every class c of equal machines.

If even the largest sum of y stays below L, no plan reaches F. The dual values are prices; that
certificate is all that check.py needs. Two more rows, each valid for every plan:

- alternation: of machines that are pairwise unlinked, a pipeline visits at most one more than of
  the others (one or two less where they cannot start or end one). A row on flow, so the sets also
  say how the flow divides.
- side by side: where no group of machines joined by links above F can hold all layers one after
  the other, some layer must be carried by two machines or more.

Sets are generated as needed (covers.py). Proofs: docs/serving.md.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np

from csp_embed.serving.bounds.covers import cheapest, items_of
from csp_embed.serving.bounds.structure import (
    alternation_slack,
    device_pools,
    must_widen,
    unlinked_machines,
)
from csp_embed.serving.instance import Floats, Instance
from csp_embed.solver.lp import Row, duals

MARGIN = 1e-9  # a proof in floats must hold by so much, so that it holds exactly
DENOMINATORS = (1, 2, 3, 4, 6, 12, 60, 1000, 10**6, 10**9)
NODES = 400_000  # of one covering search; a bound that needs more is not worth its check


@dataclass(frozen=True)
class Prices:
    """A certificate that no plan exceeds `bound`: price of each class of machines, multiplier of
    the alternation row with its machines, discount for layers that are carried side by side.
    devices: (names, price of each), where machines share devices; a machine's price is then that of
    what it occupies."""

    bound: float
    groups: tuple[tuple[tuple[int, ...], Fraction], ...]
    alternation: Fraction = Fraction(0)
    unlinked: tuple[int, ...] = ()
    side_by_side: Fraction = Fraction(0)
    devices: tuple[tuple[tuple[str, ...], Fraction], ...] = ()


@dataclass(frozen=True)
class _Column:
    """One set: counts of (class, layers), its rate, whether it is two machines or more."""

    items: tuple[int, ...]
    rate: float


class Relaxation:
    """Classes of interchangeable machines, and the sets found so far."""

    def __init__(self, instance: Instance) -> None:
        self.instance = instance
        tables = instance.reachable_tables()
        # With partial inference a machine may be visited for a part of its layers only, so that
        # what its layers add up to no longer counts visits.
        self.unlinked = () if instance.partial else unlinked_machines(instance)
        inside = set(self.unlinked)
        # Machines that share devices are no classes of their own: devices are what is scarce.
        pools, takes = device_pools(instance, tables)
        members: dict[tuple[tuple[float, ...], bool, tuple[int, ...]], list[int]] = {}
        for i, table in enumerate(tables):
            members.setdefault((table, i in inside, takes[i]), []).append(i)
        self.members = [tuple(m) for m in members.values()]
        self.tables = [table for table, _, _ in members]
        # The side of the alternation row: visits to unlinked machines count against the others.
        self.side = np.array([1 if unlinked else -1 for _, unlinked, _ in members])
        self.room = np.array([len(m) for m in self.members])
        # What is scarce: the machines of a class, or the devices of a pool that classes share.
        self.pools = pools
        if pools:
            self.scarce = np.array([len(p) for p in pools])
            self.takes = np.array([row for _, _, row in members], float).T
        else:
            self.scarce = self.room
            # Each machine takes itself: without shared devices both are the same thing.
            self.takes = np.eye(len(self.room))
        # With slopes a shorter interval may pay less flow: then none is dominated.
        self.rate, self.cls, self.held = items_of(self.tables, self.room, every=bool(self.unlinked))
        self.slack = alternation_slack(instance, self.unlinked)
        self.columns: list[_Column] = []
        self.known: set[tuple[int, ...]] = set()

    def prove(self, above: float) -> Prices | None:
        """Prices that show that no plan carries more than `above`; None where there are none (or
        the search for them became too long)."""
        # No machine carries anything, so 0 is proved by prices of 0.
        if above <= 0 or not len(self.rate):
            return (
                self.certificate(max(above, 0.0), [Fraction(0)] * len(self.scarce))
                if not len(self.rate)
                else None
            )
        multi = must_widen(self.instance, self.tables, self.members, above)
        layers = self.instance.layers
        answer = self._priced(above, multi)
        if answer is None:
            return None
        price, mult, discount = answer
        total = price @ self.scarce + mult * self.slack - discount
        # At most L minus a margin: what floats lose must not turn a proof round.
        if total >= layers * (1 - 10 * MARGIN):
            return None
        return self._rounded(price, mult, discount, above)

    def guide(self, above: float) -> tuple[Floats, float] | None:
        """(price of each machine, waste) for searches: a plan above that rate pays for its stages
        at most `waste` more than one per layer. None where the prices could not be found."""
        if not len(self.rate):
            return None
        # Searches want prices of machines alone: no row on flow, no discount.
        answer = self._priced(above, False, linear=True)
        if answer is None:
            return None
        price = np.zeros(self.instance.size)
        for group, p in zip(self.members, answer[0] @ self.takes, strict=True):
            price[list(group)] = p
        return price, max(0.0, float(price.sum()) - self.instance.layers)

    def alternating(self, above: float) -> tuple[Floats, float, float] | None:
        """(price of each machine, multiplier of the alternation row, waste), as `guide`, with the
        row: a stage then also pays the multiplier times the share of its flow on unlinked machines,
        less the share on others."""
        answer = self._priced(above, False) if len(self.rate) else None
        if answer is None:
            return None
        price = np.zeros(self.instance.size)
        for group, p in zip(self.members, answer[0] @ self.takes, strict=True):
            price[list(group)] = p
        spent = float(price.sum()) + answer[1] * self.slack
        return price, answer[1], max(0.0, spent - self.instance.layers)

    def _priced(
        self, above: float, multi: bool, linear: bool = False
    ) -> tuple[Floats, float, float] | None:
        """Prices at which every set that carries more than `above` costs 1 or more."""
        # A limit on rounds of column generation; without an end nothing is proved.
        for _ in range(400):
            answer = self._solve(above, multi, linear)
            if answer is None:
                return None
            price, mult, discount = answer
            _, items, finished = self._cheapest(
                price @ self.takes, mult, discount, above, 1 - MARGIN
            )
            # A search cut short proves nothing about the sets that it did not see.
            if not finished:
                return None
            # No set is cheaper than 1, or only one that is known: the prices are final.
            if items is None or not self._add(items):
                return answer
        return None

    def _solve(
        self, above: float, multi: bool, linear: bool = False
    ) -> tuple[Floats, float, float] | None:
        """Dual values of the program over the sets found so far that carry more than `above`.

        linear: without the row on flow, for prices that stand alone."""
        # Sets found for a lower rate may carry too little for this one.
        columns = [c for c in self.columns if c.rate > above * (1 + 1e-12)]
        if not columns:
            return np.zeros(len(self.scarce)), 0.0, 0.0
        uses: list[tuple[list[int], list[float]]] = [([], []) for _ in self.scarce]
        for at, column in enumerate(columns):
            share: dict[int, float] = {}
            for i in column.items:
                for pool in np.flatnonzero(self.takes[:, self.cls[i]]):
                    # k layers held: the machine stands in k sets, so each takes one k-th of it.
                    part = self.takes[pool, self.cls[i]] / self.held[i]
                    share[int(pool)] = share.get(int(pool), 0.0) + float(part)
            for c, value in share.items():
                uses[c][0].append(at)
                uses[c][1].append(value)
        rows: list[Row] = [
            (np.array(at, np.int64), np.array(values), float(n))
            for (at, values), n in zip(uses, self.scarce, strict=True)
        ]
        everything = np.arange(len(columns))
        alternates = bool(self.unlinked) and not linear
        if alternates:
            pays = np.array([self._flow_cost(c.items, above) for c in columns])
            rows.append((everything, pays, float(self.slack)))
        if multi:
            # "At least one layer side by side", as minus the number of them <= -1.
            wide = np.array([i for i, c in enumerate(columns) if len(c.items) > 1], np.int64)
            if not len(wide):
                rows.append((everything[:0], np.zeros(0), 0.0))
            else:
                rows.append((wide, -np.ones(len(wide)), -1.0))
        found = duals(-np.ones(len(columns)), rows, [])
        if found is None:
            # Only "at least one layer side by side" can be impossible: no such set yet.
            return None
        price, rest = found[: len(self.scarce)], list(found[len(self.scarce) :])
        mult = rest.pop(0) if alternates else 0.0
        return price, mult, rest.pop(0) if multi else 0.0

    def _cheapest(
        self, price: Floats, mult: float, discount: float, above: float, cutoff: float
    ) -> tuple[float, tuple[int, ...] | None, bool]:
        """(cost, the cheapest set below the cutoff or None, whether the search was complete)."""
        # A machine of k layers pays a k-th of its price in each.
        fixed = price[self.cls] / self.held
        slope = mult * self.side[self.cls] / self.held
        order = np.argsort(fixed * above / self.rate + slope, kind="stable")
        cost, depth, items, _, finished = cheapest(
            self.rate[order], self.cls[order], fixed[order], slope[order], self.room,
            above, discount, cutoff, NODES,
        )  # fmt: skip
        if not depth:
            return cost, None, finished
        chosen = [int(order[i]) for i in items[:depth]]
        # The discount makes a second machine worth adding, though one carries enough.
        if depth == 1 and discount > fixed.min():
            chosen.append(int(fixed.argmin()))
        return cost, tuple(sorted(chosen)), True

    def _add(self, items: tuple[int, ...]) -> bool:
        if items in self.known:
            return False
        self.known.add(items)
        self.columns.append(_Column(items, float(self.rate[list(items)].sum())))
        return True

    def _flow_cost(self, items: Sequence[int], above: float) -> float:
        """Visits to unlinked machines less visits to others, per whole flow, at the least."""
        left, total = 1.0, 0.0
        for slope, rate in sorted(
            (self.side[self.cls[i]] / self.held[i], self.rate[i]) for i in items
        ):
            # The cheapest slopes take as much flow as they can: the least that any division pays.
            share = min(left, rate / above)
            total += share * slope
            left -= share
        return total

    def _rounded(self, price: Floats, mult: float, discount: float, above: float) -> Prices | None:
        """The simplest rational prices near these that still prove it."""
        layers = self.instance.layers
        # Dual values sum to less than L; the gap is room for rounding, used on both sides.
        room = float(price @ self.scarce) + mult * self.slack - discount
        scale = (1 + layers / max(room, 1e-9)) / 2
        # As they are, then scaled into the middle of the gap, where more rounding is allowed.
        for factor in (1.0, min(scale, 2.0)):
            # From small denominators up: short fractions are quick to verify and to read.
            for d in DENOMINATORS:
                fractions = [Fraction(round(float(p) * factor * d), d) for p in price]
                by_row = Fraction(round(mult * factor * max(d, 100)), max(d, 100))
                # Rounding a discount down is always safe for the sets that earn it.
                off = Fraction(int(discount * factor * d), d)
                total = sum(p * int(n) for p, n in zip(fractions, self.scarce, strict=True))
                total += by_row * self.slack - off
                if total <= 0:
                    continue
                # A set that costs as much as the threshold refutes the proof, so a little above it.
                limit = float(total) / layers * (1 + MARGIN)
                _, found, finished = self._cheapest(
                    np.array([float(p) for p in fractions]) @ self.takes,
                    float(by_row), float(off), above, limit,
                )  # fmt: skip
                # Verified by the same search, now with the rounded prices.
                if finished and found is None:
                    return self.certificate(above, fractions, by_row, off)
        return None

    def certificate(
        self,
        above: float,
        price: Sequence[Fraction],
        by_row: Fraction = Fraction(0),
        off: Fraction = Fraction(0),
    ) -> Prices:
        """price: of what is scarce."""
        paid = [
            sum((p * int(w) for p, w in zip(price, column, strict=True)), Fraction(0))
            # What a machine takes of each scarce thing, paid at its price.
            for column in self.takes.T
        ]
        devices = tuple(zip(self.pools, price, strict=True)) if self.pools else ()
        groups = tuple(zip(self.members, paid, strict=True))
        return Prices(above, groups, by_row, self.unlinked if by_row else (), off, devices)


def lower(
    relaxation: Relaxation,
    floor: float,
    ceiling: Prices,
    late: Callable[[], bool] = lambda: False,
    steps: int = 40,
) -> Prices:
    """The best bound that prices prove between a plan's value and a known bound.

    late: asked before each proof; whether to be content with what there is."""
    if late():
        return ceiling
    # If the plan's own value is proved nothing need be bisected.
    if floor > 0 and (proof := relaxation.prove(floor)):
        return proof
    low, best = floor, ceiling
    for _ in range(steps):
        # Relative: finer steps than a bound is worth.
        if best.bound - low <= 1e-7 * best.bound or late():
            break
        middle = (low + best.bound) / 2
        proof = relaxation.prove(middle)
        if proof is None:
            low = middle
        else:
            best = proof
    # What binds is the rate of some set; bisection stops a little above it.
    rates = [c.rate for c in relaxation.columns if low <= c.rate < best.bound]
    snapped = relaxation.prove(max(rates)) if rates and not late() else None
    return snapped or best
