"""Runs streams of commands from their stated meanings alone: the oracle of what is emitted.

In program order. Every address is checked, and so is that nothing is read which was never written:
rows, lanes of state, numbers of state. `whole` does all points of a command's loops at once, which
is some hundred times faster than point by point.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import SimError
from csp_embed.machine.commands.code import Code, code_of
from csp_embed.machine.commands.code_lines import Names
from csp_embed.machine.commands.spec import CommandMachine
from csp_embed.machine.commands.words import Decoded, decode, line

Array = NDArray[Any]
# Room for a lane below a row in one key: rows have at most 4096 lanes (load.py).
_WIDE = 1 << 13  # beyond the lanes that a row may have
Ranges = Iterable[tuple[int, Array]]


class HostMemory:
    """Bytes by address; only those of the given ranges exist. They lie in one buffer."""

    def __init__(self, before: Ranges, after: Ranges = ()) -> None:
        before, after = list(before), list(after)
        spans = [(a, a + len(d)) for a, d in (*before, *after) if len(d)]
        # Addresses count from the lowest range: a whole address space would not fit.
        self.low = min((a for a, _ in spans), default=0)
        size = max((b for _, b in spans), default=self.low) - self.low
        self.bytes = np.zeros(size, np.uint8)
        self.known = np.zeros(size, bool)
        self.written = np.zeros(size, bool)
        # `after` first: what both name keeps the bytes of `before`.
        for a, d in (*after, *before):
            self.known[a - self.low : a - self.low + len(d)] = True
        for a, d in before:
            self.bytes[a - self.low : a - self.low + len(d)] = d

    def at(self, address: Any, size: int) -> Array:
        """Indices of the bytes of values. Raises: SimError for an address that does not exist."""
        # A value's bytes are the innermost axis, lowest first: machines here are little-endian.
        index = np.asarray(address)[..., None] - self.low + np.arange(size)
        if not index.size:
            return index
        # A place outside the array cannot be asked whether it is known.
        if index.min() < 0 or index.max() >= len(self.known):
            there = (index >= 0) & (index < len(self.known))
        else:
            there = self.known[index]
        if not there.all():
            bad = np.broadcast_to(np.asarray(address)[..., None], index.shape)
            raise SimError(f"HOST address {int(bad[~there][0]):#x} does not exist")
        return index

    def read(self, address: int, size: int) -> Array:
        return self.bytes[address - self.low : address - self.low + size]


def _low(value: int, dtype: np.dtype[Any]) -> int:
    """The low bits of a number, as a value of that type."""
    info = np.iinfo(dtype)
    # int64 wraps into the narrow type by dropping high bits, as the machines do.
    return value if info.min <= value <= info.max else int(np.int64(value).astype(dtype))


class Machine:
    """Memories, state and HOST of one machine; the names that `code` calls."""

    def __init__(self, machine: CommandMachine, dims: Mapping[str, int], host: HostMemory) -> None:
        self.machine, self.host = machine, host
        self.rows = {
            m.name: np.zeros((m.rows, m.lanes), m.dtype) for m in machine.memories.values()
        }
        self.arrays = {
            s.name: np.zeros([dims[d] for d in s.dims], s.dtype)
            for s in machine.state.values() if s.dims
        }  # fmt: skip
        # Nothing is 0 at the start: hardware has whatever an earlier program left there.
        self.written = {n: np.zeros(a.shape, bool) for n, a in (self.rows | self.arrays).items()}
        self.numbers: dict[str, Any] = {}

    def get(self, name: str) -> Any:
        if name not in self.numbers:
            raise SimError(f"{name} is read before a command has set it")
        return self.numbers[name]

    def set(self, name: str, value: Any) -> None:
        # float32 state (scales) must stay a NumPy float; int() would cut it.
        self.numbers[name] = value if isinstance(value, np.floating) else int(value)

    def unset(self, name: str) -> None:
        if name in self.arrays:
            self.written[name][...] = False
        else:
            self.numbers.pop(name, None)

    def _row(self, name: str, row: Any, lane: Any) -> tuple[Any, Any]:
        self._inside(name, ("row", "lane"), (row, lane), self.rows[name].shape)
        return row, lane

    def _lanes(self, name: str, at: tuple[Any, ...]) -> tuple[Any, ...]:
        shape = self.arrays[name].shape
        if len(at) != len(shape):
            raise SimError(f"{name} has {len(shape)} dimensions, and {len(at)} are named")
        self._inside(name, self.machine.state[name].dims, at, shape)
        return at

    def _inside(
        self, name: str, parts: Sequence[str], place: Sequence[Any], shape: Sequence[int]
    ) -> None:
        for what, at, size in zip(parts, place, shape, strict=True):
            # Single points come as plain ints, which have no min.
            if type(at) is int:
                least = most = at
            else:
                # No point at all (a guard that lets nothing through) is inside of everything.
                least, most = (at.min(), at.max()) if at.size else (0, 0)
            if least < 0 or most >= size:
                bad = int(least if least < 0 else most)
                # NumPy would count a negative index from the end and not complain.
                raise SimError(f"{what} {bad} is outside {name}, which has {size}")

    def _read(self, name: str, array: Array, at: tuple[Any, ...]) -> Any:
        # Read before written: the value would be one that the program does not decide.
        seen = self.written[name][at]
        if not seen.all():
            first = tuple(int(np.broadcast_to(a, np.shape(seen))[~seen][0]) if np.ndim(seen)
                          else int(a) for a in at)  # fmt: skip
            raise SimError(f"{name}{list(first)} is read, and nothing was written there")
        found = array[at]
        # Sums are reckoned wide, and cut once where they are written.
        return found.astype(np.int64) if np.ndim(found) else int(found)

    def apart(self, *at: Any) -> bool:
        """Whether no two points name one place. at: the parts of its index."""
        flat: Any = 0
        for x in at:
            # One number a place, so that one sort finds two points that meet.
            flat = flat * _WIDE + np.asarray(x)
        return len(np.unique(flat)) == np.size(flat)

    def read_row(self, name: str, row: Any, lane: Any) -> Any:
        # The fast path for single points; `_read` below finds out what is wrong.
        if type(row) is int and type(lane) is int:
            array = self.rows[name]
            if (
                0 <= row < len(array)
                and 0 <= lane < array.shape[1]
                and self.written[name][row, lane]
            ):
                return int(array[row, lane])
        return self._read(name, self.rows[name], self._row(name, row, lane))

    def read_lanes(self, name: str, at: tuple[Any, ...]) -> Any:
        at = self._lanes(name, at)
        if type(at[0]) is int and self.written[name][at].all():
            return int(self.arrays[name][at])
        return self._read(name, self.arrays[name], at)

    def read_host(self, dtype: str, address: Any) -> Any:
        kind = np.dtype(dtype)
        raw = self.host.bytes[self.host.at(address, kind.itemsize)]
        # Copied, as a gathered index has no layout that `view` could widen.
        found = np.ascontiguousarray(raw).view(kind.newbyteorder("<"))[..., 0].astype(np.int64)
        return found if np.ndim(address) else int(found)

    def _write(self, name: str, array: Array, at: tuple[Any, ...], value: Any) -> None:
        # Through int64: the cast of a float that a narrow type cannot hold is not defined.
        array[at] = np.asarray(value).astype(np.int64).astype(array.dtype)
        self.written[name][at] = True

    def write_row(self, name: str, row: Any, lane: Any, value: Any) -> None:
        if type(row) is int and type(lane) is int and type(value) is int:
            array = self.rows[name]
            if 0 <= row < len(array) and 0 <= lane < array.shape[1]:
                array[row, lane] = _low(value, array.dtype)
                self.written[name][row, lane] = True
                return
        self._write(name, self.rows[name], self._row(name, row, lane), value)

    def write_lanes(self, name: str, at: tuple[Any, ...], value: Any) -> None:
        self._write(name, self.arrays[name], self._lanes(name, at), value)

    def write_host(self, dtype: str, address: Any, value: Any) -> None:
        kind = np.dtype(dtype)
        index = self.host.at(address, kind.itemsize)
        low = np.asarray(value).astype(np.int64).astype(kind.newbyteorder("<"))
        shape = np.broadcast_shapes(np.shape(low), index.shape[:-1])
        # Broadcast before the cut into bytes: NumPy would spread one byte, not one value.
        raw = np.ascontiguousarray(np.broadcast_to(low, shape))[..., None].view(np.uint8)
        self.host.bytes[np.broadcast_to(index, (*shape, kind.itemsize))] = raw
        self.host.written[index] = True

    def add_row(self, name: str, row: Any, lane: Any, value: Any) -> None:
        row, lane = self._row(name, row, lane)
        if not np.ndim(value) and not np.ndim(row) and not np.ndim(lane):
            self.write_row(name, row, lane, self.read_row(name, row, lane) + value)
            return
        value, rows, lanes = np.asarray(value), np.asarray(row), np.asarray(lane)
        depth = max(value.ndim, rows.ndim, lanes.ndim)
        value, rows, lanes = (x[(None,) * (depth - x.ndim)] for x in (value, rows, lanes))
        shape = np.broadcast_shapes(rows.shape, lanes.shape)
        # Points that meet in one place are added up first.
        summed = tuple(d for d in range(depth) if shape[d] == 1 < value.shape[d])
        value = value.sum(axis=summed, keepdims=True) if summed else value
        before = self._read(name, self.rows[name], (rows, lanes))
        if self._distinct(rows, lanes, value):
            self._write(name, self.rows[name], (rows, lanes), before + value)
            return
        value, rows, lanes = np.broadcast_arrays(value, rows, lanes)
        # Several points in one place: plain `array[index] += value` would keep only the last of
        # them.
        total = self.rows[name].astype(np.int64)
        np.add.at(total, (rows, lanes), value)
        self._write(name, self.rows[name], (rows, lanes), total[rows, lanes])

    def _distinct(self, rows: Array, lanes: Array, value: Array) -> bool:
        """Whether no two points of the value, which is as deep, lie in one place."""
        points = math.prod(map(max, rows.shape, lanes.shape, value.shape))
        # A full grid: rows and lanes differ by themselves, which needs no sort of all points.
        if rows.size * lanes.size == points:  # each row with each lane
            return all(len(set(x.reshape(-1).tolist())) == x.size for x in (rows, lanes))
        flat = np.broadcast_arrays(rows * _WIDE + lanes, value)[0]
        return len(np.unique(flat)) == points

    def add_lanes(self, name: str, at: tuple[Any, ...], value: Any) -> None:
        """Sums that stay in state."""
        before = self._read(name, self.arrays[name], self._lanes(name, at))
        if not np.ndim(value) and not np.ndim(before):
            self._write(name, self.arrays[name], at, before + value)
            return
        values, *places = np.broadcast_arrays(value, *at)
        # Several points may meet in one lane: `array[index] += value` would keep the last alone.
        total = self.arrays[name].astype(np.int64)
        np.add.at(total, tuple(places), values)
        self._write(name, self.arrays[name], at, total[at])

    def add_host(self, dtype: str, address: Any, value: Any) -> None:
        raise SimError("HOST is not added to: a command writes it")


def codes(machine: CommandMachine) -> list[Code]:
    """The commands' meanings as functions, in the order of the spec."""
    arrays = [s.name for s in machine.state.values() if s.dims]
    numbers = [s.name for s in machine.state.values() if not s.dims]
    return [
        code_of(c.meaning, Names(list(machine.memories), arrays, numbers, list(c.fields)))
        for c in machine.commands
    ]


