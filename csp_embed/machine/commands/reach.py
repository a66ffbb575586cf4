"""How much of the machine's memories all commands can name.

Takes: a CommandMachine.  Leaves: numbers. A field, or the state that a field sets, may be narrower
than the memory that it addresses: programs then use what every command can name.
"""

from __future__ import annotations

from collections.abc import Iterator

from csp_embed.machine.commands.acts import Acts, Param, Rows
from csp_embed.machine.commands.spec import Command, CommandMachine


def rows(machine: CommandMachine, memory: str) -> int:
    """Rows 0 .. n-1 of a memory at which every command that uses it can begin."""
    found = machine.rows_of(memory).rows
    for c in machine.commands:
        for r in references(c.acts):
            if r.memory == memory:
                found = min(found, _most(machine, c, r.base, found - 1) + 1)
    return found


def host_bytes(machine: CommandMachine) -> int:
    """Bytes of HOST that every copy can reach."""
    found = machine.host_bytes
    for c in machine.commands:
        if c.acts.host is not None:
            found = min(found, _most(machine, c, c.acts.host.base, found - 1) + 1)
    return found


def references(a: Acts) -> Iterator[Rows]:
    """Rows that a command names, and those that it loads lanes of state from."""
    for x in (a.dst, a.lhs, a.rhs, a.to, *(load.source for load in a.loads.values())):
        if isinstance(x, Rows):
            yield x


def _most(machine: CommandMachine, command: Command, base: Param, unlimited: int) -> int:
    """The greatest value of a base; fixed ones limit nothing, for plans are made around them."""
    if base.kind == "field":
        return base.counts(command.fields[base.name].most)
    if base.kind == "const":
        return unlimited
    setters = [
        base.counts(s.source.counts(c.fields[s.source.name].most))
        for c in machine.commands
        for n, s in c.acts.settings.items() if n == base.name and s.source.kind == "field"
    ]  # fmt: skip
    return min(setters, default=unlimited)
