"""Points of an operator that exist, and elements that they read: counted by enumeration.

A point exists where every index is inside its tensor. Whether an index is, depends on the axes that
it names alone; so axes fall into groups that no index ties together, and the counts of groups
multiply. Bounds and judges count here, builders by `ir.affine`: no mistake agrees with itself.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.ir.operator import Access, Operator

# Points of the axes that some index ties together; above, counting them would take seconds.
COUNTED_POINTS = 1 << 27
# Points of one array.
ARRAY_POINTS = 1 << 22


def useful_points(op: Operator) -> int | None:
    """The operator's points without those that read padding or have no element of the result.

    None where indices tie axes to each other in more points than `COUNTED_POINTS`.
    """
    counts = points_of_outputs(op)
    return None if counts is None else sum(points * outputs for points, outputs in counts.items())


def points_of_outputs(op: Operator) -> Mapping[int, int] | None:
    """Points that exist of one output -> outputs that have so many; None as `useful_points`.

    Counted exactly: whether an index is inside depends on the axes that it names alone, so the
    counts of groups of axes that no index ties together multiply. Points of the output axes that
    are no element of the result count as outputs without points.
    """
    return _points(tuple(op.axes.items()), frozenset(op.out_axes), _tests(op))


def elements_met(op: Operator, access: Access) -> int | None:
    """Elements of the tensor that points that exist read through this access; None as
    `useful_points`."""
    # A constant index adds no element.
    moving = tuple(
        (ix.terms, ix.const, size)
        for ix, size in zip(access.index, op.tensors[access.tensor].shape, strict=True)
        if ix.terms
    )
    return _elements(tuple(op.axes.items()), moving, _tests(op))


Test = tuple[tuple[tuple[str, int], ...], int, int]
"""An index' terms and constant, and the extent that it must be inside."""

Axes = tuple[tuple[str, int], ...]


def _tests(op: Operator) -> tuple[Test, ...]:
    accesses = [a for a in (op.out, op.lhs, op.rhs) if a is not None]
    # A constant index ties no axes.
    return tuple(
        (ix.terms, ix.const, size)
        for access in accesses
        for ix, size in zip(access.index, op.tensors[access.tensor].shape, strict=True)
        if ix.terms
    )


@lru_cache(maxsize=256)
def _points(axes: Axes, outs: frozenset[str], tests: tuple[Test, ...]) -> Mapping[int, int] | None:
    """The counts over the box of axes."""
    extents = dict(axes)
    # Most indices stay inside whatever the axes are, and tie none.
    tests = tuple(t for t in tests if _leaves(extents, t))
    groups = _groups(extents, tests)
    if groups is None:
        return None
    # Axes in no group take all their values, whatever the others are.
    free = [a for a, _ in axes if not any(a in g for g in groups)]
    counts = {
        prod(extents[a] for a in free if a not in outs): prod(extents[a] for a in free if a in outs)
    }
    for group in groups:
        values, times = np.unique(_inside(extents, group, outs, tests), return_counts=True)
        found = zip(values.tolist(), times.tolist(), strict=True)
        joint: dict[int, int] = {}
        for (p, n), (v, t) in itertools.product(counts.items(), found):
            joint[p * v] = joint.get(p * v, 0) + n * t
        counts = joint
    return counts


@lru_cache(maxsize=256)
def _elements(axes: Axes, moving: tuple[Test, ...], tests: tuple[Test, ...]) -> int | None:
    """Values that the indices `moving` take together, at points that pass the tests."""
    extents = dict(axes)
    tests = tuple(t for t in tests if _leaves(extents, t))
    groups = _groups(extents, (*tests, *moving))
    if groups is None:
        return None
    total = 1
    for group in groups:
        mine = [ix for ix in moving if ix[0][0][0] in group]
        seen = np.zeros([size for *_, size in mine], np.bool_)
        for grids, good in _slices(extents, group, tests):
            at = [np.broadcast_to(_at(ix, grids), good.shape)[good] for ix in mine]
            # A group without an index of this tensor only says whether there is a point.
            seen[tuple(at)] = True if mine else seen | good.any()
        total *= int(np.count_nonzero(seen))
    return total


def _leaves(extents: Mapping[str, int], test: Test) -> bool:
    """Whether some point of the box takes the index out of its extent."""
    terms, const, size = test
    ends = [c * (extents[a] - 1) for a, c in terms]
    # A sum of independent terms is least, and greatest, where each is.
    return const + sum(min(e, 0) for e in ends) < 0 or const + sum(max(e, 0) for e in ends) >= size


def _groups(extents: Mapping[str, int], indices: Iterable[Test]) -> list[set[str]] | None:
    """Axes that these indices tie together; None where counting one would take too long."""
    groups: list[set[str]] = []
    for terms, _, _ in indices:
        joined = {a for a, _ in terms}
        apart = [g for g in groups if not g & joined]
        groups = [*apart, joined.union(*(g for g in groups if g & joined))]
    # Counting is by enumeration, so it has an end.
    long = any(prod(extents[a] for a in g) > COUNTED_POINTS for g in groups)
    return None if long else groups


Grids = Mapping[str, NDArray[Any]]


def _slices(
    extents: Mapping[str, int], group: set[str], tests: tuple[Test, ...]
) -> Iterator[tuple[Grids, NDArray[np.bool_]]]:
    """The group's points, a value of its first axis after the other where they are many: values of
    the axes as open grids, in the order of `_order`, and which of the points pass the tests."""
    axes = _order(extents, group)
    shape = [extents[a] for a in axes]
    # The shortest axis is walked, the others are one array.
    many = prod(shape) > ARRAY_POINTS
    mine = [t for t in tests if {a for a, _ in t[0]} <= group]
    for part in range(shape[0]) if many else [None]:
        grids = dict(zip(axes, np.ogrid[tuple(slice(n) for n in shape)], strict=True))
        if part is not None:
            grids[axes[0]] = grids[axes[0]][part : part + 1]
        good: Any = np.ones([g.size for g in grids.values()], np.bool_)
        for test in mine:
            at = _at(test, grids)
            good = good & (at >= 0) & (at < test[2])
        yield grids, good


def _order(extents: Mapping[str, int], group: set[str]) -> list[str]:
    """Sorted by name as well: the same array is walked in every run."""
    return sorted(group, key=lambda a: (extents[a], a))


def _at(index: Test, grids: Grids) -> Any:
    terms, const, _ = index
    return const + sum(c * grids[a] for a, c in terms)


def _inside(
    extents: Mapping[str, int], group: set[str], outs: frozenset[str], tests: tuple[Test, ...]
) -> NDArray[np.int64]:
    """For each point of the group's output axes, points that pass the tests."""
    axes = _order(extents, group)
    summed = tuple(n for n, a in enumerate(axes) if a not in outs)
    # Reduced axes are summed at once, so that no more is kept than there are outputs.
    parts = [
        np.sum(good, axis=summed, dtype=np.int64, keepdims=True)
        for _, good in _slices(extents, group, tests)
    ]
    found = np.concatenate(parts)
    return found if axes[0] in outs else found.sum(axis=0)
