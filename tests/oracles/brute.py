"""Brute force for the tiniest problems: no solver, no model.

Takes: Ground.  Leaves: sets of solution keys. Which of them are regular: brute_regular.py.

The points one after another at every place that breaks no rule yet, judged by check.py when all
lie; where the memory interface counts, with every choice of memory elements.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np

from csp_embed.embed.ground.points import Key, key
from csp_embed.ir.ground import Ground
from csp_embed.judge.embedding.covering import covering_of, judge

Place = tuple[int, ...]


def brute_irregular(ground: Ground) -> frozenset[Key]:
    """Every covering, by trying them all."""
    sizes = [ground.steps, *ground.sizes.values()]
    out: set[Key] = set()
    elements: list[dict[str, list[int]]] = [{}]
    if ground.ordered:
        numbers = list(_in_order(ground.steps))
        choices = itertools.product(numbers, repeat=len(ground.strict))
        elements = [dict(zip(sorted(ground.strict), c, strict=True)) for c in choices]

    def extend(at: list[Place]) -> None:
        q = len(at)
        if q == len(ground.points):
            table = np.array(at, np.int64).reshape(q, len(sizes))
            numbered = (e for e in elements if _met(ground, e, at))
            if any(not judge(ground, covering_of(ground, table, e)) for e in numbered):
                out.add(key(ground, table))
            return
        # A name that nobody bears yet is as good as the next such name.
        names = [
            range(n)
            if d == 0 and ground.ordered
            else range(min(n, 1 + max((p[d] + 1 for p in at), default=0)))
            for d, n in enumerate(sizes)
        ]
        for place in itertools.product(*names):
            if place not in at and all(_fits(ground, at[p], place, p, q) for p in range(q)):
                extend([*at, place])

    extend([])
    return frozenset(out)


def _in_order(steps: int) -> Iterator[list[int]]:
    """Every choice of memory elements for the steps, numbered in the order of first use; the one
    where each step has its own comes first."""
    if steps == 0:
        yield []
        return
    for before in _in_order(steps - 1):
        for n in reversed(range(2 + max(before, default=-1))):
            yield [*before, n]


def _met(ground: Ground, elements: dict[str, list[int]], at: Sequence[Place]) -> bool:
    """Whether steps that touch one tensor element meet one memory element."""
    for role, numbers in elements.items():
        where: dict[int, int] = {}
        for element, place in zip(ground.elements[role].tolist(), at, strict=True):
            if where.setdefault(element, numbers[place[0]]) != numbers[place[0]]:
                return False
    return True


def _fits(ground: Ground, a: Sequence[int], b: Sequence[int], p: int, q: int) -> bool:
    """Two placed points share an operand lane of a step only if they share the element, and add
    into one output in one lane only."""
    for role in ground.dims:
        one_lane = ground.lane_of(role, a[1:]) == ground.lane_of(role, b[1:])
        shared = ground.elements[role][p] == ground.elements[role][q]
        if not shared and one_lane and a[0] == b[0]:
            return False
        if shared and not one_lane and (role == "dst" or role in ground.strict):
            return False
    return True
