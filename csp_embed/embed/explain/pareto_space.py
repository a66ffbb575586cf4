"""All answers of the lifted model, swept block by block, keeping what no other makes needless.

Takes: EmbedProblem.  Leaves: `Space`, then tuples of options, one per block.

Steps, packed elements and filled lanes are products over blocks, and lanes multiply up to the
machine's. So an answer's part in some blocks may be dropped where another part is nowhere worse:
whatever completes the one completes the other. The sweep is exact; no solver is involved.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from csp_embed.embed.algebra.grid import grid_axes, grid_mode
from csp_embed.embed.algebra.layouts import range_checks, seen_by
from csp_embed.embed.algebra.occupancy import occupancy
from csp_embed.embed.algebra.rows import Reject, coordinate_row, tensor_rows
from csp_embed.embed.problem import EmbedProblem, Option, Pins
from csp_embed.embed.space.digits import Carry, Decisions, expand
from csp_embed.embed.space.evaluate import measure, measure_fused, operands
from csp_embed.embed.space.options import block_options, lanes_of, structure
from csp_embed.embed.space.reduced import fused_options
from csp_embed.embed.space.rules import Rules
from csp_embed.embed.space.unit import accesses
from csp_embed.ir.embedding import Coordinate
from csp_embed.ir.operator import FACTORS, Access, Role

Floats = NDArray[np.float64]
# States beyond which a sweep gives up completeness (and says so).
MOST = 60_000


@dataclass(frozen=True)
class Entry:
    """An option and, of each factor ("lhs", "rhs"), how many lanes hold a tensor element."""

    option: Option
    filled: Mapping[str, int]


@dataclass(frozen=True)
class Space:
    """Every option of every block that keeps rules and pins; the last block is the fused one."""

    problem: EmbedProblem
    entries: tuple[Entry, ...]


@dataclass(frozen=True)
class Swept:
    """answers: one option per block each. values: [answer, column]; columns names them: steps,
    operands' elements, "filled lhs" and "filled rhs". complete: nothing was given up."""

    answers: list[tuple[Option, ...]]
    values: Floats
    columns: tuple[str, ...]
    complete: bool


def space_of(problem: EmbedProblem, *, count_filled: bool = True) -> Space:
    """count_filled: needed by the sweep over filled lanes."""
    mode, pins = problem.mode, problem.pins
    entries: list[Entry] = []
    for commuted in problem.commutations:
        rules = problem.rules(commuted)
        for n, block in enumerate(problem.blocks):
            for carries, given in block_options(rules, block):
                try:
                    found = measure(rules, block, carries, given, mode)
                except Reject:
                    continue
                option = Option(n, commuted, carries, lanes_of(carries), found.steps,
                                found.elements, given, structure(carries))  # fmt: skip
                # Pins throw options out here, before the sweep: they never change a value.
                if pins.keep(option):
                    full = _filled(rules, block, carries, given, mode) if count_filled else {}
                    entries.append(Entry(option, full))
        # The last block is what is fused over blocks, if anything.
        entries += _fused(rules, len(problem.blocks), mode, pins)
    return Space(problem, tuple(entries))


def _fused(rules: Rules, n: int, mode: str, pins: Pins) -> Iterator[Entry]:
    # Nothing fused costs one step and one element: the neutral element of products.
    ones = dict.fromkeys(operands(rules), 1)
    for carry in fused_options(rules):
        carries = () if carry is None else (carry,)
        steps, elements = 1, dict(ones)
        if carry is not None:
            try:
                found = measure_fused(rules, carry, mode)
            except Reject:
                continue
            steps, elements = found.steps, found.elements
        option = Option(n, rules.commuted, carries, lanes_of(carries), steps, elements,
                        frozenset(carry.axes if carry else ()), structure(carries))  # fmt: skip
        if pins.keep(option):
            yield Entry(option, {r: _repeats(rules, carry, r) for r in _factors(rules)})


def _factors(rules: Rules) -> list[Role]:
    return [r for r in rules.roles if r != Role.DST]


def _repeats(rules: Rules, carry: Carry | None, role: Role) -> int:
    """Lanes that hold one element again: fused axes that the operand does not read."""
    if carry is None:
        return 1
    index = rules.roles[role].index
    unread = [a for a in carry.axes if not any(ix.coef(a) for ix in index)]
    reads = len(unread) < len(carry.axes)
    if reads:
        return math.prod(rules.op.axes[a] for a in unread)
    # An operand that reads none of the fused axes stands in all inner lanes again.
    dims = rules.unit.dims[role]
    return math.prod(e for d, e in carry.inner if d in dims)


