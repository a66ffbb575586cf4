"""Functions of the C text that move data: operands into packed buffers, packed results out.

Takes: SourceProgram.  Leaves: lines of C, one function for each operand that is no constant and one
for a result that is not stored in place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from csp_embed.ir.operator import Operator
from csp_embed.targets.source.lower import SourceProgram
from csp_embed.targets.source.names import identifier
from csp_embed.targets.source.nest import Buffer
from csp_embed.targets.source.written.moves import results_lines, streams_lines
from csp_embed.targets.source.written.packing import pack_lines, unpack_lines
from csp_embed.targets.source.written.text import CTYPES
from csp_embed.targets.source.written.threads import shared

# Where no loop heads are copied (`ROLLED`), gcc 12 moves bytes one by one, ten times slower. So
# functions that move data stand before it, and must not be inlined behind it.
APART = """\
#if defined(__GNUC__)
#define APART __attribute__((noinline))
#else
#define APART
#endif"""


@dataclass(frozen=True)
class Move:
    """A function that fills or empties a buffer. role: of the operand. lines: its definition.
    call: the statement that calls it."""

    role: str
    lines: tuple[str, ...]
    call: str


def moves(program: SourceProgram, name: str, work: list[Buffer], threads: int) -> list[Move]:
    """Packing of each operand that is no constant, and unpacking of the result."""
    op, out = program.operator, []
    buffers = {b.name for b in work}
    for role, p in program.places.items():
        tensor = identifier(p.layout.tensor)
        if role != "dst" and not op.tensors[p.layout.tensor].constant:
            # Constants are packed elsewhere, once.
            said = f"{tensor} into {p.buffer}, lanes side by side."
            if role in program.streams:
                lines = streams_lines(program.streams[role], p.buffer, tensor, p.offset, "  ")
            else:
                lines = pack_lines(p, tensor, "  ")
        # A result that is stored in place has no buffer.
        elif role == "dst" and p.buffer in buffers:
            said = f"{p.buffer} into {tensor}."
            if program.results is not None:
                lines = results_lines(program.results, p.buffer, tensor, "  ")
            else:
                lines = unpack_lines(p, tensor, "  ")
        else:
            continue
        const = "" if role == "dst" else "const "
        called = f"{name}_{'drain' if role == 'dst' else 'fill'}_{p.buffer.rstrip('_')}"
        given = parameter(op, p.layout.tensor, const)
        # Only buffers that the lines name: others would be unused variables.
        kept = [local(b, "work", "") for b in used(work, lines)]
        head = f"static APART void {called}({given}, {name}_work_t *work) {{"
        text = (f"/* {said} */", head, *kept, *shared(lines, threads), "}")
        out.append(Move(role, text, f"{called}({tensor}, work);"))
    return out


def named(name: str, lines: Sequence[str]) -> bool:
    """Whether the lines say this name: a variable that none says would be unused."""
    # Whole words: acc_1 is no part of acc_10.
    return any(re.search(rf"\b{name}\b", line) for line in lines)


def used(buffers: list[Buffer], lines: Sequence[str]) -> list[Buffer]:
    """Those that the lines name."""
    return [b for b in buffers if named(b.name, lines)]


def parameter(op: Operator, tensor: str, const: str) -> str:
    """A tensor as a parameter."""
    dtype = op.out_dtype if tensor == op.out.tensor else op.tensors[tensor].dtype
    return f"{const}{CTYPES[dtype]} *restrict {identifier(tensor)}"


def local(b: Buffer, owner: str, const: str) -> str:
    """A struct's buffer as a variable."""
    return f"  {const}{CTYPES[b.dtype]} *restrict {b.name} = {owner}->{b.name};"
