"""Times and sizes as whole numbers, which is what CP-SAT counts in.

Takes: durations and sizes as they are.  Leaves: ticks and bytes, rounded so that what the model
proves of them holds of the problem.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction

from csp_embed.partition.times.exact import WIDTH

SAFE = 2**40  # ticks or bytes up to which sums of floats are right to less than one half
ROUNDING = 1e-12  # relative: more than sums of floats lose
MOST_TICKS = 2**60


class Scale:
    """Times in a Problem's unit as whole ticks, rounded down. exact: no duration is rounded."""

    def __init__(
        self, tick: Fraction | None, horizon: float, times: int, most: float,
        unit: Fraction = Fraction(1),
    ) -> None:  # fmt: skip
        """tick: ms of which every duration is a multiple, None where none is known. horizon: in
        `unit` ms, times: variables that reach so far, whose domains CP-SAT adds up in 64 bits;
        most: the largest sum of durations in the model."""
        span = Fraction((times + 3) * horizon + most) * unit
        self.exact = tick is not None and span <= tick * WIDTH
        if not self.exact or tick is None or not tick:
            # As fine as 64 bits can count: what a chain of roundings loses no double can tell.
            tick = span / WIDTH or Fraction(1)
        self.tick, self.factor = tick, float(unit / tick)

    def whole(self, ms: Fraction) -> int:
        """Ticks of a duration in ms, rounded down."""
        return ms // self.tick

    def down(self, time: float) -> int:
        """Ticks of a time that was added up in floats, rounded down."""
        ticks = time * self.factor
        if self.exact and ticks < SAFE:
            # Sums of multiples of a tick, off by less than a half: the nearest is the true one.
            return round(ticks)
        # Rounded down by more than floats lose, so that a bound stays a bound.
        return max(0, math.floor(ticks * (1 - ROUNDING)))

    def up(self, time: float) -> int:
        """Ticks, rounded up."""
        ticks = time * self.factor
        return round(ticks) if self.exact and ticks < SAFE else math.ceil(ticks * (1 + ROUNDING))

    def limit(self, time: float) -> int:
        """Ticks that a limit leaves: a limit that is a whole number of ticks is kept whole."""
        # Capped before rounding: CP-SAT counts in 64 bits, a limit may be any float.
        return math.floor(min(time * self.factor * (1 + ROUNDING) + 1e-6, float(MOST_TICKS)))

    def time(self, ticks: float) -> float:
        """Ticks in the Problem's unit."""
        return ticks / self.factor


def whole_sizes(sizes: Sequence[float], room: float) -> tuple[list[int], int]:
    """Bytes as integers with which nothing that fits is excluded: as they are where they are whole,
    else all rounded down alike."""
    total = float(sum(sizes))
    # Whole bytes as they are: nothing is lost.
    plain = total < SAFE and all(x == int(x) for x in sizes)
    part = 1.0 if plain else max(total, 1e-300) / 2**40
    # Rounding sizes down may let in what does not fit; the incumbent refuses it then.
    return [math.floor(x / part) for x in sizes], math.floor(min(room, total) / part)