def _filled(
    rules: Rules, block: Sequence[str], carries: Sequence[Carry], given: frozenset[str], mode: str
) -> dict[str, int]:
    """This block's factor of the lanes of each operand that hold a tensor element."""
    op, unit = rules.op, rules.unit
    lanes = expand(op, Decisions(rules.commuted, tuple(carries)))
    extents = {d.name: d.extent for d in lanes.digits}
    checks = range_checks(op, unit, lanes, rules.roles)
    # What is given away to the fused block does not move here.
    away = [Coordinate((a, ""), 0, 0, {}, {}) for a in given]
    # Constant indices belong to no block; the first one counts them.
    first = block[0] == next(iter(op.axes))
    out: dict[str, int] = {}
    for role in _factors(rules):
        access = rules.roles[role]
        own = [
            n for n, ix in enumerate(access.index)
            if set(block) & {a for a, _ in ix.terms} or (first and not ix.terms)
        ]  # fmt: skip
        tensor = op.tensors[access.tensor]
        part = Access(access.tensor, tuple(access.index[n] for n in own))
        seen, _, partners = seen_by(lanes, unit.dims[role])
        # Coordinates that are checked against the operand's range cut rows as well.
        rows = tensor_rows(part, [tensor.shape[n] for n in own], [*seen, *away], op.axes)
        checked = [coordinate_row(c) for c in seen if c.axes[0] in checks.get(role, ())]
        every = [*rows, *checked]
        grid = grid_axes(every, lanes.counters, extents, grid_mode(role, tensor.constant, mode))
        moved = {d for row in every for d in row.digits} | partners
        # Lanes that no digit of the operand moves hold the same element again.
        repeat = math.prod(
            d.extent for d in lanes.digits if d.dim in unit.dims[role] and d.name not in moved
        )
        out[role] = occupancy(dict(enumerate(every)), len(rows), grid, extents, repeat).filled
    return out


@dataclass
class _Part:
    """Answers for some blocks. values: [answer, column] products; lanes: [answer, dimension]
    products; marks: [answer, mark] what `kinds` tells apart; picks: [answer, block] entry."""

    values: Floats
    lanes: Floats
    marks: NDArray[np.int64]
    picks: NDArray[np.int64]

    def take(self, index: NDArray[np.intp]) -> _Part:
        return _Part(self.values[index], self.lanes[index], self.marks[index], self.picks[index])


def sweep(space: Space, *, kinds: bool = False, most: int = MOST) -> Swept:
    """Answers that no other makes needless, for any criterion that grows with steps and elements
    (kinds: of each kind of embedding, see `build.kind_of`), or, without kinds, also falls or grows
    with filled lanes of run-time factors and falls with those of constants."""
    roles = sorted({r for e in space.entries for r in e.option.elements})
    filled = [] if kinds else [r for r in FACTORS if r in roles]
    columns = ("steps", *roles, *(_filled_column(r) for r in filled))
    count = len(space.problem.blocks)
    answers: list[tuple[Option, ...]] = []
    values: list[Floats] = []
    complete = True
    # What is given away, and commuting, must agree over all blocks.
    groups = {(e.option.commuted, e.option.given) for e in space.entries if e.option.block == count}
    for commuted, given in sorted(groups, key=lambda g: (g[0], tuple(sorted(g[1])))):
        parts: list[_Part] = []
        for block in range(count + 1):
            axes = given if block == count else given & set(space.problem.blocks[block])
            rows = [
                n for n, e in enumerate(space.entries)
                if e.option.block == block and e.option.commuted == commuted
                and e.option.given == axes
            ]  # fmt: skip
            parts.append(_first(space, rows, roles, filled, kinds))
        # Some block has no option: then there is no answer of this kind.
        if any(not len(p.values) for p in parts):
            continue
        size = np.array(list(space.problem.unit.size.values()), float)
        signs = _signs(space, commuted, columns)
        # Small parts first: what is thrown out early need not be joined.
        parts.sort(key=lambda p: len(p.values))
        joined = _needed(parts[0], signs)
        for n, part in enumerate(parts[1:]):
            # At the last join lanes need not be spared for anybody.
            last = n == len(parts) - 2
            joined, whole = _join(joined, _needed(part, signs), size, signs, most, last)
            complete &= whole
        for row in joined.picks:
            options = [space.entries[int(n)].option for n in row]
            # In the order of blocks, as decisions want them.
            answers.append(tuple(sorted(options, key=lambda o: o.block)))
        values.append(joined.values)
    table = np.concatenate(values) if values else np.zeros((0, len(columns)))
    return Swept(answers, table, columns, complete)


