"""Tiles of a stream machine's contraction, as the embedding search looks at memories.

Takes: commands with their acts.  Leaves: a contraction and its epilogue as instructions, a memory
for each operand's tile, and which rows hold it. A factor that comes through state (preloaded
weights) is traced to the rows that it is loaded from.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from csp_embed.machine.commands.acts import Acts, Lanes, Load, Param, Rows
from csp_embed.machine.commands.spec import Command, RowMemory
from csp_embed.machine.reading.meaning import MeaningError
from csp_embed.machine.spec import Field, Instruction, MapOp, Memory, Operand

# What the host's numbers may do behind the sums; whether a copy out can do it exactly is for
# targets/commands/epilogue.py.
_STEPS = ("add", "min", "max", "shr", "mul")


@dataclass(frozen=True)
class Tile:
    """An operand's lanes in rows. dims: outermost first. rows: dimension -> rows from one value to
    the next (a parameter counts as 1); lanes: dimension -> lanes."""

    memory: str
    dims: tuple[str, ...]
    rows: Mapping[str, int]
    lanes: Mapping[str, int]

    def height(self, dims: Mapping[str, int]) -> int:
        """Rows that it takes."""
        # The last row that is touched, and the ones between where rows are not adjacent.
        return 1 + sum(step * (dims[d] - 1) for d, step in self.rows.items())

    @property
    def view(self) -> str:
        # Distinct by dimensions: weights and inputs can be tiles of one memory with other lanes.
        return f"{self.memory}_{''.join(self.dims)}"


def tile_of(rows: Rows) -> Tile:
    """Raises: MeaningError for parameters in more than one dimension."""
    # How far a parameter's rows lie apart is known at run time only; an order of two needs both.
    if sum(p.kind != "const" for p in rows.rows.values()) and len(rows.rows) > 1:
        raise MeaningError(1, f"rows of {rows.memory} have a step by a name and another dimension")
    # A parameter can be 1 as well, which is the densest packing; strides are the target's choice.
    steps = {d: p.value if p.kind == "const" else 1 for d, p in rows.rows.items()}
    if any(s < 1 for s in (*steps.values(), *rows.lanes.values())):
        raise MeaningError(1, f"rows of {rows.memory} are walked backwards, or not at all")
    # Outermost first, as memories of the search list their lanes: larger step, further out.
    outer = sorted(steps, key=lambda d: -steps[d])
    inner = sorted(rows.lanes, key=lambda d: -rows.lanes[d])
    return Tile(rows.memory, (*outer, *inner), steps, dict(rows.lanes))


def factor_tile(source: Rows | Lanes, commands: tuple[Command, ...]) -> Tile:
    """The tile of a factor; through state it is renamed to the contraction's dimensions."""
    if isinstance(source, Rows):
        return tile_of(source)
    rows = origin(source.state, commands)
    loaded = tile_of(rows.source)
    if len(rows.at) != len(source.at):
        raise MeaningError(1, f"{source.state} has {len(rows.at)} dimensions where it is filled and"
                           f" {len(source.at)} where it is used")  # fmt: skip
    # The loops of the load have names of their own; lanes of the state tie both together.
    renamed = dict(zip(rows.at, source.at, strict=True))
    return Tile(
        loaded.memory, tuple(renamed[d] for d in loaded.dims),
        {renamed[d]: s for d, s in loaded.rows.items()},
        {renamed[d]: s for d, s in loaded.lanes.items()},
    )  # fmt: skip


@dataclass(frozen=True)
class Origin:
    """source: the rows that fill lanes of state; at: their loop names by lane dimension."""

    source: Rows
    at: tuple[str, ...]


def origin(state: str, commands: tuple[Command, ...]) -> Origin:
    """Where lanes of state come from, through other state. Raises: MeaningError."""
    found = _origins(state, commands, frozenset())
    if not found:
        raise MeaningError(1, f"no command fills {state} from rows")
    # Whoever uses the state cannot tell which command filled it: all must mean the same tile.
    name, first = next(iter(found.items()))
    for other, second in found.items():
        if _by_lane(first) != _by_lane(second):
            raise MeaningError(1, f"{name} and {other} fill {state} in different ways: leave one"
                               " out, or let it fill state of its own")  # fmt: skip
    return first


