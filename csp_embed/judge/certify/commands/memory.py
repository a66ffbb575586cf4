"""Rows, lanes of state and HOST that hold values of the field of P = 2^61 - 1 elements.

Takes: which item of HOST is which element (its random value), the file's other bytes.  Leaves:
reads and writes that refuse what does not exist, what was not written, and what is cut.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.jit import njit
from csp_embed.judge.certify.commands.points import Broken, Undecided
from csp_embed.judge.certify.field import P, Values, add, mul, plus

Ints = NDArray[np.int64]
TYPES = ("int8", "uint8", "int16", "int32")
# What a byte of HOST is: absent, a plain byte, the inside of an item, the first byte of one.
ABSENT, PLAIN, INSIDE, FIRST = 0, 1, 2, 3


@dataclass(frozen=True)
class Data:
    """Values at the random point, one for each point of a loop. low, high: bounds of the integers
    that they stand for. sums: whether they may have wrapped around at 32 bits. degree: in
    operands."""

    values: Values
    low: int
    high: int
    sums: bool = False
    degree: int = 1

    def times(self, other: Data) -> Data:
        """The product."""
        if self.sums or other.sums or self.degree + other.degree > 2:
            raise Undecided("a sum, or a product, is multiplied again")
        ends = [a * b for a in (self.low, self.high) for b in (other.low, other.high)]
        return Data(mul(self.values, other.values), min(ends), max(ends), False,
                    self.degree + other.degree)  # fmt: skip

    def plus(self, other: Data) -> Data:
        """The sum."""
        return Data(add(self.values, other.values), self.low + other.low, self.high + other.high,
                    self.sums or other.sums, max(self.degree, other.degree))  # fmt: skip


def constant(value: Any, count: int) -> Data:
    """Whole numbers."""
    numbers = np.broadcast_to(np.asarray(value, np.int64), count)
    return Data((numbers % P).astype(np.uint64), int(numbers.min(initial=0)),
                int(numbers.max(initial=0)), False, 0)  # fmt: skip


@njit(cache=True, nogil=True)
def _accumulate(cells: Values, at: Ints, values: Values) -> None:
    for k in range(len(at)):
        cells[at[k]] = plus(cells[at[k]], values[k])


class Cells:
    """A memory of rows, or lanes of state: `shape` cells of a type."""

    def __init__(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        self.name, self.shape, self.dtype = name, shape, dtype
        self.values = np.zeros(int(np.prod(shape, dtype=np.int64)), np.uint64)
        self.written = np.zeros(len(self.values), bool)
        info = np.iinfo(dtype)
        self.low, self.high = int(info.min), int(info.max)

    def at(self, index: tuple[Any, ...], count: int) -> Ints:
        """Cells by row and lane, or by lanes. Raises: Broken outside."""
        flat: Any = 0
        for place, size in zip(index, self.shape, strict=True):
            line = np.asarray(place)
            if line.size and (line.min() < 0 or line.max() >= size):
                worst = int(line.min() if line.min() < 0 else line.max())
                raise Broken(f"{self.name} has {size} rows or lanes, and {worst} is named")
            flat = flat * size + line
        return np.broadcast_to(flat, count)

    def read(self, at: Ints) -> Data:
        if not self.written[at].all():
            raise Broken(f"{self.name} is read where nothing was written")
        wide = self.dtype == "int32"
        return Data(self.values[at], self.low, self.high, wide)

    def _fits(self, data: Data) -> None:
        # int32 wraps around, as the formula's sums do; narrower cells would cut a value.
        if self.dtype != "int32" and (data.sums or data.low < self.low or data.high > self.high):
            raise Undecided(f"{self.name} of {self.dtype} gets values that it may not hold")

    def write(self, at: Ints, data: Data) -> None:
        self._fits(data)
        self.values[at] = data.values
        self.written[at] = True

    def accumulate(self, at: Ints, data: Data) -> None:
        if self.dtype != "int32":
            raise Undecided(f"{self.name} of {self.dtype} is added to")
        if data.sums:
            raise Undecided("sums are added to sums")
        if not self.written[at].all():
            raise Broken(f"{self.name} is added to where nothing was written")
        _accumulate(self.values, np.ascontiguousarray(at), np.ascontiguousarray(data.values))


class Host:
    """Bytes of HOST. Items that claims name hold random values; every other byte is itself."""

    def __init__(self, before: Iterable[tuple[int, NDArray[np.uint8]]]) -> None:
        ranges = list(before)
        self.low = min((a for a, _ in ranges), default=0)
        size = max((a + len(d) for a, d in ranges), default=self.low) - self.low
        self.kind = np.zeros(size, np.uint8)
        self.bytes = np.zeros(size, np.uint8)
        self.values = np.zeros(size, np.uint64)
        # Number of the store that wrote a byte last; -1: none did.
        self.owner = np.full(size, -1, np.int64)
        self.stores: list[tuple[Ints, Values, int, int]] = []
        self.count = 0
        for address, data in ranges:
            span = slice(address - self.low, address - self.low + len(data))
            self.kind[span], self.bytes[span] = PLAIN, data

    def claim(self, address: int, dtype: str, which: NDArray[np.bool_], values: Values) -> None:
        """Items from `address` on; those that `which` names hold values. Raises: Broken."""
        size = np.dtype(dtype).itemsize
        at = address - self.low + size * np.flatnonzero(which)
        every = at[:, None] + np.arange(size)
        if every.size and (every.min() < 0 or every.max() >= len(self.kind)
                           or (self.kind[every] != PLAIN).any()):  # fmt: skip
            raise Broken(f"a claim at {address:#x} names bytes that the file does not have")
        self.kind[every] = INSIDE
        self.kind[at] = FIRST + TYPES.index(dtype)
        self.values[at] = values[which]

    def _index(self, address: Any, count: int, size: int) -> Ints:
        at = np.broadcast_to(np.asarray(address, np.int64), count) - self.low
        bad = (at < 0) | (at + size > len(self.kind))
        if not bad.any():
            bad = (self.kind[at[:, None] + np.arange(size)] == ABSENT).any(axis=1)
        if bad.any():
            raise Broken(f"HOST address {int(at[bad][0]) + self.low:#x} does not exist")
        return at

    def read(self, dtype: str, address: Any, count: int) -> Data:
        size, info = np.dtype(dtype).itemsize, np.iinfo(dtype)
        at = self._index(address, count, size)
        every = at[:, None] + np.arange(size)
        if (self.owner[every] >= 0).any():
            raise Broken("a command reads from HOST what the stream has stored")
        item = self.kind[at] == FIRST + TYPES.index(dtype)
        plain = (self.kind[every] == PLAIN).all(axis=1)
        if not (item | plain).all():
            first = int(at[~(item | plain)][0]) + self.low
            raise Broken(f"{dtype} at HOST {first:#x} is no item of an operand")
        raw = np.ascontiguousarray(self.bytes[every]).view(np.dtype(dtype).newbyteorder("<"))
        numbers = (raw[:, 0].astype(np.int64) % P).astype(np.uint64)
        return Data(np.where(item, self.values[at], numbers), int(info.min), int(info.max))

    def store(self, dtype: str, address: Any, data: Data, function: int, count: int) -> None:
        """An item; what stands there is `function` of the data."""
        size = np.dtype(dtype).itemsize
        at = self._index(address, count, size)
        numbers = self.count + np.arange(count)
        self.count += count
        for k in range(size):
            self.owner[at + k] = numbers
        self.stores.append((at, np.broadcast_to(data.values, count), function, size))
