"""Searches for plans on networks with missing links: which stages, then which machines.

Machines of a set without links among them (`unlinked`) hand over to others only, so stages with any
of them must alternate with stages of hubs alone, and a pipeline begins and ends at machines that
the coordinator reaches. An integer program chooses the stages by type and gives each a role; the
annealing in assign.py chooses order and machines within a type.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np

from csp_embed.serving.instance import Ints
from csp_embed.serving.searches.assign import assign
from csp_embed.serving.searches.patterns import Class, Stage, classes_of, stages
from csp_embed.serving.searches.search import Search
from csp_embed.solver import cpsat
from csp_embed.solver.params import Params

FIRST = (0.5, 0.2, 0.05)  # parts of the bound that are tried until there is any plan
TRIES = 10  # compositions at one rate
MOVES = 300_000  # of annealing, for each, at the most
MOVES_BY_SIZE = 500  # times the number of machines squared: few machines need few moves
SMALL = 8  # machines, for which annealing over intervals finds what there is
REPEATS = 3  # times that the same composition is arranged
AGAIN = 48
STEPS = (0.002, 0.006, 0.015)
ALMOST = 0.9  # of the machines that a strong hub is linked to
LEAF, HUB, LEAF_END, HUB_END = range(4)  # roles of a stage; "end": the pipeline begins or ends


def sparse(search: Search) -> None:
    """Chains of stages on a network whose links matter."""
    if search.open:
        return

    tried = 0
    moves = min(MOVES, MOVES_BY_SIZE * search.instance.size**2)
    arranged: dict[tuple[tuple[Stage, int], ...], int] = {}

    def attempt(rate: float) -> bool:
        guide = search.relaxation.guide(rate)
        if guide is None:
            return False
        types = classes_of(search.instance)
        # The price of a type is the least of its machines': no stage is dropped wrongly.
        types = [
            Class(t.members, t.table, 0, min(float(guide[0][i]) for i in t.members)) for t in types
        ]
        choices = stages(types, rate, guide[1] + 1e-6, most=1000)
        for seed in range(tried, tried + TRIES):
            if search.late():
                return False
            leaves = _leaves(search, strong=seed % 2 == 1)
            chosen = _compose(search, types, choices, leaves, seed)
            if chosen is None:
                continue
            seen = arranged[tuple(chosen)] = arranged.get(tuple(chosen), 0) + 1
            if seen > REPEATS:  # the program has little to choose from at this rate
                return False
            classes, row = _machines(search, types, chosen, leaves)
            placement, _ = assign(search.instance, classes, row, rate, search.seed + seed, moves)
            if search.offer(placement, "stages") >= rate * (1 - 1e-12):
                return True
        return False

    for part in FIRST:
        if not search.value:
            attempt(search.most * part)
    search.climb(attempt)
    # That a rate was missed once proves nothing: again, otherwise, a little above the best.
    for at in range(0 if search.instance.size <= SMALL else AGAIN):
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
        joined = (search.instance.link > 0) & (search.instance.link.T > 0)
        leaf[joined.sum(axis=1) < ALMOST * (search.instance.size - 1)] = 1
    return leaf


def _ends(search: Search) -> Ints:
    """1 for machines at which a pipeline can begin and end."""
    return ((search.instance.start > 0) & (search.instance.end > 0)).astype(np.int64)


def _compose(
    search: Search, types: Sequence[Class], choices: Sequence[Stage], leaves: Ints, seed: int
) -> list[tuple[Stage, int]] | None:
    """(stage by type, role) that add up to all layers; another seed gives other ones."""
    layers, ends = search.instance.layers, _ends(search)
    model = cpsat.new_model()
    rows: list[tuple[Stage, int, Any]] = []
    for stage in choices:
        for role in range(4):
            rows.append((stage, role, model.new_int_var(0, layers // stage.layers, "")))
    for t, members in enumerate(c.members for c in types):
        ids = list(members)
        hub, end = leaves[ids] == 0, ends[ids] == 1
        # Roles that share a demand may use together only the machines that have it.
        for roles, fit in (
            ({HUB, HUB_END}, hub),
            ({LEAF_END, HUB_END}, end),
            ({HUB_END}, hub & end),
            ({HUB, HUB_END, LEAF_END}, hub | end),
            ({LEAF, HUB, LEAF_END, HUB_END}, hub | True),
        ):
            used = [n * y for s, r, y in rows if r in roles for c, n in s.counts if c == t]
            model.add(sum(used) <= int(fit.sum()))
    model.add(sum(s.layers * y for s, _, y in rows) == layers)
    if leaves.any():
        excess = sum(y if r in (LEAF, LEAF_END) else -y for _, r, y in rows)
        model.add(excess <= search.relaxation.slack)
    if ends.any():
        alone = any(s.layers == layers for s in choices)  # one stage may be both ends
        model.add(sum(y for _, r, y in rows if r in (LEAF_END, HUB_END)) >= (1 if alone else 2))
    draw = random.Random(seed)
    model.minimize(sum((s.width * 4 + draw.randrange(16)) * y for s, _, y in rows))
    answer = cpsat.solve(
        model, Params(seed, deterministic_limit=2.0), extra={"stop_after_first_solution": True}
    )
    if answer.interrupted:
        raise KeyboardInterrupt
    if not answer.found:
        return None
    return [(s, r) for s, r, y in rows for _ in range(int(answer.value(y)))]


def _machines(
    search: Search, types: Sequence[Class], chosen: Sequence[tuple[Stage, int]], leaves: Ints
) -> tuple[list[Class], list[Stage]]:
    """The same stages with a machine each, hubs for hubs where there are any: a start for the
    annealing, which may swap any two of one type."""
    ends = _ends(search)
    free = [list(c.members) for c in types]
    # What a role asks for first; (leaf, end) of the machine it likes best comes first.
    liking = {
        HUB_END: lambda i: (leaves[i], 1 - ends[i]),
        LEAF_END: lambda i: (1 - ends[i], 1 - leaves[i]),
        HUB: lambda i: (leaves[i], ends[i]),
        LEAF: lambda i: (1 - leaves[i], ends[i]),
    }
    row: list[tuple[int, Stage, list[int]]] = []
    for at, (stage, role) in sorted(
        enumerate(chosen), key=lambda item: (HUB_END, LEAF_END, HUB, LEAF).index(item[1][1])
    ):
        team = []
        for t, n in stage.counts:
            free[t].sort(key=lambda i: (*liking[role](i), i))
            team += [free[t].pop(0) for _ in range(n)]
        row.append((at, stage, team))
    row.sort(key=lambda r: r[0])
    # One class for each machine in use, and the others for swaps.
    order = [i for _, _, team in row for i in team] + [i for rest in free for i in rest]
    classes = [Class((i,), search.instance.table(i)) for i in order]
    number = {i: c for c, i in enumerate(order)}
    return classes, [
        Stage(s.layers, tuple((number[i], 1) for i in team), s.rate, s.price) for _, s, team in row
    ]
