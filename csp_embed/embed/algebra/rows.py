"""Rows: each index of an operand as an affine function of counters and lane digits.

Takes: an access, its tensor's shape and the coordinates in digits that the operand has.
Leaves: one `Row` per tensor index, one per fused or range-checked coordinate.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from csp_embed.ir.affine import reach
from csp_embed.ir.embedding import Coordinate
from csp_embed.ir.operator import Access


class Reject(Exception):
    """This choice breaks a rule; `family` is the constraint family that names it."""

    def __init__(self, family: str, why: str) -> None:
        super().__init__(f"{family}: {why}")
        self.family, self.why = family, why


@dataclass
class Row:
    """const + digits + counters + virtual, valid in [0, size).

    virtual: (coefficient, extent) of axes that a fused coordinate enumerates: they act like digits
    that take each of their values once.
    """

    size: int
    const: int
    # Made by the thousand: a lambda is three times as quick as the call of dict[str, int].
    digits: dict[str, int] = field(default_factory=lambda: {})
    counters: dict[str, int] = field(default_factory=lambda: {})
    virtual: list[tuple[str, int, int]] = field(default_factory=lambda: [])

    def add(self, coordinate: Coordinate, coef: int) -> None:
        """Adds coef * coordinate."""
        self.const += coef * coordinate.const
        _accumulate(self.digits, coordinate.digits, coef)
        _accumulate(self.counters, coordinate.counters, coef)

    def reach(self, extents: Mapping[str, int]) -> tuple[int, int]:
        """Least and greatest value of the digits' and virtual digits' part."""
        parts = [(c, extents[d]) for d, c in self.digits.items()]
        return reach([*parts, *((c, n) for _, c, n in self.virtual)])


def _accumulate(target: dict[str, int], source: Mapping[str, int], coef: int) -> None:
    for name, c in source.items():
        target[name] = target.get(name, 0) + coef * c
        # A coefficient of 0 would still count as a digit that moves the row, and tie rows together.
        if not target[name]:
            del target[name]


def sums(parts: Iterable[tuple[int, int]]) -> list[int]:
    """All values of sum coefficient * v, v in 0..extent-1, with repetitions, sorted."""
    values = [0]
    # Repetitions stay: how often a value stands says whether an element has two homes.
    for coef, extent in parts:
        values = [v + coef * n for n in range(extent) for v in values]
    return sorted(values)


def is_plain(coordinate: Coordinate) -> bool:
    return len(coordinate.axes) == 1


def tensor_rows(
    access: Access,
    shape: Sequence[int],
    coordinates: Sequence[Coordinate],
    axes: Mapping[str, int],
) -> list[Row]:
    """One row per tensor index; the axes of fused coordinates come in as virtual digits."""
    rows: list[Row] = []
    for size, ix in zip(shape, access.index, strict=True):
        row = Row(size, ix.const)
        for c in coordinates:
            for axis in c.axes:
                # The axis moves this index through its coordinate, times its coefficient in the
                # formula.
                if not ix.coef(axis):
                    continue
                if is_plain(c):
                    row.add(c, ix.coef(axis))
                else:
                    row.virtual.append((axis, ix.coef(axis), axes[axis]))
        rows.append(row)
    return rows


def coordinate_row(c: Coordinate) -> Row:
    """A fused or range-checked coordinate as a row of its own."""
    return Row(c.extent, c.const, dict(c.digits), dict(c.counters))


def reads(access: Access, coordinate: Coordinate) -> bool:
    return any(ix.coef(a) for ix in access.index for a in coordinate.axes)
