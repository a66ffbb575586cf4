"""How many sums are kept in registers, and the order of loops.

Takes: an Embedding, the machine's templates.  Leaves: a `Tiling`. A counter that moves the first
factor alone gives rows, one that moves the second alone gives columns; rows x columns sums stay in
registers while the reduced loops run.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from csp_embed.errors import Infeasible
from csp_embed.ir.embedding import Counter, Embedding
from csp_embed.ir.operator import Operator
from csp_embed.machine.spec import Isa
from csp_embed.machine.templates.spec import Template

MOST = 32  # sums in a tile; more is code that no register file of today holds
# Registers of a file that C compilers are left: with fewer, gcc 12 writes sums to the stack in each
# step (seen with 14 x 2 sums in 32 registers: 0.39 of the machine's limit instead of 0.8).
SPARE = 2
# Loads run beside the arithmetic, but not for nothing: this share of them is counted. It decides
# between tiles of equal arithmetic.
VISIBLE = 1 / 8
# Of what begins and ends a sum, as much is seen: it runs beside the steps of its neighbours.
FINISHED = 1 / 2
TILE = 12  # cycles until a tile's loops are under way


@dataclass(frozen=True)
class Tiling:
    """rows, columns: (counter, how many at once) or None. outer, middle: the loops outside and
    inside the one over columns, outermost first; inner: the reduced ones. cycles: predicted, all
    sums of one pass."""

    rows: tuple[Counter, int] | None
    columns: tuple[Counter, int] | None
    outer: tuple[Counter, ...]
    middle: tuple[Counter, ...]
    inner: tuple[Counter, ...]
    cycles: float

    def show(self) -> str:
        """Sums in registers, then the loops from the outermost on."""
        names = [f"{c.name}:{c.extent}" for c in self.outer]
        names += [_split(self.columns)] if self.columns is not None else []
        names += [f"{c.name}:{c.extent}" for c in self.middle]
        names += [_split(self.rows)] if self.rows is not None else []
        names += ["|", *(f"{c.name}:{c.extent}+" for c in self.inner)]
        rows, columns = (1 if s is None else s[1] for s in (self.rows, self.columns))
        return f"{rows} x {columns} sums in registers; loops {' '.join(names)}"

    def document(self) -> dict[str, Any]:
        """As JSON values; `read` takes them."""

        def split(s: tuple[Counter, int] | None) -> list[Any] | None:
            return None if s is None else [s[0].name, s[1]]

        return {
            "rows": split(self.rows), "columns": split(self.columns), "cycles": self.cycles,
            **{n: [c.name for c in getattr(self, n)] for n in ("outer", "middle", "inner")},
        }  # fmt: skip

    def verify(self) -> list[str]:
        """What contradicts the statement above; empty where it holds."""
        splits = [s for s in (self.rows, self.columns) if s is not None]
        names = [c.name for c in (*self.outer, *self.middle, *self.inner)]
        names += [c.name for c, _ in splits]
        # A counter stands in one place of the nest.
        out = [f"{n} is walked twice" for n in names if names.count(n) > 1]
        return out + [f"{n} of {c.name}:{c.extent}" for c, n in splits if not 1 <= n <= c.extent]


def read(document: Mapping[str, Any], embedding: Embedding) -> Tiling:
    """The tiling that `Tiling.document` states. Raises: KeyError, TypeError, ValueError where it is
    none of this embedding's counters."""
    counters = {c.name: c for c in embedding.counters}

    def split(value: Any) -> tuple[Counter, int] | None:
        return None if value is None else (counters[value[0]], int(value[1]))

    outer, middle, inner = (
        tuple(counters[n] for n in document[part]) for part in ("outer", "middle", "inner")
    )
    tiling = Tiling(
        split(document["rows"]), split(document["columns"]), outer, middle, inner,
        float(document["cycles"]),
    )  # fmt: skip
    splits = [s[0] for s in (tiling.rows, tiling.columns) if s is not None]
    walked = [*splits, *tiling.outer, *tiling.middle, *tiling.inner]
    wrong = tiling.verify()
    # Every counter exactly once: a tile from a file is not trusted.
    if wrong or {c.name for c in walked} != set(counters):
        raise ValueError("; ".join(wrong) or "it does not walk every counter")
    return tiling