def execute(
    machine: CommandMachine,
    dims: Mapping[str, int],
    words: NDArray[np.uint64],
    host: HostMemory,
    *,
    whole: bool = True,
) -> Machine:
    """The machine after all commands; `host` is written.

    whole: all points of a command at once, where its meaning allows it; False: one by one.
    Raises: SimError naming number and text of a command that cannot run; EncodeError for an unknown
    one.
    """
    decoded = decode(machine, words)
    state = Machine(machine, dims, host)
    run_all(machine, state, decoded, whole=whole)
    return state


def run_all(machine: CommandMachine, state: Machine, decoded: Decoded, *, whole: bool) -> None:
    """The commands of a stream, in order, on `state`."""
    functions = codes(machine)
    # Python ints: the fast paths of `Machine` ask for them.
    columns = [{k: v.tolist() for k, v in decoded.fields[c.name].items()} for c in machine.commands]
    for n, (code, place) in enumerate(
        zip(decoded.code.tolist(), decoded.place.tolist(), strict=True)
    ):
        number = int(code)
        fields = {k: int(v[place]) for k, v in columns[number].items()}
        try:
            functions[number].run(state, fields, whole=whole)
        except SimError as error:
            where = f"command {line(machine, decoded, n).strip()}"
            raise SimError(
                error.what,
                where=where,
                hint=error.hint or "csp-embed disasm FILE shows the commands before it",
            ) from error
