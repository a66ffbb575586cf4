"""Which commands move an operand's tiles between HOST and rows, and how many tiles at once.

Takes: a machine's copies.  Leaves: `Transfer`s. A copy walks rows with a stride, lanes of a row,
and perhaps blocks that lie beside each other in HOST and apart on the chip.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from csp_embed.machine.commands import reach
from csp_embed.machine.commands.acts import Bytes, Param
from csp_embed.machine.commands.spec import Command, CommandMachine

Wants = list[tuple[Param, int]]


@dataclass(frozen=True)
class Transfer:
    """A copy as tiles see it. lanes: values of a row that it moves, or None: any number up to
    `most_lanes`. rows: how many it must move; None: up to most_rows. blocks: at most so many beside
    each other. stride: HOST bytes from row to row. item: bytes of a value in HOST."""

    command: Command
    local: Param
    host: Param
    rows: int | None
    most_rows: int
    lanes: int | None
    most_lanes: int
    blocks: int
    stride: Param
    item: int
    dtype: str
    parts: tuple[tuple[str, Param], ...]

    def cut(self, rows: int, height: int) -> int:
        """The fewest rows of a tile that it can move where so many are needed."""
        return rows if self.rows is None else min(-(-rows // self.rows) * self.rows, height)

    def across(self, lanes: int, width: int, blocks: int) -> int:
        """The fewest values of a row, of all blocks, that it can move where so many of the last
        block are needed."""
        names = {part for part, _ in self.parts}
        cut = "count" in names or ("lanes" in names and blocks == 1)
        return (blocks - 1) * width + (lanes if cut else width)

    def wants(self, local: int, host: int, rows: int, lanes: int, stride: int, blocks: int,
              height: int) -> Wants:  # fmt: skip
        """Parameters of one copy whose values matter. lanes: of all blocks. Constants are among
        them: the planner compares."""
        found = [(self.local, local), (self.host, host)]
        # One row has no stride.
        found += [(self.stride, stride)] if rows > 1 else []
        values = {"rows": rows, "lanes": lanes, "count": lanes, "blocks": blocks, "apart": height}
        # How far a single block lies from the next has no effect.
        skipped = () if blocks > 1 else ("apart",)
        return found + [(p, values[part]) for part, p in self.parts if part not in skipped]

    def idle(self, rows: int, stride: int, blocks: int, height: int) -> Wants:
        """Parameters that one copy reads, and whose values have no effect on it: state among them
        must have been set all the same."""
        found = [(self.stride, stride)] if rows <= 1 else []
        apart = [(p, height) for part, p in self.parts if part == "apart" and blocks <= 1]
        return [(p, v) for p, v in found + apart if p.kind == "state"]

    def strided(self) -> bool:
        return self.stride.kind != "const"

    @property
    def repeats(self) -> bool:
        """Whether it reads one row of HOST for all rows that it fills."""
        return not self.strided() and self.stride.value == 0 and self.rows != 1

    def apart(self, width: int) -> bool:
        """Whether rows of so many values lie in HOST without meeting."""
        if self.strided() or self.rows == 1:
            return True
        step = math.lcm(self.item, self.unit)
        return self.stride.value >= width * self.item and self.stride.value % step == 0

    def pitch(self, width: int) -> int:
        """Values of HOST from row to row, where rows lie one after the other: whole units."""
        if not (self.strided() or self.repeats or self.rows == 1):
            return max(width, self.stride.value // self.item)
        unit = math.lcm(self.unit, self.item) // self.item
        return -(-width // unit) * unit

    @property
    def unit(self) -> int:
        """Bytes that its addresses and strides in HOST count."""
        return math.lcm(self.host.times, self.stride.times)

    def states(self) -> set[str]:
        """State that it reads."""
        found = (self.local, self.host, self.stride, *(p for _, p in self.parts))
        return {p.name for p in found if p.kind == "state"}


def transfers(
    machine: CommandMachine, kind: str, memory: str, lanes: int, *, adds: bool = False
) -> list[Transfer]:
    """The copies of a kind that move rows of `memory` of that many used lanes."""
    judged = [transfer(c, lanes) for c in copies(machine, kind, memory) if c.acts.adds == adds]
    return [t for t in judged if isinstance(t, Transfer)]


def copies(machine: CommandMachine, kind: str, memory: str) -> list[Command]:
    """The commands of a kind that move rows of `memory`, whether tiles can use them or not."""
    return [c for c in machine.commands if c.acts.kind == kind and c.acts.dst.memory == memory]


def drains(machine: CommandMachine, memory: str) -> list[Command]:
    """Commands that bring sums from state to rows, lane by lane, as they lie."""
    found = [c for c in machine.commands if c.acts.kind == "drain" and c.acts.dst.memory == memory]
    return [c for c in found
            if (c.acts.to.rows, c.acts.to.lanes) == (c.acts.dst.rows, c.acts.dst.lanes)
            and machine.rows_of(memory).rows <= reach.rows(machine, c.acts.to.memory)
            and machine.memories[c.acts.to.memory].dtype == machine.rows_of(memory).dtype
            ]  # fmt: skip


def stored_from(machine: CommandMachine, memory: str) -> list[str]:
    """Memories from which sums of `memory` are stored: itself, and what it is drained to."""
    return list(dict.fromkeys([memory, *(c.acts.to.memory for c in drains(machine, memory))]))


class _Unfit(Exception):
    """Why no tile can be moved."""


def most(command: Command, param: Param) -> int:
    """The greatest value that a parameter takes."""
    # State may hold any number; what sets it is the planner's question.
    if param.kind == "const":
        return param.value
    return param.counts(command.fields[param.name].most) if param.kind == "field" else 1 << 40


def transfer(c: Command, lanes: int) -> Transfer | str:
    """A copy as tiles of that many lanes see it, or why they cannot use it."""
    try:
        return _transfer(c, lanes)
    except _Unfit as unfit:
        return str(unfit)


def _transfer(c: Command, lanes: int) -> Transfer:
    a = c.acts
    assert a.dst is not None
    # A reset moves zeros from nowhere.
    host = a.host or Bytes(
        "int8", Param("const"), {v: Param("const", value=1) for v in a.dst.lanes}
    )
    item = np.dtype(host.dtype).itemsize
    # Lanes must follow each other, in the row and in HOST alike.
    across = [v for v, s in a.dst.lanes.items() if s == 1]
    if len(across) != 1 or len(a.dst.lanes) != 1:
        raise _Unfit("one loop walks the lanes of a row, one by one")
    (lane,) = across
    if host.steps.get(lane) != Param("const", value=item):
        raise _Unfit(f"lanes of {host.dtype} lie {item} bytes apart in HOST: {item} * {lane}")
    one = Param("const", value=1)
    # One loop over rows at most, and one over blocks: what tiles can use.
    rows = [v for v, p in a.dst.rows.items() if p == one and v != lane]
    others = [v for v in a.dst.rows if v not in rows]
    if len(rows) > 1 or len(others) > 1 or set(host.steps) - {lane, *rows, *others}:
        raise _Unfit("beside lanes, one loop walks rows and one blocks of rows, no more")
    parts: list[tuple[str, Param]] = []
    # Rows.
    bound = a.loops[rows[0]] if rows else one
    parts.append(("rows", bound))
    stride = host.steps.get(rows[0], Param("const")) if rows else Param("const")
    # Lanes, and blocks of them.
    blocks = 1
    per_row, most_lanes = a.loops[lane], most(c, a.loops[lane])
    # One guard at most: several would be a shape that tiles do not have.
    limit = next((x for x in a.limits if lane in x.steps), None)
    if len(a.limits) > (limit is not None):
        raise _Unfit("one condition at most, on lanes")
    if others:
        wide = host.steps.get(others[0])
        # Blocks lie beside each other in HOST, whole tiles apart on the chip.
        if wide != Param("const", value=lanes * item) or per_row != Param("const", value=lanes):
            raise _Unfit(f"blocks are whole rows of {lanes} lanes, beside each other in HOST")
        blocks = most(c, a.loops[others[0]])
        parts.append(("apart", a.dst.rows[others[0]]))
        if limit is None:
            parts.append(("blocks", a.loops[others[0]]))
        # A guard over blocks and lanes: their number together.
        elif limit.steps == {others[0]: lanes, lane: 1}:
            parts.append(("count", limit.bound))
            blocks = min(blocks, most(c, limit.bound) // lanes)
        else:
            raise _Unfit("the condition is on the lanes of all blocks together")
    elif limit is not None:
        if limit.steps != {lane: 1}:
            raise _Unfit(f"the condition is on {lane} alone")
        parts.append(("lanes", limit.bound))
        most_lanes = min(most_lanes, most(c, limit.bound))
    # Fixed: the command moves that many lanes, or none.
    fixed = per_row.value if per_row.kind == "const" and (limit is None or others) else None
    if per_row.kind != "const":
        parts.append(("lanes", per_row))
    if most_lanes < lanes or (fixed is not None and fixed != lanes) or blocks < 1:
        raise _Unfit(f"it moves {min(most_lanes, fixed or most_lanes)} lanes of a row, a tile has"
                     f" {lanes}")  # fmt: skip
    return Transfer(
        c, a.dst.base, host.base, bound.value if bound.kind == "const" else None, most(c, bound),
        fixed, most_lanes, blocks, stride, item, host.dtype, tuple(parts),
    )  # fmt: skip
