"""Stages of many machines: how many stages of each length, and how many machines for them.

With hundreds of machines a stage holds dozens, and stage patterns can no longer be listed. An
integer program decides for each number of layers k how many stages of that length there are and how
many machines of each class serve them; the machines are then dealt out so that the weakest stage is
as strong as possible.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from csp_embed.serving.instance import Floats, Ints
from csp_embed.serving.searches.patterns import Class, classes_of
from csp_embed.serving.searches.search import Search
from csp_embed.solver import cpsat
from csp_embed.solver.params import Params

NARROW = 3.0  # machines a stage on average, below which patterns are the better tool
SCALE = 100_000  # rates become whole numbers of so many parts of the goal
PADS = (0.0, 0.001, 0.003, 0.01)  # what dealing out may lose, asked for in advance


def wide(search: Search) -> None:
    """Stages of many machines, dealt out evenly."""
    classes = classes_of(search.instance)

    def attempt(rate: float) -> bool:
        # Dealing out loses a little: asked for more, what is lost is still enough.
        for pad in PADS:
            if search.late():
                return False
            counts = _program(classes, search.instance.layers, rate * (1 + pad), search.left)
            if counts is None:
                return False
            stages, held = counts
            placement = _deal(classes, search.instance.layers, stages, held)
            if search.offer(placement, "wide stages") >= rate:
                return True
        return False

    # Patterns are better where stages are narrow.
    average = search.instance.size / (search.instance.layers / _held(classes))
    if average >= NARROW:
        search.climb(attempt, steps=14)


def _held(classes: Sequence[Class]) -> float:
    """Layers that a machine holds on average where it does the most work."""
    best = [
        (1 + int(np.argmax([(k + 1) * r for k, r in enumerate(c.table)]))) * len(c.members)
        for c in classes
    ]
    return sum(best) / sum(len(c.members) for c in classes)


def _program(
    classes: Sequence[Class], layers: int, rate: float, seconds: float | None
) -> tuple[dict[int, int], Ints] | None:
    """(stages by length, machines by class and length); None where none were found."""
    model = cpsat.new_model()
    longest = max(len(c.table) for c in classes)
    stage = {k: model.new_int_var(0, layers // k, "") for k in range(1, min(longest, layers) + 1)}
    machine: dict[tuple[int, int], Any] = {}
    for c, cl in enumerate(classes):
        for k in stage:
            if k <= len(cl.table) and cl.table[k - 1] > 0:
                machine[c, k] = model.new_int_var(0, len(cl.members), "")
        model.add(sum(y for (d, _), y in machine.items() if d == c) <= len(cl.members))
    for k, z in stage.items():
        parts = [
            # One machine never counts more than the whole rate: more would not help a stage.
            int(min(classes[c].table[k - 1] / rate, 1.0) * SCALE) * y
            for (c, j), y in machine.items()
            if j == k
        ]
        # On average only: dealing out must make each of them strong enough.
        model.add(sum(parts) >= SCALE * z)
    model.add(sum(k * z for k, z in stage.items()) == layers)
    answer = cpsat.solve(model, Params(deterministic_limit=1.0, time_limit=seconds))
    if answer.interrupted:
        raise KeyboardInterrupt
    if not answer.found:
        return None
    held = np.zeros((len(classes), longest + 1), np.int64)
    for (c, k), y in machine.items():
        held[c, k] = int(answer.value(y))
    stages = {k: int(answer.value(z)) for k, z in stage.items()}
    return {k: n for k, n in stages.items() if n}, held


def _deal(
    classes: Sequence[Class], layers: int, stages: dict[int, int], held: Ints
) -> dict[int, tuple[int, int]]:
    """Machines of each length to its stages: the strongest first, always to the weakest stage; then
    swaps, and machines that are left over to whichever stage is weakest."""
    lengths = [k for k, n in sorted(stages.items()) for _ in range(n)]
    free = [list(c.members) for c in classes]
    rate = np.zeros(len(lengths))
    team: list[list[int]] = [[] for _ in lengths]  # classes of the machines in each stage
    for k in sorted(stages):
        mine = [s for s, length in enumerate(lengths) if length == k]
        crew = [c for c in range(len(classes)) for _ in range(held[c, k])]
        # The strongest first: the weak ones fill up what is left.
        crew.sort(key=lambda c: (-classes[c].table[k - 1], c))
        for c in crew:
            s = min(mine, key=lambda s: (rate[s], s))
            team[s].append(c)
            rate[s] += classes[c].table[k - 1]
        _swap(classes, k, mine, team, rate)
    # Machines that the program did not need may still help.
    left = [len(free[c]) - int(held[c].sum()) for c in range(len(classes))]
    while any(left):
        s = int(rate.argmin())
        k = lengths[s]
        able = [c for c in range(len(classes)) if left[c] and len(classes[c].table) >= k]
        if not able:
            break
        # The weakest machine that can help: stronger ones may be needed for another stage.
        c = min(able, key=lambda c: (classes[c].table[k - 1], c))
        left[c] -= 1
        team[s].append(c)
        rate[s] += classes[c].table[k - 1]
    placement: dict[int, tuple[int, int]] = {}
    first = 0
    for s, k in enumerate(lengths):
        for c in team[s]:
            placement[free[c].pop(0)] = (first, first + k)
        first += k
    return placement


def _swap(
    classes: Sequence[Class], k: int, mine: Sequence[int], team: list[list[int]], rate: Floats
) -> None:
    """Swaps one machine of the weakest stage for one of another as long as both stay above it."""
    table = [c.table[k - 1] if len(c.table) >= k else 0.0 for c in classes]
    # A limit, for swaps that would go round for ever on equal rates.
    for _ in range(1000):
        weak = min(mine, key=lambda s: (rate[s], s))
        best, choice = rate[weak] * (1 + 1e-12), None
        for s in mine:
            if s == weak:
                continue
            for a in sorted(set(team[weak])):
                for b in sorted(set(team[s])):
                    gain = table[b] - table[a]
                    after = min(rate[weak] + gain, rate[s] - gain)
                    # Both above what the weakest had.
                    if gain > 0 and after > best:
                        best, choice = after, (s, a, b)
        if choice is None:
            return
        s, a, b = choice
        team[weak].remove(a)
        team[s].remove(b)
        team[weak].append(b)
        team[s].append(a)
        rate[weak] += table[b] - table[a]
        rate[s] += table[a] - table[b]
