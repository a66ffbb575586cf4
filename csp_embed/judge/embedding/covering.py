"""Judges a covering by the definition: which rules of the embedding problem does it break?

Takes: Ground, Covering.  Leaves: breaches, one per rule and place. Shares nothing with the models:
plain dictionaries and loops, so it is for small problems.
"""

from __future__ import annotations

import itertools
from collections import Counter as Count
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from csp_embed.ir.ground import Ground, Ints
from csp_embed.ir.operator import Role
from csp_embed.judge.embedding.breach import Breach


@dataclass(frozen=True)
class Covering:
    """steps: for each step, lanes -> effective operator point; other lanes are pad.

    elements: operand -> memory element (an address) that each step meets. Left out: steps that
    touch a common tensor element meet one element where rule 6 or a strict layout wants that, and
    elements of their own otherwise, numbered in the order of first use. garbage: (operand, element,
    lane) of live data beyond what the points need.
    """

    steps: Sequence[Mapping[tuple[int, ...], int]]
    elements: Mapping[Role, Sequence[int]] = field(default_factory=dict[Role, Sequence[int]])
    garbage: frozenset[tuple[Role, int, int]] = frozenset()


def covering_of(
    ground: Ground, at: Ints, elements: Mapping[Role, Sequence[int]] | None = None
) -> Covering:
    """The covering in which point q lies at step at[q, 0] and lanes at[q, 1:]."""
    steps: list[dict[tuple[int, ...], int]] = [{} for _ in range(ground.steps)]
    for q, (step, *lanes) in enumerate(at.tolist()):
        steps[step][tuple(lanes)] = q
    return Covering(tuple(steps), elements or {})


def judge(ground: Ground, covering: Covering) -> list[Breach]:
    """All broken rules; an empty list means that the covering is right."""
    out = [] if ground.same_kind else [Breach(1, f"{ground.instruction} is no {ground.op.kind}")]
    met = Count(q for step in covering.steps for q in step.values())
    out += [Breach(3, f"point {q} is met {n} times") for q, n in met.items() if n > 1]
    out += [Breach(5, f"point {q} is missed") for q in range(len(ground.points)) if q not in met]
    contents: dict[tuple[Role, int, int], set[int]] = {}
    for role in ground.dims:
        elements = covering.elements.get(role) or _elements(ground, covering, role)
        out += _content(ground, covering, role, elements, contents)
        if role == Role.DST or role in ground.strict:
            out += _homes(role, contents)
        if role in ground.strict:
            out += _tiles(ground, role, elements)
    return out + _pads(ground, covering, contents)


def _elements(ground: Ground, covering: Covering, role: Role) -> list[int]:
    """Memory element of each step: the finest choice that rules 6 and 9 leave."""
    own = list(range(len(covering.steps)))
    if role != Role.DST and role not in ground.strict:
        return own
    touched = [{int(ground.elements[role][q]) for q in step.values()} for step in covering.steps]
    for a, b in itertools.combinations(range(len(touched)), 2):
        if touched[a] & touched[b] and own[a] != own[b]:
            old, new = max(own[a], own[b]), min(own[a], own[b])
            own = [new if e == old else e for e in own]
    return [sorted(set(own)).index(e) for e in own]


def _content(
    ground: Ground,
    covering: Covering,
    role: Role,
    elements: Sequence[int],
    contents: dict[tuple[Role, int, int], set[int]],
) -> list[Breach]:
    out: list[Breach] = []
    for t, step in enumerate(covering.steps):
        here: dict[int, set[int]] = {}
        for lanes, q in step.items():
            lane = ground.lane_of(role, lanes)
            here.setdefault(lane, set()).add(int(ground.elements[role][q]))
        for lane, values in here.items():
            if len(values) > 1:
                text = f"step {t} needs elements {sorted(values)} in lane {lane} of {role}"
                out.append(Breach(2, text))
            stored = contents.setdefault((role, elements[t], lane), set())
            if stored and values - stored and len(values) == 1:
                text = f"lane {lane} of {role} element {elements[t]} has two contents"
                out.append(Breach(7, text))
            stored |= values
    for role_, element, lane in covering.garbage:
        if role_ == role:
            contents.setdefault((role, element, lane), set()).add(-1)
    return out


def _homes(role: Role, contents: Mapping[tuple[Role, int, int], set[int]]) -> list[Breach]:
    homes: dict[int, set[tuple[int, int]]] = {}
    for (owner, element, lane), values in contents.items():
        if owner == role:
            for v in values - {-1}:
                homes.setdefault(v, set()).add((element, lane))
    rule = 6 if role == Role.DST else 9
    return [
        Breach(rule, f"element {v} of {role} stands at {sorted(places)}")
        for v, places in sorted(homes.items())
        if len(places) > 1
    ]


def _tiles(ground: Ground, role: Role, elements: Sequence[int]) -> list[Breach]:
    size = ground.tile or len(elements)
    out: list[Breach] = []
    for start in range(0, len(elements), size):
        tile = set(elements[start : start + size])
        if not _few_transfers(frozenset(tile), ground.rectangles):
            text = f"{role} elements {sorted(tile)} are more than {ground.rectangles} rectangles"
            out.append(Breach(10, text))
    return out


def _pads(
    ground: Ground, covering: Covering, contents: Mapping[tuple[Role, int, int], set[int]]
) -> list[Breach]:
    every = {
        role: covering.elements.get(role) or _elements(ground, covering, role)
        for role in ground.dims
    }
    for t, step in enumerate(covering.steps):
        for lanes in itertools.product(*(range(n) for n in ground.sizes.values())):
            if lanes not in step and all(
                contents.get((role, every[role][t], ground.lane_of(role, lanes)))
                for role in ground.dims
            ):
                return [Breach(4, f"step {t}, lanes {lanes}: pad adds live data to a live lane")]
    return []


@cache
def _few_transfers(addresses: frozenset[int], most: int) -> bool:
    """Whether at most so many transfers (rows of equal length at one stride) name each of the
    addresses once and nothing else. The model counts them with code of its own."""
    if not addresses or not most:
        return not addresses
    first = min(addresses)
    width = 0
    while first + width in addresses:
        width += 1
        for stride in sorted(a - first for a in addresses if a - first >= width) or [width]:
            left, row = addresses, first
            while all(row + k in left for k in range(width)):
                left = left.difference(range(row, row + width))
                row += stride
                if _few_transfers(left, most - 1):
                    return True
    return False
