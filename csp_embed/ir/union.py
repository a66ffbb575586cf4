"""Sets that share a member, joined: the only union-find of the builders."""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import TypeVar

T = TypeVar("T", bound=Hashable)


def joined(sets: Iterable[set[T]]) -> list[set[T]]:
    """Disjoint unions of the sets, such that sets with a common member are in one of them.

    An empty set stays a union of its own. Groups are few and small everywhere: no ranks, no trees.

    >>> joined([{1, 2}, {3}, {2, 4}])
    [{3}, {1, 2, 4}]
    """
    groups: list[set[T]] = []
    for new in sets:
        touching = [g for g in groups if g & new]
        # Those that the new set touches become one with it, at the end; the order of the others
        # stays.
        groups = [g for g in groups if not g & new] + [new.union(*touching)]
    return groups
