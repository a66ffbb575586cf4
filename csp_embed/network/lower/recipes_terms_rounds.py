"""What was chosen for the recipe `terms`, as rounds: see recipes_terms.py."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from csp_embed.network.lower.recipe import Recipe, Search, Steps
from csp_embed.network.lower.thresholds import Ints

# As in recipes_points.py, and then back to -1 or 0.
TELL: Steps = (("max", 0), ("min", 2), ("shr", -31), ("shr", 31))
# Minus 1 or 0, of which a limit by channel leaves its step.
STEP: Steps = (("shr", -30), ("max_lanes", 0))


@dataclass(frozen=True, eq=False)
class Factor:
    """odd, bits: by channel the factor odd / 2^bits; terms: additions and one that make it."""

    odd: Ints
    bits: Ints
    terms: int

    @classmethod
    def of(cls, factor: Ints, bits: int, terms: int) -> Factor:
        zeros = np.bitwise_count((factor & -factor) - 1).astype(np.int64)
        return cls(factor >> zeros, bits - zeros, terms)

    @property
    def pads(self) -> Ints:
        """Terms beyond its ones: its last one 2^n is written as 2^(n-1) + 2^(n-1), and so on."""
        return self.terms - np.bitwise_count(self.odd).astype(np.int64)

    @property
    def pads_and_bits(self) -> Ints:
        """By how many bits all of its shifts together move the first term."""
        return self.bits + self.pads

    def shifts(self) -> list[Ints]:
        """By term but the last the shift after it."""
        pads = self.pads
        out: list[Ints] = []
        place = np.zeros_like(self.odd)
        # Its last one is taken apart into the terms at 0, 0, 1, ... pads - 1.
        rest = self.odd & (self.odd - 1)
        for n in range(1, self.terms):
            lowest = np.bitwise_count((rest & -rest) - 1).astype(np.int64) + pads
            following = np.where(n <= pads, n - 1, lowest)
            rest = np.where(n <= pads, rest, rest & (rest - 1))
            out.append(following - place)
            place = following
        assert (place == self.pads_and_bits).all()
        return out


@dataclass(frozen=True, eq=False)
class Chosen:
    """By channel: a sum v becomes ((v << room) * first) * second, rounded down twice, plus
    constant, less step where it is told to, >> amount. near: added to that product, whose last bit
    behind the amount is then odd or even as the level that comes next."""

    first: Factor
    second: Factor
    amount: Ints
    constant: Ints
    step: Ints
    near: Ints

    @classmethod
    def none(cls, size: int, ones: tuple[int, int]) -> Chosen:
        empty = np.zeros(size, np.int64)
        first, second = (Factor(empty, empty, n) for n in ones)
        return cls(first, second, empty, empty, empty, empty)

    def _columns(self) -> tuple[Ints, ...]:
        a, b = self.first, self.second
        return a.odd, a.bits, b.odd, b.bits, self.amount, self.constant, self.step, self.near

    def _of(self, columns: list[Ints]) -> Chosen:
        a, b = columns[:2], columns[2:4]
        return Chosen(Factor(a[0], a[1], self.first.terms), Factor(b[0], b[1], self.second.terms),
                      *columns[4:])  # fmt: skip

    def rows(self, at: Ints) -> Chosen:
        return self._of([v[at] for v in self._columns()])

    def with_rows(self, at: Ints, other: Chosen) -> Chosen:
        """This one, with another's channels at some places."""
        columns = [v.copy() for v in self._columns()]
        for mine, theirs in zip(columns, other._columns(), strict=True):
            mine[at] = theirs
        return self._of(columns)

    def value(self, sums: Ints, room: int) -> Ints:
        """Before constants and the last shift."""
        one = ((sums << room) * self.first.odd[:, None]) >> self.first.bits[:, None]
        return (one * self.second.odd[:, None]) >> self.second.bits[:, None]