def _first(
    space: Space, rows: list[int], roles: list[str], filled: list[Role], kinds: bool
) -> _Part:
    dims = list(space.problem.unit.size)
    entries = [space.entries[n] for n in rows]
    values = [
        [e.option.steps, *(e.option.elements[r] for r in roles), *(e.filled[r] for r in filled)]
        for e in entries
    ]
    lanes = [[e.option.lanes.get(d, 1) for d in dims] for e in entries]
    marks = [_marks(e.option, dims) if kinds else [] for e in entries]
    return _Part(
        np.array(values, float).reshape(len(rows), 1 + len(roles) + len(filled)),
        np.array(lanes, float).reshape(len(rows), len(dims)),
        # Three marks of kinds, then one for each dimension.
        np.array(marks, np.int64).reshape(len(rows), 3 + len(dims) if kinds else 0),
        np.array(rows, np.int64).reshape(len(rows), 1),
    )


def _marks(option: Option, dims: Sequence[str]) -> list[int]:
    """Skewed, diagonal, fused, and how many coordinates stand on each dimension (2: several)."""
    carries = option.carries
    on = [sum(d == dim for c in carries for d, _ in (*c.inner, *c.outer)) for dim in dims]
    return [
        any(c.skew for c in carries), any(c.diagonal for c in carries),
        any(len(c.axes) > 1 for c in carries), *(min(n, 2) for n in on),
    ]  # fmt: skip


def _signs(space: Space, commuted: bool, columns: Sequence[str]) -> list[tuple[int, int]]:
    """(column, 1 or -1) that must be nowhere worse."""
    op = space.problem.op
    played = accesses(op, commuted)
    out: list[tuple[int, int]] = []
    filled = {_filled_column(r): r for r in FACTORS}
    for n, name in enumerate(columns):
        if name not in filled:
            out.append((n, 1))
            continue
        out.append((n, -1))
        # Of run-time factors filled lanes cost bytes to pack and save zero fill: only equal ones
        # compare.
        if not op.tensors[played[filled[name]].tensor].constant:
            out.append((n, 1))
    return out


def _filled_column(role: str) -> str:
    return f"filled {role}"


def _join(
    a: _Part, b: _Part, size: Floats, signs: list[tuple[int, int]], most: int, last: bool
) -> tuple[_Part, bool]:
    """All fitting pairs, less the needless ones."""
    # Lanes multiply; more than the machine has cannot be.
    i, j = np.nonzero((a.lanes[:, None] * b.lanes[None] <= size).all(axis=2))
    dims = a.lanes.shape[1]
    marks = a.marks[i]
    if marks.shape[1]:
        # Marks say whether, or "several": they saturate.
        marks = np.minimum(marks + b.marks[j], [1] * 3 + [2] * dims)
    both = _Part(
        a.values[i] * b.values[j],
        a.lanes[i] * b.lanes[j],
        marks,
        np.concatenate([a.picks[i], b.picks[j]], axis=1),
    )
    both = _needed(both, signs, with_lanes=not last)
    if len(both.values) <= most:
        return both, True
    # Too many: those of fewest steps stay, and the sweep says that it is incomplete.
    return both.take(np.argsort(both.values[:, 0], kind="stable")[:most]), False


def _needed(part: _Part, signs: list[tuple[int, int]], with_lanes: bool = True) -> _Part:
    """Without those that another of the same marks makes needless."""
    columns = [sign * part.values[:, n] for n, sign in signs]
    # Whoever needs fewer lanes fits beside more partners.
    if with_lanes:
        columns += list(part.lanes.T)
    table = np.stack(columns, axis=1)
    if not part.marks.shape[1] or not len(table):
        return part.take(front(table))
    # Embeddings of different kinds do not make each other needless.
    keep: list[NDArray[np.intp]] = []
    _, group = np.unique(part.marks, axis=0, return_inverse=True)
    for g in range(int(group.max()) + 1):
        rows = np.flatnonzero(group == g)
        keep.append(rows[front(table[rows])])
    return part.take(np.sort(np.concatenate(keep)))


def front(table: Floats) -> NDArray[np.intp]:
    """Rows that no other row is nowhere above; of equal rows the first. In their order."""
    if not len(table):
        return np.zeros(0, np.intp)
    index = np.lexsort(table.T[::-1])
    rows = table[index]
    keep: list[int] = []
    # In lexical order nothing is made needless by a later row.
    while len(rows):
        keep.append(int(index[0]))
        # A row that is somewhere below the kept one is not made needless by it.
        rest = (rows < rows[0]).any(axis=1)
        rows, index = rows[rest], index[rest]
    return np.sort(np.array(keep, np.intp))