def _origins(state: str, commands: tuple[Command, ...], asked: frozenset[str]) -> dict[str, Origin]:
    """Command -> where it fills the state from."""
    found: dict[str, Origin] = {}
    for c in commands:
        load: Load | None = c.acts.loads.get(state)
        if load is None:
            continue
        if isinstance(load.source, Rows):
            found[c.name] = Origin(load.source, load.at)
        # State can be filled from state in a circle (two buffers that swap): each is asked once.
        elif load.source.state not in asked:
            for o in _origins(load.source.state, commands, asked | {state}).values():
                # Lane k is lane n of the other state where both have one loop's name.
                if set(load.source.at) != set(load.at) or len(o.at) != len(load.at):
                    raise MeaningError(1, f"{c.name} fills {state} from other lanes")
                at = tuple(o.at[load.source.at.index(v)] for v in load.at)
                found[c.name] = Origin(o.source, at)
    return found


def _by_lane(origin: Origin) -> Tile:
    """Its tile with lane dimensions numbered, so that loops' names do not matter."""
    tile = tile_of(origin.source)
    number = {v: str(n) for n, v in enumerate(origin.at)}
    return Tile(
        tile.memory, tuple(number.get(d, d) for d in tile.dims),
        {number.get(d, d): s for d, s in tile.rows.items()},
        {number.get(d, d): s for d, s in tile.lanes.items()},
    )  # fmt: skip


def as_instructions(
    commands: tuple[Command, ...], memories: Mapping[str, RowMemory], dims: Mapping[str, int]
) -> tuple[tuple[Instruction, ...], tuple[Memory, ...], dict[str, str]]:
    """(instructions, memories of tiles, view -> rows). Raises: MeaningError where the commands make
    no contraction that an operator can use."""
    contracts = [c for c in commands if c.acts.kind == "contract"]
    if not contracts:
        raise MeaningError(1, "no command is a contraction")
    tiles = [operand_tiles(c.acts, commands) for c in contracts]
    # Views are by tile: several contractions of one tile (with and without preload) are one choice.
    if any(t != tiles[0] for t in tiles):
        raise MeaningError(1, "contractions of different tiles: the search covers by one of them")
    walked = {d for tile in tiles[0].values() for d in tile.dims}
    for v in (*(v for c in contracts for v in c.acts.loops), *walked):
        if v not in dims:
            raise MeaningError(1, f"loop '{v}' of a contraction is no dimension: {', '.join(dims)}")
        # Such a loop would only add the same again.
        if v not in walked:
            raise MeaningError(1, f"loop '{v}' of a contraction moves neither sums nor factors")
    found: list[Memory] = []
    for tile in tiles[0].values():
        rows = memories[tile.memory]
        lanes = 1 + sum(s * (dims[d] - 1) for d, s in tile.lanes.items())
        if lanes > rows.lanes:
            raise MeaningError(1, f"{lanes} lanes of {tile.memory}, which has {rows.lanes}")
        # Both factors may be one tile of one memory.
        if tile.view in (m.name for m in found):
            continue
        size = int(np.prod([dims[d] for d in tile.dims])) * np.dtype(rows.dtype).itemsize
        # An element is a whole tile, so the memory holds as many as stand one below the other.
        depth = rows.rows // tile.height(dims)
        found.append(
            Memory(
                name=tile.view, id=len(found), lanes=tile.dims, dtype=rows.dtype,
                dram_dtype=rows.dtype, depth=depth, portable_depth=depth, elem_bytes=size,
                load_queue="program", store_queue="program",
            )
        )  # fmt: skip
    name = contracts[0].name
    contract = Instruction(
        name=name, opcode=0, kind="contract", fields=(), roles={}, queue="program",
        statement=contracts[0].meaning.strip(), meaning=contracts[0].meaning,
        operands=tuple(Operand(r, t.view, t.dims, "", "", "") for r, t in tiles[0].items()),
    )  # fmt: skip
    dst = tiles[0]["dst"]
    # No command is called so: the search only needs to know which steps can follow the sums.
    field = Field("imm", 0, 32, signed=True)
    mapped = Instruction(
        name="EPILOGUE", opcode=1, kind="map", fields=(field,), roles={"imm": "imm"},
        queue="program",
        operands=tuple(Operand(r, dst.view, dst.dims, "", "", "") for r in ("dst", "lhs")),
        ops=tuple(MapOp(f, n, f) for n, f in enumerate(_STEPS)),
    )  # fmt: skip
    return (contract, mapped), tuple(found), {t.view: t.memory for t in tiles[0].values()}


def operand_tiles(acts: Acts, commands: tuple[Command, ...]) -> dict[str, Tile]:
    """Role -> tile of a contraction."""
    assert acts.dst is not None
    assert acts.lhs is not None
    assert acts.rhs is not None
    return {
        "dst": tile_of(acts.dst),
        "lhs": factor_tile(acts.lhs, commands),
        "rhs": factor_tile(acts.rhs, commands),
    }


__all__ = ["Origin", "Param", "Tile", "as_instructions", "factor_tile", "operand_tiles", "origin"]