def rounds_of(
    task: Search, live: Ints, room: int, chosen: Chosen, hits: Ints, floors: Ints | None,
    ceilings: Ints | None, kind: Literal["one", "sign", "odd"],
) -> Recipe | None:  # fmt: skip
    """The recipe; None where a constant is no int32, or a round would need two limits. hits: [n,
    live channels]; floors, ceilings: by live channel, to which sums are clipped."""
    if (np.abs(chosen.constant) >> 31).any() or (np.abs(chosen.near) >> 31).any():
        return None
    if floors is not None and chosen.first.terms == 1 and kind == "sign":
        return None
    rounds = _Rounds(task, live)
    if floors is not None and ceilings is not None:
        rounds.clip(floors, ceilings)
    last = np.zeros(live.size, np.int64)
    for n, row in enumerate(hits):
        # Only what no clip changes may be counted from the hit: it begins a round of its own.
        if n == 0 and floors is not None:
            rounds.keep()
            rounds.zero()
        rounds.offset(1 - row - last)
        last = 1 - row
        rounds.keep()
        rounds.steps(TELL)
        rounds.new()
    rounds.offset(-last)
    rounds.steps((("shr", -room),) if room else ())
    rounds.keep()
    for shift in chosen.first.shifts():
        rounds.shift(shift)
        rounds.new()
    if chosen.second.terms > 1 or kind != "one":
        rounds.keep()
    tells = None
    lost = -(chosen.step << chosen.second.pads_and_bits)
    if kind == "odd":
        for shift in chosen.second.shifts():
            rounds.shift(shift)
            rounds.new()
        rounds.offset(chosen.near)
        rounds.shift(chosen.amount)
        tells = rounds.here
        rounds.steps((("shr", -31), ("shr", 31), *STEP), lost)
        rounds.new()
    elif kind == "sign":
        rounds.steps((("shr", 31), *STEP), lost)
        rounds.new()
    for shift in chosen.second.shifts():
        rounds.shift(shift)
        rounds.new()
    rounds.offset(chosen.constant)
    made = rounds.recipe(chosen.amount)
    return replace(made, tells=tells, hits=rounds.wide(hits.T, 0).T if len(hits) else None)


class _Rounds:
    """Rounds that are written one after the other. Values are by live channel."""

    def __init__(self, task: Search, live: Ints) -> None:
        self._task, self._live = task, live
        self._offsets: list[Ints] = []
        self._between: list[list[tuple[str, int]]] = []
        self._columns: dict[str, list[Ints | None]] = {
            name: [] for name in ("lanes", "ceilings", "shifts")
        }
        self._kept: list[tuple[int, int]] = []
        self.new()

    def wide(self, values: Ints, rest: int | None = None) -> Ints:
        """Of all channels; those of one value take what the first one does, so that steps that are
        alike stay so."""
        out = np.empty((self._task.live.size, *values.shape[1:]), np.int64)
        out[:] = values[0] if rest is None else rest
        out[self._live] = values
        return out

    @property
    def here(self) -> tuple[int, int]:
        return len(self._between) - 1, len(self._between[-1])

    def new(self) -> None:
        self._offsets.append(np.zeros(self._task.live.size, np.int64))
        self._between.append([])
        for column in self._columns.values():
            column.append(None)

    def offset(self, values: Ints) -> None:
        self._offsets[-1] = self.wide(values, 0)

    def keep(self) -> None:
        self._kept.append(self.here)

    def zero(self) -> None:
        """Ends a round whose steps leave nothing but what is kept: 0."""
        self.steps((("max", 0), ("min", 0)))
        self.new()

    def steps(self, steps: Steps, lanes: Ints | None = None) -> None:
        self._between[-1] += steps
        if lanes is not None:
            self._columns["lanes"][-1] = self.wide(lanes, 0)

    def clip(self, low: Ints, high: Ints) -> None:
        self._between[-1] += [("max_lanes", 0), ("min_lanes", 0)]
        self._columns["lanes"][-1] = self.wide(low, 0)
        self._columns["ceilings"][-1] = self.wide(high, 0)

    def shift(self, by: Ints) -> None:
        if (by == by[0]).all():
            self._between[-1] += [("shr", int(by[0]))] if by[0] else []
        else:
            self._between[-1].append(("shr_lanes", 0))
            self._columns["shifts"][-1] = self.wide(by)

    def recipe(self, amount: Ints) -> Recipe:
        size = self._task.live.size
        between = tuple(map(tuple, self._between[:-1]))
        made = self._task.recipe(
            "terms", np.ones(size, np.int64), tuple(self._offsets), between, self.wide(amount)
        )
        # Only tensors that a step reads are there.
        some = {
            name: tuple(column[:-1]) if any(v is not None for v in column) else ()
            for name, column in self._columns.items()
        }
        rule = self._task.rule
        return replace(made, kept=tuple(self._kept), ends=(rule.low, rule.high), **some)
