"""The best use of a placement: a linear program over its routes, generated as needed.

    max  (p + o) sum_q r_q      sum_q u_qx r_q <= capacity of x,   r >= 0

over routes q with what they use of each machine's time and of each link (paths.py); or, for the
shortest requests at a wanted rate, min sum_q t_q r_q / sum_q r_q with sum_q r_q given.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from csp_embed.serving.instance import Delays, Instance, Placement
from csp_embed.serving.routes.paths import Resource, Route, Routes
from csp_embed.solver.lp import Row, optimum

ROUNDS = 200
NEAR = 1e-9


@dataclass(frozen=True)
class Routed:
    """tokens_per_s: of all routes. routes: (route, requests/s). request_s: mean seconds of a
    request alone on its route."""

    tokens_per_s: float
    routes: tuple[tuple[Route, float], ...]

    @property
    def request_s(self) -> float:
        rate = sum(r for _, r in self.routes)
        return sum(q.request_s * r for q, r in self.routes) / rate if rate else float("inf")


def route_plan(
    instance: Instance,
    placement: Placement,
    late: Delays | None = None,
    wanted: float | None = None,
    stop: Callable[[], bool] = lambda: False,
    rounds: int = ROUNDS,
) -> Routed | None:
    """The most tokens/s; with `wanted` tokens/s, the shortest requests (0: the shortest route
    alone). None where there is no route, or too little. stop: whether to be content with the routes
    that are known; asked often. rounds: of looking for routes, each of which finds a few."""
    assert instance.phases is not None
    routes = Routes(instance, placement, late, stop)
    if wanted == 0.0:
        return _shortest(instance, routes)
    tokens, known, columns = instance.phases.tokens, set(), []
    goal = None if wanted is None else wanted / tokens
    prices: dict[Resource, float] = {}
    # What a request per second is worth: its tokens, or nothing until the program says.
    reward = tokens if goal is None else 0.0
    solution = np.zeros(0)
    # Column generation: the cheapest routes under the prices so far, until none is worth more.
    for _ in range(rounds):
        late_cost = 0.0 if goal is None else 1.0
        found = routes.cheapest(prices, late_cost)
        # The other objective begins with what there is: nothing has a price yet.
        new = [
            q for cost, q in found
            if cost < reward * (1 - NEAR) - 1e-15 and (q.prefill, q.decode) not in known
        ] if goal is None or columns else [q for _, q in found]  # fmt: skip
        if not new:
            break
        known |= {(q.prefill, q.decode) for q in new}
        columns += new
        answer = _solve(instance, columns, goal)
        # The solution before stays.
        if answer is None:
            break
        solution, prices, reward = answer
    # Below that it is rounding of the simplex code.
    rates = [(q, float(r)) for q, r in zip(columns, solution, strict=False) if r > 1e-12]
    total = sum(r for _, r in rates)
    # Less than asked for is no plan.
    if not rates or (goal is not None and total < goal * (1 - 1e-9)):
        return None
    return _within(instance, rates)


def _shortest(instance: Instance, routes: Routes) -> Routed | None:
    found = routes.cheapest({}, 1.0, 1)
    if not found:
        return None
    route = found[0][1]
    # As many requests as its narrowest place lets through.
    rate = min(capacity_of(instance, x) / u for x, u in route.uses.items() if u > 0)
    return _within(instance, [(route, rate)])


def _solve(
    instance: Instance, columns: list[Route], goal: float | None
) -> tuple[np.ndarray, dict[Resource, float], float] | None:
    """(requests/s by route, price of each resource, what a request per second is worth)."""
    assert instance.phases is not None
    used: dict[Resource, tuple[list[int], list[float]]] = {}
    for at, route in enumerate(columns):
        for resource, amount in route.uses.items():
            if amount > 0:
                used.setdefault(resource, ([], []))[0].append(at)
                used[resource][1].append(amount)
    # Sorted, so that rows come in the same order on every run.
    resources = sorted(used, key=str)
    rows: list[Row] = []
    scale = []
    for x in resources:
        # Every row as a share of its capacity: tokens/s and machine time differ by 1e6.
        capacity = capacity_of(instance, x)
        scale.append(capacity)
        at, amounts = used[x]
        rows.append((np.array(at, np.int64), np.array(amounts) / capacity, 1.0))
    n = len(columns)
    if goal is None:
        objective = np.full(n, -instance.phases.tokens)
        found = optimum(objective, rows, [])
        worth = instance.phases.tokens
    else:
        # A dear way out keeps the program solvable until enough routes are known.
        dear = 1e3 * max(q.request_s for q in columns)
        objective = np.array([*(q.request_s for q in columns), dear])
        whole: Row = (np.arange(n + 1), np.ones(n + 1), goal)
        found = optimum(objective, rows, [whole])
        # The multiplier of the total: what one more request per second would cost.
        worth = 0.0 if found is None else -float(found[2][0])
    if found is None:
        return None
    solution, multipliers, _ = found
    # Back to units of the resource.
    prices = {x: float(m) / c for x, m, c in zip(resources, multipliers, scale, strict=True) if m}
    return solution[:n], prices, worth


def capacity_of(instance: Instance, resource: Resource) -> float:
    """Of a machine: the whole of its time. Of a link: tokens/s."""
    kind, *ends = resource
    if kind == "machine":
        return 1.0
    if kind == "start":
        return float(instance.start[ends[0]])
    if kind == "end":
        return float(instance.end[ends[0]])
    return float(instance.link[ends[0], ends[1]])


def _within(instance: Instance, rates: list[tuple[Route, float]]) -> Routed:
    """Shrunk by what rounding put above a capacity, so that the judge finds nothing too large."""
    assert instance.phases is not None
    load: dict[Resource, float] = {}
    for route, rate in rates:
        for x, amount in route.uses.items():
            load[x] = load.get(x, 0.0) + amount * rate
    # By the most overloaded resource; never stretched.
    over = max(1.0, *(total / capacity_of(instance, x) for x, total in load.items()))
    kept = tuple((q, r / over) for q, r in rates)
    return Routed(instance.phases.tokens * sum(r for _, r in kept), kept)
