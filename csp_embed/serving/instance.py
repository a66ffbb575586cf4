"""A placement instance as values: machines with throughput tables, links, a coordinator.

Units: tokens/s everywhere (prompt and generated tokens counted alike); layers are counted from 0
and intervals are half open, [first, end).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Placement = Mapping[int, tuple[int, int]]  # position of the machine -> [first, end)


@dataclass(frozen=True)
class MachineType:
    """table[k-1]: tokens/s with k layers held, for k up to the most that fit. origin: "table" or
    "roofline"."""

    name: str
    table: tuple[float, ...]
    origin: str = "table"


@dataclass(frozen=True)
class Instance:
    """machines: ids as written in the file. kind[i]: position in `types`. link[i, j], start[i],
    end[i]: tokens/s of the links between machines, from and to the coordinator; 0 = no link.
    price[i]: of using machine i for an hour; None where the file states no prices."""

    name: str
    layers: int
    types: tuple[MachineType, ...]
    machines: tuple[str, ...]
    kind: Ints
    link: Floats
    start: Floats
    end: Floats
    partial: bool = False
    price: Floats | None = None
    document: Mapping[str, Any] = field(default_factory=dict, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Number of machines."""
        return len(self.machines)

    def table(self, i: int) -> tuple[float, ...]:
        """Machine i's tokens/s by layers held."""
        return self.types[int(self.kind[i])].table

    def rate(self, i: int, interval: tuple[int, int]) -> float:
        """What machine i sustains with an interval."""
        return self.table(i)[interval[1] - interval[0] - 1]

    def reachable_tables(self) -> list[tuple[float, ...]]:
        """Each machine's table, cut to what its links can bring in and take away in total.

        No flow through a machine exceeds that, so bounds may use it in place of the table; a
        machine without a link in or out gets zeros."""
        into = self.link.sum(axis=0) + self.start
        out_of = self.link.sum(axis=1) + self.end
        limit = np.minimum(into, out_of) * (1 + 1e-12)  # sums of floats may be rounded down
        tables = []
        for i in range(self.size):
            table = self.table(i)
            if limit[i] >= max(table):
                tables.append(table)
            else:
                tables.append(tuple(min(t, float(limit[i])) for t in table))
        return tables


def exact(value: float) -> Fraction:
    """The rational number that a float is."""
    return Fraction(value)
