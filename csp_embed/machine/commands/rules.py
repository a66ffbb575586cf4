"""What the target of streams needs of a machine: a contraction, and copies that move its tiles."""

from __future__ import annotations

from collections.abc import Iterator

from csp_embed.errors import SpecError
from csp_embed.machine.commands.tiles import operand_tiles
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
        dtype = machine.memories[tile.memory].dtype
        if dtype != wanted[role]:
            what = f"{'sums' if role == 'dst' else 'factors'} of {dtype}"
            hint = f"give {tile.memory} that type"
            yield refused(isa, what, f"operators have {wanted[role]}", hint, at)
    # A bound by a field is filled by the target; a shorter number would leave lanes without sums.
    for v, bound in contract.acts.loops.items():
        if bound.kind == "const" and bound.value != isa.dims[v]:
            yield refused(isa, f"{contract.name} walks {bound.value} of {isa.dims[v]} lanes of {v}",
                         "a step is all lanes", f"write range({isa.dims[v]})", at)  # fmt: skip
    # Without these three no operand can come in and no result get out.
    for kind, role in (("copy_in", "lhs"), ("copy_in", "rhs"), ("copy_out", "dst")):
        memory = tiles[role].memory
        found = [c for c in machine.commands if c.acts.kind == kind and c.acts.dst.memory == memory]
        if not found:
            hint = "add a command; isa_specs/gemmini.yaml has all"
            what = f"no {kind} of {memory}"
            yield refused(isa, what, "a program needs it", hint, "instructions")