def _split(split: tuple[Counter, int]) -> str:
    """A counter whose values are taken several at once."""
    return f"{split[0].name}:{split[0].extent}/{split[1]}"


def choose(embedding: Embedding, isa: Isa) -> Tiling:
    """The tile of least predicted cycles; of equal ones that with the most sums. Raises: Infeasible
    where the registers that are named by number do not hold one sum."""
    free = [c for c in embedding.counters if not c.reduced]
    lhs, rhs = _moved(embedding, "lhs"), _moved(embedding, "rhs")
    # Of equal tiles the first found stays: rows that lie close together in memory come first.
    row_choices = [c for c in reversed(free) if c.name in lhs and c.name not in rhs]
    column_choices = [c for c in free if c.name in rhs and c.name not in lhs]
    finishing = _finishing(embedding.operator, isa)
    best: tuple[float, int, Tiling] | None = None
    # None: no counter of that kind, and then one row or column.
    for row in [*row_choices, None] if row_choices else [None]:
        for column in [*column_choices, None] if column_choices else [None]:
            for r in _counts(row):
                for c in _counts(column):
                    if not _fits(r, c, isa, finishing):
                        continue
                    cycles = _cycles(embedding, isa, row, column, r, c)
                    # Of equal cycles more sums: fewer loads behind the price.
                    if best is None or (cycles, -r * c) < best[:2]:
                        found = _tiling(embedding, row, column, r, c, cycles)
                        best = (cycles, -r * c, found)
    if best is None:
        raise Infeasible(
            f"{embedding.operator.name} needs more registers than {isa.name} has",
            where=embedding.operator.formula(),
            why=f"one sum and {finishing} constants or operands of its epilogue lie in a file whose"
            " registers are named by number, and nothing spills them",
            hint="shorten the epilogue, or convert sums to variables (docs/machines.md)",
        )
    return best[2]


def _counts(counter: Counter | None) -> range:
    return range(1, 2 if counter is None else min(counter.extent, MOST) + 1)


def _moved(embedding: Embedding, role: str) -> set[str]:
    return {c for c, step in embedding.layouts[role].step.items() if any(step)}


def templates(isa: Isa) -> tuple[Template, Template, Template]:
    """The contraction and what brings its factors."""
    program = isa.program
    assert program is not None
    contract = program.find("contract")
    assert contract is not None
    lhs, rhs = (isa.memory(contract.slot(r).memory) for r in ("lhs", "rhs"))
    get_lhs = program.find("copy_in", dst=lhs.name, address=lhs.dtype)
    get_rhs = program.find("copy_in", dst=rhs.name, address=rhs.dtype)
    assert get_lhs is not None
    assert get_rhs is not None
    return contract, get_lhs, get_rhs


def most_sums(isa: Isa, most: int) -> int:
    """Independent sums, at most `most`, that registers hold beside one pair of operands."""
    return max((n for n in range(1, most + 1) if _fits(n, 1, isa, 0)), default=1)


def _fits(rows: int, columns: int, isa: Isa, finishing: int) -> bool:
    """Sums, one factor for each column and one for the row at hand, by register file. finishing:
    registers of results that the end of a sum takes."""
    program = isa.program
    assert program is not None
    contract, _, _ = templates(isa)
    need: dict[str, int] = {}

    def take(memory: str, count: int) -> None:
        file = program.file_of[memory]
        need[file] = need.get(file, 0) + count * program.takes.get(memory, 1)

    for role, count in (("dst", rows * columns), ("lhs", 1), ("rhs", columns)):
        take(contract.slot(role).memory, count)
    results = results_memory(isa)
    # Numbered registers are spilled by nobody, so the end's need counts too.
    if program.file(results).numbered or results != contract.slot("dst").memory:
        take(results, finishing)
    if rows * columns > MOST:
        return False
    one = rows * columns == 1
    for name, count in need.items():
        file = program.files[name]
        # C compilers spill where they must, so that one sum is always possible there.
        if count > file.count - (0 if file.numbered else SPARE) and not (one and not file.numbered):
            return False
    return True


