"""A placement instance as values: machines with throughput tables, links, a coordinator.

Units: tokens/s everywhere (prompt and generated tokens counted alike); layers are counted from 0
and intervals are half open, [first, end).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
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
class Phases:
    """Prompts (prefill) and generated tokens (decode), where they are told apart.

    prompt, output: mean tokens of a request. prefill, decode: tokens/s by type and layers held, of
    a machine that does nothing else. step: seconds of one decode step, likewise; a step passes
    decode * step tokens on. cache: what the cache of one token in one layer weighs on a link, in
    activations; None = unknown. split: the phases of a request may use different machines.
    first_s, token_s: limits on the time to the first token and per further token.
    """

    prompt: float
    output: float
    prefill: tuple[tuple[float, ...], ...]
    decode: tuple[tuple[float, ...], ...]
    step: tuple[tuple[float, ...], ...]
    cache: float | None = None
    split: bool = False
    first_s: float = math.inf
    token_s: float = math.inf

    @property
    def tokens(self) -> float:
        """Tokens of a request."""
        return self.prompt + self.output

    @property
    def limits(self) -> bool:
        """Whether requests may not take any time they like."""
        return self.first_s < math.inf or self.token_s < math.inf

    @property
    def routed(self) -> bool:
        """Whether a plan must say which request goes where: the flow alone does not."""
        return self.split or self.limits


@dataclass(frozen=True)
class Instance:
    """machines: ids as written in the file. kind[i]: position in `types`. link[i, j], start[i],
    end[i]: tokens/s of the links between machines, from and to the coordinator; 0 = no link.
    price[i]: of using machine i for an hour; None where the file states no prices. phases: what the
    tables are made of; `types` have both phases together. batch: requests in a decode step.
    devices[i]: what machine i occupies; of machines that share a device a plan uses one. None =
    each its own."""

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
    phases: Phases | None = None
    batch: int = 1
    devices: tuple[tuple[str, ...], ...] | None = None
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
        # Layers held, not which: all layers are alike.
        return self.table(i)[interval[1] - interval[0] - 1]

    def reachable_tables(self) -> list[tuple[float, ...]]:
        """Each machine's table, cut to what its links can bring in and take away in total.

        No flow through a machine exceeds that, so bounds may use it in place of the table; a
        machine without a link in or out gets zeros."""
        # Sums of what may come in and go out; a bound, not a capacity.
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


def part_of(instance: Instance, kept: Sequence[int]) -> Instance:
    """The instance with these machines alone."""
    # Machines that stay keep their order: positions shift, names do not.
    at = np.array(kept, np.int64)
    return replace(
        instance,
        machines=tuple(instance.machines[i] for i in kept),
        kind=instance.kind[at],
        link=instance.link[np.ix_(at, at)],
        start=instance.start[at],
        end=instance.end[at],
        price=None if instance.price is None else instance.price[at],
        devices=None if instance.devices is None else tuple(instance.devices[i] for i in kept),
    )


@dataclass(frozen=True)
class Delays:
    """Seconds of latency of every link, as `Instance.link`, `start` and `end`."""

    link: Floats
    start: Floats
    end: Floats


def delays(instance: Instance) -> Delays:
    """Latencies as far as the document states them, else 0."""
    position = {name: i for i, name in enumerate(instance.machines)}
    n = instance.size
    # Arrays like the links': missing latencies are 0.
    found = Delays(np.zeros((n, n)), np.zeros(n), np.zeros(n))
    for row in instance.document.get("links", ()):
        a, b = position.get(str(row["from"])), position.get(str(row["to"]))
        # A part of an instance keeps the whole document; other machines are passed over.
        if a is not None and b is not None:
            found.link[a, b] = float(row.get("latency_s") or 0.0)
    ends = instance.document.get("coordinator", {})
    for key, side, target in (("to_nodes", "to", found.start), ("from_nodes", "from", found.end)):
        for row in ends.get(key, ()):
            if str(row[side]) in position:
                target[position[str(row[side])]] = float(row.get("latency_s") or 0.0)
    return found
