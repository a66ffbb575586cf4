"""Machines with several contractions: one view of the machine for each; the search looks at all.

A view is the machine as if it had that contraction alone, so that nothing behind the search needs
to know that there are others.
"""

from __future__ import annotations

from dataclasses import replace

from csp_embed.machine.spec import Isa


def views(isa: Isa) -> tuple[Isa, ...]:
    """The machine once for each contraction, in the file's order; itself where it has one."""
    if isa.program is None:
        return (isa,)
    names = [t.name for t in isa.program.contracts()]
    # A machine of one contraction stays the same object, so that caches by machine keep working.
    return tuple(contracted(isa, n) for n in names) if len(names) > 1 else (isa,)


def contracted(isa: Isa, name: str) -> Isa:
    """The machine with that contraction alone; itself where it has one, or none of that name."""
    program = isa.program
    if program is None or len(program.contracts()) < 2:
        return isa
    kept = [t for t in program.templates if t.kind != "contract" or t.name == name]
    chosen = next((t for t in kept if t.kind == "contract"), None)
    if chosen is None:
        return isa
    # Elementwise steps are those of the memory that its sums end in.
    results = program.results(chosen.slot("dst").memory)
    maps = [t for t in kept if t.kind == "map" and t.slot("dst").memory == results]
    instructions = tuple(
        replace(
            i, ops=tuple(o for o in i.ops if o.name in {t.name for t in maps}),
            operands=tuple(replace(x, memory=results, dims=isa.memory(results).lanes)
                           for x in i.operands),
        ) if i.kind == "map" else i
        for i in isa.instructions if i.kind != "contract" or i.name == name
    )  # fmt: skip
    return replace(isa, instructions=instructions, program=replace(program, templates=tuple(kept)))
