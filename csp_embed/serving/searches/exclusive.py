"""Machines that share devices: which of them to use.

A server's GPUs may stand alone or form groups; every group is a machine, and machines that share a
GPU exclude each other. Here the ways to divide each box are listed (boxes that look alike are
interchangeable), and the plain searches run on one set of machines after another.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations_with_replacement, product
from math import comb, prod

from csp_embed.serving.instance import Instance

ALL = 64  # combinations up to which every one is looked at
CHANGES = 48  # combinations looked at where there are more
WAYS = 200  # ways to divide one box that are listed at most

Parts = tuple[tuple[int, ...], ...]  # machines used of every box


@dataclass(frozen=True)
class _Kind:
    """Boxes that look alike. boxes: machines of each, in the same order; ways: positions in that
    order that may be used together, none of which could be enlarged."""

    boxes: tuple[tuple[int, ...], ...]
    ways: tuple[tuple[int, ...], ...]

    @property
    def total(self) -> int:
        """Ways to divide all its boxes."""
        return comb(len(self.boxes) + len(self.ways) - 1, len(self.ways) - 1)


def best_part(
    instance: Instance, tried: Callable[[list[int]], float], late: Callable[[], bool]
) -> None:
    """Calls `tried` with sets of machines that exclude nobody; it returns how good they are.

    All sets where there are few; else every box of a kind alike, then one box changed at a time."""
    kinds = _kinds(instance)
    # Few combinations: all of them.
    if prod(k.total for k in kinds) <= ALL:
        for machines in _every(kinds):
            if late():
                return
            tried(machines)
        return
    best, score = None, float("-inf")
    # All boxes of a kind alike to begin with.
    alike = sorted({k for k in range(max(len(k.ways) for k in kinds))})
    for at in alike:
        choice = [[min(at, len(k.ways) - 1)] * len(k.boxes) for k in kinds]
        if late():
            return
        value = tried(_machines(kinds, choice))
        if value > score:
            best, score = choice, value
    left, improved = CHANGES, True
    while improved and best is not None:
        improved = False
        for changed in list(_neighbours(kinds, best)):
            # Counted: each one is a whole search.
            if late() or left <= 0:
                return
            left -= 1
            value = tried(_machines(kinds, changed))
            if value > score:
                best, score, improved = changed, value, True
                # From the better one on: its neighbours are others.
                break


def _neighbours(kinds: Sequence[_Kind], choice: list[list[int]]) -> Iterator[list[list[int]]]:
    for q, kind in enumerate(kinds):
        # Boxes in the same way are interchangeable: one of them is changed.
        for now in sorted(set(choice[q])):
            for way in range(len(kind.ways)):
                if way != now:
                    changed = [list(row) for row in choice]
                    changed[q][changed[q].index(now)] = way
                    yield changed


def _every(kinds: Sequence[_Kind]) -> Iterator[list[int]]:
    # With replacement: which box of a kind has which way does not matter.
    rows = [list(combinations_with_replacement(range(len(k.ways)), len(k.boxes))) for k in kinds]
    for choice in product(*rows):
        yield _machines(kinds, [list(row) for row in choice])


def _machines(kinds: Sequence[_Kind], choice: Sequence[Sequence[int]]) -> list[int]:
    found = []
    for kind, row in zip(kinds, choice, strict=True):
        for box, way in zip(kind.boxes, row, strict=True):
            found += [box[x] for x in kind.ways[way]]
    return sorted(found)


def _kinds(instance: Instance) -> list[_Kind]:
    assert instance.devices is not None
    groups: dict[tuple[object, ...], list[tuple[int, ...]]] = {}
    for box in _boxes(instance):
        groups.setdefault(_look(instance, box), []).append(tuple(box))
    return [_Kind(tuple(boxes), tuple(_ways(instance, boxes[0]))) for boxes in groups.values()]


def _boxes(instance: Instance) -> list[list[int]]:
    """Machines joined by devices that they share, in the order of the file."""
    assert instance.devices is not None
    # Union-find: boxes are what shared devices join.
    owner: dict[str, int] = {}
    label = list(range(instance.size))

    def root(i: int) -> int:
        while label[i] != i:
            i = label[i]
        return i

    for i, devices in enumerate(instance.devices):
        for name in devices:
            # A device that two machines name joins them.
            label[root(i)] = root(owner.setdefault(name, i))
    found: dict[int, list[int]] = {}
    for i in range(instance.size):
        found.setdefault(root(i), []).append(i)
    return list(found.values())


def _look(instance: Instance, box: Sequence[int]) -> tuple[object, ...]:
    """What two boxes must have in common to take each other's place."""
    assert instance.devices is not None
    # Names replaced by numbers in order of first use: boxes differ in names only.
    names: dict[str, int] = {}
    shape = tuple(tuple(names.setdefault(d, len(names)) for d in instance.devices[i]) for i in box)
    kinds = tuple(int(instance.kind[i]) for i in box)
    inside = set(box)
    links = tuple(
        # Sorted capacities to the outside: which machine is where does not matter.
        tuple(sorted(float(c) for j, c in enumerate(row) if j not in inside))
        for i in box
        for row in (instance.link[i], instance.link[:, i])
    )
    ends = tuple((float(instance.start[i]), float(instance.end[i])) for i in box)
    return shape, kinds, links, ends


def _ways(instance: Instance, box: Sequence[int]) -> list[tuple[int, ...]]:
    """Sets of machines (positions in the box) without a common device that cannot be enlarged; of
    sets with the same types, the first."""
    assert instance.devices is not None
    taken = [set(instance.devices[i]) for i in box]
    found: dict[tuple[int, ...], tuple[int, ...]] = {}
    # Devices in the order of the machines that use them.
    order = sorted({d for t in taken for d in t}, key=lambda d: min(
        x for x, t in enumerate(taken) if d in t))  # fmt: skip
    stack: list[tuple[int, tuple[int, ...], frozenset[str]]] = [(0, (), frozenset())]
    steps = 0
    while stack and len(found) < WAYS and steps < 100_000:
        steps += 1
        at, chosen, used = stack.pop()
        # A device that a chosen machine has taken.
        while at < len(order) and order[at] in used:
            at += 1
        if at == len(order):
            # No machine could be added: sets that could be enlarged are never better.
            if all(x in chosen or taken[x] & used for x in range(len(box))):
                # By types: which GPU a machine has does not matter for its rate.
                types = tuple(sorted(int(instance.kind[box[x]]) for x in chosen))
                found.setdefault(types, tuple(sorted(chosen)))
            continue
        stack.append((at + 1, chosen, used))  # this device stays free
        for x in reversed(range(len(box))):
            if order[at] in taken[x] and not taken[x] & used:
                stack.append((at + 1, (*chosen, x), used | taken[x]))
    return list(found.values())
