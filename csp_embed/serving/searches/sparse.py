"""Searches for plans on networks with missing links: which stages, then which machines.

Machines of a set without links among them (`unlinked`, leaves) hand over to hubs only. Say a stage
passes the share x of the flow through hubs and 1 - x through leaves: two stages can follow each
other if x + x' >= 1, since what comes from leaves must go to hubs, and what goes to leaves must
come from hubs. So for every t < 1/2 the stages with x <= t are separated by stages with
x >= 1 - t. An integer program chooses the stages, mixed ones too, and which two are the pipeline's
ends, at machines that the coordinator reaches; the annealing in assign.py chooses order and
machines.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from csp_embed.serving.instance import Ints
from csp_embed.serving.searches.assign import assign
from csp_embed.serving.searches.patterns import Class, Stage, classes_of, priced_stages
from csp_embed.serving.searches.search import Search
from csp_embed.solver import cpsat
from csp_embed.solver.params import Params

FIRST = (0.5, 0.2, 0.05)  # parts of the bound that are tried until there is any plan
TRIES = 2  # compositions at one rate
MOVES = 1_000_000  # of annealing, for each, at the most
MOVES_BY_SIZE = 1_200  # times the number of machines squared: few machines need few moves
SMALL = 8  # machines, for which annealing over intervals finds what there is
TURNS = 2  # annealings of a composition, as long as they come near
NEAR = 0.97  # of the hand-overs
REPEATS = 2  # times that the same composition is arranged
AGAIN = 6  # rates tried once more; with a time limit as many as it leaves
STEPS = (0.002, 0.006, 0.015)
ALMOST = 0.9  # of the machines that a strong hub is linked to
STAGES = 1500  # to compose from
EQUAL = 1e-9  # shares of the flow


@dataclass(frozen=True)
class _Choice:
    """hubs: the share of the flow that may pass through hubs."""

    stage: Stage
    hubs: float


def sparse(search: Search) -> None:
    """Chains of stages on a network whose links matter."""
    if search.open:
        return

    tried = 0
    moves = min(MOVES, MOVES_BY_SIZE * search.instance.size**2)
    arranged: dict[tuple[tuple[Stage, bool], ...], int] = {}

    def attempt(rate: float) -> bool:
        known: dict[bool, tuple[list[Class], list[_Choice]]] = {}
        for seed in range(tried, tried + TRIES):
            if search.late():
                return False
            # Every other try counts weakly linked hubs as leaves.
            strong = seed % 2 == 1
            if strong not in known:
                found = _choices(search, rate, _leaves(search, strong))
                if found is None:
                    return False
                known[strong] = found
            classes, choices = known[strong]
            chosen = _compose(search, classes, choices, seed)
            if chosen is None:
                continue
            seen = arranged[tuple(chosen)] = arranged.get(tuple(chosen), 0) + 1
            if seen > REPEATS:  # the program has little to choose from at this rate
                return False
            # A class for each machine: annealing may swap those of one type.
            single, row = _machines(search, classes, chosen)
            for turn in range(TURNS):
                at = search.seed + seed + 1000 * turn
                placement, share = assign(search.instance, single, row, rate, at, moves)
                if search.offer(placement, "stages") >= rate * (1 - 1e-12):
                    return True
                if share < NEAR or search.late():
                    break
        return False

    for part in FIRST:
        if search.value < part * search.most:
            # Any good plan first: a share of the bound is easier to reach.
            attempt(search.most * part)
    search.climb(attempt, steps=10)
    # That a rate was missed once proves nothing: again, otherwise, a little above the best.
    rounds = AGAIN if search.limit is None else 100 * AGAIN
    for at in range(0 if search.instance.size <= SMALL else rounds):
        if search.late() or search.proved or not search.value:
            return
        tried += TRIES
        attempt(min(float(search.value) * (1 + STEPS[at % len(STEPS)]), search.most))


def _leaves(search: Search, strong: bool) -> Ints:
    """1 for machines that need hubs beside them. strong: also those hubs that are linked to some
    machines only, which then do not count as hubs."""
    leaf = np.zeros(search.instance.size, np.int64)
    leaf[list(search.relaxation.unlinked)] = 1
    if strong and leaf.any():
        # Both ways: a hub takes from leaves and gives to them.
        joined = (search.instance.link > 0) & (search.instance.link.T > 0)
        leaf[joined.sum(axis=1) < ALMOST * (search.instance.size - 1)] = 1
    return leaf


def _choices(search: Search, rate: float, leaf: Ints) -> tuple[list[Class], list[_Choice]] | None:
    """Machines in classes, by whether they are leaves too, and the stages a plan may use."""
    duals = search.relaxation.alternating(rate)
    if duals is None:
        return None
    price, mult, waste = duals
    side = -np.ones(search.instance.size)
    side[list(search.relaxation.unlinked)] = 1.0
    labels = leaf + 2 * (side > 0)
    # Prices with fewer digits: else equal machines would be told apart.
    classes = classes_of(search.instance, labels, np.round(price, 9))
    slope = [mult * float(side[c.members[0]]) for c in classes]
    found = priced_stages(classes, slope, rate, waste + 1e-6, STAGES)
    hub = [leaf[c.members[0]] == 0 for c in classes]
    choices = []
    for stage in found:
        through = sum(n * classes[c].table[stage.layers - 1] for c, n in stage.counts if hub[c])
        choices.append(_Choice(stage, min(1.0, through / rate)))
    return classes, choices


def _compose(
    search: Search, classes: Sequence[Class], choices: Sequence[_Choice], seed: int
) -> list[tuple[Stage, bool]] | None:
    """(stage, whether an end of the pipeline) that add up to all layers; another seed gives other
    ones."""
    layers = search.instance.layers
    able = (search.instance.start > 0) & (search.instance.end > 0)
    model = cpsat.new_model()
    rows: list[tuple[_Choice, bool, Any]] = []
    for choice in choices:
        for end in (False, True):
            most = layers // choice.stage.layers
            rows.append((choice, end, model.new_int_var(0, min(most, 2) if end else most, "")))
    for t, members in enumerate(c.members for c in classes):
        used = [(n * y, end) for o, end, y in rows for c, n in o.stage.counts if c == t]
        model.add(sum(u for u, _ in used) <= len(members))
        # Ends must stand on machines that the coordinator reaches both ways.
        model.add(sum(u for u, end in used if end) <= int(able[list(members)].sum()))
    model.add(sum(o.stage.layers * y for o, _, y in rows) == layers)
    if able.any():
        alone = any(o.stage.layers == layers for o in choices)  # one stage may be both ends
        ends = sum(y for _, end, y in rows if end)
        model.add(ends >= (1 if alone else 2))
        model.add(ends <= 2)
    for level in sorted({o.hubs for o in choices if o.hubs < 0.5 - EQUAL}):
        _separated(model, rows, level, layers, bool(able.any()))
    draw = random.Random(seed)
    model.minimize(sum((o.stage.width * 4 + draw.randrange(16)) * y for o, _, y in rows))
    answer = cpsat.solve(
        model,
        Params(seed, deterministic_limit=2.0, time_limit=search.left),
        extra={"stop_after_first_solution": True},
    )
    if answer.interrupted:
        raise KeyboardInterrupt
    if not answer.found:
        return None
    return [(o.stage, end) for o, end, y in rows for _ in range(int(answer.value(y)))]


def _separated(
    model: Any, rows: Sequence[tuple[_Choice, bool, Any]], level: float, layers: int, ends: bool
) -> None:
    """Stages can stand in a row if each weak one (hubs up to `level`) has firm ones (1 - level and
    more) beside it, or the pipeline's end. Others, between weak and firm, also stand beside firm
    ones, so as a group they take the place of one weak stage, unless they are at an end."""
    weak = [(end, y) for o, end, y in rows if o.hubs <= level + EQUAL]
    firm = [y for o, _, y in rows if o.hubs >= 1 - level - EQUAL]
    rest = [(o, end, y) for o, end, y in rows if level + EQUAL < o.hubs < 1 - level - EQUAL]
    # No ends are known: both may be weak.
    at_end = sum(y for end, y in weak if end) if ends else 2
    group = model.new_bool_var("")
    model.add(sum(y for _, _, y in rest) <= layers * group)
    if ends:
        beside = model.new_bool_var("")
        model.add(beside <= sum(y for _, end, y in rest if end))
    else:
        beside = 1
    # Weak ones are separated by firm ones; at both ends one more may stand.
    model.add(sum(y for _, y in weak) <= sum(firm) - 1 + at_end - group + beside)


def _machines(
    search: Search, classes: Sequence[Class], chosen: Sequence[tuple[Stage, bool]]
) -> tuple[list[Class], list[Stage]]:
    """The same stages with a machine each, ends at machines that can be ends: a start for the
    annealing, which may swap any two of one type."""
    able = (search.instance.start > 0) & (search.instance.end > 0)
    # Ends take first what can be an end, the others what cannot.
    free = [sorted(c.members, key=lambda i: (able[i], i)) for c in classes]
    teams: dict[int, list[int]] = {}
    # Ends are served first: few machines can be ends.
    for at, (stage, end) in sorted(enumerate(chosen), key=lambda item: not item[1][1]):
        teams[at] = [
            free[c].pop(-1 if end else 0) for c, n in stage.counts for _ in range(n)
        ]  # fmt: skip
    # One class for each machine in use, and the others for swaps.
    order = [i for at in sorted(teams) for i in teams[at]] + [i for rest in free for i in rest]
    single = [Class((i,), search.instance.table(i)) for i in order]
    number = {i: c for c, i in enumerate(order)}
    return single, [
        Stage(s.layers, tuple((number[i], 1) for i in teams[at]), s.rate, s.price)
        for at, (s, _) in enumerate(chosen)
    ]
