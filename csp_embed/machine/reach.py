"""How much of a memory the fields of a machine can address, and which memory its results leave by.

Takes: an Isa.  Leaves: numbers that scheduling and emitting share. A field may be narrower than
the memory that it addresses: programs then use the elements that every field can name.
"""

from __future__ import annotations

from csp_embed.machine.spec import Isa


def reach(isa: Isa, name: str) -> int:
    """Elements 0 .. reach-1 of a memory that every implementation has and every field can name."""
    memory = isa.memory(name)
    # Portable depth: hardware may be built with less than the specification says.
    most = [memory.depth, memory.portable_depth]
    # All transfers share one address field, whatever memory they name.
    for instruction in isa.instructions:
        if instruction.kind in ("load", "store"):
            queue = memory.load_queue if instruction.kind == "load" else memory.store_queue
            if queue is not None:
                most.append(instruction.field(instruction.roles["sram"]).max + 1)
        elif instruction.kind in ("contract", "map") and name == isa.uop_memory:
            # A list occupies begin .. end-1.
            most.append(instruction.field(instruction.roles["uop_begin"]).max + 1)
            most.append(instruction.field(instruction.roles["uop_end"]).max)
        # Base addresses of operands are micro-op fields; factors only add to what these can name.
        for operand in instruction.operands:
            if operand.memory == name:
                most.append(next(f.max + 1 for f in isa.uop_fields if f.name == operand.uop_field))
    # The shadow of a memory is stored from the same elements.
    most += [reach(isa, m.name) for m in isa.memories if m.shadow_of == name and m.store_queue]
    return min(most)


def stored_memory(isa: Isa, name: str) -> str:
    """The memory that stores read for accumulators in `name`: its shadow where it has one."""
    for memory in isa.memories:
        if memory.shadow_of == name and memory.store_queue:
            return memory.name
    return name
