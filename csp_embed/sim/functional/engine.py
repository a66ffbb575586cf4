"""Runs instructions in a given order on a State, in portions, and turns failures into messages."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from csp_embed.errors import SimError
from csp_embed.ir.stream import Stream
from csp_embed.judge.stream.table import Table
from csp_embed.machine.spec import Isa, Operand
from csp_embed.machine.words.arrays import compute_operands, operand_table
from csp_embed.machine.words.listing import line
from csp_embed.sim.functional import kernels
from csp_embed.sim.functional.memory import State, contraction_dims

# About a quarter of a second of work: between two such portions Ctrl-C and progress get their turn.
NEGATIVE_SHIFTS = "steps with negative tensor shift amounts"
PORTION_STEPS = 1 << 23
MAX_MAP_LANES = 512


def error_at(isa: Isa, stream: Stream, n: int, what: str, why: str) -> SimError:
    return SimError(
        f"instruction {n}: {what}", where=" ".join(line(isa, stream, n).split()), why=why
    )


class Engine:
    """A state and the instructions that change it, in a fixed order, portion by portion."""

    def __init__(
        self,
        isa: Isa,
        stream: Stream,
        table: Table,
        state: State,
        sequence: NDArray[np.int64],
        strict: bool,
    ) -> None:
        self.isa, self.stream, self.table, self.state = isa, stream, table, state
        self.sequence, self.strict = np.ascontiguousarray(sequence, dtype=np.int64), strict
        self.rows = table.rows
        self.at = 0
        self.notes = np.array([0, -1, 0, -1], dtype=np.int64)
        self._status = np.zeros(8, dtype=np.int64)
        dims = contraction_dims(isa)
        # Lengths of these tuples are compiled in; what only the fast kernel reads stays short
        # elsewhere, or a machine of thousands of lanes would compile for minutes.
        b, o, i = (dims.b, dims.o, dims.i) if dims.fits else (1, 1, 2)
        rows = max(1, min(4, 64 // (b * o)))
        stale = (2 if strict else 1) if isa.limits.stale_shadow else 0
        self._fixed = (
            operand_table(isa, "contract", 3), operand_table(isa, "map", 2), dims.fits,
            dims.swapped, _points(isa), _twin(isa), strict, stale,
            dims.flips, self.notes, self._status,
            (0,) * rows, (0,), (0,) * b, (0,) * ((i + 1) // 2), (0,) * o,
            (0,) * _map_lanes(isa),
        )  # fmt: skip

    def advance(self, end: int, progress: Callable[[str, int, int], None] | None = None) -> None:
        """Runs up to position `end` of the order.

        Raises: SimError naming the instruction.
        """
        work = (self.table.steps + self.table.elements // 4 + 20)[self.sequence[:end]]
        total = np.cumsum(work)
        while self.at < end:
            done = int(total[self.at - 1]) if self.at else 0
            stop = int(np.searchsorted(total, done + PORTION_STEPS)) + 1
            stop = min(max(stop, self.at + 1), end)
            kernels.execute(
                self.sequence, self.at, stop, self.rows, tuple(self.state), *self._fixed
            )
            if self._status[0] != kernels.OK:
                raise self._failure()
            self.at = stop
            if progress is not None:
                progress("simulate", int(total[stop - 1]), int(total[-1]))

    def warnings(self) -> list[str]:
        """What the run met that hardware does differently."""
        found = []
        for number, n, text in (
            (self.notes[0], self.notes[1], "stores of elements that no compute step wrote last"),
            (self.notes[2], self.notes[3], NEGATIVE_SHIFTS),
        ):
            if number:
                found.append(f"{number} {text}, the first in instruction {self._line(int(n))}")
        return found

    def _line(self, n: int) -> str:
        return " ".join(line(self.isa, self.stream, n).split())

    def _failure(self) -> SimError:
        code, position, a, b, c = (int(v) for v in self._status[:5])
        n = int(self.sequence[position])
        if code == kernels.DRAM_OUTSIDE:
            what, why = "DRAM outside the program's image", f"{b} bytes at {a:#x}"
        elif code == kernels.OPERAND_OUTSIDE:
            instruction = self.isa.instructions[int(self.stream.code[n])]
            memory = self.isa.memory(instruction.operands[a].memory)
            what = f"its micro-ops leave {memory.name}"
            why = f"elements {b} to {c} of {memory.depth}"
        elif code == kernels.STALE_STORE:
            what = f"stores element {a}, which no compute step wrote last"
            why = "the hardware's store memory still holds an older value there"
        else:
            what = f"shifts by a negative amount in element {a}"
            why = "the hardware takes the direction from the immediate field"
        return error_at(self.isa, self.stream, n, what, why)


def _lane_numbers(isa: Isa, operand: Operand, index: dict[str, NDArray[np.int64]]) -> np.ndarray:
    total = np.zeros_like(next(iter(index.values())))
    for d in operand.dims:
        total = total * isa.dims[d] + index[d]
    return total


def _points(isa: Isa) -> NDArray[np.int64]:
    """int64[points, 3]: lanes of dst, lhs and rhs that meet in one contraction step."""
    operands = compute_operands(isa, "contract")
    dims = list(dict.fromkeys(d for o in operands for d in o.dims))
    if not dims:
        return np.zeros((1, 3), dtype=np.int64)
    grid = np.indices([isa.dims[d] for d in dims]).reshape(len(dims), -1)
    index = dict(zip(dims, grid, strict=True))
    return np.stack([_lane_numbers(isa, o, index) for o in operands], axis=1).astype(np.int64)


def _twin(isa: Isa) -> NDArray[np.int64]:
    """dst lane -> lane of an elementwise instruction's other operand."""
    operands = compute_operands(isa, "map")
    if not operands or not operands[0].dims:
        return np.zeros(1, dtype=np.int64)
    dims = operands[0].dims
    grid = np.indices([isa.dims[d] for d in dims]).reshape(len(dims), -1)
    return _lane_numbers(isa, operands[1], dict(zip(dims, grid, strict=True))).astype(np.int64)


def _map_lanes(isa: Isa) -> int:
    """Lanes that one compiled step of an elementwise instruction takes; they divide all lanes."""
    operands = compute_operands(isa, "map")
    lanes = int(np.prod([isa.dims[d] for d in operands[0].dims])) if operands else 1
    return next(n for n in range(min(lanes, MAX_MAP_LANES), 0, -1) if lanes % n == 0)