def results_memory(isa: Isa) -> str:
    """The memory that epilogues change and copies out read."""
    assert isa.program is not None
    return isa.program.results(templates(isa)[0].slot("dst").memory)


def _finishing(op: Operator, isa: Isa) -> int:
    """Registers of results that a sum's end needs beside the sum: constants, what is loaded, and
    the result itself where sums are converted."""
    constants = {s.imm for s in op.epilogue if s.access is None}
    loaded = any(s.access is not None for s in op.epilogue)
    apart = results_memory(isa) != templates(isa)[0].slot("dst").memory
    return len(constants) + loaded + apart


def _cycles(
    embedding: Embedding,
    isa: Isa,
    row: Counter | None,
    column: Counter | None,
    rows: int,
    columns: int,
) -> float:
    contract, get_lhs, get_rhs = templates(isa)
    others = [c for c in embedding.counters if c not in (row, column)]
    steps = math.prod(c.extent for c in others if c.reduced)
    finish = FINISHED * _finish(embedding, isa)
    total = 0.0
    for r, times in _pieces(row, rows):
        # Whole tiles and the ragged end have different rates.
        for c, again in _pieces(column, columns):
            work = r * c / contract.per_cycle
            loads = r / get_lhs.per_cycle + c / get_rhs.per_cycle
            # A sum waits for its last step; loads go beside the arithmetic.
            step = max(work, loads, contract.latency) + VISIBLE * loads
            total += times * again * (TILE + steps * step + r * c * finish)
    return total * math.prod(c.extent for c in others if not c.reduced)


def _finish(embedding: Embedding, isa: Isa) -> float:
    """Cycles of a sum beyond its steps by the spec's rates: begun, its epilogue, stored."""
    # Of the memory that results are in.
    program, op = isa.program, embedding.operator
    assert program is not None
    dst = results_memory(isa)
    get = program.find("copy_in", dst=dst, address="int32")
    put = program.find("copy_out", dst=dst, address=op.out_dtype)
    step = program.find("map", dst=dst)
    cycles = [0.0 if t is None else 1 / t.per_cycle for t in (get, put, step)]
    loaded = sum(s.access is not None for s in op.epilogue)
    # Loads of what is added, the store, and a step each.
    return cycles[0] * (1 + loaded) + cycles[1] + cycles[2] * len(op.epilogue)


def _pieces(counter: Counter | None, size: int) -> list[tuple[int, int]]:
    """(sums, how often) of whole tiles and of the ragged end."""
    extent = 1 if counter is None else counter.extent
    whole, rest = divmod(extent, size)
    return [(size, whole), *([(rest, 1)] if rest else [])]


def _tiling(
    embedding: Embedding,
    row: Counter | None,
    column: Counter | None,
    rows: int,
    columns: int,
    cycles: float,
) -> Tiling:
    lhs, rhs = _moved(embedding, "lhs"), _moved(embedding, "rhs")
    free = [c for c in embedding.counters if not c.reduced and c not in (row, column)]
    # What moves both factors shares nothing, and goes outside. Then the second factor's panel of a
    # column stays in the caches while the first factor streams past it.
    outer = sorted((c for c in free if c.name in rhs), key=lambda c: c.name not in lhs)
    return Tiling(
        rows=None if row is None else (row, rows),
        columns=None if column is None else (column, columns),
        outer=tuple(outer),
        middle=tuple(c for c in free if c.name not in rhs),
        inner=tuple(c for c in embedding.counters if c.reduced),
        cycles=cycles,
    )
