"""Whether a machine can take a factor that is wider than int8 digit by digit (`ops/wide.py`)."""

from __future__ import annotations

from csp_embed.machine.spec import Isa

BYTE = 8  # bits of a digit


def shifts_left(isa: Isa) -> bool:
    """Whether an instruction of its stream shifts accumulators to the left by a byte."""
    # The other targets have no rounds of products with steps between them.
    if isa.program is not None or isa.commands is not None:
        return False
    mapped = next((i for i in isa.instructions if i.kind == "map"), None)
    if mapped is None or "imm" not in mapped.roles:
        return False
    shifts = any(o.function == "shr" and o.portable for o in mapped.ops)
    # Shifts to the left are shifts to the right by negative amounts.
    return shifts and mapped.field(mapped.roles["imm"]).min <= -BYTE
