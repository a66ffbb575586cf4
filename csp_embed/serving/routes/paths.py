"""Routes of least cost through a placement.

Takes: an Instance, a placement, prices of machine time and of links.  Leaves: the cheapest routes.

A route is a pipeline of prefill and one of decode; both hold every layer. Where a layer stands on
two machines, its cache moves from one to the other. Dynamic programming over (layer, prefill
machine, decode machine): each step goes to the next layer at which one of the two hands over. With
limits a state keeps every label that none beats in cost and in both times.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

from csp_embed.serving.instance import Delays, Instance, Placement, delays

# A resource: ("machine", i), ("link", i, j), ("start", i) or ("end", i).
Resource = tuple[Any, ...]
Prices = Mapping[Resource, float]


@dataclass(frozen=True)
class Route:
    """prefill, decode: machines in order. uses: of every resource by one request per second, as a
    share of a machine's time or tokens/s of a link. first_s, token_s: seconds to the first token
    and per further token of a request alone; request_s: of the whole mean request."""

    prefill: tuple[int, ...]
    decode: tuple[int, ...]
    uses: Mapping[Resource, float]
    first_s: float
    token_s: float
    request_s: float


@dataclass(frozen=True)
class _Label:
    cost: float
    first: float
    token: float
    moved: float
    prefill: tuple[int, ...]
    decode: tuple[int, ...]


class Routes:
    """A placement's routes. Machines that hold layers at a rate of 0 are left out. stop: asked
    often; whether to be content with the routes found so far, or with none."""

    def __init__(
        self,
        instance: Instance,
        placement: Placement,
        late: Delays | None = None,
        stop: Callable[[], bool] = lambda: False,
    ):
        assert instance.phases is not None
        self.stop = stop
        self.instance, self.phases = instance, instance.phases
        self.late = late or delays(instance)
        p, o = self.phases.prompt, self.phases.output
        self.at = dict(placement)
        self.time: dict[int, tuple[float, float]] = {}  # of one request: prefill, decode
        self.step: dict[int, float] = {}
        self.passes: dict[int, float] = {}  # tokens that one decode step hands on
        for i, (a, b) in placement.items():
            kind, k = int(instance.kind[i]), b - a - 1
            rates = self.phases.prefill[kind][k], self.phases.decode[kind][k]
            # -1 marks what a machine cannot do; times are never below 0.
            fill, each = (x / r if r > 0 else -1.0 for x, r in zip((p, o), rates, strict=True))
            self.time[i] = fill, each
            self.step[i] = self.phases.step[kind][k]
            # A machine that does not decode passes nothing; 1 keeps the quotient harmless.
            self.passes[i] = rates[1] * self.step[i] if rates[1] > 0 else 1.0
        self.begins: dict[int, list[int]] = {}
        for i, (a, b) in placement.items():
            # With partial inference a machine may be entered anywhere in its interval.
            for layer in range(a, b) if instance.partial else (a,):
                self.begins.setdefault(layer, []).append(i)

    def cheapest(
        self, prices: Prices, late: float = 0.0, most: int = 12
    ) -> list[tuple[float, Route]]:
        """(cost, route), cheapest first; at most `most`, of different last machines.

        late: what a second of `request_s` costs."""
        states: list[dict[tuple[int, int], list[_Label]]] = [
            {} for _ in range(self.instance.layers + 1)
        ]
        empty = _Label(0.0, 0.0, 0.0, 0.0, (), ())
        # Both phases begin at layer 0, on the same machine or on two.
        for i, j in self._pairs(self._firsts(0), self._firsts(1)):
            self._put(states[0], i, j, self._enter(empty, prices, late, (None, i), (None, j)))
        done: list[_Label] = []
        # Layers rise with every step, so one pass in order is enough.
        for layer in range(self.instance.layers):
            # Sorted, so that ties fall the same way on every run.
            for (i, j), labels in sorted(states[layer].items()):
                # Pairs of machines: with dozens in a stage one pass takes many seconds.
                if self.stop():
                    break
                for label in labels:
                    self._leave(states, done, label, layer, i, j, prices, late)
        done.sort(key=lambda x: (x.cost, x.prefill, x.decode))
        return [(x.cost, self.route(x.prefill, x.decode)) for x in done[:most]]

    def route(self, prefill: tuple[int, ...], decode: tuple[int, ...]) -> Route:
        """The route through these machines, with what it uses and takes."""
        uses: dict[Resource, float] = {}
        p, o = self.phases.prompt, self.phases.output
        first, token, moved = 0.0, 0.0, 0.0

        def use(resource: Resource, amount: float) -> None:
            uses[resource] = uses.get(resource, 0.0) + amount

        for path, phase, tokens in ((prefill, 0, p), (decode, 1, o)):
            for i in path:
                use(("machine", i), self.time[i][phase])
            for hop in self._hops(path):
                use(hop, tokens)
            seconds = self._seconds(path, phase)
            first, token = (seconds, token) if phase == 0 else (first, seconds)
        for i, j, count in self._moves(prefill, decode):
            weight = p * (self.phases.cache or 0.0) * count
            use(("link", i, j), weight)
            moved += self._wait(("link", i, j), weight)
        return Route(prefill, decode, uses, first, token, self._total(first, token, moved))

    def _total(self, first: float, token: float, moved: float) -> float:
        # The first token comes with the prompt: one step less.
        return first + moved + max(0.0, self.phases.output - 1) * token

    def _firsts(self, phase: int) -> list[int]:
        return [
            i for i in self.begins.get(0, ())
            if self.instance.start[i] > 0 and self.time[i][phase] >= 0
        ]  # fmt: skip

    def _pairs(self, one: list[int], two: list[int]) -> Iterator[tuple[int, int]]:
        """Machines that may hold one layer for the two phases of a request."""
        for i in one:
            for j in two:
                # Two machines for one layer: the cache must be able to move between them.
                if i == j or (self.phases.split and self.instance.link[i, j] > 0):
                    yield i, j

    def _next(self, i: int, phase: int) -> list[int]:
        """Machines to which i may hand over."""
        return [
            # Where i ends, somebody must begin.
            x for x in self.begins.get(self.at[i][1], ())
            if x != i and self.instance.link[i, x] > 0 and self.time[x][phase] >= 0
        ]  # fmt: skip

    def _wait(self, resource: Resource, tokens: float) -> float:
        """Seconds that so many tokens take over a link."""
        if resource[0] == "start":
            capacity, late = self.instance.start[resource[1]], self.late.start[resource[1]]
        elif resource[0] == "end":
            capacity, late = self.instance.end[resource[1]], self.late.end[resource[1]]
        else:
            capacity = self.instance.link[resource[1], resource[2]]
            late = self.late.link[resource[1], resource[2]]
        return float(late) + tokens / float(capacity)

    def _hops(self, path: tuple[int, ...]) -> list[Resource]:
        links = [("link", a, b) for a, b in pairwise(path)]
        return [("start", path[0]), *links, ("end", path[-1])]

    def _seconds(self, path: tuple[int, ...], phase: int) -> float:
        """Of one prompt, or of one decode step, from the coordinator back to it."""
        if phase == 0:
            own = sum(self.time[i][0] for i in path)
            return own + sum(self._wait(hop, self.phases.prompt) for hop in self._hops(path))
        # The coordinator sends what the first machine's step takes up.
        total = self._wait(("start", path[0]), self.passes[path[0]])
        total += sum(self.step[i] for i in path)
        # The first hop is the coordinator's, counted above.
        for hop in self._hops(path)[1:]:
            total += self._wait(hop, self.passes[hop[1]])
        return total

    def _moves(
        self, prefill: tuple[int, ...], decode: tuple[int, ...]
    ) -> Iterator[tuple[int, int, int]]:
        """(from, to, layers) whose caches move."""
        layer, x, y = 0, 0, 0
        while layer < self.instance.layers:
            i, j = prefill[x], decode[y]
            # Up to where the first of both hands over.
            end = min(self.at[i][1], self.at[j][1])
            if i != j:
                yield i, j, end - layer
            layer = end
            # Both at once where both end here.
            x += self.at[i][1] == end
            y += self.at[j][1] == end

    def _enter(
        self,
        label: _Label,
        prices: Prices,
        late: float,
        prefill: tuple[int | None, int] | None,
        decode: tuple[int | None, int] | None,
    ) -> _Label:
        """The label after a hand-over (from, to) in either phase."""
        cost, first, token = label.cost, label.first, label.token
        ways = label.prefill, label.decode
        rest = max(0.0, self.phases.output - 1)
        # Entering a machine pays its time and the hop to it.
        if prefill is not None:
            a, i = prefill
            hop: Resource = ("start", i) if a is None else ("link", a, i)
            tokens = self.phases.prompt
            more = self._wait(hop, tokens) + self.time[i][0]
            first += more
            cost += late * more + prices.get(("machine", i), 0.0) * self.time[i][0]
            cost += prices.get(hop, 0.0) * tokens
            ways = (*ways[0], i), ways[1]
        if decode is not None:
            a, j = decode
            hop = ("start", j) if a is None else ("link", a, j)
            # From the coordinator the receiver's own number of tokens counts.
            more = self._wait(hop, self.passes[j if a is None else a]) + self.step[j]
            token += more
            cost += late * more * rest + prices.get(("machine", j), 0.0) * self.time[j][1]
            cost += prices.get(hop, 0.0) * self.phases.output
            ways = ways[0], (*ways[1], j)
        return _Label(cost, first, token, label.moved, *ways)

    def _leave(
        self,
        states: list[dict[tuple[int, int], list[_Label]]],
        done: list[_Label],
        label: _Label,
        layer: int,
        i: int,
        j: int,
        prices: Prices,
        late: float,
    ) -> None:
        """Goes on to where i or j hands over, or to the end."""
        stops = self.at[i][1], self.at[j][1]
        end = min(stops)
        # One layer on two machines: its cache moves, for all layers until the next hand-over.
        if i != j:
            weight = self.phases.prompt * (self.phases.cache or 0.0) * (end - layer)
            wait = self._wait(("link", i, j), weight)
            cost = label.cost + late * wait + prices.get(("link", i, j), 0.0) * weight
            label = _Label(
                cost, label.first, label.token, label.moved + wait, label.prefill, label.decode
            )
        if end == self.instance.layers:
            self._finish(done, label, i, j, prices, late)
            return
        # The other phase stays where it is.
        one = self._next(i, 0) if stops[0] == end else [i]
        two = self._next(j, 1) if stops[1] == end else [j]
        for a, b in self._pairs(one, two):
            enter = self._enter(
                label, prices, late,
                (i, a) if stops[0] == end else None, (j, b) if stops[1] == end else None,
            )  # fmt: skip
            self._put(states[end], a, b, enter)

    def _finish(
        self, done: list[_Label], label: _Label, i: int, j: int, prices: Prices, late: float
    ) -> None:
        # Only machines with a link back can be last.
        if self.instance.end[i] <= 0 or self.instance.end[j] <= 0:
            return
        wait = self._wait(("end", i), self.phases.prompt)
        step = self._wait(("end", j), self.passes[j])
        cost = label.cost + late * (wait + step * max(0.0, self.phases.output - 1))
        cost += prices.get(("end", i), 0.0) * self.phases.prompt
        cost += prices.get(("end", j), 0.0) * self.phases.output
        first, token = label.first + wait, label.token + step
        # Limits count on the whole route, so they are asked for once more here.
        if first <= self.phases.first_s and token <= self.phases.token_s:
            done.append(_Label(cost, first, token, label.moved, label.prefill, label.decode))

    def _put(
        self, states: dict[tuple[int, int], list[_Label]], i: int, j: int, label: _Label
    ) -> None:
        """Keeps a label unless another is no worse in all that counts."""
        # Times only grow: a label beyond a limit never comes back.
        if label.first > self.phases.first_s or label.token > self.phases.token_s:
            return
        # Times count only where a limit does; else fewer labels are kept.
        by_first, by_token = self.phases.first_s < float("inf"), self.phases.token_s < float("inf")

        def beats(x: _Label, y: _Label) -> bool:
            return (
                x.cost <= y.cost
                and (not by_first or x.first <= y.first)
                and (not by_token or x.token <= y.token)
            )

        kept = states.setdefault((i, j), [])
        if any(beats(x, label) for x in kept):
            return
        kept[:] = [x for x in kept if not beats(label, x)]
        kept.append(label)


def _over(amount: float, rate: float) -> float:
    """Seconds; -1 where the machine cannot do it."""
    return amount / rate if rate > 0 else -1.0
