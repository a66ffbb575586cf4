"""The judge's own search for a set of machines that carries too much for too little, exactly.

Takes: prices and rates as Fractions.  Leaves: a set that refutes a certificate, or none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import lcm
from typing import Any

NODES = 3_000_000  # sets looked at before the judge gives up on a certificate


@dataclass(frozen=True)
class Item:
    """One way to use a machine of a group. All whole numbers on common scales: rate in tokens/s,
    fixed = price / k, slope = a / k signed by the side of the alternation."""

    group: int
    rate: int
    fixed: int
    slope: int


class Covers:
    """Looks for a set that carries more than the bound at a cost of no more than the threshold."""

    def __init__(
        self,
        prices: Sequence[Fraction],
        tables: Sequence[Sequence[Fraction]],
        sides: Sequence[int],
        room: Sequence[int],
        multiplier: Fraction,
        discount: Fraction,
        bound: Fraction,
    ) -> None:
        # One scale for rates, one for costs, so that the search runs on whole numbers.
        rates = lcm(bound.denominator, *(r.denominator for t in tables for r in t))
        # Prices are divided by layers held: a multiple of all of these keeps them whole.
        longest = max(len(t) for t in tables)
        costs = lcm(
            multiplier.denominator, discount.denominator, *(p.denominator for p in prices)
        ) * lcm(*range(1, longest + 1))
        self.costs, self.room = costs, list(room)
        # `need` is exact: the bound's denominator is in the scale.
        self.need = int(bound * rates)
        self.discount = int(discount * costs)
        items = []
        for g, (price, table, side) in enumerate(zip(prices, tables, sides, strict=True)):
            for k, rate in enumerate(table):
                if rate > 0:
                    fixed = int(price / (k + 1) * costs)
                    slope = int(multiplier * side / (k + 1) * costs)
                    items.append(Item(g, int(rate * rates), fixed, slope))
        # With an alternation row a slower item may pay less flow, so none is left out.
        if not multiplier:
            items = _undominated(items)
        # Cost of one whole flow by this item alone: fixed * need / rate + slope.
        items.sort(key=lambda i: (Fraction(i.fixed * self.need, i.rate) + i.slope, i.group))
        self.items = items

    def cheaper(self, threshold: Fraction, strict: bool = False) -> str | None:
        """A set that costs the threshold or less (strict: less), in words; None where none does."""
        items, need = self.items, self.need
        if not items:
            return None
        # Sets of more than 0 tokens/s: any machine that carries is one.
        if need <= 0:
            return "a bound of 0 needs machines that can carry nothing"
        limit = threshold * self.costs
        least = Fraction(items[0].fixed * need, items[0].rate) + items[0].slope
        # Flow through chosen machines is counted at no more than the cheapest whole flow.
        flows = [min(Fraction(i.slope), least) for i in items]
        # The cheapest second machine, which earns the discount for a set of one.
        spare = min(i.fixed for i in items)
        used = [0] * len(self.room)
        chosen: list[int] = []
        nodes = 0

        # (next item, what the chosen ones carry, cost, flow cost) at every depth
        stack = [(0, 0, 0, Fraction(0))]
        while stack:
            nodes += 1
            if nodes > NODES:
                return f"not verified: more than {NODES} sets would have to be looked at"
            at, got, cost, flow = stack.pop()
            if at == len(items):
                self._back(stack, chosen, used)
                continue
            item = items[at]
            density = Fraction(item.fixed * need, item.rate) + item.slope
            # Everything below is multiplied by `need`: shares of the flow are rate / need.
            least_cost = cost * need + flow + (need - got) * density
            # Even the cheapest way to go on costs too much: nothing below this point.
            if least_cost - self.discount * need > limit * need:
                self._back(stack, chosen, used)
                continue
            # Twice on the stack: first with this item once more, later without it.
            stack.append((at + 1, got, cost, flow))
            if used[item.group] == self.room[item.group]:
                continue
            total, paid = got + item.rate, cost + item.fixed
            if total > need:
                price = paid + self._flow_cost([*chosen, at])
                # One machine alone earns no discount; with a second, cheap one beside it, it may.
                alone = not chosen
                if alone:
                    price = min(price, price + spare - self.discount)
                else:
                    price -= self.discount
                if price < limit or (price == limit and not strict):
                    names = ", ".join(f"group {items[i].group}" for i in [*chosen, at])
                    return f"a set ({names}) carries more than the bound and costs too little"
                continue
            used[item.group] += 1
            chosen.append(at)
            # `at` again: the same item may be taken as often as its group has machines.
            stack.append((at, total, paid, flow + item.rate * flows[at]))
        return None

    def _back(self, stack: list[Any], chosen: list[int], used: list[int]) -> None:
        """All sets that extend `chosen` are done."""
        if chosen:
            used[self.items[chosen.pop()].group] -= 1

    def _flow_cost(self, chosen: Sequence[int]) -> Fraction:
        """The least that one whole flow pays through these machines."""
        left, total = self.need, 0
        for slope, rate in sorted((self.items[i].slope, self.items[i].rate) for i in chosen):
            share = min(left, rate)
            total += share * slope
            left -= share
        return Fraction(total, self.need)


def _undominated(items: Sequence[Item]) -> list[Item]:
    """Without those that cost no less and carry no more than another of their group."""
    kept: list[Item] = []
    best: dict[int, int] = {}
    # Cheapest first; what follows at a higher price must carry more to stay.
    for item in sorted(items, key=lambda i: (i.group, i.fixed, -i.rate)):
        if item.rate > best.get(item.group, -1):
            best[item.group] = item.rate
            kept.append(item)
    return kept
