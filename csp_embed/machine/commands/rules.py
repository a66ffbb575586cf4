"""What the target of streams needs of a machine: a contraction, and copies that move its tiles."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np

from csp_embed.errors import SpecError
from csp_embed.machine.commands import reach
from csp_embed.machine.commands.acts import Limit, Param, Rows
from csp_embed.machine.commands.spec import Command
from csp_embed.machine.commands.tiles import Tile, operand_tiles
from csp_embed.machine.commands.transfers import Transfer, copies, stored_from, transfer
from csp_embed.machine.refused import refused
from csp_embed.machine.spec import Isa


def command_refusals(isa: Isa) -> Iterator[SpecError]:
    """Everything that keeps a stream from being written for this machine."""
    machine = isa.commands
    assert machine is not None
    # as_instructions has refused machines without one, and those whose contractions differ.
    contract = next(c for c in machine.commands if c.acts.kind == "contract")
    at = f"instructions.{contract.name}"
    tiles = operand_tiles(contract.acts, machine.commands)
    # Operators are int8 times int8 into int32; there is no correction here as for templates.
    wanted = {"dst": "int32", "lhs": "int8", "rhs": "int8"}
    for role, tile in tiles.items():
        dtype = machine.rows_of(tile.memory).dtype
        if dtype != wanted[role]:
            what = f"{'sums' if role == 'dst' else 'factors'} of {dtype}"
            hint = f"give {tile.memory} that type"
            yield refused(isa, what, f"operators have {wanted[role]}", hint, at)
    for c in machine.commands:
        yield from _parts(isa, c)
    # Without these three no operand can come in and no result get out.
    for kind, role in (("copy_in", "lhs"), ("copy_in", "rhs"), ("copy_out", "dst")):
        memory = tiles[role].memory
        # Sums that stay in state may be stored from rows.
        places = stored_from(machine, memory) if kind == "copy_out" else [memory]
        found = [c for place in places for c in copies(machine, kind, place)]
        if not found:
            hint = "add a command; isa_specs/gemmini.yaml has all"
            what = f"no {kind} of {memory}"
            yield refused(isa, what, "a program needs it", hint, "instructions")
            continue
        dtype = None if kind == "copy_out" else machine.rows_of(memory).dtype
        unfit = [unusable(isa, c, tiles[role], dtype) for c in found]
        if all(unfit):
            yield refused(isa, f"{found[0].name} moves no tile of {memory}", unfit[0],
                         "docs/commands.md has the forms of copies",
                         f"instructions.{found[0].name}")  # fmt: skip
    yield from _room(isa, tiles)


def unusable(isa: Isa, c: Command, tile: Tile, dtype: str | None) -> str:
    """Why a copy can move no such tile, or "". dtype: that it must have in HOST."""
    found = transfer(c, 1 + sum(s * (isa.dims[d] - 1) for d, s in tile.lanes.items()))
    if not isinstance(found, Transfer):
        return found
    if dtype is not None and found.dtype != dtype:
        return f"it converts {found.dtype}, and operands are {dtype}"
    width = 1 + sum(s * (isa.dims[d] - 1) for d, s in tile.lanes.items())
    if not found.strided() and found.rows != 1 and found.stride.value % found.unit:
        return (f"its rows lie {found.stride.value} bytes apart in HOST, and its addresses count"
                f" units of {found.unit}")  # fmt: skip
    if not found.apart(width):
        return (f"it moves rows that lie {found.stride.value} bytes apart in HOST, and rows of a"
                f" tile have {width * found.item}")  # fmt: skip
    height = tile.height(isa.dims)
    # Several commands make a tile, but the last one must not reach into the next.
    if found.rows is not None and height % found.rows:
        return f"it moves {found.rows} rows at once, a tile has {height}"
    return ""


def _parts(isa: Isa, c: Command) -> Iterator[SpecError]:
    """A bound by a field or state is set by the target; a smaller number would leave lanes of a
    tile without values."""
    where = f"instructions.{c.name}"
    if c.acts.kind == "contract":
        yield from _short(isa, c, c.acts.loops, c.acts.limits, isa.dims, where)
        yield from _short(isa, c, c.acts.begins, (), isa.dims, where)
    assert isa.commands is not None
    for name, load in c.acts.loads.items():
        # Loops of a load have names of their own; its lanes are those of the state.
        dims = isa.commands.state[name].dims
        if len(dims) != len(load.at):
            yield refused(isa, f"{c.name} names {len(load.at)} dimensions of {name}",
                         f"it has {', '.join(dims)}", "an index for each", where)  # fmt: skip
            continue
        sizes = {v: isa.dims[d] for v, d in zip(load.at, dims, strict=True)}
        held, source = isa.commands.state[name].dtype, load.source
        dtype = (isa.commands.memories[source.memory] if isinstance(source, Rows)
                 else isa.commands.state[source.state]).dtype  # fmt: skip
        if not np.can_cast(dtype, held):
            yield refused(isa, f"{c.name} fills {held} lanes of {name} from {dtype}",
                         "they do not hold all values", f"give {name} that type",
                         where)  # fmt: skip
        yield from _short(isa, c, load.loops, load.limits, sizes, where)


def _short(
    isa: Isa, c: Command, loops: Mapping[str, Param], limits: Iterable[Limit],
    sizes: Mapping[str, int], where: str,
) -> Iterator[SpecError]:  # fmt: skip
    for v, bound in loops.items():
        if bound.kind == "const" and bound.value != sizes[v]:
            yield refused(isa, f"{c.name} walks {bound.value} of {sizes[v]} lanes of {v}",
                         "a step is all lanes", f"write range({sizes[v]})", where)  # fmt: skip
    for limit in limits:
        all_ = 1 + sum(s * (sizes[v] - 1) for v, s in limit.steps.items())
        if limit.bound.kind == "const" and limit.bound.value < all_:
            yield refused(isa, f"{c.name} leaves out lanes from {limit.bound.value} on",
                         "a step is all lanes", f"write {all_}, or a field", where)  # fmt: skip


def _room(isa: Isa, tiles: Mapping[str, Tile]) -> Iterator[SpecError]:
    """Room for one tile of sums, and for two of each factor: one is used, one is filled."""
    machine = isa.commands
    assert machine is not None
    for role, tile in tiles.items():
        within, height = reach.rows(machine, tile.memory), tile.height(isa.dims)
        least = height if role == "dst" else 2 * height
        if within < least:
            yield refused(isa, f"{tile.memory} has too few rows",
                         f"all commands can name {within}; tiles of {height} rows need {least}",
                         "more `rows`, or wider fields", f"memories.{tile.memory}")  # fmt: skip
