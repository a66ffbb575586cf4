"""Runs of values as data: loops over a packed operand, the copy it is read from, streams, results.

`streams.py` finds them in a `Place`; `moves.py` makes C of them, `price.py` weighs them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Walk:
    """A loop over a place's values. step: in the buffer; index: what it adds to each tensor index;
    fused: to the fused coordinate. grid: its grid dimension, or -1 for a digit of the lanes."""

    extent: int
    first: int
    step: int
    index: tuple[int, ...]
    fused: int
    grid: int


@dataclass(frozen=True)
class Margin:
    """What is read: the tensor, or a copy of it with a margin. low: first index of each dimension;
    shape: extents; size: of the tensor. phases: the last dimension of the copy lies as so many
    rows, one for each remainder. every: of each dimension, the distance of indices that are in it.
    copied: whether there is a copy; zeros: how many stand behind it."""

    low: tuple[int, ...]
    shape: tuple[int, ...]
    size: tuple[int, ...]
    phases: int = 1
    copied: bool = False
    zeros: int = 0
    every: tuple[int, ...] = ()

    @property
    def width(self) -> int:
        """Of a phase of the last dimension."""
        # Rounded up: phases at the end may lack an element.
        return -(-self.shape[-1] // self.phases)

    @property
    def strides(self) -> tuple[int, ...]:
        """Values from one index to the next; in the last dimension from one phase to itself."""
        out, step = [1], self.width * self.phases
        for n in reversed(self.shape[:-1]):
            out.append(step)
            # Without the innermost, which steps by 1 within its phase.
            step *= n
        return (*reversed(out[1:]), 1) if len(self.shape) > 1 else (1,)

    @property
    def elements(self) -> int:
        """Of the copy, with the zeros behind it."""
        return self.width * self.phases * math.prod(self.shape[:-1]) + self.zeros

    def at(self, index: Sequence[int]) -> int:
        """Where an index of the tensor stands."""
        *outer, last = (i - low for i, low in zip(index, self.low, strict=True))
        # The remainder says the phase, the quotient the place in it.
        place = last % self.phases * self.width + last // self.phases
        return place + self._outer(outer)

    def _outer(self, index: Sequence[int]) -> int:
        every = self.every or (1,) * len(self.size)
        return sum(i // e * s for i, e, s in zip(index, every, self.strides, strict=False))

    def moved(self, index: Sequence[int]) -> int:
        """What whole steps of a loop move; in the last dimension they are multiples of phases."""
        # Only whole phases: else the place would depend on where the loop stands.
        assert index[-1] % self.phases == 0
        return self._outer(index[:-1]) + index[-1] // self.phases


@dataclass(frozen=True)
class Around:
    """A loop around runs, from 0 on. step, source: what it moves in the buffer and in what is read;
    fused: in the table of offsets; left: how many fewer lanes it leaves."""

    extent: int
    step: int
    source: int
    fused: int = 0
    left: int = 0


@dataclass(frozen=True)
class Streams:
    """kind: "zip" (four streams become words), "copy" (words side by side on both sides) or "words"
    (streams of words side by side). source: what is read. run: (extent, step in the buffer).
    at: where the first values lie in what is read, and in the table. lanes: zip: of each stream
    (offset, offset in the table), None where it has no data; words: (values from one stream to
    the next, streams). table: offsets by fused coordinate, NONE where there is no data. left:
    of words, streams that exist at the beginning where that differs, else None. fills: whether
    lanes of the buffer stay unwritten."""

    kind: str
    source: Margin
    around: tuple[Around, ...]
    run: tuple[int, int]
    at: tuple[int, int]
    lanes: tuple[tuple[int, int] | None, ...]
    table: tuple[int, ...] = ()
    left: int | None = None
    fills: bool = False


@dataclass(frozen=True)
class Results:
    """lanes: where each goes in the tensor, from the first on. run: (extent, step in the buffer).
    at: where the first value goes; left: as in `Streams`."""

    around: tuple[Around, ...]
    run: tuple[int, int]
    at: int
    lanes: tuple[int, ...]
    left: int | None
